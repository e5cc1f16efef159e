//! Decides, with reasons, what is to be done: migrate, roll out, set back the count, clean up.
//! Pure.

mod migration;
mod scale;
mod upgrade;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

pub(crate) use migration::{Failure, Migration};
pub(crate) use scale::{Decision, Load, Remembered, ScalingPolicy};
pub(crate) use upgrade::{change, progress};

use super::{
    backlog,
    build::ChildKind,
    observe::{ObjectKey, Observed, RelayDeployment},
    upgrades::Turn,
    validate::{Count, ValidatedRelay},
};

/// Pause between two looks at an object that nothing happens to: reports are read then.
pub(crate) const LOOK: Duration = Duration::from_secs(15);

/// What is to be done for one relay.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Whether a new version may come to this relay now.
    pub turn: Turn,
    pub migration: Migration,
    pub rollout: Rollout,
    /// Relays that there should be now.
    pub replicas: i32,
    pub scale: Scale,
    /// What `spec.scaling` decided.
    pub scaling: Option<Scaling>,
    /// Children that the manifest does not wish for.
    pub unwanted: Vec<ChildKind>,
    /// Jobs of another target, and the one in whose place another is started.
    pub outdated_jobs: Vec<ObjectKey>,
    /// Settings that no pod mounts any more.
    pub outdated_config_maps: Vec<ObjectKey>,
    pub look_again_in: Duration,
}

/// Whether relays may get this spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rollout {
    /// The schema is ready for it.
    Go,
    /// It is not: relays that run go on as they are.
    WaitForSchema,
}

/// What happens to the Deployment's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// It is right, or there is no Deployment yet.
    Keep,
    /// The manifest asks for another one.
    Set { from: i32, to: i32 },
    /// Somebody wrote to the Deployment instead of the OutboxRelay.
    SetBack { from: i32, to: i32 },
    /// `spec.scaling` asks for another one.
    Step(Decision),
}

impl Scale {
    /// There is no relay, and there shall be.
    pub(crate) fn starts_the_first(self) -> bool {
        match self {
            Self::Keep => false,
            Self::Set { from, .. } | Self::SetBack { from, .. } => from == 0,
            Self::Step(step) => step.from == 0,
        }
    }
}

/// What `spec.scaling` decided, and from what.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scaling {
    pub decision: Decision,
    pub load: Option<Load>,
    /// For the next decision, when this one has been carried out.
    pub remember: Remembered,
}

/// What earlier passes left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before<'a> {
    /// The generation that the last pass carried out; absent: it left something undone.
    pub generation: Option<i64>,
    pub scaling: &'a Remembered,
    pub turn: Turn,
}

pub(crate) fn plan(
    relay: &ValidatedRelay,
    observed: &Observed,
    before: &Before<'_>,
    now: Timestamp,
) -> Plan {
    let job = relay
        .migration
        .as_ref()
        .and_then(|target| observed.jobs.iter().find(|job| job.key.name == target.job));
    let held = before.turn != Turn::Go;
    let migration = if held {
        Migration::Queued
    } else {
        migration::decide(relay, job, now)
    };
    let rollout = if migration.is_done() {
        Rollout::Go
    } else {
        Rollout::WaitForSchema
    };
    let again = matches!(migration, Migration::Start { .. });
    let current = |key: &ObjectKey| !again && job.is_some_and(|job| job.key == *key);
    let (replicas, scale, scaling) = count(relay, observed, before, now);
    Plan {
        rollout,
        scale,
        scaling,
        replicas,
        unwanted: unwanted(relay, observed),
        outdated_jobs: observed
            .jobs
            .iter()
            .map(|job| job.key.clone())
            .filter(|key| !held && !current(key))
            .collect(),
        turn: before.turn,
        outdated_config_maps: outdated_config_maps(relay, observed, rollout),
        look_again_in: migration
            .look_again_in(now)
            .map_or(LOOK, |soon| soon.min(LOOK)),
        migration,
    }
}

impl Plan {
    /// The same, with nothing to do: the annotation that pauses an OutboxRelay stops every write
    /// but that of its status.
    pub(crate) fn paused(self) -> Self {
        let (outdated_jobs, outdated_config_maps, unwanted) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            scale: Scale::Keep,
            scaling: None,
            outdated_jobs,
            outdated_config_maps,
            unwanted,
            ..self
        }
    }
}

/// All that is done for a manifest that cannot work: who wishes for no relay has none.
pub(crate) fn stop(wish: Option<&Count>, observed: &Observed) -> Scale {
    wish.map_or(Scale::Keep, |_| set(observed.deployment.as_ref(), 0, true))
}

