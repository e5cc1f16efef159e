//! Quotas of the brokers: for how long requests may be muted, and whether a person should know.
//! Pure.

use std::time::{Duration, Instant};

/// Shorter mutes are no problem to report: they cost less than a record usually takes.
const REPORTED_FROM: Duration = Duration::from_millis(100);
/// Time without a mute after which a quota is not reported any more.
const OVER_AFTER: Duration = Duration::from_secs(15);
/// A request may wait for its connection's mute, and then for that of a request before it.
const MUTES: u32 = 2;
/// Time for the statistics that report the next mute.
const UNTIL_NEXT_REPORT: Duration = Duration::from_secs(2);

/// A mute, and when it was reported.
#[derive(Clone, Copy, Debug)]
struct Mute {
    reported_at: Instant,
    length: Duration,
}

impl Mute {
    /// Time that requests may take because of the mute.
    fn delay(self) -> Duration {
        self.length * MUTES
    }

    fn is_over(self, now: Instant) -> bool {
        now.saturating_duration_since(self.reported_at) >= self.delay() + UNTIL_NEXT_REPORT
    }
}

/// The brokers' quota, as far as it is known from throttle times.
#[derive(Clone, Debug, Default)]
pub struct Throttle {
    /// The longest mute that may still delay requests.
    mute: Option<Mute>,
    /// The mute that is reported. It grows in steps, so that the report does not change each
    /// second.
    reported: Option<Mute>,
}

impl Throttle {
    /// Takes the longest throttle time since the last statistics; zero if there was none.
    pub fn on_statistics(&mut self, length: Duration, now: Instant) {
        if length.is_zero() {
            return;
        }
        let mute = Mute {
            reported_at: now,
            length,
        };
        if self
            .mute
            .is_none_or(|before| before.is_over(now) || length >= before.length)
        {
            self.mute = Some(mute);
        }
        self.report(mute);
    }

    /// Keeps the length that is reported, unless this one is twice as long.
    fn report(&mut self, mute: Mute) {
        if mute.length < REPORTED_FROM {
            return;
        }
        let length = match self.reported_length(mute.reported_at) {
            Some(before) if mute.length < before * 2 => before,
            _ => mute.length,
        };
        self.reported = Some(Mute { length, ..mute });
    }

    /// Time that requests may take longer because of a quota.
    #[must_use]
    pub fn delay(&self, now: Instant) -> Duration {
        match self.mute {
            Some(mute) if !mute.is_over(now) => mute.delay(),
            _ => Duration::ZERO,
        }
    }

    /// For how long requests are muted, roughly, if a person should know; `None` once it is over.
    #[must_use]
    pub fn reported_length(&self, now: Instant) -> Option<Duration> {
        let mute = self.reported?;
        let is_over = now.saturating_duration_since(mute.reported_at) >= mute.length + OVER_AFTER;
        (!is_over).then_some(mute.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Each mute with the second at which it is reported.
    fn throttle(start: Instant, mutes: &[(u64, u64)]) -> Throttle {
        let mut throttle = Throttle::default();
        for (second, length) in mutes {
            throttle.on_statistics(ms(*length), start + Duration::from_secs(*second));
        }
        throttle
    }

    #[test]
    fn the_longest_mute_delays_requests_until_two_of_it_have_passed() {
        let start = Instant::now();
        for (mutes, second, delay, why) in [
            (&[][..], 0, 0, "none"),
            (&[(0, 0)], 0, 0, "none is reported"),
            (&[(0, 4_000)], 0, 8_000, "one"),
            (&[(0, 4_000)], 9, 8_000, "the next may not be reported yet"),
            (&[(0, 4_000)], 10, 0, "it is over"),
            (
                &[(0, 4_000), (5, 300)],
                5,
                8_000,
                "a shorter one adds nothing",
            ),
            (&[(0, 4_000), (5, 6_000)], 16, 12_000, "a longer one counts"),
            (&[(0, 4_000), (10, 300)], 10, 600, "a shorter one after it"),
        ] {
            let now = start + Duration::from_secs(second);
            assert_eq!(throttle(start, mutes).delay(now), ms(delay), "{why}");
        }
    }

    #[test]
    fn a_quota_is_reported_with_a_length_that_changes_rarely() {
        let start = Instant::now();
        for (mutes, second, reported, why) in [
            (&[][..], 0, None, "none"),
            (&[(0, 99)], 0, None, "too short"),
            (&[(0, 1_000)], 15, Some(1_000), "it may come again"),
            (&[(0, 1_000)], 16, None, "it is over"),
            (&[(0, 1_000), (1, 1_900)], 1, Some(1_000), "about as long"),
            (&[(0, 1_000), (1, 2_000)], 1, Some(2_000), "twice as long"),
            (&[(0, 1_000), (9, 200)], 24, Some(1_000), "it goes on"),
            (&[(0, 1_000), (99, 200)], 99, Some(200), "another one"),
        ] {
            let now = start + Duration::from_secs(second);
            let length = throttle(start, mutes).reported_length(now);
            assert_eq!(length, reported.map(ms), "{why}");
        }
    }
}
