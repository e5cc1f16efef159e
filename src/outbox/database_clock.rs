//! The database's clock, read once and carried on by the monotonic clock of this process. Pure.
//!
//! The wall clock of a node may be wrong, or be stepped. Times of rows are the database's, so
//! whatever is compared with them is measured with this clock.

use std::time::{Duration, Instant};

/// The time of the database at a moment of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseClock {
    /// Microseconds since 1970.
    time_us: i64,
    /// When the answer with this time was received.
    received: Instant,
    /// Time from the request until the answer: the clock was read at some moment of it.
    answered_in: Duration,
}

impl DatabaseClock {
    /// The database's clock showed `time_us`, in microseconds since 1970, at some moment between
    /// `sent` and `received`.
    #[must_use]
    pub fn new(time_us: i64, sent: Instant, received: Instant) -> Self {
        Self {
            time_us,
            received,
            answered_in: received.saturating_duration_since(sent),
        }
    }

    /// The earliest time, in microseconds since 1970, that the database's clock may show at `at`.
    /// No row that an earlier statement saw was created later, unless that clock was set back.
    #[must_use]
    pub fn at(self, at: Instant) -> i64 {
        let after = at.saturating_duration_since(self.received);
        let before = self.received.saturating_duration_since(at);
        let time_us = self.time_us.saturating_add(micros(after));
        time_us.saturating_sub(micros(before))
    }

    /// The latest time, in microseconds since 1970, that the database's clock may show at `at`.
    #[must_use]
    pub fn latest_at(self, at: Instant) -> i64 {
        self.at(at).saturating_add(micros(self.answered_in))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_with_the_monotonic_clock_from_the_answer_in_both_directions() {
        let sent = Instant::now();
        let at = |ms| sent + Duration::from_millis(ms);
        let clock = DatabaseClock::new(1_000_000, sent, at(100));
        for (ms, earliest) in [(100, 1_000_000), (350, 1_250_000), (60, 960_000)] {
            assert_eq!(clock.at(at(ms)), earliest, "{ms}");
            assert_eq!(clock.latest_at(at(ms)), earliest + 100_000, "{ms}");
        }
    }

    #[test]
    fn no_time_overflows() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        assert_eq!(DatabaseClock::new(i64::MAX, now, now).at(later), i64::MAX);
        assert_eq!(DatabaseClock::new(i64::MIN, now, later).at(now), i64::MIN);
    }
}
