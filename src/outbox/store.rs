//! The relay's statements, one function each, free of decisions. IO.
//!
//! Each kind of work has its own connections, so that a slow fetch can never keep a lease from being renewed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sqlx::{PgPool, Row, SqlStr};
use uuid::Uuid;

use super::{
    error::DatabaseFault,
    parking::ParkingStatements,
    row::{DecodeError, Fetched, decode},
    schema::statement,
};
use crate::{
    report::{Problem, ProblemClass},
    settings::SchemaName,
};

/// A statement of the relay failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation}")]
pub struct StoreError {
    pub operation: &'static str,
    #[source]
    pub source: StoreErrorSource,
}

/// What was behind it.
#[derive(Debug, thiserror::Error)]
pub enum StoreErrorSource {
    #[error(transparent)]
    Database(DatabaseFault),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl From<sqlx::Error> for StoreErrorSource {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl StoreError {
    /// As it goes into a report.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match &self.source {
            StoreErrorSource::Database(fault) => Problem::new(fault.class, format!("{self}: {fault}")),
            StoreErrorSource::Decode(error) => Problem::new(ProblemClass::DatabaseError, format!("{self}: {error}")),
        }
    }
}

/// Makes a sqlx error one of `operation`.
pub(super) fn failed<E: Into<StoreErrorSource>>(operation: &'static str) -> impl FnOnce(E) -> StoreError {
    move |error| StoreError { operation, source: error.into() }
}

/// Which rows to read: parallel lists, an entry per lane.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FetchPlan {
    pub lanes: Vec<i16>,
    /// Rows above this id.
    pub lows: Vec<i64>,
    /// At most so many rows.
    pub rows_max: Vec<i32>,
    /// At most so many bytes of payload, but always one row.
    pub bytes_max: Vec<i64>,
    /// Only rows that flow; absent: all.
    pub flowing: Option<Flowing>,
    /// With `flowing`: looks at no more rows of a lane than this.
    pub scan_max: i32,
}

/// Which rows flow while others rest: those of `topics`, by their own topic or else by the route of their types, but for `resting_keys`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Flowing {
    pub topics: Vec<String>,
    /// Event type -> topic; beats the aggregate type.
    pub by_event_type: BTreeMap<String, String>,
    /// Aggregate type -> topic.
    pub by_aggregate_type: BTreeMap<String, String>,
    /// (topic, key).
    pub resting_keys: Vec<(String, String)>,
}

impl Flowing {
    /// `resting_keys` as an object, which PostgreSQL searches by halving; no topic contains the separator.
    fn resting_keys_json(&self) -> String {
        let object: serde_json::Map<_, _> =
            self.resting_keys.iter().map(|(topic, key)| (format!("{topic}\u{1f}{key}"), 0.into())).collect();
        serde_json::Value::Object(object).to_string()
    }
}

/// Rows to delete: parallel lists, an entry per row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettlePlan {
    pub lanes: Vec<i16>,
    pub ids: Vec<i64>,
    pub event_ids: Vec<Uuid>,
}

/// Lanes with what their owner knows of them: parallel lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneMarksPlan {
    pub lanes: Vec<i16>,
    pub epochs: Vec<i64>,
    pub marks: Vec<i64>,
    pub high_ids: Vec<i64>,
}

/// A lane that was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub lane: u8,
    pub epoch: i64,
    pub mark: i64,
    pub high_id: i64,
}

/// Who lives and who has what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Relays whose lease has not run out, this one included.
    pub live: u32,
    /// Smallest share of the others; absent without any.
    pub fewest: Option<u32>,
    /// Lanes that can be claimed.
    pub free: u32,
}

/// Rows that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    pub rows: u64,
    /// `created_at` of the oldest, microseconds since 1970.
    pub oldest_us: Option<i64>,
}

/// Statement texts with the schema put in.
struct Statements {
    fetch: SqlStr,
    fetch_flowing: SqlStr,
    settle: SqlStr,
    register: SqlStr,
    renew: SqlStr,
    write_marks: SqlStr,
    release: SqlStr,
    survey: SqlStr,
    claim: SqlStr,
    unregister: SqlStr,
    sweep: SqlStr,
    backlog: SqlStr,
}

