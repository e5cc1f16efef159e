//! State of an outbox, read from its tables: owner, relays, waiting rows, and what needs attention.
//! IO.

use serde::Serialize;
use sqlx::{Row, postgres::PgRow};

use crate::{
    outbox::{
        admin::{AdminClient, AdminError},
        schema::SchemaState,
        store::{Operation, failed},
    },
    settings::Owner,
};

/// Waiting rows are counted up to this number.
const ROWS_MAX: i64 = 1_000_000;

/// State of an outbox. Each number is read at its own moment.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    pub schema: String,
    /// Number of the last migration that was applied.
    pub level: i64,
    /// OutboxRelay that manages the schema.
    pub owner: Option<Owner>,
    pub waiting: Waiting,
    pub relays: Vec<RelayEntry>,
    /// Lanes that no relay with a valid lease owns.
    pub lanes_without_relay: Vec<i16>,
    /// Parked topics, parked keys and dead letters.
    #[serde(rename = "putAside")]
    pub attention: Vec<Attention>,
    /// Dead rows of table `event`, estimated by the server. `None`: it does not let this user ask.
    pub dead_rows: Option<i64>,
    /// Age in seconds of the oldest transaction that keeps vacuum from removing dead rows. `None`:
    /// this user sees no transaction.
    pub oldest_transaction_seconds: Option<f64>,
}

/// Rows that wait to be published, parked ones included.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    pub rows: i64,
    /// True when there are more than `rows`.
    pub capped: bool,
    /// When the oldest row was written, RFC 3339 in UTC; `None` when no row waits.
    pub oldest_at: Option<String>,
    /// Age of the oldest row in seconds; `None` when no row waits.
    pub oldest_seconds: Option<f64>,
}

/// A relay, as table `relay` lists it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayEntry {
    pub pod: String,
    pub instance: String,
    /// State of its circuit breaker.
    pub breaker: String,
    /// Seconds until its lease expires; negative when it has expired.
    pub lease_seconds: f64,
    /// Lanes that it owns.
    pub lanes: Vec<i16>,
}

impl RelayEntry {
    /// Whether its lease is valid.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.lease_seconds > 0.0
    }
}

/// Kind of what waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AttentionKind {
    ParkedTopic,
    ParkedKeys,
    DeadLetters,
}

/// Number of parked keys or dead letters of one topic and class, or a parked topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attention {
    pub kind: AttentionKind,
    pub topic: String,
    /// Why Kafka rejected the rows.
    pub class: String,
    pub number: i64,
    /// When the oldest one was parked or moved, RFC 3339 in UTC.
    pub oldest_at: String,
}

impl AdminClient {
    /// Reads the state of the outbox.
    ///
    /// # Errors
    /// Returns an error when the database fails, or its answer cannot be decoded.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn overview(&self) -> Result<Overview, AdminError> {
        let SchemaState { level, owner, .. } = self.state().await?;
        let (relays, lanes_without_relay) = self.relays().await?;
        let (dead_rows, oldest_transaction_seconds) = self.table_health().await?;
        Ok(Overview {
            schema: self.schema.as_str().to_owned(),
            level,
            owner,
            waiting: self.waiting().await?,
            relays,
            lanes_without_relay,
            attention: self.attention().await?,
            dead_rows,
            oldest_transaction_seconds,
        })
    }

    /// Reads the relays, and the lanes that none of them owns.
    ///
    /// # Errors
    /// Returns an error when the database fails, or its answer cannot be decoded.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn relays(&self) -> Result<(Vec<RelayEntry>, Vec<i16>), AdminError> {
        let operation = Operation::ReadRelays;
        let read = sqlx::query(self.sql(include_str!("../sql/admin/relays.sql")));
        let rows = self.rows(operation, read).await?;
        Ok(decode_relays(&rows).map_err(failed(operation))?)
    }

    async fn waiting(&self) -> Result<Waiting, AdminError> {
        let count = sqlx::query(self.sql(include_str!("../sql/admin/waiting.sql"))).bind(ROWS_MAX);
        self.decoded_row(Operation::CountWaiting, count, decode_waiting)
            .await
    }

    async fn attention(&self) -> Result<Vec<Attention>, AdminError> {
        let operation = Operation::CountAttention;
        let count = sqlx::query(self.sql(include_str!("../sql/admin/attention.sql")));
        self.decoded(operation, count, decode_attention).await
    }

    /// Number of dead rows, and age in seconds of the oldest transaction that keeps them.
    async fn table_health(&self) -> Result<(Option<i64>, Option<f64>), AdminError> {
        let read = sqlx::query(self.sql(include_str!("../sql/table_wide.sql")));
        self.decoded_row(Operation::ReadTableWide, read, decode_table_health)
            .await
    }
}

/// Decodes the relays and the lanes that none of them owns.
fn decode_relays(rows: &[PgRow]) -> Result<(Vec<RelayEntry>, Vec<i16>), sqlx::Error> {
    let (mut relays, mut unowned) = (Vec::new(), Vec::new());
    for row in rows {
        match decode_relay(row)? {
            Some(relay) => relays.push(relay),
            None => unowned = row.try_get("lanes")?,
        }
    }
    Ok((relays, unowned))
}

/// Decodes a relay. The row that lists the unowned lanes has no pod.
fn decode_relay(row: &PgRow) -> Result<Option<RelayEntry>, sqlx::Error> {
    let Some(pod) = row.try_get("pod")? else {
        return Ok(None);
    };
    Ok(Some(RelayEntry {
        pod,
        instance: row.try_get("instance")?,
        breaker: row.try_get("breaker")?,
        lease_seconds: row.try_get("lease_seconds")?,
        lanes: row.try_get("lanes")?,
    }))
}

fn decode_waiting(row: &PgRow) -> Result<Waiting, sqlx::Error> {
    let rows: i64 = row.try_get("rows")?;
    Ok(Waiting {
        rows: rows.min(ROWS_MAX),
        capped: rows > ROWS_MAX,
        oldest_at: row.try_get("oldest_at")?,
        oldest_seconds: row.try_get("oldest_seconds")?,
    })
}

fn decode_table_health(row: &PgRow) -> Result<(Option<i64>, Option<f64>), sqlx::Error> {
    let xmin_age: Option<f64> = row.try_get("xmin_age")?;
    let is_visible = |age: &f64| *age > 0.0;
    Ok((row.try_get("dead_tuples")?, xmin_age.filter(is_visible)))
}

fn decode_attention(row: &PgRow) -> Result<Attention, sqlx::Error> {
    let kind = match row.try_get("kind")? {
        "topic" => AttentionKind::ParkedTopic,
        "key" => AttentionKind::ParkedKeys,
        _ => AttentionKind::DeadLetters,
    };
    Ok(Attention {
        kind,
        topic: row.try_get("topic")?,
        class: row.try_get("class")?,
        number: row.try_get("number")?,
        oldest_at: row.try_get("oldest_at")?,
    })
}
