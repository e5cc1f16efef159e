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

/// Why relays are missing: a reason, and a message.
pub(super) type Cause = (Reason, String);

/// Finds condition `Available`.
pub(super) fn available(inputs: &ConditionInputs<'_>) -> Finding {
    if let Some(zero) = zero_cause(&inputs.relay.replicas) {
        return without_relays(zero, inputs.observed.relays());
    }
    match &inputs.observed.deployment {
        None => without_deployment(inputs.plan.rollout),
        Some(deployment) if deployment.available >= inputs.plan.replicas => finding(
            State::True,
            Reason::AllRelaysAvailable,
            count(inputs, deployment),
        ),
        Some(deployment) => relays_are_missing(inputs, deployment),
    }
}

fn finding(state: State, reason: Reason, message: impl Into<String>) -> Finding {
    Finding::new(ConditionType::Available, state, reason, message)
}

fn without_deployment(rollout: Rollout) -> Finding {
    match rollout {
        Rollout::Go => finding(
            State::False,
            Reason::RollingOut,
            "The relays are being created.",
        ),
        Rollout::WaitForSchema => finding(
            State::False,
            Reason::WaitingForSchema,
            "Relays start when the schema is ready; see condition SchemaReady.",
        ),
    }
}

/// Finds `Available` while there are fewer relays than planned. One relay is enough to publish.
fn relays_are_missing(inputs: &ConditionInputs<'_>, deployment: &RelayDeployment) -> Finding {
    let (reason, cause) = cause(inputs, deployment);
    let message = format!("{} {cause}", count(inputs, deployment));
    if deployment.available > 0 {
        finding(State::True, Reason::SomeRelaysAvailable, message)
    } else {
        finding(State::False, reason, message)
    }
}

fn count(inputs: &ConditionInputs<'_>, deployment: &RelayDeployment) -> String {
    let (available, planned) = (deployment.available, inputs.plan.replicas);
    format!("{available} of {planned} relays are available.")
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
pub(super) fn without_relays((reason, cause): ZeroCause, left: usize) -> Finding {
    let message = match left {
        0 => format!("{cause}: no relay runs and rows wait."),
        left => {
            format!("{cause}. Relays that are still stopping and may publish until then: {left}.")
        }
    };
    finding(State::True, reason, message)
}

/// Returns why relays are missing: the problem that they report, else what keeps their pods from
/// running.
fn cause(inputs: &ConditionInputs<'_>, deployment: &RelayDeployment) -> Cause {
    reported_problem(inputs)
        .or_else(|| pods_held_up(inputs))
        .unwrap_or_else(|| missing_without_cause(inputs, deployment))
}

/// Returns what keeps pods of the relays from running, if the cluster reports that: none can be
/// created, or one waits for a node, an image or its next restart.
pub(super) fn pods_held_up(inputs: &ConditionInputs<'_>) -> Option<Cause> {
    let deployment = inputs.observed.deployment.as_ref();
    deployment
        .and_then(refused_pods)
        .or_else(|| pending_pod(inputs))
}

fn reported_problem(inputs: &ConditionInputs<'_>) -> Option<Cause> {
    let (pod, problem) = problems(inputs).find(|(_, problem)| stops_publishing(problem))?;
    let message = format!("Pod '{pod}': {}", sentence(&problem.message));
    Some((Reason::Problem(problem.class), message))
}

fn refused_pods(deployment: &RelayDeployment) -> Option<Cause> {
    let refusal = sentence(deployment.refusal.as_ref()?);
    let message = format!(
        "The cluster refuses to create their pods: {refusal} Fix the cause; the cluster retries \
         automatically."
    );
    Some((Reason::PodsRefused, message))
}

fn pending_pod(inputs: &ConditionInputs<'_>) -> Option<Cause> {
    let mut pods = inputs.observed.pods.iter();
    let (pod, waiting) = pods.find_map(|pod| Some((&pod.name, pod.waiting.as_ref()?)))?;
    let message = format!("Pod '{pod}' does not run: {}", sentence(waiting));
    Some((Reason::PodsPending, message))
}

fn missing_without_cause(inputs: &ConditionInputs<'_>, deployment: &RelayDeployment) -> Cause {
    if deployment.rolling && !deployment.stuck {
        return (Reason::RollingOut, "The others are starting.".to_owned());
    }
    let selector = inputs.context.identity.relay_selector_text();
    let message = format!(
        "The others are not ready. If this persists, run 'kubectl logs -l {selector}' to find the \
         cause."
    );
    (Reason::NoRelayAvailable, message)
}
