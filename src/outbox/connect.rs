//! Settings and secrets -> options of connections to PostgreSQL, with TLS and timeouts. Reading
//! secrets and opening a connection are IO.

mod gateway;
mod url;

use std::{fmt, io, str::FromStr, sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    AssertSqlSafe, ConnectOptions, SqlSafeStr, SqlStr,
    postgres::{PgConnectOptions, PgConnection, PgSslMode},
};
use tokio::time::timeout;

use crate::{
    api::address::{Host, HostPort},
    outbox::error::{DatabaseError, Phase, classify_in},
    report::{Problem, ProblemClass},
    secrets::{SecretError, Secrets, manifest_field},
    settings::{
        DATABASE, DatabaseFiles, DatabaseSettings, Endpoint, MIGRATION, RelaySettings, SecretFile,
        TlsMode, TlsSettings,
    },
};

pub(super) use gateway::Gateway;
use gateway::{Route, TlsMaterial, client_config, may_hold_server_certificate, needs_raw_login};
use url::DatabaseUrl;
pub use url::InvalidUrl;

/// Longest wait for one new connection, TLS and login included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Name and value of a server setting.
pub type Setting = (&'static str, &'static str);

/// Timeouts of a relay's sessions: no session may hang on a lock, in a statement, or between two
/// statements of a transaction.
const RELAY_TIMEOUTS: &[Setting] = &[
    ("lock_timeout", "2s"),
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "10s"),
];
/// Timeouts of a migration's session. Writers queue behind a migration that waits for a lock, so it
/// waits only briefly. Its statements may take longer.
const MIGRATION_TIMEOUTS: &[Setting] = &[
    ("lock_timeout", "3s"),
    ("statement_timeout", "5min"),
    ("idle_in_transaction_session_timeout", "1min"),
];

/// Why no connection could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the URL in {location} {reason}; correct the value that {} refers to",
        manifest_field(*file))]
    Url {
        file: SecretFile,
        location: String,
        reason: InvalidUrl,
    },
    #[error("{location} has the parameter 'options', which poolers refuse: remove it from the \
        value that {} refers to", manifest_field(*file))]
    Options { file: SecretFile, location: String },
    #[error("the client certificate in {location} cannot be used with its key; correct the Secret \
        that {} refers to", manifest_field(*file))]
    ClientCertificate { file: SecretFile, location: String },
    #[error("cannot connect to {database}")]
    Open {
        database: String,
        #[source]
        source: DatabaseError,
    },
}

impl ConnectError {
    /// Converts the error for a report: a class and a sentence.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Secret(error) => error.problem(),
            Self::Url { .. } | Self::Options { .. } | Self::ClientCertificate { .. } => {
                Problem::new(ProblemClass::SecretInvalid, self.to_string())
            }
            Self::Open { source, .. } => Problem::new(source.class, format!("{self}: {source}")),
        }
    }
}

/// Kind of server at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// PostgreSQL itself, or a proxy that behaves like it: a session belongs to one client.
    Server,
    /// A pooler in transaction mode: nothing of a session lasts longer than a transaction.
    Pooler,
}

impl Peer {
    fn of(settings: &DatabaseSettings) -> Self {
        if settings.pooler {
            Self::Pooler
        } else {
            Self::Server
        }
    }
}

/// Options of connections to one database. They include secrets, which neither Debug nor Display
/// shows.
#[derive(Clone)]
pub struct Connect {
    options: PgConnectOptions,
    /// Name and address of the database, for people.
    database: String,
    peer: Peer,
    /// Server settings of each session, or of each transaction behind a pooler.
    settings: Vec<Setting>,
    /// Route of a gateway; absent if the client library can connect itself.
    route: Option<Arc<Route>>,
}

impl Connect {
    /// Options of the relay's connections, with the relay's timeouts.
    ///
    /// # Errors
    /// Returns an error when a secret is missing or cannot be used.
    pub fn relay(settings: &DatabaseSettings, secrets: &Secrets) -> Result<Self, ConnectError> {
        Ok(Self::to_database(settings, secrets)?.with(RELAY_TIMEOUTS))
    }

