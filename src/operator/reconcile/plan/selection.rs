//! Which of the candidates should exist now, and how. Pure.

use serde_json::json;

use crate::operator::{
    children::{ChildKind, Prepared},
    identity::ATTEMPT,
    reconcile::{
        plan::{Migration, RelayPlan, Rollout},
        upgrade_queue::Turn,
    },
};

impl RelayPlan<'_> {
    /// Returns the children that should exist now, in the order in which they are written.
    pub(crate) fn children(&self) -> Vec<Prepared> {
        let candidates = self.desired.candidates.iter();
        candidates.filter_map(|child| self.select(child)).collect()
    }

    fn select(&self, child: &Prepared) -> Option<Prepared> {
        match child.kind {
            ChildKind::ConfigMap if self.turn != Turn::Go => None,
            ChildKind::MigrationJob => self.select_job(child.clone()),
            ChildKind::Deployment => self.select_deployment(child.clone()),
            ChildKind::ServiceAccount
            | ChildKind::Service
            | ChildKind::PodDisruptionBudget
            | ChildKind::NetworkPolicy
            | ChildKind::ConfigMap
            | ChildKind::PodMonitor => Some(child.clone()),
        }
    }

    fn select_job(&self, mut job: Prepared) -> Option<Prepared> {
        let Migration::Start { attempt } = self.migration else {
            return None;
        };
        job.body["metadata"]["annotations"][ATTEMPT] = json!(attempt.to_string());
        Some(job)
    }

    fn select_deployment(&self, mut deployment: Prepared) -> Option<Prepared> {
        if self.rollout != Rollout::Go {
            return None;
        }
        deployment.first_replicas = Some(self.replicas);
        Some(deployment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::{
        fixtures::{desired, now},
        reconcile::{
            observe::Observed,
            plan::{History, ScalingMemory, relay_plan},
        },
    };

    /// Children of the fixture, with a changed plan.
    fn selected(change: impl FnOnce(&mut RelayPlan<'_>)) -> Vec<Prepared> {
        let desired = desired();
        let history = History {
            paused: false,
            generation: Some(3),
            scaling: ScalingMemory::default(),
            turn: Turn::Go,
            failing_migrations: 0,
            migration: None,
        };
        let mut plan = relay_plan(&desired, &Observed::default(), &history, now());
        change(&mut plan);
        plan.children()
    }

    fn kinds(children: &[Prepared]) -> Vec<ChildKind> {
        children.iter().map(|child| child.kind).collect()
    }

    #[test]
    fn the_deployment_waits_for_the_migration() {
        let migrating = kinds(&selected(|_| ()));
        assert!(!migrating.contains(&ChildKind::Deployment));
        assert!(migrating.contains(&ChildKind::MigrationJob));
        let done = kinds(&selected(|plan| {
            (plan.migration, plan.rollout) = (Migration::Off, Rollout::Go);
        }));
        assert!(done.contains(&ChildKind::Deployment));
        assert!(!done.contains(&ChildKind::MigrationJob));
    }

    #[test]
    fn a_job_carries_its_attempt_and_a_new_deployment_its_replicas() {
        let third = selected(|plan| plan.migration = Migration::Start { attempt: 3 });
        let job = third
            .iter()
            .find(|child| child.kind == ChildKind::MigrationJob)
            .expect("selected");
        assert_eq!(job.body["metadata"]["annotations"][ATTEMPT], "3");
        let done = selected(|plan| (plan.migration, plan.rollout) = (Migration::Off, Rollout::Go));
        let deployment = done
            .iter()
            .find(|child| child.kind == ChildKind::Deployment)
            .expect("selected");
        assert_eq!(deployment.first_replicas, Some(2));
        assert_eq!(deployment.body["spec"].get("replicas"), None);
    }

    #[test]
    fn a_relay_that_waits_for_its_upgrade_gets_nothing_that_its_pods_are_made_from() {
        let waiting =
            selected(|plan| (plan.turn, plan.migration) = (Turn::Waiting, Migration::Queued));
        assert_eq!(
            kinds(&waiting),
            [
                ChildKind::ServiceAccount,
                ChildKind::Service,
                ChildKind::PodDisruptionBudget
            ]
        );
    }
}
