//! Measures the speed and the cost of the relay on real servers, beside other tools and beside the
//! limits of the machine. All measurements are interleaved in one run, because their ratios
//! count. Prints a table and the targets, and writes JSON and charts.

#![expect(clippy::print_stdout, reason = "people read the output")]

mod bareloop;
mod chart;
mod client;
mod clients;
mod conditions;
mod consumer;
mod contender;
mod grid;
mod limits;
mod measurements;
mod network;
mod process;
mod results;
mod start;
mod table;
mod targets;
mod topic;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Parser};
use client::Client;
use clients::Setup;
use contender::Contender;
use measurements::Measurement;
use network::Network;
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
    /// Sends records as a relay does, and prints how long their acknowledgements take.
    Client(Box<Client>),
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
    #[command(flatten)]
    network: NetworkOptions,
    /// Instead of all else: steady rates over the network, by round trip, partitions, rate and
    /// size.
    #[arg(long)]
    grid: bool,
    /// Instead of all else: a comparison of Kafka clients over the network.
    #[arg(long, conflicts_with = "grid")]
    clients: bool,
    /// Milliseconds there and back, for --grid and --clients.
    #[arg(long, value_delimiter = ',', default_value = "0,6,20")]
    round_trips: Vec<f64>,
    /// Partitions of all topics, for --grid and --clients: 12 of each topic, 24 of 1,200.
    #[arg(long, value_delimiter = ',', default_value = "120")]
    partitions: Vec<i32>,
    /// Rows per second, for --grid and --clients.
    #[arg(long, value_delimiter = ',', default_value = "20,500,1000,5000")]
    rates: Vec<u64>,
    /// Bytes of a payload, for --grid.
    #[arg(long, value_delimiter = ',', default_value = "300")]
    sizes: Vec<usize>,
    /// Rows of the backlogs of --grid. 0 skips them.
    #[arg(long, default_value_t = 300_000)]
    drain_rows: u64,
    /// Clients of --clients: producers x requests under way, krafka, aiokafka.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1x1,1x5,4x5,8x5,8x1,16x1,krafka,aiokafka"
    )]
    setups: Vec<Setup>,
    /// The program of tests/bench/peers/krafka.
    #[arg(long, default_value = "target/bench/krafka/release/krafka-client")]
    krafka: PathBuf,
}

/// The network between the contenders and the brokers.
#[derive(Args)]
struct NetworkOptions {
    /// Addresses at which the contenders find the brokers over the network: the brokers advertise
    /// them, and the bench listens there.
    #[arg(long)]
    distant_kafka: Option<String>,
    /// Addresses at which the brokers listen for it, in the same order.
    #[arg(long, requires = "distant_kafka")]
    kafka_behind: Option<String>,
    /// Puts a network with this round trip, in milliseconds, between contenders and brokers in all
    /// measurements. Without it there is none.
    #[arg(long, requires = "distant_kafka")]
    round_trip: Option<f64>,
    /// Most milliseconds that are added to a delay, in each direction and at random.
    #[arg(long, default_value_t = 0.0)]
    jitter: f64,
    /// Topics of 12 partitions that the rows are spread over.
    #[arg(long, default_value_t = 1)]
    topics: i32,
}

/// Where a contender finds Kafka, and how many partitions its rows are spread over.
struct Site {
    kafka: String,
    partitions: i32,
}

impl Cli {
    /// Address of the brokers over the network.
    fn distant(&self) -> anyhow::Result<String> {
        let distant = self.network.distant_kafka.clone();
        distant.context("--distant-kafka and --kafka-behind are needed")
    }

    /// The place of all contenders, unless --grid chooses others.
    fn site(&self) -> Site {
        let distant = self
            .network
            .round_trip
            .and(self.network.distant_kafka.clone());
        Site {
            kafka: distant.unwrap_or_else(|| self.kafka.clone()),
            partitions: self.network.topics * topic::PARTITIONS,
        }
    }

