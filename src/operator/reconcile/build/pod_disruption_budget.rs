//! At most one relay at a time is evicted. Unhealthy pods can always be evicted: otherwise a
//! database outage would block the draining of nodes.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::operator::reconcile::validate::ValidatedRelay;

/// Builds the PodDisruptionBudget.
pub(super) fn build(relay: &ValidatedRelay) -> PodDisruptionBudget {
    let identity = &relay.identity;
    let spec = PodDisruptionBudgetSpec {
        max_unavailable: Some(IntOrString::Int(1)),
        selector: Some(identity.relay_selector()),
        unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
        ..PodDisruptionBudgetSpec::default()
    };
    PodDisruptionBudget {
        metadata: identity.child_meta(identity.relay_name(), identity.relay_labels()),
        spec: Some(spec),
        status: None,
    }
}
