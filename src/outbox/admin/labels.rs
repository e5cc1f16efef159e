//! Types and ids of rows that a command changes, for the log. IO.

use sqlx::{Row, postgres::PgRow, query};
use uuid::Uuid;

use crate::{
    event_labels::EventLabels,
    outbox::{
        admin::{AdminClient, AdminError},
        store::Operation,
    },
};

/// A row that a command is about to change, or has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabeledRow {
    pub event_id: Uuid,
    pub outbox_seq: i64,
    pub topic: String,
    /// Why Kafka rejected it.
    pub class: String,
    pub labels: EventLabels,
}

/// Where rows with labels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelSource {
    DeadLetters,
    /// Rejected rows for which keys are parked.
    ParkedHeads,
}

impl AdminClient {
    /// Reads the labels of those rows that are still there.
    ///
    /// # Errors
    /// Returns an error when the database fails, or its answer cannot be decoded.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn labels(
        &self,
        source: LabelSource,
        rows: &[(Uuid, i64)],
    ) -> Result<Vec<LabeledRow>, AdminError> {
        let (sql, operation) = match source {
            LabelSource::DeadLetters => (
                include_str!("../sql/admin/dead_letter_labels.sql"),
                Operation::ReadDeadLetters,
            ),
            LabelSource::ParkedHeads => (
                include_str!("../sql/admin/parked_labels.sql"),
                Operation::ReadParked,
            ),
        };
        let (event_ids, ids): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
        let list = query(self.sql(sql)).bind(event_ids).bind(ids);
        self.decoded(operation, list, decode).await
    }
}

fn decode(row: &PgRow) -> Result<LabeledRow, sqlx::Error> {
    let text = |column| row.try_get::<Option<String>, _>(column);
    let (event_type, correlation_id) = (text("event_type")?, text("correlation_id")?);
    let traceparent = text("traceparent")?;
    Ok(LabeledRow {
        event_id: row.try_get("event_id")?,
        outbox_seq: row.try_get("id")?,
        topic: row.try_get("topic")?,
        class: row.try_get("class")?,
        labels: EventLabels::new(
            event_type.as_deref(),
            correlation_id.as_deref(),
            traceparent.as_deref(),
        ),
    })
}
