//! Errors of PostgreSQL and of the connection to it -> a class and a sentence: what, why, next
//! step. Pure.
//!
//! The server's own message is dropped: it can quote rows, and a status is read by people who may
//! not read the database.

use std::{error::Error, io};

use sqlx::{error::DatabaseError as ServerError, migrate::MigrateError};

use crate::report::{
    Problem,
    ProblemClass::{
        self, AdoptionFailed, AuthenticationFailed, DatabaseError as Failed, DatabaseFull,
        DatabaseMissing, DatabaseReadOnly, InsufficientPrivilege, InvalidSettings, LockTimeout,
        RoleMissing, SchemaNotReady, SecretInvalid, Unreachable,
    },
};

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

/// Class of an error, and a sentence for people.
#[must_use]
pub fn classify(error: &sqlx::Error) -> DatabaseError {
    match error {
        sqlx::Error::Database(answer) => by_sqlstate(answer.as_ref()),
        sqlx::Error::Io(error) => by_io(error),
        sqlx::Error::Tls(source) => by_tls_setup(source.as_ref()),
        sqlx::Error::Configuration(_) => DatabaseError::new(
            SecretInvalid,
            "the connection's secrets cannot be used: check the URL, and that certificate and key \
             match and are in PEM form",
        ),
        sqlx::Error::PoolTimedOut => DatabaseError::new(
            Unreachable,
            "no connection was available in time: the server cannot be reached, refuses new \
             connections, or all our connections are busy",
        ),
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            DatabaseError::new(Failed, "the connections were closed")
        }
        sqlx::Error::Protocol(_) => DatabaseError::new(
            Unreachable,
            "the peer does not speak the PostgreSQL protocol: check host and port",
        ),
        sqlx::Error::Migrate(_) => DatabaseError::new(
            Failed,
            "the list of applied migrations does not match this version",
        ),
        _ => DatabaseError::new(
            Failed,
            "the database returned something unexpected: check whether the schema was changed by \
             hand",
        ),
    }
}

/// Converts an error that the server sent. The message of an unknown code contains the code.
fn by_sqlstate(answer: &dyn ServerError) -> DatabaseError {
    let code = answer.code().unwrap_or_default();
    match known_sqlstate(&code, answer) {
        Some((class, message)) => DatabaseError::new(class, message),
        None => DatabaseError::new(
            ProblemClass::DatabaseError,
            format!("the database returned SQLSTATE {code}; see its log for details"),
        ),
    }
}

/// Table of the server's error codes; `None` for any other code.
fn known_sqlstate(code: &str, answer: &dyn ServerError) -> Option<(ProblemClass, &'static str)> {
    match code {
        "28P01" => Some((
            AuthenticationFailed,
            "the server rejected the user name or password: correct the Secret; the new value is \
             used automatically",
        )),
        "28000" => Some((
            AuthenticationFailed,
            "the server does not allow this user to log in from here: check the user name, \
             pg_hba.conf, and whether TLS or a client certificate is required",
        )),
        "42501" => Some((
            InsufficientPrivilege,
            "the database user lacks a privilege: run the migration again, or grant it",
        )),
        "55P03" => Some((
            LockTimeout,
            "a lock was not available in time, because another session holds it; this is retried",
        )),
        "3D000" => Some((
            DatabaseMissing,
            "the database does not exist: create it, or correct its name",
        )),
        "3F000" | "42P01" | "42883" | "42703" => Some((
            SchemaNotReady,
            "the outbox schema is missing or older than this version needs: run the migration",
        )),
        "42804" | "42846" | "0A000" => Some((
            SchemaNotReady,
            "a column of the outbox does not have the type that the migrations gave it, probably \
             changed by hand: undo the change; outbox-relay migrate shows which one",
        )),
        "42704" => Some((
            RoleMissing,
            "a role does not exist: create it, or remove it from migration.grants",
        )),
        "25006" => Some((
            DatabaseReadOnly,
            "the database is read-only: if it is a standby, connect to the primary; else set \
             default_transaction_read_only to off",
        )),
        "53300" => Some((
            Unreachable,
            "the server has no free connection: raise its max_connections, or lower \
             maxConnections or replicas",
        )),
        "53100" | "53400" => Some((
            DatabaseFull,
            "the server has no space left, on its disk or within a limit: free some space",
        )),
        "57P01" | "57P02" | "57P03" => Some((
            Unreachable,
            "the server is starting or stopping; this is retried",
        )),
        "08P01" | "22P02" | "26000" | "42P05" if is_by_pooler(answer) => Some((
            InvalidSettings,
            "there is a pooler in front of the server, but spec.database.pooler is not set: set it \
             to true, or connect to the server directly",
        )),
        "08P01"
            if answer
                .message()
                .starts_with("transaction blocks not allowed") =>
        {
            Some((
                InvalidSettings,
                "the pooler is in statement mode: set its pool_mode to transaction, or connect to \
                 the server directly",
            ))
        }
        // PgBouncer sends this code for all errors of its own: only the message distinguishes them.
        "08P01" if answer.message().ends_with("authentication failed") => Some((
            AuthenticationFailed,
            "the pooler rejected the user name or password: correct the Secret; the new value is \
             used automatically",
        )),
        "08P01" => Some((
            Unreachable,
            "the pooler has no connection to the server, or closed this one; this is retried",
        )),
        "57014" => Some((
            Failed,
            "a statement took too long and was cancelled: check whether the server is overloaded, \
             or a transaction has been open for hours",
        )),
        // requeue() raises it.
        "55000"
            if answer
                .message()
                .starts_with("a row that could not be converted") =>
        {
            Some((
                AdoptionFailed,
                "a dead letter of class AdoptionFailed holds no event, so it cannot be requeued: \
                 correct migration.adopt, insert the row into its table again, then discard the \
                 dead letter; requeue others by their class",
            ))
        }
        "40P01" | "40001" => Some((
            Failed,
            "a statement conflicted with another session; this is retried",
        )),
        _ => None,
    }
}

