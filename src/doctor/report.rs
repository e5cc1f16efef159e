//! Findings of all checks: their order, their text, and what the exit code follows from. Pure.

use std::fmt::Write;

use serde::Serialize;

use crate::{
    doctor::codes::{Code, Group},
    report::Problem,
    visible_text::line,
};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    Ok,
    /// Something that can become a fault, or that somebody should know.
    Warning,
    /// Something that keeps rows from being published, or breaks a promise.
    Fault,
    /// A question was refused, or failed.
    Unknown,
    /// A fault of another check makes it meaningless.
    Skipped,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "WARNING",
            Self::Fault => "FAULT",
            Self::Unknown => "unknown",
            Self::Skipped => "skipped",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub code: Code,
    pub group: Group,
    pub outcome: Outcome,
    /// What it is about, such as a topic; `None` if there is only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What was found, and what to do next.
    pub message: String,
}

impl Finding {
    /// A finding about the only thing of its kind.
    #[must_use]
    pub fn new(code: Code, outcome: Outcome, message: impl Into<String>) -> Self {
        Self {
            code,
            group: code.group(),
            outcome,
            subject: None,
            message: message.into(),
        }
    }

    /// A finding that all is well.
    #[must_use]
    pub fn ok(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, Outcome::Ok, message)
    }

    /// A warning.
    #[must_use]
    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, Outcome::Warning, message)
    }

    /// A fault.
    #[must_use]
    pub fn fault(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, Outcome::Fault, message)
    }

    /// A fault that the relay would report as this problem.
    #[must_use]
    pub fn problem(code: Code, problem: &Problem) -> Self {
        Self::fault(code, format!("{}: {}", problem.class, problem.message))
    }

    /// What a refused or failed question leaves open.
    #[must_use]
    pub fn unknown(code: Code, why: &Problem) -> Self {
        Self::new(
            code,
            Outcome::Unknown,
            format!("{}: {}", why.class, why.message),
        )
    }

    /// A check that means nothing because of another one.
    #[must_use]
    pub fn skipped(code: Code, because: Code) -> Self {
        Self::new(code, Outcome::Skipped, format!("because of {because}"))
    }

    /// Adds what it is about.
    #[must_use]
    pub fn of(self, subject: impl Into<String>) -> Self {
        Self {
            subject: Some(subject.into()),
            ..self
        }
    }
}

/// From which outcome on the exit code is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Threshold {
    /// A warning, or a fault.
    Warning,
    /// A fault.
    Fault,
}

/// All findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of this program.
    pub version: String,
    pub findings: Vec<Finding>,
}

impl Report {
    /// A report with the findings in the order of their codes.
    #[must_use]
    pub fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.code);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            findings,
        }
    }

    /// Whether the findings are worse than allowed.
    #[must_use]
    pub fn fails(&self, threshold: Threshold) -> bool {
        let counts = |outcome| match threshold {
            Threshold::Warning => matches!(outcome, Outcome::Warning | Outcome::Fault),
            Threshold::Fault => outcome == Outcome::Fault,
        };
        self.findings.iter().any(|finding| counts(finding.outcome))
    }

    fn count(&self, outcome: Outcome) -> usize {
        let findings = self.findings.iter();
        findings
            .filter(|finding| finding.outcome == outcome)
            .count()
    }

    /// The report for people: a line for each check, and the numbers of outcomes at the end.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut text = String::new();
        let mut group = None;
        for finding in &self.findings {
            if group != Some(finding.group) {
                group = Some(finding.group);
                let _ = writeln!(text, "{}", finding.group.heading());
            }
            let _ = writeln!(text, "{}", in_words(finding));
        }
        text + &self.summary()
    }

    fn summary(&self) -> String {
        let counts = [
            Outcome::Fault,
            Outcome::Warning,
            Outcome::Unknown,
            Outcome::Skipped,
            Outcome::Ok,
        ]
        .map(|outcome| format!("{} {}", self.count(outcome), outcome.word().to_lowercase()));
        format!(
            "\n{}. `outbox-relay doctor explain CODE` explains a check.\n",
            counts.join(", ")
        )
    }
}

fn in_words(finding: &Finding) -> String {
    let (outcome, code) = (finding.outcome.word(), finding.code.to_string());
    let subject = match &finding.subject {
        Some(subject) => format!("{}: ", line(subject)),
        None => String::new(),
    };
    format!(
        "  {outcome:7}  {code:16}  {subject}{}",
        line(&finding.message)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::new(vec![
            Finding::fault(Code::TopicExists, "it does not exist: create it").of("b\u{1b}[2J"),
            Finding::ok(Code::Settings, "read"),
            Finding::warning(Code::DatabaseTls, "not verified"),
            Finding::skipped(Code::SchemaLevel, Code::DatabaseLogin),
        ])
    }

    #[test]
    fn a_report_reads_from_top_to_bottom() {
        let expected = "\
Settings
  ok       Settings          read
Database
  WARNING  DatabaseTls       not verified
Schema and rights
  skipped  SchemaLevel       because of DatabaseLogin
Topics
  FAULT    TopicExists       b\\u{1b}[2J: it does not exist: create it

1 fault, 1 warning, 0 unknown, 1 skipped, 1 ok. `outbox-relay doctor explain CODE` explains a check.
";
        assert_eq!(report().in_words(), expected);
    }

    #[test]
    fn faults_fail_and_warnings_only_if_that_is_asked_for() {
        let with = |outcome| Report::new(vec![Finding::new(Code::Settings, outcome, "m")]);
        for (outcome, at_fault, at_warning) in [
            (Outcome::Ok, false, false),
            (Outcome::Warning, false, true),
            (Outcome::Fault, true, true),
            (Outcome::Unknown, false, false),
            (Outcome::Skipped, false, false),
        ] {
            let report = with(outcome);
            assert_eq!(report.fails(Threshold::Fault), at_fault, "{outcome:?}");
            assert_eq!(report.fails(Threshold::Warning), at_warning, "{outcome:?}");
        }
    }

    #[test]
    fn contract_of_json() {
        let report = Report {
            version: "VERSION".to_owned(),
            ..report()
        };
        crate::golden::compare("cli-doctor.json", &crate::cli::json(&report));
    }
}
