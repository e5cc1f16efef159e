//! The relay's decisions: what to fetch, what of it to send, what to settle, which lanes to give
//! back. Facts and `now` in, plans out. Pure.
//!
//! [`Core`] is the state. Its public face is cut by step, each in a file of its own:
//!
//! ```text
//!   fetch_plan       next_fetch_at  plan_fetch -> accept | on_fetch_failed
//!                    on_tick  needs_tick
//!   doorbell         next_bell_request -> on_bell_answer | on_bell_lost  on_ring
//!   send_gate        admit  on_new_producer  on_new_probe_producer  on_partition_count
//!                    clients_wanted -> add_client | remove_client -> is_client_free
//!   delivery_report  on_report  on_rejected_by_producer
//!   settle_batch     next_settle -> on_settled | on_settle_failed  on_straggler
//!   owned_lanes      on_granted  on_released  lose_lanes  watermarks
//!   drain            drain -> drained_lanes
//!   excluded         on_topic_metadata  next_resume_at -> resume_due
//!   row_limits       on_topic_limits  large_rows
//!   isolation        next_lookup -> on_looked_up  next_probe  next_disposition  set_parked
//!   acknowledgement_check
//!                    check_acknowledgements  on_brokers_answered  topic_problems
//!                    on_broker_times
//! ```

mod acknowledgement_check;
pub mod backlog_change;
pub mod breaker;
mod client_count;
pub mod clock_skew;
pub mod clock_step;
mod delivery_report;
pub mod doorbell;
mod drain;
mod excluded;
mod fair_share;
mod fetch_plan;
pub(crate) mod first_record_gate;
pub(crate) mod gap_scan;
pub mod ids;
pub mod in_flight;
pub(crate) mod isolation;
pub mod jitter;
pub mod lane_share;
mod owned_lanes;
pub(crate) mod partition_client;
pub(crate) mod partition_growth;
pub mod patience;
pub mod recent_max;
pub mod routing;
pub mod row_limits;
mod send_gate;
mod send_window;
pub(crate) mod sequence_check;
mod settle_batch;
pub mod stale_leaders;
pub mod throttle;
pub mod topic_state;
pub mod unacknowledged;
pub mod watermarks;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use crate::relay::core::{
    breaker::ClusterError,
    drain::DrainBlockers,
    first_record_gate::Destination,
    in_flight::SettleWhen,
    isolation::{Disposition, Lookup, ProbeKind, RejectedRow},
    topic_state::TopicPresence,
};
use crate::{
    outbox::{Lane, OutboxRow, RowId},
    relay::core::{
        breaker::Breaker,
        client_count::ClientCount,
        doorbell::Doorbell,
        fair_share::FairShare,
        fetch_plan::PAUSE_AFTER_WORK,
        first_record_gate::FirstRecordGate,
        ids::{Slot, TopicIndex},
        in_flight::{Budget, InFlight},
        isolation::Isolation,
        jitter::Jitter,
        lane_share::LANES,
        owned_lanes::OwnedLane,
        patience::Patience,
        routing::Routes,
        row_limits::RowLimits,
        send_window::SendWindow,
        throttle::Throttle,
        topic_state::TopicStates,
        watermarks::{XidTick, XidTicks},
    },
    report::ProblemClass,
    settings::BreakerSettings,
};

/// A row to send. Rows are sent in the order in which they are returned.
pub struct Outgoing {
    pub slot: Slot,
    pub topic: TopicIndex,
    pub row: OutboxRow,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Kafka acknowledged the record.
    Published,
    /// The record failed for a reason that concerns its topic, which must be paused.
    TopicFailed(ProblemClass),
    /// Kafka rejected the record for good, or a batch that it was part of.
    Rejected(ProblemClass),
    /// The record was discarded together with its producer; the failure had another cause.
    Purged,
    /// The row was never handed to a producer: its topic or key was paused after the row was taken,
    /// the first-record gate kept it back, or no producer was open. Treated like [`Self::Purged`].
    NotSent,
}

