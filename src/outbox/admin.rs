//! Access of the command line to an outbox: its state, dead letters, parked topics and keys, and
//! the owner of the schema. IO; every statement goes through [`AdminClient::rows`].

mod dead_letters;
mod event;
mod labels;
mod overview;
mod parked;

use std::time::Duration;

use sqlx::{SqlStr, postgres::PgRow};
use uuid::Uuid;

use crate::{
    outbox::{
        connect::{Connect, ConnectError},
        schema::{SchemaError, SchemaState, statement},
        store::{Operation, StoreError, failed},
        unit_of_work::{Connections, Statement},
    },
    report::{Problem, ProblemClass},
    secrets::{SecretError, Secrets},
    settings::{Owner, RelaySettings, SchemaName},
};

pub use dead_letters::{Contents, DeadLetter, DeadLetterId, Detail};
pub use event::{DeadEvent, FoundEvent, LaneRelay, Obstacles, ParkedKeyHead, ROWS_BEFORE_MAX};
pub use labels::{LabelSource, LabeledRow};
pub use overview::{Attention, AttentionKind, Overview, RelayEntry, Waiting};
pub use parked::ParkedEntry;

/// Database user that a command logs in as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The relay's user, which may read everything.
    Relay,
    /// The owner of the tables: the user of `migration.database` when its secrets are available,
    /// else the relay's user.
    Owner,
}

/// Why a command could not read or change the outbox.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Statement(#[from] StoreError),
}

impl AdminError {
    /// Converts the error for people: a class and a sentence.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Connect(error) => error.problem(),
            Self::Schema(error) => error.problem(),
            Self::Statement(error) => with_next_step(error),
        }
    }
}

/// Adds the next step for errors from which a relay recovers automatically, but a command does not.
fn with_next_step(error: &StoreError) -> Problem {
    let problem = error.problem();
    match next_step(problem.class) {
        Some(next) => Problem::new(problem.class, format!("{error}: {next}")),
        None => problem,
    }
}

fn next_step(class: ProblemClass) -> Option<&'static str> {
    match class {
        ProblemClass::InsufficientPrivilege => Some(
            "this needs the owner of the schema; its credentials (spec.migration.database) are \
             used where they are available",
        ),
        ProblemClass::LockTimeout => Some(
            "another transaction holds the lock, such as a writer of the same key: run the command \
             again",
        ),
        _ => None,
    }
}

/// Selects dead letters, parked topics and parked keys. All conditions must hold.
#[derive(Clone, Default)]
pub struct Filter {
    pub topic: Option<String>,
    pub key: Option<String>,
    /// Why Kafka rejected the row.
    pub class: Option<String>,
    /// Minimum time since it was parked or moved.
    pub older_than: Option<Duration>,
    pub event_id: Option<Uuid>,
    /// Maximum number of results, oldest first; `None`: all.
    pub limit: Option<u64>,
}

/// Connection of a command to an outbox.
pub struct AdminClient {
    connections: Connections,
    schema: SchemaName,
}

impl AdminClient {
    /// Connects and checks that this version can use the schema.
    ///
    /// # Errors
    /// Returns an error when the database cannot be reached, or the schema is missing, older or too
    /// new.
    ///
    /// # Cancel safety
    /// Cancel safe: the server sees a connection that closes.
    pub async fn open(
        settings: &RelaySettings,
        secrets: &Secrets,
        role: Role,
    ) -> Result<Self, AdminError> {
        let connect = match role {
            Role::Relay => Connect::relay(&settings.database, secrets),
            Role::Owner => owner_or_relay(settings, secrets),
        }?;
        // The pool tries for seconds and then cannot report why it failed. Connecting once without
        // it fails at once, with the reason.
        drop(connect.open().await?);
        let client = Self {
            connections: Connections::new(&connect, 1, &[]),
            schema: settings.database.schema.clone(),
        };
        client.state().await?.check_level(&client.schema)?;
        Ok(client)
    }

    /// Reads the owner of the schema.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn owner(&self) -> Result<Option<Owner>, AdminError> {
        Ok(self.state().await?.owner)
    }

    /// Releases the schema for another OutboxRelay. Returns false when `owner` does not own it any
    /// more.
    ///
    /// # Errors
    /// Returns an error when the database fails. The schema may be released then, or not.
    ///
    /// # Cancel safety
    /// If dropped midway, the schema may be released, or not.
    pub async fn release_owner(&self, owner: &Owner) -> Result<bool, AdminError> {
        let release = sqlx::query(self.sql(include_str!("sql/admin/release_owner.sql")))
            .bind(&owner.cluster)
            .bind(&owner.namespace)
            .bind(&owner.name);
        let rows = self.rows(Operation::ReleaseOwner, release).await?;
        Ok(!rows.is_empty())
    }

    async fn state(&self) -> Result<SchemaState, SchemaError> {
        SchemaState::fetch(&self.connections, &self.schema).await
    }

    fn sql(&self, template: &'static str) -> SqlStr {
        statement(template, &self.schema)
    }

    /// Runs one statement in a transaction of its own and returns all its rows.
    async fn rows(
        &self,
        operation: Operation,
        statement: Statement<'_>,
    ) -> Result<Vec<PgRow>, StoreError> {
        self.connections
            .rows(statement)
            .await
            .map_err(failed(operation))
    }

    /// Runs one statement in a transaction of its own and returns its first row.
    async fn row(
        &self,
        operation: Operation,
        statement: Statement<'_>,
    ) -> Result<PgRow, StoreError> {
        self.connections
            .row(statement)
            .await
            .map_err(failed(operation))
    }

    /// Runs one statement in a transaction of its own and decodes its first row.
    async fn decoded_row<T>(
        &self,
        operation: Operation,
        statement: Statement<'_>,
        decode: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
    ) -> Result<T, AdminError> {
        let row = self.row(operation, statement).await?;
        Ok(decode(&row).map_err(failed(operation))?)
    }

    /// Runs one statement in a transaction of its own and decodes all its rows.
    async fn decoded<T>(
        &self,
        operation: Operation,
        statement: Statement<'_>,
        decode: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, AdminError> {
        let rows = self.rows(operation, statement).await?;
        let decoded: Result<_, _> = rows.iter().map(decode).collect();
        Ok(decoded.map_err(failed(operation))?)
    }
}

/// Connects as the owner of the tables when its credentials are available, else as the relay's
/// user.
///
/// The pod of a relay does not have the owner's credentials. Its user may have been granted the
/// rights by hand.
fn owner_or_relay(settings: &RelaySettings, secrets: &Secrets) -> Result<Connect, ConnectError> {
    match Connect::migration(settings, secrets) {
        Err(ConnectError::Secret(SecretError::Missing { .. })) => {
            Connect::relay(&settings.database, secrets)
        }
        connect => connect,
    }
}

/// Binds the five conditions and the limit of a filter as `$1` to `$6`.
fn bind_filter<'q>(sql: SqlStr, filter: &'q Filter) -> Statement<'q> {
    let older_than_ms = filter
        .older_than
        .map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let limit = filter
        .limit
        .map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
    sqlx::query(sql)
        .bind(&filter.topic)
        .bind(&filter.key)
        .bind(&filter.class)
        .bind(older_than_ms)
        .bind(filter.event_id)
        .bind(limit)
}
