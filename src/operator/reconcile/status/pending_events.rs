//! Changes of conditions -> Events on the OutboxRelay, for `kubectl describe`. Pure.

use crate::operator::{
    reason::Reason,
    reconcile::{
        plan::{Decision, Migration, Plan, RelayPlan, Scale},
        status::{
            Outcome, StatusInputs,
            conditions::{ConditionType, Finding, Previous, State, find},
            schema::sentence,
        },
    },
};

/// Longest note of an Event, in bytes: the API server takes 1 kB.
const NOTE_BYTES_MAX: usize = 1000;
/// Conditions whose changes become Events. `Ready` and `Reconciling` repeat what these say.
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
        let mut note = note.into();
        note.truncate(note.floor_char_boundary(NOTE_BYTES_MAX));
        Self {
            severity,
            reason,
            note,
        }
    }
}

/// Returns an Event for each change since the previous status, each cause once.
pub(super) fn pending_events(
    context: &StatusInputs<'_>,
    outcome: &Outcome<'_>,
    findings: &[Finding],
) -> Vec<PendingEvent> {
    let previous = |type_| find(&context.previous.conditions, type_);
    let mut all: Vec<PendingEvent> = Vec::new();
    for type_ in EVENT_CONDITIONS {
        let Some(finding) = findings.iter().find(|finding| finding.type_ == type_) else {
            continue;
        };
        let known = all.iter().any(|event| event.reason == finding.reason);
        if !known {
            all.extend(change(previous(type_), finding));
        }
    }
    let ready = findings
        .iter()
        .find(|finding| finding.type_ == ConditionType::Ready);
    all.extend(ready.and_then(|ready| new_ready_reason(previous(ConditionType::Ready), ready)));
    if let Plan::CarryOut(plan) | Plan::Paused(plan) = outcome.plan {
        all.extend(planned(context, plan, outcome));
    }
    all
}

/// Returns the Event of a condition that became bad, or is good again. A good one is no news unless
/// it was bad, and neither is one that merely takes its time.
fn change(before: Option<Previous<'_>>, after: &Finding) -> Option<PendingEvent> {
    let bad_state = match after.type_ {
        ConditionType::Stalled => State::True,
        _ => State::False,
    };
    let same = before
        .is_some_and(|before| (before.state, before.reason) == (after.state, Some(after.reason)));
    if same || after.reason.is_temporary() || after.state == State::Unknown {
        return None;
    }
    if after.state == bad_state {
        return Some(PendingEvent::new(
            Severity::Warning,
            after.reason,
            &after.message,
        ));
    }
    let was_bad = before.is_some_and(|before| {
        before.state == bad_state && !before.reason.is_some_and(Reason::is_temporary)
    });
    was_bad.then(|| PendingEvent::new(Severity::Normal, after.reason, &after.message))
}

/// Returns the Event of a relay that is ready with a reason that needs attention.
fn new_ready_reason(before: Option<Previous<'_>>, ready: &Finding) -> Option<PendingEvent> {
    let noteworthy = matches!(
        ready.reason,
        Reason::PodMonitorUnavailable | Reason::UpgradesStopped
    );
    let is_new = before.is_none_or(|before| before.reason != Some(ready.reason));
    (noteworthy && is_new)
        .then(|| PendingEvent::new(Severity::Warning, ready.reason, &ready.message))
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
    }
    let before = find(&context.previous.conditions, ConditionType::SchemaReady);
    if let Migration::Succeeded { notes, .. } = &plan.migration
        && before.is_none_or(|before| before.state != State::True)
    {
        all.extend(notes.iter().map(|note| {
            PendingEvent::new(Severity::Normal, Reason::MigrationNote, sentence(note))
        }));
    }
    all
}

/// Returns the Event of a scaling step, with the numbers that condition ScalingActive leaves out
/// because they change all the time.
fn step(plan: &RelayPlan<'_>) -> Option<PendingEvent> {
    let Scale::Step(Decision { from, to, why }) = plan.scale else {
        return None;
    };
    let load = plan.scaling.as_ref().and_then(|scaling| scaling.load);
    let numbers = load.map(|load| {
        let (rows, age) = (load.rows, load.oldest_age.as_secs());
        format!(
            " {rows} rows wait, the oldest for {age} s; {:.0} are published per second.",
            load.published_per_second
        )
    });
    let note = format!(
        "Scaled from {from} to {to} relays.{}",
        numbers.unwrap_or_default()
    );
    Some(PendingEvent::new(Severity::Normal, why, note))
}

fn replicas_reset(plan: &RelayPlan<'_>) -> Option<PendingEvent> {
    let Scale::SetBack { from, to } = plan.scale else {
        return None;
    };
    let note = format!(
        "Somebody changed the Deployment's replicas to {from}; the operator set them back to \
         {to}. Scale the OutboxRelay instead."
    );
    Some(PendingEvent::new(
        Severity::Warning,
        Reason::ReplicasReset,
        note,
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
    Some(PendingEvent::new(
        Severity::Warning,
        Reason::PlaintextTraffic,
        note,
    ))
}
