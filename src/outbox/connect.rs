//! Settings and secrets -> connections to PostgreSQL, with TLS and timeouts. Reading secrets and opening are IO.

use std::{fmt, str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode},
};

use super::error::DatabaseFault;
use crate::{
    report::{Problem, ProblemClass},
    secrets::{SecretError, Secrets, field},
    settings::{DATABASE, DatabaseFiles, DatabaseSettings, Endpoint, MIGRATION, RelaySettings, SecretFile, TlsMode, TlsSettings},
};

/// Longest wait for a new connection, TLS and login included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a connection of a pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Nothing of ours may hang: not on a lock, not in a statement, not between two statements of a transaction.
const RELAY_TIMEOUTS: [(&str, &str); 3] =
    [("lock_timeout", "2s"), ("statement_timeout", "30s"), ("idle_in_transaction_session_timeout", "10s")];
/// Writers queue behind a migration that waits for its lock, so it waits only shortly; the work itself may take longer.
const MIGRATION_TIMEOUTS: [(&str, &str); 3] =
    [("lock_timeout", "3s"), ("statement_timeout", "5min"), ("idle_in_transaction_session_timeout", "1min")];

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{place} is no URL of the form postgres://user:password@host:port/database: correct what {} names", field(*file))]
    Url { file: SecretFile, place: String },
    #[error("cannot connect to {place}")]
    Open {
        place: String,
        #[source]
        source: DatabaseFault,
    },
}

impl ConnectError {
    /// As it goes into a report.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Secret(error) => error.problem(),
            Self::Url { .. } => Problem::new(ProblemClass::SecretInvalid, self.to_string()),
            Self::Open { place, source } => Problem::new(source.class, format!("cannot connect to {place}: {source}")),
        }
    }
}

/// How to reach a database, secrets included: neither Debug nor Display shows them.
#[derive(Clone)]
pub struct Connect {
    options: PgConnectOptions,
    place: String,
}

impl Connect {
    /// The relay's connections.
    ///
    /// # Errors
    /// When a secret is missing or cannot be used.
    pub fn relay(settings: &DatabaseSettings, secrets: &Secrets) -> Result<Self, ConnectError> {
        Ok(Self::new(&settings.endpoint, &settings.tls, &DATABASE, secrets)?.with(&RELAY_TIMEOUTS))
    }

    /// The migration's connection: its own endpoint, else the relay's.
    ///
    /// # Errors
    /// When a secret is missing or cannot be used.
    pub fn migration(settings: &RelaySettings, secrets: &Secrets) -> Result<Self, ConnectError> {
        let connect = match &settings.migration.database {
            Some(own) => Self::new(&own.endpoint, &own.tls, &MIGRATION, secrets),
            None => Self::new(&settings.database.endpoint, &settings.database.tls, &DATABASE, secrets),
        }?;
        Ok(connect.with(&MIGRATION_TIMEOUTS))
    }

    /// The user that relays log in as; needs none of the other secrets.
    ///
    /// # Errors
    /// When its secret is missing or cannot be used.
    pub fn relay_user(settings: &DatabaseSettings, secrets: &Secrets) -> Result<String, ConnectError> {
        match settings.endpoint {
            Endpoint::Url => Ok(from_url(DATABASE.url, secrets)?.get_username().to_owned()),
            Endpoint::Host { .. } => Ok(secrets.get(DATABASE.username)?.expose_secret().to_owned()),
        }
    }

    fn new(endpoint: &Endpoint, tls: &TlsSettings, files: &DatabaseFiles, secrets: &Secrets) -> Result<Self, ConnectError> {
        let (options, place) = match endpoint {
            Endpoint::Url => (from_url(files.url, secrets)?, "the database of the URL".to_owned()),
            Endpoint::Host { host, port, name } => {
                let options = PgConnectOptions::new_without_pgpass().host(host).port(*port).database(name);
                let options = with_credentials(options, tls, files, secrets)?;
                (options, format!("database '{name}' at '{host}:{port}'"))
            }
        };
        let options = with_tls(options, tls, files, secrets)?;
        // Payloads must not get into logs, not even those of slow statements.
        let options = options.application_name("outbox-relay").disable_statement_logging();
        Ok(Self { options, place })
    }