impl Statements {
    fn new(schema: &SchemaName) -> Self {
        Self {
            fetch: statement(include_str!("sql/fetch.sql"), schema),
            fetch_flowing: statement(include_str!("sql/fetch_flowing.sql"), schema),
            settle: statement(include_str!("sql/settle.sql"), schema),
            register: statement(include_str!("sql/register.sql"), schema),
            renew: statement(include_str!("sql/renew.sql"), schema),
            write_marks: statement(include_str!("sql/write_marks.sql"), schema),
            release: statement(include_str!("sql/release.sql"), schema),
            survey: statement(include_str!("sql/survey.sql"), schema),
            claim: statement(include_str!("sql/claim.sql"), schema),
            unregister: statement(include_str!("sql/unregister.sql"), schema),
            sweep: statement(include_str!("sql/sweep.sql"), schema),
            backlog: statement(include_str!("sql/backlog.sql"), schema),
        }
    }
}

/// Session settings of the connections that read lanes: without statistics the planner would rather sort or scan than walk the one index.
pub const READER_OPTIONS: &[(&str, &str)] =
    &[("enable_bitmapscan", "off"), ("enable_sort", "off"), ("enable_seqscan", "off"), ("jit", "off")];

/// Connections by kind of work. Each pool connects when first used, and again after a failure.
#[derive(Clone)]
pub struct Pools {
    /// Reads lanes; made with [`READER_OPTIONS`].
    pub reader: PgPool,
    /// Settles, counts and sweeps; made with [`READER_OPTIONS`] too.
    pub settler: PgPool,
    pub lease: PgPool,
}

/// The relay's side of the outbox.
#[derive(Clone)]
pub struct Store {
    pub(super) pools: Pools,
    statements: Arc<Statements>,
    pub(super) parking: Arc<ParkingStatements>,
}

impl Store {
    #[must_use]
    pub fn new(pools: Pools, schema: &SchemaName) -> Self {
        Self { pools, statements: Arc::new(Statements::new(schema)), parking: Arc::new(ParkingStatements::new(schema)) }
    }

    /// Connections of the lease, for whoever asks before there is one.
    #[must_use]
    pub fn lease_pool(&self) -> &PgPool {
        &self.pools.lease
    }

    /// Rows above each lane's position, and the snapshot that saw them.
    ///
    /// # Errors
    /// When the database fails, or answers in another shape.
    pub async fn fetch(&self, plan: &FetchPlan) -> Result<Fetched, StoreError> {
        let statement = if plan.flowing.is_some() { &self.statements.fetch_flowing } else { &self.statements.fetch };
        let mut query = sqlx::query(statement.clone()).bind(&plan.lanes).bind(&plan.lows).bind(&plan.rows_max).bind(&plan.bytes_max);
        if let Some(flowing) = &plan.flowing {
            query = query
                .bind(&flowing.topics)
                .bind(serde_json::json!(flowing.by_event_type).to_string())
                .bind(serde_json::json!(flowing.by_aggregate_type).to_string())
                .bind(flowing.resting_keys_json())
                .bind(plan.scan_max);
        }
        let rows = query.fetch_all(&self.pools.reader).await.map_err(failed("fetch rows"))?;
        decode(&rows).map_err(failed("fetch rows"))
    }

    /// Deletes acknowledged rows; returns the xid of the transaction.
    ///
    /// If dropped midway the rows may or may not be gone; settling them again is harmless.
    ///
    /// # Errors
    /// When the database fails; then the rows may be gone, or not.
    pub async fn settle(&self, plan: &SettlePlan) -> Result<u64, StoreError> {
        let row = sqlx::query(self.statements.settle.clone())
            .bind(&plan.lanes)
            .bind(&plan.ids)
            .bind(&plan.event_ids)
            .fetch_one(&self.pools.settler)
            .await
            .map_err(failed("settle rows"))?;
        xid(row.try_get(0).map_err(failed("settle rows"))?).map_err(failed("settle rows"))
    }