    /// Starts the network, if there is one.
    fn network(&self) -> anyhow::Result<Option<Network>> {
        let (Some(distant), Some(behind)) =
            (&self.network.distant_kafka, &self.network.kafka_behind)
        else {
            return Ok(None);
        };
        let network = Network::start(distant, behind)?;
        network.set_ms(self.network.round_trip.unwrap_or(0.0), self.network.jitter);
        Ok(Some(network))
    }
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Measure(cli) => Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(start(&cli)),
        Command::BareLoop { postgres, kafka } => Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(bareloop::run(&postgres, &kafka)),
        Command::Client(client) => client::run(&client),
    }
}

async fn start(cli: &Cli) -> anyhow::Result<()> {
    let network = cli.network()?;
    if !cli.grid && !cli.clients {
        return measure(cli).await;
    }
    let network = network.context("--distant-kafka and --kafka-behind are needed")?;
    if cli.grid {
        compare_places(cli, &network).await
    } else {
        compare_clients(cli, &network).await
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

/// Performs --grid.
async fn compare_places(cli: &Cli, network: &Network) -> anyhow::Result<()> {
    let (mut results, conditions) = (Results::default(), conditions::collect(cli).await?);
    announce(grid::estimate(cli));
    grid::warm_up_servers(cli).await?;
    for run in 1..=cli.runs {
        grid::run(cli, network, &mut results).await?;
        println!("\nmedians of {run}\n{}", grid::table(cli, &results));
        let targets = targets::of_grid(cli, &results);
        targets.iter().for_each(|target| println!("{target}"));
        if let Some(folder) = &cli.output {
            write_json(folder, "network.json", &results, &targets, &conditions)?;
            write_grid_charts(folder, cli, &results)?;
        }
    }
    Ok(())
}

/// Performs --clients.
async fn compare_clients(cli: &Cli, network: &Network) -> anyhow::Result<()> {
    let (mut results, conditions) = (Results::default(), conditions::collect(cli).await?);
    announce(clients::estimate(cli));
    for run in 1..=cli.runs {
        clients::run(cli, network, &mut results).await?;
        println!("\nmedians of {run}\n{}", clients::table(cli, &results));
        if let Some(folder) = &cli.output {
            write_json(folder, "clients.json", &results, &[], &conditions)?;
        }
    }
    Ok(())
}

fn announce(estimate: Duration) {
    println!(
        "this takes about {} minutes",
        estimate.as_secs().div_ceil(60)
    );
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
    write_json(folder, "result.json", results, targets, conditions)?;
    let below = place_text(conditions);
    for (file, title, unit, values) in [
        (
            "drain.svg",
            "Draining a backlog: rows per second",
            "",
            results.of(" rows of ", "rows_per_second"),
        ),
        (
            "cpu.svg",
            "Draining a backlog: CPU time of a row, without PostgreSQL's and Kafka's",
            " us",
            results.of(" rows of ", "cpu_us_per_row"),
        ),
        (
            "latency.svg",
            "From the commit to a consumer: 99 of 100 rows take at most",
            " ms",
            results.of(" rows/s", "p99_ms"),
        ),
    ] {
        std::fs::write(folder.join(file), chart::bars(title, &below, unit, &values))?;
    }
    Ok(())
}

/// Writes conditions, targets and results.
fn write_json(
    folder: &Path,
    file: &str,
    results: &Results,
    targets: &[Target],
    conditions: &Value,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let targets: Vec<Value> = targets.iter().map(Target::json).collect();
    let all =
        json!({ "conditions": conditions, "targets": targets, "measurements": results.json() });
    std::fs::write(
        folder.join(file),
        serde_json::to_string_pretty(&all)? + "\n",
    )?;
    Ok(())
}

/// The conditions that all bars of a chart share.
fn place_text(conditions: &Value) -> String {
    let round_trip = conditions["round_trip_ms"].as_f64();
    let network = round_trip.map_or("no network".to_owned(), |ms| {
        format!("{ms} ms to Kafka and back")
    });
    format!(
        "{} partitions, {network}; {} cores, PostgreSQL {}, medians of {}",
        conditions["partitions"],
        conditions["processors"],
        text(&conditions["postgres"]["version"]),
        conditions["runs"]
    )
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Writes charts of latency by round trip, and by partitions.
fn write_grid_charts(folder: &Path, cli: &Cli, results: &Results) -> anyhow::Result<()> {
    for (file, chart) in grid::charts(cli, results) {
        std::fs::write(folder.join(file), chart)?;
    }
    Ok(())
}
