//! Deployment and ReplicaSets -> what of the relays' rollout matters. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentCondition, ReplicaSet},
    core::v1::PodSpec,
};
use kube::ResourceExt;

use crate::operator::{
    fingerprint::fingerprint,
    identity::{GENERATION, REVISION_HASH, SPEC_HASH, annotation},
    ownership::controller_uid,
};

/// The relays' Deployment as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RelayDeployment {
    pub uid: String,
    /// Changes when anybody changes anything of it except its replicas and status.
    pub fingerprint: u64,
    /// What it was last written for; absent if an older version wrote it.
    pub written_for: Option<WrittenFor>,
    /// Replicas that it is set to.
    pub wanted: i32,
    /// The Deployment controller has seen the latest generation.
    pub observed: bool,
    pub existing: i32,
    pub updated: i32,
    pub ready: i32,
    pub available: i32,
    /// Reason why no pod could be created.
    pub refusal: Option<String>,
    /// The rollout of the latest generation is not complete.
    pub rolling: bool,
    /// The rollout of the latest generation has made no progress for ten minutes.
    pub stuck: bool,
}

/// Annotations of a Deployment: what it was last written for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrittenFor {
    pub revision_hash: String,
    pub generation: String,
    pub spec_hash: String,
}

impl WrittenFor {
    fn of(object: &Deployment) -> Option<Self> {
        let annotations = object.annotations();
        Some(Self {
            revision_hash: annotation(annotations, REVISION_HASH)?,
            generation: annotation(annotations, GENERATION)?,
            spec_hash: annotation(annotations, SPEC_HASH)?,
        })
    }
}

impl RelayDeployment {
    /// Reads a Deployment.
    pub(crate) fn of(object: &Deployment) -> Self {
        let status = object.status.clone().unwrap_or_default();
        let conditions = status.conditions.as_deref().unwrap_or_default();
        // Conditions are of the generation that the controller has seen, which may be an older one.
        let observed = status.observed_generation >= object.metadata.generation;
        Self {
            uid: object.uid().unwrap_or_default(),
            fingerprint: fingerprint(&serde_json::to_value(object).unwrap_or_default()),
            written_for: WrittenFor::of(object),
            wanted: object.spec.replicas.unwrap_or(1),
            observed,
            existing: status.replicas.unwrap_or(0),
            updated: status.updated_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            refusal: refusal(conditions),
            rolling: is_rolling(conditions),
            stuck: observed && condition(conditions, "Progressing", "False").is_some(),
        }
    }

    /// Returns whether every pod is of the latest generation, and no older one is left.
    pub(crate) fn rolled_out(&self) -> bool {
        self.observed && self.updated >= self.wanted && self.existing == self.updated
    }
}

fn refusal(conditions: &[DeploymentCondition]) -> Option<String> {
    condition(conditions, "ReplicaFailure", "True")?
        .message
        .clone()
}

/// Returns whether pods are being replaced. `Progressing` stays `True` after a rollout; only its
/// reason changes.
fn is_rolling(conditions: &[DeploymentCondition]) -> bool {
    condition(conditions, "Progressing", "True")
        .is_none_or(|found| found.reason.as_deref() != Some("NewReplicaSetAvailable"))
}

fn condition<'a>(
    all: &'a [DeploymentCondition],
    type_: &str,
    status: &str,
) -> Option<&'a DeploymentCondition> {
    all.iter()
        .find(|one| one.type_.as_deref() == Some(type_) && one.status.as_deref() == Some(status))
}

/// Returns the ReplicaSets of this Deployment. A label alone proves nothing: anybody may set it.
pub(super) fn replica_sets(
    deployment: Option<&Deployment>,
    found: Vec<ReplicaSet>,
) -> Vec<ReplicaSet> {
    let Some(uid) = deployment.and_then(ResourceExt::uid) else {
        return Vec::new();
    };
    found
        .into_iter()
        .filter(|set| controller_uid(&set.metadata) == Some(&*uid))
        .collect()
}

/// Returns the ConfigMaps of ReplicaSets that have pods or may get some.
pub(super) fn used_config_maps(replica_sets: &[ReplicaSet]) -> BTreeSet<String> {
    let with_pods = replica_sets.iter().filter(|set| has_pods(set));
    with_pods.filter_map(config_map).collect()
}

fn config_map(set: &ReplicaSet) -> Option<String> {
    mounted_config_map(set.spec.template.as_ref()?.spec.as_ref()?)
}

fn has_pods(set: &ReplicaSet) -> bool {
    let existing = set.status.as_ref().map_or(0, |status| status.replicas);
    set.spec.replicas.unwrap_or(1) > 0 || existing > 0
}

pub(super) fn mounted_config_map(pod: &PodSpec) -> Option<String> {
    pod.volumes
        .iter()
        .flatten()
        .find_map(|volume| Some(volume.config_map.as_ref()?.name.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stuck_rollout_means_nothing_for_a_generation_that_the_controller_has_not_seen() {
        let late = json!({
            "observedGeneration": 3,
            "conditions": [
                {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"},
            ],
        });
        let stuck = |generation: i64| {
            let object = json!({
                "metadata": {"generation": generation},
                "spec": {"selector": {}, "template": {}},
                "status": late,
            });
            RelayDeployment::of(&serde_json::from_value(object).expect("a Deployment")).stuck
        };
        assert_eq!((stuck(3), stuck(4)), (true, false));
    }
}
