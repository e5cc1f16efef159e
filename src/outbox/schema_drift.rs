//! Finds changes that somebody made to table `event` by hand, when a relay starts. Deciding is
//! pure; the query is IO, one statement.
//!
//! A change that makes reading wrong stops the relay. Any other change is only reported.

use sqlx::{Row, query};

use crate::{
    outbox::{Connections, error::DatabaseError, migrate::shape::EXPECTED, schema::statement},
    report::{Problem, ProblemClass},
    settings::SchemaName,
};

/// Difference between table `event` and the table that the migrations create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaDrift {
    /// The table is as the migrations left it.
    No,
    /// Rows can be read and deleted as before, but speed, order or durability may suffer.
    Tolerable(Problem),
    /// Rows cannot be read, or would be read wrongly: they wait until the change is undone.
    Unreadable(Problem),
}

/// Compares table `event` with the one that this version expects. Call it only when the schema is
/// at the level of this version: a newer level may have another table.
///
/// # Errors
/// Returns an error when the database fails.
///
/// # Cancel safety
/// Cancel safe: it only reads.
pub async fn check_drift(
    connections: &Connections,
    schema: &SchemaName,
) -> Result<SchemaDrift, DatabaseError> {
    let sql = statement(include_str!("sql/event_shape.sql"), schema);
    let rows = connections.rows(query(sql)).await?;
    let found = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<Vec<String>, _>>()?;
    Ok(classify_drift(EXPECTED, &found, schema.as_str()))
}

fn classify_drift(expected: &[&str], found: &[String], schema: &str) -> SchemaDrift {
    if let Some(what) = unreadable(expected, found) {
        let message = format!(
            "table {schema}.event was changed by hand: {what}; undo the change, its rows wait \
             until then"
        );
        return SchemaDrift::Unreadable(Problem::new(ProblemClass::SchemaNotReady, message));
    }
    if let Some(what) = tolerable(expected, found) {
        let message = format!(
            "table {schema}.event was changed by hand: {what}; undo the change, which can cost \
             speed, order or rows"
        );
        return SchemaDrift::Tolerable(Problem::new(ProblemClass::TableChanged, message));
    }
    SchemaDrift::No
}

/// First change because of which rows cannot be read, or would be read wrongly.
fn unreadable(expected: &[&str], found: &[String]) -> Option<String> {
    missing_column(expected, found)
        .or_else(|| row_security(found))
        .or_else(|| swapped_columns(found))
}

fn missing_column(expected: &[&str], found: &[String]) -> Option<String> {
    let line = first_missing(expected, found, |line| line.starts_with("column "))?;
    Some(changed_column(line, found))
}

/// Row security, which hides rows from the relay.
fn row_security(found: &[String]) -> Option<String> {
    let is_on = found.iter().any(|line| line == "row security");
    is_on.then(|| "there is 'row security'".to_owned())
}

/// A wrong order of `xact` and `id`. PostgreSQL evaluates defaults in column order, and watermarks
/// rely on a transaction having its xid before it draws an id.
fn swapped_columns(found: &[String]) -> Option<String> {
    let is_swapped = position(found, "column xact ") > position(found, "column id ");
    is_swapped.then(|| "column xact is no longer before column id".to_owned())
}

/// Position of the first line that begins with `start`.
fn position(found: &[String], start: &str) -> Option<usize> {
    found.iter().position(|line| line.starts_with(start))
}

/// First change that leaves rows readable.
fn tolerable(expected: &[&str], found: &[String]) -> Option<String> {
    if let Some(added) = found.iter().find(|line| !expected.contains(&line.as_str())) {
        return Some(format!("there is '{added}'"));
    }
    first_missing(expected, found, |_| true).map(|line| format!("no '{line}'"))
}

/// First expected line of a kind that was not found.
fn first_missing<'e>(
    expected: &[&'e str],
    found: &[String],
    is_of_kind: impl Fn(&str) -> bool,
) -> Option<&'e str> {
    expected
        .iter()
        .copied()
        .filter(|line| is_of_kind(line))
        .find(|line| !found.iter().any(|other| other == line))
}

/// Describes a column that is missing or has another definition.
fn changed_column(line: &str, found: &[String]) -> String {
    match position(found, &column_start(line)) {
        Some(now) => format!("'{}' instead of '{line}'", found[now]),
        None => format!("no '{line}'"),
    }
}

/// Start of all lines about the column that `line` describes: `column NAME `.
fn column_start(line: &str) -> String {
    let words: Vec<_> = line.split(' ').take(2).collect();
    format!("{} ", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[&str] = &[
        "column xact xid8 not null",
        "column id bigint not null",
        "column topic text null",
        "index using btree (lane, id)",
    ];

    #[track_caller]
    fn check(found: &[&str], expected: Result<&str, &str>) {
        let found: Vec<_> = found.iter().map(|line| (*line).to_owned()).collect();
        match (classify_drift(TABLE, &found, "outbox"), expected) {
            (SchemaDrift::No, Ok("")) => {}
            (SchemaDrift::Tolerable(problem), Ok(what)) => assert!(
                !what.is_empty() && problem.message.contains(what),
                "{}",
                problem.message
            ),
            (SchemaDrift::Unreadable(problem), Err(what)) => {
                assert!(problem.message.contains(what), "{}", problem.message);
            }
            (other, _) => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_makes_reading_wrong_stops_the_relay_and_the_rest_is_told() {
        check(TABLE, Ok(""));
        check(
            &[TABLE[0], TABLE[1], TABLE[3]],
            Err("no 'column topic text null'"),
        );
        check(
            &[TABLE[0], TABLE[1], "column topic uuid null", TABLE[3]],
            Err("'column topic uuid null' instead of 'column topic text null'"),
        );
        check(
            &[TABLE[1], TABLE[0], TABLE[2], TABLE[3]],
            Err("column xact is no longer before column id"),
        );
        check(&[TABLE[2], TABLE[0], TABLE[1], TABLE[3]], Ok(""));
        check(&[TABLE, &["row security"]].concat(), Err("'row security'"));
        check(
            &[TABLE, &["column note text null"]].concat(),
            Ok("there is 'column note text null'"),
        );
        check(
            &[TABLE, &["index using btree (topic)"]].concat(),
            Ok("there is 'index using btree (topic)'"),
        );
        check(
            &[TABLE, &["trigger audit"]].concat(),
            Ok("there is 'trigger audit'"),
        );
        check(&TABLE[..3], Ok("no 'index using btree (lane, id)'"));
    }
}
