//! A namespace for a test on the rig's cluster with the CRD, and an operator that reconciles one
//! OutboxRelay on request. Its pods are never scheduled; the test simulates them.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
    core::NamespaceResourceScope,
};
use outbox_relay::{
    api::{OutboxRelay, custom_resource_definition},
    operator::{Installation, Operator, ReconcileError, RelayKey, Requeue, Settings},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::rig::rig;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Name of the OutboxRelay of each test.
pub(crate) const NAME: &str = "file-service";

/// A namespace. It is deleted when this is dropped.
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) client: Client,
    pub(crate) operator: Operator,
    watched: Client,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Namespace {
    /// Creates a namespace that enforces the `restricted` Pod Security Standard.
    pub(crate) async fn create() -> Self {
        Self::create_as(None).await
    }

    /// Creates a namespace. The operator acts as this user if there is one; the test itself has all
    /// rights.
    pub(crate) async fn create_as(user: Option<String>) -> Self {
        let seen = client(user).await;
        Self::create_with(|_| seen).await
    }

    /// Creates a namespace. The operator uses the client that `through` makes of the test's client.
    pub(crate) async fn create_with(through: impl FnOnce(Client) -> Client) -> Self {
        let name = format!(
            "op-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata":
            {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        kubectl(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            &custom_resource_definition(),
        );
        kubectl(
            &[
                "wait",
                "--for=condition=Established",
                "crd/outboxrelays.outboxrelay.dev",
            ],
            "",
        );
        kubectl(&["create", "-f", "-"], &namespace.to_string());
        let requests = Arc::default();
        let client = client(None).await;
        let watched = recording(through(client.clone()), Arc::clone(&requests));
        let operator = Operator::new(watched.clone(), settings(&|_| ()));
        Self {
            client,
            operator,
            watched,
            requests,
            name,
        }
    }

    /// Replaces the operator by another version.
    pub(crate) fn replace_operator(&mut self, change: &dyn Fn(&mut Installation)) {
        self.operator = Operator::new(self.watched.clone(), settings(change));
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Creates the test's OutboxRelay, with `migration.policy: Never` unless changed.
    pub(crate) async fn create_relay(&self, change: impl FnOnce(&mut Value)) -> OutboxRelay {
        let mut relay = manifest();
        change(&mut relay);
        let relay = serde_json::from_value(relay).expect("a manifest");
        self.api::<OutboxRelay>()
            .create(&PostParams::default(), &relay)
            .await
            .expect("a valid manifest")
    }

    pub(crate) async fn patch_relay(&self, patch: Value) {
        let api = self.api::<OutboxRelay>();
        api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .expect("a valid change");
    }

    pub(crate) async fn get<K>(&self, name: &str) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        self.api::<K>()
            .get(name)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) async fn get_opt<K>(&self, name: &str) -> Option<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        self.api::<K>()
            .get_opt(name)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) async fn create_object<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let object = serde_json::from_value(object).expect("an object");
        self.api::<K>()
            .create(&PostParams::default(), &object)
            .await
            .expect("created")
    }

    /// Reconciles an OutboxRelay as the controller does when it changed.
    pub(crate) async fn reconcile_named(&self, name: &str) -> Result<Requeue, ReconcileError> {
        let key = RelayKey::new(&self.name, name);
        self.operator.mark_changed(&key);
        Box::pin(self.operator.reconcile(&key)).await
    }

    /// Reconciles the test's OutboxRelay, which must succeed.
    pub(crate) async fn reconcile(&self) {
        self.reconcile_named(NAME)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
    }

    /// Reconciles the test's OutboxRelay, which must fail.
    pub(crate) async fn failing_reconcile(&self) {
        let ended = self.reconcile_named(NAME).await;
        assert!(ended.is_err(), "{ended:?}");
    }

    /// Reconciles until the Deployment controller and the operator agree.
    pub(crate) async fn settle(&self) {
        for _ in 0..50 {
            let before = self.writes().len();
            self.reconcile().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            if self.writes().len() == before {
                return;
            }
        }
        panic!("still writing after 50 passes: {:?}", self.writes());
    }

    /// Reconciles until a check succeeds. Panics with the last result after the time limit.
    pub(crate) async fn reconcile_until<T>(
        &self,
        seconds: u64,
        look: impl AsyncFn(&Self) -> Result<T, String>,
    ) -> T {
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            self.reconcile().await;
            match look(self).await {
                Ok(found) => return found,
                Err(seen) => assert!(Instant::now() < end, "after {seconds} s: {seen}"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Reconciles until a condition has this status and reason.
    pub(crate) async fn reconcile_until_condition(
        &self,
        seconds: u64,
        type_: &str,
        expected: &str,
    ) {
        let look = async |ns: &Self| {
            let status = ns.condition(type_).await;
            if status == expected {
                Ok(())
            } else {
                Err(format!(
                    "{type_} is {status}, not {expected}: {:?}",
                    ns.get::<OutboxRelay>(NAME).await.status
                ))
            }
        };
        self.reconcile_until(seconds, look).await;
    }

    /// Reports `count` more pods as ready, in place of a kubelet.
    pub(crate) async fn kubelet(&self, count: usize) {
        let is_ready = |pod: &Pod| {
            let conditions = pod
                .status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten());
            conditions
                .into_iter()
                .any(|one| one.type_ == "Ready" && one.status == "True")
        };
        let pods = self
            .api::<Pod>()
            .list(&ListParams::default())
            .await
            .expect("a list")
            .items;
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready",
            "status": "True"}]}});
        for pod in pods.iter().filter(|pod| !is_ready(pod)).take(count) {
            // The pod may have been replaced meanwhile.
            self.api::<Pod>()
                .patch_status(
                    &pod.name_any(),
                    &PatchParams::default(),
                    &Patch::Merge(&ready),
                )
                .await
                .ok();
        }
    }

    /// Status and reason of a condition, like `"True NameConflict"`.
    pub(crate) async fn condition(&self, type_: &str) -> String {
        let relay: OutboxRelay = self.get(NAME).await;
        let conditions = relay.status.expect("a status").conditions;
        let found = conditions
            .iter()
            .find(|condition| condition.type_ == type_)
            .unwrap_or_else(|| panic!("no {type_} in {conditions:?}"));
        format!("{} {}", found.status, found.reason)
    }

    /// Requests of the operator so far, like `"PATCH /apis/..."`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests
            .lock()
            .expect("no panic while it is held")
            .clone()
    }

    pub(crate) fn writes(&self) -> Vec<String> {
        self.requests()
            .into_iter()
            .filter(|request| !request.starts_with("GET "))
            .collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run(&["delete", "namespace", &self.name, "--wait=false"], "");
    }
}

