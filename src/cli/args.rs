//! Arguments of the commands for people on call. Doc comments of commands and flags are their help
//! texts. Pure.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use uuid::Uuid;

use crate::{
    api::parse_duration,
    doctor::{Code, Threshold, checks::Moment},
    outbox::admin::{Filter, Role},
    settings::{POD_SECRETS, POD_SETTINGS, source::SettingsSource},
};

/// Heading of the flags that select rows, in `--help`.
const FILTERS: &str = "Selection (all conditions must hold)";

/// Commands for people on call.
#[derive(Subcommand)]
pub enum Command {
    /// Shows the state of the outbox: relays, waiting rows, parked topics and keys, dead letters.
    Status(CommonArgs),
    /// Checks everything that publishing needs, from settings to topics, and changes nothing. Exits
    /// with 1 if there is a fault.
    Doctor(DoctorArgs),
    /// Shows where one event is: waiting and for what, in flight, parked, or a dead letter. Exits
    /// with 3 if it is not in the outbox. Reads the whole table.
    Event(EventArgs),
    /// Shows, requeues or discards rows that Kafka rejected and that were moved to the dead
    /// letters.
    DeadLetters {
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    /// Lists, parks or unparks topics and keys, or skips the rejected row of a key.
    Parked {
        #[command(subcommand)]
        command: ParkedCommand,
    },
    /// Shows what the adoption of existing outbox tables (migration.adopt) would do, or moves many
    /// waiting rows before it.
    Adopt(AdoptArgs),
    /// Shows the OutboxRelay that manages the schema, or releases the schema for another one.
    Owner {
        #[command(subcommand)]
        command: OwnerCommand,
    },
}

/// Subcommands of `dead-letters`.
#[derive(Subcommand)]
pub enum DeadLettersCommand {
    /// Lists dead letters, oldest first.
    List(ListArgs),
    /// Shows all details of dead letters.
    Show(ShowArgs),
    /// Requeues dead letters: they are published under new ids, as the last rows of their keys.
    Requeue(ChangeArgs),
    /// Deletes dead letters permanently. No other command here deletes an event.
    Discard(ChangeArgs),
}

/// Subcommands of `parked`.
#[derive(Subcommand)]
pub enum ParkedCommand {
    /// Lists parked topics and keys, oldest first.
    List(ListArgs),
    /// Parks a topic, or one key of it: its rows wait until `parked retry`. Relays notice it within
    /// seconds.
    Add(AddArgs),
    /// Unparks topics and keys: their rows are published under the same ids, the rejected row
    /// first.
    Retry(ChangeArgs),
    /// Moves the rejected row of each key to the dead letters and unparks the key.
    Skip(ChangeArgs),
}

/// Subcommands of `owner`.
#[derive(Subcommand)]
pub enum OwnerCommand {
    /// Shows the OutboxRelay that manages the schema.
    Show(CommonArgs),
    /// Releases the schema: the next OutboxRelay that migrates it becomes its owner. Stop the
    /// relays of the old owner first.
    Release(ReleaseArgs),
}

/// Source of settings and secrets. By default they are read from where a relay's pod has them.
#[derive(Args)]
#[group(skip)]
pub struct ConfigSource {
    /// Settings file, as the operator writes it. It is not needed in a pod of a relay.
    #[arg(long, value_name = "FILE", requires = "secrets")]
    pub settings: Option<PathBuf>,
    /// File with an OutboxRelay, and its Secrets and ConfigMaps as further documents.
    #[arg(long, value_name = "FILE", conflicts_with = "settings")]
    pub manifest: Option<PathBuf>,
    /// Folder of secrets. With --manifest: those that the file does not contain, as DIR/NAME/KEY.
    #[arg(long, value_name = "DIR")]
    pub secrets: Option<PathBuf>,
}

impl ConfigSource {
    /// Returns the source to load from. `cluster` is the cluster in the owner's name that is made
    /// for a manifest.
    #[must_use]
    pub fn source(self, cluster: String) -> SettingsSource {
        match self.manifest {
            Some(file) => SettingsSource::Manifest {
                file,
                secrets: self.secrets,
                cluster,
            },
            None => settings_files(self.settings, self.secrets),
        }
    }
}

/// Settings file and folder of secrets, by default those of a relay's pod.
fn settings_files(settings: Option<PathBuf>, secrets: Option<PathBuf>) -> SettingsSource {
    SettingsSource::Settings {
        file: settings.unwrap_or_else(|| POD_SETTINGS.into()),
        secrets: secrets.unwrap_or_else(|| POD_SECRETS.into()),
    }
}

/// Format of a command's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people: long values are cut, and characters that could control a terminal are escaped.
    Table,
    /// For programs: complete values.
    Json,
}