/// Whether a fetch is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
enum FetchState {
    /// No fetch is under way.
    Idle,
    /// A fetch is under way, and its rows will be taken.
    UnderWay,
    /// A fetch is under way, and its rows will be ignored: it leaves out rows that are no longer
    /// excluded, or may show an earlier ownership of a lane.
    Stale,
}

/// State of one relay process, without any IO.
#[derive(Clone)]
pub struct Core {
    routes: Arc<Routes>,
    in_flight: InFlight,
    topics: TopicStates,
    fair_share: FairShare,
    isolation: Isolation,
    /// Which partitions know the main producer.
    first_record_gate: FirstRecordGate,
    /// Which partitions know the probe producer.
    probe_first_record_gate: FirstRecordGate,
    /// Where rows that are sent alone go.
    single_gate: FirstRecordGate,
    client_count: ClientCount,
    breaker: Breaker,
    throttle: Throttle,
    patience: Patience,
    /// Age at which an unacknowledged record is overdue: `slowAfter`, and what distance, quotas and
    /// load allow.
    overdue_after: Duration,
    send_window: SendWindow,
    row_limits: RowLimits,
    ticks: XidTicks,
    /// Lanes by number; `None` for a lane that is not owned.
    lanes: [Option<OwnedLane>; LANES],
    /// Highest id that any fetch returned or read past: every id up to it has been drawn.
    highest_id: RowId,
    /// The lane that the next fetch begins with: the last one had rows of it that did not fit.
    first_lane: Option<Lane>,
    fetch: FetchState,
    /// When the next fetch may begin.
    fetch_at: Instant,
    /// Pause after the next fetch that brings nothing.
    pause: Duration,
    /// Upper bound of `pause`.
    poll_interval: Duration,
    doorbell: Doorbell,
    /// Bytes of the largest row that recent fetches read; shrinks with each fetch. `None` before
    /// the first row.
    largest_row: Option<usize>,
}

impl Core {
    /// A relay without lanes, whose topics no broker has listed.
    #[must_use]
    pub fn new(routes: Routes, budget: Budget, poll_interval: Duration, now: Instant) -> Self {
        let topics = routes.len();
        let settings = BreakerSettings::default();
        Self {
            routes: Arc::new(routes),
            in_flight: InFlight::new(budget),
            topics: TopicStates::new(topics),
            fair_share: FairShare::new(budget, topics),
            isolation: Isolation::default(),
            first_record_gate: FirstRecordGate::new(topics, budget.rows),
            probe_first_record_gate: FirstRecordGate::new(topics, budget.rows),
            single_gate: FirstRecordGate::new(topics, budget.rows),
            client_count: ClientCount::new(now),
            breaker: Breaker::new(settings, budget.rows, Jitter::seeded(0), now),
            throttle: Throttle::default(),
            patience: Patience::new(now),
            overdue_after: settings.slow_after(),
            send_window: SendWindow::new(budget, now),
            row_limits: RowLimits::default(),
            ticks: XidTicks::default(),
            lanes: std::array::from_fn(|_| None),
            highest_id: RowId::ZERO,
            first_lane: None,
            fetch: FetchState::Idle,
            fetch_at: now,
            pause: PAUSE_AFTER_WORK,
            poll_interval,
            doorbell: Doorbell::new(now),
            largest_row: None,
        }
    }

    /// Rows in flight.
    #[must_use]
    pub fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// States of the declared topics.
    #[must_use]
    pub fn topics(&self) -> &TopicStates {
        &self.topics
    }

    /// The declared topics, and what is routed to them.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Highest id that any fetch returned or read past. It goes into a tick whose transaction has
    /// not begun yet.
    #[must_use]
    pub fn highest_id(&self) -> RowId {
        self.highest_id
    }

    /// Records a transaction of ours, and which ids had been drawn before it.
    pub fn on_tick(&mut self, tick: XidTick) {
        self.ticks.add(tick);
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod model;
