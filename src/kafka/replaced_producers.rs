//! Hooks of the failpoint [`NextProducerEarly`](crate::failpoints::Bug::NextProducerEarly): keeps
//! producers that were replaced before their last delivery reports arrived. Without the feature
//! `planted-bugs` nothing is kept.

use std::time::Instant;
#[cfg(feature = "planted-bugs")]
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::kafka::{DeliveryReport, Producer};

/// Minimum pause between two polls of the replaced producers.
#[cfg(feature = "planted-bugs")]
const POLL_PAUSE: Duration = Duration::from_secs(1);

/// Replaced producers of this process.
#[cfg(feature = "planted-bugs")]
struct Replaced {
    producers: Vec<Producer>,
    /// Time of the last poll; `None` before the first one.
    polled_at: Option<Instant>,
}

#[cfg(feature = "planted-bugs")]
static REPLACED: Mutex<Replaced> = Mutex::new(Replaced {
    producers: Vec::new(),
    polled_at: None,
});

#[cfg(feature = "planted-bugs")]
fn replaced() -> MutexGuard<'static, Replaced> {
    REPLACED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a producer whose last delivery reports have not arrived. Without the feature
/// `planted-bugs` the producer is dropped.
pub fn keep(producer: Producer) {
    #[cfg(feature = "planted-bugs")]
    replaced().producers.push(producer);
    #[cfg(not(feature = "planted-bugs"))]
    drop(producer);
}

/// Delivery reports of replaced producers, collected at most once a second.
#[must_use]
pub fn late_reports(now: Instant) -> Vec<DeliveryReport> {
    #[cfg(feature = "planted-bugs")]
    return replaced().poll(now);
    #[cfg(not(feature = "planted-bugs"))]
    {
        let _ = now;
        Vec::new()
    }
}

/// Purges all records that replaced producers still hold.
pub fn purge() {
    #[cfg(feature = "planted-bugs")]
    replaced().producers.iter().for_each(Producer::purge);
}

#[cfg(feature = "planted-bugs")]
impl Replaced {
    fn poll(&mut self, now: Instant) -> Vec<DeliveryReport> {
        if !self.is_due(now) {
            return Vec::new();
        }
        self.polled_at = Some(now);
        self.poll_all()
    }

    fn is_due(&self, now: Instant) -> bool {
        self.polled_at
            .is_none_or(|at| now.saturating_duration_since(at) >= POLL_PAUSE)
    }

    fn poll_all(&self) -> Vec<DeliveryReport> {
        let mut reports = Vec::new();
        for producer in &self.producers {
            producer.poll(&mut reports);
        }
        reports
    }
}
