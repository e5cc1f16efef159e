//! Settings and secrets -> connections to PostgreSQL, with TLS and timeouts. Reading secrets and
//! opening are IO.

use std::{fmt, str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    AssertSqlSafe, ConnectOptions, SqlSafeStr, SqlStr,
    postgres::{PgConnectOptions, PgConnection, PgSslMode},
};

use crate::{
    outbox::error::DatabaseError,
    report::{Problem, ProblemClass},
    secrets::{SecretError, Secrets, field},
    settings::{
        DATABASE, DatabaseFiles, DatabaseSettings, Endpoint, MIGRATION, RelaySettings, SecretFile,
        TlsMode, TlsSettings,
    },
};

/// Longest wait for a new connection, TLS and login included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A setting of the server, and its value.
pub type Setting = (&'static str, &'static str);

/// Nothing of ours may hang: not on a lock, not in a statement, not between two statements of a
/// transaction.
const RELAY_TIMEOUTS: &[Setting] = &[
    ("lock_timeout", "2s"),
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "10s"),
];
/// Writers queue behind a migration that waits for its lock, so it waits only shortly; the work
/// itself may take longer.
const MIGRATION_TIMEOUTS: &[Setting] = &[
    ("lock_timeout", "3s"),
    ("statement_timeout", "5min"),
    ("idle_in_transaction_session_timeout", "1min"),
];

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{place} is no URL of the form postgres://user:password@host:port/database: correct \
        what {} names", field(*file))]
    Url { file: SecretFile, place: String },
    #[error("{place} has the parameter 'options', which a pooler does not take: remove it from \
        what {} names", field(*file))]
    Options { file: SecretFile, place: String },
    #[error("cannot connect to {place}")]
    Open {
        place: String,
        #[source]
        source: DatabaseError,
    },
}

impl ConnectError {
    /// As it goes into a report.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Secret(error) => error.problem(),
            Self::Url { .. } | Self::Options { .. } => {
                Problem::new(ProblemClass::SecretInvalid, self.to_string())
            }
            Self::Open { place, source } => {
                Problem::new(source.class, format!("cannot connect to {place}: {source}"))
            }
        }
    }
}

/// What answers at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// PostgreSQL itself, or what behaves like it: a session is ours until it ends.
    Server,
    /// A pooler in transaction mode: nothing lasts longer than a transaction.
    Pooler,
}

/// How to reach a database, secrets included: neither Debug nor Display shows them.
#[derive(Clone)]
pub struct Connect {
    options: PgConnectOptions,
    place: String,
    peer: Peer,
    settings: Vec<Setting>,
}

impl Connect {
    /// The relay's connections.
    ///
    /// # Errors
    /// When a secret is missing or cannot be used.
    pub fn relay(settings: &DatabaseSettings, secrets: &Secrets) -> Result<Self, ConnectError> {
        Ok(Self::database(settings, secrets)?.with(RELAY_TIMEOUTS))
    }

    /// The migration's connection: its own endpoint, else the relay's.
    ///
    /// # Errors
    /// When a secret is missing or cannot be used.
    pub fn migration(settings: &RelaySettings, secrets: &Secrets) -> Result<Self, ConnectError> {
        let connect = match &settings.migration.database {
            Some(own) => Self::new(&own.endpoint, &own.tls, Peer::Server, &MIGRATION, secrets),
            None => Self::database(&settings.database, secrets),
        }?;
        Ok(connect.with(MIGRATION_TIMEOUTS))
    }

    /// The user that relays log in as; needs none of the other secrets.
    ///
    /// # Errors
    /// When its secret is missing or cannot be used.
    pub fn relay_user(
        settings: &DatabaseSettings,
        secrets: &Secrets,
    ) -> Result<String, ConnectError> {
        match settings.endpoint {
            Endpoint::Url => Ok(from_url(DATABASE.url, secrets)?.get_username().to_owned()),
            Endpoint::Host { .. } => Ok(secrets.get(DATABASE.username)?.expose_secret().to_owned()),
        }
    }

    fn database(settings: &DatabaseSettings, secrets: &Secrets) -> Result<Self, ConnectError> {
        let peer = if settings.pooler {
            Peer::Pooler
        } else {
            Peer::Server
        };
        Self::new(&settings.endpoint, &settings.tls, peer, &DATABASE, secrets)
    }

