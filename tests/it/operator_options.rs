//! What a manifest may wish for beside its relays, on a real API server: none of it for a while,
//! another account or image, who reaches and who watches them.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, ServiceAccount},
    events::v1::Event,
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    client::Body,
    core::{ApiResource, GroupVersionKind},
};
use outbox_relay::api::OutboxRelay;
use serde_json::json;

use crate::harness::{
    kubernetes::{NAME, Namespace, install_pod_monitors},
    relay::until,
};

const RELAY: &str = "file-service-relay";

async fn count(ns: &Namespace) -> Option<i32> {
    ns.get::<Deployment>(RELAY).await.spec.replicas
}

#[tokio::test]
async fn a_suspended_relay_has_no_pod_and_is_ready() {
    let ns = Namespace::create().await;
    ns.create_relay(|relay| relay["spec"]["suspend"] = json!(true))
        .await;
    for type_ in ["Ready", "Available"] {
        ns.reconcile_until_condition(60, type_, "True Suspended")
            .await;
    }
    assert_eq!(count(&ns).await, Some(0));
    assert_eq!(ns.condition("Publishing").await, "False Suspended");

    ns.patch_relay(json!({"spec": {"suspend": false}})).await;
    ns.settle().await;
    assert_eq!(count(&ns).await, Some(2));
    ns.patch_relay(json!({"spec": {"suspend": true}})).await;
    ns.settle().await;
    assert_eq!(count(&ns).await, Some(0));
}

async fn message(ns: &Namespace, type_: &str) -> String {
    let conditions = ns
        .get::<OutboxRelay>(NAME)
        .await
        .status
        .expect("a status")
        .conditions;
    conditions
        .into_iter()
        .find(|one| one.type_ == type_)
        .expect("it is said")
        .message
}

/// With its two pods.
async fn running() -> Namespace {
    let ns = Namespace::create().await;
    ns.create_relay(|_| ()).await;
    ns.reconcile_until(60, async |ns: &Namespace| has_replicas(ns, 2).await)
        .await;
    ns
}

async fn has_replicas(ns: &Namespace, count: i32) -> Result<(), String> {
    let status = ns.get::<OutboxRelay>(NAME).await.status.expect("a status");
    if status.replicas == Some(count) {
        Ok(())
    } else {
        Err(format!("{status:?}"))
    }
}

#[tokio::test]
async fn a_relay_that_ends_what_it_has_in_flight_is_said_to_be_still_there() {
    let ns = running().await;
    let pod = ns
        .api::<Pod>()
        .list(&ListParams::default())
        .await
        .expect("a list")
        .items[0]
        .name_any();
    let patch = async |change| {
        ns.api::<Pod>()
            .patch(&pod, &PatchParams::default(), &Patch::Merge(change))
            .await
            .expect("patched")
    };
    patch(json!({"metadata": {"finalizers": ["example.com/later"]}})).await;
    // An address of which nobody answers.
    let runs = Patch::Merge(
        json!({"status": {"phase": "Running", "podIP": "192.0.2.1", "podIPs": [{"ip": "192.0.2.1"}]}}),
    );
    ns.api::<Pod>()
        .patch_status(&pod, &PatchParams::default(), &runs)
        .await
        .expect("patched");

    ns.patch_relay(json!({"spec": {"suspend": true}})).await;
    ns.reconcile_until(60, async |ns: &Namespace| has_replicas(ns, 0).await)
        .await;
    let said = message(&ns, "Available").await;
    assert!(said.ends_with("may publish until then: 1."), "{said}");
    patch(json!({"metadata": {"finalizers": null}})).await;
    ns.reconcile_until_condition(60, "Publishing", "False Suspended")
        .await;
    assert!(
        message(&ns, "Available")
            .await
            .ends_with("no relay runs and rows wait.")
    );
}

#[tokio::test]
async fn a_relay_whose_new_form_is_refused_is_scaled_and_suspended_all_the_same() {
    let ns = running().await;
    let more_than_the_limit = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}});
    ns.patch_relay(
        json!({"spec": {"replicas": 3, "template": {"resources": more_than_the_limit}}}),
    )
    .await;
    ns.failing_reconcile().await;
    assert_eq!(
        (ns.condition("Stalled").await.as_str(), count(&ns).await),
        ("True ChildRefused", Some(3))
    );

    ns.patch_relay(json!({"spec": {"suspend": true}})).await;
    ns.failing_reconcile().await;
    assert_eq!(
        (ns.condition("Stalled").await.as_str(), count(&ns).await),
        ("True ChildRefused", Some(0))
    );
    assert!(
        message(&ns, "Available").await.contains("still stopping"),
        "{}",
        message(&ns, "Available").await
    );
    until("the last relay to have gone", async || {
        ns.failing_reconcile().await;
        message(&ns, "Available")
            .await
            .contains("no relay runs")
            .then_some(())
    })
    .await;
    assert_eq!(ns.condition("Publishing").await, "False Suspended");

    ns.patch_relay(json!({"spec": {"suspend": false}})).await;
    ns.failing_reconcile().await;
    assert_eq!(
        count(&ns).await,
        Some(0),
        "none is started in the form of before"
    );
    ns.patch_relay(json!({"spec": {"template": {"resources": null}}}))
        .await;
    ns.reconcile().await;
    assert_eq!(count(&ns).await, Some(3));
}

