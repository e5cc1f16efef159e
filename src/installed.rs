//! Whether an installed operator works, as `helm test` asks from a pod of its own: it answers, and
//! the API server knows OutboxRelays. IO.

use std::time::{Duration, Instant};

use http_body_util::Empty;
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use kube::{Client, Resource};
use tokio::{net::TcpStream, time::sleep};

use crate::api::OutboxRelay;

const LONGEST: Duration = Duration::from_secs(5);

/// Why an installation does not work.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(
        "failed to reach the operator at {0}: does its pod run, and does a NetworkPolicy let this \
         one ask it?"
    )]
    Unreachable(String, #[source] std::io::Error),
    #[error("failed to ask the operator for {0}")]
    Ask(&'static str, #[source] hyper::Error),
    #[error("the operator answered {0} with {1}: look at its logs")]
    Unwell(&'static str, StatusCode),
    #[error("no answer within {}s", LONGEST.as_secs())]
    Timeout,
    #[error("failed to ask the API server which kinds it knows")]
    ApiServer(#[source] Box<kube::Error>),
    #[error("failed to find the API server: run in a pod, or set KUBECONFIG")]
    Configure(#[source] Box<kube::Error>),
    #[error(
        "the API server knows no {0}: install the CRD with the chart, or by `outbox-operator crd \
         | kubectl apply --server-side -f -`"
    )]
    NoCrd(String),
}

/// Asks until all is well, or patience ends: a Service that was just made needs a moment to lead to
/// its pods.
///
/// # Errors
/// With what was wrong in the end.
pub async fn check(operator: &str, patience: Duration) -> Result<(), CheckError> {
    let give_up = Instant::now() + patience;
    loop {
        match tokio::time::timeout(LONGEST, once(operator))
            .await
            .unwrap_or(Err(CheckError::Timeout))
        {
            Err(_) if Instant::now() < give_up => sleep(Duration::from_millis(500)).await,
            ended => return ended,
        }
    }
}

async fn once(operator: &str) -> Result<(), CheckError> {
    for path in ["/healthz", "/readyz"] {
        let status = get(operator, path).await?;
        if status != StatusCode::OK {
            return Err(CheckError::Unwell(path, status));
        }
    }
    is_kind_served().await
}

async fn get(operator: &str, path: &'static str) -> Result<StatusCode, CheckError> {
    let stream = TcpStream::connect(operator)
        .await
        .map_err(|source| CheckError::Unreachable(operator.to_owned(), source))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|source| CheckError::Ask(path, source))?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, operator)
        .body(Empty::<Bytes>::new())
        .expect("a constant request");
    let answer = sender
        .send_request(request)
        .await
        .map_err(|source| CheckError::Ask(path, source));
    connection.abort();
    Ok(answer?.status())
}

/// Every account of a cluster may ask this.
async fn is_kind_served() -> Result<(), CheckError> {
    let client = Client::try_default()
        .await
        .map_err(|source| CheckError::Configure(Box::new(source)))?;
    let (version, plural) = (OutboxRelay::api_version(&()), OutboxRelay::plural(&()));
    let missing = || CheckError::NoCrd(format!("{plural}.{version}"));
    match client.list_api_group_resources(&version).await {
        Ok(served)
            if served
                .resources
                .iter()
                .any(|resource| resource.name == plural) =>
        {
            Ok(())
        }
        Ok(_) => Err(missing()),
        // No Status comes with it: there is no such path.
        Err(kube::Error::Api(status)) if status.code == 404 => Err(missing()),
        Err(error) => Err(CheckError::ApiServer(Box::new(error))),
    }
}
