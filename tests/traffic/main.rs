//! Traffic for the demo and the end-to-end test. `run` simulates services that write business rows
//! and outbox rows in one transaction each: with `enqueue`, or into a table `event_outbox` that
//! their OutboxRelay adopts. It reads all their topics from the first record on and checks that
//! nothing is lost, nothing that was rolled back is published, and each key is in order. `topics`
//! creates topics.

#![expect(clippy::print_stdout, reason = "people read the output")]

mod check;
mod commands;
mod consumer;
mod ledger;
mod progress;
mod service;
mod topics;
mod writer;

use std::{collections::BTreeSet, path::Path, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use ledger::Ledger;
use outbox_relay::settings::RelaySettings;
use service::{Service, ServiceArgument};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Creates the topics of OutboxRelays, or removes them.
    Topics(topics::Topics),
    /// Writes rows, reads records and compares them. Exit code 1 if a promise was broken.
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// Bootstrap servers for the consumer, without TLS.
    #[arg(long)]
    kafka: String,
    /// A service: file of its OutboxRelay, its business table, URL of its database with its own
    /// role.
    #[arg(long = "service", value_name = "MANIFEST,TABLE,URL", required = true)]
    services: Vec<ServiceArgument>,
    /// Shortest time to write rows, in seconds. Writing also continues for some seconds after the
    /// last command.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Time to write before the clock starts, in seconds: brokers compile their code, and each
    /// partition gets its first record. Latencies are those of later rows.
    #[arg(long, default_value_t = 0)]
    warm_up: u64,
    /// Transactions per second of each service.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Limit for the last rows to arrive, in seconds.
    #[arg(long, default_value_t = 60)]
    patience: u64,
    /// A shell command that changes something without causing duplicates. Several commands run in
    /// their order.
    #[arg(long = "change")]
    changes: Vec<String>,
    /// A shell command that breaks something, after the changes. Rows in flight may be duplicated.
    #[arg(long)]
    fault: Option<String>,
    /// Time until the first command, in seconds.
    #[arg(long, default_value_t = 5)]
    after: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Topics(arguments) => topics::run(arguments).await.map(|()| true),
        Command::Run(arguments) => Box::pin(run(arguments)).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("traffic: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Run) -> anyhow::Result<bool> {
    let services: Vec<Arc<Service>> = arguments
        .services
        .iter()
        .map(|service| Service::open(service).map(Arc::new))
        .collect::<Result<_, _>>()?;
    // Services can share a topic.
    let topics: BTreeSet<String> = services
        .iter()
        .flat_map(|service| service.topics())
        .collect();
    let ledger = Arc::new(Ledger::default());
    let stop = CancellationToken::new();

    let consumer = consumer::start(&arguments.kafka, topics, Arc::clone(&ledger), stop.clone())
        .context("cannot read the topics")?;
    let progress = tokio::spawn(progress::print(Arc::clone(&ledger), stop.clone()));
    let end = CancellationToken::new();
    let write = |service: &Arc<Service>| {
        tokio::spawn(writer::write(
            Arc::clone(service),
            Arc::clone(&ledger),
            arguments.rate,
            end.clone(),
        ))
    };
    let writers: Vec<_> = services.iter().map(write).collect();
    let commands = commands::Commands {
        after: Duration::from_secs(arguments.after),
        changes: arguments.changes,
        fault: arguments.fault,
    };
    sleep(Duration::from_secs(arguments.warm_up)).await;
    let warm = std::time::Instant::now();
    let ((), commands) = tokio::join!(
        sleep(Duration::from_secs(arguments.seconds)),
        commands.run(&ledger)
    );
    end.cancel();
    for writer in writers {
        writer.await?.context("a service could not write")?;
    }
    commands?;
    await_arrivals(&ledger, Duration::from_secs(arguments.patience)).await;
    stop.cancel();
    progress.await?;
    consumer
        .join()
        .map_err(|_| anyhow::anyhow!("the consumer ended early"))?;
    let report = check::check(&ledger.rows(), ledger.last_fault());
    report.print(&ledger, warm);
    Ok(report.passed())
}

/// Waits until each committed row has arrived, and two seconds more for unexpected records.
async fn await_arrivals(ledger: &Ledger, patience: Duration) {
    let end = Instant::now() + patience;
    while ledger.counts().waiting() > 0 && Instant::now() < end {
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_secs(2)).await;
}

/// Reads a manifest as a relay does.
fn topic_settings(manifest: &Path) -> anyhow::Result<RelaySettings> {
    let (settings, _) = outbox_relay::manifest::load(manifest, None, "traffic")
        .with_context(|| format!("cannot use {}", manifest.display()))?;
    Ok(settings)
}
