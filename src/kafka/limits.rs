//! Asks the brokers for `max.message.bytes` and `min.insync.replicas` of topics. IO.

use std::time::Duration;

use rdkafka::{
    ClientContext,
    admin::{
        AdminClient, AdminOptions, ConfigResource, ConfigResourceResult, OwnedResourceSpecifier,
        ResourceSpecifier,
    },
    config::RDKafkaLogLevel,
};

use super::{
    config::client_config,
    producer::log,
    sizes::{Limits, TopicLimits},
};
use crate::{secrets::Secrets, settings::KafkaSettings};

/// How long the brokers may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

/// Limits of `topics`, in their order. `None`: no answer, or brokers that do not know the question;
/// then nothing new is known.
///
/// A topic that is missing, or that we may not describe the configuration of (`DescribeConfigs`),
/// is unknown. The client lives for one question: it is asked every minute, and reads its secrets
/// anew.
pub async fn ask_limits(
    settings: &KafkaSettings,
    secrets: &Secrets,
    client_id: &str,
    topics: &[&str],
) -> Option<Limits> {
    let config = client_config(settings, secrets, client_id).ok()?;
    let client: AdminClient<Context> = config.create_with_context(Context).ok()?;
    let questions: Vec<_> = topics
        .iter()
        .map(|topic| ResourceSpecifier::Topic(topic))
        .collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX));
    let answers = client.describe_configs(&questions, &options).await.ok()?;
    Some(Limits(
        topics
            .iter()
            .map(|topic| limits_of(topic, &answers))
            .collect(),
    ))
}

fn limits_of(topic: &str, answers: &[ConfigResourceResult]) -> TopicLimits {
    let is_it = |answer: &&ConfigResource| matches!(&answer.specifier, OwnedResourceSpecifier::Topic(name) if name == topic);
    let answer = answers.iter().flatten().find(is_it);
    let number = |name| answer?.get(name)?.value.as_ref()?.parse().ok();
    TopicLimits {
        max_message_bytes: number("max.message.bytes"),
        min_insync_replicas: number("min.insync.replicas"),
    }
}
