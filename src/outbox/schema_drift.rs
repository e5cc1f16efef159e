//! Whether somebody changed `event` by hand, as a relay finds it when it starts. What makes reading
//! wrong stops it; the rest is told. Judging is pure, looking is one statement.

use sqlx::{Row, query};

use crate::{
    outbox::{Connections, error::DatabaseError, migrate::shape::EXPECTED, schema::statement},
    report::{Problem, ProblemClass},
    settings::SchemaName,
};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaDrift {
    /// As the migrations left it.
    No,
    /// Rows can be read and deleted as before, but speed or order may suffer.
    Tolerable(Problem),
    /// Rows cannot be read, or not as they are meant: they wait until it is undone.
    Unreadable(Problem),
}

/// Looks at a table that is of the level of this version; a newer one has its own shape.
///
/// # Errors
/// When the database fails.
pub async fn check_drift(
    connections: &Connections,
    schema: &SchemaName,
) -> Result<SchemaDrift, DatabaseError> {
    let rows = connections
        .rows(query(statement(
            include_str!("sql/event_shape.sql"),
            schema,
        )))
        .await?;
    let found = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<Vec<String>, _>>()?;
    Ok(judge(EXPECTED, &found, schema.as_str()))
}

fn judge(expected: &[&str], found: &[String], schema: &str) -> SchemaDrift {
    let is_found = |line: &str| found.iter().any(|other| other == line);
    let missing = expected
        .iter()
        .find(|line| line.starts_with("column ") && !is_found(line));
    let hidden = found
        .iter()
        .find(|line| *line == "row security")
        .map(|line| format!("there is '{line}'"));
    // A transaction has its xid before it draws an id, because columns get their defaults in order:
    // the marks rest on it.
    let place = |name: &str| found.iter().position(|line| line.starts_with(name));
    let late = (place("column xact ") > place("column id "))
        .then(|| "column xact is no longer before column id".to_owned());
    if let Some(what) = missing.map(|line| changed(line, found)).or(hidden).or(late) {
        let message = format!(
            "table {schema}.event was changed by hand: {what}; undo that, its rows wait until then"
        );
        return SchemaDrift::Unreadable(Problem::new(ProblemClass::SchemaNotReady, message));
    }
    let added = found
        .iter()
        .find(|line| !expected.contains(&line.as_str()))
        .map(|line| format!("there is '{line}'"));
    let gone = || {
        expected
            .iter()
            .find(|line| !is_found(line))
            .map(|line| format!("no '{line}'"))
    };
    match added.or_else(gone) {
        None => SchemaDrift::No,
        Some(what) => {
            let message = format!(
                "table {schema}.event was changed by hand: {what}; undo that, it can cost speed, \
                 order or rows"
            );
            SchemaDrift::Tolerable(Problem::new(ProblemClass::TableChanged, message))
        }
    }
}

/// A column that is not as it should be, beside what it is now.
fn changed(line: &str, found: &[String]) -> String {
    let name: Vec<_> = line.split(' ').take(2).collect();
    let start = format!("{} ", name.join(" "));
    match found.iter().find(|other| other.starts_with(&start)) {
        Some(now) => format!("'{now}' instead of '{line}'"),
        None => format!("no '{line}'"),
    }
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
        match (judge(TABLE, &found, "outbox"), expected) {
            (SchemaDrift::No, Ok("")) => {}
            (SchemaDrift::Tolerable(problem), Ok(what)) => assert!(
                !what.is_empty() && problem.message.contains(what),
                "{}",
                problem.message
            ),
            (SchemaDrift::Unreadable(problem), Err(what)) => {
                assert!(problem.message.contains(what), "{}", problem.message)
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
