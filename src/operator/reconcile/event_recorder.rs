//! Writes Events about OutboxRelays. IO.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::{
    api::OutboxRelay,
    operator::{
        call::call,
        identity::{Identity, OPERATOR},
        reconcile::status::{PendingEvent, Severity},
    },
};

/// Writes Events about OutboxRelays; repeated ones are counted, not written again.
#[derive(Clone)]
pub(crate) struct EventRecorder(Recorder);

impl EventRecorder {
    /// Returns a recorder that names `instance`, a pod, as the source of its Events.
    pub(crate) fn new(client: Client, instance: Option<String>) -> Self {
        let reporter = Reporter {
            controller: OPERATOR.to_owned(),
            instance,
        };
        // The recorder itself remembers what it wrote, so there is one for all OutboxRelays: a new
        // one would write repeated Events again.
        Self(Recorder::new(client, reporter))
    }

    /// Writes Events as far as possible. A lost Event is a log line and no error: the condition
    /// has the same reason and message.
    ///
    /// # Cancel safety
    /// If dropped, the Events that are not written yet are lost.
    pub(crate) async fn record(&self, identity: &Identity, events: Vec<PendingEvent>) {
        for pending in events {
            let event = event(pending);
            let written = call(self.0.publish(&event, &reference(identity))).await;
            if let Err(error) = written {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    reason = event.reason,
                    "failed to write an Event"
                );
            }
        }
    }
}

fn event(pending: PendingEvent) -> Event {
    Event {
        type_: match pending.severity {
            Severity::Normal => EventType::Normal,
            Severity::Warning => EventType::Warning,
        },
        reason: pending.reason.name(),
        note: Some(pending.note),
        action: "Reconcile".to_owned(),
        secondary: None,
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
