//! Breaks things and mends them.

use std::{sync::PoisonError, time::Duration};

use anyhow::Context;
use sqlx::raw_sql;
use tokio::time::{Instant, sleep};

use crate::{
    ledger::now_ms,
    schedule::{Fault, Kind},
    servers::{
        kafka::BROKERS,
        net::{self, Host},
        postgres,
        relays::RELAYS_MAX,
    },
    topics,
    world::DIVERTED,
    world::{RELAYS, World},
};

/// A duplicate may be written this long after the rows of before are settled.
const SLACK: Duration = Duration::from_secs(3);
/// Until rows that were written before a fault was mended are published.
const HEAL_MAX: Duration = Duration::from_secs(120);

/// For one of Kafka's tools.
const TOOL_MAX: Duration = Duration::from_secs(60);

/// How a fault went.
pub(crate) struct Healed {
    pub(crate) kind: Kind,
    /// From when it was mended until all rows of before were settled; `None`: not within [`HEAL_MAX`].
    pub(crate) after: Option<Duration>,
}

/// Breaks, waits, mends, and waits until all has healed.
pub(crate) async fn inject(world: &World, fault: Fault) -> anyhow::Result<Healed> {
    sleep(fault.at.saturating_sub(world.began.elapsed())).await;
    let name = name(fault.kind);
    let window = world.fault_began(name);
    let what = run(world, fault).await.with_context(|| format!("the harness could not make the fault '{name}'"))?;
    let mended = now_ms();
    world.say(&format!("{name}: {what}, mended"));
    let after = world.settles(mended, HEAL_MAX).await;
    sleep(SLACK).await;
    world.fault_healed(window);
    Ok(Healed { kind: fault.kind, after })
}

/// As people call it.
pub(crate) fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::KillRelay => "kill -9 of a relay",
        Kind::PauseRelay => "a relay stands still",
        Kind::Scale => "replicas 1, 5, 2",
        Kind::KillBroker => "kill -9 of a broker",
        Kind::PauseBroker => "a broker stands still",
        Kind::ElectLeaders => "leaders move",
        Kind::CreateTopic => "topic created under load",
        Kind::KillPostgres => "kill -9 of PostgreSQL",
        Kind::PausePostgres => "PostgreSQL stands still",
        Kind::TerminateBackends => "backends terminated",
        Kind::PinXmin => "xmin pinned",
        Kind::RestartBouncer => "PgBouncer restarted",
        Kind::Cut => "network cut",
        Kind::Loss => "packets lost",
        Kind::Latency => "network slow",
    }
}

async fn run(world: &World, fault: Fault) -> anyhow::Result<String> {
    let seconds = format!("{:.1} s", fault.during.as_secs_f64());
    let broker = (fault.victim % u64::from(BROKERS)) as u8 + 1;
    match fault.kind {
        Kind::KillRelay => {
            let relay = a_relay(world, fault).await?;
            world.relays.lock().await.kill(relay)?;
            sleep(fault.during).await;
            world.relays.lock().await.start(relay)?;
            Ok(format!("relay {relay} for {seconds}"))
        }
        Kind::PauseRelay => {
            let relay = a_relay(world, fault).await?;
            world.relays.lock().await.signal(relay, "STOP")?;
            sleep(fault.during).await;
            world.relays.lock().await.signal(relay, "CONT")?;
            Ok(format!("relay {relay} for {seconds}"))
        }
        Kind::Scale => scale(world, fault.during).await,
        Kind::KillBroker => {
            world.kafka.lock().await.kill(broker)?;
            sleep(fault.during).await;
            let mut kafka = world.kafka.lock().await;
            kafka.start(broker)?;
            kafka.is_up(broker).await?;
            Ok(format!("broker {broker} for {seconds}"))
        }
        Kind::PauseBroker => {
            world.kafka.lock().await.signal(broker, "STOP")?;
            sleep(fault.during).await;
            world.kafka.lock().await.signal(broker, "CONT")?;
            Ok(format!("broker {broker} for {seconds}"))
        }
        Kind::ElectLeaders => elect(world, fault).await,
        Kind::CreateTopic => create_topic(world, fault.during).await,
        Kind::KillPostgres => {
            let mut postgres = world.postgres.lock().await;
            postgres.kill().await?;
            sleep(fault.during).await;
            postgres.start().await?;
            Ok(format!("for {seconds}"))
        }
        Kind::PausePostgres => {
            let postgres = world.postgres.lock().await;
            postgres.signal_all("STOP")?;
            sleep(fault.during).await;
            postgres.signal_all("CONT")?;
            Ok(format!("for {seconds}"))
        }
        Kind::TerminateBackends => {
            let terminate = "select pg_terminate_backend(pid) from pg_stat_activity where datname is not null and pid <> pg_backend_pid()";
            let done = raw_sql(terminate).execute(&mut postgres::connect().await?).await?;
            Ok(format!("{} of them", done.rows_affected()))
        }
        Kind::PinXmin => {
            let mut connection = postgres::connect().await?;
            raw_sql("begin isolation level repeatable read; select pg_current_xact_id(), count(*) from outbox.event")
                .execute(&mut connection)
                .await?;
            sleep(fault.during).await;
            raw_sql("rollback").execute(&mut connection).await?;
            Ok(format!("for {seconds}"))
        }
        Kind::RestartBouncer => {
            let mut postgres = world.postgres.lock().await;
            postgres.kill_bouncer()?;
            sleep(fault.during).await;
            postgres.start_bouncer().await?;
            Ok(format!("after {seconds}"))
        }
        Kind::Cut => {
            let (one, other) = two_ends(fault.victim);
            net::cut(one, other)?;
            sleep(fault.during).await;
            net::mend(one, other)?;
            Ok(format!("between {} and {} for {seconds}", one.name(), other.name()))
        }
        Kind::Loss => {
            let (_, host) = two_ends(fault.victim);
            let percent = 2 + (fault.victim >> 40) as u8 % 30;
            net::lose(host, percent)?;
            sleep(fault.during).await;
            net::lose(host, 0)?;
            Ok(format!("{percent} % of what {} should hear, for {seconds}", host.name()))
        }
        Kind::Latency => {
            let least = Duration::from_millis(2 + (fault.victim >> 40) % 100);
            world.proxy.set((least, 3 * least));
            sleep(fault.during).await;
            world.proxy.set(Default::default());
            Ok(format!("{least:?} to {:?} each way for {}, for {seconds}", 3 * least, DIVERTED.name()))
        }
    }
}

