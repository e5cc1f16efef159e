//! Sends records as a relay does, through krafka, which puts all ready partitions of a broker into
//! one request. The options and the figures are those of the bench's `client`.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    rc::Rc,
    time::{Duration, Instant},
};

use krafka::{
    Compression, Kafka, Record,
    producer::{Acks, Producer},
};
use tokio::task::LocalSet;

const FETCH: Duration = Duration::from_millis(5);
/// Clock ticks per second in /proc: 100 on Linux.
const TICKS: f64 = 100.0;

type Failure = Box<dyn std::error::Error>;

struct Options(HashMap<String, String>);

impl Options {
    /// Options `--name value`.
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let pairs = arguments.chunks_exact(2);
        Self(
            pairs
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect(),
        )
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> u64 {
        self.text(name).parse().expect(name)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    LocalSet::new().run_until(run(&Options::read())).await
}

async fn run(options: &Options) -> Result<(), Failure> {
    let kafka = Kafka::builder(options.text("--kafka")).connect().await?;
    let producer = kafka
        .producer()
        .acks(Acks::All)
        .linger(Duration::ZERO)
        .batch_size(1_000_000)
        .compression(Compression::Lz4)
        .build()
        .await?;
    let producer = Rc::new(producer);
    let topics: Vec<String> = options
        .text("--topics")
        .split(',')
        .map(str::to_owned)
        .collect();
    let bytes = options.number("--bytes") as usize;
    let text: Vec<u8> = (0..bytes).map(|at| b"a1"[at % 2]).collect();
    let warm_up = Duration::from_secs(options.number("--warm-up"));
    let partitions = options.number("--partitions") as usize;
    let seconds = options.number("--seconds");
    let (end, rate) = (
        warm_up + Duration::from_secs(seconds),
        options.number("--rate"),
    );
    let (began, latencies) = (Instant::now(), Rc::new(RefCell::new(Vec::new())));
    let (mut sent, mut next, mut before) = (0, Duration::ZERO, None);
    while began.elapsed() < end {
        if before.is_none() && began.elapsed() >= warm_up {
            before = Some(cpu_seconds()?);
        }
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        for number in sent..due {
            let place = place(number, topics.len() * partitions);
            let record = Record::new(topics[place / partitions].as_str(), text.clone())
                .partition((place % partitions) as i32)
                .key(format!("key-{number}"));
            let measured = began.elapsed() >= warm_up;
            send(&producer, record, measured.then(|| Rc::clone(&latencies))).await?;
        }
        sent = due;
        next += FETCH;
        tokio::time::sleep(next.saturating_sub(began.elapsed())).await;
    }
    let cores = (cpu_seconds()? - before.unwrap_or(0.0)) / seconds as f64;
    let rss = rss_mib()?;
    producer.flush().await?;
    tokio::time::sleep(FETCH).await;
    let mut all = latencies.take();
    all.sort_by(f64::total_cmp);
    let quantile = |q: f64| all[((all.len() as f64 * q).ceil() as usize).max(1) - 1];
    println!(
        "{{\"rows_per_second\": {}, \"p50_ms\": {}, \"p99_ms\": {}, \"cores\": {cores}, \"rss_mib\": {rss}}}",
        all.len() as f64 / seconds as f64,
        quantile(0.5),
        quantile(0.99),
    );
    Ok(())
}

/// Sends a record. Its latency goes to `latencies`, if it is measured.
async fn send(
    producer: &Rc<Producer>,
    record: Record,
    latencies: Option<Rc<RefCell<Vec<f64>>>>,
) -> Result<(), Failure> {
    let sent = Instant::now();
    let acknowledged = producer.enqueue(record).await?;
    tokio::task::spawn_local(async move {
        let _ = acknowledged.await.expect("a record was not acknowledged");
        if let Some(latencies) = latencies {
            latencies
                .borrow_mut()
                .push(sent.elapsed().as_secs_f64() * 1e3);
        }
    });
    Ok(())
}

fn place(number: u64, places: usize) -> usize {
    let mixed = (number ^ (number >> 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 33) as usize % places
}

fn cpu_seconds() -> Result<f64, Failure> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .ok_or("no name")?
        .1
        .split_whitespace()
        .collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / TICKS)
}

fn rss_mib() -> Result<f64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no RSS")?;
    Ok(line
        .split_whitespace()
        .next()
        .ok_or("no RSS")?
        .parse::<f64>()?
        / 1024.0)
}
