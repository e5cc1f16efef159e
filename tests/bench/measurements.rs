//! All measurements of the bench.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Cli, Site,
    consumer::{self, Latencies},
    contender::Contender,
    limits,
    process::Usage,
    start::start,
    table::{LATE_ROWS, Table},
};

/// One measurement.
#[derive(Clone, Copy)]
pub(crate) enum Measurement {
    ProducerAlone,
    PostgresAlone,
    Drain(Drain),
    Steady {
        contender: Contender,
        rate: u64,
        seconds: u64,
        pinned: bool,
    },
    /// Writers without a limit to their rate, beside a contender or alone.
    Writers(Option<Contender>),
    Late,
    Idle,
}

/// Publishing of a committed backlog.
#[derive(Clone, Copy)]
pub(crate) struct Drain {
    contender: Contender,
    rows: u64,
    bytes: usize,
    processes: usize,
    pinned: bool,
}

impl Measurement {
    /// All measurements in their order.
    pub(crate) fn all(cli: &Cli) -> Vec<Self> {
        let drain = |contender| Drain::of(contender, cli.rows, cli.bytes);
        let relay = drain(Contender::Relay);
        let mut all = vec![Self::ProducerAlone, Self::PostgresAlone];
        all.extend(
            cli.contenders
                .iter()
                .map(|contender| Self::Drain(drain(*contender))),
        );
        all.extend(
            cli.contenders
                .iter()
                .filter(|contender| **contender != Contender::BareLoop)
                .map(|contender| {
                    Self::Drain(Drain {
                        bytes: 1024,
                        ..drain(*contender)
                    })
                }),
        );
        all.extend(
            [
                relay.pinned(),
                Drain {
                    processes: 3,
                    ..relay
                },
            ]
            .map(Self::Drain),
        );
        all.extend((cli.mountain_rows > 0).then_some(Self::Drain(Drain {
            rows: cli.mountain_rows,
            ..relay
        })));
        let steady = |contender, rate, seconds, pinned| Self::Steady {
            contender,
            rate,
            seconds,
            pinned,
        };
        for rate in [1000, 5000] {
            let others = cli
                .contenders
                .iter()
                .filter(|contender| **contender != Contender::BareLoop);
            all.extend(others.map(|contender| steady(*contender, rate, cli.seconds, false)));
        }
        if cli.pinned_seconds > 0 {
            all.extend(
                [false, true]
                    .map(|pinned| steady(Contender::Relay, 2000, cli.pinned_seconds, pinned)),
            );
        }
        all.extend((cli.late_seconds > 0).then_some(Self::Late));
        all.push(Self::Writers(None));
        all.extend(
            cli.contenders
                .iter()
                .filter(|contender| **contender != Contender::BareLoop)
                .map(|contender| Self::Writers(Some(*contender))),
        );
        all.push(Self::Idle);
        all
    }

    /// A drain without a result, because a broker's JVM is slow at first.
    pub(crate) fn warm_up(cli: &Cli) -> Self {
        Self::Drain(Drain::of(Contender::Relay, cli.rows, cli.bytes))
    }

    /// Name in the results.
    pub(crate) fn name(&self) -> String {
        let pin = |pinned: &bool| if *pinned { ", pinned" } else { "" };
        match self {
            Self::ProducerAlone => "librdkafka alone".to_owned(),
            Self::PostgresAlone => "PostgreSQL alone".to_owned(),
            Self::Drain(Drain {
                contender,
                rows,
                bytes,
                processes,
                pinned,
            }) => {
                let several = if *processes > 1 {
                    format!(", {processes} processes")
                } else {
                    String::new()
                };
                format!(
                    "{}: {rows} rows of {bytes} B{several}{}",
                    contender.name(),
                    pin(pinned)
                )
            }
            Self::Steady {
                contender,
                rate,
                pinned,
                ..
            } => format!("{}: {rate} rows/s{}", contender.name(), pin(pinned)),
            Self::Writers(None) => "writers alone".to_owned(),
            Self::Writers(Some(contender)) => format!("writers beside {}", contender.name()),
            Self::Late => "relay: 5000 rows/s, late commit".to_owned(),
            Self::Idle => "relay: idle".to_owned(),
        }
    }

