//! A PodMonitor, with which the Prometheus operator scrapes the relays. Its kind is not one of
//! Kubernetes' own, so there is no type for it.

use serde_json::{Value, json};

use crate::operator::{
    children::{ChildKind, Prepared},
    reconcile::{build::pod::HTTP, validate::ValidatedRelay},
};

/// Builds the PodMonitor.
pub(super) fn build(relay: &ValidatedRelay) -> Prepared {
    Prepared {
        kind: ChildKind::PodMonitor,
        name: relay.identity.relay_name(),
        body: body(relay),
        first_replicas: None,
    }
}

fn body(relay: &ValidatedRelay) -> Value {
    let resource = ChildKind::PodMonitor.resource();
    json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": relay.identity.relay_meta(),
        "spec": spec(relay),
    })
}

fn spec(relay: &ValidatedRelay) -> Value {
    json!({
        "selector": relay.identity.relay_selector(),
        "podMetricsEndpoints": [{"port": HTTP, "relabelings": [relay_label()]}],
    })
}

/// Returns the rule that sets label `relay` of all metrics to the name of the OutboxRelay; names of
/// pods change with each rollout.
fn relay_label() -> Value {
    json!({
        "sourceLabels": ["__meta_kubernetes_pod_label_outboxrelay_dev_relay"],
        "targetLabel": "relay",
    })
}
