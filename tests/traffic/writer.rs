//! Simulates a service that writes business rows and outbox rows in one transaction each. One in
//! ten transactions is rolled back.

use std::{sync::Arc, time::Duration};

use sqlx::{Postgres, Transaction};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    ledger::{Ledger, Row},
    service::Service,
};

const WORKERS: u32 = 4;
const AGGREGATES: u128 = 40;

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
    let event_type = &route.event_types[0];
    let payload = format!(
        r#"{{"event":"{event_type}","{}_id":"{aggregate}","revision":{revision}}}"#,
        service.aggregate_type
    )
    .into_bytes();
    ledger.written(
        event_id,
        Row::new(&route.name, aggregate, revision, &payload),
    );
    let _outbox_seq: i64 = sqlx::query_scalar(service.enqueue.clone())
        .bind(&service.aggregate_type)
        .bind(aggregate)
        .bind(event_type)
        .bind(&payload)
        .bind(event_id)
        .fetch_one(&mut **transaction)
        .await?;
    Ok(event_id)
}
