//! The written rows with the results of their transactions, and the records that arrived.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use uuid::Uuid;

/// An event as its service wrote it.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) topic: String,
    pub(crate) key: String,
    /// Revision of the aggregate, drawn under the lock on its row: the order of commits of a key.
    pub(crate) revision: i64,
    pub(crate) payload: Vec<u8>,
    pub(crate) outcome: Outcome,
    pub(crate) arrivals: Vec<Arrival>,
}

/// Result of a transaction.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    Open,
    Committed(Instant),
    RolledBack,
}

/// A record of an event.
#[derive(Clone)]
pub(crate) struct Arrival {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// Headers of the relay and of the row, in the order of the record.
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
            outcome: Outcome::Open,
            arrivals: Vec::new(),
        }
    }

    /// The time of arrival, and the milliseconds from commit to arrival. Zero if the record came
    /// before the answer to the commit.
    pub(crate) fn latency_ms(&self) -> Option<(Instant, f64)> {
        let (Outcome::Committed(at), Some(first)) = (self.outcome, self.arrivals.first()) else {
            return None;
        };
        Some((
            first.at,
            first.at.saturating_duration_since(at).as_secs_f64() * 1000.0,
        ))
    }
}

/// Numbers of events and records so far.
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

/// Time of a fault.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) began: Instant,
    pub(crate) ended: Option<Instant>,
}

/// All rows of a run.
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
        inner.set_outcome(events, Outcome::Committed(Instant::now()));
    }

    pub(crate) fn rolled_back(&self, events: &[Uuid]) {
        let mut inner = self.lock();
        inner.counts.rolled_back += events.len();
        inner.set_outcome(events, Outcome::RolledBack);
    }

    /// Adds a record. Records of other runs are ignored.
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

    /// The row whose record arrived last.
    pub(crate) fn latest(&self) -> Option<Row> {
        let inner = self.lock();
        inner.rows.get(&inner.latest?).cloned()
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        self.lock().rows.values().cloned().collect()
    }
}

impl Inner {
    fn set_outcome(&mut self, events: &[Uuid], outcome: Outcome) {
        for event in events {
            if let Some(row) = self.rows.get_mut(event) {
                row.outcome = outcome;
            }
        }
    }
}
