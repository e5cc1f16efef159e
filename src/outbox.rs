//! The outbox table: connecting, its schema, its statements. The only place that imports sqlx.

pub mod admin;
pub mod adopt;
mod bell;
pub mod connect;
mod ctid;
mod database_clock;
pub mod error;
mod ids;
pub mod migrate;
mod row;
mod row_text;
pub mod schema;
mod schema_drift;
mod snapshot;
mod store;
mod unit_of_work;

pub use bell::Bell;
pub use ctid::Ctid;
pub use database_clock::DatabaseClock;
pub use ids::{Lane, RowId, RowIdentity};
pub use row::{FetchMoment, Fetched, OutboxRow, SequenceState};
pub use row_text::RowText;
pub use schema_drift::{SchemaDrift, check_drift};
pub use snapshot::{ParseSnapshotError, Snapshot};
pub use store::{
    BacklogPlan, Depth, FetchFilter, FetchRequest, GapScanPlan, Grant, LaneBacklog, LaneGapScan,
    LaneRead, LaneWatermark, Operation, Others, Parked, ParkedKey, ParkedRow, ParkedRows, Pools,
    READER_OPTIONS, Resumed, SettleRow, Store, StoreError, StoreErrorSource, Survey, TableWide,
};
pub use unit_of_work::{Connections, Statement, UnitOfWork};
