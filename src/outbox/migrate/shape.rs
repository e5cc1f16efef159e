//! Is `event` still as the migrations left it? A column changed by hand breaks order, an index
//! added by hand slows the relay a hundredfold.

use sqlx::{PgConnection, query_scalar};

use super::{MigrateError, name, preparing};
use crate::{outbox::schema::statement, settings::SchemaName};

/// Columns in their order, then indexes, as `sql/event_shape.sql` lists them.
pub(in crate::outbox) const EXPECTED: &[&str] = &[
    "column xact xid8 not null pg_current_xact_id()",
    "column id bigint not null identity a",
    "column lane smallint not null generated ((hashtextextended((COALESCE(event_key, \
     aggregate_id) COLLATE \"C\"), (0)::bigint) & (63)::bigint))::smallint",
    "column event_id uuid not null gen_random_uuid()",
    "column aggregate_type text not null",
    "column aggregate_id text not null",
    "column event_type text not null",
    "column topic text null",
    "column event_key text null",
    "column payload bytea null",
    "column headers jsonb not null '{}'::jsonb",
    "column created_at timestamp with time zone not null clock_timestamp()",
    "index using btree (lane, id)",
];

/// Compares the table with what this version made of it.
pub(super) async fn check(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<(), MigrateError> {
    let lines =
        query_scalar::<_, String>(statement(include_str!("../sql/event_shape.sql"), schema));
    let found = lines
        .fetch_all(connection)
        .await
        .map_err(preparing("read the table's shape"))?;
    match difference(EXPECTED, &found) {
        None => Ok(()),
        Some(difference) => Err(MigrateError::ShapeChanged {
            schema: name(schema),
            difference,
        }),
    }
}

/// The first line that is only on one side.
fn difference(expected: &[&str], found: &[String]) -> Option<String> {
    let missing = expected
        .iter()
        .find(|line| !found.iter().any(|other| other == *line))
        .map(|line| format!("no '{line}'"));
    let added = || {
        found
            .iter()
            .find(|line| !expected.contains(&line.as_str()))
            .map(|line| format!("there is '{line}'"))
    };
    missing
        .or_else(added)
        .or_else(|| (found != expected).then(|| "its columns are in another order".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Vec<String> {
        EXPECTED.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn the_table_as_it_was_made_has_no_difference() {
        assert_eq!(difference(EXPECTED, &found()), None);
    }

    #[test]
    fn a_dropped_column_an_added_index_and_another_order_are_found() {
        let mut dropped = found();
        dropped.remove(0);
        assert!(
            difference(EXPECTED, &dropped).is_some_and(|text| text.starts_with("no 'column xact"))
        );
        let mut added = found();
        added.push("index using btree (id)".to_owned());
        assert_eq!(
            difference(EXPECTED, &added).as_deref(),
            Some("there is 'index using btree (id)'")
        );
        let mut swapped = found();
        swapped.swap(0, 1);
        assert!(difference(EXPECTED, &swapped).is_some_and(|text| text.contains("order")));
    }
}
