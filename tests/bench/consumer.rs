//! Consumers: one that records when each record arrived, one that reads when brokers appended it.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};

use super::topic::Topics;

/// Digits of the number at the start of a payload.
pub(crate) const NUMBER: usize = 16;
/// Longest wait for the records of rows that were written.
const ALL_APPENDED: Duration = Duration::from_secs(240);

/// An arrived record. Times are microseconds since 1970.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    /// Number at the start of the payload.
    pub(crate) number: Option<u64>,
    /// Header `outbox_created_at` of the relay's records.
    pub(crate) created_us: Option<i64>,
    pub(crate) arrived_us: i64,
}

/// Latencies in milliseconds, sorted.
pub(crate) struct Latencies(Vec<f64>);

impl Latencies {
    /// Latencies from the time that `since` returns to the arrival.
    pub(crate) fn new(arrivals: &[Arrival], since: impl Fn(&Arrival) -> Option<i64>) -> Self {
        let age = |arrival: &Arrival| Some((arrival.arrived_us - since(arrival)?) as f64 / 1e3);
        Self::of(arrivals.iter().filter_map(age).collect())
    }

    /// Latencies in milliseconds, in any order.
    pub(crate) fn of(mut milliseconds: Vec<f64>) -> Self {
        milliseconds.sort_by(f64::total_cmp);
        Self(milliseconds)
    }

    /// A quantile: `q` is 0.5 for the median. NaN without values.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let at = ((self.0.len() as f64 * q).ceil() as usize).clamp(1, self.0.len().max(1)) - 1;
        self.0.get(at).copied().unwrap_or(f64::NAN)
    }
}

/// The time now, in microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as i64)
}

/// A consumer that reads in a thread.
pub(crate) struct RunningConsumer {
    seen: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<anyhow::Result<Vec<Arrival>>>,
}

/// Starts a consumer that reads topics from their first records, without a delay.
pub(crate) fn start(topics: &Topics) -> anyhow::Result<RunningConsumer> {
    let consumer = consumer(&topics.kafka)?;
    consumer.assign(&topics.at(Offset::Beginning)?)?;
    let (seen, stop) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let thread = std::thread::spawn({
        let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
        move || read(&consumer, &seen, &stop)
    });
    Ok(RunningConsumer { seen, stop, thread })
}

/// A consumer that no offset is committed for.
fn consumer(kafka: &str) -> anyhow::Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka)
        .set("group.id", "bench")
        .set("fetch.wait.max.ms", "5")
        .set("enable.auto.commit", "false");
    Ok(config.create()?)
}

/// The number at the start of a payload.
fn number(payload: &[u8]) -> Option<u64> {
    std::str::from_utf8(payload.get(..NUMBER)?)
        .ok()?
        .parse()
        .ok()
}

/// Reads the times at which the brokers appended records, after these were written: while a
/// contender is measured, it takes no CPU time from it.
pub(crate) struct AppendTimes {
    kafka: String,
    from: TopicPartitionList,
}

impl AppendTimes {
    /// Begins after all records that the topics have now.
    pub(crate) fn from_now(topics: &Topics) -> anyhow::Result<Self> {
        Ok(Self {
            kafka: topics.kafka.clone(),
            from: topics.ends()?,
        })
    }

    /// Reads until each of the rows was seen. Returns the times of their first records by number,
    /// in microseconds since 1970. Brokers know milliseconds; the middle of one is returned.
    pub(crate) fn read(&self, rows: &HashSet<u64>) -> anyhow::Result<HashMap<u64, i64>> {
        let consumer = consumer(&self.kafka)?;
        consumer.assign(&self.from)?;
        let (mut times, deadline) = (HashMap::new(), Instant::now() + ALL_APPENDED);
        while times.len() < rows.len() {
            anyhow::ensure!(
                Instant::now() < deadline,
                "only {} of {} rows were published within {ALL_APPENDED:?}",
                times.len(),
                rows.len()
            );
            let Some(message) = consumer.poll(Duration::from_millis(50)) else {
                continue;
            };
            let message = message?;
            let number = message.payload().and_then(number);
            if let (Some(number), Some(millis)) = (number, message.timestamp().to_millis())
                && rows.contains(&number)
            {
                times.entry(number).or_insert(millis * 1000 + 500);
            }
        }
        Ok(times)
    }
}

fn read(
    consumer: &BaseConsumer,
    seen: &AtomicU64,
    stop: &AtomicBool,
) -> anyhow::Result<Vec<Arrival>> {
    let mut arrivals = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Some(message) = consumer.poll(Duration::from_millis(50)) else {
            continue;
        };
        let message = message?;
        let arrived_us = now_us();
        let created = message
            .headers()
            .into_iter()
            .flat_map(Headers::iter)
            .find(|header| header.key == "outbox_created_at");
        let created: Option<jiff::Timestamp> =
            created.and_then(|header| std::str::from_utf8(header.value?).ok()?.parse().ok());
        let number = message.payload().and_then(number);
        arrivals.push(Arrival {
            number,
            created_us: created.map(jiff::Timestamp::as_microsecond),
            arrived_us,
        });
        seen.fetch_add(1, Ordering::Relaxed);
    }
    Ok(arrivals)
}

impl RunningConsumer {
    /// Waits until `records` records have arrived, and returns them.
    pub(crate) async fn finish(self, records: u64) -> anyhow::Result<Vec<Arrival>> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.seen.load(Ordering::Relaxed) < records {
            let seen = self.seen.load(Ordering::Relaxed);
            anyhow::ensure!(
                Instant::now() < deadline,
                "only {seen} of {records} records arrived within 60 s"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.stop.store(true, Ordering::Relaxed);
        tokio::task::spawn_blocking(|| self.thread.join())
            .await?
            .map_err(|_| anyhow::anyhow!("the consumer failed"))?
    }
}
