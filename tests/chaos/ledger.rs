//! What writers meant and what they know of it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use uuid::Uuid;

use crate::facts::{Event, Fate, Ms};

#[derive(Default)]
pub(crate) struct Ledger(Mutex<HashMap<Uuid, Event>>);

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before its row is written: from here on its record may be seen.
    pub(crate) fn meant(&self, id: Uuid, event: Event) {
        self.lock().insert(id, event);
    }

    /// Drawn under the lock of the key.
    pub(crate) fn turn(&self, id: Uuid, turn: i64) {
        if let Some(event) = self.lock().get_mut(&id) {
            event.turn = Some(turn);
        }
    }

    /// Payload and correlation id of an event.
    pub(crate) fn content(&self, id: Uuid) -> (Vec<u8>, String) {
        self.lock()
            .get(&id)
            .map(|event| (event.payload.clone(), event.correlation_id.clone()))
            .unwrap_or_default()
    }

    pub(crate) fn ended(&self, ids: &[Uuid], fate: Fate) {
        let mut events = self.lock();
        for id in ids {
            if let Some(event) = events.get_mut(id) {
                event.fate = fate;
            }
        }
    }

    pub(crate) fn copy(&self) -> HashMap<Uuid, Event> {
        self.lock().clone()
    }
}

pub(crate) fn now_ms() -> Ms {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as Ms)
}
