//! Faults of brokers and topics: killed and paused brokers, moved leaders, created, deleted and
//! limited topics.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::seconds;
use crate::{
    ledger::now_ms,
    schedule::{Fault, FaultKind},
    servers::kafka::{self, BROKERS},
    testbed::{DELETABLE_TOPIC, Testbed},
    topics,
};

/// Limit in bytes that allows batches of about ten rows.
const SMALL_BATCH_BYTES: u32 = 4000;
/// Length of a burst. Services write it when the limit begins, and continue for a while.
const BURST: Duration = Duration::from_secs(4);
/// Time from the start of a burst to the start of the limit.
const BURST_LEAD: Duration = Duration::from_secs(1);
/// Time after a deletion in which a broker that was paused or cut off may still carry it out.
const LATE_DELETION_MAX: Duration = Duration::from_secs(20);
/// Limit for a request to the cluster's controller, with all attempts.
const TOOL_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) async fn inject(testbed: &Testbed, fault: Fault) -> anyhow::Result<String> {
    let broker = (fault.victim % u64::from(BROKERS)) as u8 + 1;
    match fault.kind {
        FaultKind::KillBroker => kill(testbed, &[broker], fault.duration).await,
        // Neither the partitions nor the cluster's metadata have a majority.
        FaultKind::KillTwoBrokers => {
            kill(testbed, &[broker, broker % BROKERS + 1], fault.duration).await
        }
        FaultKind::PauseBroker => {
            testbed.kafka.lock().await.signal(broker, "STOP")?;
            sleep(fault.duration).await;
            testbed.kafka.lock().await.signal(broker, "CONT")?;
            Ok(format!("broker {broker} for {}", seconds(fault.duration)))
        }
        FaultKind::ElectLeaders => move_leaders(testbed, fault).await,
        FaultKind::CreateTopic => create_topic(testbed, fault.duration).await,
        FaultKind::RecreateTopic => recreate_topic(testbed, fault.duration).await,
        _ => limit_batches(testbed, fault).await,
    }
}

async fn kill(testbed: &Testbed, brokers: &[u8], duration: Duration) -> anyhow::Result<String> {
    for broker in brokers {
        testbed.kafka.lock().await.kill(*broker)?;
    }
    sleep(duration).await;
    let began = Instant::now();
    let mut kafka = testbed.kafka.lock().await;
    for broker in brokers {
        kafka.start(*broker)?;
    }
    for broker in brokers {
        kafka.wait_until_up(*broker).await?;
    }
    Ok(format!(
        "brokers {brokers:?} for {}, and {} until they listened",
        seconds(duration),
        seconds(began.elapsed())
    ))
}

/// Changes the preferred leaders of a topic and has them elected.
async fn move_leaders(testbed: &Testbed, fault: Fault) -> anyhow::Result<String> {
    let topic = &testbed.topics[(fault.victim % testbed.topics.len() as u64) as usize];
    let first = (fault.victim / 7 % u64::from(BROKERS)) as i32;
    let partitions: Vec<_> = (0..topics::PARTITIONS)
        .map(|partition| {
            let replicas: Vec<_> = (0..3).map(|n| (first + partition + n) % 3 + 1).collect();
            serde_json::json!({ "topic": topic, "partition": partition, "replicas": replicas })
        })
        .collect();
    let file = testbed.folder.join("leaders.json");
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
        testbed,
        &[&reassign[..], &["--bootstrap-server", &servers]].concat(),
    )
    .await?;
    let move_leaders = [
        "elections",
        "--election-type",
        "preferred",
        "--all-topic-partitions",
        "--bootstrap-server",
        &servers,
    ];
    tool(testbed, &move_leaders).await?;
    Ok(format!("of {topic}"))
}

/// Brokers reject larger batches, although each record would fit. Such batches are in flight when
/// the limit begins, with others behind them.
async fn limit_batches(testbed: &Testbed, fault: Fault) -> anyhow::Result<String> {
    let topic = &testbed.topics[(fault.victim % testbed.topics.len() as u64) as usize];
    let limit = async {
        sleep(BURST_LEAD).await;
        retry(async || topics::limit_batches(topic, Some(SMALL_BATCH_BYTES)).await).await
    };
    let burst = tokio::spawn(Arc::clone(&testbed.writers).burst(topic.clone(), BURST));
    limit.await?;
    sleep(fault.duration).await;
    burst.await?;
    retry(async || topics::limit_batches(topic, None).await).await?;
    Ok(format!("of {topic}, for {}", seconds(fault.duration)))
}

/// Retries an attempt for [`TOOL_TIMEOUT`]: the cluster may have no controller now.
async fn retry(attempt: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let end = Instant::now() + TOOL_TIMEOUT;
    loop {
        match attempt().await {
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => sleep(Duration::from_millis(200)).await,
            Ok(()) => return Ok(()),
        }
    }
}

/// Runs a tool of Kafka, with retries: a broker that has just restarted may not be registered yet.
async fn tool(testbed: &Testbed, arguments: &[&str]) -> anyhow::Result<()> {
    retry(async || {
        let mut command = testbed.kafka.lock().await.tool(1);
        command.args(arguments);
        let done = tokio::task::spawn_blocking(move || command.output()).await??;
        let output = String::from_utf8_lossy(&done.stderr).into_owned()
            + &String::from_utf8_lossy(&done.stdout);
        anyhow::ensure!(done.status.success(), "{} {}", arguments[0], output.trim());
        Ok(())
    })
    .await
}

async fn create_topic(testbed: &Testbed, duration: Duration) -> anyhow::Result<String> {
    let Some(name) = testbed.writers.open_late_topic() else {
        return Ok("all topics exist".to_owned());
    };
    sleep(duration).await;
    retry(async || topics::create(&[name]).await).await?;
    testbed
        .created
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(name.to_owned());
    Ok(format!(
        "{name}, {:.1} s after its first rows",
        duration.as_secs_f64()
    ))
}

/// Deletes a topic with its records and creates it again. Rows written meanwhile wait for it.
async fn recreate_topic(testbed: &Testbed, duration: Duration) -> anyhow::Result<String> {
    retry(async || topics::delete(DELETABLE_TOPIC).await).await?;
    sleep(duration).await;
    // If the deletion is still under way, the topic "exists already", and is gone a moment later.
    let end = Instant::now() + LATE_DELETION_MAX;
    loop {
        retry(async || topics::create(&[DELETABLE_TOPIC]).await).await?;
        if Instant::now() >= end {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    testbed.update_facts(|facts| {
        facts
            .deleted_topics
            .insert(DELETABLE_TOPIC.to_owned(), now_ms())
    });
    Ok(format!("{DELETABLE_TOPIC}, {} later", seconds(duration)))
}
