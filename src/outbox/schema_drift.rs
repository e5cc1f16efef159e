//! Compares what a database has with what the migrations made. Pure.
//!
//! What the migrations made must be as they made it, or nothing is published: order and safety rest
//! on it. What was added to table `event` is only reported, unless it can change rows, hide them,
//! or keep them from being deleted. Storage parameters, comments and the like are no facts at all.

use crate::{
    failpoints::{self, Bug},
    outbox::{
        schema::LEVEL,
        schema_facts::{ExpectedFact, SchemaFact},
    },
    report::{Problem, ProblemClass},
    settings::SchemaName,
};

/// Newest major version of PostgreSQL with which expectations were compared. A newer one may print
/// expressions in another way: there, only their presence counts.
const MAJOR_MAX: u32 = 18;
/// Starts of names whose facts are expressions that the server prints.
const PRINTED: &[&str] = &[
    "default of ",
    "expression of ",
    "constraint ",
    "trigger ",
    "view ",
];
/// What the migrations make only for speed, or only for people.
const DISPENSABLE: &[&str] = &[
    "trigger ring on event",
    "view pending",
    "function text_or_null(bytea)",
];

/// Difference between a schema and the one that the migrations make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaDrift {
    /// The schema is as the migrations left it.
    No,
    /// Rows are published as before, but speed may suffer.
    Tolerable(Problem),
    /// A promise could be broken: nothing is published until the change is undone.
    Unsafe(Problem),
}

/// One thing that is not as the migrations made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// What the migrations made, if statements can make it again.
    pub(super) repair: Option<ExpectedFact>,
    /// Sentence without an end: what it is now.
    pub(super) what: String,
    pub(super) effect: Effect,
    /// Statement that undoes an addition.
    undo: Option<String>,
}

/// What a difference can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// A promise could be broken.
    Unsafe,
    /// Only speed or convenience suffers.
    Tolerable,
}

/// What a relay does about the facts that it found.
#[must_use]
pub fn judge_drift(
    expected: &[ExpectedFact],
    found: &[SchemaFact],
    schema: &SchemaName,
) -> SchemaDrift {
    // A newer level is another schema. While it is migrated, relays of this version work on.
    if is_of_other_level(found) || failpoints::has(Bug::Unguarded) {
        return SchemaDrift::No;
    }
    let differences = differences(expected, found, schema);
    let Some(first) = differences.first() else {
        return SchemaDrift::No;
    };
    let class = match first.effect {
        Effect::Unsafe => ProblemClass::SchemaNotReady,
        Effect::Tolerable => ProblemClass::TableChanged,
    };
    let problem = Problem::new(class, sentence(first, schema));
    match first.effect {
        Effect::Unsafe => SchemaDrift::Unsafe(problem),
        Effect::Tolerable => SchemaDrift::Tolerable(problem),
    }
}

fn is_of_other_level(found: &[SchemaFact]) -> bool {
    let level = found.iter().find(|fact| fact.name == "level");
    level.is_some_and(|fact| fact.fact != LEVEL.to_string())
}

/// What follows, what repairs it, and what was changed. The change comes last: it can be long, and
/// the end of a message may be cut off.
pub(super) fn sentence(difference: &Difference, schema: &SchemaName) -> String {
    let (what, schema) = (&difference.what, schema.as_str());
    let repair = match (&difference.repair, &difference.undo) {
        (Some(_), _) => "run 'outbox-relay migrate'".to_owned(),
        (None, Some(undo)) => format!("run '{undo}'"),
        (None, None) => "undo the change".to_owned(),
    };
    let follows = match difference.effect {
        Effect::Unsafe => "nothing is published until you",
        Effect::Tolerable => "it may be slower until you",
    };
    format!("schema {schema} was changed by hand, and {follows} {repair}: {what}")
}

/// All differences, in an order in which they can be repaired, unsafe ones first.
pub(super) fn differences(
    expected: &[ExpectedFact],
    found: &[SchemaFact],
    schema: &SchemaName,
) -> Vec<Difference> {
    let comparison = comparison(found);
    let changed = expected
        .iter()
        .filter_map(|expected| changed(*expected, found, comparison));
    let added = found
        .iter()
        .filter_map(|fact| added(expected, fact, comparison, schema));
    let mut all: Vec<_> = changed.chain(added).collect();
    all.sort_by_key(|difference| difference.effect);
    all
}

/// How printed expressions are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Printed {
    Compared,
    OnlyPresent,
}

fn comparison(found: &[SchemaFact]) -> Printed {
    let version = found.iter().find(|fact| fact.name == "server");
    let number = version.and_then(|fact| fact.fact.parse::<u32>().ok());
    match number {
        Some(number) if number / 10_000 > MAJOR_MAX => Printed::OnlyPresent,
        _ => Printed::Compared,
    }
}

/// Whether a fact is what was expected.
fn fits(expected: &ExpectedFact, found: &SchemaFact, printed: Printed) -> bool {
    let is_printed = PRINTED.iter().any(|start| found.name.starts_with(start));
    let only_present = is_printed && printed == Printed::OnlyPresent;
    found.name == expected.name
        && (only_present && !is_disabled(found) || found.fact == expected.fact)
}

fn is_disabled(found: &SchemaFact) -> bool {
    found.fact.starts_with("disabled") || found.fact.starts_with("enabled on replicas")
}

