//! Whether the wall clock was set back. Pure.
//!
//! Each timed wait of librdkafka ends at a time of the wall clock (librdkafka#2145). If the clock
//! is set back by an hour, waits under way last an hour longer, unless something else ends them. A
//! client whose threads wait like that finds no broker again, and a call to it never returns. A new
//! client begins new waits.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Steps back of up to this size are ignored: waits last no longer than that.
const TOLERATED_STEP: Duration = Duration::from_secs(1);

/// The wall clock, compared with the monotonic one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
    /// Wall-clock time that corresponds to `began`, as last measured; since the epoch.
    began_wall: Duration,
}

impl Clock {
    /// Starts to compare: `wall` is the time of the wall clock at `now`.
    #[must_use]
    pub fn new(wall: SystemTime, now: Instant) -> Self {
        Self {
            began: now,
            began_wall: since_epoch(wall),
        }
    }

    /// By how much it was set back since the last call; `None` if by [`TOLERATED_STEP`] at most.
    pub fn set_back(&mut self, wall: SystemTime, now: Instant) -> Option<Duration> {
        let before = self.began_wall;
        self.began_wall =
            since_epoch(wall).saturating_sub(now.saturating_duration_since(self.began));
        before
            .checked_sub(self.began_wall)
            .filter(|by| *by > TOLERATED_STEP)
    }
}

fn since_epoch(wall: SystemTime) -> Duration {
    wall.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What calls at these seconds return, with the wall clock ahead by this many seconds.
    fn set_back(looks: &[(u64, u64)]) -> Vec<Option<u64>> {
        let (start, noon) = (
            Instant::now(),
            UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        );
        let mut clock = Clock::new(noon, start);
        let look = |(at, ahead): &(u64, u64)| {
            let by = clock.set_back(
                noon + Duration::from_secs(at + ahead),
                start + Duration::from_secs(*at),
            );
            by.map(|by| by.as_secs())
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn a_clock_that_is_set_back_is_reported_once() {
        assert_eq!(
            set_back(&[(1, 7200), (2, 7200), (3, 0), (4, 0)]),
            [None, None, Some(7200), None]
        );
    }

    #[test]
    fn a_clock_that_is_set_on_or_back_by_a_second_is_not() {
        assert_eq!(
            set_back(&[(5, 0), (6, 3), (7, 2), (8, 1), (3600, 86_400)]),
            [None; 5]
        );
    }
}
