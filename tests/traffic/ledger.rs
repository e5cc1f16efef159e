//! What was written and what became of it, and what arrived: the two sides of the comparison.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use uuid::Uuid;

/// An event as the service meant it.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) topic: String,
    pub(crate) key: String,
    /// Drawn under the lock on the aggregate's row: for one key, the order of commits.
    pub(crate) revision: i64,
    pub(crate) payload: Vec<u8>,
    pub(crate) fate: Fate,
    pub(crate) arrivals: Vec<Arrival>,
}

#[derive(Clone, Copy)]
pub(crate) enum Fate {
    Open,
    Committed(Instant),
    RolledBack,
}

/// A record that carries the event's id.
#[derive(Clone)]
pub(crate) struct Arrival {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// Those of the relay and the row's own, in their order.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) at: Instant,
}

impl Row {
    pub(crate) fn new(topic: &str, key: &str, revision: i64, payload: &[u8]) -> Self {
        let (topic, key) = (topic.to_owned(), key.to_owned());
        Self {
            topic,
            key,
            revision,
            payload: payload.to_owned(),
            fate: Fate::Open,
            arrivals: Vec::new(),
        }
    }

    /// When it arrived, and how long that took from its commit. Zero where the record was faster
    /// than the answer to the commit.
    pub(crate) fn latency_ms(&self) -> Option<(Instant, f64)> {
        let (Fate::Committed(at), Some(first)) = (self.fate, self.arrivals.first()) else {
            return None;
        };
        Some((
            first.at,
            first.at.saturating_duration_since(at).as_secs_f64() * 1000.0,
        ))
    }
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) committed: usize,
    pub(crate) rolled_back: usize,
    pub(crate) records: usize,
    pub(crate) arrived: usize,
}

impl Counts {
    pub(crate) fn waiting(self) -> usize {
        self.committed.saturating_sub(self.arrived)
    }
}

/// When something was broken.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) began: Instant,
    pub(crate) ended: Option<Instant>,
}

#[derive(Default)]
pub(crate) struct Ledger(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    rows: HashMap<Uuid, Row>,
    counts: Counts,
    latest: Option<Uuid>,
    fault: Option<Fault>,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn written(&self, event_id: Uuid, row: Row) {
        self.lock().rows.insert(event_id, row);
    }

    pub(crate) fn committed(&self, events: &[Uuid]) {
        let mut inner = self.lock();
        inner.counts.committed += events.len();
        inner.decide(events, Fate::Committed(Instant::now()));
    }

    pub(crate) fn rolled_back(&self, events: &[Uuid]) {
        let mut inner = self.lock();
        inner.counts.rolled_back += events.len();
        inner.decide(events, Fate::RolledBack);
    }

    /// A record of another run is not ours to judge.
    pub(crate) fn arrived(&self, event_id: Uuid, arrival: Arrival) {
        let mut inner = self.lock();
        let Some(row) = inner.rows.get_mut(&event_id) else {
            return;
        };
        row.arrivals.push(arrival);
        let first = row.arrivals.len() == 1;
        inner.counts.records += 1;
        inner.counts.arrived += usize::from(first);
        inner.latest = Some(event_id);
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    pub(crate) fn last_fault(&self) -> Option<Fault> {
        self.lock().fault
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// The row whose record came last.
    pub(crate) fn latest(&self) -> Option<Row> {
        let inner = self.lock();
        inner.rows.get(&inner.latest?).cloned()
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        self.lock().rows.values().cloned().collect()
    }
}

impl Inner {
    fn decide(&mut self, events: &[Uuid], fate: Fate) {
        for event in events {
            if let Some(row) = self.rows.get_mut(event) {
                row.fate = fate;
            }
        }
    }
}
