//! Decides, with reasons, what is to be done: migrate, roll out, set the number of replicas, clean
//! up. Pure.

pub(crate) mod load;
mod migration;
mod scale;
mod selection;
mod upgrade;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

pub(crate) use load::Load;
pub(crate) use migration::{Failure, Migration};
pub(crate) use scale::{Decision, ScalingMemory};
pub(crate) use upgrade::{WriteResult, change, progress};

use migration::Circumstances;

use crate::{
    api::MigrationStatus,
    operator::{
        children::ChildKind,
        reconcile::{
            build::Desired,
            observe::{MigrationJob, ObjectKey, Observed, RelayDeployment},
            upgrade_queue::Turn,
            validate::{DesiredReplicas, InvalidManifest, ScalingPolicy, ValidationError},
        },
    },
};

/// Longest pause between two reconciliations of an object that does not change: reports are read
/// then.
pub(crate) const RESYNC_INTERVAL: Duration = Duration::from_secs(15);

/// When an OutboxRelay is reconciled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// When it or one of its children changes.
    OnChange,
    /// After this time, or when it or one of its children changes.
    After(Duration),
}

/// What is to be done for one OutboxRelay.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Plan<'a> {
    /// The manifest is valid: children become what it asks for.
    CarryOut(RelayPlan<'a>),
    /// The annotation pauses the OutboxRelay: only its status is written. The plan has what would
    /// be done, without what would be removed or scaled.
    Paused(RelayPlan<'a>),
    /// The manifest is invalid: relays that run stay as they are, or are stopped.
    Invalid(InvalidPlan<'a>),
    /// This version cannot read the manifest: relays that run stay as they are.
    Unreadable { error: &'a str },
}

impl Plan<'_> {
    /// Returns when the object is reconciled again. An unreadable one waits for a change.
    pub(crate) fn requeue(&self) -> Requeue {
        match self {
            Self::CarryOut(plan) | Self::Paused(plan) => Requeue::After(plan.requeue_after),
            Self::Invalid(_) => Requeue::After(RESYNC_INTERVAL),
            Self::Unreadable { .. } => Requeue::OnChange,
        }
    }
}

/// What is to be done for a valid manifest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RelayPlan<'a> {
    pub desired: &'a Desired,
    /// Whether a new version may come to this relay now.
    pub turn: Turn,
    pub migration: Migration,
    pub rollout: Rollout,
    /// Number of relays that there should be now.
    pub replicas: i32,
    pub scale: Scale,
    /// What `spec.scaling` decided.
    pub scaling: Option<Scaling>,
    /// Kinds of children that may be left from an earlier manifest and are to be removed.
    pub unwanted: Vec<ChildKind>,
    /// Jobs of another target, and a failed one that makes room for the next attempt.
    pub outdated_jobs: Vec<ObjectKey>,
    /// ConfigMaps that no pod mounts any more.
    pub outdated_config_maps: Vec<ObjectKey>,
    pub requeue_after: Duration,
}

/// What is to be done for an invalid manifest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InvalidPlan<'a> {
    pub error: &'a ValidationError,
    /// The part of the manifest that asks for no relay; it is carried out although other parts are
    /// invalid.
    pub zero: Option<&'a DesiredReplicas>,
    pub scale: Scale,
}

/// Whether relays may get the current revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rollout {
    /// The schema is ready for it.
    Go,
    /// The schema is not ready: relays that run stay as they are.
    WaitForSchema,
}

/// What happens to the Deployment's number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// The number is right, or there is no Deployment yet.
    Keep,
    /// The manifest asks for another number.
    Set { from: i32, to: i32 },
    /// Somebody scaled the Deployment instead of the OutboxRelay.
    SetBack { from: i32, to: i32 },
    /// `spec.scaling` asks for another number.
    Step(Decision),
}