/// How many relays, what is done about it, and why.
fn count(
    relay: &ValidatedRelay,
    observed: &Observed,
    before: &Before<'_>,
    now: Timestamp,
) -> (i32, Scale, Option<Scaling>) {
    let changed = before.generation != Some(relay.identity.generation);
    match (&relay.count, &observed.deployment) {
        (Count::Suspended, found) => (0, set(found.as_ref(), 0, changed), None),
        (Count::Fixed(to), found) => (*to, set(found.as_ref(), *to, changed), None),
        (Count::Scaled(policy), None) => (policy.min, Scale::Keep, None),
        (Count::Scaled(policy), Some(found)) => match before.scaling.count {
            Some(left) if left != found.wanted => (left, set(Some(found), left, changed), None),
            _ => scaled(policy, found, observed, before.scaling, now),
        },
    }
}

fn set(found: Option<&RelayDeployment>, to: i32, changed: bool) -> Scale {
    match found.map(|deployment| deployment.wanted) {
        Some(from) if from != to && changed => Scale::Set { from, to },
        Some(from) if from != to => Scale::SetBack { from, to },
        _ => Scale::Keep,
    }
}

fn scaled(
    policy: &ScalingPolicy,
    found: &RelayDeployment,
    observed: &Observed,
    remembered: &Remembered,
    now: Timestamp,
) -> (i32, Scale, Option<Scaling>) {
    let load = backlog::load(&observed.reports, now);
    let facts = scale::ScaleFacts {
        count: found.wanted,
        available: found.available,
        load,
    };
    let (decision, remember) = scale::decide(policy, &facts, remembered, now);
    let scale = if decision.to == decision.from {
        Scale::Keep
    } else {
        Scale::Step(decision)
    };
    (
        decision.to,
        scale,
        Some(Scaling {
            decision,
            load,
            remember,
        }),
    )
}

/// An account is needed until no pod of the old form is left, or may have to be created again.
fn unwanted(relay: &ValidatedRelay, observed: &Observed) -> Vec<ChildKind> {
    let arrived = |deployment: &RelayDeployment| {
        deployment.rolled_out() && upgrade::is_current(relay, deployment)
    };
    let unneeded = relay.template.service_account_name.is_some()
        && observed.deployment.as_ref().is_some_and(arrived);
    let all = [
        (ChildKind::ServiceAccount, unneeded),
        (ChildKind::NetworkPolicy, relay.admitted.is_none()),
        (ChildKind::PodMonitor, !relay.pod_monitor),
    ];
    all.into_iter()
        .filter(|(_, unwanted)| *unwanted)
        .map(|(kind, _)| kind)
        .collect()
}

