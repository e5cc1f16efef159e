//! What the brokers say about the declared topics: a client of its own asks, so that a sick
//! producer cannot make them look missing. IO.

use std::time::Duration;

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    types::RDKafkaErrorCode,
};

use super::{
    config::{ConfigError, client_config},
    fault::{Fault, fault_of, trouble_of},
    producer::{Trouble, log},
};
use crate::{report::ProblemClass, secrets::Secrets, settings::KafkaSettings};

/// How long the brokers may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Events of librdkafka that are looked at after a failure: log lines of each attempt come first.
const EVENTS_MAX: usize = 1000;

/// A declared topic as the brokers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicState {
    Missing,
    NotAuthorized,
    Exists {
        partitions: usize,
        replicas: usize,
        /// Each partition has a leader.
        led: bool,
    },
}

struct Context(Trouble);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(class) = error
            .rdkafka_error_code()
            .and_then(|code| trouble_of(code, reason))
        {
            self.0.set(class);
        }
    }
}

impl ConsumerContext for Context {}

/// Asks the brokers about topics.
pub struct Topics {
    client: BaseConsumer<Context>,
    trouble: Trouble,
}

impl Topics {
    /// A client that only asks.
    ///
    /// # Errors
    /// When a secret is missing, or librdkafka refuses the properties.
    pub fn new(
        settings: &KafkaSettings,
        secrets: &Secrets,
        client_id: &str,
    ) -> Result<Self, ConfigError> {
        let trouble = Trouble::default();
        let config = client_config(settings, secrets, client_id)?;
        let client = config
            .create_with_context(Context(trouble.clone()))
            .map_err(ConfigError::Create)?;
        Ok(Self { client, trouble })
    }

    /// Asks about one topic. Blocks for up to 5 s.
    ///
    /// # Errors
    /// The class of what keeps the brokers from answering.
    pub fn ask(&self, topic: &str) -> Result<TopicState, ProblemClass> {
        let metadata = match self.client.fetch_metadata(Some(topic), ANSWER_MAX) {
            Ok(metadata) => metadata,
            Err(error) => {
                // Serves the error callback, which knows more than this time-out.
                for _ in 0..EVENTS_MAX {
                    let _ = self.client.poll(Duration::ZERO);
                }
                let code = error.rdkafka_error_code().map(fault_of);
                return Err(self.trouble.get().unwrap_or(match code {
                    Some(Fault::Cluster(class)) => class,
                    _ => ProblemClass::KafkaUnreachable,
                }));
            }
        };
        self.trouble.clear();
        let Some(found) = metadata.topics().first() else {
            return Ok(TopicState::Missing);
        };
        match found.error().map(RDKafkaErrorCode::from) {
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Ok(TopicState::NotAuthorized),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Ok(TopicState::Missing)
            }
            _ if found.partitions().is_empty() => Ok(TopicState::Missing),
            _ => {
                let replicas = found
                    .partitions()
                    .iter()
                    .map(|partition| partition.replicas().len())
                    .min()
                    .unwrap_or(0);
                let led = found
                    .partitions()
                    .iter()
                    .all(|partition| partition.leader() >= 0);
                Ok(TopicState::Exists {
                    partitions: found.partitions().len(),
                    replicas,
                    led,
                })
            }
        }
    }
}
