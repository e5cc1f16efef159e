//! A migration's report -> text for people, and a bounded message for the operator; and retrying a
//! migration until it succeeds. Retrying is IO.

use std::time::Duration;

use crate::{
    outbox::migrate::{LOCK_WAIT, migrate},
    report::{MigrationReport, Problem, ProblemClass},
    secrets::Secrets,
    settings::RelaySettings,
};

/// Size limit of the termination message in bytes. Kubernetes cuts it at 4 KiB, and it would not be
/// JSON any more then.
const MESSAGE_BYTES_MAX: usize = 3 * 1024;
/// Pause before the second attempt. It doubles with each attempt.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause between two attempts.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Converts a report to JSON of at most 3 KiB. If it is too long, drops notes, and then the list of
/// applied migrations.
#[must_use]
pub fn termination_message(report: &MigrationReport) -> String {
    let mut report = report.clone();
    loop {
        let text = serde_json::to_string(&report).expect("plain data of our own");
        if text.len() <= MESSAGE_BYTES_MAX {
            return text;
        }
        if report.notes.pop().is_none() {
            report.applied.clear();
        }
    }
}

/// Describes what a successful migration did, one line for each fact.
#[must_use]
pub fn in_words(report: &MigrationReport) -> String {
    let applied: Vec<String> = report.applied.iter().map(ToString::to_string).collect();
    let mut text = match report.schema_version {
        Some(level) if applied.is_empty() => {
            format!("schema is at level {level}, nothing to apply\n")
        }
        Some(level) => format!(
            "schema is at level {level}, applied {}\n",
            applied.join(", ")
        ),
        None => String::new(),
    };
    for note in &report.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

/// Migrates, and retries while waiting may help.
///
/// # Errors
/// Returns an error when a person must change the manifest or the schema first.
///
/// # Cancel safety
/// If dropped midway, the server rolls the transaction back, unless it was just being committed.
pub async fn until_done(
    settings: &RelaySettings,
    secrets: &Secrets,
) -> Result<MigrationReport, Problem> {
    let mut pause = RETRY_PAUSE_MIN;
    loop {
        let report = migrate(settings, secrets, LOCK_WAIT).await;
        let Some(problem) = report.problem.clone() else {
            log_done(&report);
            return Ok(report);
        };
        if !is_retryable(problem.class) {
            return Err(problem);
        }
        log_retry(&problem, pause);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

fn log_done(report: &MigrationReport) {
    tracing::info!("{}", in_words(report).trim_end().replace('\n', "; "));
}

fn log_retry(problem: &Problem, pause: Duration) {
    tracing::warn!(
        class = %problem.class,
        error = problem.message,
        retry_in = ?pause,
        "schema is not ready yet"
    );
}

/// Whether waiting may help: for a database that starts, a role that is created, a Secret that is
/// corrected, a lock that is released.
fn is_retryable(class: ProblemClass) -> bool {
    !matches!(
        class,
        ProblemClass::SchemaClaimedByOther
            | ProblemClass::NewerSchema
            | ProblemClass::InvalidSettings
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(notes: usize) -> MigrationReport {
        let notes = (0..notes)
            .map(|note| format!("{note} {}", "x".repeat(100)))
            .collect();
        MigrationReport {
            schema_version: Some(2),
            applied: vec![1, 2],
            notes,
            problem: None,
        }
    }

    #[test]
    fn a_long_report_gives_up_notes_and_stays_json() {
        let text = termination_message(&report(100));
        assert!(text.len() <= MESSAGE_BYTES_MAX, "{}", text.len());
        let read: MigrationReport = serde_json::from_str(&text).expect("JSON");
        assert_eq!((read.applied, read.schema_version), (vec![1, 2], Some(2)));
    }

    #[test]
    fn a_problem_of_the_longest_kind_fits() {
        let problem = Some(Problem::new(ProblemClass::Unreachable, "\u{1}".repeat(256)));
        assert!(
            termination_message(&MigrationReport {
                problem,
                ..report(0)
            })
            .len()
                <= MESSAGE_BYTES_MAX
        );
    }

    #[test]
    fn words_say_what_was_applied_and_what_to_know() {
        assert!(in_words(&report(1)).starts_with("schema is at level 2, applied 1, 2\nnote: 0 x"));
        assert_eq!(
            in_words(&MigrationReport {
                applied: Vec::new(),
                ..report(0)
            }),
            "schema is at level 2, nothing to apply\n"
        );
    }

    #[test]
    fn only_what_a_person_must_change_is_not_waited_for() {
        assert!(
            is_retryable(ProblemClass::DatabaseMissing)
                && is_retryable(ProblemClass::SecretMissing)
                && is_retryable(ProblemClass::AuthenticationFailed)
        );
        assert!(!is_retryable(ProblemClass::SchemaClaimedByOther));
    }
}
