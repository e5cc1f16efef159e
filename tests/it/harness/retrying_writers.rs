//! Services that continue during faults of the database and retry failed transactions. Committed
//! events are read from the database, because the result of a failed commit is unknown.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::PgPool;
use uuid::Uuid;

use super::{
    postgres::{Database, execute},
    writers::Committed,
};

const WRITERS: u64 = 4;
const KEYS: u64 = 40;

/// Running writers.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    pub(crate) async fn start(database: &Database, topic: &str) -> Self {
        let setup = format!(
            "create table aggregate (key text primary key, n bigint not null default 0);
             insert into aggregate (key) select 'key-' || g from generate_series(0, {KEYS}) g;
             grant select, update on aggregate to {};
             create table written (id bigint, key text, event_id uuid);
             create function written() returns trigger language plpgsql security definer
               as 'begin insert into public.written values (new.id, new.aggregate_id, \
               new.event_id); return null; end';
             create trigger written after insert on outbox.event for each row execute function \
             written()",
            database.producer
        );
        execute(&mut database.as_admin().await, &setup).await;
        let (stop, pool) = (
            Arc::new(AtomicBool::new(false)),
            database.producer_pool(WRITERS as u32),
        );
        let writer = |number| {
            tokio::spawn(writer(
                pool.clone(),
                number,
                topic.to_owned(),
                Arc::clone(&stop),
            ))
        };
        Self {
            tasks: (0..WRITERS).map(writer).collect(),
            stop,
        }
    }

    /// Stops the writers. Returns the committed event ids by key, in the order of their row ids,
    /// which is the order of their commits.
    pub(crate) async fn end(self, database: &Database) -> Committed {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a writer");
        }
        let rows: Vec<(String, Uuid)> =
            sqlx::query_as("select key, event_id from written order by id")
                .fetch_all(&mut database.as_admin().await)
                .await
                .expect("what was written");
        let mut committed = Committed::new();
        for (key, event_id) in rows {
            committed.entry(key).or_default().push(event_id);
        }
        committed
    }
}

async fn writer(pool: PgPool, number: u64, topic: String, stop: Arc<AtomicBool>) {
    let mut dice = number;
    while !stop.load(Ordering::Relaxed) {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let key = format!("key-{}", (dice >> 33) % KEYS);
        // Some hundred rows per second, with a pause after an error.
        let pause = if write(&pool, &key, &topic).await.is_ok() {
            5
        } else {
            100
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// Writes one row. It first locks the key's row in `aggregate`, so that ids have the order of
/// commits.
async fn write(pool: &PgPool, key: &str, topic: &str) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query("update aggregate set n = n + 1 where key = $1")
        .bind(key)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic) \
        values ('aggregate', $1, 'Counted', $2)",
    )
    .bind(key)
    .bind(topic)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}
