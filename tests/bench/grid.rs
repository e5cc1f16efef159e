//! Steady rates and drains over the network: each contender at each round trip, number of
//! partitions, rate and size. A contender is started once for a number of partitions, so that
//! it is warm.

use std::{fmt, time::Duration};

use serde_json::{Value, json};
use tokio::{task::spawn_blocking, time::Instant};

use super::{
    Cli, Site,
    chart::{self, Line},
    consumer::{AppendTimes, Latencies},
    contender::Contender,
    measurements::Drain,
    network::Network,
    process::{Started, Usage},
    results::Results,
    start::start,
    table::Table,
};

/// Load at each point before it is measured.
const SETTLING: Duration = Duration::from_secs(2);
/// Rate of the load that warms a contender up, in rows per second.
const WARM_UP_RATE: u64 = 1000;
/// Rows of the backlog that warms the servers up.
const WARM_UP_ROWS: u64 = 200_000;
/// Fewest rows of a point: a low rate is measured for longer.
const ROWS_MIN: u64 = 400;
/// Estimate of the time to start and stop a contender, with its database and topics.
const START_ESTIMATE: Duration = Duration::from_secs(8);
/// Estimate of the time to read the records of a point.
const READ_ESTIMATE: Duration = Duration::from_secs(1);
/// Estimates of the rows per second that a backlog is written with, and a contender drains.
const FILL_ESTIMATE: u64 = 40_000;
const DRAIN_ESTIMATE: u64 = 12_000;

/// Conditions of one measurement.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Point {
    pub(crate) partitions: i32,
    pub(crate) round_trip_ms: f64,
    /// Rows per second.
    pub(crate) rate: u64,
    pub(crate) bytes: usize,
}

impl Point {
    /// Name of the results of a contender.
    pub(crate) fn name(&self, contender: Contender) -> String {
        format!("{}: {self}", contender.name())
    }

    fn duration(&self, cli: &Cli) -> Duration {
        Duration::from_secs(cli.seconds.max(ROWS_MIN / self.rate))
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            partitions,
            round_trip_ms,
            rate,
            bytes,
        } = self;
        write!(
            f,
            "{rate} rows/s of {bytes} B, {partitions} partitions, {round_trip_ms} ms"
        )
    }
}

/// Name of the results of a drain.
pub(crate) fn drain_name(contender: Contender, partitions: i32, round_trip_ms: f64) -> String {
    format!(
        "{}: drain, {partitions} partitions, {round_trip_ms} ms",
        contender.name()
    )
}

/// The points with a number of partitions, in their order.
fn points(cli: &Cli, partitions: i32) -> Vec<Point> {
    let mut all = Vec::new();
    for round_trip_ms in &cli.round_trips {
        for bytes in &cli.sizes {
            all.extend(cli.rates.iter().map(|rate| Point {
                partitions,
                round_trip_ms: *round_trip_ms,
                rate: *rate,
                bytes: *bytes,
            }));
        }
    }
    all
}

/// All points of the grid.
pub(crate) fn all_points(cli: &Cli) -> Vec<Point> {
    cli.partitions
        .iter()
        .flat_map(|partitions| points(cli, *partitions))
        .collect()
}

/// The contenders that are measured at steady rates. The bare loop only drains.
pub(crate) fn steady_contenders(cli: &Cli) -> impl Iterator<Item = Contender> {
    let all = cli.contenders.iter().copied();
    all.filter(|contender| *contender != Contender::BareLoop)
}

/// The contenders that drain a backlog. The polling worker takes too long.
fn draining_contenders(cli: &Cli) -> impl Iterator<Item = Contender> {
    let all = cli.contenders.iter().copied();
    all.filter(|contender| *contender != Contender::Poller)
}

/// How long all runs will take, roughly.
pub(crate) fn estimate(cli: &Cli) -> Duration {
    let one: Duration = cli
        .partitions
        .iter()
        .map(|partitions| {
            let points: Duration = points(cli, *partitions)
                .iter()
                .map(|point| SETTLING + point.duration(cli) + READ_ESTIMATE)
                .sum();
            let steady: Duration = steady_contenders(cli)
                .map(|contender| START_ESTIMATE + warm_up(contender) + points)
                .sum();
            let drain = START_ESTIMATE
                + Duration::from_secs(
                    cli.drain_rows / FILL_ESTIMATE + cli.drain_rows / DRAIN_ESTIMATE,
                );
            let drains = draining_contenders(cli).count() * cli.round_trips.len();
            steady + drain * if cli.drain_rows > 0 { drains as u32 } else { 0 }
        })
        .sum();
    one * cli.runs as u32
}