    /// The xid of a transaction of its own.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tick(&self) -> Result<u64, StoreError> {
        let text: String =
            sqlx::query_scalar(include_str!("sql/tick.sql")).fetch_one(&self.pools.settler).await.map_err(failed("draw a tick"))?;
        xid(&text).map_err(failed("draw a tick"))
    }

    /// Begins a lease for a new instance.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn register(&self, instance: Uuid, pod: &str, ttl: Duration) -> Result<(), StoreError> {
        sqlx::query(self.statements.register.clone())
            .bind(instance)
            .bind(pod)
            .bind(millis(ttl))
            .execute(&self.pools.lease)
            .await
            .map_err(failed("register this relay"))?;
        Ok(())
    }

    /// Renews the lease and writes marks, in one transaction. Returns its xid and the lanes that are still ours; `None`: the lease had run out.
    ///
    /// # Errors
    /// When the database fails; then the lease may have been renewed, or not.
    pub async fn renew(&self, instance: Uuid, ttl: Duration, marks: &LaneMarksPlan) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let mut transaction = self.pools.lease.begin().await.map_err(failed("begin a renewal"))?;
        let renewed: Option<String> = sqlx::query_scalar(self.statements.renew.clone())
            .bind(instance)
            .bind(millis(ttl))
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed("renew the lease"))?;
        let Some(renewed) = renewed else { return Ok(None) };
        let ours: Vec<i16> =
            bind_marks(&self.statements.write_marks, instance, marks).fetch_all(&mut *transaction).await.map_err(failed("write marks"))?;
        transaction.commit().await.map_err(failed("commit a renewal"))?;
        Ok(Some((xid(&renewed).map_err(failed("renew the lease"))?, ours.into_iter().filter_map(|lane| u8::try_from(lane).ok()).collect())))
    }

    /// Gives drained lanes back.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release(&self, instance: Uuid, marks: &LaneMarksPlan) -> Result<(), StoreError> {
        bind_marks(&self.statements.release, instance, marks).fetch_all(&self.pools.lease).await.map_err(failed("release lanes"))?;
        Ok(())
    }

    /// Who lives and who has what.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn survey(&self, instance: Uuid, known: &[i16]) -> Result<Survey, StoreError> {
        let (live, fewest, free): (i64, Option<i64>, i64) = sqlx::query_as(self.statements.survey.clone())
            .bind(instance)
            .bind(known)
            .fetch_one(&self.pools.lease)
            .await
            .map_err(failed("survey the lanes"))?;
        let count = |number: i64| u32::try_from(number).unwrap_or(0);
        Ok(Survey { live: count(live), fewest: fewest.map(count), free: count(free) })
    }

    /// Takes at most `lanes_max` free lanes.
    ///
    /// # Errors
    /// When the database fails; then lanes may have been taken: the next renewal tells.
    pub async fn claim(&self, instance: Uuid, lanes_max: u32, known: &[i16]) -> Result<Vec<Grant>, StoreError> {
        let rows: Vec<(i16, i64, i64, i64)> = sqlx::query_as(self.statements.claim.clone())
            .bind(instance)
            .bind(i64::from(lanes_max))
            .bind(known)
            .fetch_all(&self.pools.lease)
            .await
            .map_err(failed("claim lanes"))?;
        let grant = |(lane, epoch, mark, high_id)| Some(Grant { lane: u8::try_from(lane).ok()?, epoch, mark, high_id });
        Ok(rows.into_iter().filter_map(grant).collect())
    }

    /// Ends the lease: lanes that are still ours are free at once.
    ///
    /// # Errors
    /// When the database fails; then the lease runs out by itself.
    pub async fn unregister(&self, instance: Uuid) -> Result<(), StoreError> {
        sqlx::query(self.statements.unregister.clone())
            .bind(instance)
            .execute(&self.pools.lease)
            .await
            .map_err(failed("unregister this relay"))?;
        Ok(())
    }

    /// Rows at or below the given marks, at most 100 a lane: there should be none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweep(&self, lanes: &[i16], marks: &[i64]) -> Result<Vec<(u8, i64, Uuid)>, StoreError> {
        let rows: Vec<(i16, i64, Uuid)> = sqlx::query_as(self.statements.sweep.clone())
            .bind(lanes)
            .bind(marks)
            .fetch_all(&self.pools.settler)
            .await
            .map_err(failed("sweep below the marks"))?;
        Ok(rows.into_iter().filter_map(|(lane, id, event_id)| Some((u8::try_from(lane).ok()?, id, event_id))).collect())
    }

    /// Rows that wait above the given marks, counted up to `rows_max`, and since when.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn backlog(&self, lanes: &[i16], marks: &[i64], rows_max: u32) -> Result<Depth, StoreError> {
        let (rows, oldest_us): (i64, Option<i64>) = sqlx::query_as(self.statements.backlog.clone())
            .bind(lanes)
            .bind(marks)
            .bind(i64::from(rows_max))
            .fetch_one(&self.pools.settler)
            .await
            .map_err(failed("count the backlog"))?;
        Ok(Depth { rows: u64::try_from(rows).unwrap_or(0), oldest_us })
    }
}

type ScalarQuery<'q> = sqlx::query::QueryScalar<'q, sqlx::Postgres, i16, sqlx::postgres::PgArguments>;

fn bind_marks<'q>(statement: &SqlStr, instance: Uuid, marks: &'q LaneMarksPlan) -> ScalarQuery<'q> {
    sqlx::query_scalar(statement.clone()).bind(instance).bind(&marks.lanes).bind(&marks.epochs).bind(&marks.marks).bind(&marks.high_ids)
}

fn xid(text: &str) -> Result<u64, DecodeError> {
    text.parse().map_err(|_| DecodeError::Value)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
