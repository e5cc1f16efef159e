//! How an outbox is doing, from its tables: who manages it, who works on it, what waits, what was
//! put aside. IO.

use serde::Serialize;
use sqlx::{Row, postgres::PgRow};

use crate::{
    outbox::{
        admin::{AdminClient, AdminError},
        schema::SchemaState,
        store::failed,
    },
    settings::Owner,
};

/// Rows are counted up to here.
const ROWS_MAX: i64 = 1_000_000;

/// All of it. Each number is of its own moment.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    pub schema: String,
    pub level: i64,
    pub owner: Option<Owner>,
    pub waiting: Waiting,
    pub relays: Vec<RelaySeen>,
    /// Lanes that no relay with a running lease has.
    pub lanes_without_relay: Vec<i16>,
    pub put_aside: Vec<PutAside>,
    /// Dead rows of the table, as the server estimates them.
    pub dead_rows: i64,
    /// Age of the oldest transaction that keeps dead rows from being removed; absent: this user
    /// sees none.
    pub oldest_transaction_seconds: Option<f64>,
}

/// Rows that wait to be published, parked ones included.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    pub rows: i64,
    /// True: there are more than `rows`.
    pub capped: bool,
    /// RFC 3339, in UTC; absent: none waits.
    pub oldest_at: Option<String>,
    pub oldest_seconds: Option<f64>,
}

/// A relay, as the table of leases has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RelaySeen {
    pub pod: String,
    pub instance: String,
    /// State of its circuit breaker.
    pub breaker: String,
    /// What is left of its lease; negative: it has run out.
    pub lease_seconds: f64,
    pub lanes: Vec<i16>,
}

/// What was put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PutAsideKind {
    ParkedTopic,
    ParkedKeys,
    DeadLetters,
}

/// How much was put aside, by topic and class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PutAside {
    pub kind: PutAsideKind,
    pub topic: String,
    pub class: String,
    pub number: i64,
    /// RFC 3339, in UTC.
    pub oldest_at: String,
}

impl AdminClient {
    /// How the outbox is doing.
    ///
    /// # Errors
    /// When the database fails, or answers in another shape.
    pub async fn overview(&self) -> Result<Overview, AdminError> {
        let SchemaState { level, owner, .. } = self.state().await?;
        let (relays, lanes_without_relay) = self.relays().await?;
        let (dead_rows, oldest_transaction_seconds) = self.vacuum().await?;
        Ok(Overview {
            schema: self.schema.as_str().to_owned(),
            level,
            owner,
            waiting: self.waiting().await?,
            relays,
            lanes_without_relay,
            put_aside: self.put_aside().await?,
            dead_rows,
            oldest_transaction_seconds,
        })
    }

    /// Relays, and the lanes that none of them has.
    ///
    /// # Errors
    /// When the database fails, or answers in another shape.
    pub async fn relays(&self) -> Result<(Vec<RelaySeen>, Vec<i16>), AdminError> {
        let operation = "read the relays";
        let rows = self
            .rows(
                operation,
                sqlx::query(self.sql(include_str!("../sql/admin/relays.sql"))),
            )
            .await?;
        let (mut relays, mut free) = (Vec::new(), Vec::new());
        for row in &rows {
            match relay(row).map_err(failed(operation))? {
                Some(relay) => relays.push(relay),
                None => free = row.try_get("lanes").map_err(failed(operation))?,
            }
        }
        Ok((relays, free))
    }

    async fn waiting(&self) -> Result<Waiting, AdminError> {
        let operation = "count the rows that wait";
        let ask = sqlx::query(self.sql(include_str!("../sql/admin/waiting.sql"))).bind(ROWS_MAX);
        let rows = self.rows(operation, ask).await?;
        let waiting = |row: &PgRow| {
            let rows: i64 = row.try_get("rows")?;
            Ok(Waiting {
                rows: rows.min(ROWS_MAX),
                capped: rows > ROWS_MAX,
                oldest_at: row.try_get("oldest_at")?,
                oldest_seconds: row.try_get("oldest_seconds")?,
            })
        };
        Ok(rows
            .first()
            .ok_or(sqlx::Error::RowNotFound)
            .and_then(waiting)
            .map_err(failed(operation))?)
    }

    async fn put_aside(&self) -> Result<Vec<PutAside>, AdminError> {
        let operation = "count what was put aside";
        let rows = self
            .rows(
                operation,
                sqlx::query(self.sql(include_str!("../sql/admin/attention.sql"))),
            )
            .await?;
        Ok(rows
            .iter()
            .map(put_aside)
            .collect::<Result<_, _>>()
            .map_err(failed(operation))?)
    }

    async fn vacuum(&self) -> Result<(i64, Option<f64>), AdminError> {
        let operation = "read the numbers of the table";
        let rows = self
            .rows(
                operation,
                sqlx::query(self.sql(include_str!("../sql/table_wide.sql"))),
            )
            .await?;
        let numbers = |row: &PgRow| Ok((row.try_get("dead_tuples")?, row.try_get("xmin_age")?));
        Ok(rows
            .first()
            .ok_or(sqlx::Error::RowNotFound)
            .and_then(numbers)
            .map_err(failed(operation))?)
    }
}

fn relay(row: &PgRow) -> Result<Option<RelaySeen>, sqlx::Error> {
    let Some(pod) = row.try_get("pod")? else {
        return Ok(None);
    };
    Ok(Some(RelaySeen {
        pod,
        instance: row.try_get("instance")?,
        breaker: row.try_get("breaker")?,
        lease_seconds: row.try_get("lease_seconds")?,
        lanes: row.try_get("lanes")?,
    }))
}

fn put_aside(row: &PgRow) -> Result<PutAside, sqlx::Error> {
    let kind = match row.try_get("kind")? {
        "topic" => PutAsideKind::ParkedTopic,
        "key" => PutAsideKind::ParkedKeys,
        _ => PutAsideKind::DeadLetters,
    };
    let (topic, class) = (row.try_get("topic")?, row.try_get("class")?);
    Ok(PutAside {
        kind,
        topic,
        class,
        number: row.try_get("number")?,
        oldest_at: row.try_get("oldest_at")?,
    })
}
