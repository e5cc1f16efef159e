//! `outbox-relay`: sends rows of one outbox table to Kafka (`run`), and creates that table
//! (`migrate`). Parses arguments, starts logs, runs, and maps the result to an exit code.

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
    outbox::migrate::{self, LOCK_WAIT},
    relay::{MigratedBy, RunOptions},
    report::{HTTP_PORT, MigrationReport, Problem},
    secrets::Secrets,
    settings::{RelaySettings, source::SettingsSource},
    stop_signal::StopSignal,
    telemetry::{self, LogFormat},
};

/// Heading of the logging options in `--help`.
const LOGS: &str = "Logs";

/// Address that a relay listens on unless `--listen` is given: all addresses, IPv4 included.
const LISTEN_DEFAULT: SocketAddr =
    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, HTTP_PORT, 0, 0));

/// Sends committed rows of a PostgreSQL outbox table to Kafka: without loss, in order per key,
/// through outages.
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
        default_value = "info",
        hide_env_values = true,
        help_heading = LOGS
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
        hide_env_values = true,
        help_heading = LOGS
    )]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Creates or upgrades the schema of the outbox, and grants roles their rights. Running it
    /// again changes nothing.
    Migrate(MigrateArgs),
    #[command(flatten)]
    Administration(cli::Command),
    /// Relays rows until it is stopped. With a manifest, it also migrates: at its start, and
    /// whenever the schema is missing or too old. Until it can, `/readyz` says why not.
    Run(RunArgs),
}

#[derive(Args)]
struct MigrateArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// File to write the result to as JSON, at most 3 KiB, such as the termination message of a
    /// pod.
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
    /// Print the SQL that would run, for a database administrator, and change nothing. Ignores
    /// migration.policy.
    #[arg(long, conflicts_with = "result")]
    dry_run: bool,
    /// Afterwards move the sequence of ids forward, and give new ids to waiting rows whose ids may
    /// have been used already. Use it for a database that was restored to an older state while no
    /// relay was running. Relays detect other restores automatically.
    #[arg(long)]
    resume_sequence: bool,
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Address of /healthz, /readyz, /metrics and /status. [::] means all addresses, including
    /// IPv4.
    #[arg(long, value_name = "ADDRESS", default_value_t = LISTEN_DEFAULT)]
    listen: SocketAddr,
    /// Name of this relay, such as the name of its pod.
    #[arg(
        long,
        value_name = "NAME",
        env = "POD_NAME",
        default_value = "outbox-relay",
        hide_env_values = true
    )]
    pod: String,
    /// Bug to enable in this process, for tests.
    #[cfg(feature = "planted-bugs")]
    #[arg(long, value_enum)]
    planted_bug: Option<outbox_relay::failpoints::Bug>,
}

#[derive(Args)]
#[group(skip)]
#[command(group = ArgGroup::new("source").required(true).args(["settings", "manifest"]))]
struct SourceArgs {
    #[command(flatten)]
    config: ConfigSource,
    /// With --manifest: first part of the owner's name under which the schema is claimed. An
    /// operator uses `clusterName` of its chart, or the uid of namespace kube-system. `owner show`
    /// prints the owner of a schema.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "local",
        conflicts_with = "settings"
    )]
    cluster_name: String,
}

impl SourceArgs {
    fn source(self) -> SettingsSource {
        self.config.source(self.cluster_name)
    }
}

// One thread: with several, each answer of the database is passed between threads, which took a
// third of the CPU time at 1,000 rows a second.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    execute(cli).await.unwrap_or_else(|error| {
        // If stderr is closed, there is no other place to report the error.
        drop(writeln!(std::io::stderr(), "error: {error:#}"));
        ExitCode::FAILURE
    })
}

async fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    restart_without_postgres_variables()?;
    let start_logs = || telemetry::init(cli.log_format, &cli.log);
    match cli.command {
        Command::Migrate(arguments) => {
            let mut stop = stop_signal()?;
            start_logs()?;
            tokio::select! {
                code = migrate(arguments) => code,
                () = stop.received() => anyhow::bail!("stopped; nothing was changed"),
            }
        }
        Command::Run(arguments) => {
            let stop = stop_signal()?;
            start_logs()?;
            Box::pin(run(arguments, stop)).await
        }
        // No signal handler: Ctrl-C ends the process, and the current batch is committed or not.
        Command::Administration(command) => {
            start_logs()?;
            Ok(cli::run(command, &mut std::io::stdout()).await?.into())
        }
    }
}

