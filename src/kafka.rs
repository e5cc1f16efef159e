//! Kafka: rows become records, records become delivery reports. The only module that imports
//! rdkafka.

mod batch_limits;
mod config;
mod delivery_error;
mod idempotence;
mod metadata_client;
mod partitioner;
mod producer;
mod producer_set;
mod record;
pub mod replaced_producers;
mod statistics;
mod topic_limits;

pub use batch_limits::{
    BATCH_BYTES_MIN, BatchLimits, LimitsByTopic, TOPIC_BYTES_UNKNOWN, TopicLimits,
};
pub use config::{ConfigError, client_config};
pub use delivery_error::{DeliveryError, classify};
pub use metadata_client::{MetadataClient, TopicDescription};
pub use partitioner::partition_of;
pub use producer::{
    Acknowledged, DeliveryReport, LastClusterError, Observations, Producer, ProducerKind, Record,
    WantedProducer,
};
pub use producer_set::{ClientId, ProducerSet};
pub use record::{HeaderError, headers, rfc3339, timestamp_ms};
pub use statistics::{BrokerTimes, Statistics};
pub use topic_limits::request_topic_limits;
