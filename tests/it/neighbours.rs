//! What else there is in a pod and in a namespace: containers that somebody injects, children that
//! lost their owner, variables, quotas and limits of the migration's Job. With real pods, which take
//! longer than 20 s to start, be replaced and end.

use std::time::{Duration, Instant};

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{LimitRange, Pod, ResourceQuota},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::harness::{
    kubernetes::{NAME, kubectl},
    on_call::{Incident, RELAY, STATUS_MAX},
    pods,
};

/// Adds a container to every pod of a namespace, as a service mesh does. Removed when dropped.
struct Injection {
    name: String,
}

impl Injection {
    /// An injection by this JSON patch, which has begun.
    fn begin(namespace: &str, patch: &str) -> Self {
        let name = format!("inject-{namespace}");
        let pods = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
            "resources": ["pods"]}]);
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": pods},
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
            },
        });
        let here = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "matchResources": {"namespaceSelector": here}},
        });
        kubectl(&["create", "-f", "-"], &policy.to_string());
        kubectl(&["create", "-f", "-"], &binding.to_string());
        let injection = Self { name };
        injection.wait(namespace);
        injection
    }

    fn wait(&self, namespace: &str) {
        let container = json!({"name": "c", "image": "localhost/pause:1", "securityContext":
            {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trial"},
            "spec": {"containers": [container], "securityContext":
                {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}}});
        let trial = ["create", "--dry-run=server", "-o", "json", "-n", namespace];
        let start = Instant::now();
        let is_injected = || {
            let made = kubectl(&[&trial[..], &["-f", "-"]].concat(), &pod.to_string());
            made.contains("a-proxy")
        };
        while !is_injected() {
            assert!(start.elapsed() < STATUS_MAX, "nothing is injected");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        for kind in ["mutatingadmissionpolicybinding", "mutatingadmissionpolicy"] {
            kubectl(&["delete", "--ignore-not-found", kind, &self.name], "");
        }
    }
}

/// The injected container in CEL, as an element of the list of this name.
fn proxy(list: &str, more: &str) -> String {
    format!(
        r#"Object.spec.{list}{{name: "a-proxy", image: "localhost/pause:1"{more},
        securityContext: Object.spec.{list}.securityContext{{
            allowPrivilegeEscalation: false, runAsUser: 65532,
            capabilities: Object.spec.{list}.securityContext.capabilities{{drop: ["ALL"]}}}}}}"#
    )
}

async fn migration_job(service: &Incident) -> Job {
    let ours = ListParams::default().labels("outboxrelay.dev/migration=file-service");
    let jobs = service.ns.api::<Job>().list(&ours).await.expect("a list");
    let mut jobs = jobs.items;
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    jobs.remove(0)
}