/// Handles stop signals from now on. Called before anything that takes time: a signal to process 1
/// of a container is lost until then.
fn stop_signal() -> anyhow::Result<StopSignal> {
    StopSignal::install().context("cannot handle SIGTERM")
}

/// Restarts this program in the same process without variables whose names begin with `PG`, if
/// there are any.
///
/// Only the manifest decides how to connect. But sqlx applies PGOPTIONS, PGSSLROOTCERT and other
/// variables of the environment, and some of them cannot be reset through its API.
fn restart_without_postgres_variables() -> anyhow::Result<()> {
    let names = postgres_variables();
    if names.is_empty() {
        return Ok(());
    }
    let program = std::env::current_exe().context(
        "cannot find the file of this program to restart it without PG* variables; unset them",
    )?;
    let mut restarted = std::process::Command::new(program);
    restarted.args(std::env::args_os().skip(1));
    for name in names {
        restarted.env_remove(name);
    }
    // `exec` only returns if it fails.
    Err(restarted.exec()).context("cannot restart this program without PG* variables; unset them")
}

fn postgres_variables() -> Vec<OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names
        .filter(|name| name.as_encoded_bytes().starts_with(b"PG"))
        .collect()
}

async fn migrate(arguments: MigrateArgs) -> anyhow::Result<ExitCode> {
    let sequence = Sequence::of(&arguments);
    let source = arguments.source.source();
    if arguments.dry_run {
        print_script(&source, sequence).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = migration_report(&source, sequence).await;
    if let Some(file) = &arguments.result {
        write_result(file, &report)?;
    }
    if let Some(problem) = report.problem {
        return Err(problem_error(&problem));
    }
    write!(std::io::stdout(), "{}", migrate::in_words(&report))
        .context("cannot write the result")?;
    Ok(ExitCode::SUCCESS)
}

/// What `migrate` does with the sequence of ids after the migration.
#[derive(Clone, Copy)]
enum Sequence {
    /// Leaves it as it is.
    Keep,
    /// Moves it forward, and gives new ids to rows whose ids may have been used already.
    Resume,
}

impl Sequence {
    fn of(arguments: &MigrateArgs) -> Self {
        if arguments.resume_sequence {
            Self::Resume
        } else {
            Self::Keep
        }
    }
}

async fn print_script(source: &SettingsSource, sequence: Sequence) -> anyhow::Result<()> {
    let (settings, secrets) = source.load()?;
    let script = migrate::script(&settings, &secrets)
        .await
        .map_err(|problem| problem_error(&problem))?;
    let resume = match sequence {
        Sequence::Resume => migrate::resume_script(&settings.database.schema),
        Sequence::Keep => String::new(),
    };
    write!(std::io::stdout(), "{script}{resume}").context("cannot write the script")
}

async fn migration_report(source: &SettingsSource, sequence: Sequence) -> MigrationReport {
    let (settings, secrets) = match source.load() {
        Ok(loaded) => loaded,
        Err(error) => return not_started(error.problem()),
    };
    let report = migrate::migrate(&settings, &secrets, LOCK_WAIT).await;
    match sequence {
        Sequence::Resume => resume_sequence(report, &settings, &secrets).await,
        Sequence::Keep => report,
    }
}

/// Report of a migration whose settings could not be read.
fn not_started(problem: Problem) -> MigrationReport {
    MigrationReport {
        schema_version: None,
        applied: Vec::new(),
        notes: Vec::new(),
        problem: Some(problem),
    }
}

fn problem_error(problem: &Problem) -> anyhow::Error {
    anyhow::anyhow!("{}: {}", problem.class, problem.message)
}

/// Moves the sequence of ids forward, unless the migration failed, and adds the result to its
/// report.
async fn resume_sequence(
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

async fn run(arguments: RunArgs, stop: StopSignal) -> anyhow::Result<ExitCode> {
    #[cfg(feature = "planted-bugs")]
    if let Some(bug) = arguments.planted_bug {
        outbox_relay::failpoints::enable(bug);
    }
    let source = arguments.source.source();
    let (settings, secrets) = source.load()?;
    let options = RunOptions {
        settings,
        secrets,
        listen: arguments.listen,
        pod: arguments.pod,
        migrated_by: migrated_by(&source),
    };
    Box::pin(outbox_relay::relay::run(options, stop.into_token())).await?;
    Ok(ExitCode::SUCCESS)
}

/// Without an operator, there is no Job that migrates the database.
fn migrated_by(source: &SettingsSource) -> MigratedBy {
    match source {
        SettingsSource::Manifest { .. } => MigratedBy::Relay,
        SettingsSource::Settings { .. } => MigratedBy::Others,
    }
}
