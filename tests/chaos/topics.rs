//! Topics: made, and read from their first record to their last.

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

pub(crate) const PARTITIONS: i32 = 6;
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Then another broker is asked: this one may stand still.
const ALTERED_MAX: Duration = Duration::from_secs(2);
const READ_MAX: Duration = Duration::from_secs(120);

fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka::servers());
    config
}

/// Three replicas, of which two must have a record; brokers say when they took it.
pub(crate) async fn create(names: &[&str]) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = config().create()?;
    let topics: Vec<NewTopic<'_>> = names
        .iter()
        .map(|name| {
            NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(3))
                .set("message.timestamp.type", "LogAppendTime")
        })
        .collect();
    let end = Instant::now() + ANSWER_MAX;
    loop {
        let made = admin
            .create_topics(
                &topics,
                &AdminOptions::new().request_timeout(Some(ANSWER_MAX)),
            )
            .await;
        match made.map_err(anyhow::Error::from).and_then(|results| {
            let refused = results
                .into_iter()
                .filter_map(Result::err)
                .find(|(_, code)| *code != RDKafkaErrorCode::TopicAlreadyExists);
            refused.map_or(Ok(()), |(name, code)| {
                Err(anyhow::anyhow!("topic {name}: {code}"))
            })
        }) {
            Ok(()) => return Ok(()),
            // Just after the start a controller may still be looked for.
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Deletes a topic; it is gone, or will be soon.
pub(crate) async fn delete(name: &str) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = config().create()?;
    let deleted = admin
        .delete_topics(
            &[name],
            &AdminOptions::new().request_timeout(Some(ANSWER_MAX)),
        )
        .await?;
    match &deleted[..] {
        // A request before this one may have been carried out, though its answer never came.
        [Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition))] => Ok(()),
        refused => anyhow::bail!("cannot delete topic {name}: {refused:?}"),
    }
}

/// Batches may have so many bytes; `None`: as many as brokers take anyway.
pub(crate) async fn limit_batches(name: &str, bytes: Option<u32>) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = config().create()?;
    let limit = bytes.map(|bytes| bytes.to_string());
    let mut wanted = AlterConfig::new(ResourceSpecifier::Topic(name))
        .set("message.timestamp.type", "LogAppendTime");
    if let Some(limit) = &limit {
        wanted = wanted.set("max.message.bytes", limit);
    }
    let altered = admin
        .alter_configs(
            [&wanted],
            &AdminOptions::new().request_timeout(Some(ALTERED_MAX)),
        )
        .await?;
    anyhow::ensure!(
        altered.iter().all(Result::is_ok),
        "cannot alter topic {name}: {altered:?}"
    );
    Ok(())
}

/// All records of all partitions, up to what is there now.
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
    let (mut list, mut left) = (TopicPartitionList::new(), std::collections::HashMap::new());
    for name in names {
        for partition in 0..PARTITIONS {
            let (_, high) = consumer
                .fetch_watermarks(name, partition, ANSWER_MAX)
                .with_context(|| format!("{name}/{partition}"))?;
            list.add_partition_offset(name, partition, Offset::Beginning)?;
            if high > 0 {
                left.insert((name.clone(), partition), high);
            }
        }
    }
    consumer.assign(&list)?;
    let (mut records, end) = (Vec::new(), Instant::now() + READ_MAX);
    while !left.is_empty() {
        anyhow::ensure!(
            Instant::now() < end,
            "not read after {READ_MAX:?}: {left:?}"
        );
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let at = (message.topic().to_owned(), message.partition());
                if left
                    .get(&at)
                    .is_some_and(|high| message.offset() + 1 >= *high)
                {
                    left.remove(&at);
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
