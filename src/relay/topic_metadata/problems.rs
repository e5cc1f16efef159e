//! What is wrong with the cluster or a topic, as it goes into a report. Pure.

use crate::{
    kafka::{TopicDescription, TopicLimits},
    relay::core::partition_growth::Growth,
    report::{Problem, ProblemClass},
};

/// Copies of a record that the no-loss contract needs, and how many of them before it is
/// acknowledged.
const REPLICAS_MIN: usize = 3;
const INSYNC_MIN: usize = 2;

/// What needs no second look soon.
pub(super) fn is_advice(class: ProblemClass) -> bool {
    matches!(
        class,
        ProblemClass::TopicUnderReplicated | ProblemClass::PartitionsAdded
    )
}

pub(super) fn growth_problem(name: &str, Growth { from, to }: Growth) -> Problem {
    let message = format!(
        "topic '{name}' went from {from} to {to} partitions: keys move, and a key's order does \
         not hold across that moment; compare outbox_seq"
    );
    Problem::new(ProblemClass::PartitionsAdded, message)
}

/// As it goes into a report.
pub(in crate::relay) fn cluster_problem(class: ProblemClass, servers: &str) -> Problem {
    let why = match class {
        ProblemClass::KafkaAuthenticationFailed => {
            "refused the login: check spec.kafka.sasl and its Secret"
        }
        ProblemClass::KafkaTlsFailed => {
            "failed the TLS check: check spec.kafka.tls, the CA and the host name"
        }
        _ => {
            "cannot be reached: check spec.kafka.bootstrapServers and the network; rows wait \
             until it can"
        }
    };
    Problem::new(class, format!("Kafka at {servers} {why}"))
}

pub(super) fn topic_problem(
    name: &str,
    state: TopicDescription,
    limits: TopicLimits,
) -> Option<Problem> {
    match state {
        TopicDescription::Missing => Some(Problem::new(
            ProblemClass::TopicMissing,
            format!("topic '{name}' does not exist: create it; its rows wait until then"),
        )),
        TopicDescription::NotAuthorized => {
            let message = format!(
                "topic '{name}' is not ours to use: allow WRITE and DESCRIBE on it; its rows wait \
                 until then"
            );
            Some(Problem::new(ProblemClass::TopicNotAuthorized, message))
        }
        TopicDescription::Exists { replicas, .. } => {
            copies_problem(replicas, limits.min_insync_replicas).map(|why| {
                Problem::new(
                    ProblemClass::TopicUnderReplicated,
                    format!("topic '{name}' {why}"),
                )
            })
        }
    }
}

/// What is wrong with how many brokers have a record; how many must have it before it is
/// acknowledged may be unknown.
fn copies_problem(replicas: usize, min_insync: Option<usize>) -> Option<String> {
    match min_insync {
        Some(min) if min > replicas => Some(format!(
            "has {replicas} replicas and min.insync.replicas={min}: no record is ever \
             acknowledged; raise its replication factor, or lower that"
        )),
        _ if replicas < REPLICAS_MIN => Some(format!(
            "has {replicas} of {REPLICAS_MIN} replicas: a lost broker can lose records; raise its replication factor"
        )),
        Some(min) if min < INSYNC_MIN => Some(format!(
            "has min.insync.replicas={min}: a record is acknowledged when one broker alone has \
             it, and can be lost with that; set it to {INSYNC_MIN}"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_copies_than_the_no_loss_contract_needs_are_told() {
        for (replicas, min_insync, says) in [
            (3, Some(2), None),
            (3, None, None), // we may not ask
            (5, Some(3), None),
            (3, Some(1), Some("set it to 2")),
            (2, Some(2), Some("has 2 of 3 replicas")),
            (1, None, Some("has 1 of 3 replicas")),
            (1, Some(2), Some("no record is ever acknowledged")),
            (3, Some(4), Some("no record is ever acknowledged")),
        ] {
            let why = copies_problem(replicas, min_insync);
            let said = why.as_deref().unwrap_or_default();
            assert_eq!(
                why.is_some(),
                says.is_some(),
                "{replicas} {min_insync:?}: {said}"
            );
            assert!(
                said.contains(says.unwrap_or_default()),
                "{replicas} {min_insync:?}: {said}"
            );
        }
    }
}
