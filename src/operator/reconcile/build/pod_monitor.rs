//! A PodMonitor, with which the Prometheus operator scrapes the relays. Its kind is not one of
//! Kubernetes' own, so there is no type for it.

use serde_json::{Value, json};

use crate::operator::{
    children::{ChildKind, Prepared},
    reconcile::{build::pod::HTTP, validate::ValidatedRelay},
};

/// Builds the PodMonitor.
pub(super) fn build(relay: &ValidatedRelay) -> Prepared {
    let identity = &relay.identity;
    let resource = ChildKind::PodMonitor.resource();
    let body = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": identity.child_meta(identity.relay_name(), identity.relay_labels()),
        "spec": {
            "selector": identity.relay_selector(),
            "podMetricsEndpoints": [{"port": HTTP, "relabelings": [relay_label()]}],
        },
    });
    Prepared {
        kind: ChildKind::PodMonitor,
        name: identity.relay_name(),
        body,
        first_replicas: None,
    }
}

/// Returns the rule that sets label `relay` of all metrics to the name of the OutboxRelay; names of
/// pods change with each rollout.
fn relay_label() -> Value {
    json!({
        "sourceLabels": ["__meta_kubernetes_pod_label_outboxrelay_dev_relay"],
        "targetLabel": "relay",
    })
}
