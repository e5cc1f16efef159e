//! Requests metadata of the declared topics. It has a client of its own, so that a failed producer
//! cannot make topics look missing. IO.

use std::time::Duration;

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    metadata::{MetadataPartition, MetadataTopic},
    types::RDKafkaErrorCode,
};

use crate::{
    kafka::{
        config::{ConfigError, client_config},
        delivery_error::{DeliveryError, classify, cluster_problem},
        producer::{LastClusterError, log},
    },
    report::ProblemClass,
    secrets::Secrets,
    settings::KafkaSettings,
};

/// Longest wait for the brokers' answer to one request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of librdkafka events that are served after a failed request. Log lines of each
/// connection attempt come before the error event that explains the failure.
const EVENTS_MAX: usize = 1000;

/// State of a declared topic, as the brokers report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicDescription {
    /// The topic does not exist, or has no partition yet.
    Missing,
    /// The relay's user may not describe the topic.
    NotAuthorized,
    /// The topic exists.
    Exists {
        /// Number of partitions.
        partitions: usize,
        /// Smallest number of replicas of any partition.
        replicas: usize,
        /// Whether each partition has a leader.
        has_leaders: bool,
    },
}

struct Context(LastClusterError);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(class) = error
            .rdkafka_error_code()
            .and_then(|code| cluster_problem(code, reason))
        {
            self.0.set(class);
        }
    }
}

impl ConsumerContext for Context {}

/// Client that requests metadata of topics, and nothing else.
pub struct MetadataClient {
    client: BaseConsumer<Context>,
    cluster_error: LastClusterError,
}

impl MetadataClient {
    /// Creates the client; it connects in the background.
    ///
    /// # Errors
    /// If a secret is missing or cannot be used, or librdkafka rejects the properties.
    pub fn new(
        settings: &KafkaSettings,
        secrets: &Secrets,
        client_id: &str,
    ) -> Result<Self, ConfigError> {
        let cluster_error = LastClusterError::default();
        let config = client_config(settings, secrets, client_id)?;
        let client = config
            .create_with_context(Context(cluster_error.clone()))
            .map_err(ConfigError::Create)?;
        Ok(Self {
            client,
            cluster_error,
        })
    }

    /// Requests the state of one topic. Blocks for up to 5 s.
    ///
    /// # Errors
    /// If the brokers do not answer: the class of problem that prevents it.
    pub fn describe(&self, topic: &str) -> Result<TopicDescription, ProblemClass> {
        let metadata = self
            .client
            .fetch_metadata(Some(topic), ANSWER_TIMEOUT)
            .map_err(|error| self.failure(&error))?;
        self.cluster_error.clear();
        let found = metadata.topics().first();
        Ok(found.map_or(TopicDescription::Missing, description))
    }

    /// Class of problem behind a failed request.
    fn failure(&self, error: &KafkaError) -> ProblemClass {
        // The error callback has more detail than this time-out.
        self.serve_events();
        let reported = self.cluster_error.get();
        reported.unwrap_or_else(|| class_by_code(error))
    }

    /// Serves librdkafka's waiting events, so that it calls the error callback.
    fn serve_events(&self) {
        for _ in 0..EVENTS_MAX {
            let _ = self.client.poll(Duration::ZERO);
        }
    }
}

/// Class of problem that the code of a failed request indicates.
fn class_by_code(error: &KafkaError) -> ProblemClass {
    let delivery_error = error.rdkafka_error_code().map(classify);
    let class = delivery_error.and_then(DeliveryError::cluster_class);
    class.unwrap_or(ProblemClass::KafkaUnreachable)
}

fn description(topic: &MetadataTopic) -> TopicDescription {
    use RDKafkaErrorCode as Code;
    match topic.error().map(Code::from) {
        Some(Code::TopicAuthorizationFailed) => TopicDescription::NotAuthorized,
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => TopicDescription::Missing,
        _ if topic.partitions().is_empty() => TopicDescription::Missing,
        _ => existing(topic.partitions()),
    }
}

fn existing(partitions: &[MetadataPartition]) -> TopicDescription {
    TopicDescription::Exists {
        partitions: partitions.len(),
        replicas: fewest_replicas(partitions),
        has_leaders: have_leaders(partitions),
    }
}

fn fewest_replicas(partitions: &[MetadataPartition]) -> usize {
    let replicas = partitions.iter().map(|one| one.replicas().len());
    replicas.min().unwrap_or(0)
}

fn have_leaders(partitions: &[MetadataPartition]) -> bool {
    // A partition without a leader has leader -1.
    partitions.iter().all(|one| one.leader() >= 0)
}
