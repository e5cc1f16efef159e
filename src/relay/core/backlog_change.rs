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
    /// When rows were first seen to wait; `None` if none waits.
    seen_at: Option<Instant>,
    /// When the last fetch began that showed that no row waits any more.
    emptied_at: Option<Instant>,
}

impl ReportedBacklog {
    /// Takes rows that a statement counted which began then. Returns what to report: nothing if a
    /// later fetch showed that none of them waits any more.
    pub fn count(&mut self, counted: Depth, began: Instant, now: Instant) -> Option<Depth> {
        if self.emptied_at.is_some_and(|emptied| began <= emptied) {
            return None;
        }
        self.seen_at = (counted.rows > 0).then(|| self.seen_at.unwrap_or(now));
        self.depth = Some(counted);
        self.depth
    }

    /// Takes that a fetch, which began then, showed that no row waits. Returns what to report.
    pub fn empty(&mut self, began: Instant) -> Depth {
        *self = Self {
            depth: Some(Depth::EMPTY),
            seen_at: None,
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

    /// Since when the oldest row waits, microseconds since 1970; `None` if none is known to wait.
    /// That is its `created_at`. One that is ahead says nothing, so the time counts at which rows
    /// were first seen to wait.
    #[must_use]
    pub fn waiting_since_us(&self, now: Instant, clock: DatabaseClock) -> Option<i64> {
        let oldest_us = self.depth?.oldest_us?;
        if oldest_us <= clock.at(now) {
            return Some(oldest_us);
        }
        self.seen_at.map(|seen_at| clock.at(seen_at))
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
        assert_eq!(backlog.empty(at(10)), Depth::EMPTY);
        assert_eq!(backlog.count(rows(7, 0), at(10), at(30)), None);
        assert_eq!(backlog.rows(), Some(0));
        let later = backlog.count(rows(7, 0), at(11), at(30));
        assert_eq!((later, backlog.rows()), (Some(rows(7, 0)), Some(7)));
        backlog.forget();
        assert_eq!(backlog.rows(), None);
    }

    #[test]
    fn a_row_from_the_future_waits_since_it_was_seen() {
        let (start, mut backlog) = (Instant::now(), ReportedBacklog::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let clock = DatabaseClock::new(1_000_000, start, start);
        let mut since = |oldest_us, now| {
            let reported = backlog.count(rows(7, oldest_us), now, now);
            assert_eq!(reported.and_then(|depth| depth.oldest_us), Some(oldest_us));
            backlog.waiting_since_us(now, clock)
        };
        assert_eq!(since(i64::MAX, at(1)), Some(2_000_000));
        assert_eq!(since(i64::MAX, at(9)), Some(2_000_000));
        assert_eq!(since(5, at(9)), Some(5));
        backlog.empty(at(10));
        assert_eq!(backlog.waiting_since_us(at(10), clock), None);
        backlog.count(rows(7, i64::MAX), at(11), at(11));
        assert_eq!(backlog.waiting_since_us(at(20), clock), Some(12_000_000));
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
