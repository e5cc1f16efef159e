//! Asks the brokers for `max.message.bytes` of topics. IO.

use std::time::Duration;

use rdkafka::{
    ClientContext,
    admin::{AdminClient, AdminOptions, ConfigResource, ConfigResourceResult, OwnedResourceSpecifier, ResourceSpecifier},
    config::RDKafkaLogLevel,
};

use super::{config::client_config, producer::log, sizes::Limits};
use crate::{secrets::Secrets, settings::KafkaSettings};

/// How long the brokers may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

/// Limits of `topics`, in their order. `None`: no answer, or brokers that do not know the question; then nothing new is known.
///
/// A topic that is missing, or that we may not describe the configuration of (`DescribeConfigs`), is unknown. The client lives for one
/// question: it is asked every few minutes, and reads its secrets anew.
pub async fn ask_limits(settings: &KafkaSettings, secrets: &Secrets, client_id: &str, topics: &[&str]) -> Option<Limits> {
    let config = client_config(settings, secrets, client_id).ok()?;
    let client: AdminClient<Context> = config.create_with_context(Context).ok()?;
    let questions: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX));
    let answers = client.describe_configs(&questions, &options).await.ok()?;
    Some(Limits(topics.iter().map(|topic| limit_of(topic, &answers)).collect()))
}

fn limit_of(topic: &str, answers: &[ConfigResourceResult]) -> Option<usize> {
    let is_it = |answer: &&ConfigResource| matches!(&answer.specifier, OwnedResourceSpecifier::Topic(name) if name == topic);
    let answer = answers.iter().flatten().find(is_it)?;
    answer.get("max.message.bytes")?.value.as_ref()?.parse().ok()
}