    /// Options of a migration's connection, with a migration's timeouts: to the endpoint of
    /// `migration.database`, or to the relay's when there is none.
    ///
    /// # Errors
    /// Returns an error when a secret is missing or cannot be used.
    pub fn migration(settings: &RelaySettings, secrets: &Secrets) -> Result<Self, ConnectError> {
        let connect = match &settings.migration.database {
            Some(own) => Self::new(&own.endpoint, &own.tls, Peer::Server, &MIGRATION, secrets),
            None => Self::to_database(&settings.database, secrets),
        }?;
        Ok(connect.with(MIGRATION_TIMEOUTS))
    }

    /// User that relays log in as. Reads only the secret that holds the user.
    ///
    /// # Errors
    /// Returns an error when this secret is missing or cannot be used.
    pub fn relay_user(
        settings: &DatabaseSettings,
        secrets: &Secrets,
    ) -> Result<String, ConnectError> {
        match settings.endpoint {
            Endpoint::Url => {
                let (options, _) = from_url(DATABASE.url, secrets)?;
                Ok(options.get_username().to_owned())
            }
            Endpoint::Host { .. } => Ok(secrets.get(DATABASE.username)?.expose_secret().to_owned()),
        }
    }

    fn to_database(settings: &DatabaseSettings, secrets: &Secrets) -> Result<Self, ConnectError> {
        let peer = Peer::of(settings);
        Self::new(&settings.endpoint, &settings.tls, peer, &DATABASE, secrets)
    }

    fn new(
        endpoint: &Endpoint,
        tls: &TlsSettings,
        peer: Peer,
        files: &DatabaseFiles,
        secrets: &Secrets,
    ) -> Result<Self, ConnectError> {
        let (options, password) = endpoint_options(endpoint, tls, files, secrets)?;
        let route = route(&options, &password, tls, files, secrets)?;
        if peer == Peer::Pooler && options.get_options().is_some() {
            return Err(ConnectError::Options {
                file: files.url,
                location: secrets.location(files.url),
            });
        }
        let options = with_tls(options, tls, files, secrets)?;
        // sqlx would log slow statements. Their arguments are payloads, which must not be logged.
        let options = options
            .application_name("outbox-relay")
            .disable_statement_logging();
        Ok(Self {
            database: describe(endpoint, options.get_username()),
            options,
            peer,
            settings: Vec::new(),
            route: route.map(Arc::new),
        })
    }

    /// Adds settings of the session. For the same name, the last one wins.
    #[must_use]
    pub fn with(mut self, settings: &[Setting]) -> Self {
        self.settings.extend(settings);
        self
    }

    /// User that logs in.
    #[must_use]
    pub fn user(&self) -> &str {
        self.options.get_username()
    }

    /// Kind of server that these options connect to.
    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// Options that a connection starts with. They hold no settings for a pooler, which would
    /// refuse them.
    pub(super) fn startup(&self) -> PgConnectOptions {
        match self.peer {
            Peer::Server => self.options.clone().options(self.settings.iter().copied()),
            Peer::Pooler => self.options.clone().extra_float_digits(None),
        }
    }

    /// Options to connect with, and the gateway that they lead to, if one is needed. It must be
    /// kept while connections are opened. Needs the async runtime.
    pub(super) fn reach(&self) -> (PgConnectOptions, Option<Gateway>) {
        let options = self.startup();
        let Some(route) = &self.route else {
            return (options, None);
        };
        match Gateway::start(route, options.clone()) {
            Ok((gateway, options)) => (options, Some(gateway)),
            Err(error) => {
                tracing::warn!(%error, "the relay's own socket cannot be opened");
                (options, None)
            }
        }
    }

    /// Statement that begins a transaction, as one simple query.
    ///
    /// Behind a pooler it also sets the settings, because other clients use the same connection.
    pub(super) fn begin(&self) -> SqlStr {
        let mut text = "begin isolation level read committed".to_owned();
        if self.peer == Peer::Pooler {
            text.push_str(&self.set_local());
        }
        AssertSqlSafe(text).into_sql_str()
    }

