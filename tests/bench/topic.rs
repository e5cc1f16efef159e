//! A topic for each measurement. The broker sets the timestamps of its records, so that all
//! contenders are measured with one clock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};

pub(crate) const PARTITIONS: i32 = 12;
/// Limit for one request to Kafka.
const TIMEOUT: Duration = Duration::from_secs(10);

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A topic and a consumer for it.
pub(crate) struct Topic {
    pub(crate) name: String,
    kafka: String,
    consumer: BaseConsumer,
}

impl Topic {
    /// Creates a topic with a new name.
    pub(crate) async fn create(kafka: &str, replicas: i32) -> anyhow::Result<Self> {
        let name = format!(
            "bench-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let topic = NewTopic::new(&name, PARTITIONS, TopicReplication::Fixed(replicas))
            .set("message.timestamp.type", "LogAppendTime");
        let created = admin(kafka)?
            .create_topics([&topic], &AdminOptions::new())
            .await?;
        anyhow::ensure!(created.iter().all(Result::is_ok), "{created:?}");
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", kafka)
            .set("group.id", "bench")
            .create()?;
        Ok(Self {
            name,
            kafka: kafka.to_owned(),
            consumer,
        })
    }

    /// Deletes the topic.
    pub(crate) async fn delete(self) -> anyhow::Result<()> {
        admin(&self.kafka)?
            .delete_topics(&[&self.name], &AdminOptions::new())
            .await?;
        Ok(())
    }

    /// Number of records in the topic.
    pub(crate) fn records(&self) -> anyhow::Result<u64> {
        let ends = (0..PARTITIONS).map(|partition| {
            Ok(self
                .consumer
                .fetch_watermarks(&self.name, partition, TIMEOUT)?
                .1 as u64)
        });
        ends.sum()
    }

    /// Seconds between the first append and the last one.
    pub(crate) fn span(&self) -> anyhow::Result<f64> {
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        for partition in 0..PARTITIONS {
            let (low, high) = self
                .consumer
                .fetch_watermarks(&self.name, partition, TIMEOUT)?;
            if high > low {
                first = first.min(self.appended_at(partition, low)?);
                last = last.max(self.appended_at(partition, high - 1)?);
            }
        }
        Ok((last - first) as f64 / 1e3)
    }

    /// Timestamp of a record, in milliseconds since 1970.
    fn appended_at(&self, partition: i32, offset: i64) -> anyhow::Result<i64> {
        let mut one = TopicPartitionList::new();
        one.add_partition_offset(&self.name, partition, Offset::Offset(offset))?;
        self.consumer.assign(&one)?;
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            // A poll also returns without a message for other events.
            if let Some(message) = self.consumer.poll(Duration::from_millis(100)) {
                return message?
                    .timestamp()
                    .to_millis()
                    .context("a record without a time");
            }
        }
        anyhow::bail!(
            "record {offset} of partition {partition} of {} cannot be read back",
            self.name
        )
    }
}

fn admin(kafka: &str) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .create()?)
}
