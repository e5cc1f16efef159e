//! Arguments of the on-call's commands. Pure.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use uuid::Uuid;

use crate::{
    api::parse_duration,
    outbox::desk::Filter,
    settings::{POD_SECRETS, POD_SETTINGS},
    source::Source,
};

const FILTERS: &str = "Which ones (all conditions must hold)";

/// What whoever is on call can ask for.
#[derive(Subcommand)]
pub enum Command {
    /// Shows how the outbox is doing: its relays, what waits, what was put aside.
    Status(Asked),
    /// Rows that Kafka refused and that were taken out of the table: look at them, bring them back,
    /// discard them.
    DeadLetters {
        #[command(subcommand)]
        command: DeadLetters,
    },
    /// Topics and keys whose rows wait: look at them, park, let flow again, skip the refused row.
    Parked {
        #[command(subcommand)]
        command: Parked,
    },
    /// The OutboxRelay that manages the schema: show it, or free the schema for another one.
    Owner {
        #[command(subcommand)]
        command: OwnerOf,
    },
}

#[derive(Subcommand)]
pub enum DeadLetters {
    /// Lists dead letters, oldest first.
    List(Listing),
    /// Shows dead letters with all that is known of them.
    Show(Showing),
    /// Brings dead letters back: they are published under new ids, as the last rows of their keys.
    Requeue(Changing),
    /// Deletes dead letters for good. Nothing else in these commands deletes an event.
    Discard(Changing),
}

#[derive(Subcommand)]
pub enum Parked {
    /// Lists parked topics and keys, longest first.
    List(Listing),
    /// Parks a topic, or one key of it: its rows wait until `parked retry`. Relays notice it within
    /// seconds.
    Add(Adding),
    /// Lets topics and keys flow again, refused row first, under the ids that they have.
    Retry(Changing),
    /// Moves the refused row of each key to the dead letters and lets the rows behind it flow.
    Skip(Changing),
}

#[derive(Subcommand)]
pub enum OwnerOf {
    /// Shows the OutboxRelay that manages the schema.
    Show(Asked),
    /// Frees the schema: the next OutboxRelay that migrates it becomes its owner. Stop the relays
    /// of the old one first.
    Release(Releasing),
}

/// Where settings and secrets are; by default where a relay's pod has them.
#[derive(Args)]
#[group(skip)]
pub struct Place {
    /// Settings as the operator writes them; in a pod of a relay they are found without it.
    #[arg(long, value_name = "FILE", requires = "secrets")]
    pub settings: Option<PathBuf>,
    /// An OutboxRelay, with its Secrets and ConfigMaps as further documents.
    #[arg(long, value_name = "FILE", conflicts_with = "settings")]
    pub manifest: Option<PathBuf>,
    /// Folder of secrets; with --manifest: what is not in it, as DIR/NAME/KEY.
    #[arg(long, value_name = "DIR")]
    pub secrets: Option<PathBuf>,
}

impl Place {
    /// `cluster`: what the owner of a manifest's schema is called.
    #[must_use]
    pub fn source(self, cluster: String) -> Source {
        match self.manifest {
            Some(file) => Source::Manifest {
                file,
                secrets: self.secrets,
                cluster,
            },
            None => Source::Settings {
                file: self.settings.unwrap_or_else(|| POD_SETTINGS.into()),
                secrets: self.secrets.unwrap_or_else(|| POD_SECRETS.into()),
            },
        }
    }
}

/// How the answer looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people; long values are cut, and what could harm a terminal is escaped.
    Table,
    /// For programs; whole values.
    Json,
}

#[derive(Args)]
pub struct Asked {
    #[command(flatten)]
    pub place: Place,
    /// How the answer looks.
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Output,
}

#[derive(Args)]
pub struct Which {
    /// Rows for this topic, routed or named by the row.
    #[arg(long, value_name = "TOPIC", help_heading = FILTERS)]
    pub topic: Option<String>,
    /// Rows with this Kafka key.
    #[arg(long, value_name = "KEY", help_heading = FILTERS)]
    pub key: Option<String>,
    /// Refused with this class of error, such as RecordRejected; ParkedByHand: a person did it.
    #[arg(long, value_name = "CLASS", help_heading = FILTERS)]
    pub class: Option<String>,
    /// Put aside at least so long ago, such as 30m or 1h.
    #[arg(long, value_name = "AGE", value_parser = parse_duration, help_heading = FILTERS)]
    pub older_than: Option<Duration>,
    /// The row with this event_id.
    #[arg(long, value_name = "UUID", help_heading = FILTERS)]
    pub event_id: Option<Uuid>,
}

impl Which {
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

#[derive(Args)]
pub struct Listing {
    #[command(flatten)]
    pub asked: Asked,
    #[command(flatten)]
    pub which: Which,
    /// At most so many.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u64).range(1..1_000_000_000), help_heading = FILTERS)]
    pub limit: u64,
}

#[derive(Args)]
pub struct Showing {
    #[command(flatten)]
    pub listing: Listing,
    /// Also show payloads and the values of headers: they may be personal data.
    #[arg(long)]
    pub show_payload: bool,
}

#[derive(Args)]
pub struct Asking {
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask. Without a terminal nothing is done unless this is given.
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Args)]
#[command(group = ArgGroup::new("chosen").required(true).multiple(true).args(["topic", "key", "class", "older_than", "event_id", "all"]))]
pub struct Changing {
    #[command(flatten)]
    pub asked: Asked,
    #[command(flatten)]
    pub which: Which,
    /// All of them; a condition or this must be given.
    #[arg(long, conflicts_with_all = ["topic", "key", "class", "older_than", "event_id"], help_heading = FILTERS)]
    pub all: bool,
    /// At most so many, the oldest ones.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..1_000_000_000), help_heading = FILTERS)]
    pub limit: Option<u64>,
    #[command(flatten)]
    pub asking: Asking,
}

#[derive(Args)]
pub struct Adding {
    #[command(flatten)]
    pub asked: Asked,
    /// The topic, as the manifest names it.
    #[arg(long, value_name = "TOPIC")]
    pub topic: String,
    /// Only rows with this Kafka key.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    #[command(flatten)]
    pub asking: Asking,
}

#[derive(Args)]
pub struct Releasing {
    #[command(flatten)]
    pub asked: Asked,
    #[command(flatten)]
    pub asking: Asking,
}
