//! Changes of conditions -> Events on the OutboxRelay, for `kubectl describe`. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::operator::{
    reason::Reason,
    reconcile::{
        plan::{Decision, Load, Migration, Plan, RelayPlan, Scale},
        status::{
            Outcome, StatusInputs,
            conditions::{ConditionType, Finding, Previous, State, find, truncated},
            schema::sentence,
        },
    },
};

/// Longest note of an Event, in bytes: the API server takes 1 kB.
const NOTE_BYTES_MAX: usize = 1000;
/// Conditions whose changes become Events. `Ready` and `Reconciling` repeat their reasons.
const EVENT_CONDITIONS: [ConditionType; 6] = [
    ConditionType::Stalled,
    ConditionType::SchemaReady,
    ConditionType::SecretsResolved,
    ConditionType::Available,
    ConditionType::Publishing,
    ConditionType::ScalingActive,
];

/// An Event to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PendingEvent {
    pub severity: Severity,
    pub reason: Reason,
    pub note: String,
}

/// Type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

impl PendingEvent {
    fn new(severity: Severity, reason: Reason, note: impl Into<String>) -> Self {
        Self {
            severity,
            reason,
            note: truncated(note, NOTE_BYTES_MAX),
        }
    }

    fn warning(reason: Reason, note: impl Into<String>) -> Self {
        Self::new(Severity::Warning, reason, note)
    }
}

/// Returns an Event for each change since the previous status, each cause once.
pub(super) fn pending_events(
    context: &StatusInputs<'_>,
    outcome: &Outcome<'_>,
    findings: &[Finding],
) -> Vec<PendingEvent> {
    let previous = &context.previous.conditions;
    let mut all = condition_changes(previous, findings);
    let ready = findings
        .iter()
        .find(|finding| finding.type_ == ConditionType::Ready);
    let before = find(previous, ConditionType::Ready);
    all.extend(ready.and_then(|ready| new_ready_reason(before, ready)));
    if let Plan::CarryOut(plan) | Plan::Paused(plan) = outcome.plan {
        all.extend(planned(context, plan, outcome));
    }
    all
}

fn condition_changes(previous: &[Condition], findings: &[Finding]) -> Vec<PendingEvent> {
    let mut all: Vec<PendingEvent> = Vec::new();
    for type_ in EVENT_CONDITIONS {
        let Some(finding) = findings.iter().find(|finding| finding.type_ == type_) else {
            continue;
        };
        // One cause shows in several conditions: a failed login in SecretsResolved and Publishing.
        let has_event = all.iter().any(|event| event.reason == finding.reason);
        if !has_event {
            all.extend(change(find(previous, type_), finding));
        }
    }
    all
}

/// Returns the Event of a condition that became bad, or is good again. A condition that was not bad
/// gets no Event for being good, and neither does one that merely takes its time.
fn change(before: Option<Previous<'_>>, after: &Finding) -> Option<PendingEvent> {
    let is_same = before
        .is_some_and(|before| (before.state, before.reason) == (after.state, Some(after.reason)));
    if is_same || after.reason.is_temporary() || after.state == State::Unknown {
        return None;
    }
    let bad_state = bad_state(after.type_);
    let severity = if after.state == bad_state {
        Severity::Warning
    } else if before.is_some_and(|before| was_bad(&before, bad_state)) {
        Severity::Normal
    } else {
        return None;
    };
    Some(PendingEvent::new(severity, after.reason, &after.message))
}

fn bad_state(type_: ConditionType) -> State {
    match type_ {
        ConditionType::Stalled => State::True,
        _ => State::False,
    }
}

fn was_bad(before: &Previous<'_>, bad_state: State) -> bool {
    before.state == bad_state && !before.reason.is_some_and(Reason::is_temporary)
}

/// Returns the Event of a relay that is ready with a reason that needs attention.
fn new_ready_reason(before: Option<Previous<'_>>, ready: &Finding) -> Option<PendingEvent> {
    let noteworthy = matches!(
        ready.reason,
        Reason::PodMonitorUnavailable | Reason::UpgradesStopped
    );
    let is_new = before.is_none_or(|before| before.reason != Some(ready.reason));
    (noteworthy && is_new).then(|| PendingEvent::warning(ready.reason, &ready.message))
}

/// Returns the Events of what was done for a valid manifest.
fn planned(
    context: &StatusInputs<'_>,
    plan: &RelayPlan<'_>,
    outcome: &Outcome<'_>,
) -> Vec<PendingEvent> {
    let mut all = Vec::new();
    if outcome.applied.scaled {
        all.extend(step(plan));
        all.extend(replicas_reset(plan));
    }
    let is_new_spec =
        !context.paused && context.previous.observed_generation != context.identity.generation;
    if is_new_spec {
        all.extend(plaintext(&plan.desired.relay.plaintext));
        all.extend(unverified(&plan.desired.relay.unverified));
    }
    let before = find(&context.previous.conditions, ConditionType::SchemaReady);
    if before.is_none_or(|before| before.state != State::True) {
        all.extend(migration_notes(&plan.migration));
    }
    all
}

fn migration_notes(migration: &Migration) -> Vec<PendingEvent> {
    let Migration::Succeeded { notes, .. } = migration else {
        return Vec::new();
    };
    let event =
        |note: &String| PendingEvent::new(Severity::Normal, Reason::MigrationNote, sentence(note));
    notes.iter().map(event).collect()
}

/// Returns the Event of a scaling step, with the numbers that condition ScalingActive leaves out
/// because they change all the time.
fn step(plan: &RelayPlan<'_>) -> Option<PendingEvent> {
    let Scale::Step(Decision { from, to, reason }) = plan.scale else {
        return None;
    };
    let load = plan.scaling.as_ref().and_then(|scaling| scaling.load);
    let numbers = load.map(load_numbers).unwrap_or_default();
    let note = format!("Scaled from {from} to {to} relays.{numbers}");
    Some(PendingEvent::new(Severity::Normal, reason, note))
}

fn load_numbers(load: Load) -> String {
    let (rows, age) = (load.rows, load.oldest_age.as_secs());
    format!(
        " {rows} rows wait, the oldest for {age} s; {:.0} are published per second.",
        load.published_per_second
    )
}

fn replicas_reset(plan: &RelayPlan<'_>) -> Option<PendingEvent> {
    let Scale::SetBack { from, to } = plan.scale else {
        return None;
    };
    Some(PendingEvent::warning(
        Reason::ReplicasReset,
        format!(
            "Somebody changed the Deployment's replicas to {from}; the operator set them back to \
             {to}. Scale the OutboxRelay instead."
        ),
    ))
}

fn plaintext(sides: &[&str]) -> Option<PendingEvent> {
    if sides.is_empty() {
        return None;
    }
    let note = format!(
        "tls.mode is disable in {}: passwords and payloads are readable on the network.",
        sides.join(" and ")
    );
    Some(PendingEvent::warning(Reason::PlaintextTraffic, note))
}

fn unverified(sides: &[&str]) -> Option<PendingEvent> {
    if sides.is_empty() {
        return None;
    }
    let note = format!(
        "tls.mode is require in {}: no certificate is verified, so any server at the address \
         gets passwords and payloads.",
        sides.join(" and ")
    );
    Some(PendingEvent::warning(Reason::ServerUnverified, note))
}
