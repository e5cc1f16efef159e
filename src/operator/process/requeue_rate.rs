//! How often OutboxRelays are reconciled without a change, when there are many or the API server is
//! slow. Pure but for the shared cell.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Reconciliations without a change take one part in this many of the possible ones. The others are
/// left to changes, which would wait behind them otherwise.
const RESYNC_SHARE_DIVISOR: u32 = 2;
/// Number of reconciliations that the moving average covers.
const AVERAGED_RECONCILIATIONS: u32 = 16;

/// The average duration of a reconciliation, and the pause that follows from it.
#[derive(Debug, Default)]
pub(crate) struct RequeueRate(Mutex<Duration>);

impl RequeueRate {
    /// Records a reconciliation that took this long.
    pub(crate) fn record(&self, took: Duration) {
        let mut average = self.average();
        *average = (*average * (AVERAGED_RECONCILIATIONS - 1) + took) / AVERAGED_RECONCILIATIONS;
    }

    /// Shortest pause before an object is reconciled again without a change. `concurrency` is the
    /// number of reconciliations at the same time.
    pub(crate) fn min_pause(&self, objects: usize, concurrency: u16) -> Duration {
        self.average()
            .saturating_mul(RESYNC_SHARE_DIVISOR)
            .saturating_mul(u32::try_from(objects).unwrap_or(u32::MAX))
            / u32::from(concurrency)
    }

    /// Returns the average duration of a reconciliation.
    fn average(&self) -> MutexGuard<'_, Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requeue_rate(took: Duration) -> RequeueRate {
        let rate = RequeueRate::default();
        (0..1000).for_each(|_| rate.record(took));
        rate
    }

    #[test]
    fn unchanged_objects_take_half_of_the_reconciliations_at_most() {
        let pause = requeue_rate(Duration::from_millis(500)).min_pause(500, 8);
        let per_second = 500.0 / pause.as_secs_f64();
        let possible_per_second = 8.0 / 0.5;
        assert!(
            (0.45..0.55).contains(&(per_second / possible_per_second)),
            "{pause:?}"
        );
    }

    #[test]
    fn few_objects_or_quick_reconciliations_keep_the_pause_short() {
        let (slow, quick) = (Duration::from_millis(500), Duration::from_millis(50));
        assert!(requeue_rate(slow).min_pause(20, 8) < Duration::from_secs(3));
        assert!(requeue_rate(quick).min_pause(500, 8) < Duration::from_secs(7));
    }
}