    /// Statements that set the settings until the transaction ends, each after a semicolon.
    fn set_local(&self) -> String {
        let set = |(name, value): &Setting| format!("; set local {name} = '{value}'");
        self.settings.iter().map(set).collect()
    }

    /// Opens one connection.
    ///
    /// # Errors
    /// Returns an error when the server refuses the connection or cannot be reached within 10 s.
    ///
    /// # Cancel safety
    /// Cancel safe: the server sees a connection that closes.
    pub async fn open(&self) -> Result<PgConnection, ConnectError> {
        let (options, gateway) = self.reach();
        with_timeout(CONNECT_TIMEOUT, options.connect())
            .await
            .map_err(|error| self.open_error(cause(gateway.as_ref(), error)))
    }

    fn open_error(&self, error: sqlx::Error) -> ConnectError {
        ConnectError::Open {
            database: self.database.clone(),
            source: classify_in(Phase::Connecting, &error),
        }
    }

    /// Converts an error of this database for a report; the name of the database comes first.
    #[must_use]
    pub fn problem(&self, error: &DatabaseError) -> Problem {
        Problem::new(error.class, format!("{}: {error}", self.database))
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connect({})", self.database)
    }
}

impl fmt::Display for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.database)
    }
}

/// Why a connection failed. Only the gateway knows, if there is one.
pub(super) fn cause(gateway: Option<&Gateway>, error: sqlx::Error) -> sqlx::Error {
    match gateway {
        Some(gateway) => gateway.cause_of(error),
        None => error,
    }
}

/// Waits for an answer of the server, and fails when it takes longer than `limit`.
///
/// # Errors
/// Returns the error of `answer`, and an error when there is no answer in time.
///
/// # Cancel safety
/// Drops `answer`, so it is cancel safe if that is.
pub(super) async fn with_timeout<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(limit, answer).await.map_err(|_| timed_out())?
}

