//! Simulates a service that writes business rows and outbox rows in one transaction each. One in
//! ten transactions is rolled back.

use std::{sync::Arc, time::Duration};

use sqlx::{Postgres, SqlStr, Transaction};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    ledger::{Ledger, Row},
    service::{Outbox, Service},
};

const WORKERS: u32 = 4;
const AGGREGATES: u128 = 40;
/// Statement that SQLAlchemy sends for a row of `event_outbox`.
const INSERT: &str = "INSERT INTO event_outbox (id, aggregate_id, aggregate_type, event_type, \
    event_data, event_key, topic, published_at, last_error) VALUES ($1::UUID, $2::VARCHAR, \
    $3::VARCHAR, $4::VARCHAR, $5::JSON, $6::VARCHAR, $7::VARCHAR, NULL, NULL) RETURNING \
    event_outbox.created_at, event_outbox.retry_count";

/// Writes `rate` transactions per second until `end` is cancelled.
pub(crate) async fn write(
    service: Arc<Service>,
    ledger: Arc<Ledger>,
    rate: u32,
    end: CancellationToken,
) -> sqlx::Result<()> {
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(run_worker(
            Arc::clone(&service),
            Arc::clone(&ledger),
            Duration::from_secs(1) * WORKERS / rate,
            end.clone(),
        ));
    }
    while let Some(worker) = workers.join_next().await {
        worker.map_err(|_| sqlx::Error::WorkerCrashed)??;
    }
    Ok(())
}

async fn run_worker(
    service: Arc<Service>,
    ledger: Arc<Ledger>,
    pause: Duration,
    end: CancellationToken,
) -> sqlx::Result<()> {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !end.is_cancelled() {
        ticks.tick().await;
        run_transaction(&service, &ledger).await?;
    }
    Ok(())
}

async fn run_transaction(service: &Service, ledger: &Ledger) -> sqlx::Result<()> {
    let random = Uuid::new_v4().as_u128();
    let aggregate = format!("{}-{:04}", service.aggregate_type, random % AGGREGATES);
    let mut transaction = service.pool.begin().await?;
    let mut events = Vec::new();
    for _ in 0..=(random >> 16) % 2 {
        events.push(add_event(service, ledger, &aggregate, &mut transaction).await?);
    }
    if (random >> 32).is_multiple_of(50) {
        // A slow transaction: those of other keys overtake it, and the relay finds its rows with a
        // gap scan.
        sleep(Duration::from_millis(400)).await;
    }
    if (random >> 48).is_multiple_of(10) {
        transaction.rollback().await?;
        ledger.rolled_back(&events);
    } else {
        transaction.commit().await?;
        ledger.committed(&events);
    }
    Ok(())
}

async fn add_event(
    service: &Service,
    ledger: &Ledger,
    aggregate: &str,
    transaction: &mut Transaction<'_, Postgres>,
) -> sqlx::Result<Uuid> {
    let revision: i64 = sqlx::query_scalar(service.next_revision.clone())
        .bind(aggregate)
        .fetch_one(&mut **transaction)
        .await?;
    let event_id = Uuid::new_v4();
    let route = &service.routes[usize::from(event_id.as_bytes()[0]) % service.routes.len()];
    let event = Event {
        event_id,
        aggregate_type: &service.aggregate_type,
        aggregate,
        topic: &route.name,
        revision,
    };
    let (event_type, payload) = match &service.outbox {
        Outbox::Enqueue(_) => (&route.event_types[0], event.plain(&route.event_types[0])),
        Outbox::Adopted(source) => (&route.name, event.envelope(source)),
    };
    ledger.written(
        event_id,
        Row::new(&route.name, aggregate, revision, payload.as_bytes()),
    );
    let written = match &service.outbox {
        Outbox::Enqueue(sql) => event.enqueue(transaction, sql, event_type, &payload).await,
        Outbox::Adopted(_) => event.insert(transaction, event_type, &payload).await,
    };
    written?;
    Ok(event_id)
}

/// An event to be written.
struct Event<'a> {
    event_id: Uuid,
    aggregate_type: &'a str,
    aggregate: &'a str,
    topic: &'a str,
    revision: i64,
}

impl Event<'_> {
    fn plain(&self, event_type: &str) -> String {
        format!(
            r#"{{"event":"{event_type}","{}_id":"{}","revision":{}}}"#,
            self.aggregate_type, self.aggregate, self.revision
        )
    }

    /// The envelope of the essay platform, as Python writes it.
    fn envelope(&self, source: &str) -> String {
        let (event_id, topic, aggregate) = (self.event_id, self.topic, self.aggregate);
        format!(
            "{{\"event_id\": \"{event_id}\", \"event_type\": \"{topic}\", \"event_timestamp\": \
             \"{}\", \"source_service\": \"{source}\", \"schema_version\": 1, \
             \"correlation_id\": \"{}\", \"data_schema_uri\": null, \"data\": {{\"{}_id\": \
             \"{aggregate}\", \"revision\": {}, \"title\": \"Gr\\u00f6\\u00dfe \\ud83d\\ude00\"}}, \
             \"metadata\": {{\"partition_key\": \"{aggregate}\"}}}}",
            jiff::Timestamp::now(),
            Uuid::new_v4(),
            self.aggregate_type,
            self.revision
        )
    }

    async fn enqueue(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        sql: &SqlStr,
        event_type: &str,
        payload: &str,
    ) -> sqlx::Result<()> {
        let _outbox_seq: i64 = sqlx::query_scalar(sql.clone())
            .bind(self.aggregate_type)
            .bind(self.aggregate)
            .bind(event_type)
            .bind(payload.as_bytes())
            .bind(self.event_id)
            .fetch_one(&mut **transaction)
            .await?;
        Ok(())
    }

    /// Inserts a row as SQLAlchemy does. The library puts the topic into the envelope, too.
    async fn insert(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        event_type: &str,
        envelope: &str,
    ) -> sqlx::Result<()> {
        let members = envelope.strip_suffix('}').unwrap_or(envelope);
        let event_data = format!("{members}, \"topic\": \"{}\"}}", self.topic);
        sqlx::query(INSERT)
            .bind(Uuid::new_v4())
            .bind(self.aggregate)
            .bind(self.aggregate_type)
            .bind(event_type)
            .bind(event_data)
            .bind(self.aggregate)
            .bind(self.topic)
            .fetch_one(&mut **transaction)
            .await?;
        Ok(())
    }
}
