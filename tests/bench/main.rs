//! Measures the speed and the cost of the relay on real servers, beside other tools and beside the
//! limits of the machine. All measurements are interleaved in one run, because their ratios
//! count. Prints a table and the targets, and writes JSON and charts.

#![expect(clippy::print_stdout, reason = "people read the output")]

mod bareloop;
mod chart;
mod conditions;
mod consumer;
mod contender;
mod limits;
mod measurements;
mod process;
mod results;
mod start;
mod table;
mod targets;
mod topic;

use std::path::{Path, PathBuf};

use clap::{Args, Parser};

use contender::Contender;
use measurements::Measurement;
use results::Results;
use serde_json::{Value, json};
use targets::Target;
use tokio::runtime::Builder;

#[derive(Parser)]
enum Command {
    /// Performs the measurements.
    Measure(Box<Cli>),
    /// Reads, sends and deletes until it is killed.
    BareLoop { postgres: String, kafka: String },
}

#[derive(Args)]
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
    /// Process id of its first broker.
    #[arg(long)]
    kafka_pid: u32,
    /// Replicas of each partition.
    #[arg(long, default_value_t = 1)]
    replicas: i32,
    /// The relay's program.
    #[arg(long, default_value = "target/release/outbox-relay")]
    relay: PathBuf,
    /// Folder of the peers' files.
    #[arg(long, default_value = "tests/bench/peers")]
    peers: PathBuf,
    /// Folder of the jars of Kafka Connect and Debezium.
    #[arg(long, default_value = "target/bench/connect")]
    connect: PathBuf,
    /// A Python with aiokafka and asyncpg.
    #[arg(long, default_value = "target/bench/python/bin/python")]
    python: PathBuf,
    /// The programs to measure.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "relay,bare-loop,debezium,poller"
    )]
    contenders: Vec<Contender>,
    /// Rows of the backlog.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Rows of a large backlog. 0 skips it.
    #[arg(long, default_value_t = 0)]
    mountain_rows: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 300)]
    bytes: usize,
    /// Seconds of each steady rate.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds for which a transaction pins the horizon, at 2,000 rows/s. 0 skips it.
    #[arg(long, default_value_t = 20)]
    pinned_seconds: u64,
    /// Seconds for which a transaction is open before it commits its rows, at 5,000 rows/s. 0 skips
    /// it.
    #[arg(long, default_value_t = 5)]
    late_seconds: u64,
    /// How often each measurement is made, in turn with the others. The results are medians.
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Only measurements whose name contains this text.
    #[arg(long, default_value = "")]
    only: String,
    /// Folder for result.json and the charts.
    #[arg(long)]
    output: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Measure(cli) => Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(measure(&cli)),
        Command::BareLoop { postgres, kafka } => Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(bareloop::run(&postgres, &kafka)),
    }
}

async fn measure(cli: &Cli) -> anyhow::Result<()> {
    let (mut results, conditions) = (Results::default(), conditions::collect(cli).await?);
    Measurement::warm_up(cli).run(cli).await?;
    for run in 1..=cli.runs {
        for measurement in Measurement::all(cli)
            .into_iter()
            .filter(|measurement| measurement.name().contains(&cli.only))
        {
            let result = measurement.run(cli).await?;
            println!(
                "run {run}  {:<44} {}",
                measurement.name(),
                results::summary(&result)
            );
            results.add(measurement.name(), result);
        }
        report(cli, run, &results, &conditions)?;
    }
    Ok(())
}

/// Prints and writes the results so far. Called after each run, so that an aborted bench has
/// results.
fn report(cli: &Cli, runs: usize, results: &Results, conditions: &Value) -> anyhow::Result<()> {
    println!("\nmedians of {runs}\n{results}");
    let targets = targets::evaluate(results, cli.rows, cli.bytes);
    targets.iter().for_each(|target| println!("{target}"));
    match &cli.output {
        Some(folder) => write(folder, results, &targets, conditions),
        None => Ok(()),
    }
}

/// Writes result.json and the charts.
fn write(
    folder: &Path,
    results: &Results,
    targets: &[Target],
    conditions: &Value,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let targets: Vec<Value> = targets.iter().map(Target::json).collect();
    let all =
        json!({ "conditions": conditions, "targets": targets, "measurements": results.json() });
    std::fs::write(
        folder.join("result.json"),
        serde_json::to_string_pretty(&all)? + "\n",
    )?;
    for (file, title, figure) in [
        (
            "drain.svg",
            "Rows a second out of a backlog",
            "rows_per_second",
        ),
        (
            "cpu.svg",
            "CPU of a row out of a backlog, in us: without PostgreSQL and Kafka",
            "cpu_us_per_row",
        ),
    ] {
        std::fs::write(
            folder.join(file),
            chart::bars(title, &results.of(" rows of ", figure)),
        )?;
    }
    let latency = chart::bars(
        "Commit to consumer, 99 of 100 rows, in ms",
        &results.of(" rows/s", "p99_ms"),
    );
    std::fs::write(folder.join("latency.svg"), latency)?;
    Ok(())
}
