//! The polling worker that each service runs today: it reads rows by their time, without a lock,
//! and sends one after the other. IO.

use std::{collections::HashSet, time::Duration};

use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use sqlx::{AssertSqlSafe, PgConnection, Row as _, postgres::PgRow, query};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::library::Generation;
use crate::harness::{postgres::Database, rig::rig};

/// Rows that the worker reads at once. They are in flight until it has sent them all.
pub(super) const BATCH: usize = 100;
/// Pause after a batch.
const PAUSE: Duration = Duration::from_millis(20);

/// A running worker.
pub(super) struct OldWorker {
    worker: JoinHandle<HashSet<Uuid>>,
    stop: CancellationToken,
}

impl OldWorker {
    pub(super) async fn start(database: &Database, generation: Generation) -> Self {
        let stop = CancellationToken::new();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", rig("RIG_KAFKA"))
            .set("partitioner", "murmur2_random")
            .create()
            .expect("a producer");
        let worker = Worker {
            connection: database.connect_as(&database.producer).await,
            producer,
            topic: generation.topic(),
        };
        Self {
            worker: tokio::spawn(worker.run(stop.clone())),
            stop,
        }
    }

    /// Stops the worker. Returns the ids of the rows that Kafka got from it.
    pub(super) async fn stop(self) -> HashSet<Uuid> {
        self.stop.cancel();
        self.worker.await.expect("the worker can send")
    }
}

struct Worker {
    connection: PgConnection,
    producer: FutureProducer,
    /// Expression for the topic of a row.
    topic: &'static str,
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) -> HashSet<Uuid> {
        let mut sent = HashSet::new();
        while !stop.is_cancelled() {
            for row in self.read().await.expect("the service can read") {
                sent.insert(self.publish(&row).await);
            }
            tokio::time::sleep(PAUSE).await;
        }
        sent
    }

    async fn read(&mut self) -> sqlx::Result<Vec<PgRow>> {
        let waiting = format!(
            "select id, {} as topic, coalesce(event_key, aggregate_id) as key, event_data::text as \
             data from event_outbox where published_at is null and retry_count < 5 order by \
             created_at limit {BATCH}",
            self.topic
        );
        let waiting = query(AssertSqlSafe(waiting));
        waiting.fetch_all(&mut self.connection).await
    }

    async fn publish(&mut self, row: &PgRow) -> Uuid {
        let id: Uuid = row.get("id");
        let (topic, key, data): (&str, &str, &str) =
            (row.get("topic"), row.get("key"), row.get("data"));
        let record = FutureRecord::to(topic).key(key).payload(data);
        let report = self.producer.send(record, Duration::from_secs(10)).await;
        report.expect("Kafka takes the record");
        let update = "update event_outbox set published_at = now() where id = $1";
        let updated = query(update).bind(id).execute(&mut self.connection).await;
        updated.expect("the service can write");
        id
    }
}
