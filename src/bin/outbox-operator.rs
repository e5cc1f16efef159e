//! Command line of the operator: parse, set up logs, run.

use std::{net::SocketAddr, process::ExitCode};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use outbox_relay::{api::custom_resource_definition, operator};

/// Kubernetes operator for OutboxRelay: committed rows of a PostgreSQL outbox table to Kafka.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch OutboxRelays and keep their relays running.
    Run(Run),
    /// Print the CustomResourceDefinition as YAML.
    Crd,
}

#[derive(Args)]
struct Run {
    /// Image of relays and migrations.
    #[arg(long, env = "RELAY_IMAGE")]
    relay_image: String,
    /// First part of the name under which schemas are owned; every cluster needs its own. Default: the uid of namespace kube-system.
    #[arg(long, env = "CLUSTER_NAME", default_value = "")]
    cluster_name: String,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Name of this pod, for Events.
    #[arg(long, env = "POD_NAME")]
    pod_name: Option<String>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(arguments) => run(arguments),
        Command::Crd => print_crd(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "stopped");
            eprintln!("outbox-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(Run { relay_image, cluster_name, listen, pod_name }: Run) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    operator::run(operator::Settings { relay_image, cluster_name, listen, pod_name }).await?;
    Ok(())
}

fn print_crd() -> anyhow::Result<()> {
    use std::io::Write;
    std::io::stdout().write_all(custom_resource_definition().as_bytes()).context("failed to print")
}
