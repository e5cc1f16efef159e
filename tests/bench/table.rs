//! A database with the table of a contender, its topics, and writers of rows.

use std::{
    collections::HashMap,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::Context;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Cli, Site,
    consumer::{NUMBER, now_us},
    contender::Contender,
    start::manifest,
    topic::Topics,
};

/// Number of the next payload.
static NUMBERS: AtomicU64 = AtomicU64::new(0);
/// Number of writers. A commit waits for the disk, and fewer writers do not reach the higher rate.
const WRITERS: u64 = 32;
/// Rows of a transaction of a backlog.
const TRANSACTION: u64 = 100;
/// Rows of a transaction that commits late.
pub(crate) const LATE_ROWS: u64 = 20;

/// A row that was written. Times are microseconds since 1970, as its writer saw them.
#[derive(Clone, Copy)]
pub(crate) struct Written {
    pub(crate) begun_us: i64,
    pub(crate) committed_us: i64,
}

/// A database with a table, and topics.
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) topics: Topics,
    /// Address of Kafka for the contender.
    pub(crate) kafka: String,
    contender: Contender,
    admin: String,
    pool: PgPool,
}

/// Text that compresses to about half its size, like real events.
pub(crate) fn payload(bytes: usize) -> String {
    let mut state = 42_u64;
    let mut letter = |at: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        if at.is_multiple_of(2) {
            'a'
        } else {
            char::from(b'0' + (state >> 60) as u8)
        }
    };
    (0..bytes).map(&mut letter).collect()
}

/// Options to connect without TLS, whose cost is not compared.
pub(crate) fn plain(url: &str) -> anyhow::Result<PgConnectOptions> {
    Ok(url
        .parse::<PgConnectOptions>()?
        .ssl_mode(PgSslMode::Disable))
}

