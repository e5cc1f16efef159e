//! Dead letters: listing, requeueing and discarding them. IO.

use serde::{Serialize, Serializer};
use sqlx::{Row, postgres::PgRow, query};
use uuid::Uuid;

use crate::outbox::{
    admin::{AdminClient, AdminError, Filter, bind_filter},
    store::Operation,
};

/// Identity of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetterId {
    pub event_id: Uuid,
    /// Id of the row when it was rejected. A requeued event that is rejected again has another one.
    pub id: i64,
}

/// How much of a dead letter is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Everything but the payload and the values of headers.
    Metadata,
    /// Everything.
    Contents,
}

/// A row that Kafka rejected and that was moved to the dead letters. Times are RFC 3339, in UTC.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    #[serde(serialize_with = "as_text")]
    pub event_id: Uuid,
    /// Id of the row when it was rejected.
    pub outbox_seq: i64,
    /// Topic that the row was for.
    pub topic: String,
    pub key: String,
    pub lane: i16,
    /// Why Kafka rejected it.
    pub class: String,
    /// Number of times that it was rejected.
    pub attempts: i32,
    pub event_type: String,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub created_at: String,
    pub first_failed_at: String,
    pub failed_at: String,
    /// Size of the payload; `None` for a tombstone.
    pub payload_bytes: Option<i32>,
    pub header_names: Vec<String>,
    /// Payload and headers; `None` unless [`Detail::Contents`] was requested.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
}

/// Payload and headers of a dead letter.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// Payload as text; `None` for a tombstone, or when the payload is not UTF-8.
    pub payload: Option<String>,
    /// Payload in base64; `None` for a tombstone, or when the payload is UTF-8.
    pub payload_base64: Option<String>,
    pub headers: serde_json::Value,
}

/// Ids of the rows of `sql/admin/dead_letters.sql`.
const SELECT_IDS: &str = concat!(
    "select event_id, id from (",
    include_str!("../sql/admin/dead_letters.sql"),
    ") as letter order by id, event_id"
);

impl AdminClient {
    /// Lists dead letters in the order of their ids.
    ///
    /// # Errors
    /// Returns an error when the database fails, or its answer cannot be decoded.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn dead_letters(
        &self,
        filter: &Filter,
        detail: Detail,
    ) -> Result<Vec<DeadLetter>, AdminError> {
        let sql = self.sql(include_str!("../sql/admin/dead_letters.sql"));
        let list = bind_filter(sql, filter).bind(detail == Detail::Contents);
        let decode = |row: &PgRow| decode_dead_letter(row, detail);
        self.decoded(Operation::ReadDeadLetters, list, decode).await
    }

    /// Lists the ids of the dead letters that [`Self::dead_letters`] lists, in the same order.
    ///
    /// # Errors
    /// Returns an error when the database fails, or its answer cannot be decoded.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn dead_letter_ids(&self, filter: &Filter) -> Result<Vec<DeadLetterId>, AdminError> {
        let list = bind_filter(self.sql(SELECT_IDS), filter).bind(false);
        self.decoded(Operation::ReadDeadLetters, list, decode_id)
            .await
    }

    /// Requeues dead letters as the last rows of their keys, in one transaction. Returns how many
    /// of them still existed.
    ///
    /// # Errors
    /// Returns an error when the database fails. Then either all are requeued, or none.
    ///
    /// # Cancel safety
    /// If dropped midway, either all are requeued, or none.
    pub async fn requeue(&self, ids: &[DeadLetterId]) -> Result<u64, AdminError> {
        let sql = include_str!("../sql/admin/requeue.sql");
        self.change(Operation::RequeueDeadLetters, sql, ids).await
    }

    /// Deletes dead letters for good, in one transaction. Returns how many of them still existed.
    ///
    /// # Errors
    /// Returns an error when the database fails. Then either all are deleted, or none.
    ///
    /// # Cancel safety
    /// If dropped midway, either all are deleted, or none.
    pub async fn discard(&self, ids: &[DeadLetterId]) -> Result<u64, AdminError> {
        let sql = include_str!("../sql/admin/discard.sql");
        self.change(Operation::DiscardDeadLetters, sql, ids).await
    }

    /// Runs a statement on dead letters that returns how many of them it changed.
    async fn change(
        &self,
        operation: Operation,
        template: &'static str,
        ids: &[DeadLetterId],
    ) -> Result<u64, AdminError> {
        let event_ids: Vec<Uuid> = ids.iter().map(|id| id.event_id).collect();
        let row_ids: Vec<i64> = ids.iter().map(|id| id.id).collect();
        let change = query(self.sql(template)).bind(event_ids).bind(row_ids);
        let decode = |row: &PgRow| row.try_get::<i64, _>(0);
        let counts = self.decoded(operation, change, decode).await?;
        let changed = counts.first().copied().unwrap_or(0);
        Ok(u64::try_from(changed).unwrap_or(0))
    }
}

fn decode_id(row: &PgRow) -> Result<DeadLetterId, sqlx::Error> {
    Ok(DeadLetterId {
        event_id: row.try_get(0)?,
        id: row.try_get(1)?,
    })
}

fn decode_dead_letter(row: &PgRow, detail: Detail) -> Result<DeadLetter, sqlx::Error> {
    Ok(DeadLetter {
        event_id: row.try_get("event_id")?,
        outbox_seq: row.try_get("id")?,
        topic: row.try_get("destination")?,
        key: row.try_get("key")?,
        lane: row.try_get("lane")?,
        class: row.try_get("class")?,
        attempts: row.try_get("attempts")?,
        event_type: row.try_get("event_type")?,
        aggregate_type: row.try_get("aggregate_type")?,
        aggregate_id: row.try_get("aggregate_id")?,
        created_at: row.try_get("created_at")?,
        first_failed_at: row.try_get("first_failed_at")?,
        failed_at: row.try_get("failed_at")?,
        payload_bytes: row.try_get("payload_bytes")?,
        header_names: row.try_get("header_names")?,
        contents: match detail {
            Detail::Contents => Some(decode_contents(row)?),
            Detail::Metadata => None,
        },
    })
}

fn decode_contents(row: &PgRow) -> Result<Contents, sqlx::Error> {
    let headers: String = row.try_get("headers")?;
    Ok(Contents {
        payload: row.try_get("payload_text")?,
        payload_base64: row.try_get("payload_base64")?,
        // JSON allows numbers that serde_json cannot represent. Such headers stay text.
        headers: serde_json::from_str(&headers).unwrap_or(serde_json::Value::String(headers)),
    })
}

fn as_text<S: Serializer>(value: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