    fn new(
        endpoint: &Endpoint,
        tls: &TlsSettings,
        peer: Peer,
        files: &DatabaseFiles,
        secrets: &Secrets,
    ) -> Result<Self, ConnectError> {
        let (options, place) = match endpoint {
            Endpoint::Url => (
                from_url(files.url, secrets)?,
                "the database of the URL".to_owned(),
            ),
            Endpoint::Host { host, port, name } => {
                let options = PgConnectOptions::new_without_pgpass()
                    .host(host)
                    .port(*port)
                    .database(name);
                let options = with_credentials(options, tls, files, secrets)?;
                (options, format!("database '{name}' at '{host}:{port}'"))
            }
        };
        if peer == Peer::Pooler && options.get_options().is_some() {
            return Err(ConnectError::Options {
                file: files.url,
                place: secrets.place(files.url),
            });
        }
        let options = with_tls(options, tls, files, secrets)?;
        // Payloads must not get into logs, not even those of slow statements.
        let options = options
            .application_name("outbox-relay")
            .disable_statement_logging();
        Ok(Self {
            options,
            place,
            peer,
            settings: Vec::new(),
        })
    }

    /// The same with further settings of the session; later ones win.
    #[must_use]
    pub fn with(mut self, settings: &[Setting]) -> Self {
        self.settings.extend(settings);
        self
    }

    /// The user that logs in.
    #[must_use]
    pub fn user(&self) -> &str {
        self.options.get_username()
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// What a connection starts with: a pooler takes no settings then.
    pub(super) fn startup(&self) -> PgConnectOptions {
        match self.peer {
            Peer::Server => self.options.clone().options(self.settings.iter().copied()),
            Peer::Pooler => self.options.clone().extra_float_digits(None),
        }
    }

    /// What a transaction begins with, as one simple query. At a pooler it brings the settings:
    /// what others left on the connection ends there.
    pub(super) fn begin(&self) -> SqlStr {
        let mut text = "begin isolation level read committed".to_owned();
        if self.peer == Peer::Pooler {
            text.extend(
                self.settings
                    .iter()
                    .map(|(name, value)| format!("; set local {name} = '{value}'")),
            );
        }
        AssertSqlSafe(text).into_sql_str()
    }

    /// Opens one connection. Dropped mid-way, the server sees a connection that closes.
    ///
    /// # Errors
    /// When the server cannot be reached in time or refuses.
    pub async fn open(&self) -> Result<PgConnection, ConnectError> {
        let startup = self.startup();
        let source = match tokio::time::timeout(CONNECT_TIMEOUT, startup.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error.into(),
            Err(_) => sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into(),
        };
        Err(ConnectError::Open {
            place: self.place.clone(),
            source,
        })
    }

    /// Names the database in front of what went wrong with it.
    #[must_use]
    pub fn problem(&self, fault: &DatabaseError) -> Problem {
        Problem::new(fault.class, format!("{}: {fault}", self.place))
    }
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
    let refuse = || ConnectError::Url {
        file,
        place: secrets.place(file),
    };
    let url = known_parameters(url.expose_secret());
    let scheme = url
        .expose_secret()
        .split_once("://")
        .map(|(scheme, _)| scheme);
    if !matches!(scheme, Some("postgres" | "postgresql")) {
        return Err(refuse());
    }
    PgConnectOptions::from_str(url.expose_secret()).map_err(|_| refuse())
}

/// A URL with those parameters only that sqlx knows: it logs the others, values included. And with
/// a password, if only an empty one: else sqlx looks for one in the home folder of whoever runs
/// this.
fn known_parameters(url: &str) -> SecretString {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let known = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        matches!(
            name,
            "host"
                | "hostaddr"
                | "port"
                | "dbname"
                | "user"
                | "password"
                | "sslrootcert"
                | "sslcert"
                | "sslkey"
                | "options"
        )
    };
    let mut query: Vec<&str> = query.split('&').filter(known).collect();
    let authority = base
        .split_once("://")
        .and_then(|(_, rest)| rest.split('/').next())
        .unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    if !user.contains(':') && !query.iter().any(|pair| pair.starts_with("password=")) {
        query.push("password=");
    }
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
        Err(SecretError::Missing { .. }) if tls.client_certificate => Ok(options.password("")),
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