    /// Performs the measurement. Returns its figures by name.
    pub(crate) async fn run(&self, cli: &Cli) -> anyhow::Result<Value> {
        match *self {
            Self::ProducerAlone => limits::producer_alone(cli).await,
            Self::PostgresAlone => limits::postgres_alone(cli).await,
            Self::Drain(drain) => drain.run(cli, &cli.site()).await,
            Self::Steady {
                contender,
                rate,
                seconds,
                pinned,
            } => steady(cli, contender, rate, seconds, pinned).await,
            Self::Writers(contender) => writers(cli, contender).await,
            Self::Late => late(cli).await,
            Self::Idle => idle(cli).await,
        }
    }
}

impl Drain {
    /// A drain by one process. The backlog has `rows` rows, or fewer for a slow contender.
    pub(crate) fn of(contender: Contender, rows: u64, bytes: usize) -> Self {
        Self {
            contender,
            rows: rows / contender.share(),
            bytes,
            processes: 1,
            pinned: false,
        }
    }

    pub(crate) fn pinned(self) -> Self {
        Self {
            pinned: true,
            ..self
        }
    }

    /// Publishes a backlog at a site. Returns the figures by name.
    pub(crate) async fn run(&self, cli: &Cli, site: &Site) -> anyhow::Result<Value> {
        let table = Table::create(cli, self.contender, site).await?;
        table.insert_backlog(self.rows, self.bytes).await?;
        let pin = if self.pinned {
            Some(table.pin_horizon().await?)
        } else {
            None
        };
        let mut processes = Vec::new();
        for _ in 0..self.processes {
            processes.push(start(cli, self.contender, &table).await?);
        }
        let usage = || {
            processes
                .iter()
                .map(|process| Usage::of_tree(process.pid()))
                .sum::<anyhow::Result<Usage>>()
        };
        // The cost of the start is not counted if nothing was published before this moment.
        let (before, postgres, kafka, published) = (
            usage()?,
            Usage::of_tree(cli.postgres_pid)?,
            Usage::of_tree(cli.kafka_pid)?,
            table.topics.records()?,
        );
        table.wait_until_published(self.rows).await?;
        let (after, postgres_after, kafka_after) = (
            usage()?,
            Usage::of_tree(cli.postgres_pid)?,
            Usage::of_tree(cli.kafka_pid)?,
        );
        let seconds = table.topics.span()?;
        let per_row = |from: Usage, to: Usage| {
            (to.cpu_seconds - from.cpu_seconds) * 1e6
                / (self.rows - published.min(self.rows - 1)) as f64
        };
        drop(pin);
        for process in processes {
            process.stop().await?;
        }
        table.remove().await?;
        Ok(json!({
            "rows_per_second": self.rows as f64 / seconds,
            "cpu_us_per_row": per_row(before, after),
            "postgres_cpu_us_per_row": per_row(postgres, postgres_after),
            "kafka_cpu_us_per_row": per_row(kafka, kafka_after),
            "rss_mib": after.rss_mib,
        }))
    }
}

/// Measures transactions of one row each at a steady rate, with the latency from the commit, as its
/// writer sees it, to a consumer.
async fn steady(
    cli: &Cli,
    contender: Contender,
    rate: u64,
    seconds: u64,
    pinned: bool,
) -> anyhow::Result<Value> {
    let table = Table::create(cli, contender, &cli.site()).await?;
    let process = start(cli, contender, &table).await?;
    let pin = if pinned {
        Some(table.pin_horizon().await?)
    } else {
        None
    };
    let consumer = consumer::start(&table.topics)?;
    let warm_up = table
        .write(
            Some(rate),
            Duration::from_secs(contender.warm_up_seconds()),
            cli.bytes,
        )
        .await?;
    let (before, postgres) = (
        Usage::of_tree(process.pid())?,
        Usage::of_tree(cli.postgres_pid)?,
    );
    let began = Instant::now();
    let committed = table
        .write(Some(rate), Duration::from_secs(seconds), cli.bytes)
        .await?;
    let seconds_written = began.elapsed().as_secs_f64();
    let (after, postgres_after) = (
        Usage::of_tree(process.pid())?,
        Usage::of_tree(cli.postgres_pid)?,
    );
    let mut arrivals = consumer
        .finish((warm_up.len() + committed.len()) as u64)
        .await?;
    drop(pin);
    process.stop().await?;
    table.remove().await?;
    arrivals.retain(|arrival| {
        arrival
            .number
            .is_some_and(|number| committed.contains_key(&number))
    });
    let latencies = Latencies::new(&arrivals, |arrival| {
        Some(committed.get(&arrival.number?)?.committed_us)
    });
    Ok(json!({
        "rows_per_second": committed.len() as f64 / seconds_written,
        "p50_ms": latencies.quantile(0.5),
        "p99_ms": latencies.quantile(0.99),
        "max_ms": latencies.quantile(1.0),
        "cores": (after.cpu_seconds - before.cpu_seconds) / seconds_written,
        "postgres_cores": (postgres_after.cpu_seconds - postgres.cpu_seconds) / seconds_written,
        "rss_mib": after.rss_mib,
    }))
}

