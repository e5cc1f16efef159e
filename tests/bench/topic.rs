//! Topics for a measurement. The brokers set the timestamps of their records, so that all contenders
//! are measured with one clock.

use std::{
    collections::HashMap,
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

/// Partitions of a topic, unless that needs more topics than a manifest may have.
pub(crate) const PARTITIONS: i32 = 12;
/// Most topics. A manifest may have 64.
const TOPICS_MAX: i32 = 50;
/// Limit for one request to Kafka.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for reading records of all partitions.
const READ_BACK: Duration = Duration::from_secs(60);
/// Limit for the creation of topics.
const CREATION: Duration = Duration::from_secs(60);

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Topics of a measurement and a consumer for them. They are asked without a delay.
pub(crate) struct Topics {
    /// What their names begin with.
    pub(crate) prefix: String,
    pub(crate) names: Vec<String>,
    pub(crate) kafka: String,
    /// Partitions of each topic.
    pub(crate) partitions: i32,
    consumer: BaseConsumer,
}

impl Topics {
    /// Creates topics with new names that have as many partitions in all, and waits until each
    /// partition has a leader.
    pub(crate) async fn create(kafka: &str, all: i32, replicas: i32) -> anyhow::Result<Self> {
        let count = (all / PARTITIONS).clamp(1, TOPICS_MAX);
        let partitions = all / count;
        anyhow::ensure!(
            partitions * count == all,
            "{all} partitions cannot be spread over {count} topics"
        );
        let prefix = format!(
            "bench-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let names: Vec<String> = (0..count).map(|n| format!("{prefix}-{n}")).collect();
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .map(|name| {
                NewTopic::new(name, partitions, TopicReplication::Fixed(replicas))
                    .set("message.timestamp.type", "LogAppendTime")
            })
            .collect();
        let created = admin(kafka)?
            .create_topics(&topics, &AdminOptions::new())
            .await?;
        anyhow::ensure!(created.iter().all(Result::is_ok), "{created:?}");
        let topics = Self {
            prefix,
            names,
            kafka: kafka.to_owned(),
            partitions,
            consumer: ClientConfig::new()
                .set("bootstrap.servers", kafka)
                .set("group.id", "bench")
                .create()?,
        };
        topics.wait_for_leaders().await?;
        Ok(topics)
    }

    async fn wait_for_leaders(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + CREATION;
        loop {
            let metadata = self.consumer.fetch_metadata(None, TIMEOUT)?;
            let led = metadata
                .topics()
                .iter()
                .filter(|topic| self.names.iter().any(|name| name == topic.name()))
                .flat_map(|topic| topic.partitions())
                .filter(|partition| partition.leader() >= 0)
                .count();
            // A broker knows that it leads a while after the metadata says so.
            if led == self.all().count() && self.records().is_ok() {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "only {led} partitions are led");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Deletes the topics.
    pub(crate) async fn delete(self) -> anyhow::Result<()> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        admin(&self.kafka)?
            .delete_topics(&names, &AdminOptions::new())
            .await?;
        Ok(())
    }

    /// All partitions.
    fn all(&self) -> impl Iterator<Item = (&str, i32)> {
        self.names
            .iter()
            .flat_map(|name| (0..self.partitions).map(move |partition| (name.as_str(), partition)))
    }

    /// All partitions, each with an offset.
    pub(crate) fn at(&self, offset: Offset) -> anyhow::Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in self.all() {
            list.add_partition_offset(topic, partition, offset)?;
        }
        Ok(list)
    }

    /// The next offset of each partition.
    pub(crate) fn ends(&self) -> anyhow::Result<TopicPartitionList> {
        // As a time, the end means the next offset. This is one request for each broker.
        let ends = self.at(Offset::End)?;
        Ok(self.consumer.offsets_for_times(ends, TIMEOUT)?)
    }

    /// Number of records in the topics.
    pub(crate) fn records(&self) -> anyhow::Result<u64> {
        let ends = self.ends()?;
        let offsets = ends.elements().into_iter().map(|one| match one.offset() {
            Offset::Offset(offset) => Ok(offset as u64),
            other => anyhow::bail!("the end of a partition is {other:?}"),
        });
        offsets.sum()
    }

    /// Seconds between the first append and the last one.
    pub(crate) fn span(&self) -> anyhow::Result<f64> {
        let (mut firsts, mut lasts) = (TopicPartitionList::new(), TopicPartitionList::new());
        for end in self.ends()?.elements() {
            let (topic, partition) = (end.topic(), end.partition());
            if let Offset::Offset(next @ 1..) = end.offset() {
                firsts.add_partition_offset(topic, partition, Offset::Beginning)?;
                lasts.add_partition_offset(topic, partition, Offset::Offset(next - 1))?;
            }
        }
        let first = self.appended_at(&firsts)?.into_iter().min();
        let last = self.appended_at(&lasts)?.into_iter().max();
        let (first, last) = first.zip(last).context("no records")?;
        Ok((last - first) as f64 / 1e3)
    }

    /// Timestamps of one record of each partition, in milliseconds since 1970.
    fn appended_at(&self, records: &TopicPartitionList) -> anyhow::Result<Vec<i64>> {
        self.consumer.assign(records)?;
        let mut times = HashMap::new();
        let deadline = Instant::now() + READ_BACK;
        while times.len() < records.count() {
            anyhow::ensure!(
                Instant::now() < deadline,
                "records of only {} of {} partitions can be read back",
                times.len(),
                records.count()
            );
            // A poll also returns without a message for other events.
            if let Some(message) = self.consumer.poll(Duration::from_millis(100)) {
                let message = message?;
                let place = (message.topic().to_owned(), message.partition());
                let time = message.timestamp().to_millis();
                times
                    .entry(place)
                    .or_insert(time.context("a record without a time")?);
            }
        }
        self.consumer.unassign()?;
        Ok(times.into_values().collect())
    }
}

fn admin(kafka: &str) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .create()?)
}
