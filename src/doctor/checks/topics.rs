//! Checks of the brokers and the declared topics. Pure.

use crate::{
    doctor::{
        checks::{database::by_mode, skip},
        codes::{Code, Group},
        facts::{Fact, SettingsFacts, TopicFacts},
        report::{Finding, Outcome},
    },
    kafka::{TopicDescription, TopicLimits},
    relay::topic_metadata::problems::topic_problem,
    report::ProblemClass,
};

/// Age of timestamps that the relay assumes to be accepted, and that rows may reach in an outage.
const TIMESTAMP_AGE_MIN_MS: u64 = 60 * 60 * 1000;

/// Whether the connection is protected, by the settings alone.
pub(super) fn tls(settings: &SettingsFacts) -> Finding {
    by_mode(Code::KafkaTls, settings.kafka_tls)
}

/// All checks of both groups but [`tls`].
pub(super) fn all(kafka: Option<&Fact<Vec<TopicFacts>>>) -> Vec<Finding> {
    let is_of_topics = |code: Code| code.group() == Group::Topics;
    match kafka {
        Some(Ok(topics)) => {
            let login = Finding::ok(Code::KafkaLogin, "the brokers answer");
            let topics = topics.iter().flat_map(topic);
            std::iter::once(login).chain(topics).collect()
        }
        Some(Err(problem)) => {
            let mut findings = skip(Code::KafkaLogin, is_of_topics);
            findings.push(Finding::problem(Code::KafkaLogin, problem));
            findings
        }
        None => skip(Code::Settings, |code| {
            is_of_topics(code) || code == Code::KafkaLogin
        }),
    }
}

fn topic(topic: &TopicFacts) -> Vec<Finding> {
    let exists = exists(topic);
    let others = [Code::TopicReplicas, Code::TopicSize, Code::TopicTimestamps];
    let findings = if exists.outcome == Outcome::Fault {
        others.map(|code| Finding::skipped(code, Code::TopicExists))
    } else {
        [replicas(topic), size(topic), timestamps(topic)]
    };
    let findings = std::iter::once(exists).chain(findings);
    findings.map(|finding| finding.of(&*topic.name)).collect()
}

fn exists(topic: &TopicFacts) -> Finding {
    let code = Code::TopicExists;
    match topic.description {
        TopicDescription::Missing => {
            Finding::fault(code, "it does not exist: create it, relays create no topic")
        }
        TopicDescription::NotAuthorized => Finding::fault(
            code,
            "the relay's user may not describe it: allow WRITE and DESCRIBE on it",
        ),
        TopicDescription::Exists {
            has_leaders: false, ..
        } => Finding::fault(
            code,
            "a partition has no leader, so its rows wait: bring its brokers back",
        ),
        TopicDescription::Exists { partitions, .. } => {
            Finding::ok(code, format!("{partitions} partitions"))
        }
    }
}

/// What a right would answer.
fn unreadable(code: Code) -> Finding {
    let why = "its configuration cannot be read: allow DESCRIBE_CONFIGS on it";
    Finding::new(code, Outcome::Unknown, why)
}

fn replicas(topic: &TopicFacts) -> Finding {
    let code = Code::TopicReplicas;
    let limits = topic.limits.unwrap_or_default();
    let problem = topic_problem(&topic.name, topic.description, limits);
    match problem.filter(|problem| problem.class == ProblemClass::TopicUnderReplicated) {
        Some(problem) if problem.message.contains("no record can be acknowledged") => {
            Finding::fault(code, problem.message)
        }
        Some(problem) => Finding::warning(code, problem.message),
        None if limits.min_insync_replicas.is_none() => unreadable(code),
        None => Finding::ok(code, "enough"),
    }
}

fn size(topic: &TopicFacts) -> Finding {
    let code = Code::TopicSize;
    match topic.limits.and_then(|limits| limits.max_message_bytes) {
        Some(bytes) => Finding::ok(code, format!("max.message.bytes={bytes}")),
        None => unreadable(code),
    }
}

fn timestamps(topic: &TopicFacts) -> Finding {
    let code = Code::TopicTimestamps;
    let Some(limits) = topic
        .limits
        .filter(|limits| *limits != TopicLimits::default())
    else {
        return unreadable(code);
    };
    let short = short_limits(limits);
    if short.is_empty() {
        return Finding::ok(code, "rows that waited for an hour keep their time");
    }
    let message = format!(
        "{}: rows that waited longer than half of it get a later timestamp, and records may be \
         deleted before consumers read them; raise it above an hour",
        short.join(", ")
    );
    Finding::warning(code, message)
}

/// Limits that rows can exceed in an outage, as `name=value`.
fn short_limits(limits: TopicLimits) -> Vec<String> {
    let before_max = limits.timestamp_before_max_ms;
    let difference_max = limits.timestamp_difference_max_ms;
    let known = [
        ("retention.ms", limits.retention_ms),
        ("message.timestamp.before.max.ms", before_max),
        ("message.timestamp.difference.max.ms", difference_max),
    ];
    let is_short = |ms: &u64| *ms < TIMESTAMP_AGE_MIN_MS;
    let short = known
        .into_iter()
        .filter_map(|(name, ms)| Some((name, ms.filter(is_short)?)));
    short.map(|(name, ms)| format!("{name}={ms}")).collect()
}
