//! One decision at a time; `simulation` has an hour of them.

use super::*;
use crate::operator::fixtures::at;

fn policy() -> ScalingPolicy {
    let (oldest_age, stabilization) =
        (SignedDuration::from_secs(5), SignedDuration::from_secs(300));
    ScalingPolicy {
        min: 1,
        max: 8,
        rows_per_relay: 10_000,
        oldest_age,
        stabilization,
    }
}

fn load(rows: i64) -> Load {
    Load {
        rows,
        oldest_age: SignedDuration::ZERO,
        published_per_second: 100.0,
        breaker_open: false,
    }
}

/// Relays that scale as decided.
struct Relays {
    count: i32,
    available: i32,
    memory: ScalingMemory,
}

fn relays(count: i32) -> Relays {
    Relays {
        count,
        available: count,
        memory: ScalingMemory::default(),
    }
}

impl Relays {
    fn decide_at(&mut self, seconds: i64, load: Option<Load>) -> (i32, Reason) {
        let inputs = ScaleInputs {
            count: self.count,
            available: self.available,
            load,
        };
        let (decision, memory) = decide(&policy(), &inputs, &self.memory, at(seconds));
        (self.count, self.memory) = (decision.to, memory);
        (decision.to, decision.reason)
    }
}

#[test]
fn rows_and_age_each_ask_for_relays() {
    assert_eq!(
        relays(1).decide_at(0, Some(load(20_000))),
        (2, Reason::BacklogHigh)
    );
    let old = Load {
        oldest_age: SignedDuration::from_secs(10),
        ..load(1)
    };
    assert_eq!(relays(2).decide_at(0, Some(old)), (4, Reason::OldestHigh));
}

#[test]
fn a_tenth_more_or_less_changes_nothing() {
    for rows in [18_001, 20_000, 21_999] {
        assert_eq!(
            relays(2).decide_at(0, Some(load(rows))),
            (2, Reason::WithinTargets),
            "{rows}"
        );
    }
    assert_eq!(
        relays(2).decide_at(0, Some(load(22_500))),
        (3, Reason::BacklogHigh)
    );
}

#[test]
fn a_step_is_the_double_at_most_and_ends_at_the_maximum() {
    assert_eq!(
        relays(2).decide_at(0, Some(load(10_000_000))),
        (4, Reason::BacklogHigh)
    );
    assert_eq!(
        relays(6).decide_at(0, Some(load(i64::MAX))),
        (8, Reason::BacklogHigh)
    );
    assert_eq!(
        relays(8).decide_at(0, Some(load(i64::MAX))),
        (8, Reason::AtMaximum)
    );
}

#[test]
fn the_next_step_waits_for_the_last_one_to_arrive_and_to_be_measured() {
    let mut relays = relays(1);
    let busy = |published_per_second| {
        Some(Load {
            published_per_second,
            ..load(100_000)
        })
    };
    assert_eq!(relays.decide_at(0, busy(100.0)), (2, Reason::BacklogHigh));
    assert_eq!(
        relays.decide_at(30, busy(100.0)),
        (2, Reason::WaitingForRelays),
        "the second pod has not come"
    );
    relays.available = 2;
    assert_eq!(
        relays.decide_at(40, busy(100.0)),
        (2, Reason::WaitingForRelays),
        "its share is not in the average"
    );
    assert_eq!(
        relays.decide_at(49, busy(150.0)),
        (2, Reason::WaitingForRelays)
    );
    assert_eq!(relays.decide_at(50, busy(190.0)), (4, Reason::BacklogHigh));
}

#[test]
fn two_steps_are_fifteen_seconds_apart() {
    let mut relays = relays(1);
    let busy = |published_per_second| {
        Some(Load {
            published_per_second,
            ..load(100_000)
        })
    };
    relays.decide_at(0, busy(100.0));
    relays.available = 2;
    relays.decide_at(3, busy(150.0));
    assert_eq!(
        relays.decide_at(14, busy(200.0)),
        (2, Reason::WaitingForRelays)
    );
    assert_eq!(relays.decide_at(15, busy(200.0)), (4, Reason::BacklogHigh));
}

