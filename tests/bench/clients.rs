//! The comparison of Kafka clients: how long acknowledgements take with some producers and some
//! requests under way each, and with clients that put all ready partitions of a broker into one
//! request.

use std::{fmt, process::Command, str::FromStr, time::Duration};

use anyhow::Context;
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::{
    Cli, chart,
    network::Network,
    results::{self, Results},
    topic::Topics,
};

/// Seconds of load before the measurement.
const WARM_UP: u64 = 4;
/// Estimate of the time to start and end a client.
const START_ESTIMATE: Duration = Duration::from_secs(1);
/// Rows that are compared have this size.
const BYTES: usize = 300;

/// A client and how it is set up.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Setup {
    /// librdkafka: producers, and most requests under way of each.
    Librdkafka { producers: usize, in_flight: usize },
    /// One producer of krafka, which puts all ready partitions of a broker into one request.
    Krafka,
    /// One producer of aiokafka, which does so too, with one request under way to a broker.
    Aiokafka,
}

impl FromStr for Setup {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "krafka" => Ok(Self::Krafka),
            "aiokafka" => Ok(Self::Aiokafka),
            _ => {
                let (producers, in_flight) = text.split_once('x').context("as 8x5, or krafka")?;
                Ok(Self::Librdkafka {
                    producers: producers.parse()?,
                    in_flight: in_flight.parse()?,
                })
            }
        }
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Librdkafka {
                producers,
                in_flight,
            } => write!(f, "librdkafka, {producers} x {in_flight}"),
            Self::Krafka => write!(f, "krafka, 1 x 5, partitions together"),
            Self::Aiokafka => write!(f, "aiokafka, 1 x 1, partitions together"),
        }
    }
}

/// Conditions that each setup is measured under.
#[derive(Clone, Copy)]
struct Point {
    partitions: i32,
    round_trip_ms: f64,
    rate: u64,
}

impl Point {
    fn name(&self, setup: Setup) -> String {
        let Self {
            partitions,
            round_trip_ms,
            rate,
        } = self;
        format!("{setup}: {rate} rows/s, {partitions} partitions, {round_trip_ms} ms")
    }
}

/// All points, in their order.
fn points(cli: &Cli) -> Vec<Point> {
    let mut all = Vec::new();
    for partitions in &cli.partitions {
        for round_trip_ms in &cli.round_trips {
            all.extend(cli.rates.iter().map(|rate| Point {
                partitions: *partitions,
                round_trip_ms: *round_trip_ms,
                rate: *rate,
            }));
        }
    }
    all
}

/// How long all runs will take, roughly.
pub(crate) fn estimate(cli: &Cli) -> Duration {
    let one = Duration::from_secs(WARM_UP + cli.seconds) + START_ESTIMATE;
    one * (points(cli).len() * cli.setups.len() * cli.runs) as u32
}

/// Performs one run of the comparison.
pub(crate) async fn run(cli: &Cli, network: &Network, results: &mut Results) -> anyhow::Result<()> {
    for point in points(cli) {
        network.set_ms(point.round_trip_ms, cli.network.jitter);
        for setup in &cli.setups {
            let topics = Topics::create(&cli.kafka, point.partitions, cli.replicas).await?;
            let mut command = command(cli, *setup, &topics, point)?;
            let output = spawn_blocking(move || command.output()).await??;
            let text = String::from_utf8_lossy(&output.stdout);
            let result: Value = serde_json::from_str(text.trim()).with_context(|| {
                format!("{setup}: {text}{}", String::from_utf8_lossy(&output.stderr))
            })?;
            topics.delete().await?;
            let name = point.name(*setup);
            println!("{name:<72} {}", results::summary(&result));
            results.add(name, result);
        }
    }
    Ok(())
}

fn command(cli: &Cli, setup: Setup, topics: &Topics, point: Point) -> anyhow::Result<Command> {
    let mut command = match setup {
        Setup::Librdkafka { .. } => Command::new(std::env::current_exe()?),
        Setup::Krafka => Command::new(&cli.krafka),
        Setup::Aiokafka => Command::new(&cli.python),
    };
    match setup {
        Setup::Librdkafka {
            producers,
            in_flight,
        } => {
            command.arg("client");
            command.args(["--producers", &producers.to_string()]);
            command.args(["--in-flight", &in_flight.to_string()]);
        }
        Setup::Krafka => {}
        Setup::Aiokafka => {
            command.arg(cli.peers.join("client.py"));
        }
    }
    command.args(["--kafka", &cli.distant()?]);
    command.args(["--topics", &topics.names.join(",")]);
    for (name, value) in [
        ("--partitions", topics.partitions as u64),
        ("--rate", point.rate),
        ("--warm-up", WARM_UP),
        ("--seconds", cli.seconds),
        ("--bytes", BYTES as u64),
    ] {
        command.args([name, &value.to_string()]);
    }
    Ok(command)
}

/// The medians as a table in Markdown: p50 / p99 in milliseconds, and cores.
pub(crate) fn table(cli: &Cli, results: &Results) -> String {
    let points = points(cli);
    let mut text = "| |".to_owned();
    for point in &points {
        let rate = chart::thousands(point.rate as f64, 0);
        text += &format!(" {} ms, {rate} rows/s |", point.round_trip_ms);
    }
    text += &format!("\n|---|{}\n", "---|".repeat(points.len()));
    for setup in &cli.setups {
        text += &format!("| {setup} |");
        for point in &points {
            let figure = |figure| {
                let median = results.median(&point.name(*setup), figure);
                median.unwrap_or(f64::NAN)
            };
            text += &format!(
                " {:.1} / {:.1}; {:.2} |",
                figure("p50_ms"),
                figure("p99_ms"),
                figure("cores")
            );
        }
        text.push('\n');
    }
    text
}
