use std::time::Instant;

use super::*;
use crate::outbox::Lane;

const BUDGET: Budget = Budget {
    rows: 800,
    bytes: 1 << 20,
    rows_per_lane: 400,
};

const LIMIT: Amount = Amount {
    rows: BUDGET.rows,
    bytes: BUDGET.bytes,
};

/// The rows of a topic, of 10 bytes each, in lanes that take turns up to `lanes`.
fn topic(rows: usize, lanes: usize) -> Unacknowledged {
    let mut topic = Unacknowledged::default();
    for row in 0..rows {
        topic.on_sent(Lane::new((row % lanes) as u8), 10, Instant::now());
    }
    topic
}

/// A window with these rows in flight, `paused` of them of paused topics.
fn window(in_flight: usize, paused: usize) -> Window {
    Window {
        limit: LIMIT,
        free: Amount {
            rows: BUDGET.rows - in_flight,
            bytes: BUDGET.bytes - in_flight * 10,
        },
        paused: Amount {
            rows: paused,
            bytes: paused * 10,
        },
        breaker_rows: usize::MAX,
        more_waits: false,
    }
}

fn rows(topics: usize, window: Window, active: &Unacknowledged) -> usize {
    FairShare::new(BUDGET, topics).room(&window, [active]).rows
}

#[test]
fn a_fetch_may_bring_a_share_of_what_paused_topics_leave() {
    for (topics, in_flight, paused, active, room, why) in [
        (2, 0, 0, 0, 200, "a quarter of the window"),
        (1, 0, 0, 0, 800, "all of it: there is no other topic"),
        (
            2,
            400,
            400,
            0,
            100,
            "a quarter of what a paused topic leaves",
        ),
        (
            2,
            700,
            700,
            0,
            50,
            "a small share is rounded up, to half at most",
        ),
        (2, 760, 760, 0, 20, "and never beyond half of the window"),
        (2, 199, 0, 199, 200, "an active topic is within its share"),
        (2, 200, 0, 200, 0, "an active topic has used it up"),
        (1, 200, 0, 200, 600, "the only topic has no share"),
        (
            2,
            500,
            400,
            100,
            0,
            "its share is less beside a paused topic",
        ),
    ] {
        let active = topic(active, 64);
        assert_eq!(
            rows(topics, window(in_flight, paused), &active),
            room,
            "{why}"
        );
    }
}

#[test]
fn a_share_is_used_up_in_one_lane_too() {
    let share = FairShare::new(BUDGET, 2);
    let available = LIMIT;
    for (rows, lanes, is_used_up) in [
        (99, 1, false),
        (100, 1, true),
        (198, 2, false),
        (199, 2, true),
        (199, 64, false),
    ] {
        assert_eq!(
            share.is_used_up(&topic(rows, lanes), available),
            is_used_up,
            "{rows} rows in {lanes} lanes"
        );
    }
    assert_eq!((share.lane_rows(400), share.lane_rows(7)), (100, 7));
    assert_eq!(FairShare::new(BUDGET, 1).lane_rows(400), 400);
}

#[test]
fn a_share_is_used_up_by_bytes_too() {
    let share = FairShare::new(BUDGET, 2);
    let mut topic = Unacknowledged::default();
    topic.on_sent(
        Lane::FIRST,
        BUDGET.bytes / TOPIC_SHARE_DIVISOR,
        Instant::now(),
    );
    assert!(share.is_used_up(&topic, LIMIT));
}

#[test]
fn a_fetch_waits_for_half_of_the_window_while_more_rows_wait() {
    let more_waits = |in_flight| Window {
        more_waits: true,
        ..window(in_flight, 0)
    };
    let active = topic(0, 64);
    assert_eq!(rows(1, more_waits(401), &active), 0);
    assert_eq!(rows(1, more_waits(400), &active), 400);
    assert_eq!(rows(1, window(401, 0), &active), 399, "no more rows wait");
}

#[test]
fn a_fetch_brings_no_more_than_the_breaker_lets_through() {
    let window = Window {
        breaker_rows: 64,
        ..window(0, 0)
    };
    assert_eq!(rows(2, window, &topic(0, 64)), 64);
}

/// While the window of the producers is small, half of that counts, and shares are parts of it.
#[test]
fn a_fetch_waits_for_half_of_what_may_be_sent() {
    let limited = |sent: usize| Window {
        limit: Amount {
            rows: 400,
            bytes: BUDGET.bytes,
        },
        free: Amount {
            rows: 400 - sent,
            bytes: BUDGET.bytes,
        },
        more_waits: true,
        ..window(sent, 0)
    };
    for (sent, room) in [(0, 400), (200, 200), (201, 0)] {
        assert_eq!(rows(1, limited(sent), &topic(0, 64)), room, "{sent} sent");
    }
    assert_eq!(rows(2, limited(99), &topic(99, 64)), 100);
    assert_eq!(rows(2, limited(100), &topic(100, 64)), 0, "a used-up share");
}
