//! `ScalingActive`: can the operator choose the count? And the last step that it took. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Facts, Scene, Verdict,
    available::none_wanted,
    conditions::{Finding, State},
};
use crate::{
    api::LastScale,
    operator::{plan::Scale, reason::Reason, validate::Count},
};

pub(super) fn scaling_active(scene: &Scene<'_>) -> Finding {
    let finding = |state, reason, message: &str| Finding::new("ScalingActive", state, reason, message);
    if !matches!(scene.relay.count, Count::Scaled(_)) {
        let (reason, why) = none_wanted(scene).unwrap_or((Reason::ScalingOff, "spec.scaling is absent"));
        return finding(State::False, reason, &format!("{why}: the manifest says how many relays there are."));
    }
    if scene.facts.paused {
        return finding(State::False, Reason::Paused, "The count stays while the OutboxRelay is paused.");
    }
    let Some(scaling) = &scene.plan.scaling else {
        return finding(State::Unknown, Reason::WaitingForRelays, "Nothing has been decided yet.");
    };
    let why = scaling.decision.why;
    finding(State::of(!holds_blindly(why)), why, explanation(why))
}

/// More may be needed, or less, and it is not done.
fn holds_blindly(why: Reason) -> bool {
    matches!(why, Reason::ReportsIncomplete | Reason::BreakerOpen | Reason::ThroughputFlat)
}

fn explanation(why: Reason) -> &'static str {
    match why {
        Reason::ReportsIncomplete => "Some lanes have no relay that reports what waits in them: the count stays.",
        Reason::BreakerOpen => "Kafka is away: more relays would not help, the count stays or falls.",
        Reason::ThroughputFlat => {
            "The last step up did not raise throughput: something else is the limit, Kafka or the database, so none follows."
        }
        Reason::AtMaximum => "More relays are wanted than scaling.maxReplicas allows.",
        Reason::BacklogHigh => "More rows wait than scaling.targetBacklogPerReplica: relays are added.",
        Reason::OldestHigh => "The oldest row waits longer than scaling.targetOldestAge: relays are added.",
        Reason::WaitingForRelays => "Relays that were added must come and be measured before more are.",
        Reason::LoadLow => "Fewer relays were enough for the whole of scaling.scaleDownStabilization: some are taken away.",
        Reason::Stabilizing => "Fewer relays are enough; they go when that was so for the whole of scaling.scaleDownStabilization.",
        Reason::BoundsChanged => "The count is brought between scaling.minReplicas and scaling.maxReplicas.",
        _ => "As many relays as are needed.",
    }
}

/// The step of this pass if there was one and it was taken, else the one before.
pub(super) fn last_scale(facts: &Facts<'_>, verdict: &Verdict<'_>) -> Option<LastScale> {
    match verdict {
        Verdict::Planned { plan, applied: Ok(_), .. } => match plan.scale {
            Scale::Step(step) => Some(LastScale { time: Time(facts.now), from: step.from, to: step.to, reason: step.why.name() }),
            _ => facts.previous.last_scale.clone(),
        },
        _ => facts.previous.last_scale.clone(),
    }
}
