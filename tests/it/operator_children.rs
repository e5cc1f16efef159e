//! The operator on a real API server: what it makes, what it leaves alone, and that it then keeps
//! quiet.

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v1::Scale,
    core::v1::{ConfigMap, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::api::{ListParams, Patch, PatchParams};
use outbox_relay::api::OutboxRelay;
use serde_json::json;

use crate::harness::kubernetes::{NAME, Namespace};

const RELAY: &str = "file-service-relay";

#[tokio::test]
async fn a_relay_gets_its_children_and_the_objects_next_door_stay_as_they_are() {
    let ns = Namespace::create().await;
    let container = json!({"name": "c", "image": "localhost/none:1"});
    let pod = json!({"metadata": {"labels": {"app": NAME}}, "spec": {"containers": [container]}});
    ns.create_object::<ServiceAccount>(json!({"metadata": {"name": NAME}}))
        .await;
    ns.create_object::<Service>(json!({"metadata": {"name": NAME}, "spec": {"ports": [{"port": 80}], "selector": {"app": NAME}}})).await;
    let next_door =
        json!({"replicas": 0, "selector": {"matchLabels": {"app": NAME}}, "template": pod});
    ns.create_object::<Deployment>(json!({"metadata": {"name": NAME}, "spec": next_door}))
        .await;

    ns.create_relay(|_| ()).await;
    ns.settle().await;

    let deployment: Deployment = ns.get(RELAY).await;
    assert_eq!(deployment.spec.replicas, Some(2));
    ns.get::<Service>(RELAY).await;
    ns.get::<ServiceAccount>(RELAY).await;
    ns.get::<PodDisruptionBudget>(RELAY).await;
    let next_door: Deployment = ns.get(NAME).await;
    assert_eq!(next_door.metadata.generation, Some(1));
    assert!(
        ns.writes()
            .iter()
            .all(|write| !write.ends_with(&format!("s/{NAME}"))),
        "{:?}",
        ns.writes()
    );
    assert_eq!(ns.condition("SchemaReady").await, "True MigrationOff");
    assert_eq!(ns.condition("Stalled").await, "False NotStalled");
}

#[tokio::test]
async fn a_second_pass_over_an_unchanged_relay_writes_nothing() {
    let ns = Namespace::create().await;
    ns.create_relay(|_| ()).await;
    ns.settle().await;
    let before = ns.writes().len();
    for _ in 0..3 {
        ns.reconcile().await;
    }
    assert_eq!(ns.writes()[before..], [] as [&str; 0]);
    let requests = ns.requests();
    assert!(
        requests.iter().all(|request| !request.contains("/secrets")),
        "{requests:?}"
    );
}

#[tokio::test]
async fn an_object_that_is_not_ours_stops_the_relay_before_anything_is_touched() {
    let ns = Namespace::create().await;
    ns.create_object::<Service>(
        json!({"metadata": {"name": RELAY}, "spec": {"ports": [{"port": 80}]}}),
    )
    .await;
    ns.create_relay(|_| ()).await;
    ns.failing_reconcile().await;
    assert_eq!(ns.condition("Stalled").await, "True NameConflict");
    assert_eq!(ns.condition("Ready").await, "False NameConflict");
    assert!(ns.get_opt::<ServiceAccount>(RELAY).await.is_none());
    let service: Service = ns.get(RELAY).await;
    assert_eq!(
        service.spec.expect("a spec").ports.expect("ports")[0].port,
        80
    );

    ns.api::<Service>()
        .delete(RELAY, &Default::default())
        .await
        .expect("deleted");
    ns.settle().await;
    assert_eq!(ns.condition("Stalled").await, "False NotStalled");
    ns.get::<Deployment>(RELAY).await;
}

#[tokio::test]
async fn a_dropped_node_selector_disappears() {
    let ns = Namespace::create().await;
    ns.create_relay(|relay| relay["spec"]["template"]["nodeSelector"]["disk"] = json!("fast"))
        .await;
    ns.settle().await;
    let selector = |deployment: Deployment| {
        deployment
            .spec
            .template
            .spec
            .expect("a pod")
            .node_selector
            .expect("one remains")
    };
    assert!(selector(ns.get(RELAY).await).contains_key("disk"));
    ns.patch_relay(json!({"spec": {"template": {"nodeSelector": {"disk": null}}}}))
        .await;
    ns.settle().await;
    let deployment: Deployment = ns.get(RELAY).await;
    assert_eq!(
        deployment.spec.replicas,
        Some(2),
        "applying does not touch the count"
    );
    assert!(!selector(deployment).contains_key("disk"));
}

#[tokio::test]
async fn a_change_by_somebody_else_is_taken_back() {
    let ns = Namespace::create().await;
    ns.create_relay(|_| ()).await;
    ns.settle().await;
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "relay", "image": "localhost/other:1"}]}}}});
    ns.api::<Deployment>()
        .patch(RELAY, &PatchParams::default(), &Patch::Strategic(image))
        .await
        .expect("changed");
    ns.settle().await;
    let deployment: Deployment = ns.get(RELAY).await;
    let container = &deployment.spec.template.spec.expect("a pod").containers[0];
    assert_eq!(
        container.image.as_deref(),
        Some("localhost/outbox-relay:none")
    );
}