/// The difference, if no fact fits an expected one.
fn changed(expected: ExpectedFact, found: &[SchemaFact], printed: Printed) -> Option<Difference> {
    if found.iter().any(|fact| fits(&expected, fact, printed)) {
        return None;
    }
    let name = expected.name;
    let now = found.iter().find(|fact| fact.name == name);
    let now = now.map(|fact| fact.fact.as_str());
    let what = match now {
        Some(now) => format!("{name} has {}", other_parts(&expected, now)),
        None => format!("{name} is missing"),
    };
    let effect = if DISPENSABLE.contains(&name) {
        Effect::Tolerable
    } else {
        Effect::Unsafe
    };
    Some(Difference {
        repair: is_repairable(&expected, now).then_some(expected),
        what,
        effect,
        undo: None,
    })
}

/// Whether statements can make it again. They cannot bring back a type, or what is gone with its
/// data: it may only have another name.
fn is_repairable(expected: &ExpectedFact, now: Option<&str>) -> bool {
    let holds_data = ["table ", "column ", "expression of "]
        .iter()
        .any(|start| expected.name.starts_with(start));
    let is_same_kind = match now {
        Some(_) if expected.name.starts_with("expression of ") => false,
        Some(now) => kind(now) == kind(expected.fact) && !now.contains("partition of"),
        None => is_generated(expected),
    };
    !expected.repair.is_empty() && (!holds_data || is_same_kind)
}

/// Type of a column, or kind of a table, and whether its values are generated.
fn kind(fact: &str) -> (Option<&str>, bool) {
    (fact.split(", ").next(), fact.contains("generated"))
}

fn is_generated(expected: &ExpectedFact) -> bool {
    expected.fact.ends_with("generated") || expected.name.starts_with("expression of ")
}

/// The parts of two facts that differ.
fn other_parts(expected: &ExpectedFact, now: &str) -> String {
    let now: Vec<_> = now.split(", ").collect();
    let then: Vec<_> = expected.fact.split(", ").collect();
    let only = |these: &[&str], those: &[&str]| -> String {
        let parts = these.iter().filter(|part| !those.contains(part));
        parts.copied().collect::<Vec<_>>().join(", ")
    };
    match (only(&now, &then), only(&then, &now)) {
        (no, then) if no.is_empty() => format!("no '{then}'"),
        (now, no) if no.is_empty() => format!("'{now}'"),
        (now, then) => format!("'{now}' instead of '{then}'"),
    }
}

/// What was added to table `event`; `None` for what is expected, or is about something else.
fn added(
    expected: &[ExpectedFact],
    found: &SchemaFact,
    printed: Printed,
    schema: &SchemaName,
) -> Option<Difference> {
    if is_expected(expected, found, printed) {
        return None;
    }
    let (effect, undo) = addition(found, schema)?;
    Some(Difference {
        repair: None,
        what: format!("{} was added: {}", found.name, found.fact),
        effect,
        undo,
    })
}

/// Whether a fact is expected, or only differs: then it is reported as a change. A second index of
/// the same name is an addition.
fn is_expected(expected: &[ExpectedFact], found: &SchemaFact, printed: Printed) -> bool {
    let named = expected.iter().filter(|fact| fact.name == found.name);
    let mut named = named.peekable();
    let is_second = found.name.starts_with("index ");
    named.peek().is_some() && (!is_second || named.any(|fact| fits(fact, found, printed)))
}

/// What an addition can do, and the statement that undoes it; `None` if it is not about `event`.
fn addition(found: &SchemaFact, schema: &SchemaName) -> Option<(Effect, Option<String>)> {
    let event = format!("{}.event", schema.as_str());
    let words: Vec<_> = found.name.split(' ').collect();
    let (effect, undo) = match words.as_slice() {
        ["rule", rule, "on", "event"] => (
            rule_effect(&found.fact),
            Some(format!("drop rule {rule} on {event}")),
        ),
        ["trigger", trigger, "on", "event"] => (
            trigger_effect(&found.fact),
            Some(format!("drop trigger {trigger} on {event}")),
        ),
        ["heir", heir, "of", "event"] => (
            Effect::Unsafe,
            Some(format!("alter table {heir} no inherit {event}")),
        ),
        ["foreign", "key", key, "to", "event"] => {
            let table = found.fact.trim_start_matches("from ");
            let undo = format!("alter table {table} drop constraint {key}");
            (Effect::Unsafe, Some(undo))
        }
        ["replica", "identity", "of", "event"] => {
            let undo = format!("alter table {event} replica identity default");
            (Effect::Unsafe, Some(undo))
        }
        ["column", column] | ["default", "of", column] if column.starts_with("event.") => {
            (Effect::Tolerable, None)
        }
        ["index", "of", "event", ..] | ["constraint", _, "on", "event"] => {
            (Effect::Tolerable, None)
        }
        _ => return None,
    };
    Some((effect, undo))
}

/// A rule can drop an insert or a delete, or do it twice.
fn rule_effect(fact: &str) -> Effect {
    if fact.starts_with("instead") || fact.ends_with("insert") || fact.ends_with("delete") {
        Effect::Unsafe
    } else {
        Effect::Tolerable
    }
}

/// A trigger that runs before an insert can change the id of a row or drop it, and one before a
/// delete can keep the row.
fn trigger_effect(fact: &str) -> Effect {
    let Some((_, before)) = fact.split_once("BEFORE ") else {
        return Effect::Tolerable;
    };
    let events = before.split(" ON ").next().unwrap_or_default();
    // One for the statement sees no row.
    let changes_rows = events.contains("INSERT") || events.contains("DELETE");
    if changes_rows && fact.contains("FOR EACH ROW") && !fact.starts_with("disabled") {
        Effect::Unsafe
    } else {
        Effect::Tolerable
    }
}

#[cfg(test)]
mod tests;