#[test]
fn a_step_that_did_not_help_is_the_last_until_throughput_rises_or_the_load_ends() {
    let after_a_step = || {
        let mut relays = relays(1);
        relays.decide_at(0, Some(load(100_000)));
        relays.available = 2;
        relays.decide_at(5, Some(load(100_000)));
        assert_eq!(
            relays.decide_at(15, Some(load(100_000))),
            (2, Reason::ThroughputFlat)
        );
        assert_eq!(
            relays.decide_at(600, Some(load(200_000))),
            (2, Reason::ThroughputFlat)
        );
        relays
    };
    let faster = Load {
        published_per_second: 120.0,
        ..load(100_000)
    };
    assert_eq!(
        after_a_step().decide_at(615, Some(faster)),
        (4, Reason::BacklogHigh)
    );
    let mut drained = after_a_step();
    drained.decide_at(615, Some(load(20_000)));
    assert_eq!(
        drained.decide_at(630, Some(load(100_000))),
        (4, Reason::BacklogHigh)
    );
}

#[test]
fn relays_are_removed_when_fewer_were_sufficient_for_the_whole_window() {
    let mut relays = relays(4);
    assert_eq!(relays.decide_at(0, Some(load(0))), (4, Reason::Stabilizing));
    assert_eq!(
        relays.decide_at(100, Some(load(30_000))),
        (4, Reason::Stabilizing)
    );
    assert_eq!(
        relays.decide_at(299, Some(load(0))),
        (4, Reason::Stabilizing)
    );
    assert_eq!(
        relays.decide_at(300, Some(load(0))),
        (3, Reason::LoadLow),
        "three were wanted within the window"
    );
    assert_eq!(relays.decide_at(400, Some(load(0))), (1, Reason::LoadLow));
}

#[test]
fn a_steady_load_keeps_the_relays_that_carry_it() {
    let mut relays = relays(2);
    let publishing = |published_per_second, rows| {
        Some(Load {
            published_per_second,
            ..load(rows)
        })
    };
    assert_eq!(
        relays.decide_at(0, publishing(1000.0, 80_000)),
        (4, Reason::BacklogHigh),
        "two publish 500 each and are too few"
    );
    relays.available = 4;
    for seconds in [15, 315, 615] {
        relays.decide_at(seconds, publishing(1400.0, 0));
    }
    assert_eq!(relays.count, 3, "1,400 need three of 500");
    for seconds in [630, 930] {
        relays.decide_at(seconds, publishing(100.0, 0));
    }
    assert_eq!(relays.count, 1);
}

#[test]
fn an_unknown_load_adds_and_removes_no_relay() {
    let mut relays = relays(4);
    for seconds in [0, 300, 600] {
        assert_eq!(
            relays.decide_at(seconds, None),
            (4, Reason::ReportsIncomplete)
        );
    }
    assert_eq!(
        relays.decide_at(615, Some(load(0))),
        (4, Reason::Stabilizing),
        "the window begins when something is known"
    );
}

#[test]
fn an_outage_of_kafka_adds_nothing() {
    let mut relays = relays(2);
    let away = Load {
        breaker_open: true,
        ..load(1_000_000)
    };
    for seconds in [0, 300, 600] {
        assert_eq!(
            relays.decide_at(seconds, Some(away)),
            (2, Reason::BreakerOpen)
        );
    }
    assert_eq!(
        relays.decide_at(615, Some(load(1_000_000))),
        (4, Reason::BacklogHigh)
    );
}

#[test]
fn new_bounds_hold_at_once_and_without_a_report() {
    assert_eq!(relays(20).decide_at(0, None), (8, Reason::BoundsChanged));
    assert_eq!(relays(0).decide_at(0, None), (1, Reason::BoundsChanged));
}

#[test]
fn the_memory_stays_small() {
    let mut relays = relays(4);
    for seconds in 0..10_000 {
        relays.decide_at(seconds, Some(load(seconds % 7)));
    }
    assert!(relays.memory.sufficient.len() <= 8, "{:?}", relays.memory);
}
