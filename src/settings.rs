//! `RelaySettings`: the seam from operator to relay. The operator renders it as YAML into a
//! ConfigMap, the relay reads it; `run --manifest` makes it from the same manifest. Nothing secret
//! is in it: secrets are files with fixed names ([`SecretFile`]).

mod from_manifest;
mod read;
mod secret_files;
pub mod source;

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

pub use crate::api::{MigrationPolicy, OnPoison, RecordHeaders, SaslMechanism, TlsMode};
pub use from_manifest::InvalidSpec;
pub use read::InvalidSettings;
pub(crate) use secret_files::{DATABASE, DatabaseFiles, KAFKA, MIGRATION, TlsFiles};
pub use secret_files::{
    Projection, SecretFile, SecretSource, database_projections, migration_projections,
    relay_projections,
};

/// Level of the schema that this version needs: the number of files in `migrations/`.
pub const SCHEMA_LEVEL: i64 = 6;

/// Why `spec.kafka.properties` may not hold this; `None`: it may. The schema has the same rules.
pub(crate) fn property_error(name: &str, value: &str) -> Option<&'static str> {
    let milliseconds = || {
        value.len() <= 4
            && value.bytes().all(|byte| byte.is_ascii_digit())
            && value.parse().is_ok_and(|ms: u16| ms <= 1000)
    };
    match name {
        "linger.ms" => {
            (!milliseconds()).then_some("linger.ms must be a number of milliseconds, 0 to 1000")
        }
        "compression.type" => (!["none", "gzip", "snappy", "lz4", "zstd"].contains(&value))
            .then_some("compression.type must be none, gzip, snappy, lz4 or zstd"),
        _ => Some(
            "only linger.ms and compression.type may be set: the others carry the order and \
             no-loss guarantees",
        ),
    }
}

/// Where a pod finds its settings and the folder of its secrets.
pub const POD_SETTINGS: &str = "/etc/outbox-relay/settings.yaml";
pub const POD_SECRETS: &str = "/var/run/secrets/outbox-relay";
/// Of a relay's process: glibc asks the kernel for huge pages, where that lets programs choose.
/// Rows on their way are spread over tens of MiB, and a good part of their cost is to find the
/// pages: 5.4 instead of 6.1 us of CPU a row, in as much memory (2 cores, a virtual machine).
pub const RELAY_ENVIRONMENT: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// Everything a relay or a migration needs to know, but no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RelaySettings {
    /// Who manages the schema.
    pub owner: Owner,
    pub database: DatabaseSettings,
    pub migration: MigrationSettings,
    pub kafka: KafkaSettings,
    pub record_headers: RecordHeaders,
    /// Topics that may be published to, in manifest order.
    pub topics: Vec<TopicSettings>,
    /// Rows of one settling statement, 1 to 10,000.
    pub batch_size: u32,
    /// Longest pause between two looks at an idle table.
    pub poll_interval_ms: u64,
    #[serde(default)]
    pub breaker: BreakerSettings,
}

/// When a Kafka cluster that acknowledges nothing is slow, and when it is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BreakerSettings {
    pub slow_after_ms: u64,
    /// More than `slow_after_ms`.
    pub open_after_ms: u64,
    pub max_backoff_ms: u64,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            slow_after_ms: 2_000,
            open_after_ms: 10_000,
            max_backoff_ms: 30_000,
        }
    }
}

impl BreakerSettings {
    /// [`Self::slow_after_ms`] as a duration.
    #[must_use]
    pub fn slow_after(&self) -> Duration {
        Duration::from_millis(self.slow_after_ms)
    }

    /// [`Self::open_after_ms`] as a duration.
    #[must_use]
    pub fn open_after(&self) -> Duration {
        Duration::from_millis(self.open_after_ms)
    }

    /// [`Self::max_backoff_ms`] as a duration.
    #[must_use]
    pub fn max_backoff(&self) -> Duration {
        Duration::from_millis(self.max_backoff_ms)
    }
}

/// The `OutboxRelay` that manages a schema: `<cluster>/<namespace>/<name>`. Two of them never share
/// one schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Owner {
    pub cluster: String,
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.cluster, self.namespace, self.name)
    }
}

impl FromStr for Owner {
    type Err = InvalidOwner;

