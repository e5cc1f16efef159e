//! The operator as a process of its own, as it runs in a pod. A proxy before the API server shows it one namespace only, so that it leaves the
//! objects of other tests alone, and notes what it asks for.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use axum::{Router, body::Body, extract::State, response::Response};
use kube::Client;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

use super::{kubernetes::client, server::free_port};

/// A running operator; killed when it goes out of scope.
pub(crate) struct OperatorProcess {
    child: Child,
    proxy: JoinHandle<()>,
    folder: PathBuf,
    requests: Requests,
}

/// Method and path with query, as the operator asked.
type Requests = Arc<Mutex<Vec<(String, String)>>>;

#[derive(Clone)]
struct Proxy {
    client: Client,
    namespace: String,
    requests: Requests,
}

impl OperatorProcess {
    /// Of this namespace, listening here, as this user where given.
    pub(crate) async fn start(namespace: &str, port: u16, user: Option<String>) -> Self {
        let requests = Requests::default();
        let proxy = Proxy { client: client(user).await, namespace: namespace.to_owned(), requests: Arc::clone(&requests) };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server = format!("http://{}", listener.local_addr().expect("bound"));
        let routes = Router::new().fallback(forward).with_state(proxy);
        let proxy = tokio::spawn(async move { axum::serve(listener, routes).await.expect("served") });

        let folder = std::env::temp_dir().join(format!("{namespace}_operator"));
        std::fs::create_dir_all(&folder).expect("created");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": server}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "users": [{"name": "it", "user": {}}],
        });
        std::fs::write(folder.join("kubeconfig"), kubeconfig.to_string()).expect("written");
        let log = std::fs::File::create(folder.join("log")).expect("created");
        let child = Command::new(env!("CARGO_BIN_EXE_outbox-operator"))
            .args(["run", "--relay-image", "localhost/outbox-relay:none", "--listen", &format!("127.0.0.1:{port}")])
            .env("KUBECONFIG", folder.join("kubeconfig"))
            .stdout(Stdio::from(log.try_clone().expect("a second handle")))
            .stderr(Stdio::from(log))
            .spawn()
            .expect("the operator's program");
        Self { child, proxy, folder, requests }
    }

    /// On a free port.
    pub(crate) async fn start_anywhere(namespace: &str, user: Option<String>) -> Self {
        Self::start(namespace, free_port().await, user).await
    }

    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        self.requests.lock().expect("no panic while it is held").clone()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

async fn forward(State(proxy): State<Proxy>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    let asked = parts.uri.path_and_query().expect("a path").as_str();
    proxy.requests.lock().expect("no panic while it is held").push((parts.method.to_string(), asked.to_owned()));
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a request of ours is small");
    let mut forwarded = http::Request::builder().method(parts.method).uri(narrowed(asked, &proxy.namespace));
    for name in ["accept", "content-type"] {
        if let Some(value) = parts.headers.get(name) {
            forwarded = forwarded.header(name, value);
        }
    }
    let request = forwarded.body(kube::client::Body::from(body.to_vec())).expect("a request");
    match proxy.client.send(request).await {
        Ok(answer) => {
            let (parts, body) = answer.into_parts();
            let mut response = Response::new(Body::new(body));
            *response.status_mut() = parts.status;
            if let Some(kind) = parts.headers.get("content-type") {
                response.headers_mut().insert("content-type", kind.clone());
            }
            response
        }
        Err(error) => Response::builder().status(502).body(Body::from(error.to_string())).expect("a response"),
    }
}

/// A list or watch of all namespaces becomes one of this namespace.
fn narrowed(asked: &str, namespace: &str) -> String {
    let (path, query) = asked.split_once('?').unwrap_or((asked, ""));
    let steps: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let narrow = match steps.as_slice() {
        ["api", version, plural] if *plural != "namespaces" => format!("/api/{version}/namespaces/{namespace}/{plural}"),
        ["apis", group, version, plural] => format!("/apis/{group}/{version}/namespaces/{namespace}/{plural}"),
        _ => path.to_owned(),
    };
    format!("{narrow}?{query}")
}

impl Drop for OperatorProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the operator\n{}", self.log());
        }
        self.child.kill().ok();
        self.child.wait().ok();
        self.proxy.abort();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