/// Flags of all commands.
#[derive(Args)]
pub struct CommonArgs {
    #[command(flatten)]
    pub config: ConfigSource,
    /// Output format.
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Output,
}

/// Flags that select dead letters, parked topics and parked keys.
#[derive(Args)]
pub struct Selector {
    /// Rows for this topic, by route or given by the row.
    #[arg(long, value_name = "TOPIC", help_heading = FILTERS)]
    pub topic: Option<String>,
    /// Rows with this Kafka key.
    #[arg(long, value_name = "KEY", help_heading = FILTERS)]
    pub key: Option<String>,
    /// Rows rejected with this class of error, such as RecordRejected; ParkedByHand: parked by a
    /// person.
    #[arg(long, value_name = "CLASS", help_heading = FILTERS)]
    pub class: Option<String>,
    /// Parked or rejected at least this long ago, such as 30m or 1h.
    #[arg(long, value_name = "AGE", value_parser = parse_duration, help_heading = FILTERS)]
    pub older_than: Option<Duration>,
    /// The row with this event_id.
    #[arg(long, value_name = "UUID", help_heading = FILTERS)]
    pub event_id: Option<Uuid>,
}

impl Selector {
    /// Converts the flags to a filter of at most `limit` results.
    pub(super) fn filter(&self, limit: Option<u64>) -> Filter {
        Filter {
            topic: self.topic.clone(),
            key: self.key.clone(),
            class: self.class.clone(),
            older_than: self.older_than,
            event_id: self.event_id,
            limit,
        }
    }
}

/// Arguments of `doctor`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DoctorArgs {
    #[command(subcommand)]
    pub command: Option<DoctorCommand>,
    #[command(flatten)]
    pub common: CommonArgs,
    /// With --manifest: first part of the owner's name under which the schema is claimed.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "local",
        conflicts_with = "settings"
    )]
    pub cluster_name: String,
    /// From which outcome on the exit code is 1.
    #[arg(long, value_name = "OUTCOME", value_enum, default_value = "fault")]
    pub fail_on: Threshold,
    /// Before a rollout: a schema that has still to be made or upgraded, and lanes without a relay,
    /// are no faults.
    #[arg(long)]
    pub pre: bool,
    /// Repeat the checks until they do not fail, for at most this long, such as 2m.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub wait: Option<Duration>,
    /// Write findings and settings as JSON too, for a bug report. It has no secrets and no
    /// payloads, but names of hosts, users and topics.
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// Print a Job, and a ConfigMap with the manifest, that make the checks where a relay would
    /// run. The Job reads the Secrets of the namespace.
    #[arg(long, requires = "manifest", conflicts_with_all = ["bundle", "settings"])]
    pub print_job: bool,
    /// Image of that Job, unless the manifest has template.image.
    #[arg(long, value_name = "IMAGE", requires = "print_job")]
    pub image: Option<String>,
}