/// Two hosts that speak to each other. Not the diverted relay: that speaks to this program.
fn two_ends(victim: u64) -> (Host, Host) {
    let relay = if victim & 8 == 0 { Host::Relay(1) } else { Host::Relay(3) };
    let broker = |n: u64| Host::Broker((n % u64::from(BROKERS)) as u8 + 1);
    match victim % 3 {
        0 => (Host::Postgres, relay),
        1 => (relay, broker(victim >> 16)),
        _ => (broker(victim >> 16), broker((victim >> 16) + 1)),
    }
}

async fn a_relay(world: &World, fault: Fault) -> anyhow::Result<u8> {
    let running = world.relays.lock().await.running();
    anyhow::ensure!(!running.is_empty(), "no relay runs: look at their logs");
    Ok(running[(fault.victim % running.len() as u64) as usize])
}

/// With SIGTERM, as a Deployment does it.
async fn scale(world: &World, during: Duration) -> anyhow::Result<String> {
    let mut relays = world.relays.lock().await;
    for number in 2..=RELAYS {
        relays.stop(number).await?;
    }
    sleep(during / 3).await;
    for number in 2..=RELAYS_MAX {
        relays.start(number)?;
    }
    sleep(during / 3).await;
    for number in 3..=RELAYS_MAX {
        relays.stop(number).await?;
    }
    sleep(during / 3).await;
    relays.start(3)?;
    Ok("then 3 again".to_owned())
}

/// Moves the preferred leaders of a topic on by one broker, and lets them be elected.
async fn elect(world: &World, fault: Fault) -> anyhow::Result<String> {
    let topic = &world.topics[(fault.victim % world.topics.len() as u64) as usize];
    let first = (fault.victim / 7 % u64::from(BROKERS)) as i32;
    let partitions: Vec<_> = (0..topics::PARTITIONS)
        .map(|partition| {
            let replicas: Vec<_> = (0..3).map(|n| (first + partition + n) % 3 + 1).collect();
            serde_json::json!({ "topic": topic, "partition": partition, "replicas": replicas })
        })
        .collect();
    let file = world.folder.join("leaders.json");
    std::fs::write(&file, serde_json::json!({ "version": 1, "partitions": partitions }).to_string())?;
    let (file, servers) = (file.display().to_string(), crate::servers::kafka::servers());
    let reassign = ["org.apache.kafka.tools.reassign.ReassignPartitionsCommand", "--reassignment-json-file", &file, "--execute"];
    tool(world, &[&reassign[..], &["--bootstrap-server", &servers]].concat()).await?;
    let elect = ["elections", "--election-type", "preferred", "--all-topic-partitions", "--bootstrap-server", &servers];
    tool(world, &elect).await?;
    Ok(format!("of {topic}"))
}

/// Again and again for a while: a broker that has just come back may not be known yet.
async fn tool(world: &World, arguments: &[&str]) -> anyhow::Result<()> {
    let end = Instant::now() + TOOL_MAX;
    loop {
        let mut command = world.kafka.lock().await.tool(1);
        command.args(arguments);
        let done = tokio::task::spawn_blocking(move || command.output()).await??;
        if done.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
        anyhow::ensure!(Instant::now() < end, "{} {}", arguments[0], said.trim());
    }
}

async fn create_topic(world: &World, during: Duration) -> anyhow::Result<String> {
    let Some(name) = world.writers.open_late_topic() else { return Ok("all topics exist".to_owned()) };
    sleep(during).await;
    topics::create(&[name]).await?;
    world.created.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
    Ok(format!("{name}, {:.1} s after its first rows", during.as_secs_f64()))
}
