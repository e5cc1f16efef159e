//! The codes of all checks, and what each of them is about. Codes are stable: scripts and runbooks
//! refer to them. Pure.

use std::{fmt, str::FromStr};

use serde::Serialize;

/// What a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Code {
    Settings,
    DatabaseLogin,
    DatabaseTls,
    ServerVersion,
    ServerPrimary,
    ServerEncoding,
    ServerClock,
    ServerFunctions,
    SessionTimeouts,
    ConnectionLimit,
    Autovacuum,
    OldTransactions,
    MigrationLogin,
    MigrationRights,
    RolesExist,
    SchemaLevel,
    SchemaDefinition,
    RelayRights,
    RelaysActive,
    RowsWaiting,
    Parked,
    DeadLetters,
    KafkaLogin,
    KafkaTls,
    TopicExists,
    TopicReplicas,
    TopicSize,
    TopicTimestamps,
}

/// Checks of one kind, in the order in which they depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Group {
    Settings,
    Database,
    Schema,
    Outbox,
    Kafka,
    Topics,
}

impl Group {
    /// Heading of the group in the text.
    #[must_use]
    pub fn heading(self) -> &'static str {
        match self {
            Self::Settings => "Settings",
            Self::Database => "Database",
            Self::Schema => "Schema and rights",
            Self::Outbox => "What waits",
            Self::Kafka => "Kafka",
            Self::Topics => "Topics",
        }
    }
}

impl Code {
    /// All codes, in the order of a report.
    pub const ALL: [Self; 28] = [
        Self::Settings,
        Self::DatabaseLogin,
        Self::DatabaseTls,
        Self::ServerVersion,
        Self::ServerPrimary,
        Self::ServerEncoding,
        Self::ServerClock,
        Self::ServerFunctions,
        Self::SessionTimeouts,
        Self::ConnectionLimit,
        Self::Autovacuum,
        Self::OldTransactions,
        Self::MigrationLogin,
        Self::MigrationRights,
        Self::RolesExist,
        Self::SchemaLevel,
        Self::SchemaDefinition,
        Self::RelayRights,
        Self::RelaysActive,
        Self::RowsWaiting,
        Self::Parked,
        Self::DeadLetters,
        Self::KafkaLogin,
        Self::KafkaTls,
        Self::TopicExists,
        Self::TopicReplicas,
        Self::TopicSize,
        Self::TopicTimestamps,
    ];

    /// The group of the check.
    #[must_use]
    pub fn group(self) -> Group {
        match self {
            Self::Settings => Group::Settings,
            Self::DatabaseLogin
            | Self::DatabaseTls
            | Self::ServerVersion
            | Self::ServerPrimary
            | Self::ServerEncoding
            | Self::ServerClock
            | Self::ServerFunctions
            | Self::SessionTimeouts
            | Self::ConnectionLimit
            | Self::Autovacuum
            | Self::OldTransactions => Group::Database,
            Self::MigrationLogin
            | Self::MigrationRights
            | Self::RolesExist
            | Self::SchemaLevel
            | Self::SchemaDefinition
            | Self::RelayRights => Group::Schema,
            Self::RelaysActive | Self::RowsWaiting | Self::Parked | Self::DeadLetters => {
                Group::Outbox
            }
            Self::KafkaLogin | Self::KafkaTls => Group::Kafka,
            Self::TopicExists | Self::TopicReplicas | Self::TopicSize | Self::TopicTimestamps => {
                Group::Topics
            }
        }
    }

