//! `Ready`, `Reconciling` and `Stalled`: the summary of the other conditions. Pure.

use crate::operator::{
    call::CallError,
    reason::{Reason, needs_a_person},
    reconcile::{
        apply::ApplyError,
        observe::RelayDeployment,
        plan::{Failure, Migration},
        status::{
            ConditionInputs,
            available::{Cause, available, pods_held_up, zero_cause},
            conditions::{ConditionType, Finding, State},
            publishing::publishing,
            reports_current::reports_available,
            scaling::scaling_active,
            schema::{schema_ready, secrets_resolved},
            secret_names::SecretNames,
        },
        upgrade_queue::Turn,
    },
};

/// The three conditions that summarise the others.
struct ReadySet {
    ready: Finding,
    reconciling: Finding,
    stalled: Finding,
}

impl ReadySet {
    /// Returns the set of a relay that makes no progress until a person changes something.
    fn stalled(reason: Reason, message: &str) -> Self {
        Self {
            ready: ready_as(State::False, reason, message),
            reconciling: Finding::new(ConditionType::Reconciling, State::False, reason, message),
            stalled: Finding::new(ConditionType::Stalled, State::True, reason, message),
        }
    }

    fn reconciling(ready: Finding) -> Self {
        Self {
            reconciling: ready.as_type(ConditionType::Reconciling, State::True),
            stalled: not_stalled(),
            ready,
        }
    }