fn warm_up(contender: Contender) -> Duration {
    Duration::from_secs(contender.warm_up_seconds())
}

/// A drain without a result, because a broker's JVM is slow at first.
pub(crate) async fn warm_up_servers(cli: &Cli) -> anyhow::Result<()> {
    let drain = Drain::of(Contender::Relay, WARM_UP_ROWS, cli.bytes);
    drain.run(cli, &cli.site()).await?;
    Ok(())
}

/// Performs one run of the grid.
pub(crate) async fn run(cli: &Cli, network: &Network, results: &mut Results) -> anyhow::Result<()> {
    for partitions in &cli.partitions {
        let site = Site {
            kafka: cli.distant()?,
            partitions: *partitions,
        };
        for contender in steady_contenders(cli) {
            let points = points(cli, *partitions);
            let warm = Warm::start(cli, network, contender, &site).await?;
            for point in points {
                network.set_ms(point.round_trip_ms, cli.network.jitter);
                add(
                    results,
                    point.name(contender),
                    warm.measure(cli, &point).await?,
                );
            }
            warm.stop().await?;
        }
        drains(cli, network, &site, *partitions, results).await?;
    }
    Ok(())
}

/// Drains a backlog of each contender at each round trip.
async fn drains(
    cli: &Cli,
    network: &Network,
    site: &Site,
    partitions: i32,
    results: &mut Results,
) -> anyhow::Result<()> {
    if cli.drain_rows == 0 {
        return Ok(());
    }
    for round_trip_ms in &cli.round_trips {
        network.set_ms(*round_trip_ms, cli.network.jitter);
        for contender in draining_contenders(cli) {
            let drain = Drain::of(contender, cli.drain_rows, cli.bytes);
            let result = drain.run(cli, site).await?;
            add(
                results,
                drain_name(contender, partitions, *round_trip_ms),
                result,
            );
        }
    }
    Ok(())
}

fn add(results: &mut Results, name: String, result: Value) {
    println!("{name:<68} {}", super::results::summary(&result));
    results.add(name, result);
}

/// A contender that has worked for a while.
struct Warm {
    process: Started,
    table: Table,
}

impl Warm {
    async fn start(
        cli: &Cli,
        network: &Network,
        contender: Contender,
        site: &Site,
    ) -> anyhow::Result<Self> {
        network.set_ms(0.0, 0.0);
        let table = Table::create(cli, contender, site).await?;
        let process = start(cli, contender, &table).await?;
        table
            .write(Some(WARM_UP_RATE), warm_up(contender), cli.bytes)
            .await?;
        Ok(Self { process, table })
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.process.stop().await?;
        self.table.remove().await
    }

    /// Measures a point: latency from the start of the INSERT to the append at the broker.
    async fn measure(&self, cli: &Cli, point: &Point) -> anyhow::Result<Value> {
        let appended = AppendTimes::from_now(&self.table.topics)?;
        let write = |duration| self.table.write(Some(point.rate), duration, point.bytes);
        let settling = write(SETTLING).await?;
        let usage = || {
            anyhow::Ok((
                Usage::of_tree(self.process.pid())?,
                Usage::of_tree(cli.postgres_pid)?,
                Usage::of_tree(cli.kafka_pid)?,
            ))
        };
        let (before, began) = (usage()?, Instant::now());
        let written = write(point.duration(cli)).await?;
        let (after, seconds) = (usage()?, began.elapsed().as_secs_f64());
        let rows = written.keys().chain(settling.keys()).copied().collect();
        let times = spawn_blocking(move || appended.read(&rows)).await??;
        let latency = |(number, row): (&u64, &super::table::Written)| {
            (times[number] - row.begun_us) as f64 / 1e3
        };
        let latencies = Latencies::of(written.iter().map(latency).collect());
        let cores =
            |before: Usage, after: Usage| (after.cpu_seconds - before.cpu_seconds) / seconds;
        Ok(json!({
            "rows_per_second": written.len() as f64 / seconds,
            "p50_ms": latencies.quantile(0.5),
            "p99_ms": latencies.quantile(0.99),
            "max_ms": latencies.quantile(1.0),
            "cores": cores(before.0, after.0),
            "postgres_cores": cores(before.1, after.1),
            "kafka_cores": cores(before.2, after.2),
            "rss_mib": after.0.rss_mib,
        }))
    }
}

