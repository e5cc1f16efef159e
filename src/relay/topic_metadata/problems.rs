//! Problems with the cluster or with a topic, as a status report has them. Pure.

use crate::{
    kafka::{TopicDescription, TopicLimits},
    relay::core::partition_growth::Growth,
    report::{Problem, ProblemClass},
};

/// Fewest brokers that must have a record, for the no-loss contract to hold when one is lost.
const REPLICAS_MIN: usize = 3;
/// Fewest brokers that must have a record before it is acknowledged, for the no-loss contract.
const INSYNC_REPLICAS_MIN: usize = 2;

/// Whether a problem does not end within seconds, so that the next round may wait.
pub(super) fn is_advice(class: ProblemClass) -> bool {
    matches!(
        class,
        ProblemClass::TopicUnderReplicated | ProblemClass::PartitionsAdded
    )
}

/// Problem of a topic that got more partitions.
pub(super) fn growth_problem(name: &str, Growth { from, to }: Growth) -> Problem {
    let message = format!(
        "topic '{name}' grew from {from} to {to} partitions: keys moved, and a key's order does \
         not hold across that moment; consumers can compare outbox_seq"
    );
    Problem::new(ProblemClass::PartitionsAdded, message)
}

/// Problem that keeps the cluster from being used; `servers` are its bootstrap servers.
pub(crate) fn cluster_problem(class: ProblemClass, servers: &str) -> Problem {
    let why = match class {
        ProblemClass::KafkaAuthenticationFailed => {
            "refused the login: check spec.kafka.sasl and its Secret"
        }
        ProblemClass::KafkaTlsFailed => {
            "failed the TLS handshake: check spec.kafka.tls, the CA and the host name"
        }
        _ => "cannot be reached; rows wait: check spec.kafka.bootstrapServers and the network",
    };
    Problem::new(class, format!("Kafka at {servers} {why}"))
}

/// Problem of a declared topic; `None` when the contract holds for it.
pub(crate) fn topic_problem(
    name: &str,
    state: TopicDescription,
    limits: TopicLimits,
) -> Option<Problem> {
    match state {
        TopicDescription::Missing => Some(Problem::new(
            ProblemClass::TopicMissing,
            format!("topic '{name}' does not exist; its rows wait: create it"),
        )),
        TopicDescription::NotAuthorized => {
            let message = format!(
                "topic '{name}' may not be used by the relay's user; its rows wait: allow WRITE \
                 and DESCRIBE on it"
            );
            Some(Problem::new(ProblemClass::TopicNotAuthorized, message))
        }
        TopicDescription::Exists { replicas, .. } => {
            replicas_problem(replicas, limits.min_insync_replicas).map(|why| {
                Problem::new(
                    ProblemClass::TopicUnderReplicated,
                    format!("topic '{name}' {why}"),
                )
            })
        }
    }
}

/// What is wrong with a topic's replication. `min_insync` is `None` when the relay may not read the
/// topic's configuration.
fn replicas_problem(replicas: usize, min_insync: Option<usize>) -> Option<String> {
    match min_insync {
        Some(min) if min > replicas => Some(format!(
            "has {replicas} replicas and min.insync.replicas={min}: no record can be \
             acknowledged; raise its replication factor, or lower min.insync.replicas"
        )),
        _ if replicas < REPLICAS_MIN => Some(format!(
            "has {replicas} of {REPLICAS_MIN} replicas: the loss of a broker can lose records; \
             raise its replication factor"
        )),
        Some(min) if min < INSYNC_REPLICAS_MIN => Some(format!(
            "has min.insync.replicas={min}: a record is acknowledged once a single broker has it, \
             and can be lost with that broker; set it to {INSYNC_REPLICAS_MIN}"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_replicas_than_the_no_loss_contract_needs_are_a_problem() {
        for (replicas, min_insync, expected) in [
            (3, Some(2), None),
            (3, None, None), // the relay may not read it
            (5, Some(3), None),
            (3, Some(1), Some("set it to 2")),
            (2, Some(2), Some("has 2 of 3 replicas")),
            (1, None, Some("has 1 of 3 replicas")),
            (1, Some(2), Some("no record can be acknowledged")),
            (3, Some(4), Some("no record can be acknowledged")),
        ] {
            let message = replicas_problem(replicas, min_insync);
            let is_expected = match (&message, expected) {
                (Some(message), Some(expected)) => message.contains(expected),
                (None, None) => true,
                _ => false,
            };
            assert!(is_expected, "{replicas} {min_insync:?}: {message:?}");
        }
    }
}
