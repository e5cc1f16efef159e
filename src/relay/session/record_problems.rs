//! Problems with rows and records, as a status report has them: paused topics, parked keys and
//! topics, undeclared topics; and a quota of the brokers. Pure.

use std::time::Duration;

use crate::{
    outbox::{RowIdentity, TextColumn},
    relay::core::Core,
    report::{Problem, ProblemClass},
    settings::KafkaSettings,
};

/// Rows with text that cannot become UTF-8 that are reported at most.
const UNREADABLE_ROWS_MAX: usize = 5;

/// All problems with rows and records that there are now.
pub(super) fn record_problems(core: &Core) -> Vec<Problem> {
    let (paused, has_undeclared) = core.topic_problems();
    let mut problems = Vec::new();
    for (topic, class) in paused {
        // The client for topic metadata reports a missing topic.
        if class != ProblemClass::TopicMissing {
            problems.push(paused_topic(core.routes().name(topic), while_paused(class)));
        }
    }
    for (topic, row, column) in core.unreadable_rows().take(UNREADABLE_ROWS_MAX) {
        problems.push(unreadable_row(core.routes().name(topic), row, column));
    }
    for ((topic, class), keys) in core.parked_keys() {
        problems.push(parked_keys(core.routes().name(topic), class, keys));
    }
    for topic in core.parked_topics() {
        problems.push(parked_topic(core.routes().name(topic)));
    }
    if has_undeclared {
        problems.push(undeclared_topics());
    }
    problems
}

/// Class of a pause that lasts until the rejected row is found. Classes of rows are for what is
/// left then: its parked key, which waits for a person.
fn while_paused(class: ProblemClass) -> ProblemClass {
    match class {
        ProblemClass::RecordTooLarge | ProblemClass::RowUnreadable => ProblemClass::RecordRejected,
        class => class,
    }
}

fn paused_topic(name: &str, class: ProblemClass) -> Problem {
    let why = match class {
        ProblemClass::TopicStalled => {
            "does not acknowledge records while Kafka acknowledges later ones; its other rows \
             wait: check that each of its partitions has a leader and enough replicas in sync"
        }
        ProblemClass::ClockSkew => {
            "rejects records with the present time of the database, so its brokers have another; \
             its rows wait, and the relay retries automatically: correct the clock that is wrong"
        }
        ProblemClass::TopicNotAuthorized => {
            "may not be written to by the relay's user; its rows wait: allow WRITE on it"
        }
        _ => {
            "does not take a record, for the reason in the relay's log; the topic is paused, and \
             the relay retries automatically"
        }
    };
    Problem::new(class, format!("topic '{name}' {why}"))
}

/// Problem of parked keys of one topic, with the class of the rows that were rejected: `None` for
/// keys that a person parked.
fn parked_keys(name: &str, class: Option<ProblemClass>, keys: usize) -> Problem {
    let (class, behind, next) = match class {
        Some(class @ ProblemClass::RecordTooLarge) => (
            class,
            " behind a record that is too large",
            "raise max.message.bytes (or the relay's memory limit), then run `outbox-relay parked \
             retry`, or `parked skip`",
        ),
        Some(class @ ProblemClass::RowUnreadable) => (
            class,
            " behind a row with text that is not UTF-8",
            "list them with `outbox-relay parked list`, skip them, and write the rows again",
        ),
        Some(class) => (
            class,
            " behind a record that Kafka rejects",
            "list them with `outbox-relay parked list`, then retry or skip them",
        ),
        None => (
            ProblemClass::KeysParked,
            " by hand",
            "list them with `outbox-relay parked list`, then retry them",
        ),
    };
    let (count, rows) = match keys {
        1 => ("1 key".to_owned(), "is parked"),
        keys => (format!("{keys} keys"), "are parked"),
    };
    let message = format!("{count} of topic '{name}' {rows}{behind}: {next}");
    Problem::new(class, message)
}