/// Measures the rate of writers, beside a contender or alone.
async fn writers(cli: &Cli, contender: Option<Contender>) -> anyhow::Result<Value> {
    let table = Table::create(cli, contender.unwrap_or(Contender::Relay), &cli.site()).await?;
    let process = match contender {
        Some(contender) => Some(start(cli, contender, &table).await?),
        None => None,
    };
    table.write(None, Duration::from_secs(3), cli.bytes).await?;
    let began = Instant::now();
    let committed = table
        .write(None, Duration::from_secs(cli.seconds), cli.bytes)
        .await?;
    let rows_per_second = committed.len() as f64 / began.elapsed().as_secs_f64();
    if let Some(process) = process {
        process.stop().await?;
    }
    table.remove().await?;
    Ok(json!({ "rows_per_second": rows_per_second }))
}

/// Measures a transaction that commits late while others commit at a steady rate: how long its rows
/// take to arrive after the commit, and the latency of the other rows.
async fn late(cli: &Cli) -> anyhow::Result<Value> {
    let table = Table::create(cli, Contender::Relay, &cli.site()).await?;
    let process = start(cli, Contender::Relay, &table).await?;
    let consumer = consumer::start(&table.topics)?;
    let open = Duration::from_secs(cli.late_seconds);
    let (committed, open_for) = tokio::join!(
        table.write(Some(5000), open + Duration::from_secs(3), cli.bytes),
        table.commit_late(open, cli.bytes)
    );
    let (committed, open_for) = (committed?, open_for?);
    let arrivals = consumer.finish(committed.len() as u64 + LATE_ROWS).await?;
    process.stop().await?;
    table.remove().await?;
    let (others, late): (Vec<_>, Vec<_>) = arrivals
        .into_iter()
        .partition(|arrival| arrival.number.is_some());
    let latencies = Latencies::new(&others, |arrival| {
        Some(committed.get(&arrival.number?)?.committed_us)
    });
    let late = Latencies::new(&late, |arrival| arrival.created_us);
    Ok(json!({
        "late_ms_after_commit": late.quantile(1.0) - open_for.as_secs_f64() * 1e3,
        "p50_ms": latencies.quantile(0.5),
        "p99_ms": latencies.quantile(0.99),
    }))
}

/// Measures a relay without rows.
async fn idle(cli: &Cli) -> anyhow::Result<Value> {
    let table = Table::create(cli, Contender::Relay, &cli.site()).await?;
    let process = start(cli, Contender::Relay, &table).await?;
    sleep(Duration::from_secs(3)).await;
    let (before, transactions) = (Usage::of_tree(process.pid())?, table.transactions().await?);
    let began = Instant::now();
    sleep(Duration::from_secs(cli.seconds)).await;
    // PostgreSQL reports transactions with a delay of up to about a second, so this is an average.
    let (after, seconds) = (
        Usage::of_tree(process.pid())?,
        began.elapsed().as_secs_f64(),
    );
    let transactions = table.transactions().await? - transactions;
    process.stop().await?;
    table.remove().await?;
    Ok(json!({
        "cores": (after.cpu_seconds - before.cpu_seconds) / seconds,
        "transactions_per_second": transactions as f64 / seconds,
        "rss_mib": after.rss_mib,
    }))
}
