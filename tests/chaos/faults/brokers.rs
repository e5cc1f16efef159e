//! Brokers that die or stand still, leaders that move, topics that come and go.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::seconds;
use crate::{
    ledger::now_ms,
    schedule::{Fault, Kind},
    servers::kafka::{self, BROKERS},
    topics,
    world::{MORTAL, World},
};

/// Batches of ten rows or so.
const SMALL_BATCH: u32 = 4000;
/// Services are at it when the limit comes, and go on for a while.
const BURST: Duration = Duration::from_secs(4);
const BURST_BEFORE: Duration = Duration::from_secs(1);
/// For what the cluster's controller is asked.
const TOOL_MAX: Duration = Duration::from_secs(120);

pub(super) async fn inject(world: &World, fault: Fault) -> anyhow::Result<String> {
    let broker = (fault.victim % u64::from(BROKERS)) as u8 + 1;
    match fault.kind {
        Kind::KillBroker => kill(world, &[broker], fault.during).await,
        // Neither records nor the cluster's own metadata have a majority.
        Kind::KillTwoBrokers => kill(world, &[broker, broker % BROKERS + 1], fault.during).await,
        Kind::PauseBroker => {
            world.kafka.lock().await.signal(broker, "STOP")?;
            sleep(fault.during).await;
            world.kafka.lock().await.signal(broker, "CONT")?;
            Ok(format!("broker {broker} for {}", seconds(fault.during)))
        }
        Kind::ElectLeaders => elect(world, fault).await,
        Kind::CreateTopic => create_topic(world, fault.during).await,
        Kind::RecreateTopic => recreate_topic(world, fault.during).await,
        _ => limit_batches(world, fault).await,
    }
}

async fn kill(world: &World, brokers: &[u8], during: Duration) -> anyhow::Result<String> {
    for broker in brokers {
        world.kafka.lock().await.kill(*broker)?;
    }
    sleep(during).await;
    let began = Instant::now();
    let mut kafka = world.kafka.lock().await;
    for broker in brokers {
        kafka.start(*broker)?;
    }
    for broker in brokers {
        kafka.is_up(*broker).await?;
    }
    Ok(format!(
        "brokers {brokers:?} for {}, and {} until they listened",
        seconds(during),
        seconds(began.elapsed())
    ))
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
    std::fs::write(
        &file,
        serde_json::json!({ "version": 1, "partitions": partitions }).to_string(),
    )?;
    let (file, servers) = (file.display().to_string(), kafka::servers());
    let reassign = [
        "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
        "--reassignment-json-file",
        &file,
        "--execute",
    ];
    tool(
        world,
        &[&reassign[..], &["--bootstrap-server", &servers]].concat(),
    )
    .await?;
    let elect = [
        "elections",
        "--election-type",
        "preferred",
        "--all-topic-partitions",
        "--bootstrap-server",
        &servers,
    ];
    tool(world, &elect).await?;
    Ok(format!("of {topic}"))
}

/// Brokers refuse batches of more bytes, though each of their records would fit; and such batches
/// are on their way, with others behind them.
async fn limit_batches(world: &World, fault: Fault) -> anyhow::Result<String> {
    let topic = &world.topics[(fault.victim % world.topics.len() as u64) as usize];
    let limit = async {
        sleep(BURST_BEFORE).await;
        patiently(async || topics::limit_batches(topic, Some(SMALL_BATCH)).await).await
    };
    let burst = tokio::spawn(Arc::clone(&world.writers).burst(topic.clone(), BURST));
    limit.await?;
    sleep(fault.during).await;
    burst.await?;
    patiently(async || topics::limit_batches(topic, None).await).await?;
    Ok(format!("of {topic}, for {}", seconds(fault.during)))
}

/// Again and again for a while: the cluster may have no controller just now.
async fn patiently(attempt: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let end = Instant::now() + TOOL_MAX;
    loop {
        match attempt().await {
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => sleep(Duration::from_millis(200)).await,
            Ok(()) => return Ok(()),
        }
    }
}

/// A broker that has just come back may not be known yet.
async fn tool(world: &World, arguments: &[&str]) -> anyhow::Result<()> {
    patiently(async || {
        let mut command = world.kafka.lock().await.tool(1);
        command.args(arguments);
        let done = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = String::from_utf8_lossy(&done.stderr).into_owned()
            + &String::from_utf8_lossy(&done.stdout);
        anyhow::ensure!(done.status.success(), "{} {}", arguments[0], said.trim());
        Ok(())
    })
    .await
}

async fn create_topic(world: &World, during: Duration) -> anyhow::Result<String> {
    let Some(name) = world.writers.open_late_topic() else {
        return Ok("all topics exist".to_owned());
    };
    sleep(during).await;
    patiently(async || topics::create(&[name]).await).await?;
    world
        .created
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(name.to_owned());
    Ok(format!(
        "{name}, {:.1} s after its first rows",
        during.as_secs_f64()
    ))
}

/// What it held is gone. Rows that are written meanwhile wait for the next topic of its name.
async fn recreate_topic(world: &World, during: Duration) -> anyhow::Result<String> {
    patiently(async || topics::delete(MORTAL).await).await?;
    sleep(during).await;
    patiently(async || topics::create(&[MORTAL]).await).await?;
    world.note(|notes| notes.deleted_topics.insert(MORTAL.to_owned(), now_ms()));
    Ok(format!("{MORTAL}, {} later", seconds(during)))
}
