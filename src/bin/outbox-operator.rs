//! `outbox-operator`: watches OutboxRelays (`run`), prints their CRD (`crd`), and asks one that is
//! installed whether it works (`check`). Parse, start logs, run, exit code.

use std::{io::Write, net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use outbox_relay::{
    api::custom_resource_definition,
    operator::{self, process::install_check},
    telemetry::{self, LogFormat},
};

/// Kubernetes operator for OutboxRelay: committed rows of a PostgreSQL outbox table to Kafka.
#[derive(Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Which log lines are written: a level, or module=level, separated by commas.
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "RUST_LOG",
        default_value = "info,kube_runtime=error",
        hide_env_values = true
    )]
    log: String,
    /// How log lines look; auto: text on a terminal, else JSON.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "LOG_FORMAT",
        value_enum,
        default_value = "auto",
        hide_env_values = true
    )]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Watches OutboxRelays and keeps their relays running.
    Run(Box<Run>),
    /// Prints the CustomResourceDefinition as YAML.
    Crd,
    /// Asks an installed operator whether it is well, and the API server whether it knows
    /// OutboxRelays: what `helm test` does.
    Check(Check),
}

#[derive(Args)]
struct Check {
    /// Host and port of the operator's /healthz.
    #[arg(long, value_name = "HOST:PORT")]
    operator: String,
    /// How long it is asked again until all is well.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u64,
}

#[derive(Args)]
struct Run {
    /// Image of relays and migrations.
    #[arg(long, env = "RELAY_IMAGE")]
    relay_image: String,
    /// Images that `template.image` of an OutboxRelay may name, separated by commas; a `*` at the
    /// end stands for the rest. Default: none but the relay image.
    #[arg(long, env = "ALLOWED_IMAGES", value_delimiter = ',')]
    allowed_images: Vec<String>,
    /// First part of the name under which schemas are owned; every cluster needs its own. Default:
    /// the uid of namespace kube-system.
    #[arg(long, env = "CLUSTER_NAME", default_value = "")]
    cluster_name: String,
    /// Which OutboxRelays are this operator's: those annotated outboxrelay.dev/operator-name with
    /// this name. Without the annotation: those of the default.
    #[arg(long, env = "OPERATOR_NAME", default_value = "outbox-operator")]
    operator_name: String,
    /// Namespaces whose OutboxRelays are looked at, separated by commas; needs --cluster-name.
    /// Default: all.
    #[arg(
        long,
        env = "WATCH_NAMESPACES",
        value_name = "NAMESPACES",
        value_delimiter = ','
    )]
    watch_namespaces: Vec<String>,
    /// A watch ends and is opened again after so many seconds; one that is silent for three times
    /// as long fails /healthz.
    #[arg(long, env = "WATCH_SECONDS", value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=240))]
    watch_seconds: u64,
    /// Address of /healthz, /readyz and /metrics; [::] stands for all addresses, those of IPv4 too.
    #[arg(long, env = "LISTEN", default_value = "[::]:8080")]
    listen: SocketAddr,
    /// Relays that get a new version at the same time.
    #[arg(long, env = "UPGRADE_MAX_CONCURRENT", default_value = "5", value_parser = clap::value_parser!(u16).range(1..))]
    upgrade_max_concurrent: u16,
    /// Name of this pod: who holds the Lease, and who writes Events. No two operators may have the
    /// same. Default: a random one.
    #[arg(long, env = "POD_NAME")]
    pod_name: Option<String>,
    /// Namespace of this pod: where the Lease is, and which NetworkPolicies of relays let in.
    /// Default: that of the pod or of KUBECONFIG.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: Option<String>,
    /// Namespace that metrics are collected from, which NetworkPolicies of relays let in.
    #[arg(long, env = "MONITORING_NAMESPACE")]
    monitoring_namespace: Option<String>,
    /// One PodMonitor scrapes all relays already: those that manifests wish for are not made.
    #[arg(long, env = "RELAYS_MONITORED")]
    relays_monitored: bool,
    /// Name of the Lease by which one of several operators leads.
    #[arg(
        long,
        env = "LEASE_NAME",
        value_name = "NAME",
        default_value = "outbox-operator"
    )]
    lease_name: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(arguments) => {
            start_logs(cli.log_format, &cli.log).and_then(|()| run(*arguments))
        }
        Command::Check(arguments) => check(arguments),
        Command::Crd => std::io::stdout()
            .write_all(custom_resource_definition().as_bytes())
            .context("failed to print"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outbox-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logs(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    Ok(telemetry::init(format, filter)?)
}

#[tokio::main]
async fn check(Check { operator, patience }: Check) -> anyhow::Result<()> {
    Ok(install_check::check(&operator, Duration::from_secs(patience)).await?)
}

#[tokio::main]
async fn run(arguments: Run) -> anyhow::Result<()> {
    let Run {
        relay_image,
        allowed_images,
        cluster_name,
        operator_name,
        watch_namespaces,
        watch_seconds,
        ..
    } = arguments;
    let Run {
        listen,
        upgrade_max_concurrent,
        pod_name,
        namespace,
        monitoring_namespace,
        relays_monitored,
        lease_name,
        ..
    } = arguments;
    let upgrades_max = usize::from(upgrade_max_concurrent);
    let installation = operator::Installation {
        relay_image,
        allowed_images,
        cluster_name,
        upgrades_max,
        namespace,
        monitoring_namespace,
        relays_monitored,
    };
    let settings = operator::Settings {
        installation,
        operator_name,
        pod_name,
    };
    let namespaces = watch_namespaces
        .into_iter()
        .filter(|namespace| !namespace.is_empty())
        .collect();
    let watch_round = Duration::from_secs(watch_seconds);
    Ok(operator::process::run(operator::process::Options {
        settings,
        listen,
        namespaces,
        lease_name,
        watch_round,
    })
    .await?)
}