#[tokio::test]
async fn a_relay_whose_image_was_just_forbidden_can_be_suspended_and_starts_no_more() {
    let mut ns = Namespace::create().await;
    ns.create_relay(|relay| {
        relay["spec"]["template"]["image"] = json!("localhost/allowed/relay:1");
    })
    .await;
    ns.settle().await;
    ns.replace_operator(&|installation| installation.allowed_images.clear());
    ns.reconcile().await;
    assert_eq!(
        (ns.condition("Stalled").await.as_str(), count(&ns).await),
        ("True ImageNotAllowed", Some(2))
    );

    ns.patch_relay(json!({"spec": {"suspend": true}})).await;
    ns.reconcile().await;
    assert_eq!(
        (ns.condition("Stalled").await.as_str(), count(&ns).await),
        ("True ImageNotAllowed", Some(0))
    );
    ns.reconcile_until_condition(60, "Publishing", "False Suspended")
        .await;
    assert_eq!(ns.condition("Available").await, "True Suspended");

    ns.patch_relay(json!({"spec": {"suspend": false}})).await;
    ns.reconcile().await;
    assert_eq!(
        (ns.condition("Available").await.as_str(), count(&ns).await),
        ("False ImageNotAllowed", Some(0))
    );
    ns.replace_operator(&|_| ());
    ns.reconcile().await;
    assert_eq!(count(&ns).await, Some(2));
    let told = ns
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .expect("a list")
        .items;
    assert!(
        told.iter()
            .all(|event| event.reason.as_deref() != Some("ReplicasReset")),
        "nobody else changed the count: {told:?}"
    );
}

#[tokio::test]
async fn of_a_paused_relay_only_the_status_is_written() {
    let ns = Namespace::create().await;
    ns.create_relay(|_| ()).await;
    ns.settle().await;
    let before = ns.writes().len();
    let paused = |value| json!({"metadata": {"annotations": {"outboxrelay.dev/paused": value}}});
    ns.patch_relay(paused(json!("true"))).await;
    ns.patch_relay(json!({"spec": {"replicas": 5, "batchSize": 7}}))
        .await;
    ns.settle().await;
    let foreign = Patch::Merge(json!({"spec": {"replicas": 4}}));
    ns.api::<Deployment>()
        .patch_scale(RELAY, &PatchParams::default(), &foreign)
        .await
        .expect("scaled");
    ns.settle().await;
    assert_eq!(count(&ns).await, Some(4));
    assert_eq!(ns.condition("Paused").await, "True Paused");
    let mut writes = ns.writes().split_off(before);
    // An Event tells of the status.
    writes.retain(|write| !write.ends_with("/events"));
    assert!(
        writes
            .iter()
            .all(|write| write.ends_with("/outboxrelays/file-service/status")),
        "{writes:?}"
    );
    let status = ns.get::<OutboxRelay>(NAME).await.status.expect("a status");
    assert_eq!(
        status.observed_generation, 1,
        "the new spec was not carried out"
    );

    ns.patch_relay(paused(json!(null))).await;
    ns.settle().await;
    assert_eq!(count(&ns).await, Some(5));
    assert_eq!(ns.condition("Paused").await, "False NotPaused");
}

#[tokio::test]
async fn an_image_that_is_not_allowed_stalls_and_an_allowed_one_is_run() {
    let ns = Namespace::create().await;
    ns.create_relay(|_| ()).await;
    ns.settle().await;
    let image = async || {
        let deployment: Deployment = ns.get(RELAY).await;
        deployment.spec.template.spec.expect("a pod").containers[0]
            .image
            .clone()
            .expect("an image")
    };
    ns.patch_relay(json!({"spec": {"template": {"image": "localhost/other/relay:1"}}}))
        .await;
    ns.reconcile().await;
    assert_eq!(ns.condition("Stalled").await, "True ImageNotAllowed");
    assert_eq!(image().await, "localhost/outbox-relay:none");
    ns.patch_relay(json!({"spec": {"template": {"image": "localhost/allowed/relay:1"}}}))
        .await;
    ns.settle().await;
    assert_eq!(ns.condition("Stalled").await, "False NotStalled");
    assert_eq!(image().await, "localhost/allowed/relay:1");
}

