//! Record of all events that writers wrote, with the results of their transactions.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use uuid::Uuid;

use crate::facts::{CommitResult, Event, Ms};

/// Events by id, shared by all writers.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<HashMap<Uuid, Event>>);

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event. Call it before the row is written: the record may be seen soon after.
    pub(crate) fn add(&self, id: Uuid, event: Event) {
        self.lock().insert(id, event);
    }

    /// Sets the version of an event, which its writer drew under the lock of the key.
    pub(crate) fn set_version(&self, id: Uuid, version: i64) {
        if let Some(event) = self.lock().get_mut(&id) {
            event.version = Some(version);
        }
    }

    /// Payload and correlation id of an event.
    pub(crate) fn content(&self, id: Uuid) -> (Vec<u8>, String) {
        self.lock()
            .get(&id)
            .map(|event| (event.payload.clone(), event.correlation_id.clone()))
            .unwrap_or_default()
    }

    /// Sets the result of the transaction that wrote these events.
    pub(crate) fn set_result(&self, ids: &[Uuid], commit_result: CommitResult) {
        let mut events = self.lock();
        for id in ids {
            if let Some(event) = events.get_mut(id) {
                event.commit_result = commit_result;
            }
        }
    }

    /// A copy of all events.
    pub(crate) fn snapshot(&self) -> HashMap<Uuid, Event> {
        self.lock().clone()
    }
}

/// The time now, in milliseconds since 1970.
pub(crate) fn now_ms() -> Ms {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as Ms)
}
