//! The relay's statements, one function each, without decisions. IO.
//!
//! Each kind of work has its own connections, so that a slow fetch cannot delay the renewal of a
//! lease. All statements go through [`crate::outbox::unit_of_work`].

mod error;
mod lease;
mod operation;
mod parking;
mod plans;
mod reading;
mod sequence;
mod settling;
mod statements;

use std::sync::{Arc, atomic::AtomicBool};

use sqlx::{FromRow, postgres::PgRow};

use crate::{
    outbox::{
        connect::Setting,
        ids::Lane,
        row::DecodeError,
        unit_of_work::{Connections, Statement},
    },
    settings::SchemaName,
};
pub(super) use error::failed;
use parking::ParkingStatements;
use statements::Statements;

pub use error::{StoreError, StoreErrorSource};
pub use operation::Operation;
pub use parking::{Parked, ParkedDigest, ParkedKey, ParkedReading, ParkedRow, TableWide};
pub use plans::{
    BacklogPlan, Depth, FetchFilter, FetchRequest, GapScanPlan, Grant, LaneBacklog, LaneGapScan,
    LaneRead, LaneWatermark, Others, ParkedRows, Resumed, SettleRow, Survey, WantedParked,
    WantedRow,
};

/// Session settings of the connections that read lanes. Without statistics the planner would rather
/// sort or scan the table than walk its one index.
pub const READER_OPTIONS: &[Setting] = &[
    ("enable_bitmapscan", "off"),
    ("enable_sort", "off"),
    ("enable_seqscan", "off"),
    ("jit", "off"),
];

/// Connections by kind of work. Each connects on first use, and again after a failure.
#[derive(Clone)]
pub struct Pools {
    /// Fetches rows; created with [`READER_OPTIONS`].
    pub reader: Connections,
    /// Settles, counts and scans for gaps; created with [`READER_OPTIONS`] too.
    pub settler: Connections,
    /// Renews the lease, claims and releases lanes.
    pub lease: Connections,
}

/// The relay's access to the outbox.
#[derive(Clone)]
pub struct Store {
    pools: Pools,
    statements: Arc<Statements>,
    parking: Arc<ParkingStatements>,
    /// Set once the database was found to have text that cannot become UTF-8.
    has_other_text: Arc<AtomicBool>,
}

impl Store {
    /// Prepares the texts of the statements. Does not connect.
    #[must_use]
    pub fn new(pools: Pools, schema: &SchemaName) -> Self {
        Self {
            pools,
            statements: Arc::new(Statements::new(schema)),
            parking: Arc::new(ParkingStatements::new(schema)),
            has_other_text: Arc::default(),
        }
    }

    /// Connections that settle, count and scan.
    #[must_use]
    pub fn settle_connections(&self) -> &Connections {
        &self.pools.settler
    }

    /// Connections of the lease, for queries before there is a lease.
    #[must_use]
    pub fn lease_connections(&self) -> &Connections {
        &self.pools.lease
    }
}

/// Runs one statement in a transaction of its own and returns all its rows.
async fn rows(
    connections: &Connections,
    operation: Operation,
    statement: Statement<'_>,
) -> Result<Vec<PgRow>, StoreError> {
    connections.rows(statement).await.map_err(failed(operation))
}

/// Runs one statement in a transaction of its own and returns its first row.
async fn row(
    connections: &Connections,
    operation: Operation,
    statement: Statement<'_>,
) -> Result<PgRow, StoreError> {
    connections.row(statement).await.map_err(failed(operation))
}

/// Runs one statement in a transaction of its own and ignores its rows.
async fn execute(
    connections: &Connections,
    operation: Operation,
    statement: Statement<'_>,
) -> Result<(), StoreError> {
    rows(connections, operation, statement).await.map(drop)
}

/// Decodes the columns of a row into a tuple.
fn tuple<T: for<'r> FromRow<'r, PgRow>>(
    operation: Operation,
    row: &PgRow,
) -> Result<T, StoreError> {
    T::from_row(row).map_err(failed(operation))
}

/// Decodes the columns of each row into a tuple.
fn tuples<T: for<'r> FromRow<'r, PgRow>>(
    operation: Operation,
    rows: &[PgRow],
) -> Result<Vec<T>, StoreError> {
    rows.iter().map(|row| tuple(operation, row)).collect()
}

/// Decodes a transaction id in column 0, which is sent as text.
fn xid(operation: Operation, row: &PgRow) -> Result<u64, StoreError> {
    let (text,): (String,) = tuple(operation, row)?;
    text.parse()
        .map_err(|_| DecodeError::Value)
        .map_err(failed(operation))
}

/// The values of one column, for a parameter that is an array.
fn column<T, V>(items: &[T], value: impl Fn(&T) -> V) -> Vec<V> {
    items.iter().map(value).collect()
}

/// Numbers of lanes, for a parameter that is an array.
fn lane_numbers(lanes: &[Lane]) -> Vec<i16> {
    column(lanes, |lane| i16::from(*lane))
}

/// A count of rows. The server never sends a negative one.
fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
