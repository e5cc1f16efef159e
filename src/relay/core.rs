//! The relay's decisions: what to fetch, what of it to send, what to settle, which lanes to give
//! back. Facts and `now` in, plans out. Pure.

mod fetch;
mod lanes;
mod outage;
mod poison;
mod records;
mod resting;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use self::poison::Poison;
pub use self::poison::{Lookup, Verdict};
use super::{
    breaker::Breaker,
    jitter::Jitter,
    lanes::LANES,
    marks::{Covered, LaneMarks, Reading, Tick, Ticks},
    openers::Openers,
    outstanding::Outstanding,
    routes::{Destination, Routes},
    stops::Stops,
    window::{Budget, GivenBack, Settle, Slot, TopicIndex, Window},
};
use crate::{
    outbox::{FetchPlan, Fetched, Flowing, Grant, LaneMarksPlan, OutboxRow},
    report::ProblemClass,
    settings::BreakerSettings,
};

/// Pause after a fetch that brought rows, and first pause of an idle table.
const PAUSE_AFTER_WORK: Duration = Duration::from_millis(5);

/// Pause after one that brought so many: where rows come so fast the next brings more for the same
/// cost, to writers too.
const PAUSE_AFTER_MANY: Duration = Duration::from_millis(10);
const MANY_ROWS: usize = 16;

/// Fetches that leave rows out look at no more rows than this, so that a mountain of them cannot
/// block the loop.
const SCAN_ROWS_MAX: usize = 50_000;

/// Rows that fetches leave out: they stay in the table, above a position that their lane remembers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Left {
    Topic(TopicIndex),
    Key(TopicIndex, Arc<str>),
    /// Rows without a declared topic.
    Astray,
}

/// A lane of ours.
#[derive(Clone, Debug, Hash)]
struct Lane {
    epoch: i64,
    marks: LaneMarks,
    /// Rows that are left out lie above these ids; they must be found again.
    held: BTreeMap<Left, i64>,
    /// On its way back: nothing new is taken.
    draining: bool,
    /// More waits than the last fetch could bring.
    hungry: bool,
    high_id: i64,
}

/// A row to send, in this order.
pub struct Outgoing {
    pub slot: Slot,
    pub topic: TopicIndex,
    pub row: OutboxRow,
}

/// How a record ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Kafka has it.
    Published,
    /// Its topic failed, and must rest.
    TopicFailed(ProblemClass),
    /// It was refused, or it stood in a batch that was.
    Refused(ProblemClass),
    /// It was thrown out together with the producer, through no fault of its own.
    Purged,
}

/// State of one relay process, without any IO.
#[derive(Clone)]
pub struct Core {
    routes: Arc<Routes>,
    window: Window,
    stops: Stops,
    poison: Poison,
    outstanding: Outstanding,
    /// What the brokers know of the producer, and of the one for trials.
    openers: Openers,
    trial_openers: Openers,
    breaker: Breaker,
    ticks: Ticks,
    lanes: [Option<Lane>; LANES],
    /// Highest id ever seen: every id up to it has been drawn.
    seen: i64,
    fetch_under_way: bool,
    /// The fetch under way leaves out rows that flow again since: what it covers would be believed
    /// to be all.
    fetch_is_stale: bool,
    fetch_at: Instant,
    pause: Duration,
    poll_interval: Duration,
    /// Payload of the largest row of late, in bytes: of the last fetch, or of one before that is
    /// forgotten bit by bit.
    largest: Option<usize>,
}

impl Core {
    #[must_use]
    pub fn new(routes: Routes, budget: Budget, poll_interval: Duration, now: Instant) -> Self {
        let topics = routes.len();
        Self {
            routes: Arc::new(routes),
            window: Window::new(budget, topics),
            stops: Stops::new(topics),
            poison: Poison::default(),
            outstanding: Outstanding::new(topics, budget.rows),
            openers: Openers::new(topics, budget.rows),
            trial_openers: Openers::new(topics, budget.rows),
            breaker: Breaker::new(
                BreakerSettings::default(),
                budget.rows,
                Jitter::seeded(0),
                now,
            ),
            ticks: Ticks::default(),
            lanes: std::array::from_fn(|_| None),
            seen: 0,
            fetch_under_way: false,
            fetch_is_stale: false,
            fetch_at: now,
            pause: PAUSE_AFTER_WORK,
            poll_interval,
            largest: None,
        }
    }

    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    #[must_use]
    pub fn stops(&self) -> &Stops {
        &self.stops
    }

    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Highest id seen so far; goes with a tick whose transaction has not begun yet.
    #[must_use]
    pub fn seen(&self) -> i64 {
        self.seen
    }

    pub fn tick(&mut self, tick: Tick) {
        self.ticks.add(tick);
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod model;
