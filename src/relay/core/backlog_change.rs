//! The backlog that was reported last, and what a fetch shows about it: that it is gone, or that it
//! must be counted again. Pure.

use std::time::Instant;

use crate::outbox::{DatabaseClock, Depth};

/// Rows that a fetch returned, and those that it may not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchExtent {
    /// The fetch read all rows of all owned lanes, and there was none. None is in flight.
    NothingWaits,
    /// The fetch returned no row, but there may be some that it leaves out.
    NothingReturned,
    /// The fetch returned rows, and more of them wait than it could take.
    MoreWait,
    /// The fetch returned all rows that wait.
    AllReturned,
}

/// What follows for the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BacklogStep {
    /// The backlog that was reported is as good as can be.
    Keep,
    /// No row waits any more.
    ReportEmpty,
    /// The number has changed: count the rows soon.
    CountSoon,
}

/// Returns what a fetch changes about the number of rows that was reported last; `None` is an
/// unknown number, which is about to be counted anyway.
#[must_use]
pub fn after_fetch(reported: Option<u64>, extent: FetchExtent) -> BacklogStep {
    match (reported, extent) {
        (Some(1..), FetchExtent::NothingWaits) => BacklogStep::ReportEmpty,
        (Some(1..), FetchExtent::NothingReturned) | (Some(0), FetchExtent::MoreWait) => {
            BacklogStep::CountSoon
        }
        _ => BacklogStep::Keep,
    }
}

/// The backlog that was reported last.
#[derive(Debug, Default)]
pub struct ReportedBacklog {
    /// `None` if it is unknown.
    depth: Option<Depth>,
    /// Since when rows were seen to wait; `None` if none waits.
    waiting_since: Option<Instant>,
    /// When the last fetch began that showed that no row waits any more.
    emptied_at: Option<Instant>,
}

impl ReportedBacklog {
    /// Takes rows that a statement counted which began then. Returns what to report: nothing if a
    /// later fetch showed that none of them waits any more.
    pub fn count(
        &mut self,
        counted: Depth,
        began: Instant,
        now: Instant,
        clock: DatabaseClock,
    ) -> Option<Depth> {
        if self.emptied_at.is_some_and(|emptied| began <= emptied) {
            return None;
        }
        self.waiting_since = (counted.rows > 0).then(|| self.waiting_since.unwrap_or(now));
        let oldest_us = self.written_by(counted.oldest_us, now, clock);
        self.depth = Some(Depth {
            oldest_us,
            ..counted
        });
        self.depth
    }

    /// Takes that a fetch, which began then, showed that no row waits. Returns what to report.
    pub fn empty(&mut self, began: Instant) -> Depth {
        *self = Self {
            depth: Some(Depth::EMPTY),
            waiting_since: None,
            emptied_at: Some(began),
        };
        Depth::EMPTY
    }

    /// The backlog is unknown.
    pub fn forget(&mut self) {
        self.depth = None;
    }

    /// Number of rows; `None` if it is unknown.
    #[must_use]
    pub fn rows(&self) -> Option<u64> {
        self.depth.map(|depth| depth.rows)
    }

    /// When the oldest row was written, microseconds since 1970; `None` if none is known to wait.
    #[must_use]
    pub fn oldest_us(&self) -> Option<i64> {
        self.depth?.oldest_us
    }

    /// Upper bound of the time at which the oldest row was written. A `created_at` that is ahead
    /// says nothing about that, so the time counts at which rows were first seen to wait.
    fn written_by(
        &self,
        created_at_us: Option<i64>,
        now: Instant,
        clock: DatabaseClock,
    ) -> Option<i64> {
        let created_at_us = created_at_us?;
        if created_at_us <= clock.at(now) {
            return Some(created_at_us);
        }
        self.waiting_since.map(|since| clock.at(since))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rows(rows: u64, oldest_us: i64) -> Depth {
        Depth {
            rows,
            capped: false,
            oldest_us: Some(oldest_us),
        }
    }

    #[test]
    fn a_count_that_began_before_an_empty_fetch_is_not_reported() {
        let (start, mut backlog) = (Instant::now(), ReportedBacklog::default());
        let at = |ms| start + Duration::from_millis(ms);
        let clock = DatabaseClock::new(1_000_000, start, start);
        assert_eq!(backlog.empty(at(10)), Depth::EMPTY);
        assert_eq!(backlog.count(rows(7, 0), at(10), at(30), clock), None);
        assert_eq!(backlog.rows(), Some(0));
        let later = backlog.count(rows(7, 0), at(11), at(30), clock);
        assert_eq!((later, backlog.rows()), (Some(rows(7, 0)), Some(7)));
        backlog.forget();
        assert_eq!((backlog.rows(), backlog.oldest_us()), (None, None));
    }

    #[test]
    fn a_row_from_the_future_waits_since_it_was_seen() {
        let (start, mut backlog) = (Instant::now(), ReportedBacklog::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let clock = DatabaseClock::new(1_000_000, start, start);
        let mut oldest_at = |oldest_us, now| {
            let found = backlog.count(rows(7, oldest_us), now, now, clock);
            found.and_then(|depth| depth.oldest_us)
        };
        assert_eq!(oldest_at(i64::MAX, at(1)), Some(2_000_000));
        assert_eq!(oldest_at(i64::MAX, at(9)), Some(2_000_000));
        assert_eq!(oldest_at(5, at(9)), Some(5));
        backlog.empty(at(10));
        let again = backlog.count(rows(7, i64::MAX), at(11), at(11), clock);
        assert_eq!(again.and_then(|depth| depth.oldest_us), Some(12_000_000));
    }

    #[test]
    fn a_report_changes_only_when_a_fetch_contradicts_it() {
        use BacklogStep::{CountSoon, Keep, ReportEmpty};
        use FetchExtent::{AllReturned, MoreWait, NothingReturned, NothingWaits};
        for (reported, extent, step) in [
            (Some(7), NothingWaits, ReportEmpty),
            (Some(0), NothingWaits, Keep),
            (Some(7), NothingReturned, CountSoon),
            (Some(0), NothingReturned, Keep),
            (Some(0), MoreWait, CountSoon),
            (Some(7), MoreWait, Keep),
            (Some(0), AllReturned, Keep),
            (Some(7), AllReturned, Keep),
            (None, NothingWaits, Keep),
            (None, MoreWait, Keep),
        ] {
            assert_eq!(
                after_fetch(reported, extent),
                step,
                "{reported:?} {extent:?}"
            );
        }
    }
}
