//! A database with an outbox of its own, a topic of its own, and what writes rows.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::Context;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::time::{Instant, sleep};

use super::{
    consumer::{NUMBER, now_us},
    relay::Relay,
};

static NEXT: AtomicU64 = AtomicU64::new(0);
/// Of the next payload.
static NUMBERS: AtomicU64 = AtomicU64::new(0);
/// A commit waits for the disk: fewer do not reach the higher rate.
const WRITERS: u64 = 32;

/// Rows of a transaction that commits late.
pub(crate) const LATE_ROWS: u64 = 20;

pub(crate) struct Table {
    pool: PgPool,
    url: String,
    kafka: String,
    name: String,
    pub(crate) topic: String,
}

/// Bytes that a codec makes about half as large, as it does with real events.
pub(crate) fn payload(bytes: usize) -> Vec<u8> {
    let mut state = 42_u64;
    let mut byte = |at: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if at.is_multiple_of(2) { b'a' } else { b'0' + (state >> 60) as u8 }
    };
    (0..bytes).map(&mut byte).collect()
}

pub(crate) async fn create_topic(kafka: &str) -> anyhow::Result<String> {
    let name = format!("bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", kafka).create()?;
    let created = admin.create_topics([&NewTopic::new(&name, 6, TopicReplication::Fixed(1))], &AdminOptions::new()).await?;
    anyhow::ensure!(created.iter().all(Result::is_ok), "{created:?}");
    Ok(name)
}

impl Table {
    pub(crate) async fn create(postgres: &str, kafka: &str) -> anyhow::Result<Self> {
        let topic = create_topic(kafka).await?;
        let name = topic.replace('-', "_");
        let mut admin = PgConnection::connect(postgres).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await?;
        let base = postgres.rsplit_once('/').context("a URL with a database")?.0;
        let url = format!("{base}/{name}");
        let pool = PgPoolOptions::new().max_connections(WRITERS as u32 + 2).connect_lazy(&url)?;
        Ok(Self { pool, url, kafka: kafka.to_owned(), name, topic })
    }

    /// Writes the manifest; the relay itself migrates.
    pub(crate) fn manifest(&self) -> anyhow::Result<PathBuf> {
        let file = std::env::temp_dir().join(format!("{}.yaml", self.name));
        let text = format!(
            "apiVersion: outboxrelay.dev/v1alpha1\nkind: OutboxRelay\nmetadata: {{ name: bench, namespace: bench }}\nspec:\n  database:\n    \
             urlSecretRef: {{ name: db, key: uri }}\n    tls: {{ mode: disable }}\n  kafka:\n    bootstrapServers: ['{}']\n    \
             tls: {{ mode: disable }}\n  topics: [{{ name: {} }}]\n---\napiVersion: v1\nkind: Secret\nmetadata: {{ name: db, namespace: bench }}\n\
             stringData: {{ uri: '{}' }}\n",
            self.kafka, self.topic, self.url
        );
        std::fs::write(&file, text)?;
        Ok(file)
    }

    pub(crate) async fn insert(&self, rows: u64, bytes: usize) -> anyhow::Result<()> {
        let insert = format!(
            "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
             select 'bench', 'key-' || n % 1000, 'Benched', '{}', $1 from generate_series(1, {rows}) n",
            self.topic
        );
        sqlx::query(AssertSqlSafe(insert)).bind(payload(bytes)).execute(&self.pool).await?;
        Ok(())
    }

    /// Inserts while the relay stands still, shorter than its lease.
    pub(crate) async fn insert_stopped(&self, relay: &Relay, rows: u64, bytes: usize) -> anyhow::Result<()> {
        // Invisible until it commits, so the relay stands still only for that.
        let mut transaction = self.pool.begin().await?;
        let insert = format!(
            "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
             select 'bench', 'key-' || n % 1000, 'Benched', '{}', $1 from generate_series(1, {rows}) n",
            self.topic
        );
        sqlx::query(AssertSqlSafe(insert)).bind(payload(bytes)).execute(&mut *transaction).await?;
        relay.stand_still()?;
        transaction.commit().await?;
        Ok(())
    }

    pub(crate) async fn is_empty(&self) -> anyhow::Result<()> {
        let give_up = Instant::now() + Duration::from_secs(600);
        // One row is looked for from the end, where the last ones are: looking from the start would read all that is deleted.
        while sqlx::query_scalar::<_, bool>("select exists (select from outbox.event)").fetch_one(&self.pool).await? {
            anyhow::ensure!(Instant::now() < give_up, "after 10 minutes rows are left");
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Transactions of one row each at this rate, the writers one after the other. Returns when each was committed, by its number; in us since
    /// 1970, as a service sees it.
    pub(crate) async fn write_steadily(&self, rate: u64, during: Duration, bytes: usize) -> anyhow::Result<HashMap<u64, i64>> {
        let writers = (0..WRITERS).map(|writer| {
            let (pool, topic, mut payload) = (self.pool.clone(), self.topic.clone(), payload(bytes));
            tokio::spawn(async move {
                let pause = Duration::from_nanos(1_000_000_000 * WRITERS / rate);
                let (began, mut committed) = (Instant::now(), Vec::new());
                while began.elapsed() < during {
                    let turn = committed.len() as u64;
                    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
                    payload.splice(..NUMBER, format!("{number:0NUMBER$}").into_bytes());
                    tokio::time::sleep_until(began + pause * turn as u32 + pause / WRITERS as u32 * writer as u32).await;
                    sqlx::query("insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload) values ('bench', $1, 'Benched', $2, $3)")
                        .bind(format!("key-{}", (turn * WRITERS + writer) % 1000))
                        .bind(&topic)
                        .bind(&payload)
                        .execute(&pool)
                        .await?;
                    committed.push((number, now_us()));
                }
                anyhow::Ok(committed)
            })
        });
        let mut committed = HashMap::new();
        for writer in writers.collect::<Vec<_>>() {
            committed.extend(writer.await??);
        }
        Ok(committed)
    }

    /// A transaction of a few rows that stays open. Returns how long it was open after its last insert, until it was committed.
    pub(crate) async fn straggle(&self, open: Duration, bytes: usize) -> anyhow::Result<Duration> {
        let mut transaction = self.pool.begin().await?;
        let inserted = Instant::now();
        let insert = "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
             select 'bench', 'late-' || n, 'Benched', $1, $2 from generate_series(1, $3) n";
        sqlx::query(insert).bind(&self.topic).bind(payload(bytes)).bind(LATE_ROWS as i64).execute(&mut *transaction).await?;
        sleep(open).await;
        transaction.commit().await?;
        Ok(inserted.elapsed())
    }

    /// A transaction that keeps vacuum from removing anything, for as long as the connection lives.
    pub(crate) async fn pin_horizon(&self) -> anyhow::Result<PgConnection> {
        let mut connection = PgConnection::connect(&self.url).await?;
        sqlx::raw_sql("begin isolation level repeatable read; select count(*) from outbox.lane").execute(&mut connection).await?;
        Ok(connection)
    }

    /// Transactions of this database so far.
    pub(crate) async fn transactions(&self) -> anyhow::Result<i64> {
        let query = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";
        Ok(sqlx::query_scalar(query).fetch_one(&self.pool).await?)
    }
}
