//! What keeps an operator from writing when it may lead no more: every write asks the fence first.
//! Pure but for the shared cell.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::election::{RENEW_DEADLINE, WRITES_END};

/// Closed until the Lease is ours, and again when its last renewal is too old, even if nobody came
/// to notice that (a paused machine).
#[derive(Clone, Debug, Default)]
pub(crate) struct Fence(Arc<Mutex<Option<Instant>>>);

impl Fence {
    /// The Lease was renewed by a request that was sent at this time.
    pub(crate) fn open(&self, asked_at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked_at);
    }

    pub(crate) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// For how long the API server may work on a write that is sent now; `None`: it may not be
    /// sent.
    pub(crate) fn allows(&self, now: Instant) -> Option<Duration> {
        let renewed_at = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let age = now.saturating_duration_since(renewed_at);
        (age < RENEW_DEADLINE).then(|| WRITES_END - age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_sent_and_ends_while_nobody_else_can_lead() {
        let (fence, renewed) = (Fence::default(), Instant::now());
        assert_eq!(fence.allows(renewed), None, "nobody leads from the start");
        fence.open(renewed);
        for age in (0..20).map(Duration::from_secs) {
            let allowed = fence.allows(renewed + age);
            assert_eq!(allowed.is_some(), age < RENEW_DEADLINE);
            assert!(
                allowed.is_none_or(|longest| age + longest <= WRITES_END),
                "{age:?}: {allowed:?}"
            );
        }
        fence.close();
        assert_eq!(fence.allows(renewed), None);
    }
}
