//! Plays a service: business rows and outbox rows, in one transaction each; one in ten thinks
//! better of it.

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

/// `rate` transactions a second.
pub(crate) async fn write(
    service: Arc<Service>,
    ledger: Arc<Ledger>,
    rate: u32,
    end: CancellationToken,
) -> sqlx::Result<()> {
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(work(
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

async fn work(
    service: Arc<Service>,
    ledger: Arc<Ledger>,
    every: Duration,
    end: CancellationToken,
) -> sqlx::Result<()> {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !end.is_cancelled() {
        ticks.tick().await;
        transact(&service, &ledger).await?;
    }
    Ok(())
}

async fn transact(service: &Service, ledger: &Ledger) -> sqlx::Result<()> {
    let dice = Uuid::new_v4().as_u128();
    let aggregate = format!("{}-{:04}", service.aggregate_type, dice % AGGREGATES);
    let mut transaction = service.pool.begin().await?;
    let mut events = Vec::new();
    for _ in 0..=(dice >> 16) % 2 {
        events.push(add_event(service, ledger, &aggregate, &mut transaction).await?);
    }
    if (dice >> 32).is_multiple_of(50) {
        // A slow transaction: others of other keys overtake it, and the relay has to come back for
        // its rows.
        sleep(Duration::from_millis(400)).await;
    }
    if (dice >> 48).is_multiple_of(10) {
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
    let revision: i64 = sqlx::query_scalar(service.revise.clone())
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