    /// The same with further startup settings; later ones win.
    #[must_use]
    pub fn with(mut self, settings: &[(&str, &str)]) -> Self {
        self.options = self.options.options(settings.iter().copied());
        self
    }

    /// The user that logs in.
    #[must_use]
    pub fn user(&self) -> &str {
        self.options.get_username()
    }

    /// Opens one connection. Dropped mid-way, the server sees a connection that closes.
    ///
    /// # Errors
    /// When the server cannot be reached in time or refuses.
    pub async fn open(&self) -> Result<PgConnection, ConnectError> {
        let source = match tokio::time::timeout(CONNECT_TIMEOUT, self.options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error.into(),
            Err(_) => sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into(),
        };
        Err(ConnectError::Open { place: self.place.clone(), source })
    }

    /// Names the database in front of what went wrong with it.
    #[must_use]
    pub fn problem(&self, fault: &DatabaseFault) -> Problem {
        Problem::new(fault.class, format!("{}: {fault}", self.place))
    }
}

/// A pool that opens its connections when they are wanted. `settings` go on top of the timeouts.
#[must_use]
pub fn pool(connect: &Connect, max: u32, settings: &[(&str, &str)]) -> PgPool {
    PgPoolOptions::new()
        .max_connections(max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .connect_lazy_with(connect.clone().with(settings).options)
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connect({})", self.place)
    }
}

impl fmt::Display for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

fn from_url(file: SecretFile, secrets: &Secrets) -> Result<PgConnectOptions, ConnectError> {
    let url = secrets.get(file)?;
    let refuse = || ConnectError::Url { file, place: secrets.place(file) };
    let url = known_parameters(url.expose_secret());
    let scheme = url.expose_secret().split_once("://").map(|(scheme, _)| scheme);
    if !matches!(scheme, Some("postgres" | "postgresql")) {
        return Err(refuse());
    }
    PgConnectOptions::from_str(url.expose_secret()).map_err(|_| refuse())
}

/// A URL with those parameters only that sqlx knows: it logs the others, values included.
fn known_parameters(url: &str) -> SecretString {
    let Some((base, query)) = url.split_once('?') else { return url.into() };
    let known = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        matches!(name, "host" | "hostaddr" | "port" | "dbname" | "user" | "password" | "sslrootcert" | "sslcert" | "sslkey" | "options")
    };
    let query: Vec<&str> = query.split('&').filter(known).collect();
    format!("{base}?{}", query.join("&")).into()
}

fn with_credentials(
    options: PgConnectOptions,
    tls: &TlsSettings,
    files: &DatabaseFiles,
    secrets: &Secrets,
) -> Result<PgConnectOptions, ConnectError> {
    let options = options.username(secrets.get(files.username)?.expose_secret());
    match secrets.get(files.password) {
        Ok(password) => Ok(options.password(password.expose_secret())),
        // A client certificate can be all the server wants.
        Err(SecretError::Missing { .. }) if tls.client_certificate => Ok(options),
        Err(error) => Err(error.into()),
    }
}

/// Settings beat what a URL says of TLS.
fn with_tls(
    options: PgConnectOptions,
    tls: &TlsSettings,
    files: &DatabaseFiles,
    secrets: &Secrets,
) -> Result<PgConnectOptions, ConnectError> {
    let mut options = options.ssl_mode(match tls.mode {
        TlsMode::VerifyFull => PgSslMode::VerifyFull,
        TlsMode::VerifyCa => PgSslMode::VerifyCa,
        TlsMode::Disable => PgSslMode::Disable,
    });
    if tls.ca {
        let ca = secrets.authority(files.tls.ca)?;
        options = options.ssl_root_cert_from_pem(ca.expose_secret().as_bytes().to_vec());
    }
    if tls.client_certificate {
        let (certificate, key) = secrets.client_certificate(&files.tls)?;
        options = options
            .ssl_client_cert_from_pem(certificate.expose_secret().as_bytes())
            .ssl_client_key_from_pem(key.expose_secret().as_bytes());
    }
    Ok(options)
}

#[cfg(test)]
mod tests;
