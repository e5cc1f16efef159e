//! Where one event is: among the waiting rows or the dead letters, and what it is behind. IO.

use sqlx::{Row, postgres::PgRow, query};
use uuid::Uuid;

use crate::outbox::{
    admin::{AdminClient, AdminError},
    store::Operation,
};

/// Rows with the same event_id that are listed at most.
const FOUND_MAX: i64 = 100;
/// Rows of the same key before a row that are counted at most.
pub const ROWS_BEFORE_MAX: i64 = 1000;

/// A row that has the event. Times are RFC 3339, in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundEvent {
    pub lane: i16,
    pub outbox_seq: i64,
    /// Topic that the row itself has; of a dead letter, the topic that it was for.
    pub topic: Option<String>,
    pub key: String,
    pub event_type: String,
    pub aggregate_type: String,
    pub created_at: String,
    /// Why it is a dead letter; `None` if it waits.
    pub dead: Option<DeadEvent>,
}

/// Why an event is a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadEvent {
    pub class: String,
    pub attempts: i32,
    pub failed_at: String,
}

/// What a waiting row is behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// Why its topic is parked; `None` if it is not.
    pub topic_class: Option<String>,
    /// `None` if its key is not parked.
    pub parked_key: Option<ParkedKeyHead>,
    /// Highest id that an owner of its lane has taken, as of the last renewal of its lease.
    pub high_id: i64,
    /// The relay with a valid lease that owns its lane.
    pub relay: Option<LaneRelay>,
    /// Rows of its key before it, counted up to [`ROWS_BEFORE_MAX`].
    pub rows_before: i64,
}

/// The row for which a key is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedKeyHead {
    pub class: String,
    /// Id and event id of the rejected row; `None` if a person parked the key.
    pub head: Option<(i64, String)>,
}

/// The relay that owns a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneRelay {
    pub pod: String,
    pub breaker: String,
}

impl AdminClient {
    /// Finds the rows that have an event. Reads both tables whole: they have no index of event ids.
    ///
    /// # Errors
    /// Returns an error when the database fails, or its answer cannot be decoded.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn find_event(&self, event_id: Uuid) -> Result<Vec<FoundEvent>, AdminError> {
        let find = query(self.sql(include_str!("../sql/admin/event.sql")))
            .bind(event_id)
            .bind(FOUND_MAX);
        self.decoded(Operation::FindEvent, find, decode_event).await
    }

    /// Reads what a waiting row is behind, if it goes to `topic`. `None` if it is gone by now.
    ///
    /// # Errors
    /// Returns an error when the database fails, or its answer cannot be decoded.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn obstacles(
        &self,
        event: &FoundEvent,
        topic: Option<&str>,
    ) -> Result<Option<Obstacles>, AdminError> {
        let read = query(self.sql(include_str!("../sql/admin/event_obstacles.sql")))
            .bind(event.lane)
            .bind(event.outbox_seq)
            .bind(topic)
            .bind(ROWS_BEFORE_MAX);
        let found = self
            .decoded(Operation::FindEvent, read, decode_obstacles)
            .await?;
        Ok(found.into_iter().next())
    }
}

fn decode_event(row: &PgRow) -> Result<FoundEvent, sqlx::Error> {
    let is_dead: bool = row.try_get("dead")?;
    Ok(FoundEvent {
        lane: row.try_get("lane")?,
        outbox_seq: row.try_get("id")?,
        topic: row.try_get("topic")?,
        key: row.try_get("key")?,
        event_type: row.try_get("event_type")?,
        aggregate_type: row.try_get("aggregate_type")?,
        created_at: row.try_get("created_at")?,
        dead: is_dead.then(|| decode_dead(row)).transpose()?,
    })
}

fn decode_dead(row: &PgRow) -> Result<DeadEvent, sqlx::Error> {
    Ok(DeadEvent {
        class: row.try_get("class")?,
        attempts: row.try_get("attempts")?,
        failed_at: row.try_get("failed_at")?,
    })
}

fn decode_obstacles(row: &PgRow) -> Result<Obstacles, sqlx::Error> {
    let (head_id, head_event_id): (Option<i64>, Option<String>) =
        (row.try_get("head_id")?, row.try_get("head_event_id")?);
    let key_class: Option<String> = row.try_get("key_class")?;
    let (pod, breaker): (Option<String>, Option<String>) =
        (row.try_get("pod")?, row.try_get("breaker")?);
    Ok(Obstacles {
        topic_class: row.try_get("topic_class")?,
        parked_key: key_class.map(|class| ParkedKeyHead {
            class,
            head: head_id.zip(head_event_id),
        }),
        high_id: row.try_get("high_id")?,
        relay: pod
            .zip(breaker)
            .map(|(pod, breaker)| LaneRelay { pod, breaker }),
        rows_before: row.try_get("rows")?,
    })
}
