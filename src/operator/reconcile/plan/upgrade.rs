//! Where a new revision comes from, its manifest or a new version of the operator, and how far its
//! rollout is. Pure.

use crate::operator::reconcile::{
    build::Desired,
    observe::{Observed, RelayDeployment, WrittenFor},
    plan::{Migration, RelayPlan},
    upgrade_queue::{Change, Progress, Turn},
    validate::ValidatedRelay,
};

/// Returns whether the next write of the Deployment is an upgrade.
///
/// A Deployment carries the generation that it was last written for, and the hash of that spec.
/// Both must differ for a change to be a user's: a new number of replicas is a new generation of
/// the same spec hash, and a version that knows more fields reads the same generation with other
/// defaults.
pub(crate) fn change(desired: &Desired, observed: &Observed) -> Change {
    match &observed.deployment {
        Some(deployment) if is_upgrade(desired, deployment) => Change::Upgrade,
        _ => Change::BySpec,
    }
}

/// Returns whether the Deployment gets another revision that no user asked for.
fn is_upgrade(desired: &Desired, deployment: &RelayDeployment) -> bool {
    let written = deployment.written_for.as_ref();
    !is_current(desired, deployment)
        && written.is_none_or(|written| !is_changed_by_user(&desired.relay, written))
}

fn is_changed_by_user(relay: &ValidatedRelay, written: &WrittenFor) -> bool {
    written.generation != relay.identity.generation.to_string()
        && written.spec_hash != relay.spec_hash
}

/// Returns whether the Deployment was last written with the current revision.
pub(super) fn is_current(desired: &Desired, deployment: &RelayDeployment) -> bool {
    let written = deployment.written_for.as_ref();
    written.is_some_and(|written| written.revision_hash == desired.hashes.deployment)
}

/// Whether the API server accepted the children that were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteResult {
    /// All children were accepted, or a retry can help.
    Accepted,
    /// One of them is refused until a person changes something.
    Refused,
}

/// Returns how far the rollout of a relay is; nothing without a turn. `observed` holds what was
/// just written.
pub(crate) fn progress(
    plan: &RelayPlan<'_>,
    observed: &Observed,
    written: WriteResult,
) -> Option<Progress> {
    if plan.turn != Turn::Go {
        return None;
    }
    if written == WriteResult::Refused || observed.is_stuck() || has_failed(&plan.migration) {
        return Some(Progress::Failed);
    }
    if plan.migration.is_done() && has_arrived(plan, observed) {
        return Some(Progress::Done);
    }
    Some(Progress::Rolling)
}

fn has_failed(migration: &Migration) -> bool {
    matches!(
        migration,
        Migration::Failed { .. } | Migration::Refused { .. }
    )
}

/// Returns whether all relays have the current revision and are available.
fn has_arrived(plan: &RelayPlan<'_>, observed: &Observed) -> bool {
    are_available(plan, observed) && change(plan.desired, observed) == Change::BySpec
}

/// Returns whether all relays are of the Deployment's latest generation and available.
fn are_available(plan: &RelayPlan<'_>, observed: &Observed) -> bool {
    let deployment = observed.deployment.as_ref();
    deployment
        .is_some_and(|deployment| deployment.rolled_out() && deployment.available >= plan.replicas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::OutboxRelay,
        operator::{
            fixtures::{desired, desired_with, now},
            reconcile::{
                observe::WrittenFor,
                plan::{History, ScalingMemory, relay_plan},
            },
        },
    };

    /// The Deployment of the fixture, changed.
    fn written(change: impl FnOnce(&mut WrittenFor)) -> Observed {
        let desired = desired();
        let mut written = WrittenFor {
            revision_hash: desired.hashes.deployment,
            generation: desired.relay.identity.generation.to_string(),
            spec_hash: desired.relay.spec_hash,
        };
        change(&mut written);
        let deployment = RelayDeployment {
            written_for: Some(written),
            observed: true,
            wanted: 2,
            existing: 2,
            updated: 2,
            available: 2,
            ..RelayDeployment::default()
        };
        Observed {
            deployment: Some(deployment),
            ..Observed::default()
        }
    }

    fn edited(change: fn(&mut OutboxRelay)) -> Desired {
        desired_with(|relay| {
            change(relay);
            relay.metadata.generation = Some(4);
        })
    }

    #[test]
    fn another_revision_of_the_same_spec_is_an_upgrade() {
        assert_eq!(
            change(&desired(), &written(|_| ())),
            Change::BySpec,
            "the same form"
        );
        assert_eq!(
            change(
                &desired(),
                &written(|it| it.revision_hash = "older".to_owned())
            ),
            Change::Upgrade
        );
        assert_eq!(
            change(&desired(), &Observed::default()),
            Change::BySpec,
            "the first one"
        );
    }

    #[test]
    fn a_new_version_that_reads_the_manifest_with_other_defaults_is_an_upgrade() {
        let other_defaults = |it: &mut WrittenFor| {
            (it.revision_hash, it.spec_hash) = ("older".to_owned(), "older".to_owned());
        };
        assert_eq!(
            change(&desired(), &written(other_defaults)),
            Change::Upgrade
        );
    }

    #[test]
    fn an_edited_manifest_is_no_upgrade_but_a_new_count_leaves_it_one() {
        let older = || written(|it| it.revision_hash = "older".to_owned());
        assert_eq!(
            change(&edited(|relay| relay.spec.batch_size = 7), &older()),
            Change::BySpec
        );
        assert_eq!(
            change(&edited(|relay| relay.spec.replicas = 7), &older()),
            Change::Upgrade
        );
        assert_eq!(
            change(&edited(|relay| relay.spec.suspend = true), &older()),
            Change::Upgrade
        );
    }

    #[test]
    fn an_upgrade_is_done_when_every_relay_has_the_new_revision_and_is_available() {
        let (desired, observed) = (desired(), written(|_| ()));
        let plan = |observed: &Observed| {
            let history = History {
                paused: false,
                generation: Some(3),
                scaling: ScalingMemory::default(),
                turn: Turn::Go,
                failing_migrations: 0,
                migration: None,
            };
            RelayPlan {
                migration: Migration::Off,
                ..relay_plan(&desired, observed, &history, now())
            }
        };
        let after = |change: fn(&mut RelayDeployment)| {
            let mut observed = observed.clone();
            change(observed.deployment.as_mut().expect("there"));
            progress(&plan(&observed), &observed, WriteResult::Accepted)
        };
        assert_eq!(after(|_| ()), Some(Progress::Done));
        assert_eq!(after(|it| it.available = 1), Some(Progress::Rolling));
        assert_eq!(after(|it| it.updated = 1), Some(Progress::Rolling));
        assert_eq!(after(|it| it.written_for = None), Some(Progress::Rolling));
        assert_eq!(after(|it| it.stuck = true), Some(Progress::Failed));
        assert_eq!(
            progress(&plan(&observed), &observed, WriteResult::Refused),
            Some(Progress::Failed)
        );
        let waiting = RelayPlan {
            turn: Turn::Waiting,
            ..plan(&observed)
        };
        assert_eq!(progress(&waiting, &observed, WriteResult::Accepted), None);
    }
}