impl Scale {
    /// Returns the number of replicas to set; nothing if the present one stays.
    pub(crate) fn target(self) -> Option<i32> {
        match self {
            Self::Keep => None,
            Self::Set { to, .. } | Self::SetBack { to, .. } => Some(to),
            Self::Step(step) => Some(step.to),
        }
    }

    /// Returns whether there is no relay yet, and there should be.
    pub(crate) fn starts_the_first(self) -> bool {
        matches!(
            self,
            Self::Set { from: 0, .. }
                | Self::SetBack { from: 0, .. }
                | Self::Step(Decision { from: 0, .. })
        )
    }
}

/// What `spec.scaling` decided, and from what.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scaling {
    pub decision: Decision,
    pub load: Option<Load>,
    /// Input of the next decision, if this one is carried out.
    pub next_memory: ScalingMemory,
}

/// What earlier reconciliations left, and what others allow now.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// Nothing but the status may be written.
    pub paused: bool,
    /// Generation of the manifest that was carried out last; absent if something was left undone.
    pub generation: Option<i64>,
    pub scaling: ScalingMemory,
    pub turn: Turn,
    /// Number of OutboxRelays whose migration fails, with this one if it does.
    pub failing_migrations: usize,
    /// The last migration that succeeded, from the status.
    pub migration: Option<MigrationStatus>,
}

/// Decides what to do for a manifest of any kind.
pub(crate) fn plan<'a>(
    desired: &'a Result<Desired, InvalidManifest>,
    observed: &Observed,
    history: &History,
    now: Timestamp,
) -> Plan<'a> {
    match desired {
        Ok(desired) => {
            let plan = relay_plan(desired, observed, history, now);
            if history.paused {
                Plan::Paused(plan.without_writes())
            } else {
                Plan::CarryOut(plan)
            }
        }
        Err(InvalidManifest::Invalid { error, zero }) => Plan::Invalid(InvalidPlan {
            error,
            zero: zero.as_ref(),
            scale: if history.paused {
                Scale::Keep
            } else {
                stop(zero.as_ref(), observed)
            },
        }),
        Err(InvalidManifest::Unreadable(error)) => Plan::Unreadable { error },
    }
}

/// Decides what to do for a valid manifest, whether or not it is paused.
fn relay_plan<'a>(
    desired: &'a Desired,
    observed: &Observed,
    history: &History,
    now: Timestamp,
) -> RelayPlan<'a> {
    let turn = history.turn;
    let job = target_job(desired, observed);
    let migration = match turn {
        Turn::Go => migration::decide(
            desired,
            job,
            Circumstances {
                lost: observed.lost_schema(),
                failing: history.failing_migrations,
                done: history.migration.as_ref(),
                now,
            },
        ),
        Turn::Waiting | Turn::Stopped => Migration::Queued,
    };
    let rollout = if migration.is_done() {
        Rollout::Go
    } else {
        Rollout::WaitForSchema
    };
    let (replicas, scale, scaling) = replicas(desired, observed, history, now);
    RelayPlan {
        desired,
        turn,
        rollout,
        replicas,
        scale,
        scaling,
        unwanted: unwanted(desired, observed),
        outdated_jobs: outdated_jobs(observed, job, &migration),
        outdated_config_maps: outdated_config_maps(desired, observed, rollout),
        requeue_after: requeue_after(&migration, now),
        migration,
    }
}

/// Returns the Job that migrates to the current target.
fn target_job<'a>(desired: &Desired, observed: &'a Observed) -> Option<&'a MigrationJob> {
    let target = desired.relay.migration.as_ref()?;
    observed.job(&target.job)
}

fn requeue_after(migration: &Migration, now: Timestamp) -> Duration {
    match migration.requeue_after(now) {
        Some(soon) => soon.min(RESYNC_INTERVAL),
        None => RESYNC_INTERVAL,
    }
}

