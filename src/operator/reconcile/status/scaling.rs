//! `ScalingActive`: can the operator choose the number of relays? Also the last step. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::LastScale,
    operator::{
        reason::Reason,
        reconcile::{
            plan::{Plan, Scale},
            status::{
                ConditionInputs, Outcome, StatusInputs,
                available::{ZeroCause, zero_cause},
                conditions::{ConditionType, Finding, State},
            },
            validate::DesiredReplicas,
        },
    },
};

/// Finds condition `ScalingActive`.
pub(super) fn scaling_active(inputs: &ConditionInputs<'_>) -> Finding {
    if !matches!(inputs.relay.replicas, DesiredReplicas::Scaled(_)) {
        return off(zero_cause(&inputs.relay.replicas)
            .unwrap_or((Reason::ScalingOff, "spec.scaling is absent")));
    }
    if inputs.context.paused {
        return finding(
            State::False,
            Reason::Paused,
            "The count stays while the OutboxRelay is paused.",
        );
    }
    let Some(scaling) = &inputs.plan.scaling else {
        return finding(
            State::Unknown,
            Reason::WaitingForRelays,
            "Nothing has been decided yet.",
        );
    };
    if !inputs.applied.scaled {
        let message = "The count that was decided could not be set, and is decided again: see \
            condition Ready.";
        return finding(State::False, Reason::ApiRequestFailed, message);
    }
    let why = scaling.decision.why;
    finding(State::of(!is_held(why)), why, explanation(why))
}

/// Finds `ScalingActive` where the manifest sets the number of relays.
pub(super) fn off((reason, why): ZeroCause) -> Finding {
    finding(
        State::False,
        reason,
        &format!("{why}: the manifest says how many relays there are."),
    )
}

/// Finds `ScalingActive` while the manifest is invalid.
pub(super) fn held(reason: Reason) -> Finding {
    finding(
        State::False,
        reason,
        "The count stays until the manifest can work.",
    )
}

fn finding(state: State, reason: Reason, message: &str) -> Finding {
    Finding::new(ConditionType::ScalingActive, state, reason, message)
}

/// Returns whether the number of relays stays although another one may be needed.
fn is_held(why: Reason) -> bool {
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

/// Returns the step of this reconciliation if there was one and it was taken, else the one before.
pub(super) fn last_scale(context: &StatusInputs<'_>, outcome: &Outcome<'_>) -> Option<LastScale> {
    if let Plan::CarryOut(plan) = outcome.plan
        && let Scale::Step(step) = plan.scale
        && outcome.applied.scaled
    {
        return Some(LastScale {
            time: Time(context.now),
            from: step.from,
            to: step.to,
            reason: step.why.name(),
        });
    }
    context.previous.last_scale.clone()
}
