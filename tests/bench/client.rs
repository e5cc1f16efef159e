//! Sends records as a relay does, through some producers with some requests under way each, and
//! measures how long their acknowledgements take. It runs in a separate process.

use std::{
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use rdkafka::{
    ClientConfig, ClientContext,
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use serde_json::json;

use super::{
    consumer::{Latencies, now_us},
    process::Usage,
    table::payload,
};

/// Time between two fetches of a relay. The rows of a fetch are sent at once.
const FETCH: Duration = Duration::from_millis(5);
/// Time between two looks for acknowledgements.
const POLL: Duration = Duration::from_millis(1);
/// Longest wait for the last acknowledgements.
const FLUSH: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct Client {
    #[arg(long)]
    kafka: String,
    #[arg(long, value_delimiter = ',')]
    topics: Vec<String>,
    /// Partitions of each topic.
    #[arg(long)]
    partitions: usize,
    /// A partition has always the same producer.
    #[arg(long)]
    producers: usize,
    /// Most requests under way to a broker, of each producer.
    #[arg(long)]
    in_flight: usize,
    /// Records per second.
    #[arg(long)]
    rate: u64,
    /// Seconds before the measurement.
    #[arg(long)]
    warm_up: u64,
    #[arg(long)]
    seconds: u64,
    #[arg(long)]
    bytes: usize,
}

/// Times from a send to its acknowledgement, in milliseconds, of the records that were sent after
/// the warm-up.
struct Acks {
    measured_from_us: i64,
    latencies: Mutex<Vec<f64>>,
}

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    /// Time of the send, in microseconds since 1970.
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, sent_us: usize) {
        assert!(report.is_ok(), "a record was not acknowledged");
        let sent_us = sent_us as i64;
        if sent_us >= self.measured_from_us {
            let latency = (now_us() - sent_us) as f64 / 1e3;
            self.latencies.lock().expect("not poisoned").push(latency);
        }
    }
}

/// Sends at the rate, and prints the figures as JSON.
pub(crate) fn run(client: &Client) -> anyhow::Result<()> {
    let warm_up = Duration::from_secs(client.warm_up);
    let measured_from_us = now_us() + warm_up.as_micros() as i64;
    let producers = (0..client.producers)
        .map(|_| producer(client, measured_from_us))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (text, began) = (payload(client.bytes), Instant::now());
    let end = warm_up + Duration::from_secs(client.seconds);
    let (mut sent, mut next, mut before) = (0, Duration::ZERO, None);
    while began.elapsed() < end {
        if before.is_none() && began.elapsed() >= warm_up {
            before = Some(Usage::of(std::process::id())?);
        }
        if began.elapsed() >= next {
            next += FETCH;
            let due = (began.elapsed().as_secs_f64() * client.rate as f64) as u64;
            for number in sent..due {
                send(client, &producers, number, &text)?;
            }
            sent = due;
        }
        for producer in &producers {
            producer.poll(Duration::ZERO);
        }
        thread::sleep(POLL);
    }
    let after = Usage::of(std::process::id())?;
    print(client, &producers, before.unwrap_or_default(), after)
}

fn print(
    client: &Client,
    producers: &[BaseProducer<Acks>],
    before: Usage,
    after: Usage,
) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for producer in producers {
        producer.flush(FLUSH)?;
        all.append(&mut producer.context().latencies.lock().expect("not poisoned"));
    }
    let (rows, latencies) = (all.len(), Latencies::of(all));
    let figures = json!({
        "rows_per_second": rows as f64 / client.seconds as f64,
        "p50_ms": latencies.quantile(0.5),
        "p99_ms": latencies.quantile(0.99),
        "cores": (after.cpu_seconds - before.cpu_seconds) / client.seconds as f64,
        "rss_mib": after.rss_mib,
    });
    println!("{figures}");
    Ok(())
}

fn producer(client: &Client, measured_from_us: i64) -> anyhow::Result<BaseProducer<Acks>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &client.kafka)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("max.in.flight", client.in_flight.to_string())
        .set("linger.ms", "0")
        .set("compression.type", "lz4");
    Ok(config.create_with_context(Acks {
        measured_from_us,
        latencies: Mutex::default(),
    })?)
}

/// Sends one record to a partition that depends on its number.
fn send(
    client: &Client,
    producers: &[BaseProducer<Acks>],
    number: u64,
    text: &str,
) -> anyhow::Result<()> {
    let at = place(number, client.topics.len() * client.partitions);
    let (topic, partition) = (at / client.partitions, at % client.partitions);
    let key = format!("key-{number}");
    let record = BaseRecord::with_opaque_to(&client.topics[topic], now_us() as usize)
        .partition(partition as i32)
        .key(&key)
        .payload(text);
    producers[at % producers.len()]
        .send(record)
        .map_err(|(error, _)| error.into())
}

/// A place for each number, as evenly and as disorderly as a hash of its key.
fn place(number: u64, places: usize) -> usize {
    let mixed = (number ^ (number >> 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 33) as usize % places
}
