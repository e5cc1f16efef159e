//! A socket inside of this process, between the database client and the server. It does what the
//! client library cannot do: it trusts a server's own certificate, and logs in with passwords that
//! SASLprep refuses. It is used for such connections only: it costs a copy of each byte. IO.
//!
//! The socket has no file: its name is random and abstract, and only this process may connect.

mod certificate;
mod scram;
mod trust;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{ClientConfig, pki_types::ServerName};
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy_buf, split},
    net::{TcpStream, UnixListener, UnixStream},
    task::AbortHandle,
};
use tokio_rustls::TlsConnector;
use uuid::Uuid;

pub(super) use trust::{TlsMaterial, client_config, may_hold_server_certificate};

/// Bytes of a copy in one direction.
const BUFFER_BYTES: usize = 64 * 1024;
/// Longest message of a login in bytes.
const LOGIN_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Request for TLS: its length, and the number that stands for it.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// Kinds of an authentication message: done, SASL, and its two answers.
const AUTHENTICATION_SASL: u32 = 10;
const AUTHENTICATION_SASL_CONTINUE: u32 = 11;
const AUTHENTICATION_SASL_FINAL: u32 = 12;

/// How the server behind a gateway is reached.
pub(super) struct Route {
    pub(super) host: String,
    pub(super) port: u16,
    /// TLS to the server; absent for plaintext.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Password whose bytes are used as they are; absent if the client logs in itself.
    pub(super) password: Option<SecretString>,
}

/// Whether SASLprep refuses a user name or password, so that the client library cannot log in.
pub(super) fn needs_raw_login(user: &str, password: &str) -> bool {
    stringprep::saslprep(&format!("n={user}")).is_err() || stringprep::saslprep(password).is_err()
}

/// A listening gateway. When it is dropped it takes no more connections; open ones stay.
pub(crate) struct Gateway {
    accepting: AbortHandle,
    failure: Failure,
}

/// Why the last connection to the server failed.
type Failure = Arc<Mutex<Option<sqlx::Error>>>;

impl Gateway {
    /// Starts a gateway, and leads `options` to it.
    pub(super) fn start(
        route: &Arc<Route>,
        options: PgConnectOptions,
    ) -> io::Result<(Self, PgConnectOptions)> {
        let folder = PathBuf::from(format!("\0outbox-relay-{}", Uuid::new_v4()));
        let options = options.socket(&folder).ssl_mode(PgSslMode::Disable);
        // The client library adds this name.
        let listener = UnixListener::bind(folder.join(format!(".s.PGSQL.{}", route.port)))?;
        let failure = Failure::default();
        let accepting = tokio::spawn(accept(listener, Arc::clone(route), Arc::clone(&failure)));
        let gateway = Self {
            accepting: accepting.abort_handle(),
            failure,
        };
        Ok((gateway, options))
    }

    /// Why the last connection to the server failed, if it did; else `error`.
    pub(crate) fn cause_of(&self, error: sqlx::Error) -> sqlx::Error {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take().unwrap_or(error)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: UnixListener, route: Arc<Route>, failure: Failure) {
    while let Ok((client, _)) = listener.accept().await {
        if is_own_process(&client) {
            tokio::spawn(serve(client, Arc::clone(&route), Arc::clone(&failure)));
        }
    }
}

fn is_own_process(client: &UnixStream) -> bool {
    let pid = client.peer_cred().ok().and_then(|peer| peer.pid());
    pid.is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()))
}

/// Serves one connection until one side closes it.
async fn serve(mut client: UnixStream, route: Arc<Route>, failure: Failure) {
    // The client sees that its connection closes, and asks for the cause.
    let record = |error| *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    match open(&mut client, &route).await {
        Ok(server) => forward(client, server, record).await,
        Err(error) => record(error),
    }
}

/// Connection to the server, with or without TLS.
type Server = Box<dyn Stream>;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects to the server, and logs in if the client cannot.
async fn open(client: &mut UnixStream, route: &Route) -> Result<Server, sqlx::Error> {
    let mut server = connect(route).await?;
    if let Some(password) = &route.password {
        log_in(client, &mut server, password).await?;
    }
    Ok(server)
}

