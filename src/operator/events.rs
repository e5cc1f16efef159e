//! Changes of conditions -> Events on the OutboxRelay, for `kubectl describe`. What to say is pure;
//! saying it is best effort.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::{
    identity::{Identity, OPERATOR},
    plan::{Decision, Migration, Plan, Scale},
    reason::Reason,
    status::{State, Verdict, find, sentence},
};
use crate::api::{OutboxRelay, OutboxRelayStatus};

/// An Event's note may have 1 kB.
const NOTE_BYTES_MAX: usize = 1000;
/// Conditions whose changes are told. `Ready` and `Reconciling` repeat what these say.
const TOLD: [&str; 6] = [
    "Stalled",
    "SchemaReady",
    "SecretsResolved",
    "Available",
    "Publishing",
    "ScalingActive",
];

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Telling {
    pub kind: EventType,
    pub reason: String,
    pub note: String,
}

impl Telling {
    pub(crate) fn new(kind: EventType, reason: impl Into<String>, note: impl Into<String>) -> Self {
        let mut note = note.into();
        note.truncate(note.floor_char_boundary(NOTE_BYTES_MAX));
        Self {
            kind,
            reason: reason.into(),
            note,
        }
    }
}

/// What changed between two statuses, each cause once.
pub(crate) fn tellings(
    before: &OutboxRelayStatus,
    after: &OutboxRelayStatus,
    verdict: &Verdict<'_>,
) -> Vec<Telling> {
    let mut all: Vec<Telling> = Vec::new();
    for condition in TOLD
        .iter()
        .filter_map(|type_| find(&after.conditions, type_))
    {
        let telling = change(find(&before.conditions, &condition.type_), condition);
        all.extend(telling.filter(|new| all.iter().all(|told| told.reason != new.reason)));
    }
    all.extend(
        [Reason::PodMonitorUnavailable, Reason::UpgradesStopped]
            .into_iter()
            .filter_map(|reason| new_ready_reason(before, after, reason)),
    );
    if let Verdict::Planned {
        relay,
        plan,
        applied,
    } = verdict
    {
        all.extend(step(plan).filter(|_| applied.scaled));
        if let Scale::SetBack { from, to } = plan.scale
            && applied.scaled
        {
            let note = format!(
                "The Deployment's replicas were changed to {from}; set back to {to}. Scale the \
                 OutboxRelay instead."
            );
            all.push(Telling::new(
                EventType::Warning,
                Reason::ReplicasReset.name(),
                note,
            ));
        }
        if before.observed_generation != after.observed_generation {
            all.extend(plaintext(&relay.plaintext));
        }
        if let Migration::Succeeded { notes, .. } = &plan.migration
            && find(&before.conditions, "SchemaReady")
                .is_none_or(|condition| condition.status != State::True.text())
        {
            all.extend(notes.iter().map(|note| {
                Telling::new(
                    EventType::Normal,
                    Reason::MigrationNote.name(),
                    sentence(note),
                )
            }));
        }
    }
    all
}

/// With the numbers that condition ScalingActive leaves out, because they never stand still.
fn step(plan: &Plan) -> Option<Telling> {
    let Scale::Step(Decision { from, to, why }) = plan.scale else {
        return None;
    };
    let waits = plan
        .scaling
        .as_ref()
        .and_then(|scaling| scaling.load)
        .map(|load| {
            let (rows, age) = (load.rows, load.oldest_age.as_secs());
            format!(
                " {rows} rows wait, the oldest for {age} s; {:.0} are published per second.",
                load.published_per_second
            )
        });
    Some(Telling::new(
        EventType::Normal,
        why.name(),
        format!("From {from} to {to} relays.{}", waits.unwrap_or_default()),
    ))
}

/// A relay that is ready all the same.
fn new_ready_reason(
    before: &OutboxRelayStatus,
    after: &OutboxRelayStatus,
    reason: Reason,
) -> Option<Telling> {
    let is_it = |condition: &&Condition| condition.reason == reason.name();
    let now = find(&after.conditions, "Ready").filter(is_it)?;
    find(&before.conditions, "Ready")
        .filter(is_it)
        .is_none()
        .then(|| Telling::new(EventType::Warning, reason.name(), &now.message))
}

fn plaintext(sides: &[&str]) -> Option<Telling> {
    let note = format!(
        "tls.mode is disable in {}: passwords and payloads can be read on the network.",
        sides.join(" and ")
    );
    (!sides.is_empty())
        .then(|| Telling::new(EventType::Warning, Reason::PlaintextTraffic.name(), note))
}

fn change(before: Option<&Condition>, after: &Condition) -> Option<Telling> {
    let same = before
        .is_some_and(|before| (&before.status, &before.reason) == (&after.status, &after.reason));
    let bad_state = if after.type_ == "Stalled" {
        State::True
    } else {
        State::False
    };
    let bad = after.status == bad_state.text();
    // Good news is only news after bad news, and what merely takes its time is none.
    let was_bad = before.is_some_and(|before| {
        before.status == bad_state.text() && !passes_by_itself(&before.reason)
    });
    if same
        || passes_by_itself(&after.reason)
        || after.status == State::Unknown.text()
        || (!bad && !was_bad)
    {
        return None;
    }
    let kind = if bad {
        EventType::Warning
    } else {
        EventType::Normal
    };
    Some(Telling::new(kind, &after.reason, &after.message))
}

fn passes_by_itself(reason: &str) -> bool {
    use Reason::{
        MigrationRunning, NotStalled, Paused, ReportsIncomplete, RollingOut, ScaledToZero,
        ScalingOff, Suspended, WaitingForSchema,
    };
    [
        MigrationRunning,
        NotStalled,
        Paused,
        ReportsIncomplete,
        RollingOut,
        ScaledToZero,
        ScalingOff,
        Suspended,
        WaitingForSchema,
    ]
    .iter()
    .any(|known| known.name() == reason)
}

/// Writes Events about OutboxRelays; repeated ones are counted, not written again.
#[derive(Clone)]
pub(crate) struct Teller(Recorder);

impl Teller {
    pub(crate) fn new(client: Client, instance: Option<String>) -> Self {
        Self(Recorder::new(
            client,
            Reporter {
                controller: OPERATOR.to_owned(),
                instance,
            },
        ))
    }

    /// A lost Event is a log line, not a failed pass: the condition says the same.
    pub(crate) async fn tell(&self, identity: &Identity, tellings: Vec<Telling>) {
        for telling in tellings {
            let event = Event {
                type_: telling.kind,
                reason: telling.reason,
                note: Some(telling.note),
                action: "Reconcile".to_owned(),
                secondary: None,
            };
            if let Err(error) =
                super::call::call(self.0.publish(&event, &reference(identity))).await
            {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    reason = event.reason,
                    "failed to write an Event"
                );
            }
        }
    }
}

fn reference(identity: &Identity) -> ObjectReference {
    ObjectReference {
        api_version: Some(OutboxRelay::api_version(&()).into_owned()),
        kind: Some(OutboxRelay::kind(&()).into_owned()),
        namespace: Some(identity.namespace.clone()),
        name: Some(identity.name.clone()),
        uid: Some(identity.uid.clone()),
        ..ObjectReference::default()
    }
}
