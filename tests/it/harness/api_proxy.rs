//! A proxy before the API server, of one operator's own: it notes what is asked, shows one
//! namespace where asked for all, and falls ill when told to.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::request::Parts,
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, stream};
use http_body_util::BodyExt;
use kube::Client;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::gate::Gate;

/// A running proxy; its connections end when it goes out of scope.
pub(crate) struct ApiProxy {
    served: JoinHandle<()>,
    gate: Gate,
    proxy: Proxy,
}

#[derive(Clone)]
struct Proxy {
    client: Client,
    namespace: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    illness: watch::Sender<Illness>,
}

/// What an operator asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
}

impl Asked {
    fn of(parts: &Parts) -> Self {
        let path = parts.uri.path_and_query().expect("a path").to_string();
        Self {
            at: Instant::now(),
            method: parts.method.to_string(),
            path,
        }
    }

    pub(crate) fn is_watch(&self) -> bool {
        self.path.contains("watch=true")
    }

    pub(crate) fn is_of_lease(&self) -> bool {
        self.path.contains("/leases")
    }

    /// Of a Lease nothing is at stake.
    pub(crate) fn is_write(&self) -> bool {
        self.method != "GET" && !self.is_of_lease()
    }
}

/// What happens to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// They are taken and never answered; what flows already stops.
    Silence,
    Answer(u16),
    /// Watches are told that what they saw last is too long ago to go on from.
    Expired,
    /// They are passed on later.
    Delay(Duration),
    /// Their answers are kept until this fault is over.
    Hold,
}

#[derive(Clone)]
struct Illness {
    fault: Fault,
    of: Arc<dyn Fn(&Asked) -> bool + Send + Sync>,
}

impl Illness {
    fn of(&self, asked: &Asked) -> Fault {
        if (self.of)(asked) {
            self.fault
        } else {
            Fault::None
        }
    }
}

impl ApiProxy {
    pub(crate) async fn start(client: Client, namespace: &str) -> Self {
        let (illness, _) = watch::channel(Illness {
            fault: Fault::None,
            of: Arc::new(|_| true),
        });
        let proxy = Proxy {
            client,
            namespace: namespace.to_owned(),
            asked: Arc::default(),
            illness,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let gate = Gate::open(listener.local_addr().expect("bound")).await;
        let routes = Router::new().fallback(forward).with_state(proxy.clone());
        let served =
            tokio::spawn(async move { axum::serve(listener, routes).await.expect("served") });
        Self {
            served,
            gate,
            proxy,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.gate.port()).into()
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.proxy
            .asked
            .lock()
            .expect("no panic while it is held")
            .clone()
    }

    /// From now on these requests suffer this fault, and no other.
    pub(crate) fn fall_ill(
        &self,
        fault: Fault,
        of: impl Fn(&Asked) -> bool + Send + Sync + 'static,
    ) {
        self.proxy.illness.send_replace(Illness {
            fault,
            of: Arc::new(of),
        });
    }

    pub(crate) fn recover(&self) {
        self.fall_ill(Fault::None, |_| true);
    }

    /// Down: connections are cut and none is taken.
    pub(crate) fn set_up(&self, up: bool) {
        self.gate.set_open(up);
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.served.abort();
    }
}

async fn forward(State(proxy): State<Proxy>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    let asked = Asked::of(&parts);
    proxy
        .asked
        .lock()
        .expect("no panic while it is held")
        .push(asked.clone());
    let mut illness = proxy.illness.subscribe();
    let fault = illness.borrow_and_update().of(&asked);
    match fault {
        Fault::None | Fault::Hold => {}
        Fault::Silence => std::future::pending().await,
        Fault::Answer(code) => return refusal(code),
        Fault::Expired => return expired(),
        Fault::Delay(pause) => tokio::time::sleep(pause).await,
    }
    let body = axum::body::to_bytes(body, 1 << 20)
        .await
        .expect("a request of ours is small");
    let mut forwarded = http::Request::builder()
        .method(parts.method)
        .uri(narrowed(&asked.path, &proxy.namespace));
    for name in ["accept", "content-type"] {
        if let Some(value) = parts.headers.get(name) {
            forwarded = forwarded.header(name, value);
        }
    }
    let request = forwarded
        .body(kube::client::Body::from(body.to_vec()))
        .expect("a request");
    let answer = match proxy.client.send(request).await {
        Ok(answer) => answer,
        Err(error) => return (http::StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    illness
        .wait_for(|now| now.of(&asked) != Fault::Hold)
        .await
        .expect("the proxy lives");
    let (parts, body) = answer.into_parts();
    let mut response = Response::new(Body::from_stream(silenced(body, illness, asked)));
    *response.status_mut() = parts.status;
    if let Some(kind) = parts.headers.get("content-type") {
        response.headers_mut().insert("content-type", kind.clone());
    }
    response
}

/// What flows, but nothing more once its request is silenced.
fn silenced(
    body: kube::client::Body,
    illness: watch::Receiver<Illness>,
    asked: Asked,
) -> impl Stream<Item = Result<hyper::body::Bytes, kube::Error>> {
    let flow = Box::pin(body.into_data_stream());
    stream::unfold(
        (flow, illness, asked),
        |(mut flow, mut illness, asked)| async move {
            let silent = async {
                illness
                    .wait_for(|now| now.of(&asked) == Fault::Silence)
                    .await
                    .ok();
            };
            let item = tokio::select! {
                biased;
                () = silent => std::future::pending().await,
                item = flow.next() => item?,
            };
            Some((item, (flow, illness, asked)))
        },
    )
}

/// As an API server puts it that is asked too much.
fn refusal(code: u16) -> Response {
    let seconds = if code == 429 { 2 } else { 0 };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "ill", "reason": "Ill",
        "details": {"retryAfterSeconds": seconds}});
    let response = Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .header("retry-after", seconds);
    response
        .body(Body::from(status.to_string()))
        .expect("a response")
}

/// The server's answer to such a watch is fine, and its first event is this.
fn expired() -> Response {
    let object = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "message": "ill", "reason": "Expired"});
    let event = json!({"type": "ERROR", "object": object});
    ([("content-type", "application/json")], format!("{event}\n")).into_response()
}

/// A list or watch of all namespaces becomes one of this namespace.
fn narrowed(asked: &str, namespace: &str) -> String {
    let (path, query) = asked.split_once('?').unwrap_or((asked, ""));
    let steps: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let narrow = match steps.as_slice() {
        ["api", version, plural] if *plural != "namespaces" => {
            format!("/api/{version}/namespaces/{namespace}/{plural}")
        }
        ["apis", group, version, plural] => {
            format!("/apis/{group}/{version}/namespaces/{namespace}/{plural}")
        }
        _ => path.to_owned(),
    };
    format!("{narrow}?{query}")
}
