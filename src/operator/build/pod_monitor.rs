//! For the Prometheus operator, where it is installed: scrape the relays. Its kind is not one of
//! Kubernetes' own, so there is no type for it.

use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::pod::HTTP;
use crate::operator::validate::ValidatedRelay;

pub(super) fn resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("monitoring.coreos.com", "v1", "PodMonitor"),
        "podmonitors",
    )
}

pub(super) fn build(relay: &ValidatedRelay) -> Value {
    let identity = &relay.identity;
    let resource = resource();
    json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": identity.child_meta(identity.relay_name(), identity.relay_labels()),
        "spec": {
            "selector": identity.relay_selector(),
            // The label `relay` tells OutboxRelays apart; a pod's name changes with each rollout.
            "podMetricsEndpoints": [{"port": HTTP, "relabelings": [
                {"sourceLabels": ["__meta_kubernetes_pod_label_outboxrelay_dev_relay"], "targetLabel": "relay"},
            ]}],
        },
    })
}
