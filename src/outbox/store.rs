//! The relay's statements, one function each, free of decisions. IO.
//!
//! Each kind of work has its own connections, so that a slow fetch can never keep a lease from
//! being renewed. All go through [`super::work`].

mod error;
mod lease;
mod parking;
mod plans;
mod reading;
mod sequence;
mod settling;
mod statements;

use std::sync::Arc;

use sqlx::{FromRow, postgres::PgRow};

use crate::{
    outbox::{connect::Setting, row::DecodeError, unit_of_work::Connections},
    settings::SchemaName,
};
pub(super) use error::failed;
use parking::ParkingStatements;
use statements::Statements;

pub use error::{StoreError, StoreErrorSource};
pub use parking::{Parked, ParkedKey, ParkedRow, TableWide};
pub use plans::{
    BacklogPlan, Depth, FetchFilter, FetchRequest, GapScanPlan, Grant, LaneWatermarks, Others,
    ParkedRows, Resumed, SettlePlan, Survey,
};

/// Session settings of the connections that read lanes: without statistics the planner would rather
/// sort or scan than walk the one index.
pub const READER_OPTIONS: &[Setting] = &[
    ("enable_bitmapscan", "off"),
    ("enable_sort", "off"),
    ("enable_seqscan", "off"),
    ("jit", "off"),
];

/// Connections by kind of work. Each connects when first used, and again after a failure.
#[derive(Clone)]
pub struct Pools {
    /// Reads lanes; made with [`READER_OPTIONS`].
    pub reader: Connections,
    /// Settles, counts and sweeps; made with [`READER_OPTIONS`] too.
    pub settler: Connections,
    pub lease: Connections,
}

/// The relay's side of the outbox.
#[derive(Clone)]
pub struct Store {
    pools: Pools,
    statements: Arc<Statements>,
    parking: Arc<ParkingStatements>,
}

impl Store {
    #[must_use]
    pub fn new(pools: Pools, schema: &SchemaName) -> Self {
        Self {
            pools,
            statements: Arc::new(Statements::new(schema)),
            parking: Arc::new(ParkingStatements::new(schema)),
        }
    }

    /// Connections of the lease, for whoever asks before there is one.
    #[must_use]
    pub fn lease_connections(&self) -> &Connections {
        &self.pools.lease
    }
}

/// Rows as tuples of their columns.
fn tuples<T: for<'r> FromRow<'r, PgRow>>(rows: &[PgRow]) -> Result<Vec<T>, sqlx::Error> {
    rows.iter().map(T::from_row).collect()
}

fn xid(text: &str) -> Result<u64, DecodeError> {
    text.parse().map_err(|_| DecodeError::Value)
}
