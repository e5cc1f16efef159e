//! Does the cluster take records, and so how many rows may be with the producer? It trips on time, since librdkafka hides its retries. Pure.
//!
//! ```text
//!            no acknowledgement for slowAfter            ... for openAfter; three causeless rebuilds in a minute
//!   Closed ---------------------------------> Slow ---------------------------------------------------------> Open
//!     ^ ^----------- an acknowledgement -------'        (from Closed, too; for slowAfter when librdkafka           |
//!     |                                                  tells of an error of the whole cluster)                  |
//!     '-------------------------- an acknowledgement: starts again with few rows ---------------------------------'
//! ```
//!
//! While it is Open, what the producer still holds is the probe. For topics that have nothing there, a small fetch is let through now and then:
//! else a relay whose only records are stuck in one sick topic would not find out that the others work.

use std::time::{Duration, Instant};

use super::{
    jitter::Jitter,
    lanes::{Health, LEASE_TTL},
};
use crate::{report::BreakerState, settings::BreakerSettings};

/// Rows of the first window after an outage, and of a probe.
const START_ROWS: usize = 64;
/// So many rebuilds of the producer without a known cause, within so long, are an outage.
const REBUILDS_MAX: usize = 3;
const REBUILDS_WITHIN: Duration = Duration::from_secs(60);
/// Open for longer, while another relay publishes: the fault is ours.
const LOCAL_AFTER: Duration = Duration::from_secs(2 * LEASE_TTL.as_secs());
/// Longest time for which answers of the brokers count for nothing after answers that no acknowledgement followed.
const UNPROVEN_MAX: Duration = Duration::from_mins(30);

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
    pub fn new(settings: BreakerSettings, window_rows: usize, jitter: Jitter, now: Instant) -> Self {
        Self {
            settings,
            window_rows,
            state: State::Closed { rows_max: window_rows },
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

    /// Looks at the clock. `outstanding`: rows with the producer; `trouble`: librdkafka told of an error of the whole cluster, and nothing was
    /// acknowledged since. That alone is no proof, it tells of idle connections too.
    pub fn look(&mut self, outstanding: usize, trouble: bool, now: Instant) {
        if outstanding == 0 {
            self.quiet_since = None;
            if self.state == State::Slow {
                self.close(self.window_rows);
            }
            return;
        }
        let quiet = now.saturating_duration_since(*self.quiet_since.get_or_insert(now));
        let open_after = if trouble { self.settings.slow_after() } else { self.settings.open_after() };
        match self.state {
            State::Open { .. } => {}
            _ if quiet >= open_after => self.open(now),
            State::Closed { .. } if quiet >= self.settings.slow_after() => self.state = State::Slow,
            _ => {}
        }
    }

    /// A row was acknowledged.
    pub fn acknowledged(&mut self, now: Instant) {
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

    /// The brokers answered a question. With nothing outstanding no record can close the breaker, so this does: without lanes a relay has no
    /// record. It is no proof: brokers that answer and take no record would get lanes, and give them back, over and over.
    pub fn answered(&mut self, outstanding: usize, now: Instant) {
        let least = match self.unproven {
            0 => self.settings.slow_after(),
            times => UNPROVEN_MAX.min(LOCAL_AFTER * (1 << times.min(6))),
        };
        if outstanding == 0 && self.is_open_for(least, now) {
            self.unproven += 1;
            self.close(START_ROWS);
        }
    }

    /// The producer had to be thrown out, and no record or topic is to blame. Returns the pause before the next one.
    pub fn rebuilt(&mut self, now: Instant) -> Duration {
        self.rebuilds.retain(|at| now.saturating_duration_since(*at) < REBUILDS_WITHIN);
        let pause = self.jitter.backoff(self.rebuilds.len() as u32, self.settings.max_backoff());
        self.rebuilds.push(now);
        if self.rebuilds.len() >= REBUILDS_MAX && !matches!(self.state, State::Open { .. }) {
            self.open(now);
        }
        pause
    }

    /// How many rows more may go to the producer. Not before [`Self::not_before`].
    #[must_use]
    pub fn room(&self, outstanding: usize) -> usize {
        let rows_max = match self.state {
            State::Closed { rows_max } if rows_max >= self.window_rows => return usize::MAX,
            State::Closed { rows_max } => rows_max,
            State::Slow => self.window_rows / 2,
            State::Open { .. } => return START_ROWS,
        };
        // Many small fetches would only cost.
        Some(rows_max.saturating_sub(outstanding)).filter(|room| *room >= rows_max / 4).unwrap_or(0)
    }

    /// When the next fetch may begin, as far as the breaker is concerned.
    #[must_use]
    pub fn not_before(&self) -> Option<Instant> {
        matches!(self.state, State::Open { .. }).then_some(self.probe_at)
    }

    /// A fetch begins: while Open, that was the probe.
    pub fn fetching(&mut self, now: Instant) {
        if matches!(self.state, State::Open { .. }) {
            self.probes += 1;
            self.probe_at = now + self.jitter.backoff(self.probes, self.settings.max_backoff());
        }
    }

    /// What it means for our lanes.
    #[must_use]
    pub fn health(&self, now: Instant) -> Health {
        match self.state {
            State::Open { .. } => Health::Open { for_long: self.is_open_for(LOCAL_AFTER, now) },
            _ => Health::Well,
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
        self.state = State::Closed { rows_max: rows_max.min(self.window_rows) };
        self.acknowledged = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: usize = 1000;

    struct Case {
        breaker: Breaker,
        start: Instant,
    }

    impl Case {
        fn new() -> Self {
            let start = Instant::now();
            Self { breaker: Breaker::new(BreakerSettings::default(), WINDOW, Jitter::seeded(7), start), start }
        }

        /// With 10 rows outstanding since the start.
        fn quiet(seconds: u64) -> Self {
            let mut case = Self::new();
            for second in 0..=seconds {
                case.look(second, 10);
            }
            case
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn look(&mut self, second: u64, outstanding: usize) {
            self.breaker.look(outstanding, false, self.at(second));
        }

        fn acknowledge(&mut self, second: u64, rows: usize) {
            for _ in 0..rows {
                self.breaker.acknowledged(self.at(second));
            }
        }
    }

    #[test]
    fn it_is_slow_after_two_seconds_and_open_after_ten() {
        for (seconds, state, room) in [
            (1, BreakerState::Closed, usize::MAX),
            (2, BreakerState::Slow, 490),
            (9, BreakerState::Slow, 490),
            (10, BreakerState::Open, 64),
        ] {
            let case = Case::quiet(seconds);
            assert_eq!((case.breaker.state(), case.breaker.room(10)), (state, room), "after {seconds} s");
        }
    }

    #[test]
    fn nothing_outstanding_is_no_outage_however_long_it_lasts() {
        let mut case = Case::new();
        for second in 0..100 {
            case.breaker.look(0, true, case.at(second));
        }
        case.breaker.look(10, true, case.at(100));
        assert_eq!(case.breaker.state(), BreakerState::Closed, "told of a cluster error, but just now sent for the first time");
    }

    #[test]
    fn an_error_of_the_whole_cluster_opens_it_sooner() {
        let mut case = Case::new();
        for (second, state) in [(0, BreakerState::Closed), (1, BreakerState::Closed), (2, BreakerState::Open)] {
            case.breaker.look(10, true, case.at(second));
            assert_eq!(case.breaker.state(), state, "after {second} s");
        }
    }

    #[test]
    fn an_acknowledgement_now_and_then_keeps_it_closed() {
        let mut case = Case::new();
        for second in 0..100 {
            case.look(second, 10);
            case.acknowledge(second, 1);
            assert_eq!(case.breaker.state(), BreakerState::Closed, "after {second} s");
        }
    }

    #[test]
    fn after_an_outage_the_window_doubles_with_each_window_that_is_acknowledged() {
        let mut case = Case::quiet(10);
        case.acknowledge(11, 1);
        for rows_max in [64, 128, 256, 512] {
            assert_eq!((case.breaker.state(), case.breaker.room(0)), (BreakerState::Closed, rows_max));
            case.acknowledge(12, rows_max - 1);
            assert_eq!(case.breaker.room(0), rows_max, "not before the whole window is acknowledged");
            case.acknowledge(12, 1);
        }
        assert_eq!(case.breaker.room(0), usize::MAX);
    }

    #[test]
    fn a_slow_cluster_gets_the_whole_window_back_at_once() {
        let mut case = Case::quiet(5);
        case.acknowledge(6, 1);
        assert_eq!((case.breaker.state(), case.breaker.room(10)), (BreakerState::Closed, usize::MAX));
    }

    #[test]
    fn nothing_is_fetched_for_less_than_a_quarter_of_the_window() {
        let case = Case::quiet(5);
        assert_eq!((case.breaker.room(375), case.breaker.room(376), case.breaker.room(900)), (125, 0, 0));
    }

    #[test]
    fn probes_become_rarer_and_never_stop() {
        let mut case = Case::quiet(10);
        let mut now = case.at(10);
        let mut pauses = Vec::new();
        for _ in 0..200 {
            let at = case.breaker.not_before().expect("open");
            pauses.push(at.saturating_duration_since(now));
            now = at.max(now);
            case.breaker.fetching(now);
        }
        assert!(pauses[0] <= Duration::from_millis(500), "{:?}", pauses[0]);
        let longest = pauses.iter().max().expect("some");
        assert!(*longest <= Duration::from_secs(30) && *longest > Duration::from_secs(25), "{longest:?}");
    }

    #[test]
    fn only_rebuilds_without_a_cause_that_come_close_together_open_it() {
        let mut case = Case::new();
        for second in [0, 30, 61, 100] {
            case.breaker.rebuilt(case.at(second));
            assert_eq!(case.breaker.state(), BreakerState::Closed, "after {second} s");
        }
        case.breaker.rebuilt(case.at(110));
        assert_eq!(case.breaker.state(), BreakerState::Open, "61, 100 and 110 are within a minute");
    }

    #[test]
    fn with_nothing_outstanding_an_answer_of_the_brokers_closes_it() {
        for (outstanding, second, state) in [(0, 12, BreakerState::Closed), (0, 11, BreakerState::Open), (1, 60, BreakerState::Open)] {
            let mut case = Case::quiet(10);
            case.breaker.answered(outstanding, case.at(second));
            assert_eq!(case.breaker.state(), state, "{outstanding} outstanding after {second} s");
        }
    }

    /// Ten seconds after it got lanes it is Open; then they are given back, and every second the brokers answer.
    #[test]
    fn a_relay_whose_records_are_never_taken_asks_for_lanes_ever_more_rarely() {
        let (mut case, mut second) = (Case::new(), 0);
        let mut open_for = |case: &mut Case| {
            for _ in 0..=10 {
                case.look(second, 10);
                second += 1;
            }
            assert_eq!(case.breaker.state(), BreakerState::Open);
            let opened = second - 1;
            while case.breaker.state() == BreakerState::Open {
                case.breaker.answered(0, case.at(second));
                second += 1;
            }
            case.look(second, 0);
            second - 1 - opened
        };
        let pauses: Vec<_> = (0..8).map(|_| open_for(&mut case)).collect();
        assert_eq!(pauses, [2, 60, 120, 240, 480, 960, 1800, 1800]);
        case.acknowledge(0, 1);
        case.look(0, 0);
        assert_eq!(open_for(&mut case), 2, "an acknowledgement is the proof");
    }

    #[test]
    fn what_was_slow_and_is_gone_is_not_slow_any_more() {
        let mut case = Case::quiet(5);
        case.look(6, 0);
        assert_eq!(case.breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_fault_that_outlasts_two_leases_may_be_ours() {
        assert_eq!(Case::quiet(9).breaker.health(Case::quiet(9).at(60)), Health::Well);
        let case = Case::quiet(10);
        assert_eq!(case.breaker.health(case.at(39)), Health::Open { for_long: false });
        assert_eq!(case.breaker.health(case.at(40)), Health::Open { for_long: true });
    }
}