fn settings(change: &dyn Fn(&mut Installation)) -> Settings {
    let mut installation = Installation {
        relay_image: "localhost/outbox-relay:none".to_owned(),
        allowed_images: vec![
            "localhost/allowed/*".to_owned(),
            "localhost/outbox-relay:it-*".to_owned(),
        ],
        cluster_name: "it".to_owned(),
        upgrades_max: 5,
        namespace: Some("outbox-system".to_owned()),
        monitoring_namespace: Some("monitoring".to_owned()),
        relays_monitored: false,
    };
    change(&mut installation);
    Settings {
        installation,
        operator_name: "outbox-operator".to_owned(),
        pod_name: None,
    }
}

/// A manifest whose pods are never scheduled.
pub(crate) fn manifest() -> Value {
    json!({
        "apiVersion": "outboxrelay.dev/v1alpha1",
        "kind": "OutboxRelay",
        "metadata": {"name": NAME},
        "spec": {
            "database": {"host": "db.invalid", "name": "files",
                "credentialsSecretRef": {"name": "files-db"}},
            "migration": {"policy": "Never"},
            "kafka": {"bootstrapServers": ["kafka.invalid:9093"]},
            "topics": [{"name": "files.v1", "eventTypes": ["FileAdded"]}],
            "template": {"nodeSelector": {"outboxrelay.dev/nowhere": "true"}},
        },
    })
}

pub(crate) async fn client(user: Option<String>) -> Client {
    let kubeconfig = Kubeconfig::read_from(rig("RIG_KUBECONFIG")).expect("the rig's kubeconfig");
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a context");
    config.auth_info.impersonate = user;
    Client::try_from(config).expect("a client")
}

fn recording(inner: Client, requests: Arc<Mutex<Vec<String>>>) -> Client {
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let line = format!("{} {}", request.method(), request.uri().path());
        requests
            .lock()
            .expect("no panic while it is held")
            .push(line);
        let inner = inner.clone();
        async move { inner.send(request).await }
    });
    Client::new(service, "default")
}

/// The CRD of PodMonitors from the Prometheus Operator, without its schema.
const POD_MONITORS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: podmonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  names: {kind: PodMonitor, plural: podmonitors, singular: podmonitor, listKind: PodMonitorList}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

/// Installs the CRD of PodMonitors, unless the cluster has one.
pub(crate) fn install_pod_monitors() {
    run(&["create", "-f", "-"], POD_MONITORS);
    kubectl(
        &[
            "wait",
            "--for=condition=Established",
            "crd/podmonitors.monitoring.coreos.com",
        ],
        "",
    );
}

/// Runs kubectl with this input, which must succeed. Returns its output.
pub(crate) fn kubectl(arguments: &[&str], input: &str) -> String {
    let output = run(arguments, input);
    assert!(
        output.status.success(),
        "kubectl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run(arguments: &[&str], input: &str) -> Output {
    program("kubectl", arguments, input)
}

/// Runs a program of the rig's cluster.
pub(crate) fn program(name: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(format!("{}/{name}", rig("RIG_BIN")));
    command
        .args(arguments)
        .env("KUBECONFIG", rig("RIG_KUBECONFIG"));
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap_or_else(|error| {
        panic!("{name}: {error}: start the cluster with `tests/rig/rig up kubernetes`")
    });
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes())
        .expect("it reads its input");
    child.wait_with_output().expect("it ends")
}
