//! Concurrent services whose writers lock keys, keep some transactions open and roll some back. And
//! the check of the records that a consumer received.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::{sync::watch, task::JoinHandle};
use uuid::Uuid;

use super::{kafka::Record, postgres::Database};

/// The load that services create.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) topic: String,
    pub(crate) writers: usize,
    pub(crate) keys: u64,
    pub(crate) during: Duration,
    /// Longest time that a transaction stays open after its row was written. Most end immediately.
    pub(crate) open_max: Duration,
    /// Longest pause of a writer between two transactions.
    pub(crate) pause_max: Duration,
}

/// Event ids of the committed rows by key, in the order of their commits.
pub(crate) type Committed = BTreeMap<String, Vec<Uuid>>;

/// Writes for the time of the load. Writers first lock the key's row in `aggregate`, so that ids
/// have the order of commits.
pub(crate) async fn write(database: &Database, load: &Load) -> Committed {
    write_during(database, load, async {}).await.0
}

/// Writes for the time of the load, and until all faults have happened.
pub(crate) async fn write_during<T>(
    database: &Database,
    load: &Load,
    faults: impl Future<Output = T>,
) -> (Committed, T) {
    let happened = AtomicBool::new(false);
    let faults = async {
        let done = faults.await;
        happened.store(true, Ordering::Relaxed);
        done
    };
    tokio::join!(write_until(database, load, &happened), faults)
}

async fn write_until(database: &Database, load: &Load, happened: &AtomicBool) -> Committed {
    let mut admin = database.as_admin().await;
    let setup = format!(
        "create table aggregate (key text primary key, n bigint not null default 0);
         insert into aggregate (key) select 'key-' || g from generate_series(0, {}) g;
         grant select, update on aggregate to {}",
        load.keys, database.producer
    );
    super::postgres::execute(&mut admin, &setup).await;
    let pool = database.producer_pool(load.writers as u32);
    let writers = (0..load.writers).map(|number| writer(&pool, number as u64, load, happened));
    let mut by_turn: BTreeMap<String, BTreeMap<i64, Uuid>> = BTreeMap::new();
    for (key, n, event_id) in join_all(writers).await.into_iter().flatten() {
        by_turn.entry(key).or_default().insert(n, event_id);
    }
    by_turn
        .into_iter()
        .map(|(key, turns)| (key, turns.into_values().collect()))
        .collect()
}

async fn writer(
    pool: &sqlx::PgPool,
    number: u64,
    load: &Load,
    happened: &AtomicBool,
) -> Vec<(String, i64, Uuid)> {
    let (mut committed, end) = (Vec::new(), Instant::now() + load.during);
    let mut random = number * 7919 + 17;
    let mut below = move |sides: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % sides
    };
    while Instant::now() < end || !happened.load(Ordering::Relaxed) {
        let key = format!("key-{}", below(load.keys));
        let mut transaction = pool.begin().await.expect("a transaction");
        let n: i64 =
            sqlx::query_scalar("update aggregate set n = n + 1 where key = $1 returning n")
                .bind(&key)
                .fetch_one(&mut *transaction)
                .await
                .expect("the lock of the key");
        let event_id = Uuid::new_v4();
        sqlx::query(
            "insert into outbox.event (event_id, aggregate_type, aggregate_id, event_type, \
             topic, payload)
             values ($1, 'aggregate', $2, 'Counted', $3, convert_to($4, 'UTF8'))",
        )
        .bind(event_id)
        .bind(&key)
        .bind(&load.topic)
        .bind(format!("{key}:{n}"))
        .execute(&mut *transaction)
        .await
        .expect("a row");
        tokio::time::sleep(load.pause_max.mul_f64(below(1000) as f64 / 1000.0)).await;
        match below(20) {
            0 => tokio::time::sleep(load.open_max.mul_f64(below(1000) as f64 / 1000.0)).await,
            1..=4 => tokio::time::sleep(load.open_max.mul_f64(below(1000) as f64 / 50_000.0)).await,
            _ => {}
        }
        if below(20) == 0 {
            transaction.rollback().await.expect("rolled back");
        } else {
            transaction.commit().await.expect("committed");
            committed.push((key, n, event_id));
        }
    }
    committed
}

