//! Compares table `event` with the one that the migrations create. A column changed by hand breaks
//! order; an index added by hand slows the relay down a hundredfold. Comparing is pure, reading is
//! IO.

use sqlx::{PgConnection, query_scalar};

use crate::{
    outbox::{
        migrate::{MigrateError, name, preparing},
        schema::statement,
    },
    settings::SchemaName,
};

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
    "column source smallint null",
    "column source_key jsonb null",
    "index using btree (lane, id)",
    "trigger ring",
];

/// Checks that the table is as this version created it.
///
/// # Errors
/// Returns an error that describes the first difference, or when the database fails.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn check(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<(), MigrateError> {
    let sql = statement(include_str!("../sql/event_shape.sql"), schema);
    let found: Vec<String> = query_scalar(sql)
        .fetch_all(connection)
        .await
        .map_err(preparing("read the definition of table event"))?;
    match difference(EXPECTED, &found) {
        None => Ok(()),
        Some(difference) => Err(MigrateError::ShapeChanged {
            schema: name(schema),
            difference,
        }),
    }
}

/// First line that is only on one side, or a change of the order.
fn difference(expected: &[&str], found: &[String]) -> Option<String> {
    let is_found = |line: &str| found.iter().any(|other| other == line);
    if let Some(missing) = expected.iter().find(|line| !is_found(line)) {
        return Some(format!("no '{missing}'"));
    }
    if let Some(added) = found.iter().find(|line| !expected.contains(&line.as_str())) {
        return Some(format!("there is '{added}'"));
    }
    (found != expected).then(|| "its columns are in another order".to_owned())
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
