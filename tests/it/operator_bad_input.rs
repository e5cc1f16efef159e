//! What people and clusters do to an OutboxRelay that it cannot help, on a real API server: each is
//! told with its reason, and nothing else breaks.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, ResourceQuota, Secret, Service},
    events::v1::Event,
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
    client::Body,
};
use outbox_relay::{api::OutboxRelay, operator::Requeue};
use serde_json::json;

use crate::harness::kubernetes::{NAME, Namespace, kubectl};

/// The API server, with an OutboxRelay that was applied when `batchSize` was still a text.
fn with_an_older_form(inner: Client) -> Client {
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let inner = inner.clone();
        let asked = request.method() == http::Method::GET && request.uri().path().ends_with(NAME);
        async move {
            let answer = inner.send(request).await?;
            let answer: http::Response<Body> = if asked {
                with_a_text(answer).await
            } else {
                answer
            };
            Ok::<_, kube::Error>(answer)
        }
    });
    Client::new(service, "default")
}

async fn with_a_text(answer: http::Response<Body>) -> http::Response<Body> {
    let (parts, body) = answer.into_parts();
    let text = body.collect_bytes().await.expect("a whole answer");
    let older = String::from_utf8_lossy(&text).replace("\"batchSize\":7", "\"batchSize\":\"many\"");
    http::Response::from_parts(parts, Body::from(older.into_bytes()))
}

async fn reasons(ns: &Namespace) -> Vec<String> {
    let events = ns
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .expect("a list")
        .items;
    events
        .into_iter()
        .filter_map(|event| event.reason)
        .collect()
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_is_told_and_its_relays_stay() {
    let ns = Namespace::create_with(with_an_older_form).await;
    ns.create_relay(|_| ()).await;
    ns.settle().await;
    ns.patch_relay(json!({"spec": {"batchSize": 7}})).await;
    let before = ns.writes().len();
    ns.reconcile().await;
    assert_eq!(ns.condition("Stalled").await, "True NotUnderstood");
    assert!(reasons(&ns).await.contains(&"NotUnderstood".to_owned()));
    let writes = ns.writes().split_off(before);
    assert_eq!(writes.len(), 2, "its status and an Event: {writes:?}");
    ns.get::<Deployment>("file-service-relay").await;
    ns.patch_relay(json!({"spec": {"batchSize": 8}})).await;
    ns.settle().await;
    assert_eq!(ns.condition("Stalled").await, "False NotStalled");
}

#[tokio::test]
async fn the_longest_name_has_all_its_children() {
    let (ns, name) = (Namespace::create().await, "a".repeat(46));
    ns.create_relay(|relay| relay["metadata"]["name"] = json!(name))
        .await;
    for _ in 0..3 {
        ns.reconcile_named(&name).await.expect("a pass");
    }
    ns.get::<Deployment>(&format!("{name}-relay")).await;
    ns.get::<Service>(&format!("{name}-relay")).await;
    let ours = ListParams::default().labels(&format!("outboxrelay.dev/relay={name}"));
    assert_eq!(
        ns.api::<ConfigMap>()
            .list(&ours)
            .await
            .expect("a list")
            .items
            .len(),
        1
    );
}

/// The namespace goes, and with it the relay; an object with a finalizer keeps both for a while.
#[tokio::test]
async fn in_a_namespace_that_is_being_deleted_nothing_is_made() {
    let ns = Namespace::create().await;
    ns.create_relay(|relay| relay["metadata"]["finalizers"] = json!(["example.com/later"]))
        .await;
    kubectl(&["delete", "namespace", &ns.name, "--wait=false"], "");
    let going = Api::<OutboxRelay>::namespaced(ns.client.clone(), &ns.name);
    for _ in 0..100 {
        if going
            .get(NAME)
            .await
            .expect("it is kept")
            .metadata
            .deletion_timestamp
            .is_some()
        {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(
        ns.reconcile_named(NAME).await.expect("a pass"),
        Requeue::OnChange,
        "nothing to look at again"
    );
    assert_eq!(ns.writes(), [] as [&str; 0]);
    ns.patch_relay(json!({"metadata": {"finalizers": null}}))
        .await;
}

#[tokio::test]
async fn relays_that_a_quota_refuses_are_told_and_come_when_it_has_gone() {
    let ns = Namespace::create().await;
    ns.create_object::<ResourceQuota>(
        json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}),
    )
    .await;
    ns.create_relay(|_| ()).await;
    ns.reconcile_until_condition(60, "Available", "False PodsRefused")
        .await;
    assert_eq!(ns.condition("Stalled").await, "False NotStalled");
    assert!(reasons(&ns).await.contains(&"PodsRefused".to_owned()));
    ns.api::<ResourceQuota>()
        .delete("none", &Default::default())
        .await
        .expect("deleted");
    // The ReplicaSet controller tries again by itself, after a pause that doubles.
    ns.reconcile_until_condition(120, "Available", "False PodsPending")
        .await;
}

#[tokio::test]
async fn an_image_that_does_not_exist_is_told_by_the_pod_that_waits_for_it() {
    let ns = Namespace::create().await;
    ns.create_relay(|relay| {
        relay["spec"]["template"] = json!({"image": "localhost/allowed/absent:1"});
    })
    .await;
    ns.reconcile_until_condition(90, "Available", "False PodsPending")
        .await;
    let status = serde_json::to_string(&ns.get::<OutboxRelay>(NAME).await.status).expect("JSON");
    assert!(
        status.contains("ImagePull") || status.contains("ErrImage"),
        "{status}"
    );
    assert_eq!(ns.condition("Ready").await, "False PodsPending");
}

#[tokio::test]
async fn one_bad_relay_leaves_its_neighbour_alone() {
    let ns = Namespace::create().await;
    ns.create_relay(|relay| relay["spec"]["template"]["priorityClassName"] = json!("Not A Name"))
        .await;
    ns.create_relay(|relay| relay["metadata"]["name"] = json!("neighbour"))
        .await;
    ns.failing_reconcile().await;
    ns.reconcile_named("neighbour").await.expect("a pass");
    ns.get::<Deployment>("neighbour-relay").await;
    assert!(ns.get_opt::<Secret>("file-service-relay").await.is_none());
    let patch = Patch::Merge(json!({"spec": {"replicas": 3}}));
    ns.api::<OutboxRelay>()
        .patch("neighbour", &PatchParams::default(), &patch)
        .await
        .expect("a valid change");
    ns.reconcile_named("neighbour").await.expect("a pass");
    assert_eq!(
        ns.get::<Deployment>("neighbour-relay").await.spec.replicas,
        Some(3)
    );
}
