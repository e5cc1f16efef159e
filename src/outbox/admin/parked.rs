//! Parked topics and keys: listing them, parking and unparking them, skipping their rejected rows.
//! IO.

use serde::Serialize;
use sqlx::{Row, postgres::PgRow, query};
use uuid::Uuid;

use crate::outbox::{
    admin::{AdminClient, AdminError, Filter, bind_filter},
    store::Operation,
};

/// A parked topic or key. Times are RFC 3339, in UTC.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParkedEntry {
    pub topic: String,
    /// Kafka key; `None` when the whole topic is parked.
    pub key: Option<String>,
    pub lane: Option<i16>,
    /// Why Kafka rejected the row, or `ParkedByHand`.
    pub class: String,
    /// Number of times that the row was rejected.
    pub attempts: Option<i32>,
    /// Id of the rejected row; `None` when a person parked the entry.
    pub outbox_seq: Option<i64>,
    /// Event id of the rejected row; `None` when a person parked the entry.
    pub event_id: Option<String>,
    pub first_failed_at: Option<String>,
    pub parked_at: String,
}

impl ParkedEntry {
    /// Whether the entry is a key that is parked for a row that Kafka rejected.
    #[must_use]
    pub fn has_rejected_row(&self) -> bool {
        self.key.is_some() && self.outbox_seq.is_some()
    }
}

impl AdminClient {
    /// Lists parked topics and keys, in the order in which they were parked.
    ///
    /// # Errors
    /// Returns an error when the database fails, or its answer cannot be decoded.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn parked(&self, filter: &Filter) -> Result<Vec<ParkedEntry>, AdminError> {
        let list = bind_filter(self.sql(include_str!("../sql/admin/parked.sql")), filter);
        self.decoded(Operation::ReadParked, list, decode_entry)
            .await
    }

    /// Parks a topic, or one key of it. Returns false when it is parked already.
    ///
    /// # Errors
    /// Returns an error when the database fails. It may be parked then, or not.
    ///
    /// # Cancel safety
    /// If dropped midway, it may be parked, or not.
    pub async fn park(&self, topic: &str, key: Option<&str>) -> Result<bool, AdminError> {
        let park = match key {
            None => query(self.sql(include_str!("../sql/admin/park_topic.sql"))).bind(topic),
            Some(key) => query(self.sql(include_str!("../sql/admin/park_key.sql")))
                .bind(topic)
                .bind(key),
        };
        Ok(!self.rows(Operation::Park, park).await?.is_empty())
    }

    /// Unparks a topic or key. Its rows are published under the ids that they have. Returns false
    /// when it was not parked any more.
    ///
    /// # Errors
    /// Returns an error when the database fails. It may be unparked then, or not.
    ///
    /// # Cancel safety
    /// If dropped midway, it may be unparked, or not.
    pub async fn unpark(&self, entry: &ParkedEntry) -> Result<bool, AdminError> {
        let topic = &entry.topic;
        let unpark = match &entry.key {
            None => query(self.sql(include_str!("../sql/admin/unpark_topic.sql"))).bind(topic),
            Some(key) => query(self.sql(include_str!("../sql/admin/unpark_key.sql")))
                .bind(topic)
                .bind(key),
        };
        Ok(!self.rows(Operation::Unpark, unpark).await?.is_empty())
    }

    /// Moves the rejected row of a key to the dead letters and unparks the key, in one transaction.
    ///
    /// Returns false when nothing was done: the key is not parked for this row any more, or the row
    /// no longer exists.
    ///
    /// # Errors
    /// Returns an error when the database fails. Then either nothing is done, or everything.
    ///
    /// # Cancel safety
    /// If dropped midway, either nothing is done, or everything.
    pub async fn skip(&self, entry: &ParkedEntry) -> Result<bool, AdminError> {
        let event_id: Option<Uuid> = entry.event_id.as_deref().and_then(|text| text.parse().ok());
        let skip = query(self.sql(include_str!("../sql/admin/skip.sql")))
            .bind(&entry.topic)
            .bind(&entry.key)
            .bind(entry.outbox_seq)
            .bind(event_id);
        let decode = |row: &PgRow| row.try_get(0);
        let skipped: Vec<Option<bool>> = self.decoded(Operation::SkipRow, skip, decode).await?;
        Ok(skipped.first() == Some(&Some(true)))
    }
}

fn decode_entry(row: &PgRow) -> Result<ParkedEntry, sqlx::Error> {
    let event_id: Option<Uuid> = row.try_get("head_event_id")?;
    Ok(ParkedEntry {
        topic: row.try_get("topic")?,
        key: row.try_get("key")?,
        lane: row.try_get("lane")?,
        class: row.try_get("class")?,
        attempts: row.try_get("attempts")?,
        outbox_seq: row.try_get("head_id")?,
        event_id: event_id.map(|event_id| event_id.to_string()),
        first_failed_at: row.try_get("first_failed_at")?,
        parked_at: row.try_get("parked_at")?,
    })
}
