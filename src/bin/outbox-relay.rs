//! `outbox-relay`: takes rows of one outbox table to Kafka (`run`) and makes that table
//! (`migrate`). Parse, start logs, run, exit code.

use std::{
    ffi::OsString,
    io::Write,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{ArgGroup, Args, Parser, Subcommand};
use outbox_relay::{
    cli::{self, ConfigSource},
    outbox::migrate::{self, LOCK_WAIT, until_done},
    relay::RunOptions,
    report::{HTTP_PORT, MigrationReport},
    secrets::Secrets,
    settings::{RelaySettings, source::SettingsSource},
    telemetry::{self, LogFormat},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

const LOGS: &str = "Logs";

/// Address that a relay listens on unless `--listen` is given: all addresses, IPv4 included.
const LISTEN_DEFAULT: SocketAddr =
    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, HTTP_PORT, 0, 0));

/// Takes committed rows of a PostgreSQL outbox table to Kafka: never lost, in order per key,
/// through outages.
#[derive(Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Which log lines are written: a level, or module=level, separated by commas.
    #[arg(long, global = true, value_name = "FILTER", env = "RUST_LOG", default_value = "info", hide_env_values = true, help_heading = LOGS)]
    log: String,
    /// How log lines look; auto: text on a terminal, else JSON.
    #[arg(long, global = true, value_name = "FORMAT", env = "LOG_FORMAT", value_enum, default_value = "auto", hide_env_values = true, help_heading = LOGS)]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Creates or upgrades the outbox's schema and gives roles their rights; running it again
    /// changes nothing.
    Migrate(Migrate),
    #[command(flatten)]
    Administration(cli::Command),
    /// Relays rows until it is stopped; with a manifest it migrates first, and waits until the
    /// database is there.
    Run(Run),
}

#[derive(Args)]
struct Migrate {
    #[command(flatten)]
    from: From,
    /// Also write the result as JSON here, at most 3 KiB: a pod's termination message.
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
    /// Print the SQL that would run, for a database administrator, and change nothing; whatever
    /// migration.policy says.
    #[arg(long, conflicts_with = "result")]
    dry_run: bool,
    /// Afterwards move the sequence of ids on, and give waiting rows whose ids may have been used
    /// already new ones: for a database that was put back to an older state while no relay ran.
    /// Relays notice other restores by themselves.
    #[arg(long)]
    resume_sequence: bool,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    from: From,
    /// Address of /healthz, /readyz, /metrics and /status; [::] stands for all addresses, those of
    /// IPv4 too.
    #[arg(long, value_name = "ADDRESS", default_value_t = LISTEN_DEFAULT)]
    listen: SocketAddr,
    /// Name of this replica, for people.
    #[arg(
        long,
        value_name = "NAME",
        env = "POD_NAME",
        default_value = "outbox-relay",
        hide_env_values = true
    )]
    pod: String,
    /// Be wrong in this way.
    #[cfg(feature = "planted-bugs")]
    #[arg(long, value_enum)]
    planted_bug: Option<outbox_relay::failpoints::Bug>,
}

#[derive(Args)]
#[group(skip)]
#[command(group = ArgGroup::new("source").required(true).args(["settings", "manifest"]))]
struct From {
    #[command(flatten)]
    place: ConfigSource,
    /// With --manifest: the cluster in the name under which the schema is claimed. An operator's is
    /// `clusterName` of its chart, or the uid of namespace kube-system; `owner show` tells whose a
    /// schema is.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "local",
        conflicts_with = "settings"
    )]
    cluster_name: String,
}

impl From {
    fn source(self) -> SettingsSource {
        self.place.source(self.cluster_name)
    }
}

// One thread: with several, each answer of the database is handed from one to another, which cost a
// third of the CPU time at 1,000 rows a second.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let ready = without_variables_of_postgres()
        .and_then(|()| Ok(telemetry::init(cli.log_format, &cli.log)?));
    let done = match ready {
        Err(error) => Err(error),
        Ok(()) => Box::pin(until_stopped(cli.command)).await,
    };
    done.unwrap_or_else(|error| {
        // Nobody is left to tell when stderr is closed.
        drop(writeln!(std::io::stderr(), "error: {error:#}"));
        ExitCode::FAILURE
    })
}