impl DoctorArgs {
    /// Arguments that a Job repeats.
    pub(super) fn options_of_job(&self) -> Vec<String> {
        let mut options = vec!["--cluster-name".to_owned(), self.cluster_name.clone()];
        if self.pre {
            options.push("--pre".to_owned());
        }
        if self.fail_on == Threshold::Warning {
            options.extend(["--fail-on".to_owned(), "warning".to_owned()]);
        }
        if let Some(wait) = self.wait {
            options.extend(["--wait".to_owned(), format!("{}s", wait.as_secs())]);
        }
        options
    }

    /// When the checks are made.
    pub(super) fn moment(&self) -> Moment {
        if self.pre {
            Moment::BeforeRollout
        } else {
            Moment::Running
        }
    }
}

/// Subcommands of `doctor`.
#[derive(Subcommand)]
pub enum DoctorCommand {
    /// Explains the code of a check. Needs no server.
    Explain {
        /// Code, as in the report.
        #[arg(value_name = "CODE")]
        code: Code,
    },
}

/// Arguments of `event`.
#[derive(Args)]
pub struct EventArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// The event_id, as in the table, in the header `event_id` of its record, and in logs.
    #[arg(value_name = "EVENT_ID")]
    pub event_id: Uuid,
}

/// Flags of commands that list.
#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub selector: Selector,
    /// Maximum number of results.
    #[arg(
        long,
        value_name = "N",
        default_value = "100",
        value_parser = clap::value_parser!(u64).range(1..1_000_000_000),
        help_heading = FILTERS
    )]
    pub limit: u64,
}

/// Flags of `dead-letters show`.
#[derive(Args)]
pub struct ShowArgs {
    #[command(flatten)]
    pub list: ListArgs,
    /// Show payloads and values of headers too, which may be personal data.
    #[arg(long)]
    pub show_payload: bool,
}

/// Flags of commands that ask before they change something.
#[derive(Args)]
pub struct ConfirmArgs {
    /// Show what would be done, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask for confirmation. Required when there is no terminal.
    #[arg(long, short)]
    pub yes: bool,
}

impl ConfirmArgs {
    /// Database user that the command needs: a dry run only reads.
    pub(super) fn role(&self) -> Role {
        if self.dry_run {
            Role::Relay
        } else {
            Role::Owner
        }
    }
}

/// Flags of commands that change what a selector finds.
#[derive(Args)]
#[command(group = ArgGroup::new("chosen")
    .required(true)
    .multiple(true)
    .args(["topic", "key", "class", "older_than", "event_id", "all"]))]
pub struct ChangeArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub selector: Selector,
    /// Select everything. Either this or a condition is required.
    #[arg(
        long,
        conflicts_with_all = ["topic", "key", "class", "older_than", "event_id"],
        help_heading = FILTERS
    )]
    pub all: bool,
    /// Maximum number of changes, oldest first.
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..1_000_000_000),
        help_heading = FILTERS
    )]
    pub limit: Option<u64>,
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// Flags of `parked add`.
#[derive(Args)]
pub struct AddArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Topic, as the manifest declares it.
    #[arg(long, value_name = "TOPIC")]
    pub topic: String,
    /// Only rows with this Kafka key.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// Flags of `adopt`.
#[derive(Args)]
#[command(group = ArgGroup::new("action").required(true).args(["dry_run", "drain"]))]
pub struct AdoptArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Count what would move and what cannot be converted, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Move all waiting rows, the oldest first, 1,000 in a transaction. Use it when more rows wait
    /// than the migration moves. Stop the old worker first: rows that it has in flight are
    /// published twice. The schema must exist, and --table is not adopted yet.
    #[arg(long, requires = "table")]
    pub drain: bool,
    /// Only this table of migration.adopt, as schema.table.
    #[arg(long, value_name = "TABLE")]
    pub table: Option<String>,
    /// Do not ask for confirmation. Required when there is no terminal.
    #[arg(long, short, conflicts_with = "dry_run")]
    pub yes: bool,
}

/// Flags of `owner release`.
#[derive(Args)]
pub struct ReleaseArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}
