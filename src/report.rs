//! `RelayReport` and `MigrationReport`: the seam from relay to operator. A relay serves its report
//! at `/status`, a migration writes its report as termination message, and the operator reads both.
//! Reports contain no secrets, no payloads and no texts of servers. Constants that both halves must
//! agree on are here, too.

use std::{convert::Infallible, fmt, str::FromStr, time::Duration};

use serde::{
    Deserialize, Serialize,
    de::{IntoDeserializer, value::StrDeserializer},
};

pub use crate::api::BreakerState;

/// Number of lanes of every outbox: hash buckets of keys. It never changes, because rows of one key
/// must stay in one lane.
pub const LANES: usize = 64;

/// Time span over which [`RelayReport::published_per_second`] is averaged, 10 s.
pub const RATE_SPAN: Duration = Duration::from_secs(10);

/// TCP port on which a relay serves `/healthz`, `/readyz`, `/metrics` and `/status`.
pub const HTTP_PORT: u16 = 9090;

/// Status report of one relay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayReport {
    /// Random identity of the process, new at every start.
    pub instance: String,
    /// Version of the relay.
    pub version: String,
    /// Schema level of the database; absent until the relay has connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<i64>,
    /// Number of lanes that the relay owns, 0 to [`LANES`].
    pub lanes: u32,
    /// Waiting rows in the relay's own lanes; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<Backlog>,
    /// Number of parked keys in the whole table. Only the relay that owns lane 0 reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_keys: Option<u64>,
    /// Number of topics that a person parked. Only the relay that owns lane 0 reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_topics: Option<u64>,
    /// Number of rows in `dead_letter`. Only the relay that owns lane 0 reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<u64>,
    /// Records acknowledged per second, averaged over [`RATE_SPAN`].
    pub published_per_second: f64,
    /// State of the circuit breaker; absent in reports of an older relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// Problems that a person should look at, most urgent first.
    #[serde(default)]
    pub problems: Vec<Problem>,
}

/// State of the circuit breaker on Kafka's acknowledgements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// Current state.
    pub state: BreakerState,
    /// Time at which the breaker entered the state, RFC 3339.
    pub since: String,
}

/// Waiting rows of one relay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backlog {
    /// Number of rows in the relay's lanes, exact up to a cap.
    pub rows: u64,
    /// Whether counting stopped at the cap: there are at least `rows` rows.
    pub capped: bool,
    /// `created_at` of the oldest row, RFC 3339; absent if no row is waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_at: Option<String>,
    /// Since when the oldest row waits, RFC 3339: its `created_at` or, if that is ahead of the
    /// database's clock, when the relay first saw rows wait. Absent if no row is waiting, and in
    /// reports of an older relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<String>,
    /// Time of the database at which the rows were counted, RFC 3339; absent in reports of an older
    /// relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_at: Option<String>,
}

/// A problem that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Class of the problem.
    pub class: ProblemClass,
    /// What is wrong, why, and what to do next; at most [`PROBLEM_MESSAGE_BYTES_MAX`] bytes.
    pub message: String,
    /// Whether this is about a secret that cannot be used, while the last good one is still in use.
    #[serde(default)]
    pub last_good_used: bool,
    /// Whether nothing waits because of it, although problems of its class can stop a topic.
    #[serde(default)]
    pub advice: bool,
    /// Time since when there is a problem of this class, RFC 3339; absent in reports of an older
    /// relay or a migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// Longest message of a [`Problem`] in bytes.
pub const PROBLEM_MESSAGE_BYTES_MAX: usize = 256;

impl Problem {
    /// A problem with this message; a message that is too long is cut and ends in `...`.
    #[must_use]
    pub fn new(class: ProblemClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: cut(message.into()),
            last_good_used: false,
            advice: false,
            since: None,
        }
    }

    /// Marks the problem as one of a secret that cannot be used, while the last good one is still
    /// in use.
    #[must_use]
    pub fn with_last_good_used(self) -> Self {
        Self {
            last_good_used: true,
            ..self
        }
    }

    /// Marks the problem as one that stops nothing.
    #[must_use]
    pub fn as_advice(self) -> Self {
        Self {
            advice: true,
            ..self
        }
    }

    /// Whether a person must act: the problem does not end automatically, and something waits for
    /// that, or will.
    #[must_use]
    pub fn needs_person(&self) -> bool {
        !self.advice && self.class.needs_person()
    }

    /// Cuts the message of a problem that another process wrote, if it is too long.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self {
            message: cut(self.message),
            ..self
        }
    }
}

/// End of a message that was cut.
const CUT: &str = "...";

/// Cuts a message that is longer than [`PROBLEM_MESSAGE_BYTES_MAX`].
fn cut(mut message: String) -> String {
    if message.len() > PROBLEM_MESSAGE_BYTES_MAX {
        let end = message.floor_char_boundary(PROBLEM_MESSAGE_BYTES_MAX - CUT.len());
        message.truncate(end);
        message.push_str(CUT);
    }
    message
}

