//! A consumer that keeps up, and how old each record was when it came.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::Context;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};

/// Milliseconds, sorted.
pub(crate) struct Latencies(Vec<f64>);

impl Latencies {
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let at = ((self.0.len() as f64 * q).ceil() as usize).clamp(1, self.0.len().max(1)) - 1;
        self.0.get(at).copied().unwrap_or(f64::NAN)
    }
}

pub(crate) struct Running {
    seen: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<anyhow::Result<Vec<f64>>>,
}

pub(crate) fn start(kafka: &str, topic: &str) -> anyhow::Result<Running> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka).set("group.id", "bench").set("fetch.wait.max.ms", "5").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10))?;
    let mut partitions = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        partitions.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    let (seen, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let thread = std::thread::spawn({
        let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
        move || read(&consumer, &seen, &stop)
    });
    Ok(Running { seen, stop, thread })
}

fn read(consumer: &BaseConsumer, seen: &AtomicU64, stop: &AtomicBool) -> anyhow::Result<Vec<f64>> {
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Some(message) = consumer.poll(Duration::from_millis(50)) else { continue };
        let message = message?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
        let created = message.headers().into_iter().flat_map(Headers::iter).find(|header| header.key == "outbox_created_at");
        let created: jiff::Timestamp = std::str::from_utf8(created.and_then(|header| header.value).context("no time")?)?.parse()?;
        latencies.push((now - created.as_microsecond() as f64 / 1e6) * 1e3);
        seen.fetch_add(1, Ordering::Relaxed);
    }
    Ok(latencies)
}

impl Running {
    /// Waits for so many records.
    pub(crate) async fn finish(self, records: u64) -> anyhow::Result<Latencies> {
        let give_up = tokio::time::Instant::now() + Duration::from_secs(60);
        while self.seen.load(Ordering::Relaxed) < records {
            let seen = self.seen.load(Ordering::Relaxed);
            anyhow::ensure!(tokio::time::Instant::now() < give_up, "after 60 s {seen} of {records} records have come");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.stop.store(true, Ordering::Relaxed);
        let mut latencies =
            tokio::task::spawn_blocking(|| self.thread.join()).await?.map_err(|_| anyhow::anyhow!("the consumer failed"))??;
        latencies.sort_by(f64::total_cmp);
        Ok(Latencies(latencies))
    }
}
