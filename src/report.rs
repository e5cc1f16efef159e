//! `RelayReport` and `MigrationReport`: the seam from relay to operator. A relay serves the first
//! at `/status`, a migration leaves the second as its termination message; the operator reads both.
//! No secret, no payload, no server's own words are in them. Constants that both halves must agree
//! on are here, too.

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

/// What one relay replica says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayReport {
    /// Identity of the process, new at every start.
    pub instance: String,
    /// Version of the relay.
    pub version: String,
    /// Level of the schema that it found; absent until the database was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<i64>,
    /// Lanes that it owns, 0 to 64.
    pub lanes: u32,
    /// Rows that wait in its own lanes; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<Backlog>,
    /// Keys that are parked, in the whole table. This and the next two come from the relay that
    /// owns lane 0 alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_keys: Option<u64>,
    /// Topics that a person parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_topics: Option<u64>,
    /// Rows in `dead_letter`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<u64>,
    /// Records acknowledged per second, over the last 10 s.
    pub published_per_second: f64,
    /// Whether Kafka takes its records; absent: an older relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// What a person should look at, most urgent first.
    #[serde(default)]
    pub problems: Vec<Problem>,
}

/// The breaker towards Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    pub state: BreakerState,
    /// When it got there, RFC 3339.
    pub since: String,
}

/// Rows that wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backlog {
    /// Rows in the reporter's lanes, exact up to a cap.
    pub rows: u64,
    /// True: there are at least `rows`, counting stopped there.
    pub capped: bool,
    /// `created_at` of the oldest row, RFC 3339; absent when none waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_at: Option<String>,
}

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    pub class: ProblemClass,
    /// What, why, and what to do next; at most 256 bytes.
    pub message: String,
    /// A secret cannot be used as it is now; rows flow with the last good one.
    #[serde(default)]
    pub last_good_used: bool,
    /// Since when there is one of this class, RFC 3339; absent: an older relay, or a migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

impl Problem {
    #[must_use]
    pub fn new(class: ProblemClass, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > 256 {
            let end = message.floor_char_boundary(253);
            message.truncate(end);
            message.push_str("...");
        }
        Self {
            class,
            message,
            last_good_used: false,
            since: None,
        }
    }

    /// The same about a secret that is not used, while the last good one is.
    #[must_use]
    pub fn with_last_good_used(self) -> Self {
        Self {
            last_good_used: true,
            ..self
        }
    }

    /// The same as somebody else wrote it, with a message of the size that it may have.
    #[must_use]
    pub fn bounded(self) -> Self {
        let Self { message, .. } = Self::new(self.class, &*self.message);
        Self { message, ..self }
    }
}

/// Classes of problems, a closed set; documented in docs/reasons.md. `Other` is what an older
/// reader makes of a newer class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProblemClass {
    /// User name or password were refused by the database.
    AuthenticationFailed,
    /// The database user lacks a right.
    InsufficientPrivilege,
    /// A lock was not to be had in time.
    LockTimeout,
    /// Another OutboxRelay manages the schema.
    SchemaClaimedByOther,
    /// The schema is newer than this version can work on.
    NewerSchema,
    /// The schema is missing or older than this version needs.
    SchemaNotReady,
    /// Somebody changed the table of events by hand; relays go on.
    TableChanged,
    /// The server's certificate was refused, or it does not speak TLS.
    TlsFailed,
    /// The database cannot be reached.
    Unreachable,
    /// The named database does not exist.
    DatabaseMissing,
    /// The database only allows reading.
    DatabaseReadOnly,
    /// The database server's disk, or a limit of the space it may use, is full.
    DatabaseFull,
    /// A role named in the grants does not exist.
    RoleMissing,
    /// A file that a Secret or ConfigMap should bring is missing.
    SecretMissing,
    /// A secret file holds something that cannot be used.
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
    /// Rows name a topic, or a type without a route, that the manifest does not declare.
    TopicNotDeclared,
    /// A topic keeps less copies than the no-loss contract needs.
    TopicUnderReplicated,
    /// Records of a topic are not acknowledged while later ones of others are.
    TopicStalled,
    /// A topic got more partitions: for a while the order of a key does not hold across that
    /// moment.
    PartitionsAdded,
    /// A record was refused by the brokers.
    RecordRejected,
    /// A record is larger than its topic takes.
    RecordTooLarge,
    /// Ids of the outbox came again, after a restore, a failover or a TRUNCATE: the sequence is
    /// moved on, or was.
    SequenceWentBack,
    /// Keys are parked: behind a record that Kafka refuses, or by a person.
    KeysParked,
    /// A person parked a topic or a key.
    ParkedByHand,
    /// Any other error of Kafka.
    KafkaError,
    /// Written by a newer version.
    #[serde(other)]
    Other,
}

impl fmt::Display for ProblemClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A name as [`fmt::Display`] writes it; one that this version does not know is `Other`.
impl FromStr for ProblemClass {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Self, Infallible> {
        let name: StrDeserializer<'_, serde::de::value::Error> = name.into_deserializer();
        Ok(Self::deserialize(name).unwrap_or(Self::Other))
    }
}

/// How a migration ended; its exit code decides, this explains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationReport {
    /// Level of the schema afterwards; absent when it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<i64>,
    /// Migrations applied in this run, in order.
    #[serde(default)]
    pub applied: Vec<i64>,
    /// What went on in another way than wished, such as a missing compression method.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Why it failed; absent: it succeeded.
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
