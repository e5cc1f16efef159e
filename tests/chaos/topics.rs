//! Creates, deletes, limits and reads topics.

use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Headers},
    types::RDKafkaErrorCode,
};

use crate::{facts::Record, servers::kafka};

/// Partitions of each topic.
pub(crate) const PARTITIONS: i32 = 12;
/// Limit for one request to Kafka.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for one attempt to alter a topic. It is short because the broker may be paused; the next
/// attempt reaches another one.
const ALTER_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit for reading all topics.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka::servers());
    config
}

/// Creates topics with three replicas, two of which must have a record. Brokers set the timestamps
/// of records.
pub(crate) async fn create(names: &[&str]) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = config().create()?;
    let topics: Vec<NewTopic<'_>> = names
        .iter()
        .map(|name| {
            NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(3))
                .set("message.timestamp.type", "LogAppendTime")
        })
        .collect();
    let end = Instant::now() + ANSWER_TIMEOUT;
    loop {
        let created = admin
            .create_topics(
                &topics,
                &AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT)),
            )
            .await;
        match created.map_err(anyhow::Error::from).and_then(|results| {
            let failure = results
                .into_iter()
                .filter_map(Result::err)
                .find(|(_, code)| *code != RDKafkaErrorCode::TopicAlreadyExists);
            failure.map_or(Ok(()), |(name, code)| {
                Err(anyhow::anyhow!("topic {name}: {code}"))
            })
        }) {
            Ok(()) => return Ok(()),
            // Right after the start the cluster may not have elected a controller yet.
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Deletes a topic. Brokers may take a moment longer to remove it.
pub(crate) async fn delete(name: &str) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = config().create()?;
    let deleted = admin
        .delete_topics(
            &[name],
            &AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT)),
        )
        .await?;
    match &deleted[..] {
        // An earlier request may have deleted the topic although its answer never came.
        [Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition))] => Ok(()),
        failure => anyhow::bail!("cannot delete topic {name}: {failure:?}"),
    }
}

/// Limits the size of batches in bytes. `None` removes the limit.
pub(crate) async fn limit_batches(name: &str, bytes: Option<u32>) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = config().create()?;
    let limit = bytes.map(|bytes| bytes.to_string());
    let mut alteration = AlterConfig::new(ResourceSpecifier::Topic(name))
        .set("message.timestamp.type", "LogAppendTime");
    if let Some(limit) = &limit {
        alteration = alteration.set("max.message.bytes", limit);
    }
    let altered = admin
        .alter_configs(
            [&alteration],
            &AdminOptions::new().request_timeout(Some(ALTER_TIMEOUT)),
        )
        .await?;
    anyhow::ensure!(
        altered.iter().all(Result::is_ok),
        "cannot alter topic {name}: {altered:?}"
    );
    Ok(())
}

/// Reads all records of all partitions up to their current ends.
pub(crate) async fn read(names: Vec<String>) -> anyhow::Result<Vec<Record>> {
    tokio::task::spawn_blocking(move || read_all(&names)).await?
}

fn read_all(names: &[String]) -> anyhow::Result<Vec<Record>> {
    let consumer: BaseConsumer = config()
        .set("group.id", "chaos")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "false")
        .create()?;
    let (mut list, mut unread) = (TopicPartitionList::new(), std::collections::HashMap::new());
    for name in names {
        for partition in 0..PARTITIONS {
            let (_, high) = consumer
                .fetch_watermarks(name, partition, ANSWER_TIMEOUT)
                .with_context(|| format!("{name}/{partition}"))?;
            list.add_partition_offset(name, partition, Offset::Beginning)?;
            if high > 0 {
                unread.insert((name.clone(), partition), high);
            }
        }
    }
    consumer.assign(&list)?;
    let (mut records, end) = (Vec::new(), Instant::now() + READ_TIMEOUT);
    while !unread.is_empty() {
        anyhow::ensure!(
            Instant::now() < end,
            "some partitions were not read within {READ_TIMEOUT:?}: {unread:?}"
        );
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let at = (message.topic().to_owned(), message.partition());
                if unread
                    .get(&at)
                    .is_some_and(|high| message.offset() + 1 >= *high)
                {
                    unread.remove(&at);
                }
                records.push(record(&message));
            }
            Some(Err(error)) => eprintln!("consumer: {error}"),
            None => {}
        }
    }
    Ok(records)
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter());
    Record {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        at: message.timestamp().to_millis().unwrap_or_default(),
        key: message.key().unwrap_or_default().to_owned(),
        payload: message.payload().unwrap_or_default().to_owned(),
        headers: headers
            .map(|header| {
                (
                    header.key.to_owned(),
                    header.value.unwrap_or_default().to_owned(),
                )
            })
            .collect(),
    }
}
