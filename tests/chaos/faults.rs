//! Breaks things and mends them, each sphere in a file of its own.

mod brokers;
mod database;
mod network;
mod relays;
mod rewinds;

use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;

use crate::{
    ledger::now_ms,
    schedule::{Fault, Kind, Sphere},
    testimony,
    world::World,
};

/// A duplicate may be written this long after the rows of before are settled.
const SLACK: Duration = Duration::from_secs(3);

/// How a fault went.
pub(crate) struct Healed {
    pub(crate) kind: Kind,
    /// From when it was mended until all rows of before were settled; `None`: not within that time.
    pub(crate) after: Option<Duration>,
}

/// Breaks, waits, mends, and waits until all has healed.
pub(crate) async fn inject(world: &World, fault: Fault) -> anyhow::Result<Healed> {
    let name = name(fault.kind);
    if fault.kind.minds_open_transactions() {
        // Rows that wait can move only while no transaction has rows of its own: docs/restore.md.
        world
            .reaches(fault.at.saturating_sub(world.writers.held_max()))
            .await;
        world.writers.hold_nothing().await;
    }
    world.reaches(fault.at).await;
    let alone = world.spheres[fault.kind.sphere() as usize].lock().await;
    let window = world.fault_began(name);
    let what = match fault.kind.sphere() {
        Sphere::Relays => relays::inject(world, fault).await,
        Sphere::Brokers | Sphere::Topics => brokers::inject(world, fault).await,
        Sphere::Database => database::inject(world, fault).await,
        Sphere::Network => network::inject(world, fault).await,
    };
    let what = what.with_context(|| format!("the harness could not make the fault '{name}'"))?;
    drop(alone);
    let mended = now_ms();
    world.say(&format!("{name}: {what}, mended"));
    let after = world.settles(mended, world.heal_max).await;
    if after.is_none() {
        let what = format!(
            "{name}: {:?} after it was mended rows of before still wait",
            world.heal_max
        );
        testimony::not_at_rest(world, what).await?;
    }
    sleep(SLACK).await;
    world.fault_healed(window);
    if fault.kind.minds_open_transactions() {
        world.writers.hold_again();
    }
    Ok(Healed {
        kind: fault.kind,
        after,
    })
}

/// As people say how long.
fn seconds(during: Duration) -> String {
    format!("{:.1} s", during.as_secs_f64())
}

/// As people call it.
pub(crate) fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::KillRelay => "kill -9 of a relay",
        Kind::PauseRelay => "a relay stands still",
        Kind::Scale => "replicas 1, 5, 2",
        Kind::OtherVersion => "a relay of another version",
        Kind::StepClock => "clock of a relay stepped",
        Kind::KillBroker => "kill -9 of a broker",
        Kind::PauseBroker => "a broker stands still",
        Kind::ElectLeaders => "leaders move",
        Kind::CreateTopic => "topic created under load",
        Kind::LimitBatches => "small batches only",
        Kind::RecreateTopic => "topic deleted, made again",
        Kind::KillTwoBrokers => "no leaders",
        Kind::KillPostgres => "kill -9 of PostgreSQL",
        Kind::PausePostgres => "PostgreSQL stands still",
        Kind::TerminateBackends => "backends terminated",
        Kind::PinXmin => "xmin pinned",
        Kind::FillDisk => "disk full",
        Kind::Empty => "TRUNCATE",
        Kind::Truncate => "TRUNCATE RESTART IDENTITY",
        Kind::SetBack => "TRUNCATE, sequence set back",
        Kind::FailOver => "asynchronous failover",
        Kind::Restore => "restore to an earlier time",
        Kind::RestartBouncer => "PgBouncer restarted",
        Kind::Cut => "network cut",
        Kind::Loss => "packets lost",
        Kind::Latency => "network slow",
    }
}