impl RelayPlan<'_> {
    /// Returns the plan without what it would remove or scale.
    fn without_writes(self) -> Self {
        Self {
            scale: Scale::Keep,
            scaling: None,
            outdated_jobs: Vec::new(),
            outdated_config_maps: Vec::new(),
            unwanted: Vec::new(),
            ..self
        }
    }
}

/// Decides the only thing that is done for an invalid manifest: one that asks for no relay has
/// none.
fn stop(zero: Option<&DesiredReplicas>, observed: &Observed) -> Scale {
    match zero {
        Some(_) => set(observed.deployment.as_ref(), 0, SpecChange::New),
        None => Scale::Keep,
    }
}

/// Whether the manifest changed since it was last carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SpecChange {
    New,
    CarriedOut,
}

impl SpecChange {
    /// Returns the change of the number of replicas. Where the manifest did not change, somebody
    /// else set the present number.
    fn scale(self, from: i32, to: i32) -> Scale {
        match self {
            Self::New => Scale::Set { from, to },
            Self::CarriedOut => Scale::SetBack { from, to },
        }
    }
}

/// Decides how many relays there should be, what is done about it, and why.
fn replicas(
    desired: &Desired,
    observed: &Observed,
    history: &History,
    now: Timestamp,
) -> (i32, Scale, Option<Scaling>) {
    let found = observed.deployment.as_ref();
    let change = spec_change(desired, history);
    let policy = match &desired.relay.replicas {
        DesiredReplicas::Suspended => return (0, set(found, 0, change), None),
        DesiredReplicas::Fixed(to) => return (*to, set(found, *to, change), None),
        DesiredReplicas::Scaled(policy) => policy,
    };
    let Some(found) = found else {
        return (policy.min, Scale::Keep, None);
    };
    match history.scaling.count {
        Some(left) if left != found.wanted => (left, set(Some(found), left, change), None),
        _ => scaled(policy, found, observed, &history.scaling, now),
    }
}

fn spec_change(desired: &Desired, history: &History) -> SpecChange {
    if history.generation == Some(desired.relay.identity.generation) {
        SpecChange::CarriedOut
    } else {
        SpecChange::New
    }
}

fn set(found: Option<&RelayDeployment>, to: i32, change: SpecChange) -> Scale {
    match found {
        Some(deployment) if deployment.wanted != to => change.scale(deployment.wanted, to),
        _ => Scale::Keep,
    }
}

fn scaled(
    policy: &ScalingPolicy,
    found: &RelayDeployment,
    observed: &Observed,
    memory: &ScalingMemory,
    now: Timestamp,
) -> (i32, Scale, Option<Scaling>) {
    let load = load::load(&observed.reports, now);
    let inputs = scale::ScaleInputs {
        count: found.wanted,
        available: found.available,
        load,
    };
    let (decision, next_memory) = scale::decide(policy, &inputs, memory, now);
    let scale = if decision.to == decision.from {
        Scale::Keep
    } else {
        Scale::Step(decision)
    };
    let scaling = Scaling {
        decision,
        load,
        next_memory,
    };
    (decision.to, scale, Some(scaling))
}

/// Returns kinds of children that the manifest does not ask for. A ServiceAccount is needed until
/// no pod of an older revision is left, or may have to be created again.
fn unwanted(desired: &Desired, observed: &Observed) -> Vec<ChildKind> {
    let relay = &desired.relay;
    let mut unwanted = Vec::new();
    if relay.template.service_account_name.is_some() && has_arrived(desired, observed) {
        unwanted.push(ChildKind::ServiceAccount);
    }
    if relay.allowed_namespaces.is_none() {
        unwanted.push(ChildKind::NetworkPolicy);
    }
    if !relay.pod_monitor {
        unwanted.push(ChildKind::PodMonitor);
    }
    unwanted
}

/// Returns whether every pod has the current revision.
fn has_arrived(desired: &Desired, observed: &Observed) -> bool {
    let deployment = observed.deployment.as_ref();
    deployment.is_some_and(|deployment| {
        deployment.rolled_out() && upgrade::is_current(desired, deployment)
    })
}

