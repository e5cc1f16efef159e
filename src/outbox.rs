//! The outbox table: rows, statements. The only place that knows PostgreSQL. (To be merged with connect, error, migrate, schema.)
mod row;
mod snapshot;
mod store;

pub use row::{Fetched, OutboxRow};
pub use snapshot::{ParseSnapshotError, Snapshot};
pub use store::{
    Depth, FetchPlan, Flowing, Grant, LaneMarksPlan, Pools, READER_OPTIONS, SettlePlan, Store, StoreError, StoreErrorSource, Survey,
};
