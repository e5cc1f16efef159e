//! Dead letters: found, shown, brought back, discarded. IO.

use serde::{Serialize, Serializer};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::{Desk, DeskError, Filter, filtered};
use crate::outbox::store::failed;

/// What a dead letter is named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterName {
    pub event_id: Uuid,
    pub id: i64,
}

/// How much of a dead letter is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Neither its payload nor the values of its headers.
    Metadata,
    Contents,
}

/// A row that Kafka refused. Times are RFC 3339, in UTC.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    #[serde(serialize_with = "as_text")]
    pub event_id: Uuid,
    /// Its id when it was refused.
    pub outbox_seq: i64,
    /// Where it was to go.
    pub topic: String,
    pub key: String,
    pub lane: i16,
    pub class: String,
    pub attempts: i32,
    pub event_type: String,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub created_at: String,
    pub first_failed_at: String,
    pub failed_at: String,
    /// Absent: a tombstone.
    pub payload_bytes: Option<i32>,
    pub header_names: Vec<String>,
    /// Absent unless asked for.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
}

/// What is in it.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// The payload as text; absent: it is none, or not UTF-8.
    pub payload: Option<String>,
    /// The payload in base64, where it is not UTF-8.
    pub payload_base64: Option<String>,
    pub headers: serde_json::Value,
}

impl Desk {
    /// Dead letters in the order in which they were written; with payload and headers where
    /// `detail` says so.
    ///
    /// # Errors
    /// When the database fails, or answers in another shape.
    pub async fn letters(
        &self,
        filter: &Filter,
        detail: Detail,
    ) -> Result<Vec<DeadLetter>, DeskError> {
        let operation = "read the dead letters";
        let ask = filtered(self.sql(include_str!("../sql/desk/letters.sql")), filter)
            .bind(detail == Detail::Contents);
        let rows = self.rows(operation, ask).await?;
        Ok(rows
            .iter()
            .map(|row| letter(row, detail))
            .collect::<Result<_, _>>()
            .map_err(failed(operation))?)
    }

    /// Names of the same dead letters.
    ///
    /// # Errors
    /// When the database fails, or answers in another shape.
    pub async fn letter_names(&self, filter: &Filter) -> Result<Vec<LetterName>, DeskError> {
        let operation = "read the dead letters";
        let names = concat!(
            "select event_id, id from (",
            include_str!("../sql/desk/letters.sql"),
            ") as letter order by id, event_id"
        );
        let rows = self
            .rows(operation, filtered(self.sql(names), filter).bind(false))
            .await?;
        let name = |row: &PgRow| {
            Ok(LetterName {
                event_id: row.try_get(0)?,
                id: row.try_get(1)?,
            })
        };
        Ok(rows
            .iter()
            .map(name)
            .collect::<Result<_, sqlx::Error>>()
            .map_err(failed(operation))?)
    }

    /// Brings dead letters back as the last rows of their keys, in one transaction; returns how
    /// many were still there.
    ///
    /// # Errors
    /// When the database fails; then all are back, or none.
    pub async fn requeue(&self, names: &[LetterName]) -> Result<u64, DeskError> {
        self.take(
            "requeue dead letters",
            include_str!("../sql/desk/requeue.sql"),
            names,
        )
        .await
    }

    /// Deletes dead letters for good, in one transaction; returns how many were still there.
    ///
    /// # Errors
    /// When the database fails; then all are gone, or none.
    pub async fn discard(&self, names: &[LetterName]) -> Result<u64, DeskError> {
        self.take(
            "discard dead letters",
            include_str!("../sql/desk/discard.sql"),
            names,
        )
        .await
    }

    async fn take(
        &self,
        operation: &'static str,
        template: &'static str,
        names: &[LetterName],
    ) -> Result<u64, DeskError> {
        let event_ids: Vec<Uuid> = names.iter().map(|name| name.event_id).collect();
        let ids: Vec<i64> = names.iter().map(|name| name.id).collect();
        let rows = self
            .rows(
                operation,
                sqlx::query(self.sql(template)).bind(event_ids).bind(ids),
            )
            .await?;
        let count: i64 = rows
            .first()
            .map_or(Ok(0), |row| row.try_get(0))
            .map_err(failed(operation))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}

fn letter(row: &PgRow, detail: Detail) -> Result<DeadLetter, sqlx::Error> {
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
        contents: if detail == Detail::Contents {
            Some(contents(row)?)
        } else {
            None
        },
    })
}

fn contents(row: &PgRow) -> Result<Contents, sqlx::Error> {
    let headers: String = row.try_get("headers")?;
    Ok(Contents {
        payload: row.try_get("payload_text")?,
        payload_base64: row.try_get("payload_base64")?,
        // Numbers that JSON has and we have not stay what they were, as text.
        headers: serde_json::from_str(&headers).unwrap_or(serde_json::Value::String(headers)),
    })
}

fn as_text<S: Serializer>(value: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
