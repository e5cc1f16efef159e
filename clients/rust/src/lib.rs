//! Adds events to the outbox table of OutboxRelay.

use std::collections::BTreeMap;

use sqlx::{Postgres, Transaction, types::Json};

/// An event for the outbox.
#[derive(Clone, Debug, Default)]
pub struct Event<'a> {
    pub aggregate_type: &'a str,
    pub aggregate_id: &'a str,
    pub event_type: &'a str,
    /// Value of the record, byte for byte. None is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// Without it, the manifest routes the type to a topic.
    pub topic: Option<&'a str>,
    /// Without it, the key is `aggregate_id`.
    pub key: Option<&'a str>,
    /// Headers of the record, such as `correlation_id` and `traceparent`.
    pub headers: BTreeMap<&'a str, &'a str>,
}

const ENQUEUE: &str = "select outbox.enqueue_bytes(
    aggregate_type => $1, aggregate_id => $2, event_type => $3, payload => $4,
    topic => $5, event_key => $6, headers => $7)";

/// Adds an event to the transaction. The caller commits it or rolls it back.
///
/// # Errors
///
/// The error of PostgreSQL or of the connection.
pub async fn add_event(
    transaction: &mut Transaction<'_, Postgres>,
    event: &Event<'_>,
) -> sqlx::Result<()> {
    sqlx::query(ENQUEUE)
        .bind(event.aggregate_type)
        .bind(event.aggregate_id)
        .bind(event.event_type)
        .bind(event.payload)
        .bind(event.topic)
        .bind(event.key)
        .bind(Json(&event.headers))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