#[tokio::test]
async fn an_account_of_ones_own_takes_the_place_of_ours() {
    let ns = Namespace::create().await;
    ns.create_relay(|relay| relay["spec"]["replicas"] = json!(0))
        .await;
    ns.settle().await;
    ns.get::<ServiceAccount>(RELAY).await;
    ns.create_object::<ServiceAccount>(json!({"metadata": {"name": "mine"}}))
        .await;
    ns.patch_relay(json!({"spec": {"template": {"serviceAccountName": "mine"}}}))
        .await;
    ns.reconcile().await;
    ns.get::<ServiceAccount>(RELAY).await;
    until("our account to be gone", async || {
        ns.settle().await;
        let ours = ns.get_opt::<ServiceAccount>(RELAY).await;
        ours.is_none().then_some(())
    })
    .await;
    let deployment: Deployment = ns.get(RELAY).await;
    assert_eq!(
        deployment
            .spec
            .template
            .spec
            .expect("a pod")
            .service_account_name
            .as_deref(),
        Some("mine")
    );
    ns.patch_relay(json!({"spec": {"template": {"serviceAccountName": null}}}))
        .await;
    ns.settle().await;
    ns.get::<ServiceAccount>(RELAY).await;
}

#[tokio::test]
async fn a_network_policy_comes_and_goes_with_its_wish() {
    let ns = Namespace::create().await;
    ns.create_relay(|relay| relay["spec"]["networkPolicy"] = json!({"enabled": true}))
        .await;
    ns.settle().await;
    let spec = ns.get::<NetworkPolicy>(RELAY).await.spec.expect("a spec");
    let rule = &spec.ingress.expect("one rule")[0];
    assert_eq!(
        (
            rule.from.as_ref().map(Vec::len),
            rule.ports.as_ref().map(Vec::len)
        ),
        (Some(2), Some(1))
    );
    ns.patch_relay(json!({"spec": {"networkPolicy": {"enabled": false}}}))
        .await;
    ns.settle().await;
    assert!(ns.get_opt::<NetworkPolicy>(RELAY).await.is_none());
}

#[tokio::test]
async fn somebody_elses_network_policy_of_our_name_stays() {
    let ns = Namespace::create().await;
    ns.create_object::<NetworkPolicy>(
        json!({"metadata": {"name": RELAY}, "spec": {"podSelector": {}}}),
    )
    .await;
    ns.create_relay(|_| ()).await;
    ns.settle().await;
    ns.get::<NetworkPolicy>(RELAY).await;
}

#[tokio::test]
async fn a_pod_monitor_comes_and_goes_with_its_wish() {
    install_pod_monitors();
    let ns = Namespace::create().await;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "monitoring.coreos.com",
        "v1",
        "PodMonitor",
    ));
    let monitors = Api::<DynamicObject>::namespaced_with(ns.client.clone(), &ns.name, &kind);
    ns.create_relay(|relay| relay["spec"]["monitoring"] = json!({"podMonitor": true}))
        .await;
    ns.settle().await;
    let monitor = monitors.get(RELAY).await.expect("a PodMonitor");
    assert_eq!(
        monitor.data["spec"]["selector"]["matchLabels"]["outboxrelay.dev/relay"],
        NAME
    );
    assert_eq!(
        monitor.data["spec"]["podMetricsEndpoints"][0]["port"],
        "http"
    );
    let before = ns.writes().len();
    ns.reconcile().await;
    assert_eq!(ns.writes().len(), before);
    ns.patch_relay(json!({"spec": {"monitoring": {"podMonitor": false}}}))
        .await;
    ns.settle().await;
    assert!(monitors.get_opt(RELAY).await.expect("an answer").is_none());
}

/// The API server's own answers for a kind that it does not have: another one is asked for under
/// the hood.
fn without_pod_monitors(inner: Client) -> Client {
    let service = tower::service_fn(move |mut request: http::Request<Body>| {
        let path = request
            .uri()
            .to_string()
            .replace("/monitoring.coreos.com/", "/absent.outboxrelay.dev/");
        *request.uri_mut() = path.parse().expect("a path");
        let inner = inner.clone();
        async move { inner.send(request).await }
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn a_cluster_without_pod_monitors_runs_relays_all_the_same_and_says_so() {
    let ns = Namespace::create_with(without_pod_monitors).await;
    ns.create_relay(|relay| {
        relay["spec"]["monitoring"] = json!({"podMonitor": true});
        relay["spec"]["replicas"] = json!(0);
    })
    .await;
    ns.reconcile_until_condition(60, "Ready", "True ScaledToZero")
        .await;
    ns.patch_relay(json!({"spec": {"replicas": 1}})).await;
    let look = async |ns: &Namespace| {
        let ready = ns.condition("Ready").await;
        ns.kubelet(usize::MAX).await;
        if ready == "True PodMonitorUnavailable" {
            Ok(())
        } else {
            Err(ready)
        }
    };
    ns.reconcile_until(60, look).await;
    assert_eq!(ns.condition("Stalled").await, "False NotStalled");
    let before = ns.writes().len();
    ns.reconcile().await;
    assert!(
        ns.writes()[before..]
            .iter()
            .all(|write| !write.contains("podmonitors")),
        "{:?}",
        ns.writes()
    );
}
