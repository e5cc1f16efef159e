//! The client for reconciliations and watches: what every request goes through. IO.
//!
//! - A write is sent only while the fence allows it.
//! - A request without a response is given up after [`RESPONSE_TIMEOUT`].
//! - A watch counts as alive when it receives anything, bookmarks included. kube's watcher does not
//!   report bookmarks, so the response body is observed here.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Bytes};
use kube::{Client, Config, client::Body, core::Status};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::operator::process::{
    fence::Fence,
    health::{AccessChange, HealthState, WatchResponse},
    metrics::Metrics,
};

/// Longest wait for a response, or for the beginning of a watch. Requests of reconciliations have a
/// shorter limit of their own.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for a connection to the API server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;
type ApiResponse = Response<ResponseBody>;

/// Why a request was not sent, or got no response.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("this operator may no longer lead: nothing is written")]
    Fenced,
    #[error("no response from the API server within {}s", RESPONSE_TIMEOUT.as_secs())]
    Timeout,
}

/// What a client checks before each request and updates after it.
#[derive(Clone)]
pub(crate) struct ClientHooks {
    pub fence: Fence,
    pub health: Arc<HealthState>,
    pub metrics: Metrics,
}

/// Returns a client with a connection pool of its own. It retries nothing: each object has its own
/// back-off, and failures stay visible there.
pub(crate) fn base_client(mut config: Config) -> kube::Result<Client> {
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Client::try_from(config)
}

/// Returns a client that sends through `inner` and applies fence, time limit, health and metrics to
/// every request.
pub(crate) fn instrumented(inner: Client, hooks: ClientHooks) -> Client {
    let namespace = inner.default_namespace().to_owned();
    let service = tower::service_fn(move |request| {
        let sent = send(inner.clone(), hooks.clone(), request);
        // On a task of its own: a watcher in its back-off does not poll the connections of the
        // others.
        let task = AbortOnDropHandle::new(tokio::spawn(sent));
        async move { task.await? }
    });
    Client::new(service, namespace)
}

async fn send(
    inner: Client,
    hooks: ClientHooks,
    mut request: Request<Body>,
) -> Result<ApiResponse, BoxError> {
    let started = Instant::now();
    if request.method() != Method::GET {
        limit_write(&hooks.fence, &mut request, started)?;
    }
    let verb = verb(&request);
    let received = timeout(RESPONSE_TIMEOUT, response(&inner, &hooks.health, request))
        .await
        .unwrap_or_else(|_| Err(SendError::Timeout.into()));
    let code = received.as_ref().ok().map(Response::status);
    hooks.metrics.request_ended(&verb, code, started.elapsed());
    received
}

/// Lets the API server work on a write only for as long as the fence allows.
fn limit_write(fence: &Fence, request: &mut Request<Body>, now: Instant) -> Result<(), BoxError> {
    let limit = fence.allows(now.into_std()).ok_or(SendError::Fenced)?;
    *request.uri_mut() = with_server_timeout(request.uri(), limit)?;
    Ok(())
}

/// The label `verb` of the request's metrics.
fn verb(request: &Request<Body>) -> String {
    if is_watch(request.uri()) {
        "WATCH".to_owned()
    } else {
        request.method().to_string()
    }
}

/// Sends a request. Returns its whole response, or the beginning of a watch.
async fn response(
    inner: &Client,
    health: &Arc<HealthState>,
    request: Request<Body>,
) -> Result<ApiResponse, BoxError> {
    let is_read = request.method() == Method::GET;
    let (path, is_watch) = (request.uri().path().to_owned(), is_watch(request.uri()));
    let (head, body) = inner.send(request).await?.into_parts();
    let body = if is_watch && head.status.is_success() {
        record(health, &path, WatchResponse::Opened, &[]);
        observed(body, Arc::clone(health), path)
    } else {
        let body = body.collect().await?.to_bytes();
        if let Some(refusal) = refusal(head.status).filter(|_| is_read) {
            record(health, &path, refusal, &body);
        }
        complete(body)
    };
    Ok(Response::from_parts(head, body))
}

/// The body of a watch. Each frame that arrives is recorded as a sign that the watch is alive.
fn observed(body: Body, health: Arc<HealthState>, path: String) -> ResponseBody {
    let observed = body.map_frame(move |frame| {
        health.received(&path, Instant::now().into_std());
        frame
    });
    observed.map_err(Into::into).boxed_unsync()
}

/// A body that was received whole.
fn complete(body: Bytes) -> ResponseBody {
    Full::new(body)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Classifies a failed read that concerns the request. Returns `None` for a status that concerns
/// the API server.
fn refusal(status: StatusCode) -> Option<WatchResponse> {
    match status {
        StatusCode::FORBIDDEN => Some(WatchResponse::Forbidden),
        other if other.is_client_error() => Some(WatchResponse::Refused),
        _ => None,
    }
}

/// Records a response to a list or a watch. Logs only when the operator lost or regained access:
/// what is refused is requested again every few seconds.
fn record(health: &HealthState, path: &str, response: WatchResponse, body: &[u8]) {
    match health.responded(path, response, Instant::now().into_std()) {
        Some(AccessChange::Lost(Some(namespace))) => tracing::error!(
            namespace,
            why = status_message(body),
            "the API server refuses this operator access to a namespace: relays there continue, \
             but changes of their OutboxRelays are not applied. Create the namespace and the \
             operator's RoleBinding in it again (helm upgrade does), or remove it from \
             watchNamespaces"
        ),
        Some(AccessChange::Lost(None)) => tracing::error!(
            why = status_message(body),
            "the API server refuses this operator access to all namespaces: relays continue, but \
             changes of their OutboxRelays are not applied. Bind the chart's ClusterRole to the \
             operator's ServiceAccount"
        ),
        Some(AccessChange::Regained(namespace)) => {
            tracing::info!(
                namespace,
                "the API server grants this operator access again"
            );
        }
        None => {}
    }
}

/// The message of the API server's `Status`; empty if the body is not one.
fn status_message(body: &[u8]) -> String {
    serde_json::from_slice::<Status>(body)
        .map(|status| status.message)
        .unwrap_or_default()
}

fn is_watch(uri: &Uri) -> bool {
    uri.query()
        .is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}

/// Adds the parameter `timeout`. The API server then gives the request up after `limit`, so that it
/// cannot take effect when another operator leads.
fn with_server_timeout(uri: &Uri, limit: Duration) -> Result<Uri, hyper::http::Error> {
    let separator = if uri.query().is_some() { '&' } else { '?' };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let limited = format!("{path}{separator}timeout={}ms", limit.as_millis());
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(limited.parse()?);
    Ok(Uri::from_parts(parts)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_carries_its_time_limit_beside_what_it_asks_for() {
        let limited = |uri: &str| {
            with_server_timeout(&uri.parse().expect("a URI"), Duration::from_millis(3500))
                .expect("a URI")
                .to_string()
        };
        assert_eq!(limited("/api/v1/pods"), "/api/v1/pods?timeout=3500ms");
        assert_eq!(
            limited("/api/v1/pods?fieldManager=a"),
            "/api/v1/pods?fieldManager=a&timeout=3500ms"
        );
    }
}
