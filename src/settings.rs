//! `RelaySettings`: the seam from operator to relay. The operator writes it as YAML into a
//! ConfigMap, and the relay reads it; `run --manifest` builds it from the same manifest. It
//! contains no secrets: those are files with fixed names ([`SecretFile`]).

mod from_manifest;
mod read;
mod secret_files;
pub mod source;

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

pub use crate::api::{
    AdoptExpressions, AdoptPreset, ExhaustedRows, MigrationPolicy, OnPoison, RecordHeaders,
    SaslMechanism, TlsMode,
};
pub use from_manifest::InvalidSpec;
pub use read::InvalidSettings;
pub(crate) use secret_files::{DATABASE, DatabaseFiles, KAFKA, MIGRATION, TlsFiles};
pub use secret_files::{
    Projection, SecretFile, SecretSource, database_projections, migration_projections,
    relay_projections,
};

/// Schema level that this version needs: the number of files in `migrations/`.
pub const SCHEMA_LEVEL: i64 = 12;

/// Why an entry of `spec.kafka.properties` is not allowed; `None` if it is. The CRD has the same
/// rules.
pub(crate) fn property_error(name: &str, value: &str) -> Option<&'static str> {
    let (is_allowed, error) = match name {
        "linger.ms" => (
            is_linger(value),
            "linger.ms must be a number of milliseconds, 0 to 1000",
        ),
        "compression.type" => (
            COMPRESSION_TYPES.contains(&value),
            "compression.type must be none, gzip, snappy, lz4 or zstd",
        ),
        _ => (
            false,
            "only linger.ms and compression.type may be set: the others carry the order and \
             no-loss guarantees",
        ),
    };
    (!is_allowed).then_some(error)
}

/// Error of the first entry of `spec.kafka.properties` that is not allowed; `None` if all are.
fn first_property_error(properties: &BTreeMap<String, String>) -> Option<&'static str> {
    let mut properties = properties.iter();
    properties.find_map(|(name, value)| property_error(name, value))
}

/// Values that `compression.type` may have.
const COMPRESSION_TYPES: &[&str] = &["none", "gzip", "snappy", "lz4", "zstd"];

/// Whether `value` is a whole number of milliseconds from 0 to 1000, without sign, in at most four
/// digits.
fn is_linger(value: &str) -> bool {
    value.len() <= 4
        && value.bytes().all(|byte| byte.is_ascii_digit())
        && value.parse().is_ok_and(|ms: u16| ms <= 1000)
}

/// Path of the settings file in a pod.
pub const POD_SETTINGS: &str = "/etc/outbox-relay/settings.yaml";
/// Path of the secrets folder in a pod.
pub const POD_SECRETS: &str = "/var/run/secrets/outbox-relay";
/// Environment variable (name, value) of a relay's process: glibc requests huge pages from the
/// kernel, where the kernel lets programs choose. Rows in flight are spread over tens of MiB, and
/// much of their cost is address translation: with huge pages a row costs 5.4 instead of 6.1 µs of
/// CPU time, in the same amount of memory (2 cores, a virtual machine).
pub const RELAY_ENVIRONMENT: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// All settings of a relay or a migration, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RelaySettings {
    /// `OutboxRelay` that manages the schema.
    pub owner: Owner,
    /// Database of the outbox table.
    pub database: DatabaseSettings,
    /// What the migration does.
    pub migration: MigrationSettings,
    /// Kafka cluster that records are sent to.
    pub kafka: KafkaSettings,
    /// Headers that the relay adds to each record.
    pub record_headers: RecordHeaders,
    /// Topics that may be published to, in manifest order.
    pub topics: Vec<TopicSettings>,
    /// Maximum number of rows that one statement settles, 1 to 10,000.
    pub batch_size: u32,
    /// Longest pause in ms between two reads of an idle table.
    pub poll_interval_ms: u64,
    /// When the circuit breaker reacts.
    #[serde(default)]
    pub breaker: BreakerSettings,
}

/// When the circuit breaker reacts to a Kafka cluster that acknowledges nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BreakerSettings {
    /// Time in ms without an acknowledgement after which the cluster counts as slow.
    pub slow_after_ms: u64,
    /// Time in ms without an acknowledgement after which the breaker opens; more than
    /// `slow_after_ms`.
    pub open_after_ms: u64,
    /// Longest pause in ms between two attempts while the breaker is open.
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

/// `OutboxRelay` that manages a schema, written `<cluster>/<namespace>/<name>`. Two of them never
/// share one schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Owner {
    /// Name of the cluster, as its operator is configured.
    pub cluster: String,
    /// Namespace of the `OutboxRelay`.
    pub namespace: String,
    /// Name of the `OutboxRelay`.
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

/// The text is not an [`Owner`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not an owner: use <cluster>/<namespace>/<name>, as 'outbox-relay owner show' prints \
     it"
)]
pub struct InvalidOwner(String);

/// Database of the outbox table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseSettings {
    /// Address of the server.
    pub endpoint: Endpoint,
    /// TLS to the server.
    pub tls: TlsSettings,
    /// Schema of the outbox tables.
    pub schema: SchemaName,
    /// Maximum number of connections of this process.
    pub max_connections: u32,
    /// Whether the endpoint is a pooler in transaction mode.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pooler: bool,
}

