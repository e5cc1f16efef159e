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
            "The number of relays does not change while the OutboxRelay is paused.",
        );
    }
    let Some(scaling) = &inputs.plan.scaling else {
        return finding(
            State::Unknown,
            Reason::WaitingForRelays,
            "No scaling decision has been made yet.",
        );
    };
    if !inputs.applied.scaled {
        let message = "The operator could not set the number of relays and will decide again; \
                       see condition Ready.";
        return finding(State::False, Reason::ApiRequestFailed, message);
    }
    decided(scaling.decision.reason)
}

fn decided(reason: Reason) -> Finding {
    let state = if is_held(reason) {
        State::False
    } else {
        State::True
    };
    finding(state, reason, explanation(reason))
}

/// Finds `ScalingActive` where the manifest sets the number of relays.
pub(super) fn off((reason, cause): ZeroCause) -> Finding {
    finding(
        State::False,
        reason,
        &format!("{cause}: the manifest sets the number of relays."),
    )
}

/// Finds `ScalingActive` while the manifest is invalid.
pub(super) fn held(reason: Reason) -> Finding {
    finding(
        State::False,
        reason,
        "The number of relays does not change until the manifest is corrected.",
    )
}

fn finding(state: State, reason: Reason, message: &str) -> Finding {
    Finding::new(ConditionType::ScalingActive, state, reason, message)
}

/// Returns whether the number of relays stays although another one may be needed.
fn is_held(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ReportsIncomplete | Reason::BreakerOpen | Reason::ThroughputFlat
    )
}

fn explanation(reason: Reason) -> &'static str {
    match reason {
        Reason::ReportsIncomplete => {
            "Some lanes have no relay that reports their backlog, so the number of relays does \
             not change."
        }
        Reason::BreakerOpen => {
            "Kafka is unavailable: more relays would not help, so none is added."
        }
        Reason::ThroughputFlat => {
            "The last relays that were added did not raise throughput, so none is added: Kafka \
             or the database is the limit."
        }
        Reason::AtMaximum => "The load needs more relays than spec.scaling.maxReplicas allows.",
        Reason::BacklogHigh => {
            "More rows wait than spec.scaling.targetBacklogPerReplica, so relays are added."
        }
        Reason::OldestHigh => {
            "The oldest row waits longer than spec.scaling.targetOldestAge, so relays are added."
        }
        Reason::WaitingForRelays => {
            "More relays are added only after the last ones have started and their throughput is \
             known."
        }
        Reason::LoadLow => {
            "Fewer relays were sufficient during spec.scaling.scaleDownStabilization, so relays \
             are removed."
        }
        Reason::Stabilizing => {
            "Fewer relays are sufficient. They are removed when that is so for \
             spec.scaling.scaleDownStabilization."
        }
        Reason::BoundsChanged => {
            "The number of relays is changed to be within spec.scaling.minReplicas and \
             spec.scaling.maxReplicas."
        }
        _ => "The number of relays matches the load.",
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
            reason: step.reason.name(),
        });
    }
    context.previous.last_scale.clone()
}
