//! The cluster's own HorizontalPodAutoscaler on an OutboxRelay. Its bounds need no metrics: a count
//! outside of them is brought inside through the scale subresource, as is any count that an HPA
//! finds.

use k8s_openapi::api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler};
use outbox_relay::api::OutboxRelay;
use serde_json::json;

use crate::harness::kubernetes::{NAME, Namespace};

#[tokio::test]
async fn an_hpa_brings_the_count_within_its_bounds_and_the_operator_follows() {
    let ns = Namespace::create().await;
    ns.create_relay(|relay| relay["spec"]["replicas"] = json!(1))
        .await;
    ns.settle().await;
    let target =
        json!({"apiVersion": "outboxrelay.dev/v1alpha1", "kind": "OutboxRelay", "name": NAME});
    ns.create_object::<HorizontalPodAutoscaler>(json!({
        "metadata": {"name": NAME},
        "spec": {"scaleTargetRef": target, "minReplicas": 3, "maxReplicas": 5},
    }))
    .await;
    counts_become(&ns, 3).await;

    ns.patch_relay(json!({"spec": {"replicas": 9}})).await;
    counts_become(&ns, 5).await;
}

/// The HPA writes the OutboxRelay's count, the operator the Deployment's. It looks every 15 s.
async fn counts_become(ns: &Namespace, count: i32) {
    let look = async |ns: &Namespace| {
        let relay = ns.get::<OutboxRelay>(NAME).await.spec.replicas;
        let deployment = ns
            .get::<Deployment>("file-service-relay")
            .await
            .spec
            .replicas;
        if (relay, deployment) == (count, Some(count)) {
            return Ok(());
        }
        let said = ns
            .get::<HorizontalPodAutoscaler>(NAME)
            .await
            .status
            .unwrap_or_default()
            .conditions;
        Err(format!(
            "the OutboxRelay has {relay}, its Deployment {deployment:?}, not {count}; the HPA \
             says {said:?}"
        ))
    };
    ns.reconcile_until(90, look).await;
}
