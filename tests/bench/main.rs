//! What the relay costs and how fast it is, on real servers: drain of a backlog, latency at steady rates, what it costs to be idle. Ratios are
//! what counts: librdkafka alone moves the same records in the same run. Prints a table and JSON.

#![expect(clippy::print_stdout, reason = "what it prints is for people")]

mod consumer;
mod limits;
mod load;
mod process;
mod relay;

use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use consumer::Latencies;
use load::Table;
use process::Usage;
use relay::Relay;

/// Of a steady rate, not counted: the first records of a producer go alone, and a new topic costs the broker some.
const WARM_UP: Duration = Duration::from_secs(3);

#[derive(Parser)]
struct Cli {
    /// URL of a superuser of the PostgreSQL to use.
    #[arg(long)]
    postgres: String,
    /// Process id of that PostgreSQL's postmaster, whose CPU time is read.
    #[arg(long)]
    postgres_pid: u32,
    /// Bootstrap servers of the Kafka to use.
    #[arg(long)]
    kafka: String,
    /// The relay's program.
    #[arg(long)]
    relay: std::path::PathBuf,
    /// Rows of the backlog.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 300)]
    bytes: usize,
    /// Seconds of each steady rate.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds that a transaction pins the horizon, at 2,000 rows/s; 0: not at all.
    #[arg(long, default_value_t = 20)]
    pinned_seconds: u64,
    /// Seconds that a transaction is open before it commits its rows, at 5,000 rows/s; 0: not at all.
    #[arg(long, default_value_t = 5)]
    late_seconds: u64,
    /// Only measurements whose name has this in it.
    #[arg(long, default_value = "")]
    only: String,
    /// Where the JSON goes.
    #[arg(long)]
    json: Option<std::path::PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let mut results = Vec::new();
    for measurement in measurements(&cli).into_iter().filter(|measurement| measurement.name().contains(&cli.only)) {
        let (name, result) = (measurement.name(), measurement.make(&cli).await?);
        println!("{name:<24} {}", in_words(&result));
        results.push(json!({ "name": name, "result": result }));
    }
    if let Some(file) = &cli.json {
        std::fs::write(file, serde_json::to_string_pretty(&results)?).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// What is measured.
enum Measurement {
    ProducerAlone,
    Drain,
    Steady { rate: u64, seconds: u64, pinned: bool },
    Late,
    Idle,
}

fn measurements(cli: &Cli) -> Vec<Measurement> {
    let steady = |rate, seconds, pinned| Measurement::Steady { rate, seconds, pinned };
    let mut all = vec![Measurement::ProducerAlone, Measurement::Drain];
    all.extend([1000, 5000].map(|rate| steady(rate, cli.seconds, false)));
    if cli.pinned_seconds > 0 {
        all.extend([false, true].map(|pinned| steady(2000, cli.pinned_seconds, pinned)));
    }
    if cli.late_seconds > 0 {
        all.push(Measurement::Late);
    }
    all.push(Measurement::Idle);
    all
}

impl Measurement {
    fn name(&self) -> String {
        match self {
            Self::ProducerAlone => "librdkafka alone".to_owned(),
            Self::Drain => "drain".to_owned(),
            Self::Steady { rate, pinned, .. } => format!("steady {rate} rows/s{}", if *pinned { ", pinned" } else { "" }),
            Self::Late => "5000 rows/s, late commit".to_owned(),
            Self::Idle => "idle".to_owned(),
        }
    }

    async fn make(&self, cli: &Cli) -> anyhow::Result<Value> {
        match *self {
            Self::ProducerAlone => Ok(json!({ "rows_per_second": limits::producer_alone(&cli.kafka, cli.rows, cli.bytes).await? })),
            Self::Drain => drain(cli).await,
            Self::Steady { rate, seconds, pinned } => steady(cli, rate, seconds, pinned).await,
            Self::Late => late(cli).await,
            Self::Idle => idle(cli).await,
        }
    }
}

/// A committed backlog, drained by one relay, on an empty table that was never analysed.
async fn drain(cli: &Cli) -> anyhow::Result<Value> {
    let table = Table::create(&cli.postgres, &cli.kafka).await?;
    let relay = Relay::start(cli, &table).await?;
    relay.owns_all_lanes().await?;
    // A warm-up, so that the first batch pays for no connection.
    table.insert(1000, cli.bytes).await?;
    table.is_empty().await?;
    table.insert_stopped(&relay, cli.rows, cli.bytes).await?;
    let (before, postgres_before) = (Usage::of(relay.pid())?, Usage::of_tree(cli.postgres_pid)?);
    let began = Instant::now();
    relay.go_on()?;
    table.is_empty().await?;
    let seconds = began.elapsed().as_secs_f64();
    let (after, postgres_after) = (Usage::of(relay.pid())?, Usage::of_tree(cli.postgres_pid)?);
    let per_row = |seconds: f64| seconds * 1e6 / cli.rows as f64;
    relay.stop().await?;
    Ok(json!({
        "rows_per_second": cli.rows as f64 / seconds,
        "relay_cpu_us_per_row": per_row(after.cpu_seconds - before.cpu_seconds),
        "postgres_cpu_us_per_row": per_row(postgres_after.cpu_seconds - postgres_before.cpu_seconds),
        "relay_rss_mib": after.rss_mib,
    }))
}

/// Transactions of one row each, and how long each row took from its commit, as its writer saw it, to a consumer.
async fn steady(cli: &Cli, rate: u64, seconds: u64, pinned: bool) -> anyhow::Result<Value> {
    let table = Table::create(&cli.postgres, &cli.kafka).await?;
    let relay = Relay::start(cli, &table).await?;
    relay.owns_all_lanes().await?;
    let pin = if pinned { Some(table.pin_horizon().await?) } else { None };
    let consumer = consumer::start(&cli.kafka, &table.topic)?;
    let warming = table.write_steadily(rate, WARM_UP, cli.bytes).await?;
    let before = Usage::of(relay.pid())?;
    let began = Instant::now();
    let committed = table.write_steadily(rate, Duration::from_secs(seconds), cli.bytes).await?;
    let wrote_for = began.elapsed().as_secs_f64();
    let mut arrivals = consumer.finish((warming.len() + committed.len()) as u64).await?;
    let after = Usage::of(relay.pid())?;
    drop(pin);
    relay.stop().await?;
    arrivals.retain(|arrival| arrival.number.is_some_and(|number| committed.contains_key(&number)));
    let since_commit = Latencies::new(&arrivals, |arrival| committed.get(&arrival.number?).copied());
    let since_insert = Latencies::new(&arrivals, |arrival| Some(arrival.created_us));
    Ok(json!({
        "rows_per_second": committed.len() as f64 / wrote_for,
        "p50_ms": since_commit.quantile(0.5),
        "p99_ms": since_commit.quantile(0.99),
        "max_ms": since_commit.quantile(1.0),
        "p50_ms_since_insert": since_insert.quantile(0.5),
        "p99_ms_since_insert": since_insert.quantile(0.99),
        "relay_cores": (after.cpu_seconds - before.cpu_seconds) / began.elapsed().as_secs_f64(),
        "relay_rss_mib": after.rss_mib,
    }))
}

/// A transaction commits late while others flow: how long after its commit its rows have come, and what the others notice.
async fn late(cli: &Cli) -> anyhow::Result<Value> {
    let table = Table::create(&cli.postgres, &cli.kafka).await?;
    let relay = Relay::start(cli, &table).await?;
    relay.owns_all_lanes().await?;
    let consumer = consumer::start(&cli.kafka, &table.topic)?;
    let open = Duration::from_secs(cli.late_seconds);
    let (written, straggled) =
        tokio::join!(table.write_steadily(5000, open + Duration::from_secs(3), cli.bytes), table.straggle(open, cli.bytes));
    let arrivals = consumer.finish(written?.len() as u64 + load::LATE_ROWS).await?;
    relay.stop().await?;
    let latencies = Latencies::new(&arrivals, |arrival| Some(arrival.created_us));
    Ok(json!({
        "late_ms_after_commit": latencies.quantile(1.0) - straggled?.as_secs_f64() * 1e3,
        "p50_ms": latencies.quantile(0.5),
        "p99_ms": latencies.quantile(0.99),
    }))
}

async fn idle(cli: &Cli) -> anyhow::Result<Value> {
    let table = Table::create(&cli.postgres, &cli.kafka).await?;
    let relay = Relay::start(cli, &table).await?;
    relay.owns_all_lanes().await?;
    sleep(Duration::from_secs(3)).await;
    let (before, transactions) = (Usage::of(relay.pid())?, table.transactions().await?);
    let began = Instant::now();
    sleep(Duration::from_secs(10)).await;
    // The server tells of transactions with a delay of up to a second or so: this is an average.
    let (after, seconds) = (Usage::of(relay.pid())?, began.elapsed().as_secs_f64());
    let transactions = table.transactions().await? - transactions;
    relay.stop().await?;
    Ok(json!({
        "relay_cores": (after.cpu_seconds - before.cpu_seconds) / seconds,
        "transactions_per_second": transactions as f64 / seconds,
        "relay_rss_mib": after.rss_mib,
    }))
}

fn in_words(result: &Value) -> String {
    let pairs = result.as_object().into_iter().flatten();
    pairs.map(|(name, value)| format!("{name} {:.3}", value.as_f64().unwrap_or(f64::NAN))).collect::<Vec<_>>().join("   ")
}
