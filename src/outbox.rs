//! The outbox table: connecting, its schema, its statements. The only place that imports sqlx.

pub mod admin;
pub mod adopt;
mod bell;
pub mod connect;
mod ctid;
mod database_clock;
pub mod doctor;
pub mod error;
mod ids;
pub mod migrate;
mod rights;
mod row;
pub mod row_sql;
mod row_text;
pub mod schema;
mod schema_drift;
mod schema_facts;
mod server_product;
mod snapshot;
mod store;
mod unit_of_work;

pub use bell::Bell;
pub use ctid::Ctid;
pub use database_clock::DatabaseClock;
pub use ids::{Lane, RowId, RowIdentity};
pub use rights::with_lacking_rights;
pub use row::{Content, FetchMoment, Fetched, OutboxRow, RowFault, SequenceState, TextColumn};
pub use row_text::RowText;
pub use schema_drift::{SchemaDrift, judge_drift};
pub use schema_facts::{ExpectedFact, SchemaFact, expected_facts, fetch_facts, write_expectations};
pub use server_product::{UnsupportedProduct, check_product};
pub use snapshot::{ParseSnapshotError, Snapshot};
pub use store::{
    BacklogPlan, Depth, FetchFilter, FetchRequest, GapScanPlan, Grant, LaneBacklog, LaneGapScan,
    LaneRead, LaneWatermark, Operation, Others, Parked, ParkedDigest, ParkedKey, ParkedReading,
    ParkedRow, ParkedRows, Pools, READER_OPTIONS, Resumed, SettleRow, Store, StoreError,
    StoreErrorSource, Survey, TableWide, WantedParked, WantedRow,
};
pub use unit_of_work::{Connections, Statement, UnitOfWork};
