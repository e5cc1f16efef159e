//! How often OutboxRelays are looked at when there are many, or the API server is slow. Pure but
//! for the shared cell.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Looks leave half of the passes that are possible to changes, which would wait behind them
/// otherwise.
const SHARE: u32 = 2;
/// Passes that the average follows.
const MEMORY: u32 = 16;

/// How long a pass takes on average.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Duration>);

impl Pace {
    pub(crate) fn passed(&self, took: Duration) {
        let mut average = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *average = (*average * (MEMORY - 1) + took) / MEMORY;
    }

    /// Shortest pause between two looks at the same of so many objects, with so many passes at a
    /// time.
    pub(crate) fn pause(&self, objects: usize, concurrency: u16) -> Duration {
        let average = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        average
            .saturating_mul(SHARE)
            .saturating_mul(u32::try_from(objects).unwrap_or(u32::MAX))
            / u32::from(concurrency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(took: Duration) -> Pace {
        let pace = Pace::default();
        (0..1000).for_each(|_| pace.passed(took));
        pace
    }

    #[test]
    fn looks_take_half_of_the_passes_at_most() {
        let pause = pace(Duration::from_millis(500)).pause(500, 8);
        let looks_per_second = 500.0 / pause.as_secs_f64();
        let possible_per_second = 8.0 / 0.5;
        assert!(
            (0.45..0.55).contains(&(looks_per_second / possible_per_second)),
            "{pause:?}"
        );
    }

    #[test]
    fn few_objects_or_quick_passes_are_looked_at_as_often_as_they_wish() {
        assert!(pace(Duration::from_millis(500)).pause(20, 8) < Duration::from_secs(3));
        assert!(pace(Duration::from_millis(50)).pause(500, 8) < Duration::from_secs(7));
    }
}
