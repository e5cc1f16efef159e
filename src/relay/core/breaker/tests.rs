use super::*;

const WINDOW: usize = 1000;

struct Case {
    breaker: Breaker,
    start: Instant,
}

impl Case {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            breaker: Breaker::new(BreakerSettings::default(), WINDOW, Jitter::seeded(7), start),
            start,
        }
    }

    /// With 10 rows outstanding since the start.
    fn quiet(seconds: u64) -> Self {
        let mut case = Self::new();
        for second in 0..=seconds {
            case.evaluate(second, 10);
        }
        case
    }

    fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }

    fn evaluate(&mut self, second: u64, unacknowledged: usize) {
        self.breaker.evaluate(
            unacknowledged,
            ClusterError::None,
            Duration::ZERO,
            self.at(second),
        );
    }

    fn acknowledge(&mut self, second: u64, rows: usize) {
        for _ in 0..rows {
            self.breaker.on_acknowledged(self.at(second));
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
        assert_eq!(
            (case.breaker.state(), case.breaker.room(10)),
            (state, room),
            "after {seconds} s"
        );
    }
}

/// Brokers that are 300 ms away, or that mute requests for 5 s.
#[test]
fn it_waits_longer_for_brokers_that_take_longer() {
    for (allowance_ms, seconds, error, state) in [
        (3_600, 5, ClusterError::None, BreakerState::Closed),
        (3_600, 6, ClusterError::None, BreakerState::Slow),
        (3_600, 13, ClusterError::None, BreakerState::Slow),
        (3_600, 14, ClusterError::None, BreakerState::Open),
        (3_600, 5, ClusterError::Reported, BreakerState::Closed),
        (3_600, 6, ClusterError::Reported, BreakerState::Open),
        (10_000, 11, ClusterError::None, BreakerState::Closed),
        (10_000, 20, ClusterError::None, BreakerState::Open),
    ] {
        let mut case = Case::new();
        for second in 0..=seconds {
            let allowance = Duration::from_millis(allowance_ms);
            case.breaker.evaluate(
                10,
                error,
                allowance,
                case.start + Duration::from_secs(second),
            );
        }
        assert_eq!(
            case.breaker.state(),
            state,
            "{allowance_ms} ms more, after {seconds} s, {error:?}"
        );
    }
}

#[test]
fn nothing_outstanding_is_no_outage_however_long_it_lasts() {
    let mut case = Case::new();
    for second in 0..100 {
        case.breaker
            .evaluate(0, ClusterError::Reported, Duration::ZERO, case.at(second));
    }
    case.breaker
        .evaluate(10, ClusterError::Reported, Duration::ZERO, case.at(100));
    assert_eq!(
        case.breaker.state(),
        BreakerState::Closed,
        "a cluster error is reported, but just now sent for the first time"
    );
}

#[test]
fn an_error_of_the_whole_cluster_opens_it_sooner() {
    let mut case = Case::new();
    for (second, state) in [
        (0, BreakerState::Closed),
        (1, BreakerState::Closed),
        (2, BreakerState::Open),
    ] {
        case.breaker
            .evaluate(10, ClusterError::Reported, Duration::ZERO, case.at(second));
        assert_eq!(case.breaker.state(), state, "after {second} s");
    }
}

#[test]
fn an_acknowledgement_now_and_then_keeps_it_closed() {
    let mut case = Case::new();
    for second in 0..100 {
        case.evaluate(second, 10);
        case.acknowledge(second, 1);
        assert_eq!(
            case.breaker.state(),
            BreakerState::Closed,
            "after {second} s"
        );
    }
}

#[test]
fn after_an_outage_the_window_doubles_with_each_window_that_is_acknowledged() {
    let mut case = Case::quiet(10);
    case.acknowledge(11, 1);
    for rows_max in [64, 128, 256, 512] {
        assert_eq!(
            (case.breaker.state(), case.breaker.room(0)),
            (BreakerState::Closed, rows_max)
        );
        case.acknowledge(12, rows_max - 1);
        assert_eq!(
            case.breaker.room(0),
            rows_max,
            "not before the whole window is acknowledged"
        );
        case.acknowledge(12, 1);
    }
    assert_eq!(case.breaker.room(0), usize::MAX);
}

