//! Random pauses: relays that met the same failure must not all try again at once. Pure; the same
//! seed gives the same pauses.

use std::time::Duration;

/// Upper bound of the first back-off; doubles with each failure.
const BACKOFF_MIN: Duration = Duration::from_millis(500);

/// A sequence of pseudo-random numbers (xorshift).
#[derive(Clone, Debug, Hash)]
pub struct Jitter(u64);

impl Jitter {
    /// The sequence of a seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A duration between zero and `max`.
    pub fn up_to(&mut self, max: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        max.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// A duration between zero and 0.5 s x 2^`failures`, at most `max` (full jitter).
    pub fn backoff(&mut self, failures: u32, max: Duration) -> Duration {
        self.up_to(max.min(BACKOFF_MIN * (1 << failures.min(16))))
    }

    /// A duration between half of `pause` and `pause`: for a pause that should not be skipped.
    pub fn around(&mut self, pause: Duration) -> Duration {
        pause / 2 + self.up_to(pause / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(30);

    #[test]
    fn a_back_off_doubles_its_bound_up_to_the_maximum() {
        for (failures, bound_ms) in [(0, 500), (1, 1000), (3, 4000), (6, 30_000), (60, 30_000)] {
            let longest = (0..1000)
                .map(|seed| Jitter::seeded(seed).backoff(failures, MAX))
                .max()
                .expect("some");
            let bound = Duration::from_millis(bound_ms);
            assert!(
                longest <= bound && longest > bound.mul_f64(0.9),
                "{failures} failures: {longest:?} of {bound:?}"
            );
        }
    }

    #[test]
    fn relays_do_not_come_back_together() {
        let pauses: std::collections::BTreeSet<_> = (0..100)
            .map(|seed| Jitter::seeded(seed).backoff(6, MAX))
            .collect();
        assert_eq!(pauses.len(), 100);
    }

    #[test]
    fn a_pause_that_should_not_be_skipped_keeps_its_half() {
        let shortest = (0..1000)
            .map(|seed| Jitter::seeded(seed).around(MAX))
            .min()
            .expect("some");
        assert!(shortest >= MAX / 2, "{shortest:?}");
    }
}