/// A service that writes a batch of rows of 100 keys twenty times per second, in order, until it is
/// stopped.
pub(crate) struct Steady {
    began: Instant,
    rows: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
    running: JoinHandle<Committed>,
}

impl Steady {
    pub(crate) fn start(database: &Database, topic: &str, rows_per_batch: usize) -> Self {
        let (pool, topic) = (database.producer_pool(1), topic.to_owned());
        let (stop, stopped) = watch::channel(false);
        let (wait_until_written, rows) = watch::channel(0);
        let running = tokio::spawn(async move {
            let (mut committed, mut turn, mut every) = (
                Committed::new(),
                0,
                tokio::time::interval(Duration::from_millis(50)),
            );
            while !*stopped.borrow() {
                every.tick().await;
                for (key, event_id) in batch(&pool, &topic, turn, rows_per_batch).await {
                    committed.entry(key).or_default().push(event_id);
                }
                turn += rows_per_batch;
                wait_until_written.send_replace(turn);
            }
            committed
        });
        Self {
            began: Instant::now(),
            rows,
            stop,
            running,
        }
    }

    /// Waits until `rows` rows are written.
    pub(crate) async fn wait_until_written(&self, rows: usize) {
        super::relay::until(&format!("{rows} written rows"), async || {
            (*self.rows.borrow() >= rows).then_some(())
        })
        .await;
    }

    pub(crate) async fn stop(self) -> Committed {
        self.stop.send_replace(true);
        let during = self.began.elapsed();
        let committed = self.running.await.expect("it wrote");
        let rows: usize = committed.values().map(Vec::len).sum();
        eprintln!(
            "{rows} rows in {during:?}: {:.0} a second",
            rows as f64 / during.as_secs_f64()
        );
        committed
    }
}

/// Writes rows with one statement. Returns their keys and event ids in order.
async fn batch(pool: &sqlx::PgPool, topic: &str, turn: usize, rows: usize) -> Vec<(String, Uuid)> {
    let rows: Vec<_> = (turn..turn + rows)
        .map(|n| (format!("key-{}", n % 100), Uuid::new_v4()))
        .collect();
    let (keys, event_ids): (Vec<_>, Vec<_>) = rows.iter().cloned().unzip();
    sqlx::query(
        "insert into outbox.event (event_id, aggregate_type, aggregate_id, event_type, topic, \
         payload)
         select event_id, 'aggregate', key, 'Counted', $1, convert_to(key, 'UTF8')
         from unnest($2::text[], $3::uuid[]) with ordinality as row (key, event_id, n) order by n",
    )
    .bind(topic)
    .bind(keys)
    .bind(event_ids)
    .execute(pool)
    .await
    .expect("rows");
    rows
}

/// Asserts contracts L and O: exactly the committed rows are published, and the first occurrences
/// of a key have the order of commits without a gap. Returns the number of duplicates.
pub(crate) fn verify(committed: &Committed, records: &[Record]) -> usize {
    let mut firsts: BTreeMap<&str, Vec<Uuid>> = BTreeMap::new();
    let mut seen: BTreeMap<Uuid, &Record> = BTreeMap::new();
    let mut duplicates = 0;
    for record in records {
        match seen.get(&record.event_id()) {
            Some(first) => {
                duplicates += 1;
                assert_eq!(
                    (first.partition, &first.value, &first.headers),
                    (record.partition, &record.value, &record.headers),
                    "a duplicate differs"
                );
            }
            None => {
                seen.insert(record.event_id(), record);
                firsts
                    .entry(&record.key)
                    .or_default()
                    .push(record.event_id());
            }
        }
    }
    for (key, ids) in committed {
        let firsts = firsts
            .get(key.as_str())
            .map(Vec::as_slice)
            .unwrap_or_default();
        let lost: BTreeSet<_> = ids.iter().filter(|id| !firsts.contains(id)).collect();
        assert!(lost.is_empty(), "rows of {key} are missing: {lost:?}");
        assert_eq!(firsts, ids, "{key}: first occurrences, and committed rows");
    }
    assert_eq!(
        seen.len(),
        committed.values().map(Vec::len).sum::<usize>(),
        "records without a committed row"
    );
    duplicates
}
