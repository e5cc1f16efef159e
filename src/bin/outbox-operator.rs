//! `outbox-operator`: watches OutboxRelays (`run`), prints their CRD (`crd`), and checks whether an
//! installed operator works (`check`). Parses arguments, starts logs, runs, and maps the result to
//! an exit code.

use std::{io::Write, net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use outbox_relay::{
    api::custom_resource_definition,
    operator::{self, process::install_check},
    stop_signal::StopSignal,
    telemetry::{self, LogFormat},
};

/// Kubernetes operator for OutboxRelay, which sends committed rows of a PostgreSQL outbox table to
/// Kafka.
#[derive(Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log filter: levels or module=level pairs, separated by commas.
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "RUST_LOG",
        default_value = "info,kube_runtime=error",
        hide_env_values = true
    )]
    log: String,
    /// Format of log lines.
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
    Run(Box<RunArgs>),
    /// Prints the CustomResourceDefinition as YAML.
    Crd,
    /// Checks that an installed operator is healthy and that the API server serves OutboxRelays.
    /// `helm test` runs it.
    Check(CheckArgs),
}

#[derive(Args)]
struct CheckArgs {
    /// Host and port of the operator's /healthz.
    #[arg(long, value_name = "HOST:PORT")]
    operator: String,
    /// Time to retry until all checks pass.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u64,
}

#[derive(Args)]
struct RunArgs {
    /// Image of relays and migrations.
    #[arg(long, env = "RELAY_IMAGE")]
    relay_image: String,
    /// Images that `template.image` of an OutboxRelay may use, separated by commas. A `*` at the
    /// end matches any suffix. Default: the relay image only.
    #[arg(long, env = "ALLOWED_IMAGES", value_delimiter = ',')]
    allowed_images: Vec<String>,
    /// First part of the owner's name under which schemas are claimed. It must be unique for each
    /// cluster. Default: the uid of namespace kube-system.
    #[arg(long, env = "CLUSTER_NAME", default_value = "")]
    cluster_name: String,
    /// Name of this operator. It manages OutboxRelays whose annotation
    /// outboxrelay.dev/operator-name has this value. OutboxRelays without the annotation belong to
    /// the operator with the default name.
    #[arg(long, env = "OPERATOR_NAME", default_value = "outbox-operator")]
    operator_name: String,
    /// Namespaces to watch, separated by commas. Needs --cluster-name. Default: all.
    #[arg(
        long,
        env = "WATCH_NAMESPACES",
        value_name = "NAMESPACES",
        value_delimiter = ','
    )]
    watch_namespaces: Vec<String>,
    /// Seconds after which a watch ends and is opened again. A watch that is silent for three times
    /// as long fails /healthz.
    #[arg(
        long,
        env = "WATCH_SECONDS",
        value_name = "SECONDS",
        default_value = "60",
        value_parser = clap::value_parser!(u64).range(1..=240)
    )]
    watch_seconds: u64,
    /// Address of /healthz, /readyz and /metrics. [::] means all addresses, including IPv4.
    #[arg(long, env = "LISTEN", default_value = "[::]:8080")]
    listen: SocketAddr,
    /// Maximum number of OutboxRelays that are upgraded at the same time.
    #[arg(
        long,
        env = "UPGRADE_MAX_CONCURRENT",
        default_value = "5",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    upgrade_max_concurrent: u16,
    /// Name of this pod, used as holder of the Lease and in Events. It must be unique among
    /// operators. Default: a random name.
    #[arg(long, env = "POD_NAME")]
    pod_name: Option<String>,
    /// Namespace of this pod. It contains the Lease, and NetworkPolicies of relays allow
    /// connections from it. Default: the namespace of the pod or of KUBECONFIG.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: Option<String>,
    /// Namespace of the monitoring system. NetworkPolicies of relays allow connections from it.
    #[arg(long, env = "MONITORING_NAMESPACE")]
    monitoring_namespace: Option<String>,
    /// Whether one PodMonitor already covers all relays. If set, the operator creates no PodMonitor
    /// for a manifest that requests one.
    #[arg(long, env = "RELAYS_MONITORED")]
    relays_monitored: bool,
    /// Name of the Lease that selects the leader among several operators.
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
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outbox-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Run(arguments) => run(*arguments, cli.log_format, &cli.log),
        Command::Check(arguments) => check(arguments),
        Command::Crd => std::io::stdout()
            .write_all(custom_resource_definition().as_bytes())
            .context("failed to print"),
    }
}

#[tokio::main]
async fn check(CheckArgs { operator, patience }: CheckArgs) -> anyhow::Result<()> {
    Ok(install_check::check(&operator, Duration::from_secs(patience)).await?)
}

/// Starts logs, and runs until a stop signal.
#[tokio::main]
async fn run(arguments: RunArgs, log_format: LogFormat, log: &str) -> anyhow::Result<()> {
    // Before anything else: a signal to process 1 of a container is lost until then.
    let stop = StopSignal::install().context("cannot handle SIGTERM")?;
    telemetry::init(log_format, log)?;
    Ok(operator::process::run(arguments.into_options(), stop.into_token()).await?)
}

impl RunArgs {
    fn into_options(self) -> operator::process::Options {
        let installation = operator::Installation {
            relay_image: self.relay_image,
            allowed_images: self.allowed_images,
            cluster_name: self.cluster_name,
            upgrades_max: usize::from(self.upgrade_max_concurrent),
            namespace: self.namespace,
            monitoring_namespace: self.monitoring_namespace,
            relays_monitored: self.relays_monitored,
        };
        let namespaces = self.watch_namespaces.into_iter();
        operator::process::Options {
            settings: operator::Settings {
                installation,
                operator_name: self.operator_name,
                pod_name: self.pod_name,
            },
            listen: self.listen,
            namespaces: namespaces.filter(|name| !name.is_empty()).collect(),
            lease_name: self.lease_name,
            watch_timeout: Duration::from_secs(self.watch_seconds),
        }
    }
}
