//! The client of passes and watches: what every request goes through. IO.
//!
//! A write asks the fence first. An answer that does not come is given up. A watch is listened to down to its bookmarks, of which the
//! watcher itself tells nothing.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{Method, Request, Response, Uri, body::Bytes};
use kube::{Client, Config, client::Body};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{fence::Fence, health::Pulse, metrics::Metrics};

/// For an answer, or the beginning of a watch. Passes have a shorter limit of their own.
const LONGEST: Duration = Duration::from_secs(15);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

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

/// A connection pool of its own. Failed requests are tried again by the objects' own back-off, where that can be seen.
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

async fn send(inner: Client, wire: Wire, mut request: Request<Body>) -> Result<Answer, BoxError> {
    let (method, started) = (request.method().clone(), Instant::now());
    if method != Method::GET {
        let longest = wire.fence.allows(started.into_std()).ok_or(SendError::Fenced)?;
        *request.uri_mut() = ending_after(request.uri(), longest)?;
    }
    let watched = is_watch(request.uri()).then(|| request.uri().path().to_owned());
    if let Some(path) = &watched {
        wire.pulse.watch_asked(path, started.into_std());
    }
    let verb = if watched.is_some() { "WATCH" } else { method.as_str() };
    let ended = timeout(LONGEST, answer(&inner, &wire.pulse, request, watched)).await.unwrap_or_else(|_| Err(SendError::Timeout.into()));
    wire.metrics.asked(verb, ended.as_ref().ok().map(Response::status), started.elapsed());
    ended
}

/// The whole answer; of a watch its beginning.
async fn answer(inner: &Client, pulse: &Arc<Pulse>, request: Request<Body>, watched: Option<String>) -> Result<Answer, BoxError> {
    let (head, body) = inner.send(request).await?.into_parts();
    let body = match watched.filter(|_| head.status.is_success()) {
        Some(path) => {
            pulse.watch_heard(&path, Instant::now().into_std());
            let pulse = Arc::clone(pulse);
            let heard = body.map_frame(move |frame| {
                pulse.watch_heard(&path, Instant::now().into_std());
                frame
            });
            heard.map_err(Into::into).boxed_unsync()
        }
        None => Full::new(body.collect().await?.to_bytes()).map_err(|never| match never {}).boxed_unsync(),
    };
    Ok(Response::from_parts(head, body))
}

fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}

/// The API server itself gives the request up after that time, so that it cannot come to pass when somebody else leads.
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
        let limited = |uri: &str| ending_after(&uri.parse().expect("a URI"), Duration::from_millis(3500)).expect("a URI").to_string();
        assert_eq!(limited("/api/v1/pods"), "/api/v1/pods?timeout=3500ms");
        assert_eq!(limited("/api/v1/pods?fieldManager=a"), "/api/v1/pods?fieldManager=a&timeout=3500ms");
    }
}
