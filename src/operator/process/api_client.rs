//! The client of passes and watches: what every request goes through. IO.
//!
//! A write asks the fence first. An answer that does not come is given up. A watch is listened to
//! down to its bookmarks, of which the watcher itself tells nothing.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Bytes};
use kube::{Client, Config, client::Body, core::Status};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::operator::process::{
    fence::Fence,
    health::{Access, Answer, Pulse},
    metrics::Metrics,
};

/// For an answer, or the beginning of a watch. Passes have a shorter limit of their own.
const LONGEST: Duration = Duration::from_secs(15);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;
type Answered = Response<AnswerBody>;

/// Why a request was not sent, or not waited for.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("this operator may lead no more: nothing is written")]
    Fenced,
    #[error("no answer from the API server within {}s", LONGEST.as_secs())]
    Timeout,
}

/// What requests are measured by and noted in.
#[derive(Clone)]
pub(crate) struct Wire {
    pub fence: Fence,
    pub pulse: Arc<Pulse>,
    pub metrics: Metrics,
}

/// A connection pool of its own. Failed requests are tried again by the objects' own back-off,
/// where that can be seen.
pub(crate) fn plain(mut config: Config) -> kube::Result<Client> {
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config)
}

/// The same, with all of the above.
pub(crate) fn wired(inner: Client, wire: Wire) -> Client {
    let namespace = inner.default_namespace().to_owned();
    let service = tower::service_fn(move |request| {
        let sent = send(inner.clone(), wire.clone(), request);
        // On its own task: a watcher in its back-off does not poll the connections of the others.
        let task = AbortOnDropHandle::new(tokio::spawn(sent));
        async move { task.await? }
    });
    Client::new(service, namespace)
}

async fn send(inner: Client, wire: Wire, mut request: Request<Body>) -> Result<Answered, BoxError> {
    let (method, started) = (request.method().clone(), Instant::now());
    if method != Method::GET {
        let longest = wire
            .fence
            .allows(started.into_std())
            .ok_or(SendError::Fenced)?;
        *request.uri_mut() = ending_after(request.uri(), longest)?;
    }
    let verb = if is_watch(request.uri()) {
        "WATCH"
    } else {
        method.as_str()
    };
    let ended = timeout(LONGEST, answer(&inner, &wire.pulse, request))
        .await
        .unwrap_or_else(|_| Err(SendError::Timeout.into()));
    wire.metrics.asked(
        verb,
        ended.as_ref().ok().map(Response::status),
        started.elapsed(),
    );
    ended
}

/// The whole answer; of a watch its beginning.
async fn answer(
    inner: &Client,
    pulse: &Arc<Pulse>,
    request: Request<Body>,
) -> Result<Answered, BoxError> {
    let reads = request.method() == Method::GET;
    let (path, watches) = (request.uri().path().to_owned(), is_watch(request.uri()));
    let (head, body) = inner.send(request).await?.into_parts();
    if watches && head.status.is_success() {
        note(pulse, &path, Answer::Opened, &[]);
        return Ok(Response::from_parts(
            head,
            listened_to(body, Arc::clone(pulse), path),
        ));
    }
    let body = body.collect().await?.to_bytes();
    if let Some(refusal) = refusal(head.status).filter(|_| reads) {
        note(pulse, &path, refusal, &body);
    }
    Ok(Response::from_parts(
        head,
        Full::new(body)
            .map_err(|never| match never {})
            .boxed_unsync(),
    ))
}

fn listened_to(body: Body, pulse: Arc<Pulse>, path: String) -> AnswerBody {
    let heard = body.map_frame(move |frame| {
        pulse.heard(&path, Instant::now().into_std());
        frame
    });
    heard.map_err(Into::into).boxed_unsync()
}

/// What an answer that brings nothing says of the one who asked; absent: it says something of the
/// API server.
fn refusal(status: StatusCode) -> Option<Answer> {
    match status {
        StatusCode::FORBIDDEN => Some(Answer::Forbidden),
        other if other.is_client_error() => Some(Answer::Refused),
        _ => None,
    }
}

/// Tells of it only when it is new: a list or a watch that is refused is asked for again every few
/// seconds.
fn note(pulse: &Pulse, path: &str, answer: Answer, body: &[u8]) {
    match pulse.answered(path, answer, Instant::now().into_std()) {
        Some(Access::Lost(Some(namespace))) => tracing::error!(
            namespace,
            why = message(body),
            "the API server shows this operator nothing of a namespace: relays there go on, but nobody looks after them. Make the namespace and \
             the operator's RoleBinding in it again (helm upgrade does), or take it out of watchNamespaces"
        ),
        Some(Access::Lost(None)) => tracing::error!(
            why = message(body),
            "the API server shows this operator nothing: relays go on, but nobody looks after them. Bind the ClusterRole of the chart to its \
             ServiceAccount"
        ),
        Some(Access::Regained(namespace)) => {
            tracing::info!(namespace, "the API server shows again what is there");
        }
        None => {}
    }
}

/// The API server's own words.
fn message(body: &[u8]) -> String {
    serde_json::from_slice::<Status>(body)
        .map(|status| status.message)
        .unwrap_or_default()
}

fn is_watch(uri: &Uri) -> bool {
    uri.query()
        .is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}

/// The API server itself gives the request up after that time, so that it cannot come to pass when
/// somebody else leads.
fn ending_after(uri: &Uri, longest: Duration) -> Result<Uri, hyper::http::Error> {
    let sign = if uri.query().is_some() { '&' } else { '?' };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let limited = format!("{path}{sign}timeout={}ms", longest.as_millis());
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
            ending_after(&uri.parse().expect("a URI"), Duration::from_millis(3500))
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
