//! Circuit breaker on acknowledgements: whether the cluster takes records, and so how many rows may
//! be with the producer. It opens on time, since librdkafka hides its retries. Pure.
//!
//! ```text
//!         no acknowledgement             no acknowledgement for openAfter (*),
//!         for slowAfter                  or three rebuilds without a cause in a minute
//!   Closed ------------------> Slow -------------------------------------------> Open
//!    ^  ^                       |         (from Closed, too)                      |
//!    |  '--- acknowledgement ---'                                                 |
//!    '------------------ acknowledgement: starts again with few rows -------------'
//!
//!   (*) for slowAfter, if librdkafka reports an error of the whole cluster
//! ```
//!
//! Both times are longer where brokers are far away or mute requests because of a quota
//! (`relay::core::patience`).
//!
//! While it is Open, what the producer still has probes the cluster. For topics of which the
//! producer has nothing, a small fetch is let through now and then. Otherwise a relay whose only
//! records are stuck in one sick topic would not find out that the others work.

use std::time::{Duration, Instant};

use crate::{
    relay::core::{
        jitter::Jitter,
        lane_share::{Health, LEASE_TTL},
    },
    report::BreakerState,
    settings::BreakerSettings,
};

/// Rows that may be with the producer at first after an outage, and rows of a fetch while Open.
const START_ROWS: usize = 64;
/// Rebuilds of the producer without a known cause, within [`REBUILDS_WITHIN`], that open the
/// breaker.
const REBUILDS_MAX: usize = 3;
/// Time for which a rebuild counts.
const REBUILDS_WITHIN: Duration = Duration::from_secs(60);
/// Time after which an open breaker is taken to be a fault of this relay alone, if another relay
/// publishes.
const LOCAL_AFTER: Duration = Duration::from_secs(2 * LEASE_TTL.as_secs());
/// A fetch waits until this part of what may be with the producer is free.
const FETCH_MIN_DIVISOR: usize = 4;
/// Upper bound of the back-off before metadata answers alone may close the breaker again.
const ANSWER_BACKOFF_MAX: Duration = Duration::from_mins(30);

/// Whether librdkafka has reported an error of the whole cluster since the last acknowledgement.
/// It also reports idle connections that were closed, so that alone proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterError {
    None,
    Reported,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At most `rows_max` rows may be with the producer. It doubles up to the whole window as rows
    /// are acknowledged.
    Closed { rows_max: usize },
    /// Half of the window may be with the producer.
    Slow,
    /// Only probes are fetched.
    Open { since: Instant },
}

/// The breaker of one relay's Kafka cluster.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    window_rows: usize,
    state: State,
    /// When the last row was acknowledged, or the first was sent since; `None` while no row is
    /// unacknowledged.
    unacknowledged_since: Option<Instant>,
    /// Rows acknowledged since `rows_max` last changed.
    acknowledged: usize,
    /// Rebuilds without a known cause within [`REBUILDS_WITHIN`].
    rebuilds: Vec<Instant>,
    /// When the next fetch may begin while Open.
    probe_at: Instant,
    /// Fetches since it opened.
    probes: u32,
    /// How often metadata answers closed it since the last acknowledgement.
    closed_by_answers: u32,
    jitter: Jitter,
}

impl Breaker {
    /// A closed breaker; `window_rows` is how many rows may be in flight.
    #[must_use]
    pub fn new(
        settings: BreakerSettings,
        window_rows: usize,
        jitter: Jitter,
        now: Instant,
    ) -> Self {
        Self {
            settings,
            window_rows,
            state: State::Closed {
                rows_max: window_rows,
            },
            unacknowledged_since: None,
            acknowledged: 0,
            rebuilds: Vec::new(),
            probe_at: now,
            probes: 0,
            closed_by_answers: 0,
            jitter,
        }
    }

