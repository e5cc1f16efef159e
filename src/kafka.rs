//! Kafka: rows become records, records become reports. The only place that imports rdkafka.

mod config;
mod fault;
mod producer;
mod record;
mod topics;

pub use config::{ConfigError, client_config};
pub use fault::{Fault, fault_of};
pub use producer::{Producer, Report, Trouble};
pub use record::{HeaderError, headers, rfc3339, timestamp_ms};
pub use topics::{TopicState, Topics};
