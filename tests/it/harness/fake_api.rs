//! An API server in memory, for faults that a real one does not have on demand: objects by path,
//! the verbs that the operator uses, the controllers of Deployments and Jobs as far as the operator
//! sees them, and an answer that goes wrong at a chosen call.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use http::{Method, Request, Response};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, client::Body};
use serde_json::{Value, json};

/// How an answer goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is done.
    Refused(u16),
    /// It is done, and the answer is an error.
    DoneAndLost,
}

#[derive(Default)]
pub(crate) struct World {
    /// By path.
    pub(crate) objects: BTreeMap<String, Value>,
    /// Calls so far, and the ones that go wrong.
    pub(crate) calls: usize,
    pub(crate) faults: BTreeMap<usize, Fault>,
    /// Requests that change something, with their queries, without Events.
    pub(crate) writes: Vec<String>,
    /// Events that were written.
    pub(crate) events: Vec<Value>,
    /// What must never happen, and did.
    pub(crate) violations: Vec<String>,
    version: u64,
}

/// Shared between the test and the client.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<World>>);

impl FakeApi {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("no panic while it is held")
    }

    pub(crate) fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.expect("a whole request");
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let (code, answer) = fake.world().answer(&parts.method, &parts.uri, body);
                Ok::<_, kube::Error>(
                    Response::builder()
                        .status(code)
                        .body(Body::from(answer.to_string().into_bytes()))
                        .expect("an answer"),
                )
            }
        });
        Client::new(service, "default")
    }
}

impl World {
    fn answer(&mut self, method: &Method, uri: &http::Uri, body: Value) -> (u16, Value) {
        if uri.path().contains("/events.k8s.io/") {
            self.events.push(body.clone());
            return (201, body);
        }
        self.calls += 1;
        let fault = self.faults.remove(&self.calls);
        if let Some(Fault::Refused(code)) = fault {
            return (code, refusal(code, "chosen by the test", ""));
        }
        let answer = self.carry_out(method, uri, body);
        if fault == Some(Fault::DoneAndLost) {
            (500, refusal(500, "the answer was lost", ""))
        } else {
            answer
        }
    }