/// Address of a database server. Secret files hold the URL, or user name and password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "camelCase", deny_unknown_fields)]
pub enum Endpoint {
    /// A secret file holds the whole URL, with user name and password.
    Url,
    /// The address is in the settings; secret files hold user name and password.
    Host {
        /// Host name or IP address.
        host: String,
        /// TCP port.
        port: u16,
        /// Name of the database.
        name: String,
    },
}

/// TLS to one server. The settings define which [`SecretFile`]s are expected, and those hold the
/// certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsSettings {
    /// How the server's certificate is verified.
    pub mode: TlsMode,
    /// Whether a CA file is expected; if not, the system's root certificates apply.
    pub ca: bool,
    /// Whether a client certificate and its key are expected.
    pub client_certificate: bool,
}

/// What the migration does, and which roles get rights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MigrationSettings {
    /// Whether the migration may change the database.
    pub policy: MigrationPolicy,
    /// Endpoint and owner credentials of the migration; if absent, it uses the relay's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<MigrationDatabase>,
    /// Roles of services that write rows.
    pub producers: Vec<String>,
    /// Additional roles that may run a relay. The relay's own user gets its rights automatically.
    pub relays: Vec<String>,
    /// Owner that the schema may be taken over from; from any other owner it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take_over_from: Option<Owner>,
    /// Outbox tables of services whose new rows become events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopt: Vec<AdoptSettings>,
}

/// An outbox table of a service whose new rows become events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdoptSettings {
    /// Schema of the table.
    pub schema: String,
    /// Name of the table in its schema.
    pub table: String,
    /// Expressions for a known form of table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<AdoptPreset>,
    /// Expressions that take precedence over those of the preset.
    #[serde(default)]
    pub expressions: AdoptExpressions,
    /// Column that the trigger sets in each new row, that of the preset included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_column: Option<String>,
    /// What happens to waiting rows that the old worker has given up.
    #[serde(default)]
    pub exhausted: ExhaustedRows,
    /// Whether the trigger locks the key of each row.
    #[serde(default)]
    pub ordered: bool,
    /// Age in ms from which published rows are deleted; if absent, they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_ms: Option<u64>,
}

impl fmt::Display for AdoptSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// Database endpoint that only the migration uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MigrationDatabase {
    /// Address of the server.
    pub endpoint: Endpoint,
    /// TLS to the server.
    pub tls: TlsSettings,
}

/// Kafka cluster that records are sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaSettings {
    /// Bootstrap servers, each as `host:port`.
    pub bootstrap_servers: Vec<String>,
    /// TLS to the brokers.
    pub tls: TlsSettings,
    /// SASL login; if absent, there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<SaslSettings>,
    /// Properties of librdkafka: `linger.ms` and `compression.type`, if set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// SASL login. The password is in a secret file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SaslSettings {
    /// SASL mechanism.
    pub mechanism: SaslMechanism,
    /// User name.
    pub username: String,
}

/// A topic that may be published to, and the rows without a topic that are routed to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TopicSettings {
    /// Name of the Kafka topic.
    pub name: String,
    /// Event types that are routed to the topic. They take precedence over aggregate types.
    #[serde(default)]
    pub event_types: Vec<String>,
    /// Aggregate types that are routed to the topic.
    #[serde(default)]
    pub aggregate_types: Vec<String>,
    /// What happens to a row that Kafka rejects for good.
    #[serde(default)]
    pub on_poison: OnPoison,
}

impl RelaySettings {
    /// [`Self::poll_interval_ms`] as a duration.
    #[must_use]
    pub fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms)
    }

    /// Whether the topic is declared, so that rows may be published to it.
    #[must_use]
    pub fn declares(&self, topic: &str) -> bool {
        self.topics.iter().any(|declared| declared.name == topic)
    }
}

/// A valid schema name: it matches `^[a-z_][a-z0-9_]{0,62}$` and does not start with `pg_`, so that
/// it is safe in SQL, quoted or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SchemaName(String);

/// The text is not a valid [`SchemaName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a valid schema name: use 1 to 63 characters of a-z, 0-9 and _, and do not start \
     with a digit or pg_"
)]
pub struct InvalidSchemaName(String);

impl TryFrom<String> for SchemaName {
    type Error = InvalidSchemaName;

    fn try_from(name: String) -> Result<Self, InvalidSchemaName> {
        if is_schema_name(&name) {
            Ok(Self(name))
        } else {
            Err(InvalidSchemaName(name))
        }
    }
}

fn is_schema_name(name: &str) -> bool {
    name.starts_with(can_begin_schema_name)
        && name.chars().all(can_be_in_schema_name)
        && name.len() <= 63
        && !name.starts_with("pg_")
}

/// Whether the name of a schema may begin with this character.
fn can_begin_schema_name(c: char) -> bool {
    c.is_ascii_lowercase() || c == '_'
}

/// Whether the name of a schema may contain this character.
fn can_be_in_schema_name(c: char) -> bool {
    can_begin_schema_name(c) || c.is_ascii_digit()
}

impl From<SchemaName> for String {
    fn from(name: SchemaName) -> Self {
        name.0
    }
}

impl SchemaName {
    /// Name without quotes.
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