fn timed_out() -> sqlx::Error {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

/// Route of a gateway; `None` if the client library can connect itself.
fn route(
    options: &PgConnectOptions,
    password: &SecretString,
    tls: &TlsSettings,
    files: &DatabaseFiles,
    secrets: &Secrets,
) -> Result<Option<Route>, ConnectError> {
    let is_raw = needs_raw_login(options.get_username(), password.expose_secret());
    let ca = match tls.ca {
        true => Some(secrets.ca_certificates(files.tls.ca)?),
        false => None,
    };
    let ca = ca.as_ref().map_or("", |ca| ca.expose_secret());
    // The client library reads no certificate of version 1, even where it verifies nothing.
    let is_own_tls = tls.mode == TlsMode::Require || may_hold_server_certificate(ca);
    let is_reached_by_file = options.get_host().starts_with('/');
    if is_reached_by_file || !(is_raw || is_own_tls) {
        return Ok(None);
    }
    Ok(Some(Route {
        host: options.get_host().to_owned(),
        port: options.get_port(),
        tls: own_tls(tls, ca, files, secrets)?,
        password: is_raw.then(|| password.clone()),
    }))
}

/// TLS of a gateway; `None` for plaintext.
fn own_tls(
    tls: &TlsSettings,
    ca: &str,
    files: &DatabaseFiles,
    secrets: &Secrets,
) -> Result<Option<Arc<rustls::ClientConfig>>, ConnectError> {
    if tls.mode == TlsMode::Disable {
        return Ok(None);
    }
    let pair = match tls.client_certificate {
        true => Some(secrets.client_certificate(&files.tls)?),
        false => None,
    };
    let client = pair
        .as_ref()
        .map(|(certificate, key)| (certificate.expose_secret(), key.expose_secret()));
    let mode = tls.mode;
    let config = client_config(&TlsMaterial { mode, ca, client });
    let config = config.map_err(|_| ConnectError::ClientCertificate {
        file: files.tls.certificate,
        location: secrets.location(files.tls.certificate),
    })?;
    Ok(Some(Arc::new(config)))
}

/// Options with host, database, user and password, and the password beside them.
fn endpoint_options(
    endpoint: &Endpoint,
    tls: &TlsSettings,
    files: &DatabaseFiles,
    secrets: &Secrets,
) -> Result<(PgConnectOptions, SecretString), ConnectError> {
    let Endpoint::Host { host, port, name } = endpoint else {
        return from_url(files.url, secrets);
    };
    let parsed = host.parse::<Host>();
    let options = PgConnectOptions::new_without_pgpass()
        .host(parsed.as_ref().map_or(host, Host::as_str))
        .port(*port)
        .database(name);
    with_credentials(options, tls, files, secrets)
}

/// Name of the database for people, with the user that logs in. What a URL contains is secret.
fn describe(endpoint: &Endpoint, user: &str) -> String {
    match endpoint {
        Endpoint::Url => "the database of the URL".to_owned(),
        Endpoint::Host { host, port, name } => {
            let address = match host.parse() {
                Ok(host) => HostPort::new(host, *port).to_string(),
                Err(_) => format!("{host}:{port}"),
            };
            format!("database '{name}' at '{address}' as user '{user}'")
        }
    }
}

fn from_url(
    file: SecretFile,
    secrets: &Secrets,
) -> Result<(PgConnectOptions, SecretString), ConnectError> {
    let text = secrets.get(file)?;
    let url = DatabaseUrl::parse(text.expose_secret()).map_err(|reason| ConnectError::Url {
        file,
        location: secrets.location(file),
        reason,
    })?;
    Ok((url_options(&url), url.password().into()))
}

fn url_options(url: &DatabaseUrl) -> PgConnectOptions {
    let mut options = session_options(url).password(url.password());
    if let Some(user) = &url.user {
        options = options.username(user);
    }
    if let Some(host) = &url.host {
        options = options.host(host.as_str());
    }
    if let Some(port) = url.port {
        options = options.port(port);
    }
    if let Some(database) = &url.database {
        options = options.database(database);
    }
    with_files(options, url)
}

/// Options with parameter `options` of a URL, which the client library takes from URLs only.
fn session_options(url: &DatabaseUrl) -> PgConnectOptions {
    let default = PgConnectOptions::new_without_pgpass();
    let Some(options) = &url.options else {
        return default;
    };
    let encoded: String = options.bytes().map(|byte| format!("%{byte:02X}")).collect();
    // The empty password keeps the library from looking for one in a file.
    PgConnectOptions::from_str(&format!(
        "postgres://localhost/?options={encoded}&password="
    ))
    .map_or(default.clone(), |options| options.host(default.get_host()))
}

/// Adds the files that parameters of a URL refer to. Secrets of the manifest override them.
fn with_files(mut options: PgConnectOptions, url: &DatabaseUrl) -> PgConnectOptions {
    if let Some(file) = &url.ca_file {
        options = options.ssl_root_cert(file);
    }
    if let Some(file) = &url.certificate_file {
        options = options.ssl_client_cert(file);
    }
    if let Some(file) = &url.key_file {
        options = options.ssl_client_key(file);
    }
    options
}

fn with_credentials(
    options: PgConnectOptions,
    tls: &TlsSettings,
    files: &DatabaseFiles,
    secrets: &Secrets,
) -> Result<(PgConnectOptions, SecretString), ConnectError> {
    let options = options.username(secrets.get(files.username)?.expose_secret());
    let password = match secrets.get(files.password) {
        // A server may accept a client certificate without a password.
        Err(SecretError::Missing { .. }) if tls.client_certificate => SecretString::default(),
        password => password?,
    };
    Ok((options.password(password.expose_secret()), password))
}

fn ssl_mode(mode: TlsMode) -> PgSslMode {
    match mode {
        TlsMode::VerifyFull => PgSslMode::VerifyFull,
        TlsMode::VerifyCa => PgSslMode::VerifyCa,
        TlsMode::Require => PgSslMode::Require,
        TlsMode::Disable => PgSslMode::Disable,
    }
}

/// Sets TLS as the settings say, whatever a URL says about it.
fn with_tls(
    options: PgConnectOptions,
    tls: &TlsSettings,
    files: &DatabaseFiles,
    secrets: &Secrets,
) -> Result<PgConnectOptions, ConnectError> {
    let mut options = options.ssl_mode(ssl_mode(tls.mode));
    if tls.ca {
        let ca = secrets.ca_certificates(files.tls.ca)?;
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
