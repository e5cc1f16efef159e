//! Faults that remove rows and mostly make the database reuse ids: TRUNCATE, a failover that loses
//! commits, a restore.

use std::{sync::atomic::Ordering, time::Duration};

use sqlx::{Connection, query, query_as, raw_sql};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::seconds;
use crate::{facts::Ms, ledger::now_ms, servers::postgres, testbed::Testbed};

/// A commit of the last milliseconds may not have been sent to the standby or backup yet.
const UNREPLICATED_MS: i64 = 1000;
/// Limit for TRUNCATE to get its lock, with all attempts.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// Truncates the table with the rows that wait.
pub(super) async fn truncate(testbed: &Testbed, ids: Ids) -> anyhow::Result<String> {
    let end = Instant::now() + LOCK_TIMEOUT;
    loop {
        match try_truncate(ids).await {
            Ok(deleted) => {
                let rows = deleted.len();
                testbed.update_facts(|facts| {
                    facts.truncated.extend(deleted);
                    facts.ids_reused |= ids != Ids::Continue;
                });
                return Ok(format!("{rows} rows"));
            }
            Err(error) if Instant::now() > end => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// The ids of the rows that are written after a TRUNCATE.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ids {
    Continue,
    RestartAtOne,
    /// The ids of the rows that waited. Relays have some of those rows in flight.
    RestartAtWaiting,
}

/// Truncates the table once. Returns the rows with the time of the TRUNCATE.
async fn try_truncate(ids: Ids) -> sqlx::Result<Vec<(Uuid, Ms)>> {
    let mut connection = postgres::connect().await?;
    let mut transaction = connection.begin().await?;
    raw_sql("set local lock_timeout = '2s'; lock table outbox.event in exclusive mode")
        .execute(&mut *transaction)
        .await?;
    let at = now_ms();
    let deleted: Vec<(Uuid, i64)> = query_as("select event_id, id from outbox.event")
        .fetch_all(&mut *transaction)
        .await?;
    // TRUNCATE locks the table and then the sequence, a fetch locks them in the opposite order. The
    // short limit ends TRUNCATE before PostgreSQL detects a deadlock and ends the fetch.
    raw_sql("set local lock_timeout = '100ms'")
        .execute(&mut *transaction)
        .await?;
    let truncate = if ids == Ids::Continue {
        "truncate outbox.event"
    } else {
        "truncate outbox.event restart identity"
    };
    raw_sql(truncate).execute(&mut *transaction).await?;
    if let Some(lowest) = deleted
        .iter()
        .map(|(_, id)| *id)
        .min()
        .filter(|_| ids == Ids::RestartAtWaiting)
    {
        query("select setval('outbox.event_id_seq', $1, false)")
            .bind(lowest)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(deleted
        .into_iter()
        .map(|(event_id, _)| (event_id, at))
        .collect())
}

/// Promotes a standby that lags: the last commits are lost.
pub(super) async fn fail_over(testbed: &Testbed, lag: Duration) -> anyhow::Result<String> {
    let mut postgres = testbed.postgres.lock().await;
    postgres.start_standby().await?;
    let lags_from = now_ms() - UNREPLICATED_MS;
    postgres.pause_standby()?;
    sleep(lag).await;
    testbed.generation.fetch_add(1, Ordering::AcqRel);
    postgres.kill().await?;
    let lost_until = now_ms();
    postgres.promote().await?;
    record_rewind(testbed, lags_from, lost_until);
    Ok(format!("to a standby that was {} behind", seconds(lag)))
}

/// Restores a backup: all commits since then are lost.
pub(super) async fn restore(testbed: &Testbed, age: Duration) -> anyhow::Result<String> {
    let mut postgres = testbed.postgres.lock().await;
    let backup_from = now_ms() - UNREPLICATED_MS;
    postgres.back_up()?;
    sleep(age).await;
    testbed.generation.fetch_add(1, Ordering::AcqRel);
    postgres.kill().await?;
    let lost_until = now_ms();
    postgres.restore().await?;
    record_rewind(testbed, backup_from, lost_until);
    Ok(format!("of {} ago", seconds(age)))
}

/// Records that commits between the two times may be lost and that ids may be reused.
fn record_rewind(testbed: &Testbed, from: i64, until: i64) {
    testbed.update_facts(|facts| {
        facts.rewinds.push((from, until));
        facts.ids_reused = true;
    });
}
