//! Traffic for the demo and the end-to-end test. `run` plays services that write business rows and
//! outbox rows in one transaction each, reads all their topics from the first record on, and
//! judges: nothing lost, nothing that was rolled back, each key in order. `topics` makes topics.

#![expect(clippy::print_stdout, reason = "what it prints is for people")]

mod consumer;
mod fault;
mod ledger;
mod live;
mod service;
mod topics;
mod verdict;
mod writer;

use std::{path::Path, process::ExitCode, sync::Arc, time::Duration};

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
    /// Makes the topics that OutboxRelays name, or removes them.
    Topics(topics::Topics),
    /// Writes rows, reads records, judges. Exit code 1 when a promise was broken.
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// Bootstrap servers, as a consumer reaches them without TLS.
    #[arg(long)]
    kafka: String,
    /// A service: file of its OutboxRelay, its business table, URL of its database as its own role.
    #[arg(long = "service", value_name = "MANIFEST,TABLE,URL", required = true)]
    services: Vec<ServiceArgument>,
    /// How long rows are written, at least: they are until the commands have ended, and some
    /// seconds more.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Transactions a second, of each service.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// How long the last rows may take to arrive.
    #[arg(long, default_value_t = 60)]
    patience: u64,
    /// A command of the shell that changes something on the way, of which no row comes twice;
    /// several are run one after the other.
    #[arg(long = "change")]
    changes: Vec<String>,
    /// A command of the shell that breaks something, after them: rows that were under way may come
    /// twice.
    #[arg(long)]
    fault: Option<String>,
    /// When the first command is run, in seconds.
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
        .map(|it| Service::open(it).map(Arc::new))
        .collect::<Result<_, _>>()?;
    let topics: Vec<String> = services.iter().flat_map(|it| it.topics()).collect();
    let ledger = Arc::new(Ledger::default());
    let stop = CancellationToken::new();

    let consumer = consumer::start(&arguments.kafka, &topics, Arc::clone(&ledger), stop.clone())
        .context("cannot read the topics")?;
    let live = tokio::spawn(live::show(Arc::clone(&ledger), stop.clone()));
    let end = CancellationToken::new();
    let write = |it: &Arc<Service>| {
        tokio::spawn(writer::write(
            Arc::clone(it),
            Arc::clone(&ledger),
            arguments.rate,
            end.clone(),
        ))
    };
    let writers: Vec<_> = services.iter().map(write).collect();
    let commands = fault::Commands {
        after: Duration::from_secs(arguments.after),
        changes: arguments.changes,
        fault: arguments.fault,
    };
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
    live.await?;
    consumer
        .join()
        .map_err(|_| anyhow::anyhow!("the consumer ended early"))?;
    let verdict = verdict::judge(&ledger.rows(), ledger.last_fault());
    verdict.print(&ledger);
    Ok(verdict.kept())
}

/// Until each committed row has arrived, and two seconds more for records that should not come.
async fn await_arrivals(ledger: &Ledger, patience: Duration) {
    let end = Instant::now() + patience;
    while ledger.counts().waiting() > 0 && Instant::now() < end {
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_secs(2)).await;
}

/// The manifests of `topics` and `run` are read the way a relay reads them.
fn topic_settings(manifest: &Path) -> anyhow::Result<RelaySettings> {
    let (settings, _) = outbox_relay::manifest::load(manifest, None, "traffic")
        .with_context(|| format!("cannot use {}", manifest.display()))?;
    Ok(settings)
}