impl Table {
    /// Creates an empty table without statistics.
    pub(crate) async fn create(
        cli: &Cli,
        contender: Contender,
        site: &Site,
    ) -> anyhow::Result<Self> {
        let topics = Topics::create(&cli.kafka, site.partitions, cli.replicas).await?;
        let name = topics.prefix.replace('-', "_");
        let mut admin = PgConnection::connect(&cli.postgres).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}")))
            .execute(&mut admin)
            .await?;
        let url = format!(
            "{}/{name}",
            cli.postgres
                .rsplit_once('/')
                .context("a URL with a database")?
                .0
        );
        let pool = PgPoolOptions::new()
            .max_connections(WRITERS as u32 + 2)
            .connect_lazy_with(plain(&url)?);
        let table = Self {
            name,
            url,
            topics,
            kafka: site.kafka.clone(),
            contender,
            admin: cli.postgres.clone(),
            pool,
        };
        for sql in contender.table() {
            sqlx::raw_sql(*sql).execute(&table.pool).await?;
        }
        if contender.deletes() {
            let migrate = Command::new(&cli.relay)
                .args(["migrate", "--manifest"])
                .arg(manifest(&table)?)
                .output()?;
            anyhow::ensure!(
                migrate.status.success(),
                "{}",
                String::from_utf8_lossy(&migrate.stderr)
            );
        }
        Ok(table)
    }

    /// Removes the database and the topics.
    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        self.pool.close().await;
        let mut admin = PgConnection::connect(&self.admin).await?;
        let drop_slot = "select pg_drop_replication_slot(slot_name) from pg_replication_slots \
            where slot_name = $1";
        sqlx::query(drop_slot)
            .bind(&self.name)
            .execute(&mut admin)
            .await?;
        sqlx::raw_sql(AssertSqlSafe(format!(
            "drop database {} with (force)",
            self.name
        )))
        .execute(&mut admin)
        .await?;
        self.topics.delete().await
    }

    /// Inserts a backlog in many transactions, and writes it to disk.
    pub(crate) async fn insert_backlog(&self, rows: u64, bytes: usize) -> anyhow::Result<()> {
        let insert = self
            .contender
            .insert("generate_series(n0, n0 + 99)")
            .replace("$1", "payload")
            .replace("$2", "topics");
        let procedure = format!(
            "create procedure fill(rows bigint, payload text, topics text[]) language plpgsql as $body$
             begin
               for n0 in 0 .. rows - 1 by {TRANSACTION} loop {insert}; commit; end loop;
             end $body$"
        );
        sqlx::raw_sql(AssertSqlSafe(procedure))
            .execute(&self.pool)
            .await?;
        let mut connection = self.pool.acquire().await?;
        sqlx::raw_sql("set synchronous_commit = off")
            .execute(&mut *connection)
            .await?;
        let call = format!(
            "call fill({rows}, '{}', '{{{}}}')",
            payload(bytes),
            self.topics.names.join(",")
        );
        sqlx::raw_sql(AssertSqlSafe(call))
            .execute(&mut *connection)
            .await?;
        sqlx::raw_sql("checkpoint")
            .execute(&mut *connection)
            .await?;
        connection.close_on_drop();
        Ok(())
    }

    /// Waits until all records are published and, if the contender deletes rows, the table is
    /// empty.
    pub(crate) async fn wait_until_published(&self, records: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(1200);
        loop {
            let have = self.topics.records()?;
            if have >= records && self.is_empty().await? {
                return Ok(());
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "only {have} of {records} records were published within 20 minutes"
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until relays own all lanes.
    pub(crate) async fn wait_until_lanes_are_owned(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let owned = "select not exists (select from outbox.lane where owner is null)";
        while !sqlx::query_scalar::<_, bool>(owned)
            .fetch_one(&self.pool)
            .await?
        {
            anyhow::ensure!(
                Instant::now() < deadline,
                "the relay did not own all lanes within 60 s"
            );
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn is_empty(&self) -> anyhow::Result<bool> {
        if !self.contender.deletes() {
            return Ok(true);
        }
        Ok(
            !sqlx::query_scalar::<_, bool>("select exists (select from outbox.event)")
                .fetch_one(&self.pool)
                .await?,
        )
    }

    /// Writes transactions of one row each, at a rate per second or without a limit. Returns the
    /// rows by number.
    pub(crate) async fn write(
        &self,
        rate: Option<u64>,
        duration: Duration,
        bytes: usize,
    ) -> anyhow::Result<HashMap<u64, Written>> {
        let writers = (0..WRITERS).map(|writer| {
            let (pool, topics, payload) =
                (self.pool.clone(), self.topics.names.clone(), payload(bytes));
            let insert = self
                .contender
                .insert("(values ($3::bigint))")
                .replace("as n", "as rows (n)");
            tokio::spawn(async move {
                let pause = rate.map_or(Duration::ZERO, |rate| {
                    Duration::from_nanos(1_000_000_000 * WRITERS / rate)
                });
                let (began, mut written) = (Instant::now(), Vec::new());
                while began.elapsed() < duration {
                    sleep_until(
                        began
                            + pause * written.len() as u32
                            + pause / WRITERS as u32 * writer as u32,
                    )
                    .await;
                    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
                    let topic = &topics[number as usize % topics.len()];
                    let payload = format!("{number:0NUMBER$}{}", &payload[NUMBER.min(bytes)..]);
                    let begun_us = now_us();
                    sqlx::query(AssertSqlSafe(insert.clone()))
                        .bind(payload)
                        .bind(vec![topic.as_str()])
                        .bind(number as i64)
                        .execute(&pool)
                        .await?;
                    let committed_us = now_us();
                    written.push((
                        number,
                        Written {
                            begun_us,
                            committed_us,
                        },
                    ));
                }
                anyhow::Ok(written)
            })
        });
        let mut written = HashMap::new();
        for writer in writers.collect::<Vec<_>>() {
            written.extend(writer.await??);
        }
        Ok(written)
    }

    /// Writes a transaction of [`LATE_ROWS`] rows that stays open for a time. Returns the time from
    /// its inserts to its commit.
    pub(crate) async fn commit_late(
        &self,
        open: Duration,
        bytes: usize,
    ) -> anyhow::Result<Duration> {
        let mut transaction = self.pool.begin().await?;
        let inserted = Instant::now();
        let insert = self.contender.insert("generate_series(1, $3::bigint)");
        let insert = sqlx::query(AssertSqlSafe(insert))
            .bind(payload(bytes))
            .bind(&self.topics.names)
            .bind(LATE_ROWS as i64);
        insert.execute(&mut *transaction).await?;
        sleep(open).await;
        transaction.commit().await?;
        Ok(inserted.elapsed())
    }

    /// Begins a transaction that keeps vacuum from removing rows while the connection is open.
    pub(crate) async fn pin_horizon(&self) -> anyhow::Result<PgConnection> {
        let mut connection = plain(&self.url)?.connect().await?;
        sqlx::raw_sql("begin isolation level repeatable read; select count(*) from pg_class")
            .execute(&mut connection)
            .await?;
        Ok(connection)
    }

    /// Number of transactions in this database so far.
    pub(crate) async fn transactions(&self) -> anyhow::Result<i64> {
        let query = "select xact_commit + xact_rollback from pg_stat_database where datname = \
            current_database()";
        Ok(sqlx::query_scalar(query).fetch_one(&self.pool).await?)
    }
}
