//! `Available`: do relays run? Pure.

use super::{
    Facts,
    conditions::{Finding, State},
    schema::{problems, sentence},
};
use crate::operator::{
    observe::RelayDeployment,
    plan::{Plan, Rollout},
    reason::{Reason, stops_publishing},
    validate::ValidatedRelay,
};

pub(super) fn available(facts: &Facts<'_>, relay: &ValidatedRelay, plan: &Plan) -> Finding {
    let finding = |holds, reason, message: String| Finding::new("Available", State::of(holds), reason, message);
    let wanted = relay.replicas;
    if wanted == 0 {
        let message = "spec.replicas is 0: no relay runs, rows wait. Set it to at least 1 to publish them.";
        return finding(true, Reason::ScaledToZero, message.to_owned());
    }
    match &facts.observed.deployment {
        None if plan.rollout == Rollout::Go => finding(false, Reason::RollingOut, "The relays are being created.".to_owned()),
        None => finding(false, Reason::WaitingForSchema, "No relay runs before the schema is ready; see condition SchemaReady.".to_owned()),
        Some(deployment) if deployment.available >= wanted => {
            finding(true, Reason::AllRelaysAvailable, format!("{} of {wanted} relays are available.", deployment.available))
        }
        Some(deployment) => {
            let (reason, why) = cause(facts, deployment);
            let reason = if deployment.available > 0 { Reason::SomeRelaysAvailable } else { reason };
            finding(deployment.available > 0, reason, format!("{} of {wanted} relays are available. {why}", deployment.available))
        }
    }
}

/// Why relays are missing: what they say themselves, else what keeps their pods from running.
fn cause(facts: &Facts<'_>, deployment: &RelayDeployment) -> (Reason, String) {
    if let Some((pod, problem)) = problems(facts).find(|(_, problem)| stops_publishing(problem.class)) {
        return (Reason::Problem(problem.class), format!("Pod '{pod}': {}", sentence(&problem.message)));
    }
    if let Some(why) = &deployment.refusal {
        return (Reason::PodsRefused, format!("The cluster refuses their pods: {} Remove the cause; it keeps trying.", sentence(why)));
    }
    if let Some((pod, why)) = facts.observed.pods.iter().find_map(|pod| Some((&pod.name, pod.waiting.as_ref()?))) {
        return (Reason::PodsPending, format!("Pod '{pod}' does not run: {}", sentence(why)));
    }
    let selector = facts.identity.relay_selector_text();
    (Reason::NoRelayAvailable, format!("The others are not ready; if that lasts, look at 'kubectl logs -l {selector}'."))
}