    fn carry_out(&mut self, method: &Method, uri: &http::Uri, body: Value) -> (u16, Value) {
        let path = uri.path();
        if *method != Method::GET {
            let path_and_query = uri.path_and_query().map_or(path, |both| both.as_str());
            self.writes.push(format!("{method} {path_and_query}"));
        }
        match (method.as_str(), path.rsplit_once('/')) {
            ("GET", _) if self.objects.contains_key(path) => (200, self.objects[path].clone()),
            ("GET", _) if is_collection(path) => {
                (200, self.list(path, uri.query().unwrap_or_default()))
            }
            ("POST", _) => self.create(path, body),
            ("PATCH", Some((parent, "scale"))) if self.is_another(parent, &body) => {
                (409, refusal(409, "another uid", path))
            }
            ("PATCH", Some((parent, "scale"))) => {
                let replicas = &body["spec"]["replicas"];
                let (code, answer) = self.change(parent, |object| {
                    object["spec"]["replicas"] = replicas.clone()
                });
                (code, if code == 200 { scale(&answer) } else { answer })
            }
            ("PATCH", Some((parent, "status"))) => {
                self.change(parent, |object| object["status"] = body["status"].clone())
            }
            ("PATCH", _) => self.patch(path, &body),
            ("DELETE", _) if self.objects.remove(path).is_some() => (
                200,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}),
            ),
            _ => (404, refusal(404, "not found", path)),
        }
    }

    fn list(&self, path: &str, query: &str) -> Value {
        let query = query.replace("%2F", "/").replace("%3D", "=");
        let selector = query
            .split('&')
            .find_map(|part| part.strip_prefix("labelSelector=")?.split_once('='));
        let prefix = format!("{path}/");
        let of_collection = self
            .objects
            .iter()
            .filter(|(path, _)| path.starts_with(&prefix))
            .map(|(_, object)| object);
        let items: Vec<&Value> = of_collection
            .filter(|object| {
                selector.is_none_or(|(name, value)| object["metadata"]["labels"][name] == value)
            })
            .collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items})
    }

    fn create(&mut self, collection: &str, mut object: Value) -> (u16, Value) {
        let path = format!(
            "{collection}/{}",
            object["metadata"]["name"].as_str().unwrap_or_default()
        );
        if self.objects.contains_key(&path) {
            return (409, refusal(409, "exists already", &path));
        }
        self.version += 1;
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        metadata.insert("uid".to_owned(), json!(format!("uid-{}", self.version)));
        metadata.insert("generation".to_owned(), json!(1));
        metadata.insert("creationTimestamp".to_owned(), json!(now()));
        metadata.insert(
            "managedFields".to_owned(),
            json!([{"manager": "outbox-operator", "operation": "Update"}]),
        );
        self.objects.insert(path, object.clone());
        (201, object)
    }

    fn patch(&mut self, path: &str, body: &Value) -> (u16, Value) {
        if self.is_another(path, body) {
            return (409, refusal(409, "another uid", path));
        }
        if path.contains("/deployments/") && body["spec"].get("replicas").is_some() {
            self.violations.push(format!(
                "somebody beside the scale subresource writes the count: {body}"
            ));
        }
        self.change(path, |object| merge(object, body))
    }

    fn is_another(&self, path: &str, body: &Value) -> bool {
        self.objects
            .get(path)
            .is_some_and(|object| body["metadata"]["uid"] != object["metadata"]["uid"])
    }

    fn change(&mut self, path: &str, change: impl FnOnce(&mut Value)) -> (u16, Value) {
        let Some(object) = self.objects.get_mut(path) else {
            return (404, refusal(404, "not found", path));
        };
        let before = object["spec"].clone();
        change(object);
        if object["spec"] != before {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or(1);
            object["metadata"]["generation"] = json!(generation + 1);
        }
        (200, object.clone())
    }

    /// What the controllers of Kubernetes do in a moment: Deployments arrive, Jobs end.
    pub(crate) fn let_controllers_work(&mut self) {
        for (path, object) in &mut self.objects {
            if path.contains("/deployments/") {
                let count = object["spec"]["replicas"].clone();
                object["status"] = json!({"observedGeneration": object["metadata"]["generation"], "replicas": count, "updatedReplicas": count,
                    "readyReplicas": count, "availableReplicas": count, "conditions": [{"type": "Progressing", "status": "True",
                    "reason": "NewReplicaSetAvailable"}]});
            }
            if path.contains("/jobs/") && object["status"].is_null() {
                object["status"] = json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": now()}]});
            }
        }
    }
}

/// What the scale subresource shows of an object.
fn scale(object: &Value) -> Value {
    let (metadata, replicas) = (&object["metadata"], &object["spec"]["replicas"]);
    let status = json!({"replicas": replicas, "selector": ""});
    json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": {"replicas": replicas}, "status": status})
}

/// In whole seconds, as the API server keeps times.
fn now() -> String {
    let now = Timestamp::now().as_second();
    Timestamp::from_second(now).expect("now").to_string()
}

/// `/api/v1/namespaces/n/pods` and the like: without a name.
fn is_collection(path: &str) -> bool {
    path.split("/namespaces/")
        .nth(1)
        .is_some_and(|rest| rest.split('/').count() == 2)
}

fn refusal(code: u16, message: &str, path: &str) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    let name = path.rsplit('/').next().unwrap_or_default();
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": reason, "details": {"name": name}})
}

fn merge(object: &mut Value, patch: &Value) {
    let (Some(fields), Some(changes)) = (object.as_object_mut(), patch.as_object()) else {
        *object = patch.clone();
        return;
    };
    for (name, change) in changes {
        merge(fields.entry(name.clone()).or_insert(Value::Null), change);
    }
}
