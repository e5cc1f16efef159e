//! Whether the wall clock was set back. Pure.
//!
//! Each timed wait of librdkafka ends at a time of the wall clock (librdkafka#2145): set back by an
//! hour, those under way last an hour longer, unless something happens that ends them. A client
//! whose threads wait so finds no broker again, and asking it never returns. A new client begins
//! new waits.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a wait may last longer without anybody minding.
const BEARABLE: Duration = Duration::from_secs(1);

/// The wall clock, as it went until now.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
    /// Its time when [`Self::began`] was now, by the latest look.
    then: Duration,
}

impl Clock {
    #[must_use]
    pub fn new(wall: SystemTime, now: Instant) -> Self {
        Self {
            began: now,
            then: since_epoch(wall),
        }
    }

    /// By how much it was set back since the last look; `None`: it was not, or hardly.
    pub fn set_back(&mut self, wall: SystemTime, now: Instant) -> Option<Duration> {
        let before = self.then;
        self.then = since_epoch(wall).saturating_sub(now.saturating_duration_since(self.began));
        before.checked_sub(self.then).filter(|by| *by > BEARABLE)
    }
}

fn since_epoch(wall: SystemTime) -> Duration {
    wall.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it says of looks at these seconds, with the wall clock so many seconds ahead.
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
    fn a_clock_that_is_set_back_is_told_once() {
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
