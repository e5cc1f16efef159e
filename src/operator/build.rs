//! ValidatedRelay + Plan -> the objects that should exist. Pure, and cannot fail: everything was
//! checked before.

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
    Metadata,
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        core::v1::{ConfigMap, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, core::ApiResource};
use serde::Serialize;
use serde_json::Value;

use super::{
    identity::FORM,
    plan::{Migration, Plan, Rollout},
    upgrades::Turn,
    validate::{MigrationTarget, ValidatedRelay},
};

/// An object that should exist.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prepared {
    pub kind: ChildKind,
    pub name: String,
    /// What the operator has an opinion on; nothing else of the object is touched.
    pub body: Value,
    /// The count that a new Deployment starts with. Never part of `body`: naming `replicas` once
    /// and dropping it later resets it to 1.
    pub first_replicas: Option<i32>,
}

/// Kinds of children, in the order in which they are written: what pods mount and run as comes
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ChildKind {
    ServiceAccount,
    Service,
    PodDisruptionBudget,
    NetworkPolicy,
    ConfigMap,
    MigrationJob,
    Deployment,
    PodMonitor,
}

impl ChildKind {
    pub(crate) fn resource(self) -> ApiResource {
        match self {
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::MigrationJob => ApiResource::erase::<Job>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::PodMonitor => pod_monitor::resource(),
        }
    }

    /// Immutable ones are created, and replaced by one of another name.
    pub(crate) fn is_immutable(self) -> bool {
        matches!(self, Self::ConfigMap | Self::MigrationJob)
    }
}

/// Everything that should exist now, in the order in which it is written.
pub(crate) fn build(relay: &ValidatedRelay, plan: &Plan) -> Vec<Prepared> {
    let mut all = Vec::new();
    if relay.template.service_account_name.is_none() {
        all.push(prepare(
            ChildKind::ServiceAccount,
            &service_account::build(relay),
        ));
    }
    all.push(prepare(ChildKind::Service, &service::build(relay)));
    all.push(prepare(
        ChildKind::PodDisruptionBudget,
        &pod_disruption_budget::build(relay),
    ));
    if let Some(admitted) = &relay.admitted {
        all.push(prepare(
            ChildKind::NetworkPolicy,
            &network_policy::build(relay, admitted),
        ));
    }
    if plan.turn == Turn::Go {
        all.push(prepare(ChildKind::ConfigMap, &config_map::build(relay)));
    }
    if let (Migration::Start { attempt }, Some(target)) = (&plan.migration, &relay.migration) {
        all.push(prepare(
            ChildKind::MigrationJob,
            &migration_job::build(relay, target, *attempt),
        ));
    }
    if plan.rollout == Rollout::Go {
        let deployment = prepare(ChildKind::Deployment, &deployment::build(relay));
        all.push(Prepared {
            first_replicas: Some(plan.replicas),
            ..deployment
        });
    }
    if relay.pod_monitor {
        let (name, body) = (relay.identity.relay_name(), pod_monitor::build(relay));
        all.push(Prepared {
            kind: ChildKind::PodMonitor,
            name,
            body,
            first_replicas: None,
        });
    }
    all
}

/// What a Deployment built now would say of its form.
pub(crate) fn form(relay: &ValidatedRelay) -> String {
    said_form(deployment::build(relay).metadata)
}

/// What a migration Job built now would say of its form.
pub(crate) fn migration_form(relay: &ValidatedRelay, target: &MigrationTarget) -> String {
    said_form(migration_job::build(relay, target, 1).metadata)
}

fn said_form(metadata: ObjectMeta) -> String {
    metadata
        .annotations
        .and_then(|mut all| all.remove(FORM))
        .unwrap_or_default()
}

fn prepare<K>(kind: ChildKind, object: &K) -> Prepared
where
    K: Resource<DynamicType = ()> + Metadata<Ty = ObjectMeta> + Serialize,
{
    let body = serde_json::to_value(object).expect("typed objects are JSON");
    Prepared {
        kind,
        name: object.meta().name.clone().unwrap_or_default(),
        body,
        first_replicas: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::{
        fixtures::{now, validated, validated_with},
        observe::Observed,
        plan::{Before, Remembered, plan},
    };

    fn planned(relay: &ValidatedRelay) -> Plan {
        plan(
            relay,
            &Observed::default(),
            &Before {
                generation: Some(3),
                scaling: &Remembered::default(),
                turn: Turn::Go,
            },
            now(),
        )
    }

    fn built(migration: Migration) -> Vec<Prepared> {
        let relay = validated_with(|relay| {
            relay.spec.monitoring.pod_monitor = true;
            relay.spec.network_policy.enabled = true;
        });
        let mut plan = planned(&relay);
        plan.rollout = if migration.is_done() {
            Rollout::Go
        } else {
            Rollout::WaitForSchema
        };
        plan.migration = migration;
        build(&relay, &plan)
    }

    fn all() -> Vec<Prepared> {
        let mut all = built(Migration::Off);
        all.extend(built(Migration::Start { attempt: 1 }));
        all
    }

    #[test]
    fn the_deployment_is_not_built_before_the_migration_is_done() {
        let kinds = |migration| {
            built(migration)
                .iter()
                .map(|child| child.kind)
                .collect::<Vec<_>>()
        };
        assert!(!kinds(Migration::Start { attempt: 1 }).contains(&ChildKind::Deployment));
        assert!(kinds(Migration::Start { attempt: 1 }).contains(&ChildKind::MigrationJob));
        assert!(kinds(Migration::Off).contains(&ChildKind::Deployment));
        assert!(!kinds(Migration::Off).contains(&ChildKind::MigrationJob));
    }

    #[test]
    fn nothing_is_called_like_the_relay_itself() {
        for child in all() {
            assert_ne!(child.name, "file-service");
            assert_eq!(child.body["metadata"]["name"], child.name);
        }
    }

    #[test]
    fn every_child_is_owned_and_says_who_manages_it() {
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
    fn what_the_manifest_does_not_wish_for_is_not_built() {
        let kinds = |relay: &ValidatedRelay| {
            let plan = planned(relay);
            build(relay, &plan)
                .iter()
                .map(|child| child.kind)
                .collect::<Vec<_>>()
        };
        let plain = kinds(&validated());
        assert!(plain.contains(&ChildKind::ServiceAccount));
        assert!(
            !plain.contains(&ChildKind::NetworkPolicy) && !plain.contains(&ChildKind::PodMonitor)
        );
        let other_account = validated_with(|relay| {
            relay.spec.template.service_account_name = Some("mine".to_owned())
        });
        assert!(!kinds(&other_account).contains(&ChildKind::ServiceAccount));
    }

    #[test]
    fn a_relay_that_waits_for_its_upgrade_gets_nothing_that_its_pods_are_made_from() {
        let relay = validated();
        let before = Before {
            generation: Some(3),
            scaling: &Remembered::default(),
            turn: Turn::Waiting,
        };
        let plan = plan(&relay, &Observed::default(), &before, now());
        let kinds: Vec<ChildKind> = build(&relay, &plan)
            .iter()
            .map(|child| child.kind)
            .collect();
        assert_eq!(
            kinds,
            [
                ChildKind::ServiceAccount,
                ChildKind::Service,
                ChildKind::PodDisruptionBudget
            ]
        );
    }

    #[test]
    fn nothing_secret_and_no_empty_field_is_built() {
        for child in all() {
            assert!(!child.body.to_string().contains("null"), "{}", child.body);
        }
    }
}
