//! JSON of a relay's `/status` and of a migration's report: with every field filled, and with every
//! optional field absent.

use outbox_relay::report::{
    Backlog, Breaker, BreakerState, MigrationReport, Problem, ProblemClass, RelayReport,
};
use serde::{Serialize, de::DeserializeOwned};

use super::golden::compare;

const AT: &str = "2026-01-01T00:00:00Z";

fn problem() -> Problem {
    Problem {
        since: Some(AT.to_owned()),
        ..Problem::new(ProblemClass::SecretInvalid, "what, why, next").with_last_good_used()
    }
}

/// Compares the JSON of a report with its file, and reads it back.
fn written_and_read<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    file: &str,
    report: &T,
) {
    let text = serde_json::to_string_pretty(report).expect("plain data");
    compare(file, &format!("{text}\n"));
    assert_eq!(
        serde_json::from_str::<T>(&text).expect("our own text"),
        *report
    );
}

#[test]
fn a_status_has_the_same_fields() {
    let full = RelayReport {
        instance: "7d6f".to_owned(),
        version: "0.1.0".to_owned(),
        schema_version: Some(6),
        lanes: 32,
        backlog: Some(Backlog {
            rows: 7,
            capped: false,
            oldest_at: Some(AT.to_owned()),
            waiting_since: Some(AT.to_owned()),
            measured_at: Some(AT.to_owned()),
        }),
        parked_keys: Some(1),
        parked_topics: Some(2),
        dead_letters: Some(3),
        published_per_second: 12.5,
        breaker: Some(Breaker {
            state: BreakerState::Open,
            since: AT.to_owned(),
        }),
        problems: vec![problem(), Problem::new(ProblemClass::TopicMissing, "m")],
    };
    written_and_read("status-full.json", &full);
    let (version, problems) = (full.version, Vec::new());
    let (schema_version, parked_keys, parked_topics, dead_letters) = (None, None, None, None);
    let absent = RelayReport {
        instance: String::new(),
        version,
        schema_version,
        lanes: 0,
        backlog: None,
        parked_keys,
        parked_topics,
        dead_letters,
        published_per_second: 0.0,
        breaker: None,
        problems,
    };
    written_and_read("status-absent.json", &absent);
}

/// An older relay sends fewer fields, a newer one sends more.
#[test]
fn a_status_is_read_with_the_same_defaults() {
    let least =
        r#"{"instance":"","version":"","lanes":0,"publishedPerSecond":0,"fromTheFuture":1}"#;
    let report: RelayReport = serde_json::from_str(least).expect("optional fields are optional");
    assert_eq!(
        (report.problems, report.backlog, report.breaker),
        (vec![], None, None)
    );
    let problem: Problem =
        serde_json::from_str(r#"{"class":"FromTheFuture","message":"m"}"#).expect("a newer class");
    assert_eq!(problem, Problem::new(ProblemClass::Other, "m"));
}

#[test]
fn a_migration_report_has_the_same_fields() {
    let notes = vec!["a note".to_owned()];
    let full = MigrationReport {
        schema_version: Some(6),
        applied: vec![1, 2],
        notes,
        problem: Some(problem()),
    };
    written_and_read("migration-full.json", &full);
    let absent = MigrationReport {
        schema_version: None,
        applied: vec![],
        notes: vec![],
        problem: None,
    };
    written_and_read("migration-absent.json", &absent);
    assert_eq!(
        serde_json::from_str::<MigrationReport>("{}").expect("all fields are optional"),
        absent
    );
}
