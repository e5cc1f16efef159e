//! ValidatedRelay -> every object that may exist for it, with the hashes that planning compares.
//! Pure, and cannot fail: everything was checked before.

mod config_map;
mod deployment;
mod migration_job;
mod network_policy;
mod pod;
mod pod_disruption_budget;
mod pod_monitor;
mod service;
mod service_account;

use k8s_openapi::{
    api::{apps::v1::Deployment, batch::v1::Job},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::operator::{
    children::{ChildKind, Prepared},
    identity::REVISION_HASH,
    reconcile::validate::ValidatedRelay,
};

/// A valid manifest with all candidates for its children; the plan chooses among them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Desired {
    pub relay: ValidatedRelay,
    pub hashes: RevisionHashes,
    /// Candidates in the order in which they are written.
    pub candidates: Vec<Prepared>,
}

/// Hashes of what pods are made from, as the candidates carry them in their annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RevisionHashes {
    pub deployment: String,
    /// Absent without a migration.
    pub migration_job: Option<String>,
}

/// Builds the candidates. The migration Job is that of the first attempt.
pub(crate) fn build(relay: ValidatedRelay) -> Desired {
    let deployment = deployment::build(&relay);
    let job = relay
        .migration
        .as_ref()
        .map(|target| migration_job::build(&relay, target));
    let hashes = RevisionHashes {
        deployment: revision_hash(&deployment.metadata),
        migration_job: job.as_ref().map(|job| revision_hash(&job.metadata)),
    };
    let candidates = candidates(&relay, &deployment, job.as_ref());
    Desired {
        relay,
        hashes,
        candidates,
    }
}

fn candidates(relay: &ValidatedRelay, deployment: &Deployment, job: Option<&Job>) -> Vec<Prepared> {
    let mut all = access(relay);
    all.push(Prepared::of(
        ChildKind::ConfigMap,
        &config_map::build(relay),
    ));
    all.extend(job.map(|job| Prepared::of(ChildKind::MigrationJob, job)));
    all.push(Prepared::of(ChildKind::Deployment, deployment));
    all.extend(relay.pod_monitor.then(|| pod_monitor::build(relay)));
    all
}

/// Builds what pods run as, and what reaches them.
fn access(relay: &ValidatedRelay) -> Vec<Prepared> {
    let mut all = Vec::new();
    if relay.template.service_account_name.is_none() {
        let account = service_account::build(relay);
        all.push(Prepared::of(ChildKind::ServiceAccount, &account));
    }
    all.push(Prepared::of(ChildKind::Service, &service::build(relay)));
    let budget = pod_disruption_budget::build(relay);
    all.push(Prepared::of(ChildKind::PodDisruptionBudget, &budget));
    if let Some(allowed) = &relay.allowed_namespaces {
        let policy = network_policy::build(relay, allowed);
        all.push(Prepared::of(ChildKind::NetworkPolicy, &policy));
    }
    all
}

fn revision_hash(metadata: &ObjectMeta) -> String {
    let annotations = metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(REVISION_HASH).cloned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::fixtures::{validated, validated_with};

    fn all() -> Vec<Prepared> {
        let relay = validated_with(|relay| {
            relay.spec.monitoring.pod_monitor = true;
            relay.spec.network_policy.enabled = true;
        });
        build(relay).candidates
    }

    fn kinds(relay: ValidatedRelay) -> Vec<ChildKind> {
        let candidates = build(relay).candidates;
        candidates.iter().map(|child| child.kind).collect()
    }

    #[test]
    fn candidates_are_in_the_order_in_which_they_are_written() {
        let kinds: Vec<ChildKind> = all().iter().map(|child| child.kind).collect();
        assert!(kinds.is_sorted(), "{kinds:?}");
        assert_eq!(kinds.len(), 8, "{kinds:?}");
    }

    #[test]
    fn hashes_are_those_of_the_annotations() {
        let desired = build(validated());
        let annotation = |kind: ChildKind| {
            let child = desired.candidates.iter().find(|child| child.kind == kind);
            child.expect("built").body["metadata"]["annotations"][REVISION_HASH].clone()
        };
        assert_eq!(annotation(ChildKind::Deployment), desired.hashes.deployment);
        assert_eq!(
            annotation(ChildKind::MigrationJob),
            desired.hashes.migration_job.expect("policy Apply")
        );
    }

    #[test]
    fn no_child_has_the_name_of_the_outbox_relay() {
        for child in all() {
            assert_ne!(child.name, "file-service");
            assert_eq!(child.body["metadata"]["name"], child.name);
        }
    }

    #[test]
    fn every_child_has_an_owner_and_a_managed_by_label() {
        for child in all() {
            let metadata = &child.body["metadata"];
            assert_eq!(
                metadata["ownerReferences"][0]["uid"], "11111111-2222-3333-4444-555555555555",
                "{}",
                child.name
            );
            assert_eq!(metadata["ownerReferences"][0]["controller"], true);
            assert!(
                metadata["ownerReferences"][0]
                    .get("blockOwnerDeletion")
                    .is_none()
            );
            assert_eq!(
                metadata["labels"]["app.kubernetes.io/managed-by"],
                "outbox-operator"
            );
            assert_eq!(metadata["namespace"], "essays");
        }
    }

    #[test]
    fn the_manager_never_names_replicas() {
        for child in all() {
            assert!(
                child.body["spec"].get("replicas").is_none(),
                "{}",
                child.name
            );
        }
    }

    #[test]
    fn a_child_that_the_manifest_does_not_ask_for_is_not_built() {
        let plain = kinds(validated());
        assert!(plain.contains(&ChildKind::ServiceAccount));
        assert!(
            !plain.contains(&ChildKind::NetworkPolicy) && !plain.contains(&ChildKind::PodMonitor)
        );
        let other_account = validated_with(|relay| {
            relay.spec.template.service_account_name = Some("mine".to_owned());
        });
        assert!(!kinds(other_account).contains(&ChildKind::ServiceAccount));
        let never = validated_with(|relay| {
            relay.spec.migration.policy = crate::api::MigrationPolicy::Never;
        });
        assert!(!kinds(never).contains(&ChildKind::MigrationJob));
    }

    #[test]
    fn nothing_secret_and_no_empty_field_is_built() {
        for child in all() {
            assert!(!child.body.to_string().contains("null"), "{}", child.body);
        }
    }
}