async fn connect(route: &Route) -> Result<Server, sqlx::Error> {
    let mut stream = TcpStream::connect((route.host.as_str(), route.port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = &route.tls else {
        return Ok(Box::new(stream));
    };
    let name = ServerName::try_from(route.host.clone())
        .map_err(|error| sqlx::Error::Tls(Box::new(error)))?;
    stream.write_all(&SSL_REQUEST).await?;
    match stream.read_u8().await? {
        b'S' => {
            let connector = TlsConnector::from(Arc::clone(tls));
            Ok(Box::new(connector.connect(name, stream).await?))
        }
        b'N' => Err(sqlx::Error::Tls("server does not support TLS".into())),
        _ => Err(sqlx::Error::Protocol(
            "no answer to the request for TLS".to_owned(),
        )),
    }
}

/// Copies both directions until one of them ends. With TLS 1.3 a server refuses a client's
/// certificate after the handshake: such an error is recorded.
async fn forward(client: UnixStream, server: Server, record: impl FnOnce(sqlx::Error)) {
    let (from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = split(server);
    tokio::select! {
        _ = copy(from_client, &mut to_server) => {
            to_server.shutdown().await.ok();
        }
        copied = copy(from_server, &mut to_client) => {
            if let Err(error) = copied && is_of_tls(&error) {
                record(error.into());
            }
            to_client.shutdown().await.ok();
        }
    }
}

/// Copies one direction until it ends.
async fn copy(from: impl AsyncRead + Unpin, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<u64> {
    let mut from = BufReader::with_capacity(BUFFER_BYTES, from);
    copy_buf(&mut from, to).await
}

fn is_of_tls(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>())
}

/// A message of the protocol: its kind, and all of its bytes.
struct Message {
    kind: u8,
    bytes: Vec<u8>,
}

impl Message {
    /// Number of an authentication message; `None` for another message.
    fn authentication(&self) -> Option<u32> {
        let number = self.bytes.get(5..9)?;
        (self.kind == b'R').then(|| u32::from_be_bytes(number.try_into().unwrap_or_default()))
    }

    /// What comes after the number of an authentication message.
    fn data(&self) -> &[u8] {
        self.bytes.get(9..).unwrap_or_default()
    }
}

/// Forwards the login up to the answer that the client can handle. Authenticates itself if the
/// server requests SCRAM.
async fn log_in(
    client: &mut UnixStream,
    server: &mut Server,
    password: &SecretString,
) -> Result<(), sqlx::Error> {
    let mut startup = client.read_u32().await?.to_be_bytes().to_vec();
    read_rest(client, &mut startup, 4).await?;
    server.write_all(&startup).await?;
    server.flush().await?;
    let mut answer = read_message(server).await?;
    if answer.authentication() == Some(AUTHENTICATION_SASL) && scram::is_offered(answer.data()) {
        answer = authenticate(server, password).await?;
    }
    client.write_all(&answer.bytes).await?;
    Ok(())
}

/// Authenticates by SCRAM-SHA-256. Returns the server's next message: that it is done, or an error.
async fn authenticate(
    server: &mut Server,
    password: &SecretString,
) -> Result<Message, sqlx::Error> {
    let nonce = Uuid::new_v4().simple().to_string();
    send(server, &scram::initial_response(&nonce)).await?;
    let first = read_message(server).await?;
    if first.authentication() != Some(AUTHENTICATION_SASL_CONTINUE) {
        return Ok(first);
    }
    let password = password.expose_secret().as_bytes();
    let proof = scram::Proof::new(password, &nonce, first.data()).ok_or_else(bad_scram)?;
    send(server, proof.response().as_bytes()).await?;
    let last = read_message(server).await?;
    if last.authentication() != Some(AUTHENTICATION_SASL_FINAL) {
        return Ok(last);
    }
    if !proof.is_of_server(last.data()) {
        return Err(bad_scram());
    }
    Ok(read_message(server).await?)
}

fn bad_scram() -> sqlx::Error {
    sqlx::Error::Protocol("the server's SCRAM messages are wrong".to_owned())
}

/// Sends a message of the kind that carries passwords.
async fn send(server: &mut Server, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len() + 4).map_err(io::Error::other)?;
    let message = [b"p", &length.to_be_bytes()[..], data].concat();
    server.write_all(&message).await?;
    server.flush().await
}

async fn read_message(server: &mut Server) -> io::Result<Message> {
    let mut bytes = vec![0; 5];
    server.read_exact(&mut bytes).await?;
    read_rest(server, &mut bytes, 1 + 4).await?;
    let kind = bytes[0];
    Ok(Message { kind, bytes })
}

/// Reads the rest of a message. `bytes` ends with its length, in which the length counts itself.
async fn read_rest(
    stream: &mut (impl AsyncRead + Unpin),
    bytes: &mut Vec<u8>,
    start: usize,
) -> io::Result<()> {
    let length: [u8; 4] = bytes[start - 4..start]
        .try_into()
        .map_err(io::Error::other)?;
    let length = u32::from_be_bytes(length) as usize;
    if !(4..=LOGIN_MESSAGE_BYTES_MAX).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let end = start - 4 + length;
    bytes.resize(end, 0);
    stream.read_exact(&mut bytes[start..end]).await.map(drop)
}
