//! `ScalingActive`: can the operator choose the count? And the last step that it took. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Facts, Scene, Verdict,
    available::{Wish, none_wanted},
    conditions::{Finding, State},
};
use crate::{
    api::LastScale,
    operator::{
        apply::Applied,
        plan::{Plan, Scale},
        reason::Reason,
        validate::Count,
    },
};

pub(super) fn scaling_active(scene: &Scene<'_>) -> Finding {
    if !matches!(scene.relay.count, Count::Scaled(_)) {
        return off(none_wanted(&scene.relay.count)
            .unwrap_or((Reason::ScalingOff, "spec.scaling is absent")));
    }
    if scene.facts.paused {
        return finding(
            State::False,
            Reason::Paused,
            "The count stays while the OutboxRelay is paused.",
        );
    }
    let Some(scaling) = &scene.plan.scaling else {
        return finding(
            State::Unknown,
            Reason::WaitingForRelays,
            "Nothing has been decided yet.",
        );
    };
    if !scene.applied.scaled {
        let message = "The count that was decided could not be set, and is decided again: see \
            condition Ready.";
        return finding(State::False, Reason::ApiRequestFailed, message);
    }
    let why = scaling.decision.why;
    finding(State::of(!holds_blindly(why)), why, explanation(why))
}

pub(super) fn off((reason, why): Wish) -> Finding {
    finding(
        State::False,
        reason,
        &format!("{why}: the manifest says how many relays there are."),
    )
}

/// While the manifest cannot work.
pub(super) fn held(reason: Reason) -> Finding {
    finding(
        State::False,
        reason,
        "The count stays until the manifest can work.",
    )
}

fn finding(state: State, reason: Reason, message: &str) -> Finding {
    Finding::new("ScalingActive", state, reason, message)
}

/// More may be needed, or less, and it is not done.
fn holds_blindly(why: Reason) -> bool {
    matches!(
        why,
        Reason::ReportsIncomplete | Reason::BreakerOpen | Reason::ThroughputFlat
    )
}

fn explanation(why: Reason) -> &'static str {
    match why {
        Reason::ReportsIncomplete => {
            "Some lanes have no relay that reports what waits in them: the count stays."
        }
        Reason::BreakerOpen => {
            "Kafka is away: more relays would not help, the count stays or falls."
        }
        Reason::ThroughputFlat => {
            "The last step up did not raise throughput: something else is the limit, Kafka or the \
             database, so none follows."
        }
        Reason::AtMaximum => "More relays are wanted than scaling.maxReplicas allows.",
        Reason::BacklogHigh => {
            "More rows wait than scaling.targetBacklogPerReplica: relays are added."
        }
        Reason::OldestHigh => {
            "The oldest row waits longer than scaling.targetOldestAge: relays are added."
        }
        Reason::WaitingForRelays => {
            "Relays that were added must come and be measured before more are."
        }
        Reason::LoadLow => {
            "Fewer relays were enough for the whole of scaling.scaleDownStabilization: some are \
             taken away."
        }
        Reason::Stabilizing => {
            "Fewer relays are enough; they go when that was so for the whole of \
             scaling.scaleDownStabilization."
        }
        Reason::BoundsChanged => {
            "The count is brought between scaling.minReplicas and scaling.maxReplicas."
        }
        _ => "As many relays as are needed.",
    }
}

/// The step of this pass if there was one and it was taken, else the one before.
pub(super) fn last_scale(facts: &Facts<'_>, verdict: &Verdict<'_>) -> Option<LastScale> {
    match verdict {
        Verdict::Planned {
            plan: Plan {
                scale: Scale::Step(step),
                ..
            },
            applied: Applied { scaled: true, .. },
            ..
        } => Some(LastScale {
            time: Time(facts.now),
            from: step.from,
            to: step.to,
            reason: step.why.name(),
        }),
        _ => facts.previous.last_scale.clone(),
    }
}
