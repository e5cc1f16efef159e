//! The outbox table: connecting, its schema, its statements. The only place that imports sqlx.

pub mod admin;
pub mod connect;
mod ctid;
pub mod error;
pub mod migrate;
mod parking;
mod row;
mod row_text;
pub mod schema;
mod schema_drift;
mod snapshot;
mod store;
mod unit_of_work;

pub use ctid::Place;
pub use parking::{Parked, ParkedKey, ParkedRow, TableWide};
pub use row::{Fetched, OutboxRow, SequenceState};
pub use row_text::Texts;
pub use schema_drift::{Altered, altered};
pub use snapshot::{ParseSnapshotError, Snapshot};
pub use store::{
    BacklogPlan, Depth, FetchPlan, Flowing, Grant, LaneMarksPlan, Others, ParkedRows, Pools,
    READER_OPTIONS, Resumed, SettlePlan, Store, StoreError, StoreErrorSource, Survey, SweepPlan,
};
pub use unit_of_work::{Connections, Statement, Work};