async fn pods_of(service: &Incident, label: &str) -> Vec<Pod> {
    let ours = ListParams::default().labels(&format!("outboxrelay.dev/{label}=file-service"));
    let pods = service.ns.api::<Pod>().list(&ours).await;
    pods.expect("a list").items
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_is_done_although_an_injected_container_runs_on() {
    let service = Incident::new().await;
    let patch = format!(
        r#"[JSONPatch{{op: "add", path: "/spec/containers/0", value: {}}}]"#,
        proxy("containers", "")
    );
    let _injection = Injection::begin(&service.ns.name, &patch);
    pods::good_credentials(&service.ns, &service.database).await;
    service.apply(|_| ()).await;
    service.heals().await;
    for label in ["migration", "relay"] {
        let pods = pods_of(&service, label).await;
        let containers = &pods[0].spec.as_ref().expect("a spec").containers;
        assert_eq!(containers.len(), 2, "{label}");
    }
    let job = migration_job(&service).await;
    assert!(
        job.status
            .as_ref()
            .is_some_and(|status| status.active == Some(1)),
        "the Job has ended: {:?}",
        job.status
    );

    // The Job fails at its deadline, which comes now.
    let deadline = Patch::Merge(json!({"spec": {"activeDeadlineSeconds": 1}}));
    let jobs = service.ns.api::<Job>();
    jobs.patch(&job.name_any(), &PatchParams::default(), &deadline)
        .await
        .expect("a valid change");
    let start = Instant::now();
    while !pods_of(&service, "migration").await.is_empty() {
        assert!(start.elapsed() < STATUS_MAX, "its pod is not gone");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    service.reconcile_now("after the deadline").await;
    // The operator has seen that value when the status has this generation's count of relays.
    service
        .ns
        .patch_relay(json!({"spec": {"replicas": 2}}))
        .await;
    service
        .until_reported("Available", "True AllRelaysAvailable", &["2 of 2"])
        .await;
    assert_eq!(
        service.condition("SchemaReady").await.state,
        "True MigrationSucceeded"
    );
    assert_eq!(
        migration_job(&service).await.uid(),
        job.uid(),
        "it ran again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_fails_although_an_injected_container_runs_on() {
    let service = Incident::new().await;
    let patch = format!(
        r#"[JSONPatch{{op: "add", path: "/spec/containers/0", value: {}}}]"#,
        proxy("containers", "")
    );
    let _injection = Injection::begin(&service.ns.name, &patch);
    service.apply(|_| ()).await;
    service
        .until_reported(
            "Ready",
            "False SecretMissing",
            &["Secret 'relay' is missing"],
        )
        .await;
    pods::good_credentials(&service.ns, &service.database).await;
    service.heals().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_native_sidecar_changes_nothing() {
    let service = Incident::new().await;
    let patch = format!(
        r#"[JSONPatch{{op: "add", path: "/spec/initContainers", value: [{}]}}]"#,
        proxy("initContainers", r#", restartPolicy: "Always""#)
    );
    let _injection = Injection::begin(&service.ns.name, &patch);
    service.apply(|_| ()).await;
    service
        .until_reported(
            "Ready",
            "False SecretMissing",
            &["Secret 'relay' is missing"],
        )
        .await;
    pods::good_credentials(&service.ns, &service.database).await;
    service.heals().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_injected_container_that_cannot_start_is_named() {
    let service = Incident::new().await;
    let broken = proxy("initContainers", r#", restartPolicy: "Always""#)
        .replace("localhost/pause:1", "localhost/absent:1");
    let patch =
        format!(r#"[JSONPatch{{op: "add", path: "/spec/initContainers", value: [{broken}]}}]"#);
    let _injection = Injection::begin(&service.ns.name, &patch);
    pods::good_credentials(&service.ns, &service.database).await;
    service.apply(|_| ()).await;
    service
        .until_reported(
            "Ready",
            "False PodsPending",
            &["container 'a-proxy'", "absent:1"],
        )
        .await;
}

/// Names and uids of the relays' pods.
async fn relays(service: &Incident) -> Vec<(String, Option<String>)> {
    let pods = pods_of(service, "relay").await;
    pods.iter().map(|pod| (pod.name_any(), pod.uid())).collect()
}

/// The manifest as a person has it in a file.
async fn saved(service: &Incident) -> Value {
    let relay: outbox_relay::api::OutboxRelay = service.ns.get(NAME).await;
    json!({"apiVersion": "outboxrelay.dev/v1alpha1", "kind": "OutboxRelay",
        "metadata": {"name": NAME}, "spec": relay.spec})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_that_lost_their_owner_are_taken_back_and_relays_run_on() {
    let service = Incident::running(|_| ()).await;
    let (manifest, before) = (saved(&service).await, relays(&service).await);
    let namespace = service.ns.name.as_str();
    let orphan = ["delete", "obr", NAME, "--cascade=orphan", "-n", namespace];
    kubectl(&orphan, "");
    kubectl(
        &["create", "-n", namespace, "-f", "-"],
        &manifest.to_string(),
    );
    service.heals().await;
    assert_eq!(relays(&service).await, before, "relays were replaced");
    let relay: outbox_relay::api::OutboxRelay = service.ns.get(NAME).await;
    for kind in [
        "deployment",
        "service",
        "serviceaccount",
        "poddisruptionbudget",
        "configmap",
        "job",
    ] {
        let selector = "app.kubernetes.io/managed-by=outbox-operator";
        let list = ["get", kind, "-n", namespace, "-l", selector, "-o", "json"];
        let found: Value = serde_json::from_str(&kubectl(&list, "")).expect("JSON");
        let owner = &found["items"][0]["metadata"]["ownerReferences"][0]["uid"];
        assert_eq!(owner.as_str(), relay.uid().as_deref(), "{kind}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_tool_restores_children_with_an_owner_that_is_gone() {
    let service = Incident::running(|_| ()).await;
    let namespace = service.ns.name.as_str();
    let manifest = saved(&service).await;
    let kinds = "deployment,service,serviceaccount,poddisruptionbudget,configmap";
    let selector = "app.kubernetes.io/managed-by=outbox-operator";
    let backup = kubectl(
        &["get", kinds, "-n", namespace, "-l", selector, "-o", "json"],
        "",
    );
    let mut backup: Value = serde_json::from_str(&backup).expect("JSON");
    for object in backup["items"].as_array_mut().expect("objects") {
        for field in ["uid", "resourceVersion", "creationTimestamp"] {
            object["metadata"]
                .as_object_mut()
                .expect("metadata")
                .remove(field);
        }
        if object["kind"] == "Service" {
            object["spec"]
                .as_object_mut()
                .expect("a spec")
                .remove("clusterIPs");
        }
    }
    kubectl(&["delete", "obr", NAME, "-n", namespace], "");
    let start = Instant::now();
    while service.ns.get_opt::<Deployment>(RELAY).await.is_some() {
        assert!(start.elapsed() < STATUS_MAX, "the Deployment is not gone");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    kubectl(&["create", "-n", namespace, "-f", "-"], &backup.to_string());
    kubectl(
        &["create", "-n", namespace, "-f", "-"],
        &manifest.to_string(),
    );
    let took = service.heals().await;
    eprintln!("ready {took:?} after the restore");
    let relay: outbox_relay::api::OutboxRelay = service.ns.get(NAME).await;
    let deployment: Deployment = service.ns.get(RELAY).await;
    let owners = deployment.metadata.owner_references.expect("an owner");
    assert_eq!(Some(&owners[0].uid), relay.uid().as_ref());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_come_into_the_pods_and_those_of_the_operator_stay() {
    let service = Incident::new().await;
    pods::good_credentials(&service.ns, &service.database).await;
    let shared = json!({"metadata": {"name": "shared"},
        "data": {"RUST_LOG": "outbox_relay=debug", "POD_NAME": "not-this"}});
    service
        .ns
        .create_object::<k8s_openapi::api::core::v1::ConfigMap>(shared)
        .await;
    service
        .apply(|relay| {
            relay["spec"]["template"]["env"] = json!([{"name": "LOG_FORMAT", "value": "json"}]);
            relay["spec"]["template"]["envFrom"] = json!([{"configMapRef": {"name": "shared"}}]);
        })
        .await;
    service.heals().await;
    for label in ["relay", "migration"] {
        let pod = pods_of(&service, label).await.remove(0);
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        let variables = container.env.iter().flatten();
        let names: Vec<&str> = variables.map(|one| one.name.as_str()).collect();
        assert!(names.contains(&"LOG_FORMAT"), "{label}: {names:?}");
        assert!(container.env_from.is_some(), "{label}");
    }
    let relay = pods_of(&service, "relay").await.remove(0).name_any();
    let log = kubectl(&["logs", &relay, "-n", &service.ns.name], "");
    assert!(log.starts_with('{'), "{log}");
    let instances = "select string_agg(pod, ' ') from outbox.relay";
    let pods: String =
        crate::harness::postgres::value(&mut service.database.as_admin().await, instances).await;
    assert!(pods.starts_with(RELAY), "{pods}");
    let reserved = json!([{"name": "POD_NAME", "value": "mine"}]);
    let refused = service
        .ns
        .api::<outbox_relay::api::OutboxRelay>()
        .patch(
            NAME,
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"template": {"env": reserved}}})),
        )
        .await;
    assert!(
        refused
            .as_ref()
            .is_err_and(|error| error.to_string().contains("operator's own")),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quota_and_limits_of_a_migration_are_named_and_it_starts_when_they_are_gone() {
    let service = Incident::new().await;
    pods::good_credentials(&service.ns, &service.database).await;
    let none = json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
    service.ns.create_object::<ResourceQuota>(none).await;
    service.apply(|_| ()).await;
    let shown = service
        .until_reported("Ready", "False PodsRefused", &["exceeded quota"])
        .await;
    let minimum = json!([{"type": "Container", "min": {"memory": "256Mi"}}]);
    let range = json!({"metadata": {"name": "range"}, "spec": {"limits": minimum}});
    service.ns.create_object::<LimitRange>(range).await;
    let quotas = service.ns.api::<ResourceQuota>();
    quotas
        .delete("none", &DeleteParams::default())
        .await
        .expect("deleted");
    let next = service
        .until_reported("Ready", "False PodsRefused", &["minimum memory usage"])
        .await;
    let ranges = service.ns.api::<LimitRange>();
    ranges
        .delete("range", &DeleteParams::default())
        .await
        .expect("deleted");
    let healed = service.heals().await;
    eprintln!("a quota was shown after {shown:?}, the limits {next:?}, healed {healed:?}");
}