    /// What the check looks at, why it matters, and what to do.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Settings => {
                "The manifest, or the settings and secrets of a pod, can be read and can work. All \
                 rules of the CRD apply. Next: correct the field that the message has."
            }
            Self::DatabaseLogin => {
                "The relay's user can log in with the Secret as it is now, and how long connecting \
                 took. A running relay may still use an older Secret: then a fault here is an \
                 outage at its next restart. Next: the message has host, user and cause. In a URL, \
                 a password needs percent-encoding."
            }
            Self::DatabaseTls => {
                "Whether the connection to the database is encrypted and verified. Without \
                 verification, any server at the address gets passwords and payloads. Next: \
                 spec.database.tls, docs/security.md."
            }
            Self::ServerVersion => {
                "The server is PostgreSQL 15 or newer, not a product that only speaks its \
                 protocol. Order rests on snapshots, sequences and transaction ids: \
                 docs/servers.md."
            }
            Self::ServerPrimary => {
                "The server accepts writes: it is not in recovery, and no setting makes \
                 transactions read-only. Next: use the address of the primary."
            }
            Self::ServerEncoding => {
                "The database has encoding UTF8. In another one, a row can have text that cannot \
                 become UTF-8, and such a row is parked. Next: a database in UTF8, or texts in \
                 ASCII."
            }
            Self::ServerClock => {
                "The clock of the database, compared with the clock here. Timestamps of records \
                 follow the database, so brokers reject or delete records early if that clock is \
                 wrong. A wrong clock here changes nothing that is published. Next: NTP."
            }
            Self::ServerFunctions => {
                "Functions that the outbox asks and can do without. Each one that the server \
                 refuses costs one check after a restore or a failover: docs/servers.md."
            }
            Self::SessionTimeouts => {
                "Settings of the role or the database that end statements, transactions or idle \
                 sessions after less than a second. The relay sets its own where it can. Next: \
                 alter role ... reset."
            }
            Self::ConnectionLimit => {
                "The server, the database and the role allow as many connections as \
                 spec.database.maxConnections of each relay. Next: raise the limit, or lower \
                 maxConnections or the number of relays."
            }
            Self::Autovacuum => {
                "Autovacuum is on, for the server and for table event. An outbox is all dead rows: \
                 without vacuum, fetches get slower and slower."
            }
            Self::OldTransactions => {
                "The oldest transaction that keeps vacuum from removing dead rows. Next: end it, \
                 docs/runbooks/OutboxXminHeld.md."
            }
            Self::MigrationLogin => {
                "The user of the migration (spec.migration.database) can log in. In a pod of a \
                 relay its Secret is not available."
            }
            Self::MigrationRights => {
                "The user of the migration owns the schema, or may create it. Next: grant create \
                 on database, or let an administrator create the schema for it."
            }
            Self::RolesExist => {
                "The roles in spec.migration.grants exist. Next: create them before the migration."
            }
            Self::SchemaLevel => {
                "The schema is at the level that this version needs, and belongs to this \
                 OutboxRelay. Next: outbox-relay migrate, or the operator's Job; docs/cli.md for \
                 another owner."
            }
            Self::SchemaDefinition => {
                "Tables, sequence, functions and triggers are as the migrations left them. A \
                 changed sequence, such as cache 50, breaks the order of keys. Next: outbox-relay \
                 migrate repairs it."
            }
            Self::RelayRights => {
                "The relay's user has all rights that it needs. Next: run the migration again, or \
                 run the GRANT that the message has."
            }
            Self::RelaysActive => {
                "Each of the 64 lanes has a relay with a valid lease, and no breaker is open. \
                 Next: are relays running? outbox-relay status."
            }
            Self::RowsWaiting => {
                "Rows that wait, and for how long. Next: the other lines say why; \
                 docs/troubleshooting.md."
            }
            Self::Parked => {
                "Topics and keys that are parked: their rows wait for a person. Next: outbox-relay \
                 parked list."
            }
            Self::DeadLetters => {
                "Rows that Kafka rejected and that were moved to dead_letter. Next: outbox-relay \
                 dead-letters list."
            }
            Self::KafkaLogin => {
                "The brokers answer, and accept the login with the Secret as it is now. Next: \
                 spec.kafka.bootstrapServers, sasl, tls and network."
            }
            Self::KafkaTls => {
                "Whether the connection to the brokers is encrypted and verified. Next: \
                 spec.kafka.tls."
            }
            Self::TopicExists => {
                "The topic exists, the relay's user may describe it, and each partition has a \
                 leader. Relays create no topic. Next: create it, or allow WRITE and DESCRIBE."
            }
            Self::TopicReplicas => {
                "The topic keeps enough copies for the promise that nothing is lost: 3 replicas \
                 and min.insync.replicas=2."
            }
            Self::TopicSize => {
                "The largest record that the topic takes (max.message.bytes). Larger rows are \
                 parked, or become dead letters."
            }
            Self::TopicTimestamps => {
                "Limits of timestamps and retention of the topic. Rows that waited longer get a \
                 later timestamp: docs/records.md. With a retention of minutes, consumers that are \
                 late lose records."
            }
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A text that is no code.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no code of a check; codes are: {codes}", codes = all_codes())]
pub struct UnknownCode(String);

fn all_codes() -> String {
    Code::ALL.map(|code| code.to_string()).join(", ")
}

/// Reads a code in any case.
impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let is_named = |code: &&Self| code.to_string().eq_ignore_ascii_case(text);
        let found = Self::ALL.iter().find(is_named);
        found.copied().ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_listed_once_in_the_order_of_its_group_and_explained() {
        for pair in Code::ALL.windows(2) {
            assert!(
                pair[0] < pair[1] && pair[0].group() <= pair[1].group(),
                "{pair:?}"
            );
        }
        for code in Code::ALL {
            assert!(code.explanation().len() > 60, "{code}");
            assert_eq!(
                code.to_string()
                    .to_lowercase()
                    .parse::<Code>()
                    .expect("a code"),
                code
            );
        }
        let unknown = "Nothing".parse::<Code>().expect_err("no code");
        assert!(unknown.to_string().contains("DatabaseLogin"), "{unknown}");
    }
}