/// The medians as a table in Markdown.
pub(crate) fn table(cli: &Cli, results: &Results) -> String {
    let mut text = "| partitions | round trip, ms | rows/s | bytes | | p50, ms | p99, ms | cores \
                    | PostgreSQL's cores | RSS, MiB |\n|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for point in all_points(cli) {
        for contender in steady_contenders(cli) {
            let figure = |figure| results.median(&point.name(contender), figure);
            let Some(p50) = figure("p50_ms") else {
                continue;
            };
            let or_nan = |value: Option<f64>| value.unwrap_or(f64::NAN);
            text += &format!(
                "| {} | {} | {} | {} | {} | {p50:.1} | {:.1} | {:.3} | {:.3} | {:.0} |\n",
                chart::thousands(f64::from(point.partitions), 0),
                point.round_trip_ms,
                chart::thousands(point.rate as f64, 0),
                chart::thousands(point.bytes as f64, 0),
                contender.name(),
                or_nan(figure("p99_ms")),
                or_nan(figure("cores")),
                or_nan(figure("postgres_cores")),
                or_nan(figure("rss_mib")),
            );
        }
    }
    text
}

/// Charts of p50 and p99 by file: by round trip for each number of partitions and rate, and by
/// partitions for each round trip and rate, where there are several.
pub(crate) fn charts(cli: &Cli, results: &Results) -> Vec<(String, String)> {
    let Some(bytes) = cli.sizes.first().copied() else {
        return Vec::new();
    };
    let point = |partitions, round_trip_ms, rate| Point {
        partitions,
        round_trip_ms,
        rate,
        bytes,
    };
    let mut all = Vec::new();
    for rate in &cli.rates {
        if cli.round_trips.len() > 1 {
            for partitions in &cli.partitions {
                let over = cli.round_trips.iter();
                let points: Vec<_> = over.map(|ms| point(*partitions, *ms, *rate)).collect();
                let places: Vec<_> = cli.round_trips.iter().map(f64::to_string).collect();
                let file = format!("network-{partitions}-partitions-{rate}-rows.svg");
                let under = format!("{} partitions", chart::thousands((*partitions).into(), 0));
                all.push((
                    file,
                    chart_of(
                        cli,
                        results,
                        &under,
                        "round trip to Kafka, ms",
                        &places,
                        &points,
                    ),
                ));
            }
        }
        if cli.partitions.len() > 1 {
            for ms in &cli.round_trips {
                let over = cli.partitions.iter();
                let points: Vec<_> = over
                    .map(|partitions| point(*partitions, *ms, *rate))
                    .collect();
                let places: Vec<_> = cli
                    .partitions
                    .iter()
                    .map(|n| chart::thousands((*n).into(), 0))
                    .collect();
                let file = format!("partitions-{ms}-ms-{rate}-rows.svg");
                let under = format!("{ms} ms to Kafka and back");
                all.push((
                    file,
                    chart_of(cli, results, &under, "partitions", &places, &points),
                ));
            }
        }
    }
    all
}

fn chart_of(
    cli: &Cli,
    results: &Results,
    under: &str,
    x_title: &str,
    places: &[String],
    points: &[Point],
) -> String {
    let mut lines = Vec::new();
    for contender in steady_contenders(cli) {
        for (figure, name, dashed) in [("p50_ms", "half", false), ("p99_ms", "99 of 100", true)] {
            lines.push(Line {
                name: format!("{}: {name}", contender.name()),
                colour: colour(contender),
                dashed,
                figures: points
                    .iter()
                    .map(|point| results.median(&point.name(contender), figure))
                    .collect(),
            });
        }
    }
    let (rate, bytes) = points
        .first()
        .map_or((0, 0), |point| (point.rate, point.bytes));
    let below = format!(
        "{} rows/s of {bytes} B, {under}, brokers: {}, runs: {}; logarithmic",
        chart::thousands(rate as f64, 0),
        cli.kafka.split(',').count(),
        cli.runs
    );
    let titles = (x_title, "ms, from INSERT to append");
    chart::lines(
        "Latency: rows that take at most",
        &below,
        titles,
        places,
        &lines,
    )
}

fn colour(contender: Contender) -> &'static str {
    match contender {
        Contender::Relay | Contender::BareLoop => "#2a6f97",
        Contender::Debezium => "#c8553d",
        Contender::Poller => "#8d99a6",
    }
}