fn unreadable_row(name: &str, row: RowIdentity, column: TextColumn) -> Problem {
    let (event_id, column) = (row.event_id, column.name());
    let message = format!(
        "the row with event_id {event_id} of topic '{name}' waits with its key: column {column} is \
         not UTF-8; skip it with `outbox-relay parked skip`, and write it again"
    );
    Problem::new(ProblemClass::RowUnreadable, message)
}

fn parked_topic(name: &str) -> Problem {
    let message = format!(
        "topic '{name}' is parked and its rows wait: resume it with \
         `outbox-relay parked retry --topic {name}`"
    );
    Problem::new(ProblemClass::KeysParked, message)
}

fn undeclared_topics() -> Problem {
    let message = "rows wait because spec.topics declares neither their topic nor a topic for \
        their types: add the topic to spec.topics";
    Problem::new(ProblemClass::TopicNotDeclared, message)
}

/// A quota of the brokers mutes requests of this client for so long.
pub(super) fn kafka_throttled(
    settings: &KafkaSettings,
    client_id: &str,
    muted_for: Duration,
) -> Problem {
    let user = match &settings.sasl {
        Some(sasl) => format!("user '{}', ", sasl.username),
        None => String::new(),
    };
    let message = format!(
        "a quota of the brokers mutes requests for {} ms ({user}client id '{client_id}'): rows are \
         published more slowly than they could be; raise producer_byte_rate if they wait for long",
        muted_for.as_millis()
    );
    Problem::new(ProblemClass::KafkaThrottled, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{SaslMechanism, SaslSettings, TlsMode, TlsSettings};

    #[test]
    fn parked_keys_are_reported_with_why_and_what_helps() {
        use ProblemClass::{KeysParked, RecordRejected, RecordTooLarge, RowUnreadable};
        for (class, keys, expected, begin, next) in [
            (
                Some(RecordTooLarge),
                1,
                RecordTooLarge,
                "1 key of topic 'files.v1' is parked behind a record that is too large: ",
                "max.message.bytes",
            ),
            (
                Some(RecordRejected),
                3,
                RecordRejected,
                "3 keys of topic 'files.v1' are parked behind a record that Kafka rejects: ",
                "parked list",
            ),
            (
                Some(RowUnreadable),
                1,
                RowUnreadable,
                "1 key of topic 'files.v1' is parked behind a row with text that is not UTF-8: ",
                "write the rows again",
            ),
            (
                None,
                2,
                KeysParked,
                "2 keys of topic 'files.v1' are parked by hand: ",
                "then retry them",
            ),
        ] {
            let Problem { class, message, .. } = parked_keys("files.v1", class, keys);
            assert_eq!(class, expected);
            assert!(message.starts_with(begin), "{message}");
            assert!(message.contains(next), "{message}");
            let longest = parked_keys(&"t".repeat(60), Some(class), 100_000).message;
            assert!(!longest.ends_with("..."), "it is cut: {longest}");
        }
        assert_eq!(while_paused(RecordTooLarge), RecordRejected);
    }

    #[test]
    fn a_quota_is_reported_with_user_client_id_and_milliseconds() {
        let settings = |sasl| KafkaSettings {
            bootstrap_servers: vec![],
            tls: TlsSettings {
                mode: TlsMode::Disable,
                ca: false,
                client_certificate: false,
            },
            sasl,
            properties: std::collections::BTreeMap::new(),
        };
        let sasl = SaslSettings {
            mechanism: SaslMechanism::Plain,
            username: "files".to_owned(),
        };
        for (sasl, whose) in [
            (None, "client id 'files-relay-1'"),
            (Some(sasl), "user 'files', client id 'files-relay-1'"),
        ] {
            let muted_for = Duration::from_millis(2_300);
            let problem = kafka_throttled(&settings(sasl), "files-relay-1", muted_for);
            assert_eq!(problem.class, ProblemClass::KafkaThrottled);
            let begin = format!("a quota of the brokers mutes requests for 2300 ms ({whose}): ");
            assert!(problem.message.starts_with(&begin), "{}", problem.message);
            assert!(problem.message.ends_with("wait for long"), "it is cut");
        }
    }
}
