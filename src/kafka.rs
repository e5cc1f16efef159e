//! Kafka: rows become records, records become reports. The only place that imports rdkafka.

mod config;
mod fault;
mod limits;
mod partitioner;
mod producer;
mod record;
mod sizes;
mod topics;

pub use config::{ConfigError, client_config};
pub use fault::{DeliveryError, classify};
pub use limits::ask_limits;
pub use partitioner::partition_of;
pub use producer::{LastClusterError, Producer, Report};
pub use record::{HeaderError, headers, rfc3339, timestamp_ms};
pub use sizes::{BATCH_BYTES_MIN, Limits, Sizes, TopicLimits, sizes};
pub use topics::{TopicState, Topics};