    fn settled(ready: Finding) -> Self {
        let settled = Finding::new(
            ConditionType::Reconciling,
            State::False,
            Reason::Settled,
            "All children match the manifest.",
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
        ConditionType::Stalled,
        State::False,
        Reason::NotStalled,
        "No user action required.",
    )
}

/// Returns the findings of a relay that makes no progress until a person changes something.
pub(super) fn stalled(reason: Reason, message: &str) -> Vec<Finding> {
    let ReadySet {
        ready,
        reconciling,
        stalled,
    } = ReadySet::stalled(reason, message);
    vec![ready, reconciling, stalled]
}

/// Finds the conditions of a manifest that this version cannot read.
pub(super) fn unreadable_manifest(error: &str) -> Vec<Finding> {
    let message = format!(
        "This version of the operator cannot read the manifest: {error}. Install the CRD of this \
         version, then apply the manifest again. Running relays continue."
    );
    stalled(Reason::NotUnderstood, &message)
}

/// Finds the conditions of a valid manifest.
pub(super) fn planned(inputs: &ConditionInputs<'_>) -> Vec<Finding> {
    let parts = Components {
        schema: schema_ready(inputs),
        available: available(inputs),
        publishing: publishing(inputs),
        secrets: secrets_resolved(inputs),
    };
    let ready_set = match &inputs.applied.error {
        Some(error) => not_applied(error),
        None => ready_set(inputs, &parts),
    };
    let findings = vec![
        ready_set.ready,
        ready_set.reconciling,
        ready_set.stalled,
        parts.schema,
        parts.available,
        parts.publishing,
        parts.secrets,
        reports_available(inputs),
        scaling_active(inputs),
    ];
    let secrets = SecretNames::of(inputs);
    findings
        .into_iter()
        .map(|finding| secrets.inserted(finding))
        .collect()
}

/// Findings that the summary depends on.
struct Components {
    schema: Finding,
    available: Finding,
    publishing: Finding,
    secrets: Finding,
}

fn ready_set(inputs: &ConditionInputs<'_>, parts: &Components) -> ReadySet {
    let Components {
        schema, available, ..
    } = parts;
    if !schema.holds() {
        return unready_schema(schema, inputs);
    }
    if !available.holds() {
        return ReadySet::reconciling(available.as_type(ConditionType::Ready, State::False));
    }
    if !is_rolled_out(inputs) {
        return rolling_out(inputs);
    }
    let settled = ReadySet::settled(ready(inputs, parts));
    if relays_are_left(inputs) || available.reason == Reason::SomeRelaysAvailable {
        return ReadySet {
            reconciling: available.as_type(ConditionType::Reconciling, State::True),
            ..settled
        };
    }
    settled
}

fn is_rolled_out(inputs: &ConditionInputs<'_>) -> bool {
    let deployment = inputs.observed.deployment.as_ref();
    deployment.is_some_and(RelayDeployment::rolled_out)
}

/// Returns whether relays still stop although none is requested.
fn relays_are_left(inputs: &ConditionInputs<'_>) -> bool {
    zero_cause(&inputs.relay.replicas).is_some() && inputs.observed.relays() > 0
}

fn unready_schema(schema: &Finding, inputs: &ConditionInputs<'_>) -> ReadySet {
    let migration = &inputs.plan.migration;
    match migration {
        Migration::Failed {
            cause: Failure::Reported(problem),
            ..
        } if needs_a_person(problem.class) => {
            ReadySet::stalled(Reason::Problem(problem.class), &schema.message)
        }
        // Until the result of a retry is known, what the last attempt found is all that is known.
        _ if migration.is_retry() && was_stalled(inputs) => {
            ReadySet::stalled(schema.reason, &schema.message)
        }
        _ => ReadySet::reconciling(schema.as_type(ConditionType::Ready, State::False)),
    }
}

fn was_stalled(inputs: &ConditionInputs<'_>) -> bool {
    let previous = inputs.previous(ConditionType::Stalled);
    previous.is_some_and(|previous| previous.state == State::True)
        && inputs.is_current(ConditionType::Stalled)
}

/// Returns the set while pods are replaced or added. A relay that was ready for this generation
/// stays ready; a new spec is ready when every pod that exists has it.
fn rolling_out(inputs: &ConditionInputs<'_>) -> ReadySet {
    let state = if was_ready(inputs) || !has_older_pods(inputs) {
        State::True
    } else {
        State::False
    };
    let (reason, message) = rollout(inputs);
    ReadySet::reconciling(ready_as(state, reason, message))
}

/// Returns how far the rollout is, and what holds up its pods.
fn rollout(inputs: &ConditionInputs<'_>) -> Cause {
    let doing = rollout_in_words(inputs);
    match pods_held_up(inputs) {
        Some((reason, cause)) => (reason, format!("{doing} {cause}")),
        None => (Reason::RollingOut, rollout_message(inputs, doing)),
    }
}

/// Returns whether there may be pods of an older revision.
fn has_older_pods(inputs: &ConditionInputs<'_>) -> bool {
    let deployment = inputs.observed.deployment.as_ref();
    deployment.is_none_or(|found| !found.observed || found.existing > found.updated)
}

fn rollout_in_words(inputs: &ConditionInputs<'_>) -> &'static str {
    if has_older_pods(inputs) {
        "Relays are being replaced; the old ones run until the new ones are ready."
    } else {
        "Relays are being added; those that run continue."
    }
}

fn ready_as(state: State, reason: Reason, message: impl Into<String>) -> Finding {
    Finding::new(ConditionType::Ready, state, reason, message)
}

fn was_ready(inputs: &ConditionInputs<'_>) -> bool {
    let previous = inputs.previous(ConditionType::Ready);
    let was_true = previous.is_some_and(|previous| previous.state == State::True);
    was_true && inputs.is_current(ConditionType::Ready)
}

fn rollout_message(inputs: &ConditionInputs<'_>, doing: &str) -> String {
    if inputs.observed.is_stuck() {
        let name = inputs.context.identity.relay_name();
        format!(
            "New relays have not become ready for ten minutes; the old ones continue to run. Run \
             'kubectl describe deployment {name}' to find the cause."
        )
    } else {
        doing.to_owned()
    }
}

/// Finds `Ready` as `True`. If rows are not published, relays are missing, or the next start of a
/// relay would fail because of a new secret, the reason is theirs.
fn ready(inputs: &ConditionInputs<'_>, parts: &Components) -> Finding {
    let Components {
        available,
        publishing,
        secrets,
        ..
    } = parts;
    for part in [publishing, secrets] {
        if part.state == State::False {
            return part.as_type(ConditionType::Ready, State::True);
        }
    }
    if available.reason != Reason::AllRelaysAvailable {
        return available.as_type(ConditionType::Ready, State::True);
    }
    let (reason, message) = all_available(inputs);
    ready_as(State::True, reason, message)
}

/// Returns the reason of a relay that publishes with all of its replicas.
fn all_available(inputs: &ConditionInputs<'_>) -> (Reason, &'static str) {
    if let Some(waiting) = waiting_for_upgrade(inputs.plan.turn) {
        return waiting;
    }
    if inputs.applied.no_pod_monitors {
        let message = "Relays run, but spec.monitoring.podMonitor is true and this cluster has \
                       no kind PodMonitor. Install the Prometheus operator, or set the field to \
                       false.";
        return (Reason::PodMonitorUnavailable, message);
    }
    let message = "The schema is ready and all relays are available.";
    (Reason::Ready, message)
}

/// Returns why a relay keeps its revision, if it must wait.
fn waiting_for_upgrade(turn: Turn) -> Option<(Reason, &'static str)> {
    match turn {
        Turn::Go => None,
        Turn::Waiting => Some((
            Reason::UpgradeQueued,
            "Relays still run the previous version; their upgrade waits for other upgrades to \
             finish.",
        )),
        Turn::Stopped => {
            let message = "Relays still run the previous version: three upgrades in a row \
                           failed, so no further one starts. Check the OutboxRelays that are not \
                           Ready; when one of them becomes Ready, the upgrades continue.";
            Some((Reason::UpgradesStopped, message))
        }
    }
}

fn not_applied(error: &ApplyError) -> ReadySet {
    match error {
        ApplyError::NameConflict(objects) => name_conflict(objects),
        ApplyError::FormerChildren(objects) => former_children(objects),
        error => request_failed(error),
    }
}

fn request_failed(error: &ApplyError) -> ReadySet {
    match error.call().and_then(CallError::invalid_object) {
        Some(answer) => child_refused(error, answer),
        None => retried(Reason::ApiRequestFailed, retry_message(error)),
    }
}

fn child_refused(error: &ApplyError, answer: &str) -> ReadySet {
    let message = format!("{error}: {answer} Correct the manifest.");
    ReadySet::stalled(Reason::ChildRefused, &message)
}

fn name_conflict(objects: &str) -> ReadySet {
    let message = format!(
        "{objects}: the name is taken by an object that does not belong to this OutboxRelay. \
         Delete or rename that object; until then the operator changes only the number of running \
         relays."
    );
    ReadySet::stalled(Reason::NameConflict, &message)
}

fn former_children(objects: &str) -> ReadySet {
    let message = format!(
        "{objects}: left from a deleted OutboxRelay of this name. The operator continues when the \
         garbage collector has removed it."
    );
    retried(Reason::FormerChildren, message)
}

/// Returns the set of a relay that is not ready until a retry succeeds.
fn retried(reason: Reason, message: String) -> ReadySet {
    ReadySet::reconciling(ready_as(State::False, reason, message))
}

/// Returns the message of an error that is retried.
pub(super) fn retry_message(error: &ApplyError) -> String {
    format!(
        "{error}: {}. The operator retries automatically.",
        error.call().map(ToString::to_string).unwrap_or_default()
    )
}
