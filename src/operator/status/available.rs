//! `Available`: do relays run? Pure.

use super::{
    Scene,
    conditions::{Finding, State},
    schema::{problems, sentence},
};
use crate::operator::{
    observe::RelayDeployment,
    plan::Rollout,
    reason::{Reason, stops_publishing},
    validate::Count,
};

/// Why no relay is wished for.
pub(super) type Wish = (Reason, &'static str);

pub(super) fn available(scene: &Scene<'_>) -> Finding {
    let finding = |holds, reason, message: String| {
        Finding::new("Available", State::of(holds), reason, message)
    };
    let wanted = scene.plan.replicas;
    if let Some(wish) = none_wanted(&scene.relay.count) {
        return without_relays(wish, scene.observed.relays());
    }
    match &scene.observed.deployment {
        None if scene.plan.rollout == Rollout::Go => finding(
            false,
            Reason::RollingOut,
            "The relays are being created.".to_owned(),
        ),
        None => finding(
            false,
            Reason::WaitingForSchema,
            "No relay runs before the schema is ready; see condition SchemaReady.".to_owned(),
        ),
        Some(deployment) if deployment.available >= wanted => finding(
            true,
            Reason::AllRelaysAvailable,
            format!("{} of {wanted} relays are available.", deployment.available),
        ),
        Some(deployment) => {
            let (reason, why) = cause(scene, deployment);
            let reason = if deployment.available > 0 {
                Reason::SomeRelaysAvailable
            } else {
                reason
            };
            finding(
                deployment.available > 0,
                reason,
                format!(
                    "{} of {wanted} relays are available. {why}",
                    deployment.available
                ),
            )
        }
    }
}

/// Why there shall be no relay, where that is so.
pub(super) fn none_wanted(count: &Count) -> Option<Wish> {
    match count {
        Count::Suspended => Some((Reason::Suspended, "spec.suspend is true")),
        Count::Fixed(0) => Some((Reason::ScaledToZero, "spec.replicas is 0")),
        Count::Fixed(_) | Count::Scaled(_) => None,
    }
}

/// The same, once none is left.
pub(super) fn none_runs(scene: &Scene<'_>) -> Option<Wish> {
    none_wanted(&scene.relay.count).filter(|_| scene.observed.relays() == 0)
}

/// As it was wished for, with so many that have not gone yet.
pub(super) fn without_relays((reason, why): Wish, left: usize) -> Finding {
    let message = match left {
        0 => format!("{why}: no relay runs, rows wait."),
        left => {
            format!("{why}; relays that have not gone yet, and may publish until then: {left}.")
        }
    };
    Finding::new("Available", State::True, reason, message)
}

/// Why relays are missing: what they say themselves, else what keeps their pods from running.
fn cause(scene: &Scene<'_>, deployment: &RelayDeployment) -> (Reason, String) {
    if let Some((pod, problem)) = problems(scene).find(|(_, problem)| stops_publishing(problem)) {
        return (
            Reason::Problem(problem.class),
            format!("Pod '{pod}': {}", sentence(&problem.message)),
        );
    }
    if let Some(why) = &deployment.refusal {
        return (
            Reason::PodsRefused,
            format!(
                "The cluster refuses their pods: {} Remove the cause; it keeps trying.",
                sentence(why)
            ),
        );
    }
    if let Some((pod, why)) = scene
        .observed
        .pods
        .iter()
        .find_map(|pod| Some((&pod.name, pod.waiting.as_ref()?)))
    {
        return (
            Reason::PodsPending,
            format!("Pod '{pod}' does not run: {}", sentence(why)),
        );
    }
    if deployment.moving && !deployment.stuck {
        return (Reason::RollingOut, "The others are starting.".to_owned());
    }
    let selector = scene.facts.identity.relay_selector_text();
    (
        Reason::NoRelayAvailable,
        format!("The others are not ready; if that lasts, look at 'kubectl logs -l {selector}'."),
    )
}
