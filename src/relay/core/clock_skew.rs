//! Whether the clocks of the node and of the brokers agree with the database's. Pure.
//!
//! Nothing that is published depends on the node's clock, and brokers judge timestamps by theirs.
//! So a clock that is wrong is reported, and stops nothing.

use std::time::{Duration, Instant};

use crate::outbox::DatabaseClock;

/// Largest difference between two clocks in µs that is not reported, 1 min.
const TOLERATED_US: i64 = 60_000_000;
/// Time for which an answer of a broker whose clock is wrong counts. Other brokers answer, too, and
/// their clocks may be right.
const ANSWER_COUNTS_FOR: Duration = Duration::from_secs(60);

/// How far a clock is ahead of the database's, in µs; negative if it is behind.
type AheadUs = i64;

/// Clocks that are surely more than a minute apart from the database's.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockSkew {
    node: Option<AheadUs>,
    /// The last such answer of a broker, and when it arrived.
    brokers: Option<(AheadUs, Instant)>,
}

impl ClockSkew {
    /// Compares the node's clock, which shows `node_us` (microseconds since 1970) at `now`.
    pub fn on_node(&mut self, node_us: i64, database: DatabaseClock, now: Instant) {
        let apart = apart(node_us, database.at(now), database.latest_at(now));
        self.node = apart.map(|ahead| steady(self.node, ahead));
    }

    /// Compares a broker's clock, which showed `broker_ms` (milliseconds since 1970) when it wrote
    /// a record, between `sent` and `now`.
    pub fn on_appended(
        &mut self,
        broker_ms: i64,
        database: DatabaseClock,
        sent: Instant,
        now: Instant,
    ) {
        let broker_us = broker_ms.saturating_mul(1000);
        if let Some(ahead) = apart(broker_us, database.at(sent), database.latest_at(now)) {
            let before = self.brokers.map(|(before, _)| before);
            self.brokers = Some((steady(before, ahead), now));
        }
    }

    /// How far the node's clock is ahead of the database's, in µs (negative: behind); `None` if it
    /// may be right.
    #[must_use]
    pub fn node(&self) -> Option<AheadUs> {
        self.node
    }

    /// How far the clock of a broker is ahead of the database's, in µs (negative: behind); `None`
    /// if all may be right, or are not known.
    #[must_use]
    pub fn brokers(&self, now: Instant) -> Option<AheadUs> {
        let (ahead, at) = self.brokers?;
        (now.saturating_duration_since(at) < ANSWER_COUNTS_FOR).then_some(ahead)
    }
}

/// By how much a clock is at least apart from the database's; `None` if that may be
/// [`TOLERATED_US`] or less. It showed `us` when the database's showed a time between `earliest_us`
/// and `latest_us`.
fn apart(us: i64, earliest_us: i64, latest_us: i64) -> Option<AheadUs> {
    let least = us.saturating_sub(latest_us);
    let most = us.saturating_sub(earliest_us);
    if least > TOLERATED_US {
        Some(least)
    } else if most < -TOLERATED_US {
        Some(most)
    } else {
        None
    }
}

/// The distance that was measured before if the new one differs by a minute at most: no two
/// measurements are equal, and a problem whose text changes is logged again.
fn steady(before: Option<AheadUs>, ahead: AheadUs) -> AheadUs {
    before
        .filter(|before| before.abs_diff(ahead) <= TOLERATED_US.unsigned_abs())
        .unwrap_or(ahead)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    #[test]
    fn only_clocks_that_are_surely_more_than_a_minute_apart_are_reported() {
        for (us, latest_us, expected) in [
            (0, 0, None),
            (60 * S, 0, None),
            (61 * S, 0, Some(61 * S)),
            (-60 * S, 0, None),
            (-61 * S, 0, Some(-61 * S)),
            (61 * S, 2 * S, None), // the database may have taken two seconds to answer
            (63 * S, 2 * S, Some(61 * S)),
            (-61 * S, 2 * S, Some(-61 * S)),
            (i64::MAX, i64::MIN, Some(i64::MAX)),
        ] {
            let earliest_us = 0.min(latest_us);
            assert_eq!(
                apart(us, earliest_us, latest_us),
                expected,
                "{us} {latest_us}"
            );
        }
    }

    #[test]
    fn a_broker_with_a_wrong_clock_counts_for_a_minute_whatever_others_answer() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let database = DatabaseClock::new(1_000 * S, start, start);
        let mut skew = ClockSkew::default();
        skew.on_appended(500_000, database, at(1), at(1));
        skew.on_appended(1_002_000, database, at(2), at(2));
        assert_eq!(skew.brokers(at(60)), Some(-501 * S));
        assert_eq!(skew.brokers(at(61)), None);
        skew.on_node(1_100 * S, database, at(3));
        assert_eq!(skew.node(), Some(97 * S));
        skew.on_node(1_130 * S, database, at(3));
        assert_eq!(skew.node(), Some(97 * S), "about as before");
        skew.on_node(1_170 * S, database, at(3));
        assert_eq!(skew.node(), Some(167 * S));
        skew.on_node(1_003 * S, database, at(3));
        assert_eq!(skew.node(), None);
    }
}
