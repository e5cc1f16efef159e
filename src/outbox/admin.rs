//! The on-call's desk: what people ask of an outbox, and what they do with rows that were put
//! aside. IO; every statement goes through [`AdminClient::rows`].

mod dead_letters;
mod overview;
mod parked;

use std::time::Duration;

use sqlx::{SqlStr, postgres::PgRow};
use uuid::Uuid;

use crate::{
    outbox::{
        connect::{Connect, ConnectError},
        schema::{SchemaError, SchemaState, statement},
        store::{StoreError, failed},
        unit_of_work::{Connections, Statement},
    },
    report::{Problem, ProblemClass},
    secrets::{SecretError, Secrets},
    settings::{Owner, RelaySettings, SchemaName},
};

pub use dead_letters::{Contents, DeadLetter, DeadLetterId, Detail};
pub use overview::{Overview, PutAside, PutAsideKind, RelaySeen, Waiting};
pub use parked::ParkedEntry;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The relay's user, which may read all of it.
    Relay,
    /// The user of `migration.database` where its secrets are at hand, else the relay's: owner of
    /// the tables.
    Owner,
}

/// Why a question was not answered, or nothing done.
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
    /// As people see it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Connect(error) => error.problem(),
            Self::Schema(error) => error.problem(),
            Self::Statement(error) => told(error),
        }
    }
}

/// What a relay does about it by itself, a person has to do.
fn told(error: &StoreError) -> Problem {
    let problem = error.problem();
    let next = match problem.class {
        ProblemClass::InsufficientPrivilege => {
            "that takes the schema's owner; its credentials, of spec.migration.database, are used \
             where they are at hand"
        }
        ProblemClass::LockTimeout => {
            "a transaction holds on to it, such as a writer of the same key: call this again"
        }
        _ => return problem,
    };
    Problem::new(problem.class, format!("{error}: {next}"))
}

/// Which of the rows that were put aside; absent: any.
#[derive(Clone, Default)]
pub struct Filter {
    pub topic: Option<String>,
    pub key: Option<String>,
    pub class: Option<String>,
    /// Put aside at least so long ago.
    pub older_than: Option<Duration>,
    pub event_id: Option<Uuid>,
    /// At most so many; absent: all.
    pub limit: Option<u64>,
}

/// A connection for people.
pub struct AdminClient {
    connections: Connections,
    schema: SchemaName,
}

impl AdminClient {
    /// Connects, and sees that the schema fits this version.
    ///
    /// # Errors
    /// When the database cannot be reached, or the schema is missing, older or too new.
    pub async fn open(
        settings: &RelaySettings,
        secrets: &Secrets,
        who: Role,
    ) -> Result<Self, AdminError> {
        let connect = match who {
            Role::Relay => Connect::relay(&settings.database, secrets),
            Role::Owner => owner(settings, secrets),
        }?;
        // Not only by the pool: it tries for seconds, and then cannot say why it failed.
        drop(connect.open().await?);
        let desk = Self {
            connections: Connections::new(&connect, 1, &[]),
            schema: settings.database.schema.clone(),
        };
        desk.state().await?.judge(&desk.schema)?;
        Ok(desk)
    }

    /// Who manages the schema, and its level.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn owner(&self) -> Result<Option<Owner>, AdminError> {
        Ok(self.state().await?.owner)
    }

    /// Frees the schema for another OutboxRelay; false: it is not this one's any more.
    ///
    /// # Errors
    /// When the database fails; then it may be free, or not.
    pub async fn release_owner(&self, owner: &Owner) -> Result<bool, AdminError> {
        let release = sqlx::query(self.sql(include_str!("sql/admin/release_owner.sql")));
        let release = release
            .bind(&owner.cluster)
            .bind(&owner.namespace)
            .bind(&owner.name);
        Ok(!self.rows("release the schema", release).await?.is_empty())
    }

    async fn state(&self) -> Result<SchemaState, SchemaError> {
        SchemaState::ask_for(&self.connections, &self.schema).await
    }

    fn sql(&self, template: &'static str) -> SqlStr {
        statement(template, &self.schema)
    }

    /// All rows of one statement, which is a transaction of its own.
    async fn rows(
        &self,
        operation: &'static str,
        statement: Statement<'_>,
    ) -> Result<Vec<PgRow>, StoreError> {
        self.connections
            .rows(statement)
            .await
            .map_err(failed(operation))
    }
}

/// A pod of a relay has no credentials of the owner; its user may have been given the rights by
/// hand.
fn owner(settings: &RelaySettings, secrets: &Secrets) -> Result<Connect, ConnectError> {
    match Connect::migration(settings, secrets) {
        Err(ConnectError::Secret(SecretError::Missing { .. })) => {
            Connect::relay(&settings.database, secrets)
        }
        connect => connect,
    }
}

/// The five conditions and the limit of a filter, as $1 to $6.
fn filtered<'q>(sql: SqlStr, filter: &'q Filter) -> Statement<'q> {
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
