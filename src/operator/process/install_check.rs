//! Checks an installation: the operator responds, and the API server serves OutboxRelays. `helm
//! test` runs it in a pod of its own. IO.

use std::time::{Duration, Instant};

use http_body_util::Empty;
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use kube::{Client, Resource};
use tokio::{net::TcpStream, time::sleep};

use crate::api::OutboxRelay;

/// Longest time that one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Why an installation does not work.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(
        "failed to reach the operator at {0}: does its pod run, and does a NetworkPolicy allow \
         connections from this one?"
    )]
    Unreachable(String, #[source] std::io::Error),
    #[error("failed to request {0} from the operator")]
    Request(&'static str, #[source] hyper::Error),
    #[error("the operator responded to {0} with {1}: see its logs")]
    Unwell(&'static str, StatusCode),
    #[error("no response within {}s", ATTEMPT_TIMEOUT.as_secs())]
    Timeout,
    #[error("failed to request the kinds that the API server serves")]
    ApiServer(#[source] Box<kube::Error>),
    #[error("failed to find the API server: run in a pod, or set KUBECONFIG")]
    Configure(#[source] Box<kube::Error>),
    #[error(
        "the API server does not serve {0}: install the CRD with the chart, or run \
         `outbox-operator crd | kubectl apply --server-side -f -`"
    )]
    NoCrd(String),
}

/// Repeats the check until it succeeds or `patience` has passed: a new Service needs a moment until
/// it leads to its pods.
///
/// # Errors
///
/// The error of the last attempt.
///
/// # Cancel safety
///
/// The check only reads, so nothing is lost when it is dropped.
pub async fn check(operator: &str, patience: Duration) -> Result<(), CheckError> {
    let give_up = Instant::now() + patience;
    loop {
        let attempt = tokio::time::timeout(ATTEMPT_TIMEOUT, check_once(operator))
            .await
            .unwrap_or(Err(CheckError::Timeout));
        if attempt.is_ok() || Instant::now() >= give_up {
            return attempt;
        }
        sleep(RETRY_INTERVAL).await;
    }
}

async fn check_once(operator: &str) -> Result<(), CheckError> {
    for path in ["/healthz", "/readyz"] {
        let status = get_status(operator, path).await?;
        if status != StatusCode::OK {
            return Err(CheckError::Unwell(path, status));
        }
    }
    is_kind_served().await
}

async fn get_status(operator: &str, path: &'static str) -> Result<StatusCode, CheckError> {
    send(connect(operator).await?, request(operator, path))
        .await
        .map_err(|source| CheckError::Request(path, source))
}

async fn connect(operator: &str) -> Result<TcpStream, CheckError> {
    TcpStream::connect(operator)
        .await
        .map_err(|source| CheckError::Unreachable(operator.to_owned(), source))
}

fn request(operator: &str, path: &str) -> Request<Empty<Bytes>> {
    Request::get(path)
        .header(HOST, operator)
        .body(Empty::new())
        .expect("a constant request")
}

async fn send(stream: TcpStream, request: Request<Empty<Bytes>>) -> hyper::Result<StatusCode> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await;
    connection.abort();
    Ok(response?.status())
}

async fn client() -> Result<Client, CheckError> {
    Client::try_default()
        .await
        .map_err(|source| CheckError::Configure(Box::new(source)))
}

/// The API server serves OutboxRelays. Every account of a cluster may request this.
async fn is_kind_served() -> Result<(), CheckError> {
    let client = client().await?;
    let (version, plural) = (OutboxRelay::api_version(&()), OutboxRelay::plural(&()));
    let is_relay = |resource: &APIResource| resource.name == plural;
    let missing = || CheckError::NoCrd(format!("{plural}.{version}"));
    match client.list_api_group_resources(&version).await {
        Ok(served) if served.resources.iter().any(is_relay) => Ok(()),
        Ok(_) => Err(missing()),
        // The path does not exist, so the response carries no Status with a reason.
        Err(kube::Error::Api(status)) if status.code == 404 => Err(missing()),
        Err(error) => Err(CheckError::ApiServer(Box::new(error))),
    }
}
