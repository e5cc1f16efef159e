//! Examined → findings. Pure.

mod database;
mod outbox;
mod schema;
mod topics;

use crate::doctor::{
    codes::{Code, Group},
    facts::{Examined, Fact, SettingsFacts},
    report::{Finding, Report},
};

/// When the checks are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Relays should be running.
    Running,
    /// Before a rollout: the schema may still have to be made or upgraded, and no relay runs.
    BeforeRollout,
}

/// Judges all facts.
#[must_use]
pub fn check(facts: &Examined, moment: Moment) -> Report {
    let mut findings = Vec::new();
    match &facts.settings {
        Ok(settings) => findings.extend(with_settings(facts, settings, moment)),
        Err(problem) => {
            findings.push(Finding::problem(Code::Settings, problem));
            findings.extend(skip(Code::Settings, |code| code != Code::Settings));
        }
    }
    Report::new(findings)
}

fn with_settings(facts: &Examined, settings: &SettingsFacts, moment: Moment) -> Vec<Finding> {
    let mut findings = vec![
        read(settings),
        database::tls(settings),
        topics::tls(settings),
    ];
    findings.extend(database::all(facts.database.as_ref(), settings));
    findings.extend(schema::migration(
        facts.migration.as_ref(),
        settings,
        moment,
    ));
    match known(facts.database.as_ref()) {
        Some(database) => {
            findings.extend(schema::all(database, moment));
            findings.extend(outbox::all(database, moment));
        }
        None => findings.extend(skip(Code::DatabaseLogin, |code| {
            code.group() == Group::Outbox || schema::NEEDS_LOGIN.contains(&code)
        })),
    }
    findings.extend(topics::all(facts.kafka.as_ref()));
    findings
}

fn read(settings: &SettingsFacts) -> Finding {
    let (topics, schema) = (settings.topics, &settings.schema);
    Finding::ok(
        Code::Settings,
        format!("schema '{schema}', {topics} topics"),
    )
}

fn known<T>(fact: Option<&Fact<T>>) -> Option<&T> {
    fact?.as_ref().ok()
}

/// Skips the checks for which `is_affected` holds.
fn skip(because: Code, is_affected: impl Fn(Code) -> bool) -> Vec<Finding> {
    let affected = Code::ALL.into_iter().filter(|code| is_affected(*code));
    affected
        .map(|code| Finding::skipped(code, because))
        .collect()
}

#[cfg(test)]
pub(super) mod tests;