    fn from_str(text: &str) -> Result<Self, InvalidOwner> {
        match text.split('/').collect::<Vec<_>>()[..] {
            [cluster, namespace, name] if ![cluster, namespace, name].contains(&"") => Ok(Self {
                cluster: cluster.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(InvalidOwner(text.to_owned())),
        }
    }
}

/// Why a text names no owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' names no owner: write <cluster>/<namespace>/<name>, as 'outbox-relay owner' shows it"
)]
pub struct InvalidOwner(String);

/// The relay's database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseSettings {
    pub endpoint: Endpoint,
    pub tls: TlsSettings,
    pub schema: SchemaName,
    /// Connections of this process.
    pub max_connections: u32,
    /// The endpoint is a pooler in transaction mode.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pooler: bool,
}

/// Where a server is. The matching secret files hold the URL, or user name and password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "camelCase", deny_unknown_fields)]
pub enum Endpoint {
    /// A secret file holds the whole URL.
    Url,
    /// Host, port and database by name; secret files hold user name and password.
    Host {
        host: String,
        port: u16,
        name: String,
    },
}

/// TLS towards one server. Which files are expected is said here, what is in them is read from
/// [`SecretFile`]s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsSettings {
    pub mode: TlsMode,
    /// A CA file is expected; else the system's roots.
    pub ca: bool,
    /// A client certificate and its key are expected.
    pub client_certificate: bool,
}

/// What the migration does, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MigrationSettings {
    pub policy: MigrationPolicy,
    /// Its own endpoint and owner credentials; absent: the relay's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<MigrationDatabase>,
    /// Roles of services that write rows.
    pub producers: Vec<String>,
    /// Further roles that may run a relay; the relay's own user is granted by itself.
    pub relays: Vec<String>,
    /// The schema may be taken from this owner, and from no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take_over_from: Option<Owner>,
}

/// The migration's own endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MigrationDatabase {
    pub endpoint: Endpoint,
    pub tls: TlsSettings,
}

/// The relay's Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port` of brokers to start from.
    pub bootstrap_servers: Vec<String>,
    pub tls: TlsSettings,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<SaslSettings>,
    /// `linger.ms` and `compression.type`, where set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// SASL login; the password is a secret file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SaslSettings {
    pub mechanism: SaslMechanism,
    pub username: String,
}

/// A topic that may be published to, and what is routed to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TopicSettings {
    pub name: String,
    #[serde(default)]
    pub event_types: Vec<String>,
    #[serde(default)]
    pub aggregate_types: Vec<String>,
    #[serde(default)]
    pub on_poison: OnPoison,
}

impl RelaySettings {
    /// [`Self::poll_interval_ms`] as a duration.
    #[must_use]
    pub fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms)
    }
}

/// A checked schema name: `^[a-z_][a-z0-9_]{0,62}$`, so that it can stand in SQL without surprises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SchemaName(String);

/// Why a text is no schema name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no schema name: use 1 to 63 of a-z, 0-9 and _, not starting with a digit or pg_")]
pub struct InvalidSchemaName(String);

impl TryFrom<String> for SchemaName {
    type Error = InvalidSchemaName;

    fn try_from(name: String) -> Result<Self, InvalidSchemaName> {
        let mut letters = name.chars();
        let starts = letters
            .next()
            .is_some_and(|c| c.is_ascii_lowercase() || c == '_');
        let goes_on = letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if starts && goes_on && name.len() <= 63 && !name.starts_with("pg_") {
            Ok(Self(name))
        } else {
            Err(InvalidSchemaName(name))
        }
    }
}

impl From<SchemaName> for String {
    fn from(name: SchemaName) -> Self {
        name.0
    }
}

impl SchemaName {
    /// The bare name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_as_it_is_written_and_nothing_else_is() {
        let owner: Owner = "c/n/files".parse().expect("an owner");
        assert_eq!(owner.to_string(), "c/n/files");
        for text in [
            "",
            "files",
            "n/files",
            "/n/files",
            "c//files",
            "c/n/",
            "c/n/files/x",
        ] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_schema_name_that_could_change_a_statement_is_refused() {
        for name in [
            "",
            "Outbox",
            "1box",
            "out box",
            "o\"x",
            "o;x",
            "pg_catalog",
            &"a".repeat(64),
        ] {
            assert!(SchemaName::try_from(name.to_owned()).is_err(), "{name}");
        }
        assert!(SchemaName::try_from("outbox_2".to_owned()).is_ok());
    }
}