/// Only after the new settings are out: until then the running relays' may be the ones that look
/// unused.
fn outdated_config_maps(
    relay: &ValidatedRelay,
    observed: &Observed,
    rollout: Rollout,
) -> Vec<ObjectKey> {
    let settled = rollout == Rollout::Go
        && observed
            .deployment
            .as_ref()
            .is_some_and(|deployment| deployment.observed);
    let unused = |key: &&ObjectKey| {
        key.name != relay.config_map && !observed.used_config_maps.contains(&key.name)
    };
    observed
        .config_maps
        .iter()
        .filter(|_| settled)
        .filter(unused)
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::{
        fixtures::{now, validated, validated_with},
        observe::{JobOutcome, MigrationJob, RelayDeployment, WrittenFor},
        reason::Reason,
    };

    /// `seen`: the generation that was last carried out.
    fn decided(relay: &ValidatedRelay, observed: &Observed, seen: i64) -> Plan {
        plan(
            relay,
            observed,
            &Before {
                generation: Some(seen),
                scaling: &Remembered::default(),
                turn: Turn::Go,
            },
            now(),
        )
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            name: name.to_owned(),
            uid: format!("uid of {name}"),
        }
    }

    fn job(name: &str, outcome: JobOutcome) -> MigrationJob {
        let (attempt, nudge, form, config_map, pod, refusal) = (1, None, None, None, None, None);
        MigrationJob {
            key: key(name),
            attempt,
            nudge,
            form,
            created_at: now(),
            config_map,
            outcome,
            pod,
            refusal,
        }
    }

    fn migrated(relay: &ValidatedRelay) -> Observed {
        let name = &relay.migration.as_ref().expect("policy Apply").job;
        let deployment = RelayDeployment {
            wanted: 2,
            observed: true,
            ..RelayDeployment::default()
        };
        Observed {
            jobs: vec![job(name, JobOutcome::Succeeded { at: now() })],
            deployment: Some(deployment),
            ..Observed::default()
        }
    }

    #[test]
    fn relays_wait_for_the_migration_of_this_very_target() {
        let relay = validated();
        let other = Observed {
            jobs: vec![job(
                "file-service-migrate-0",
                JobOutcome::Succeeded { at: now() },
            )],
            ..Observed::default()
        };
        let waiting = decided(&relay, &other, 3);
        assert_eq!(waiting.rollout, Rollout::WaitForSchema);
        assert_eq!(waiting.migration, Migration::Start { attempt: 1 });
        assert_eq!(decided(&relay, &migrated(&relay), 3).rollout, Rollout::Go);
    }

    #[test]
    fn the_job_of_another_target_is_removed_and_this_ones_stays() {
        let relay = validated();
        let mut observed = migrated(&relay);
        observed
            .jobs
            .push(job("file-service-migrate-0", JobOutcome::Unfinished));
        assert_eq!(
            decided(&relay, &observed, 3).outdated_jobs,
            [key("file-service-migrate-0")]
        );
    }

    #[test]
    fn a_job_that_cannot_run_makes_room_for_the_corrected_one() {
        let relay = validated();
        let name = &relay.migration.as_ref().expect("policy Apply").job;
        let observed = Observed {
            jobs: vec![job(name, JobOutcome::Unfinished)],
            ..Observed::default()
        };
        let plan = decided(&relay, &observed, 3);
        assert_eq!(
            (plan.migration, plan.outdated_jobs),
            (Migration::Start { attempt: 1 }, vec![key(name)])
        );
    }

    #[test]
    fn policy_off_removes_jobs_and_waits_for_none() {
        let off = validated_with(|r| r.spec.migration.policy = crate::api::MigrationPolicy::Never);
        let plan = decided(&off, &migrated(&validated()), 3);
        assert_eq!(plan.rollout, Rollout::Go);
        assert_eq!(plan.outdated_jobs.len(), 1);
    }

    #[test]
    fn a_foreign_count_is_set_back_and_a_new_one_is_set() {
        let relay = validated();
        let mut observed = migrated(&relay);
        assert_eq!(decided(&relay, &observed, 3).scale, Scale::Keep);
        observed.deployment.as_mut().expect("there").wanted = 5;
        assert_eq!(
            decided(&relay, &observed, 3).scale,
            Scale::SetBack { from: 5, to: 2 }
        );
        assert_eq!(
            decided(&relay, &observed, 2).scale,
            Scale::Set { from: 5, to: 2 }
        );
    }

    #[test]
    fn scaling_does_not_wait_for_a_migration() {
        let relay = validated();
        let observed = Observed {
            jobs: Vec::new(),
            ..migrated(&relay)
        };
        let mut observed = observed;
        observed.deployment.as_mut().expect("there").wanted = 0;
        assert_eq!(
            decided(&relay, &observed, 2).scale,
            Scale::Set { from: 0, to: 2 }
        );
    }

    #[test]
    fn scaling_starts_from_the_deployments_count_and_sets_a_foreign_one_back() {
        let relay =
            validated_with(|r| r.spec.scaling = serde_yaml::from_str("maxReplicas: 4").ok());
        assert_eq!(
            decided(&relay, &Observed::default(), 3).replicas,
            1,
            "the first one"
        );
        let mut observed = migrated(&relay);
        observed.deployment.as_mut().expect("there").wanted = 3;
        let first = decided(&relay, &observed, 3);
        let scaling = first.scaling.expect("decided");
        assert_eq!(
            (first.scale, first.replicas, scaling.decision.why),
            (Scale::Keep, 3, Reason::ReportsIncomplete)
        );
        observed.deployment.as_mut().expect("there").wanted = 1;
        let second = plan(
            &relay,
            &observed,
            &Before {
                generation: Some(3),
                scaling: &scaling.remember,
                turn: Turn::Go,
            },
            now(),
        );
        assert_eq!(
            (second.scale, second.scaling),
            (Scale::SetBack { from: 1, to: 3 }, None)
        );
        observed.deployment.as_mut().expect("there").wanted = 9;
        let too_many = decided(&relay, &observed, 3).scale;
        assert!(
            matches!(
                too_many,
                Scale::Step(Decision {
                    from: 9,
                    to: 4,
                    why: Reason::BoundsChanged
                })
            ),
            "{too_many:?}"
        );
    }

    #[test]
    fn a_suspended_relay_goes_to_none_and_comes_back() {
        let suspended = validated_with(|r| r.spec.suspend = true);
        let mut observed = migrated(&suspended);
        let down = decided(&suspended, &observed, 2);
        assert_eq!(
            (down.replicas, down.scale),
            (0, Scale::Set { from: 2, to: 0 })
        );
        observed.deployment.as_mut().expect("there").wanted = 0;
        assert_eq!(
            decided(&validated(), &observed, 2).scale,
            Scale::Set { from: 0, to: 2 }
        );
    }

    #[test]
    fn a_manifest_that_cannot_work_can_take_relays_away_and_bring_none() {
        let mut observed = migrated(&validated());
        assert_eq!(
            stop(Some(&Count::Suspended), &observed),
            Scale::Set { from: 2, to: 0 }
        );
        assert_eq!(
            stop(Some(&Count::Fixed(0)), &observed),
            Scale::Set { from: 2, to: 0 }
        );
        assert_eq!(stop(None, &observed), Scale::Keep);
        observed.deployment.as_mut().expect("there").wanted = 0;
        assert_eq!(
            (
                stop(None, &observed),
                stop(Some(&Count::Suspended), &observed)
            ),
            (Scale::Keep, Scale::Keep)
        );
    }

    #[test]
    fn only_the_first_relays_wait_for_what_they_are_made_from() {
        let starts = |from, to| {
            let step = Scale::Step(Decision {
                from,
                to,
                why: Reason::BacklogHigh,
            });
            [Scale::Set { from, to }, Scale::SetBack { from, to }, step]
                .map(Scale::starts_the_first)
        };
        assert_eq!(
            (starts(0, 2), starts(2, 0), starts(1, 2)),
            ([true; 3], [false; 3], [false; 3])
        );
        assert!(!Scale::Keep.starts_the_first());
    }

    #[test]
    fn what_is_not_wished_for_goes_and_an_account_only_when_no_pod_needs_it() {
        let other_account = validated_with(|r| {
            r.spec.template.service_account_name = Some("mine".to_owned());
            r.spec.network_policy.enabled = true;
        });
        let mut observed = migrated(&other_account);
        observed.deployment.as_mut().expect("there").updated = 1;
        assert_eq!(
            decided(&other_account, &observed, 3).unwanted,
            [ChildKind::PodMonitor]
        );
        let of_form = |relay: &ValidatedRelay| {
            let (form, generation, wishes) = (
                crate::operator::build::form(relay),
                "3".to_owned(),
                relay.wishes.clone(),
            );
            let written_for = Some(WrittenFor {
                form,
                generation,
                wishes,
            });
            Some(RelayDeployment {
                wanted: 2,
                observed: true,
                existing: 2,
                updated: 2,
                written_for,
                ..RelayDeployment::default()
            })
        };
        observed.deployment = of_form(&validated());
        assert_eq!(
            decided(&other_account, &observed, 3).unwanted,
            [ChildKind::PodMonitor],
            "the rollout that leaves it begins"
        );
        observed.deployment = of_form(&other_account);
        assert_eq!(
            decided(&other_account, &observed, 3).unwanted,
            [ChildKind::ServiceAccount, ChildKind::PodMonitor]
        );
        assert_eq!(
            decided(&validated(), &observed, 3).unwanted,
            [ChildKind::NetworkPolicy, ChildKind::PodMonitor]
        );
    }

    #[test]
    fn a_relay_that_waits_for_its_upgrade_keeps_its_job_and_settings_and_is_scaled_all_the_same() {
        let relay = validated();
        let mut observed = migrated(&relay);
        observed
            .jobs
            .push(job("file-service-migrate-0", JobOutcome::Unfinished));
        observed.config_maps = vec![key("older")];
        observed.deployment.as_mut().expect("there").wanted = 1;
        let before = Before {
            generation: Some(2),
            scaling: &Remembered::default(),
            turn: Turn::Waiting,
        };
        let plan = plan(&relay, &observed, &before, now());
        assert_eq!(
            (plan.rollout, &plan.migration),
            (Rollout::WaitForSchema, &Migration::Queued)
        );
        assert_eq!(
            (plan.outdated_jobs, plan.outdated_config_maps),
            (Vec::new(), Vec::new())
        );
        assert_eq!(plan.scale, Scale::Set { from: 1, to: 2 });
    }

    #[test]
    fn a_paused_plan_does_nothing() {
        let relay = validated();
        let mut observed = migrated(&relay);
        observed.deployment.as_mut().expect("there").wanted = 5;
        observed
            .jobs
            .push(job("file-service-migrate-0", JobOutcome::Unfinished));
        let paused = decided(&relay, &observed, 3).paused();
        assert_eq!(
            (paused.scale, paused.outdated_jobs, paused.unwanted),
            (Scale::Keep, Vec::new(), Vec::new())
        );
    }

    #[test]
    fn settings_are_removed_when_no_pod_can_mount_them_any_more() {
        let relay = validated();
        let mut observed = migrated(&relay);
        observed.config_maps = vec![key(&relay.config_map), key("used"), key("unused")];
        observed.used_config_maps = ["used".to_owned()].into();
        assert_eq!(
            decided(&relay, &observed, 3).outdated_config_maps,
            [key("unused")]
        );
        observed.deployment.as_mut().expect("there").observed = false;
        assert_eq!(decided(&relay, &observed, 3).outdated_config_maps, []);
        observed.jobs.clear();
        observed.deployment.as_mut().expect("there").observed = true;
        assert_eq!(
            decided(&relay, &observed, 3).outdated_config_maps,
            [],
            "a waiting rollout removes nothing"
        );
    }
}
