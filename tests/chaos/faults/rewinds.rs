//! What takes rows away, and mostly makes ids come again: TRUNCATE, a failover that loses commits,
//! a restore.

use std::{sync::atomic::Ordering, time::Duration};

use sqlx::{Connection, query, query_as, raw_sql};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::seconds;
use crate::{facts::Ms, ledger::now_ms, servers::postgres, world::World};

/// What was committed so shortly before may not be on its way to the standby yet.
const ON_ITS_WAY_MS: i64 = 1000;
/// Until nobody holds a lock that keeps TRUNCATE out.
const LOCK_MAX: Duration = Duration::from_secs(60);

/// Rows that wait are gone, by somebody's wish.
pub(super) async fn truncate(world: &World, ids: Ids) -> anyhow::Result<String> {
    let end = Instant::now() + LOCK_MAX;
    loop {
        match try_truncate(ids).await {
            Ok(gone) => {
                let rows = gone.len();
                world.note(|notes| {
                    notes.truncated.extend(gone);
                    notes.ids_came_again |= ids != Ids::GoOn;
                });
                return Ok(format!("{rows} rows"));
            }
            Err(error) if Instant::now() > end => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Which ids come next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ids {
    GoOn,
    AtOne,
    /// With the very ids of the rows that waited, of which relays have some in flight.
    AtThoseThatWaited,
}

/// Which rows are gone, and since when.
async fn try_truncate(ids: Ids) -> sqlx::Result<Vec<(Uuid, Ms)>> {
    let mut connection = postgres::connect().await?;
    let mut transaction = connection.begin().await?;
    raw_sql("set local lock_timeout = '2s'; lock table outbox.event in exclusive mode")
        .execute(&mut *transaction)
        .await?;
    let at = now_ms();
    let gone: Vec<(Uuid, i64)> = query_as("select event_id, id from outbox.event")
        .fetch_all(&mut *transaction)
        .await?;
    // It takes the table and then the sequence, a fetch the sequence and then the table: it gives
    // way before that is a deadlock.
    raw_sql("set local lock_timeout = '100ms'")
        .execute(&mut *transaction)
        .await?;
    let truncate = if ids == Ids::GoOn {
        "truncate outbox.event"
    } else {
        "truncate outbox.event restart identity"
    };
    raw_sql(truncate).execute(&mut *transaction).await?;
    if let Some(lowest) = gone
        .iter()
        .map(|(_, id)| *id)
        .min()
        .filter(|_| ids == Ids::AtThoseThatWaited)
    {
        query("select setval('outbox.event_id_seq', $1, false)")
            .bind(lowest)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(gone
        .into_iter()
        .map(|(event_id, _)| (event_id, at))
        .collect())
}

/// A standby that lagged takes over: what was committed last is gone.
pub(super) async fn fail_over(world: &World, lag: Duration) -> anyhow::Result<String> {
    let mut postgres = world.postgres.lock().await;
    postgres.stand_by().await?;
    let lags_from = now_ms() - ON_ITS_WAY_MS;
    postgres.stop_following()?;
    sleep(lag).await;
    world.life.fetch_add(1, Ordering::AcqRel);
    postgres.kill().await?;
    let lost_until = now_ms();
    postgres.promote().await?;
    went_back(world, lags_from, lost_until);
    Ok(format!("to a standby that was {} behind", seconds(lag)))
}

/// Everything since a backup is gone.
pub(super) async fn restore(world: &World, age: Duration) -> anyhow::Result<String> {
    let mut postgres = world.postgres.lock().await;
    let backup_from = now_ms() - ON_ITS_WAY_MS;
    postgres.back_up()?;
    sleep(age).await;
    world.life.fetch_add(1, Ordering::AcqRel);
    postgres.kill().await?;
    let lost_until = now_ms();
    postgres.restore().await?;
    went_back(world, backup_from, lost_until);
    Ok(format!("of {} ago", seconds(age)))
}

fn went_back(world: &World, from: i64, until: i64) {
    world.note(|notes| {
        notes.rewinds.push((from, until));
        notes.ids_came_again = true;
    });
}
