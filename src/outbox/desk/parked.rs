//! Parked topics and keys: found, parked by hand, let flow again, their refused rows skipped. IO.

use serde::Serialize;
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::{Desk, DeskError, Filter, filtered};
use crate::outbox::store::failed;

/// A topic or a key that waits. Times are RFC 3339, in UTC.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParkedEntry {
    pub topic: String,
    /// Absent: the whole topic.
    pub key: Option<String>,
    pub lane: Option<i16>,
    pub class: String,
    pub attempts: Option<i32>,
    /// Id of the row that was refused; absent: parked by hand.
    pub outbox_seq: Option<i64>,
    pub event_id: Option<String>,
    pub first_failed_at: Option<String>,
    pub parked_at: String,
}

impl Desk {
    /// Parked topics and keys, longest first.
    ///
    /// # Errors
    /// When the database fails, or answers in another shape.
    pub async fn parked(&self, filter: &Filter) -> Result<Vec<ParkedEntry>, DeskError> {
        let operation = "read what is parked";
        let rows = self
            .rows(
                operation,
                filtered(self.sql(include_str!("../sql/desk/parked.sql")), filter),
            )
            .await?;
        Ok(rows
            .iter()
            .map(entry)
            .collect::<Result<_, _>>()
            .map_err(failed(operation))?)
    }

    /// Parks a topic, or one key of it; false: it is parked already.
    ///
    /// # Errors
    /// When the database fails; then it may be parked, or not.
    pub async fn park(&self, topic: &str, key: Option<&str>) -> Result<bool, DeskError> {
        let park = match key {
            None => sqlx::query(self.sql(include_str!("../sql/desk/park_topic.sql"))).bind(topic),
            Some(key) => sqlx::query(self.sql(include_str!("../sql/desk/park_key.sql")))
                .bind(topic)
                .bind(key),
        };
        Ok(!self.rows("park it", park).await?.is_empty())
    }

    /// Lets it flow again, under the ids that its rows have; false: it was not parked any more.
    ///
    /// # Errors
    /// When the database fails; then it may flow, or not.
    pub async fn unpark(&self, entry: &ParkedEntry) -> Result<bool, DeskError> {
        let unpark = match &entry.key {
            None => sqlx::query(self.sql(include_str!("../sql/desk/unpark_topic.sql")))
                .bind(&entry.topic),
            Some(key) => sqlx::query(self.sql(include_str!("../sql/desk/unpark_key.sql")))
                .bind(&entry.topic)
                .bind(key),
        };
        Ok(!self.rows("let it flow again", unpark).await?.is_empty())
    }

    /// Moves the refused row to the dead letters and lets its key flow again, in one transaction;
    /// false: the key was not parked behind this row any more, or the row had gone.
    ///
    /// # Errors
    /// When the database fails; then it is done, or not.
    pub async fn skip(&self, entry: &ParkedEntry) -> Result<bool, DeskError> {
        let operation = "skip a row";
        let event_id: Option<Uuid> = entry.event_id.as_deref().and_then(|text| text.parse().ok());
        let skip = sqlx::query(self.sql(include_str!("../sql/desk/skip.sql")));
        let skip = skip
            .bind(&entry.topic)
            .bind(&entry.key)
            .bind(entry.outbox_seq)
            .bind(event_id);
        let rows = self.rows(operation, skip).await?;
        let skipped: Option<bool> = rows
            .first()
            .map_or(Ok(None), |row| row.try_get(0))
            .map_err(failed(operation))?;
        Ok(skipped == Some(true))
    }
}

fn entry(row: &PgRow) -> Result<ParkedEntry, sqlx::Error> {
    Ok(ParkedEntry {
        topic: row.try_get("topic")?,
        key: row.try_get("key")?,
        lane: row.try_get("lane")?,
        class: row.try_get("class")?,
        attempts: row.try_get("attempts")?,
        outbox_seq: row.try_get("head_id")?,
        event_id: row
            .try_get::<Option<Uuid>, _>("head_event_id")?
            .map(|event_id| event_id.to_string()),
        first_failed_at: row.try_get("first_failed_at")?,
        parked_at: row.try_get("parked_at")?,
    })
}
