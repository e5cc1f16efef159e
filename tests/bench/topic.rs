//! A topic of its own for each measurement, whose records bear the broker's time: the same clock
//! for everybody.

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
const WITHIN: Duration = Duration::from_secs(10);

static NEXT: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Topic {
    pub(crate) name: String,
    kafka: String,
    consumer: BaseConsumer,
}

impl Topic {
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

    pub(crate) async fn delete(self) -> anyhow::Result<()> {
        admin(&self.kafka)?
            .delete_topics(&[&self.name], &AdminOptions::new())
            .await?;
        Ok(())
    }

    /// Records in it.
    pub(crate) fn records(&self) -> anyhow::Result<u64> {
        let ends = (0..PARTITIONS).map(|partition| {
            Ok(self
                .consumer
                .fetch_watermarks(&self.name, partition, WITHIN)?
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
                .fetch_watermarks(&self.name, partition, WITHIN)?;
            if high > low {
                first = first.min(self.appended_at(partition, low)?);
                last = last.max(self.appended_at(partition, high - 1)?);
            }
        }
        Ok((last - first) as f64 / 1e3)
    }

    /// Milliseconds since 1970.
    fn appended_at(&self, partition: i32, offset: i64) -> anyhow::Result<i64> {
        let mut one = TopicPartitionList::new();
        one.add_partition_offset(&self.name, partition, Offset::Offset(offset))?;
        self.consumer.assign(&one)?;
        let give_up = Instant::now() + WITHIN;
        while Instant::now() < give_up {
            // It comes back empty-handed for other events, too.
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
