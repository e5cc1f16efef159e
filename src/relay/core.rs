//! The relay's decisions: what to fetch, what of it to send, what to settle, which lanes to give
//! back. Facts and `now` in, plans out. Pure.

pub mod breaker;
pub mod clock_step;
mod excluded;
mod fair_share;
mod fetch_plan;
pub(crate) mod first_record_gate;
pub(crate) mod gap_scan;
pub mod in_flight;
pub(crate) mod isolation;
pub mod jitter;
pub mod lane_share;
mod owned_lanes;
pub(crate) mod partition_growth;
pub mod routing;
pub(crate) mod sequence_check;
mod settle_batch;
pub mod stale_leaders;
pub mod topic_state;
pub mod unacknowledged;
pub mod watermarks;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::relay::core::isolation::Isolation;
pub use crate::relay::core::isolation::{Disposition, Lookup, RejectedRow};
pub use crate::relay::core::{
    breaker::ClusterError, in_flight::SettleWhen, topic_state::TopicPresence,
};
use crate::{
    outbox::{FetchFilter, FetchRequest, Fetched, Grant, LaneWatermarks, OutboxRow},
    relay::core::{
        breaker::Breaker,
        first_record_gate::FirstRecordGate,
        in_flight::{Budget, InFlight, ReturnedRow, SettleBatch, Slot, TopicIndex},
        jitter::Jitter,
        lane_share::LANES,
        routing::{Destination, Routes},
        topic_state::TopicStates,
        unacknowledged::Unacknowledged,
        watermarks::{Covered, ReadDecision, Watermark, XidTick, XidTicks},
    },
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
enum Excluded {
    Topic(TopicIndex),
    Key(TopicIndex, Arc<str>),
    /// Rows without a declared topic.
    Astray,
}

/// A lane of ours.
#[derive(Clone, Debug, Hash)]
struct Lane {
    epoch: i64,
    marks: Watermark,
    /// Rows that are left out lie above these ids; they must be found again.
    held: BTreeMap<Excluded, i64>,
    /// On its way back: nothing new is taken.
    draining: bool,
    /// More waits than the last fetch could bring.
    has_more: bool,
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
    /// Kafka rejected it for good, or it was part of a batch that Kafka rejected.
    Rejected(ProblemClass),
    /// It was discarded together with its producer; the failure had another cause.
    Purged,
    /// It was never handed to a producer: its topic or key was paused after the row was taken, the
    /// first-record gate kept it back, or no producer was open. Treated like [`Self::Purged`].
    NotSent,
}

/// State of one relay process, without any IO.
#[derive(Clone)]
pub struct Core {
    routes: Arc<Routes>,
    in_flight: InFlight,
    topic_states: TopicStates,
    isolation: Isolation,
    unacknowledged: Unacknowledged,
    /// What the brokers know of the producer, and of the one for trials.
    first_record_gate: FirstRecordGate,
    probe_first_record_gate: FirstRecordGate,
    breaker: Breaker,
    ticks: XidTicks,
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
            in_flight: InFlight::new(budget, topics),
            topic_states: TopicStates::new(topics),
            isolation: Isolation::default(),
            unacknowledged: Unacknowledged::new(topics, budget.rows),
            first_record_gate: FirstRecordGate::new(topics, budget.rows),
            probe_first_record_gate: FirstRecordGate::new(topics, budget.rows),
            breaker: Breaker::new(
                BreakerSettings::default(),
                budget.rows,
                Jitter::seeded(0),
                now,
            ),
            ticks: XidTicks::default(),
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
    pub fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    #[must_use]
    pub fn topic_states(&self) -> &TopicStates {
        &self.topic_states
    }

    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Highest id seen so far; goes with a tick whose transaction has not begun yet.
    #[must_use]
    pub fn highest_id(&self) -> i64 {
        self.seen
    }

    pub fn on_tick(&mut self, tick: XidTick) {
        self.ticks.add(tick);
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod model;
