//! What a relay's new form comes from, its manifest or a new version of the operator, and how far
//! its rollout is. Pure.

use super::{Migration, Plan};
use crate::operator::{
    build::form,
    observe::{Observed, RelayDeployment},
    upgrades::{Change, Progress, Turn},
    validate::ValidatedRelay,
};

/// A Deployment says which generation it was last written for, and what that asked for. Both must
/// be others for a change to be a user's: a new count is a new generation of the same wishes, and a
/// version that knows more fields reads the same generation with other defaults.
pub(crate) fn change(relay: &ValidatedRelay, observed: &Observed) -> Change {
    let Some(deployment) = &observed.deployment else {
        return Change::Own;
    };
    match &deployment.written_for {
        _ if is_current(relay, deployment) => Change::Own,
        Some(written)
            if written.generation != relay.identity.generation.to_string()
                && written.wishes != relay.wishes =>
        {
            Change::Own
        }
        _ => Change::Upgrade,
    }
}

/// It was last written in the form that the relay has now.
pub(super) fn is_current(relay: &ValidatedRelay, deployment: &RelayDeployment) -> bool {
    deployment
        .written_for
        .as_ref()
        .is_some_and(|written| written.form == form(relay))
}

/// Of a relay that has its turn; `observed` with what was just written, `refused`: something that
/// is to be written cannot be.
pub(crate) fn progress(
    relay: &ValidatedRelay,
    plan: &Plan,
    observed: &Observed,
    refused: bool,
) -> Option<Progress> {
    if plan.turn != Turn::Go {
        return None;
    }
    let deployment = observed.deployment.as_ref();
    let failed = matches!(
        plan.migration,
        Migration::Failed { .. } | Migration::Refused { .. }
    );
    if refused || failed || deployment.is_some_and(|deployment| deployment.stuck) {
        return Some(Progress::Failed);
    }
    let arrived = deployment
        .is_some_and(|deployment| deployment.rolled_out() && deployment.available >= plan.replicas);
    let done = arrived && plan.migration.is_done() && change(relay, observed) == Change::Own;
    Some(if done {
        Progress::Done
    } else {
        Progress::Moving
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::OutboxRelay,
        operator::{
            fixtures::{validated, validated_with},
            observe::WrittenFor,
        },
    };

    /// The Deployment of the fixture, changed.
    fn written(change: impl FnOnce(&mut WrittenFor)) -> Observed {
        let relay = validated();
        let generation = relay.identity.generation.to_string();
        let mut written = WrittenFor {
            form: form(&relay),
            generation,
            wishes: relay.wishes.clone(),
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

    fn edited(change: fn(&mut OutboxRelay)) -> ValidatedRelay {
        validated_with(|relay| {
            change(relay);
            relay.metadata.generation = Some(4);
        })
    }

    #[test]
    fn another_form_of_the_same_wishes_is_an_upgrade() {
        assert_eq!(
            change(&validated(), &written(|_| ())),
            Change::Own,
            "the same form"
        );
        assert_eq!(
            change(&validated(), &written(|it| it.form = "older".to_owned())),
            Change::Upgrade
        );
        assert_eq!(
            change(&validated(), &Observed::default()),
            Change::Own,
            "the first one"
        );
    }

    #[test]
    fn a_new_version_that_reads_the_manifest_with_other_defaults_is_an_upgrade() {
        let other_defaults =
            |it: &mut WrittenFor| (it.form, it.wishes) = ("older".to_owned(), "older".to_owned());
        assert_eq!(
            change(&validated(), &written(other_defaults)),
            Change::Upgrade
        );
    }

    #[test]
    fn an_edited_manifest_is_no_upgrade_but_a_new_count_leaves_it_one() {
        let older = || written(|it| it.form = "older".to_owned());
        assert_eq!(
            change(&edited(|relay| relay.spec.batch_size = 7), &older()),
            Change::Own
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
    fn an_upgrade_is_done_when_every_relay_has_the_new_form_and_is_available() {
        let (relay, observed) = (validated(), written(|_| ()));
        let plan = |observed: &Observed| {
            let before = super::super::Before {
                generation: Some(3),
                scaling: &super::super::Remembered::default(),
                turn: Turn::Go,
            };
            let plan =
                super::super::plan(&relay, observed, &before, crate::operator::fixtures::now());
            Plan {
                migration: Migration::Off,
                ..plan
            }
        };
        let look = |change: fn(&mut RelayDeployment)| {
            let mut observed = observed.clone();
            change(observed.deployment.as_mut().expect("there"));
            progress(&relay, &plan(&observed), &observed, false)
        };
        assert_eq!(look(|_| ()), Some(Progress::Done));
        assert_eq!(look(|it| it.available = 1), Some(Progress::Moving));
        assert_eq!(look(|it| it.updated = 1), Some(Progress::Moving));
        assert_eq!(look(|it| it.written_for = None), Some(Progress::Moving));
        assert_eq!(look(|it| it.stuck = true), Some(Progress::Failed));
        assert_eq!(
            progress(&relay, &plan(&observed), &observed, true),
            Some(Progress::Failed)
        );
        let waiting = Plan {
            turn: Turn::Waiting,
            ..plan(&observed)
        };
        assert_eq!(progress(&relay, &waiting, &observed, false), None);
    }
}