    /// The breaker's state, as it is reported.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Slow => BreakerState::Slow,
            State::Open { .. } => BreakerState::Open,
        }
    }

    /// Age at which an unacknowledged record counts as slow.
    #[must_use]
    pub fn slow_after(&self) -> Duration {
        self.settings.slow_after()
    }

    /// Checks for how long nothing was acknowledged; `unacknowledged` rows are with the producer.
    /// `allowance` is the time that brokers may take longer than next door.
    pub fn evaluate(
        &mut self,
        unacknowledged: usize,
        cluster_error: ClusterError,
        allowance: Duration,
        now: Instant,
    ) {
        if unacknowledged == 0 {
            return self.on_nothing_unacknowledged();
        }
        let waited = now.saturating_duration_since(*self.unacknowledged_since.get_or_insert(now));
        match self.state {
            State::Open { .. } => {}
            _ if waited >= self.open_after(cluster_error) + allowance => self.open(now),
            State::Closed { .. } if waited >= self.settings.slow_after() + allowance => {
                self.state = State::Slow;
            }
            _ => {}
        }
    }

    fn on_nothing_unacknowledged(&mut self) {
        self.unacknowledged_since = None;
        if self.state == State::Slow {
            self.close(self.window_rows);
        }
    }

    /// Time without an acknowledgement after which the breaker opens.
    fn open_after(&self, cluster_error: ClusterError) -> Duration {
        match cluster_error {
            ClusterError::Reported => self.settings.slow_after(),
            ClusterError::None => self.settings.open_after(),
        }
    }

    /// Records that a row was acknowledged.
    pub fn on_acknowledged(&mut self, now: Instant) {
        (self.unacknowledged_since, self.closed_by_answers) = (Some(now), 0);
        match self.state {
            State::Open { .. } => self.close(START_ROWS),
            State::Slow => self.close(self.window_rows),
            State::Closed { rows_max } => self.count_acknowledged(rows_max),
        }
    }

    /// Counts an acknowledged row. After `rows_max` of them twice as many may be with the producer.
    fn count_acknowledged(&mut self, rows_max: usize) {
        self.acknowledged += 1;
        if self.acknowledged >= rows_max {
            self.close(rows_max * 2);
        }
    }

    /// Records that the brokers answered a request for metadata. Without unacknowledged rows no
    /// record can close the breaker, so the answer does: a relay without lanes has no records. The
    /// answer proves nothing, so each further one must come later: otherwise a relay whose brokers
    /// answer but take no records would claim lanes and give them back, over and over.
    pub fn on_brokers_answered(&mut self, unacknowledged: usize, now: Instant) {
        if unacknowledged == 0 && self.is_open_for(self.answer_counts_after(), now) {
            self.closed_by_answers += 1;
            self.close(START_ROWS);
        }
    }

    /// Time for which the breaker must be open before an answer of the brokers closes it.
    fn answer_counts_after(&self) -> Duration {
        match self.closed_by_answers {
            0 => self.settings.slow_after(),
            // 30 s doubled up to six times is beyond the maximum of 30 min.
            times => ANSWER_BACKOFF_MAX.min(LOCAL_AFTER * (1 << times.min(6))),
        }
    }

    /// Records that the producer was replaced, and that neither a record nor a topic was the cause.
    /// Returns the pause before the next one.
    pub fn on_producer_rebuilt(&mut self, now: Instant) -> Duration {
        self.forget_old_rebuilds(now);
        let pause = self.backoff(self.rebuilds.len() as u32);
        self.rebuilds.push(now);
        self.open_after_rebuilds(now);
        pause
    }

    fn forget_old_rebuilds(&mut self, now: Instant) {
        self.rebuilds
            .retain(|at| now.saturating_duration_since(*at) < REBUILDS_WITHIN);
    }

    /// Opens after [`REBUILDS_MAX`] rebuilds, unless it is open already.
    fn open_after_rebuilds(&mut self, now: Instant) {
        if self.rebuilds.len() >= REBUILDS_MAX && !self.is_open() {
            self.open(now);
        }
    }

    /// How many more rows may go to the producer, from [`Self::not_before`] on.
    #[must_use]
    pub fn room(&self, unacknowledged: usize) -> usize {
        let rows_max = match self.state {
            State::Closed { rows_max } if rows_max >= self.window_rows => return usize::MAX,
            State::Closed { rows_max } => rows_max,
            State::Slow => self.window_rows / 2,
            State::Open { .. } => return START_ROWS,
        };
        let room = rows_max.saturating_sub(unacknowledged);
        // Many small fetches cost more than a larger one.
        if room >= rows_max / FETCH_MIN_DIVISOR {
            room
        } else {
            0
        }
    }

    /// When the next fetch may begin; `None`: at any time.
    #[must_use]
    pub fn not_before(&self) -> Option<Instant> {
        self.is_open().then_some(self.probe_at)
    }

    /// Records that a fetch begins. While Open, it is a probe, and the next one is delayed.
    pub fn on_fetch(&mut self, now: Instant) {
        if self.is_open() {
            self.probes += 1;
            self.probe_at = now + self.backoff(self.probes);
        }
    }

    /// Pause after this number of failures.
    fn backoff(&mut self, failures: u32) -> Duration {
        self.jitter.backoff(failures, self.settings.max_backoff())
    }

    /// What the state means for the lanes of this relay.
    #[must_use]
    pub fn health(&self, now: Instant) -> Health {
        match self.state {
            State::Open { .. } => Health::Open {
                for_long: self.is_open_for(LOCAL_AFTER, now),
            },
            _ => Health::Healthy,
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    fn is_open_for(&self, least: Duration, now: Instant) -> bool {
        matches!(self.state, State::Open { since } if now.saturating_duration_since(since) >= least)
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Open { since: now };
        self.probes = 0;
        self.probe_at = now + self.backoff(0);
    }

    fn close(&mut self, rows_max: usize) {
        self.state = State::Closed {
            rows_max: rows_max.min(self.window_rows),
        };
        self.acknowledged = 0;
    }
}

#[cfg(test)]
mod tests;
