//! Injects faults and repairs them. Each domain has a file.

mod brokers;
mod database;
mod network;
mod relays;
mod rewinds;

use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;

use crate::{
    diagnostics,
    ledger::now_ms,
    schedule::{Fault, FaultDomain, FaultKind},
    testbed::Testbed,
};

/// A duplicate may be written this long after the earlier rows were settled.
const DUPLICATE_GRACE: Duration = Duration::from_secs(3);

/// Result of one fault.
pub(crate) struct Recovery {
    pub(crate) kind: FaultKind,
    /// Time from the repair until all earlier rows were published. `None` if that took longer than
    /// [`Testbed::recovery_max`].
    pub(crate) published_after: Option<Duration>,
}

/// Injects a fault, repairs it, and waits until all rows that were written before are published.
///
/// # Errors
///
/// If the fault cannot be injected or repaired.
pub(crate) async fn inject(testbed: &Testbed, fault: Fault) -> anyhow::Result<Recovery> {
    let name = name(fault.kind);
    if fault.kind.needs_no_open_transactions() {
        // Waiting rows can get new ids only while no open transaction has written rows
        // (docs/restore.md).
        testbed
            .sleep_until(fault.at.saturating_sub(testbed.writers.held_max()))
            .await;
        testbed.writers.pause_long_transactions().await;
    }
    testbed.sleep_until(fault.at).await;
    let domain_lock = testbed.domains[fault.kind.domain() as usize].lock().await;
    let window = testbed.fault_started(name);
    let what = match fault.kind.domain() {
        FaultDomain::Relays => relays::inject(testbed, fault).await,
        FaultDomain::Brokers | FaultDomain::Topics => brokers::inject(testbed, fault).await,
        FaultDomain::Database => database::inject(testbed, fault).await,
        FaultDomain::Network => network::inject(testbed, fault).await,
    };
    let what = what.with_context(|| format!("cannot inject the fault '{name}'"))?;
    drop(domain_lock);
    let repaired_at = now_ms();
    testbed.log(&format!("{name}: {what}, repaired"));
    let published_after = testbed
        .wait_until_published(repaired_at, testbed.recovery_max)
        .await;
    if published_after.is_none() {
        let description = format!(
            "{name}: earlier rows still wait {:?} after the repair",
            testbed.recovery_max
        );
        diagnostics::record_not_recovered(testbed, description).await?;
    }
    sleep(DUPLICATE_GRACE).await;
    testbed.fault_ended(window);
    if fault.kind.needs_no_open_transactions() {
        testbed.writers.resume_long_transactions();
    }
    Ok(Recovery {
        kind: fault.kind,
        published_after,
    })
}

/// Formats a duration for the output.
fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Name of a kind of faults in the output.
pub(crate) fn name(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::KillRelay => "kill -9 of a relay",
        FaultKind::PauseRelay => "a relay paused",
        FaultKind::Scale => "replicas 1, 5, 2",
        FaultKind::OtherVersion => "a relay of another version",
        FaultKind::StepClock => "clock of a relay stepped",
        FaultKind::KillBroker => "kill -9 of a broker",
        FaultKind::PauseBroker => "a broker paused",
        FaultKind::ElectLeaders => "leaders move",
        FaultKind::CreateTopic => "topic created under load",
        FaultKind::LimitBatches => "small batches only",
        FaultKind::RecreateTopic => "topic deleted and recreated",
        FaultKind::KillTwoBrokers => "no leaders",
        FaultKind::KillPostgres => "kill -9 of PostgreSQL",
        FaultKind::PausePostgres => "PostgreSQL paused",
        FaultKind::TerminateBackends => "backends terminated",
        FaultKind::PinXmin => "xmin pinned",
        FaultKind::FillDisk => "disk full",
        FaultKind::Empty => "TRUNCATE",
        FaultKind::Truncate => "TRUNCATE RESTART IDENTITY",
        FaultKind::SetBack => "TRUNCATE, sequence set back",
        FaultKind::FailOver => "asynchronous failover",
        FaultKind::Restore => "restore to an earlier time",
        FaultKind::RestartBouncer => "PgBouncer restarted",
        FaultKind::Cut => "network cut",
        FaultKind::Loss => "packets lost",
        FaultKind::Latency => "network slow",
    }
}