/// The manifest alone says how to connect. But sqlx takes PGOPTIONS, PGSSLROOTCERT and others of
/// the environment, and some of them cannot be taken back. So where there is one, this program
/// starts anew without: the process stays the same.
fn without_variables_of_postgres() -> anyhow::Result<()> {
    let names = std::env::vars_os().map(|(name, _)| name);
    let names: Vec<OsString> = names
        .filter(|name| name.as_encoded_bytes().starts_with(b"PG"))
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let program = std::env::current_exe()
        .context("cannot find this program, to start it without the PG* variables; unset them")?;
    let mut anew = std::process::Command::new(program);
    anew.args(std::env::args_os().skip(1));
    for name in names {
        anew.env_remove(name);
    }
    Err(anew.exec()).context("cannot start this program without the PG* variables; unset them")
}

async fn until_stopped(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Migrate(arguments) => tokio::select! {
            code = migrate(arguments) => code,
            () = stopped() => anyhow::bail!("stopped; nothing was changed"),
        },
        Command::Run(arguments) => run(arguments).await,
        // Ctrl-C ends it as it ends any program: the batch under way is done, or not.
        Command::Administration(command) => {
            Ok(cli::run(command, &mut std::io::stdout()).await?.into())
        }
    }
}

async fn migrate(arguments: Migrate) -> anyhow::Result<ExitCode> {
    if arguments.dry_run {
        let (settings, secrets) = arguments.from.source().load()?;
        let script = migrate::script(&settings, &secrets).await;
        let script =
            script.map_err(|problem| anyhow::anyhow!("{}: {}", problem.class, problem.message))?;
        let resume = if arguments.resume_sequence {
            migrate::resume_script(&settings.database.schema)
        } else {
            String::new()
        };
        write!(std::io::stdout(), "{script}{resume}").context("cannot write the script")?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = match arguments.from.source().load() {
        Ok((settings, secrets)) => {
            let report = migrate::migrate(&settings, &secrets, LOCK_WAIT).await;
            if arguments.resume_sequence {
                resumed(report, &settings, &secrets).await
            } else {
                report
            }
        }
        Err(error) => MigrationReport {
            schema_version: None,
            applied: Vec::new(),
            notes: Vec::new(),
            problem: Some(error.problem()),
        },
    };
    if let Some(file) = &arguments.result {
        write_result(file, &report)?;
    }
    match &report.problem {
        Some(problem) => anyhow::bail!("{}: {}", problem.class, problem.message),
        None => write!(std::io::stdout(), "{}", migrate::in_words(&report))
            .context("cannot write the result")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Moves the sequence on, unless the migration failed.
async fn resumed(
    mut report: MigrationReport,
    settings: &RelaySettings,
    secrets: &Secrets,
) -> MigrationReport {
    if report.problem.is_none() {
        match migrate::resume_sequence(settings, secrets).await {
            Ok(note) => report.notes.push(note),
            Err(problem) => report.problem = Some(problem),
        }
    }
    report
}

fn write_result(file: &Path, report: &MigrationReport) -> anyhow::Result<()> {
    std::fs::write(file, migrate::termination_message(report))
        .with_context(|| format!("cannot write the result to '{}'", file.display()))
}

async fn run(arguments: Run) -> anyhow::Result<ExitCode> {
    #[cfg(feature = "planted-bugs")]
    if let Some(bug) = arguments.planted_bug {
        outbox_relay::failpoints::enable(bug);
    }
    let source = arguments.from.source();
    let (settings, secrets) = source.load()?;
    if matches!(source, SettingsSource::Manifest { .. }) {
        let done = tokio::select! {
            done = until_done(&settings, &secrets) => done,
            () = stopped() => return Ok(ExitCode::SUCCESS),
        };
        done.map_err(|problem| anyhow::anyhow!("{}: {}", problem.class, problem.message))?;
    }
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            stopped().await;
            stop.cancel();
        }
    });
    let options = RunOptions {
        settings,
        secrets,
        listen: arguments.listen,
        pod: arguments.pod,
    };
    Box::pin(outbox_relay::relay::run(options, stop)).await?;
    Ok(ExitCode::SUCCESS)
}

/// SIGTERM (a pod is stopped) or SIGINT (Ctrl-C). As process 1 of a container there is no default
/// for them.
async fn stopped() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(_) => std::future::pending().await,
    }
}