#[test]
fn a_slow_cluster_gets_the_whole_window_back_at_once() {
    let mut case = Case::quiet(5);
    case.acknowledge(6, 1);
    assert_eq!(
        (case.breaker.state(), case.breaker.room(10)),
        (BreakerState::Closed, usize::MAX)
    );
}

#[test]
fn nothing_is_fetched_for_less_than_a_quarter_of_the_window() {
    let case = Case::quiet(5);
    assert_eq!(
        (
            case.breaker.room(375),
            case.breaker.room(376),
            case.breaker.room(900)
        ),
        (125, 0, 0)
    );
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
        case.breaker.on_fetch(now);
    }
    assert!(pauses[0] <= Duration::from_millis(500), "{:?}", pauses[0]);
    let longest = pauses.iter().max().expect("some");
    assert!(
        *longest <= Duration::from_secs(30) && *longest > Duration::from_secs(25),
        "{longest:?}"
    );
}

#[test]
fn only_rebuilds_without_a_cause_that_come_close_together_open_it() {
    let mut case = Case::new();
    for second in [0, 30, 61, 100] {
        case.breaker.on_producer_rebuilt(case.at(second));
        assert_eq!(
            case.breaker.state(),
            BreakerState::Closed,
            "after {second} s"
        );
    }
    case.breaker.on_producer_rebuilt(case.at(110));
    assert_eq!(
        case.breaker.state(),
        BreakerState::Open,
        "61, 100 and 110 are within a minute"
    );
}

#[test]
fn with_nothing_outstanding_an_answer_of_the_brokers_closes_it() {
    for (unacknowledged, second, state) in [
        (0, 12, BreakerState::Closed),
        (0, 11, BreakerState::Open),
        (1, 60, BreakerState::Open),
    ] {
        let mut case = Case::quiet(10);
        case.breaker
            .on_brokers_answered(unacknowledged, case.at(second));
        assert_eq!(
            case.breaker.state(),
            state,
            "{unacknowledged} outstanding after {second} s"
        );
    }
}

/// Ten seconds after it got lanes it is Open; then they are given back, and every second the
/// brokers answer.
#[test]
fn a_relay_whose_records_are_never_taken_asks_for_lanes_ever_more_rarely() {
    let (mut case, mut second) = (Case::new(), 0);
    let mut open_for = |case: &mut Case| {
        for _ in 0..=10 {
            case.evaluate(second, 10);
            second += 1;
        }
        assert_eq!(case.breaker.state(), BreakerState::Open);
        let opened = second - 1;
        while case.breaker.state() == BreakerState::Open {
            case.breaker.on_brokers_answered(0, case.at(second));
            second += 1;
        }
        case.evaluate(second, 0);
        second - 1 - opened
    };
    let pauses: Vec<_> = (0..8).map(|_| open_for(&mut case)).collect();
    assert_eq!(pauses, [2, 60, 120, 240, 480, 960, 1800, 1800]);
    case.acknowledge(0, 1);
    case.evaluate(0, 0);
    assert_eq!(open_for(&mut case), 2, "an acknowledgement is the proof");
}

#[test]
fn what_was_slow_and_is_gone_is_not_slow_any_more() {
    let mut case = Case::quiet(5);
    case.evaluate(6, 0);
    assert_eq!(case.breaker.state(), BreakerState::Closed);
}

#[test]
fn a_fault_that_outlasts_two_leases_may_be_ours() {
    assert_eq!(
        Case::quiet(9).breaker.health(Case::quiet(9).at(60)),
        Health::Healthy
    );
    let case = Case::quiet(10);
    assert_eq!(
        case.breaker.health(case.at(39)),
        Health::Open { for_long: false }
    );
    assert_eq!(
        case.breaker.health(case.at(40)),
        Health::Open { for_long: true }
    );
}
