//! `Ready`, `Reconciling` and `Stalled`: the sum of the others. Pure.

use super::{
    Scene,
    available::{available, none_wanted},
    conditions::{Finding, State, find},
    publishing::publishing,
    reports::reports_available,
    scaling::scaling_active,
    schema::{schema_ready, secrets_resolved},
};
use crate::operator::{
    apply::ApplyError,
    call::CallError,
    plan::{Failure, Migration, Plan},
    reason::{Reason, needs_a_person},
    upgrades::Turn,
};

/// The three that say the same in different words.
struct Summary {
    ready: Finding,
    reconciling: Finding,
    stalled: Finding,
}

impl Summary {
    /// Nothing goes on before a person changes something.
    fn stalled(reason: Reason, message: &str) -> Self {
        Self {
            ready: Finding::new("Ready", State::False, reason, message),
            reconciling: Finding::new("Reconciling", State::False, reason, message),
            stalled: Finding::new("Stalled", State::True, reason, message),
        }
    }

    fn reconciling(ready: Finding) -> Self {
        Self {
            reconciling: ready.as_type("Reconciling", State::True),
            stalled: not_stalled(),
            ready,
        }
    }

    fn settled(ready: Finding) -> Self {
        let settled = Finding::new(
            "Reconciling",
            State::False,
            Reason::Settled,
            "Everything is as the manifest wants it.",
        );
        Self {
            reconciling: settled,
            stalled: not_stalled(),
            ready,
        }
    }
}

fn not_stalled() -> Finding {
    Finding::new(
        "Stalled",
        State::False,
        Reason::NotStalled,
        "Nothing here waits for a person.",
    )
}

/// There is no more to be said of it.
pub(super) fn stalled(reason: Reason, message: &str) -> Vec<Finding> {
    let Summary {
        ready,
        reconciling,
        stalled,
    } = Summary::stalled(reason, message);
    vec![ready, reconciling, stalled]
}

pub(super) fn not_understood(error: &str) -> Vec<Finding> {
    let message = format!(
        "The manifest is not of a form that this version of the operator knows: {error}. Apply it \
         again with the CRD of this version; relays that run go on."
    );
    stalled(Reason::NotUnderstood, &message)
}

pub(super) fn planned(scene: &Scene<'_>) -> Vec<Finding> {
    let schema = schema_ready(scene);
    let available = available(scene);
    let publishing = publishing(scene);
    let summary = match &scene.applied.obstacle {
        Some(error) => obstacle(error),
        None => summary(
            scene,
            &Parts {
                schema: &schema,
                available: &available,
                publishing: &publishing,
            },
        ),
    };
    let secrets = secrets_resolved(scene);
    let (reports, scaling) = (reports_available(scene), scaling_active(scene));
    vec![
        summary.ready,
        summary.reconciling,
        summary.stalled,
        schema,
        available,
        publishing,
        secrets,
        reports,
        scaling,
    ]
}

/// What the sum is made of.
struct Parts<'a> {
    schema: &'a Finding,
    available: &'a Finding,
    publishing: &'a Finding,
}

fn summary(scene: &Scene<'_>, parts: &Parts<'_>) -> Summary {
    let Parts {
        schema, available, ..
    } = parts;
    if !schema.holds() {
        return unready_schema(schema, scene.plan);
    }
    if !available.holds() {
        return Summary::reconciling(available.as_type("Ready", State::False));
    }
    let deployment = scene.observed.deployment.as_ref();
    let rolled_out = deployment.is_some_and(|deployment| deployment.rolled_out());
    if !rolled_out {
        let stuck = deployment.is_some_and(|deployment| deployment.stuck);
        return rolling_out(scene, stuck);
    }
    let ready = ready(scene, parts);
    let some_are_to_go = none_wanted(&scene.relay.count).is_some() && scene.observed.relays() > 0;
    if some_are_to_go || available.reason == Reason::SomeRelaysAvailable.name() {
        return Summary {
            reconciling: available.as_type("Reconciling", State::True),
            ..Summary::settled(ready)
        };
    }
    Summary::settled(ready)
}