/// Whether an error shows that a pooler is in between: it concerns settings of the session, or a
/// prepared statement that went to another connection.
fn is_by_pooler(answer: &dyn ServerError) -> bool {
    let starts = [
        "invalid value for parameter",
        "unsupported startup parameter",
        "prepared statement",
    ];
    starts
        .iter()
        .any(|start| answer.message().starts_with(start))
}

/// The error of a failed TLS handshake, which sqlx wraps in an IO error.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn by_io(error: &io::Error) -> DatabaseError {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable,
        TimedOut, UnexpectedEof,
    };
    if let Some(error) = tls_error(error) {
        return by_tls(error);
    }
    let message = match error.kind() {
        ConnectionRefused => {
            "nothing listens at this address: check host and port, and that the \
            server runs"
        }
        TimedOut => {
            "no answer in time: check host and port, and that the network allows the \
            connection"
        }
        ConnectionReset | ConnectionAborted | UnexpectedEof | io::ErrorKind::BrokenPipe => {
            "the connection was closed by the other side"
        }
        HostUnreachable | NetworkUnreachable => {
            "there is no route to this host: check the host, and that the network allows the \
             connection"
        }
        // Errors of the resolver have no kind of their own.
        _ if error.to_string().starts_with("failed to lookup address") => {
            "the host name cannot be resolved: check it"
        }
        _ => {
            "the connection failed: check host and port, and that the network allows the \
            connection"
        }
    };
    DatabaseError::new(ProblemClass::Unreachable, message)
}

/// Converts an error from before the TLS handshake. Some of them have no type of their own.
fn by_tls_setup(source: &(dyn Error + 'static)) -> DatabaseError {
    match source.downcast_ref::<rustls::Error>() {
        Some(error) => by_tls(error),
        None => DatabaseError::new(ProblemClass::TlsFailed, tls_setup_message(source)),
    }
}

fn tls_setup_message(error: &dyn Error) -> &'static str {
    if error.to_string() == "server does not support TLS" {
        "the server does not offer TLS: enable it there, or set tls.mode to disable"
    } else {
        "TLS could not be set up: check tls.ca and tls.clientCertSecretRef"
    }
}

fn by_tls(error: &rustls::Error) -> DatabaseError {
    use rustls::CertificateError as Bad;
    let message = match error {
        rustls::Error::InvalidCertificate(
            Bad::NotValidForName | Bad::NotValidForNameContext { .. },
        ) => {
            "the server's certificate is for another host name: correct the host, or set tls.mode \
             to verify-ca"
        }
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer) => {
            "the server's certificate is signed by an unknown authority: set tls.ca to the \
             certificate of that authority"
        }
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "the server's certificate has expired: renew it"
        }
        rustls::Error::InvalidCertificate(_) => {
            "the server's certificate was rejected: check it, and that tls.ca is the right \
             authority"
        }
        rustls::Error::AlertReceived(_) => {
            "the server ended the TLS handshake: check tls.clientCertSecretRef, and what the \
             server requires"
        }
        rustls::Error::InconsistentKeys(_) => {
            "the client certificate and its key do not match: correct the Secret of \
             tls.clientCertSecretRef"
        }
        _ => "the TLS handshake failed: check that the server speaks TLS, and tls.ca",
    };
    DatabaseError::new(ProblemClass::TlsFailed, message)
}

#[cfg(test)]
mod tests;
