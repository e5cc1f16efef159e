//! `Available`: do relays run? Pure.

use crate::operator::{
    reason::{Reason, stops_publishing},
    reconcile::{
        observe::RelayDeployment,
        plan::Rollout,
        status::{
            ConditionInputs,
            conditions::{ConditionType, Finding, State},
            schema::{problems, sentence},
        },
        validate::DesiredReplicas,
    },
};

/// Why there should be no relay: a reason, and the part of the manifest that asks for it.
pub(super) type ZeroCause = (Reason, &'static str);

/// Finds condition `Available`.
pub(super) fn available(inputs: &ConditionInputs<'_>) -> Finding {
    let finding = |holds, reason, message: String| {
        Finding::new(ConditionType::Available, State::of(holds), reason, message)
    };
    let wanted = inputs.plan.replicas;
    if let Some(zero) = zero_cause(&inputs.relay.replicas) {
        return without_relays(zero, inputs.observed.relays());
    }
    match &inputs.observed.deployment {
        None if inputs.plan.rollout == Rollout::Go => finding(
            false,
            Reason::RollingOut,
            "The relays are being created.".to_owned(),
        ),
        None => finding(
            false,
            Reason::WaitingForSchema,
            "Relays start when the schema is ready; see condition SchemaReady.".to_owned(),
        ),
        Some(deployment) if deployment.available >= wanted => finding(
            true,
            Reason::AllRelaysAvailable,
            format!("{} of {wanted} relays are available.", deployment.available),
        ),
        Some(deployment) => {
            let (reason, why) = cause(inputs, deployment);
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

/// Returns why there should be no relay, if that is so.
pub(super) fn zero_cause(replicas: &DesiredReplicas) -> Option<ZeroCause> {
    match replicas {
        DesiredReplicas::Suspended => Some((Reason::Suspended, "spec.suspend is true")),
        DesiredReplicas::Fixed(0) => Some((Reason::ScaledToZero, "spec.replicas is 0")),
        DesiredReplicas::Fixed(_) | DesiredReplicas::Scaled(_) => None,
    }
}

/// Returns why there should be no relay, once none is left.
pub(super) fn zero_cause_if_none_runs(inputs: &ConditionInputs<'_>) -> Option<ZeroCause> {
    zero_cause(&inputs.relay.replicas).filter(|_| inputs.observed.relays() == 0)
}

/// Finds `Available` where no relay is requested; `left` relays have not gone yet.
pub(super) fn without_relays((reason, why): ZeroCause, left: usize) -> Finding {
    let message = match left {
        0 => format!("{why}: no relay runs and rows wait."),
        left => {
            format!("{why}. Relays that are still stopping and may publish until then: {left}.")
        }
    };
    Finding::new(ConditionType::Available, State::True, reason, message)
}

/// Returns why relays are missing: the problem that they report, else what keeps their pods from
/// running.
fn cause(inputs: &ConditionInputs<'_>, deployment: &RelayDeployment) -> (Reason, String) {
    if let Some((pod, problem)) = problems(inputs).find(|(_, problem)| stops_publishing(problem)) {
        return (
            Reason::Problem(problem.class),
            format!("Pod '{pod}': {}", sentence(&problem.message)),
        );
    }
    if let Some(why) = &deployment.refusal {
        return (
            Reason::PodsRefused,
            format!(
                "The cluster refuses to create their pods: {} Fix the cause; the cluster retries \
                 automatically.",
                sentence(why)
            ),
        );
    }
    if let Some((pod, why)) = inputs
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
    if deployment.rolling && !deployment.stuck {
        return (Reason::RollingOut, "The others are starting.".to_owned());
    }
    let selector = inputs.context.identity.relay_selector_text();
    (
        Reason::NoRelayAvailable,
        format!(
            "The others are not ready. If this persists, run 'kubectl logs -l {selector}' to \
                 find the cause."
        ),
    )
}
