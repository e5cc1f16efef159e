//! Requests `max.message.bytes`, `min.insync.replicas` and the limits of timestamps of topics from
//! the brokers. IO.

use std::{str::FromStr, time::Duration};

use rdkafka::{
    ClientContext,
    admin::{AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier},
    config::RDKafkaLogLevel,
};

use crate::{
    kafka::{
        batch_limits::{LimitsByTopic, TopicLimits},
        config::client_config,
        producer::log,
    },
    secrets::Secrets,
    settings::KafkaSettings,
};

/// Longest wait for the brokers' answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

/// Requests the limits of `topics` and returns them in the same order; waits up to 5 s for the
/// answer. Returns `None` if there is no answer, or if the brokers do not support the request: the
/// limits that the caller already has remain the best ones.
///
/// The limits of a topic are unknown if it is missing, or if the relay's user lacks
/// `DescribeConfigs` on it. The client is created for one request, which is sent about once a
/// minute, so it always uses the current secrets.
///
/// # Cancel safety
/// Cancel-safe: nothing is changed. The request is abandoned, and its client is closed.
pub async fn request_topic_limits(
    settings: &KafkaSettings,
    secrets: &Secrets,
    client_id: &str,
    topics: &[&str],
) -> Option<LimitsByTopic> {
    let config = client_config(settings, secrets, client_id).ok()?;
    let client: AdminClient<Context> = config.create_with_context(Context).ok()?;
    let resources = topics.iter().map(|topic| ResourceSpecifier::Topic(topic));
    let resources: Vec<_> = resources.collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT));
    let answers = client.describe_configs(&resources, &options).await.ok()?;
    let answers: Vec<_> = answers.iter().flatten().collect();
    let limits = topics.iter().map(|topic| limits_of(topic, &answers));
    Some(LimitsByTopic(limits.collect()))
}

/// Limits of one topic; unknown if there is no answer for it.
fn limits_of(topic: &str, answers: &[&ConfigResource]) -> TopicLimits {
    let config = answers.iter().find(|config| is_of(config, topic));
    config.map(|config| limits_in(config)).unwrap_or_default()
}

fn is_of(config: &ConfigResource, topic: &str) -> bool {
    matches!(&config.specifier, OwnedResourceSpecifier::Topic(name) if name == topic)
}

fn limits_in(config: &ConfigResource) -> TopicLimits {
    TopicLimits {
        max_message_bytes: number(config, "max.message.bytes"),
        min_insync_replicas: number(config, "min.insync.replicas"),
        retention_ms: number(config, "retention.ms"),
        timestamp_before_max_ms: number(config, "message.timestamp.before.max.ms"),
        timestamp_difference_max_ms: number(config, "message.timestamp.difference.max.ms"),
    }
}

/// The value of a property; `None` if the topic does not have it. A negative one, such as
/// `retention.ms=-1`, is no limit.
fn number<T: FromStr>(config: &ConfigResource, name: &str) -> Option<T> {
    config.get(name)?.value.as_ref()?.parse().ok()
}
