//! Does the cluster take records, and so how many rows may be with the producer? It trips on time,
//! since librdkafka hides its retries. Pure.
//!
//! ```text
//!            no acknowledgement for slowAfter            ... for openAfter; three causeless rebuilds in a minute
//!   Closed ---------------------------------> Slow ---------------------------------------------------------> Open
//!     ^ ^----------- an acknowledgement -------'        (from Closed, too; for slowAfter when librdkafka           |
//!     |                                                  tells of an error of the whole cluster)                  |
//!     '-------------------------- an acknowledgement: starts again with few rows ---------------------------------'
//! ```
//!
//! While it is Open, what the producer still holds is the probe. For topics that have nothing
//! there, a small fetch is let through now and then: else a relay whose only records are stuck in
//! one sick topic would not find out that the others work.

use std::time::{Duration, Instant};

use crate::{
    relay::core::{
        jitter::Jitter,
        lane_share::{Health, LEASE_TTL},
    },
    report::BreakerState,
    settings::BreakerSettings,
};

/// Rows of the first window after an outage, and of a probe.
const START_ROWS: usize = 64;
/// So many rebuilds of the producer without a known cause, within so long, are an outage.
const REBUILDS_MAX: usize = 3;
const REBUILDS_WITHIN: Duration = Duration::from_secs(60);
/// Open for longer, while another relay publishes: the fault is ours.
const LOCAL_AFTER: Duration = Duration::from_secs(2 * LEASE_TTL.as_secs());
/// Longest time for which answers of the brokers count for nothing after answers that no
/// acknowledgement followed.
const UNPROVEN_MAX: Duration = Duration::from_mins(30);

/// Whether librdkafka has reported an error of the whole cluster since the last acknowledgement.
/// It also reports idle connections that were closed, so that alone proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterError {
    None,
    Reported,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At most so many rows may be with the producer; the whole window when it has grown that far.
    Closed { rows_max: usize },
    /// Half of the window.
    Slow,
    /// Nothing but probes.
    Open { since: Instant },
}

/// The breaker of one relay's Kafka cluster.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    window_rows: usize,
    state: State,
    /// While something is outstanding: the last acknowledgement, or the moment since when it is.
    quiet_since: Option<Instant>,
    /// Acknowledged since the slow start last doubled.
    acknowledged: usize,
    /// Causeless rebuilds of the last minute.
    rebuilds: Vec<Instant>,
    probe_at: Instant,
    probes: u32,
    /// How often it was closed by an answer since the last acknowledgement.
    unproven: u32,
    jitter: Jitter,
}

impl Breaker {
    /// Closed; `window_rows` is the size of the whole window.
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
            quiet_since: None,
            acknowledged: 0,
            rebuilds: Vec::new(),
            probe_at: now,
            probes: 0,
            unproven: 0,
            jitter,
        }
    }

    #[must_use]
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Slow => BreakerState::Slow,
            State::Open { .. } => BreakerState::Open,
        }
    }

    /// How long a record may take before it is worth a thought.
    #[must_use]
    pub fn slow_after(&self) -> Duration {
        self.settings.slow_after()
    }

    /// Looks at the clock. `unacknowledged`: rows with the producer; `cluster_error`: librdkafka told of an
    /// error of the whole cluster, and nothing was acknowledged since. That alone is no proof, it
    /// tells of idle connections too.
    pub fn evaluate(&mut self, unacknowledged: usize, cluster_error: ClusterError, now: Instant) {
        if unacknowledged == 0 {
            self.quiet_since = None;
            if self.state == State::Slow {
                self.close(self.window_rows);
            }
            return;
        }
        let quiet = now.saturating_duration_since(*self.quiet_since.get_or_insert(now));
        let open_after = if cluster_error == ClusterError::Reported {
            self.settings.slow_after()
        } else {
            self.settings.open_after()
        };
        match self.state {
            State::Open { .. } => {}
            _ if quiet >= open_after => self.open(now),
            State::Closed { .. } if quiet >= self.settings.slow_after() => self.state = State::Slow,
            _ => {}
        }
    }

    /// A row was acknowledged.
    pub fn on_acknowledged(&mut self, now: Instant) {
        (self.quiet_since, self.unproven) = (Some(now), 0);
        match self.state {
            State::Open { .. } => self.close(START_ROWS),
            State::Slow => self.close(self.window_rows),
            State::Closed { rows_max } => {
                self.acknowledged += 1;
                if self.acknowledged >= rows_max {
                    self.close(rows_max * 2);
                }
            }
        }
    }

    /// The brokers answered a question. With nothing outstanding no record can close the breaker,
    /// so this does: without lanes a relay has no record. It is no proof: brokers that answer and
    /// take no record would get lanes, and give them back, over and over.
    pub fn on_brokers_answered(&mut self, unacknowledged: usize, now: Instant) {
        let least = match self.unproven {
            0 => self.settings.slow_after(),
            times => UNPROVEN_MAX.min(LOCAL_AFTER * (1 << times.min(6))),
        };
        if unacknowledged == 0 && self.is_open_for(least, now) {
            self.unproven += 1;
            self.close(START_ROWS);
        }
    }

    /// The producer had to be thrown out, and no record or topic is to blame. Returns the pause
    /// before the next one.
    pub fn on_producer_rebuilt(&mut self, now: Instant) -> Duration {
        self.rebuilds
            .retain(|at| now.saturating_duration_since(*at) < REBUILDS_WITHIN);
        let pause = self
            .jitter
            .backoff(self.rebuilds.len() as u32, self.settings.max_backoff());
        self.rebuilds.push(now);
        if self.rebuilds.len() >= REBUILDS_MAX && !matches!(self.state, State::Open { .. }) {
            self.open(now);
        }
        pause
    }

    /// How many rows more may go to the producer. Not before [`Self::not_before`].
    #[must_use]
    pub fn room(&self, unacknowledged: usize) -> usize {
        let rows_max = match self.state {
            State::Closed { rows_max } if rows_max >= self.window_rows => return usize::MAX,
            State::Closed { rows_max } => rows_max,
            State::Slow => self.window_rows / 2,
            State::Open { .. } => return START_ROWS,
        };
        // Many small fetches would only cost.
        Some(rows_max.saturating_sub(unacknowledged))
            .filter(|room| *room >= rows_max / 4)
            .unwrap_or(0)
    }

    /// When the next fetch may begin, as far as the breaker is concerned.
    #[must_use]
    pub fn not_before(&self) -> Option<Instant> {
        matches!(self.state, State::Open { .. }).then_some(self.probe_at)
    }

    /// A fetch begins: while Open, that was the probe.
    pub fn on_fetch(&mut self, now: Instant) {
        if matches!(self.state, State::Open { .. }) {
            self.probes += 1;
            self.probe_at = now
                + self
                    .jitter
                    .backoff(self.probes, self.settings.max_backoff());
        }
    }

    /// What it means for our lanes.
    #[must_use]
    pub fn health(&self, now: Instant) -> Health {
        match self.state {
            State::Open { .. } => Health::Open {
                for_long: self.is_open_for(LOCAL_AFTER, now),
            },
            _ => Health::Healthy,
        }
    }

    fn is_open_for(&self, least: Duration, now: Instant) -> bool {
        matches!(self.state, State::Open { since } if now.saturating_duration_since(since) >= least)
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Open { since: now };
        self.probes = 0;
        self.probe_at = now + self.jitter.backoff(0, self.settings.max_backoff());
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
