//! Keeps an operator from writing when it may no longer lead: every write asks the fence first.
//! Pure but for the shared cell.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::operator::process::election::{RENEW_DEADLINE, WRITES_DEADLINE};

/// Allows writes while the last renewal of the Lease is recent. It closes without being called when
/// the renewal is too old, as after a pause of the whole machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fence(Arc<Mutex<Option<Instant>>>);

impl Fence {
    /// Records a renewal of the Lease by a request that was sent at `requested_at`.
    pub(crate) fn open(&self, requested_at: Instant) {
        *self.renewed_at() = Some(requested_at);
    }

    /// Forbids all writes until the next renewal.
    pub(crate) fn close(&self) {
        *self.renewed_at() = None;
    }

    /// Returns for how long the API server may work on a write that is sent now. Returns `None` if
    /// it must not be sent.
    pub(crate) fn allows(&self, now: Instant) -> Option<Duration> {
        let renewed_at = (*self.renewed_at())?;
        let age = now.saturating_duration_since(renewed_at);
        (age < RENEW_DEADLINE).then(|| WRITES_DEADLINE - age)
    }

    /// Returns when the last renewal was requested; `None` while the fence is closed.
    fn renewed_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
                allowed.is_none_or(|longest| age + longest <= WRITES_DEADLINE),
                "{age:?}: {allowed:?}"
            );
        }
        fence.close();
        assert_eq!(fence.allows(renewed), None);
    }
}
