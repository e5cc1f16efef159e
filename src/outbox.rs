//! The outbox table: connecting, its schema, its statements. The only place that imports sqlx.

mod altered;
pub mod connect;
pub mod desk;
pub mod error;
pub mod migrate;
mod parking;
mod place;
mod row;
pub mod schema;
mod snapshot;
mod store;
mod texts;
mod work;

pub use altered::{Altered, altered};
pub use parking::{Parked, ParkedKey, ParkedRow, TableWide};
pub use place::Place;
pub use row::{Fetched, OutboxRow, SequenceState};
pub use snapshot::{ParseSnapshotError, Snapshot};
pub use store::{
    BacklogPlan, Depth, FetchPlan, Flowing, Grant, LaneMarksPlan, Others, ParkedRows, Pools,
    READER_OPTIONS, Resumed, SettlePlan, Store, StoreError, StoreErrorSource, Survey, SweepPlan,
};
pub use texts::Texts;
pub use work::{Connections, Statement, Work};
