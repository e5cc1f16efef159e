//! What most tests of a relay need of an outbox: declared topics, and waits for what is in its
//! tables.

use outbox_relay::settings::{OnPoison, TopicSettings};

use super::{
    postgres::{Database, value},
    relay::until,
};

/// A topic to which no type is routed: rows name it. A rejected row parks its key.
pub(crate) fn topic(name: &str) -> TopicSettings {
    topic_with(name, OnPoison::Block)
}

/// A topic to which no type is routed: rows name it.
pub(crate) fn topic_with(name: &str, on_poison: OnPoison) -> TopicSettings {
    TopicSettings {
        name: name.to_owned(),
        event_types: vec![],
        aggregate_types: vec![],
        on_poison,
    }
}

/// Waits until no row waits.
pub(crate) async fn wait_until_drained(database: &Database) {
    until_rows(database, 0).await;
}

/// Waits until this number of rows is in the table.
pub(crate) async fn until_rows(database: &Database, expected: i64) {
    until_count(database, "event", expected).await;
}

/// Waits until this number of keys is parked.
pub(crate) async fn until_parked(database: &Database, expected: i64) {
    until_count(database, "parked_key", expected).await;
}

async fn until_count(database: &Database, table: &str, expected: i64) {
    let mut admin = database.as_admin().await;
    let (count, mut last) = (format!("select count(*) from outbox.{table}"), None);
    until(&format!("{expected} rows of {table}"), async || {
        let rows = value::<i64>(&mut admin, &count).await;
        if last.replace(rows) != Some(rows) && rows != expected {
            eprintln!("{table} has {rows} rows");
        }
        (rows == expected).then_some(())
    })
    .await;
}