/// Returns the Jobs that are to be removed: those of other targets, and one that makes room for the
/// next attempt. A relay that waits for its turn keeps all of its Jobs.
fn outdated_jobs(
    observed: &Observed,
    target_job: Option<&MigrationJob>,
    migration: &Migration,
) -> Vec<ObjectKey> {
    let current = match migration {
        Migration::Queued => return Vec::new(),
        Migration::Start { .. } => None,
        _ => target_job.map(|job| &job.key),
    };
    let keys = observed.jobs.iter().map(|job| &job.key);
    keys.filter(|key| Some(*key) != current).cloned().collect()
}

/// Returns ConfigMaps that nothing uses. Only after the new settings are out: before that, those of
/// the running relays may be the ones that seem unused.
fn outdated_config_maps(
    desired: &Desired,
    observed: &Observed,
    rollout: Rollout,
) -> Vec<ObjectKey> {
    let deployment = observed.deployment.as_ref();
    if rollout != Rollout::Go || !deployment.is_some_and(|deployment| deployment.observed) {
        return Vec::new();
    }
    let unused = |key: &&ObjectKey| {
        key.name != desired.relay.config_map && !observed.used_config_maps.contains(&key.name)
    };
    let config_maps = observed.config_maps.iter();
    config_maps.filter(unused).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::{
        fixtures::{desired, desired_with, now},
        reason::Reason,
        reconcile::observe::{JobOutcome, MigrationJob, RelayDeployment, WrittenFor},
    };

    /// `seen`: the generation that was last carried out.
    fn decided<'a>(desired: &'a Desired, observed: &Observed, seen: i64) -> RelayPlan<'a> {
        after(desired, observed, seen, &ScalingMemory::default())
    }

    fn after<'a>(
        desired: &'a Desired,
        observed: &Observed,
        seen: i64,
        scaling: &ScalingMemory,
    ) -> RelayPlan<'a> {
        let history = History {
            paused: false,
            generation: Some(seen),
            scaling: scaling.clone(),
            turn: Turn::Go,
            failing_migrations: 0,
            migration: None,
        };
        relay_plan(desired, observed, &history, now())
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            name: name.to_owned(),
            uid: format!("uid of {name}"),
        }
    }

    fn job(name: &str, outcome: JobOutcome) -> MigrationJob {
        let (attempt, reconcile_at, revision_hash, config_map, pod, refusal) =
            (1, None, None, None, None, None);
        MigrationJob {
            key: key(name),
            attempt,
            reconcile_at,
            revision_hash,
            created_at: now(),
            config_map,
            outcome,
            pod,
            refusal,
        }
    }

    fn migrated(desired: &Desired) -> Observed {
        let name = &desired.relay.migration.as_ref().expect("policy Apply").job;
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
        let desired = desired();
        let other = Observed {
            jobs: vec![job(
                "file-service-migrate-0",
                JobOutcome::Succeeded { at: now() },
            )],
            ..Observed::default()
        };
        let waiting = decided(&desired, &other, 3);
        assert_eq!(waiting.rollout, Rollout::WaitForSchema);
        assert_eq!(waiting.migration, Migration::Start { attempt: 1 });
        assert_eq!(
            decided(&desired, &migrated(&desired), 3).rollout,
            Rollout::Go
        );
    }

    #[test]
    fn the_job_of_another_target_is_removed_and_this_ones_stays() {
        let desired = desired();
        let mut observed = migrated(&desired);
        observed
            .jobs
            .push(job("file-service-migrate-0", JobOutcome::Unfinished));
        assert_eq!(
            decided(&desired, &observed, 3).outdated_jobs,
            [key("file-service-migrate-0")]
        );
    }

    #[test]
    fn a_job_that_cannot_run_makes_room_for_the_corrected_one() {
        let desired = desired();
        let name = &desired.relay.migration.as_ref().expect("policy Apply").job;
        let observed = Observed {
            jobs: vec![job(name, JobOutcome::Unfinished)],
            ..Observed::default()
        };
        let plan = decided(&desired, &observed, 3);
        assert_eq!(
            (plan.migration, plan.outdated_jobs),
            (Migration::Start { attempt: 1 }, vec![key(name)])
        );
    }

    #[test]
    fn policy_off_removes_jobs_and_waits_for_none() {
        let off = desired_with(|r| r.spec.migration.policy = crate::api::MigrationPolicy::Never);
        let plan = decided(&off, &migrated(&desired()), 3);
        assert_eq!(plan.rollout, Rollout::Go);
        assert_eq!(plan.outdated_jobs.len(), 1);
    }

    #[test]
    fn replicas_that_somebody_else_set_are_reset_and_new_ones_are_set() {
        let desired = desired();
        let mut observed = migrated(&desired);
        assert_eq!(decided(&desired, &observed, 3).scale, Scale::Keep);
        observed.deployment.as_mut().expect("there").wanted = 5;
        assert_eq!(
            decided(&desired, &observed, 3).scale,
            Scale::SetBack { from: 5, to: 2 }
        );
        assert_eq!(
            decided(&desired, &observed, 2).scale,
            Scale::Set { from: 5, to: 2 }
        );
    }

    #[test]
    fn scaling_does_not_wait_for_a_migration() {
        let desired = desired();
        let observed = Observed {
            jobs: Vec::new(),
            ..migrated(&desired)
        };
        let mut observed = observed;
        observed.deployment.as_mut().expect("there").wanted = 0;
        assert_eq!(
            decided(&desired, &observed, 2).scale,
            Scale::Set { from: 0, to: 2 }
        );
    }

    #[test]
    fn scaling_starts_from_the_deployments_replicas_and_resets_those_of_somebody_else() {
        let desired =
            desired_with(|r| r.spec.scaling = serde_yaml::from_str("maxReplicas: 4").ok());
        assert_eq!(
            decided(&desired, &Observed::default(), 3).replicas,
            1,
            "the first one"
        );
        let mut observed = migrated(&desired);
        observed.deployment.as_mut().expect("there").wanted = 3;
        let first = decided(&desired, &observed, 3);
        let scaling = first.scaling.expect("decided");
        assert_eq!(
            (first.scale, first.replicas, scaling.decision.reason),
            (Scale::Keep, 3, Reason::ReportsIncomplete)
        );
        observed.deployment.as_mut().expect("there").wanted = 1;
        let second = after(&desired, &observed, 3, &scaling.next_memory);
        assert_eq!(
            (second.scale, second.scaling),
            (Scale::SetBack { from: 1, to: 3 }, None)
        );
        observed.deployment.as_mut().expect("there").wanted = 9;
        let too_many = decided(&desired, &observed, 3).scale;
        assert!(
            matches!(
                too_many,
                Scale::Step(Decision {
                    from: 9,
                    to: 4,
                    reason: Reason::BoundsChanged
                })
            ),
            "{too_many:?}"
        );
    }

    #[test]
    fn a_suspended_relay_goes_to_none_and_comes_back() {
        let suspended = desired_with(|r| r.spec.suspend = true);
        let mut observed = migrated(&suspended);
        let down = decided(&suspended, &observed, 2);
        assert_eq!(
            (down.replicas, down.scale),
            (0, Scale::Set { from: 2, to: 0 })
        );
        observed.deployment.as_mut().expect("there").wanted = 0;
        assert_eq!(
            decided(&desired(), &observed, 2).scale,
            Scale::Set { from: 0, to: 2 }
        );
    }

    #[test]
    fn an_invalid_manifest_can_remove_relays_and_add_none() {
        let mut observed = migrated(&desired());
        assert_eq!(
            stop(Some(&DesiredReplicas::Suspended), &observed),
            Scale::Set { from: 2, to: 0 }
        );
        assert_eq!(
            stop(Some(&DesiredReplicas::Fixed(0)), &observed),
            Scale::Set { from: 2, to: 0 }
        );
        assert_eq!(stop(None, &observed), Scale::Keep);
        observed.deployment.as_mut().expect("there").wanted = 0;
        assert_eq!(
            (
                stop(None, &observed),
                stop(Some(&DesiredReplicas::Suspended), &observed)
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
                reason: Reason::BacklogHigh,
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
    fn unwanted_children_are_removed_and_an_account_only_when_no_pod_needs_it() {
        let other_account = desired_with(|r| {
            r.spec.template.service_account_name = Some("mine".to_owned());
            r.spec.network_policy.enabled = true;
        });
        let mut observed = migrated(&other_account);
        observed.deployment.as_mut().expect("there").updated = 1;
        assert_eq!(
            decided(&other_account, &observed, 3).unwanted,
            [ChildKind::PodMonitor]
        );
        let written_for = |desired: &Desired| {
            let written_for = Some(WrittenFor {
                revision_hash: desired.hashes.deployment.clone(),
                generation: "3".to_owned(),
                spec_hash: desired.relay.spec_hash.clone(),
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
        observed.deployment = written_for(&desired());
        assert_eq!(
            decided(&other_account, &observed, 3).unwanted,
            [ChildKind::PodMonitor],
            "the rollout that leaves it begins"
        );
        observed.deployment = written_for(&other_account);
        assert_eq!(
            decided(&other_account, &observed, 3).unwanted,
            [ChildKind::ServiceAccount, ChildKind::PodMonitor]
        );
        assert_eq!(
            decided(&desired(), &observed, 3).unwanted,
            [ChildKind::NetworkPolicy, ChildKind::PodMonitor]
        );
    }

    #[test]
    fn a_relay_that_waits_for_its_upgrade_keeps_its_job_and_settings_and_is_scaled_all_the_same() {
        let desired = desired();
        let mut observed = migrated(&desired);
        observed
            .jobs
            .push(job("file-service-migrate-0", JobOutcome::Unfinished));
        observed.config_maps = vec![key("older")];
        observed.deployment.as_mut().expect("there").wanted = 1;
        let history = History {
            paused: false,
            generation: Some(2),
            scaling: ScalingMemory::default(),
            turn: Turn::Waiting,
            failing_migrations: 0,
            migration: None,
        };
        let plan = relay_plan(&desired, &observed, &history, now());
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
        let desired = desired();
        let mut observed = migrated(&desired);
        observed.deployment.as_mut().expect("there").wanted = 5;
        observed
            .jobs
            .push(job("file-service-migrate-0", JobOutcome::Unfinished));
        let paused = decided(&desired, &observed, 3).without_writes();
        assert_eq!(
            (paused.scale, paused.outdated_jobs, paused.unwanted),
            (Scale::Keep, Vec::new(), Vec::new())
        );
    }

    #[test]
    fn settings_are_removed_when_no_pod_can_mount_them_any_more() {
        let desired = desired();
        let mut observed = migrated(&desired);
        observed.config_maps = vec![key(&desired.relay.config_map), key("used"), key("unused")];
        observed.used_config_maps = ["used".to_owned()].into();
        assert_eq!(
            decided(&desired, &observed, 3).outdated_config_maps,
            [key("unused")]
        );
        observed.deployment.as_mut().expect("there").observed = false;
        assert_eq!(decided(&desired, &observed, 3).outdated_config_maps, []);
        observed.jobs.clear();
        observed.deployment.as_mut().expect("there").observed = true;
        assert_eq!(
            decided(&desired, &observed, 3).outdated_config_maps,
            [],
            "a waiting rollout removes nothing"
        );
    }
}