fn unready_schema(schema: &Finding, plan: &Plan) -> Summary {
    let ready = schema.as_type("Ready", State::False);
    match &plan.migration {
        Migration::Failed {
            why: Failure::Reported(problem),
            ..
        } if needs_a_person(problem.class) => {
            Summary::stalled(Reason::Problem(problem.class), &schema.message)
        }
        _ => Summary::reconciling(ready),
    }
}

/// A relay that was ready for this very generation stays so while its pods are replaced; a new spec
/// is ready when it has arrived everywhere.
fn rolling_out(scene: &Scene<'_>, stuck: bool) -> Summary {
    let generation = Some(scene.facts.identity.generation);
    let was_ready = find(&scene.facts.previous.conditions, "Ready").is_some_and(|condition| {
        condition.status == State::True.text() && condition.observed_generation == generation
    });
    let message = if stuck {
        let name = scene.facts.identity.relay_name();
        format!(
            "New relays have not become ready for ten minutes; the old ones go on. Look at \
             'kubectl describe deployment {name}'."
        )
    } else {
        "Relays are being replaced; the old ones go on until the new ones are ready.".to_owned()
    };
    Summary::reconciling(Finding::new(
        "Ready",
        State::of(was_ready),
        Reason::RollingOut,
        message,
    ))
}

/// True; where rows do not flow or relays are missing, the reason says so.
fn ready(
    scene: &Scene<'_>,
    Parts {
        available,
        publishing,
        ..
    }: &Parts<'_>,
) -> Finding {
    let all = available.reason == Reason::AllRelaysAvailable.name();
    if publishing.state == State::False {
        publishing.as_type("Ready", State::True)
    } else if let Some((reason, message)) = held(scene.plan.turn)
        && all
    {
        Finding::new("Ready", State::True, reason, message)
    } else if all && scene.applied.no_pod_monitors {
        let message = "Relays run, but monitoring.podMonitor is true and this cluster has no kind \
            PodMonitor: install the Prometheus operator, or set it to false.";
        Finding::new("Ready", State::True, Reason::PodMonitorUnavailable, message)
    } else if all {
        Finding::new(
            "Ready",
            State::True,
            Reason::Ready,
            "The schema is ready and relays run.",
        )
    } else {
        available.as_type("Ready", State::True)
    }
}

fn held(turn: Turn) -> Option<(Reason, &'static str)> {
    match turn {
        Turn::Go => None,
        Turn::Waiting => Some((
            Reason::UpgradeQueued,
            "Relays run in the form of the version before; their upgrade waits for others to end.",
        )),
        Turn::Stopped => {
            let message = "Relays run in the form of the version before: three upgrades in a row \
                failed, so no further one starts. Look at OutboxRelays that are not Ready; when \
                one of them is, the others follow.";
            Some((Reason::UpgradesStopped, message))
        }
    }
}

fn obstacle(error: &ApplyError) -> Summary {
    match error {
        ApplyError::NameConflict(objects) => Summary::stalled(
            Reason::NameConflict,
            &format!(
                "{objects}: the name is taken by an object that is not ours. Remove or rename it; \
                 until then only the number of relays that run is changed."
            ),
        ),
        ApplyError::FormerChildren(objects) => {
            let message = format!(
                "{objects}: left by a deleted OutboxRelay of this name. Goes on when the garbage \
                 collector has removed it."
            );
            Summary::reconciling(Finding::new(
                "Ready",
                State::False,
                Reason::FormerChildren,
                message,
            ))
        }
        error => match error.call().and_then(CallError::invalid_object) {
            Some(answer) => Summary::stalled(
                Reason::ChildRefused,
                &format!("{error}: {answer} Change what the manifest says there."),
            ),
            None => Summary::reconciling(Finding::new(
                "Ready",
                State::False,
                Reason::ApiRequestFailed,
                tried_again(error),
            )),
        },
    }
}

pub(super) fn tried_again(error: &ApplyError) -> String {
    format!(
        "{error}: {}. It is tried again.",
        error.call().map(ToString::to_string).unwrap_or_default()
    )
}