/// Classes of problems, a closed set; documented in docs/reasons.md. An older reader reads a newer
/// class as `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProblemClass {
    /// The database refused the user name or password.
    AuthenticationFailed,
    /// The database user lacks a right.
    InsufficientPrivilege,
    /// A lock could not be acquired in time.
    LockTimeout,
    /// Another OutboxRelay manages the schema.
    SchemaClaimedByOther,
    /// The schema is newer than this version supports.
    NewerSchema,
    /// The schema is missing or older than this version needs.
    SchemaNotReady,
    /// Somebody changed the table of events by hand; relays continue.
    TableChanged,
    /// The database server's certificate was refused, or it does not speak TLS.
    TlsFailed,
    /// The database cannot be reached.
    Unreachable,
    /// The database does not exist on the server.
    DatabaseMissing,
    /// The database is read-only.
    DatabaseReadOnly,
    /// The database server's disk, or a limit of the space it may use, is full.
    DatabaseFull,
    /// A role in the grants does not exist.
    RoleMissing,
    /// A file that a Secret or ConfigMap should contain is missing.
    SecretMissing,
    /// A secret file has content that cannot be used.
    SecretInvalid,
    /// The settings cannot be read or cannot work.
    InvalidSettings,
    /// Any other error of the database.
    DatabaseError,
    /// No broker can be reached.
    KafkaUnreachable,
    /// The brokers refused the login.
    KafkaAuthenticationFailed,
    /// The brokers' certificate was refused, or they do not speak TLS.
    KafkaTlsFailed,
    /// A declared topic does not exist.
    TopicMissing,
    /// The brokers do not let this user write to a topic.
    TopicNotAuthorized,
    /// Rows have a topic that the manifest does not declare, or a type that it does not route.
    TopicNotDeclared,
    /// A topic keeps fewer copies than the no-loss contract needs.
    TopicUnderReplicated,
    /// Records of a topic are not acknowledged while later ones of others are.
    TopicStalled,
    /// The clocks of the database, of a relay's node or of brokers are more than a minute apart, or
    /// the brokers of a topic reject the present time of the database.
    ClockSkew,
    /// A quota of the brokers holds requests back: rows are published more slowly.
    KafkaThrottled,
    /// A topic got more partitions: the order of a key does not hold across that moment.
    PartitionsAdded,
    /// The brokers rejected a record for good.
    RecordRejected,
    /// A record is larger than its topic accepts.
    RecordTooLarge,
    /// A row has text that cannot become UTF-8.
    RowUnreadable,
    /// Ids of the outbox may have been drawn twice, after a restore, a failover or a TRUNCATE: the
    /// sequence is moved forward, or was.
    SequenceWentBack,
    /// Keys are parked: behind a record that Kafka rejects, or by a person.
    KeysParked,
    /// A person parked a topic or a key.
    ParkedByHand,
    /// A row of an adopted table could not be converted into an event.
    AdoptionFailed,
    /// A table cannot be adopted as the manifest says.
    AdoptionRefused,
    /// Any other error of Kafka.
    KafkaError,
    /// A class of a newer version.
    #[serde(other)]
    Other,
}

impl ProblemClass {
    /// Whether problems of this class need a person. The others end when a server is back, or the
    /// relay ends them.
    #[must_use]
    pub fn needs_person(self) -> bool {
        !matches!(
            self,
            Self::LockTimeout
                | Self::SchemaNotReady
                | Self::Unreachable
                | Self::DatabaseReadOnly
                | Self::DatabaseError
                | Self::KafkaUnreachable
                | Self::KafkaError
                | Self::KafkaThrottled
                | Self::TopicStalled
                | Self::PartitionsAdded
                | Self::SequenceWentBack
                | Self::Other
        )
    }
}

impl fmt::Display for ProblemClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Reads a name as [`fmt::Display`] writes it. A name that this version does not know is `Other`.
impl FromStr for ProblemClass {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Self, Infallible> {
        let name: StrDeserializer<'_, serde::de::value::Error> = name.into_deserializer();
        Ok(Self::deserialize(name).unwrap_or(Self::Other))
    }
}

/// Result of a migration. Its exit code decides whether it succeeded; the report
/// explains it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationReport {
    /// Schema level after the migration; absent if it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<i64>,
    /// Levels that this run applied, in order.
    #[serde(default)]
    pub applied: Vec<i64>,
    /// Deviations that did not fail the migration, such as a missing compression method.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Why the migration failed; absent if it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_way_to_the_operator() {
        let report = RelayReport {
            instance: "7d6f".to_owned(),
            version: "0.1.0".to_owned(),
            schema_version: Some(1),
            lanes: 32,
            backlog: Some(Backlog {
                rows: 7,
                capped: false,
                oldest_at: Some("2026-01-01T00:00:00Z".to_owned()),
                waiting_since: Some("2026-01-01T00:00:00Z".to_owned()),
                measured_at: Some("2026-01-01T00:00:01Z".to_owned()),
            }),
            parked_keys: Some(1),
            parked_topics: Some(0),
            dead_letters: Some(3),
            published_per_second: 12.5,
            breaker: Some(Breaker {
                state: BreakerState::Open,
                since: "2026-01-01T00:00:00Z".to_owned(),
            }),
            problems: vec![
                Problem::new(ProblemClass::TopicMissing, "topic 'a' does not exist"),
                Problem::new(
                    ProblemClass::AuthenticationFailed,
                    "the new secret is not used",
                )
                .with_last_good_used(),
            ],
        };
        let text = serde_json::to_string(&report).expect("plain data");
        assert_eq!(
            serde_json::from_str::<RelayReport>(&text).expect("our own text"),
            report
        );
    }

    #[test]
    fn a_class_of_a_newer_relay_is_read_as_other() {
        let problem: Problem = serde_json::from_str(r#"{"class":"FromTheFuture","message":"m"}"#)
            .expect("a newer class");
        assert_eq!(problem.class, ProblemClass::Other);
    }

    #[test]
    fn a_class_is_read_from_its_name_and_an_unknown_one_is_other() {
        for class in [
            ProblemClass::RecordRejected,
            ProblemClass::ParkedByHand,
            ProblemClass::Other,
        ] {
            assert_eq!(class.to_string().parse(), Ok(class));
        }
        assert_eq!("FromTheFuture".parse(), Ok(ProblemClass::Other));
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        assert!(
            Problem::new(ProblemClass::Other, "ä".repeat(300))
                .message
                .len()
                <= 256
        );
    }
}
