//! At most one relay at a time is evicted. Unhealthy pods can always be evicted: otherwise a
//! database outage would block the draining of nodes.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::operator::reconcile::validate::ValidatedRelay;

/// Builds the PodDisruptionBudget.
pub(super) fn build(relay: &ValidatedRelay) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: relay.identity.relay_meta(),
        spec: Some(one_at_a_time(relay)),
        status: None,
    }
}

fn one_at_a_time(relay: &ValidatedRelay) -> PodDisruptionBudgetSpec {
    PodDisruptionBudgetSpec {
        max_unavailable: Some(IntOrString::Int(1)),
        selector: Some(relay.identity.relay_selector()),
        unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
        ..PodDisruptionBudgetSpec::default()
    }
}
