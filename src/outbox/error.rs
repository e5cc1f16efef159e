//! Errors of PostgreSQL and of the connection to it -> a class and a sentence: what, why, next
//! step. Pure.
//!
//! The server's own message is dropped: it can quote rows, and a status is read by people who may
//! not read the database.

mod network;
mod sqlstate;

use std::{error::Error, fmt};

use sqlx::{error::DatabaseError as ServerError, migrate::MigrateError};

use crate::report::{
    Problem,
    ProblemClass::{self, DatabaseError as Failed, Unreachable},
};
use network::{by_io, by_tls_setup};
pub use sqlstate::Phase;

/// Database error in a form that people may see. It is made from [`sqlx::Error`], whose own text is
/// dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DatabaseError {
    pub class: ProblemClass,
    message: String,
}

impl DatabaseError {
    /// Creates an error from a sentence that quotes no data.
    pub(crate) fn new(class: ProblemClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
        }
    }

    /// Converts the error for a report: a class and a sentence.
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem::new(self.class, self.message.clone())
    }
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        classify(&error)
    }
}

impl From<MigrateError> for DatabaseError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                classify(&error)
            }
            _ => Self::new(
                ProblemClass::DatabaseError,
                "the list of applied migrations does not match this version",
            ),
        }
    }
}

/// Class of an error of a statement, and a sentence for people. Recognizes errors of connections
/// that [`while_connecting`] or [`while_working`] marked.
#[must_use]
pub fn classify(error: &sqlx::Error) -> DatabaseError {
    match connection_error(error) {
        Some(connection) => connection.described(),
        None => classify_in(Phase::Working, error),
    }
}

/// Class of an error, and a sentence for people, by what was being done.
#[must_use]
pub fn classify_in(phase: Phase, error: &sqlx::Error) -> DatabaseError {
    match error {
        sqlx::Error::Database(answer) => by_answer(phase, answer.as_ref()),
        sqlx::Error::Io(error) => by_io(error),
        sqlx::Error::Tls(source) => by_tls_setup(source.as_ref()),
        other => {
            let (class, words) = by_client(other);
            DatabaseError::new(class, words)
        }
    }
}

/// Converts an error that the server sent.
fn by_answer(phase: Phase, answer: &dyn ServerError) -> DatabaseError {
    let code = answer.code().unwrap_or_default();
    let (class, words) = sqlstate::meaning(&code, answer.message(), phase);
    DatabaseError::new(class, words)
}

/// Class and words of an error of the client library itself.
fn by_client(error: &sqlx::Error) -> (ProblemClass, &'static str) {
    match error {
        sqlx::Error::Configuration(_) => sqlstate::UNUSABLE_SECRETS,
        sqlx::Error::PoolTimedOut => (
            Unreachable,
            "no connection was available in time: the server is slow to accept new ones, or all \
             of the relay's are busy; this is retried",
        ),
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            (Failed, "the connections were closed")
        }
        sqlx::Error::Protocol(_) => (
            Unreachable,
            "the peer does not speak the PostgreSQL protocol: check host and port",
        ),
        sqlx::Error::Migrate(_) => (
            Failed,
            "the list of applied migrations does not match this version",
        ),
        _ => (
            Failed,
            "the database returned something unexpected: check whether the schema was changed by \
             hand",
        ),
    }
}

/// Error of a connection, with the server's name for people.
#[derive(Debug)]
struct ConnectionError {
    phase: Phase,
    database: String,
    source: sqlx::Error,
}

impl ConnectionError {
    fn described(&self) -> DatabaseError {
        let DatabaseError { class, message } = classify_in(self.phase, &self.source);
        let message = format!("{self}: {message}");
        DatabaseError { class, message }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.phase {
            Phase::Connecting => "cannot connect to",
            Phase::Working => "lost the connection to",
        };
        write!(f, "{what} {}", self.database)
    }
}

impl Error for ConnectionError {}

/// Marks an error as one of connecting to `database`, which is its name for people. The type of
/// errors of statements is kept, because the two share their way to the caller.
pub(super) fn while_connecting(database: &str, source: sqlx::Error) -> sqlx::Error {
    marked(Phase::Connecting, database, source)
}

/// Marks an error as one of a connection to `database` that broke. Answers of the server stay as
/// they are.
pub(super) fn while_working(database: &str, source: sqlx::Error) -> sqlx::Error {
    match source {
        sqlx::Error::Io(_) => marked(Phase::Working, database, source),
        answer => answer,
    }
}

fn marked(phase: Phase, database: &str, source: sqlx::Error) -> sqlx::Error {
    sqlx::Error::AnyDriverError(Box::new(ConnectionError {
        phase,
        database: database.to_owned(),
        source,
    }))
}

fn connection_error(error: &sqlx::Error) -> Option<&ConnectionError> {
    match error {
        sqlx::Error::AnyDriverError(inner) => inner.downcast_ref(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