#[tokio::test]
async fn the_outbox_relay_is_what_is_scaled_and_a_count_on_the_deployment_is_set_back() {
    let ns = Namespace::create().await;
    ns.create_relay(|_| ()).await;
    ns.settle().await;
    let count = |to: i32| Patch::Merge(json!({"spec": {"replicas": to}}));

    ns.api::<OutboxRelay>()
        .patch_scale(NAME, &PatchParams::default(), &count(4))
        .await
        .expect("scaled");
    ns.settle().await;
    assert_eq!(ns.get::<Deployment>(RELAY).await.spec.replicas, Some(4));

    ns.api::<Deployment>()
        .patch_scale(RELAY, &PatchParams::default(), &count(1))
        .await
        .expect("scaled");
    ns.settle().await;
    assert_eq!(ns.get::<Deployment>(RELAY).await.spec.replicas, Some(4));

    let scale = ns
        .api::<OutboxRelay>()
        .get_scale(NAME)
        .await
        .expect("a scale subresource");
    let scale: Scale =
        serde_json::from_value(serde_json::to_value(scale).expect("JSON")).expect("a Scale");
    assert_eq!(
        scale.status.expect("a status").selector.as_deref(),
        Some("outboxrelay.dev/relay=file-service")
    );
}

#[tokio::test]
async fn other_settings_come_in_another_config_map_and_the_old_one_goes_when_no_pod_mounts_it() {
    let ns = Namespace::create().await;
    ns.create_relay(|relay| relay["spec"]["replicas"] = json!(0))
        .await;
    ns.settle().await;
    let names = async || {
        let ours = ListParams::default().labels("outboxrelay.dev/relay=file-service");
        let found = ns
            .api::<ConfigMap>()
            .list_metadata(&ours)
            .await
            .expect("a list");
        found
            .items
            .into_iter()
            .filter_map(|map| map.metadata.name)
            .collect::<Vec<_>>()
    };
    let before = names().await;
    ns.patch_relay(json!({"spec": {"batchSize": 7}})).await;
    ns.settle().await;
    let after = names().await;
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(before, after);
    assert_eq!(ns.get::<ConfigMap>(&after[0]).await.immutable, Some(true));
}

#[tokio::test]
async fn what_the_api_server_refuses_to_make_is_told() {
    let ns = Namespace::create().await;
    ns.create_relay(|relay| relay["spec"]["template"]["priorityClassName"] = json!("Not A Name"))
        .await;
    ns.failing_reconcile().await;
    assert_eq!(ns.condition("Stalled").await, "True ChildRefused");
    ns.patch_relay(json!({"spec": {"template": {"priorityClassName": null}}}))
        .await;
    ns.settle().await;
    assert_eq!(ns.condition("Stalled").await, "False NotStalled");
}
