//! A migration's report -> text for people, and a bounded message for the operator. Pure.

use crate::report::MigrationReport;

/// Size limit of the termination message in bytes. Kubernetes cuts it at 4 KiB, and it would not be
/// JSON any more then.
const MESSAGE_BYTES_MAX: usize = 3 * 1024;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Problem, ProblemClass};

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
}
