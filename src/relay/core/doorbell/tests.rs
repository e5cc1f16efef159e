use super::*;
use crate::{
    outbox::{Grant, RowId},
    relay::core::{in_flight::Budget, routing::Routes},
};

const LANES_A: [Lane; 2] = [Lane::new(0), Lane::new(1)];

fn ready(lanes: &[Lane]) -> Readiness {
    Readiness {
        lanes: lanes.iter().copied().collect(),
        is_quiet: true,
    }
}

fn locks() -> BellRequest {
    BellRequest::Lock(ready(&LANES_A).lanes)
}

/// A bell whose connection was opened 20 ms before the time that is returned.
fn opened() -> (Doorbell, Instant) {
    let now = Instant::now();
    let mut bell = Doorbell::new(now);
    bell.on_opened(now);
    (bell, now + AWAKE_AFTER_ROWS)
}

/// A bell that locked its lanes.
fn locked() -> (Doorbell, Instant) {
    let (mut bell, now) = opened();
    assert_eq!(bell.next_request(ready(&LANES_A), now), Some(locks()));
    assert!(bell.on_answer(BellAnswer::Locked, now), "a fetch follows");
    (bell, now)
}

/// A bell that sleeps.
fn asleep() -> (Doorbell, Instant) {
    let (mut bell, now) = locked();
    bell.on_fetch_begun(ready(&LANES_A).lanes);
    bell.on_fetched(Found::NoRows, now);
    assert!(bell.is_asleep());
    (bell, now)
}

#[test]
fn locks_are_requested_once_nothing_came_for_a_while() {
    let (mut bell, now) = opened();
    bell.on_fetched(Found::Rows, now);
    let then = now + AWAKE_AFTER_ROWS;
    assert_eq!(bell.next_request_at(ready(&LANES_A), now), Some(then));
    assert_eq!(bell.next_request(ready(&LANES_A), now), None);
    assert_eq!(bell.next_request(ready(&LANES_A), then), Some(locks()));
    assert_eq!(
        bell.next_request_at(ready(&LANES_A), then),
        None,
        "one at a time"
    );
}

#[test]
fn without_a_connection_lanes_or_quiet_nothing_is_locked() {
    let now = Instant::now();
    let mut absent = Doorbell::new(now);
    assert_eq!(absent.next_request(ready(&LANES_A), now), None);
    let (mut bell, now) = opened();
    assert_eq!(bell.next_request(ready(&[]), now), None);
    let busy = Readiness {
        is_quiet: false,
        ..ready(&LANES_A)
    };
    assert_eq!(bell.next_request(busy, now), None);
}

#[test]
fn only_a_fetch_of_all_locked_lanes_that_begins_after_the_lock_decides() {
    let (mut bell, now) = opened();
    bell.on_fetch_begun(ready(&LANES_A).lanes);
    bell.next_request(ready(&LANES_A), now);
    bell.on_answer(BellAnswer::Locked, now);
    bell.on_fetched(Found::NoRows, now);
    assert!(!bell.is_asleep(), "it began before");
    bell.on_fetch_begun(ready(&LANES_A[..1]).lanes);
    bell.on_fetched(Found::NoRows, now);
    assert!(!bell.is_asleep(), "it left out a lane");
    bell.on_fetch_begun(ready(&LANES_A).lanes);
    bell.on_fetch_useless();
    bell.on_fetched(Found::NoRows, now);
    assert!(!bell.is_asleep(), "its rows were not used");
    bell.on_fetch_begun(ready(&LANES_A).lanes);
    bell.on_fetched(Found::NoRows, now);
    assert!(bell.is_asleep());
}

#[test]
fn a_refused_lock_is_tried_again_less_and_less_often() {
    let (mut bell, mut now) = opened();
    for pause in [20, 40, 80, 160, 320, 640, 1000, 1000] {
        assert_eq!(bell.next_request(ready(&LANES_A), now), Some(locks()));
        assert!(bell.on_answer(BellAnswer::Refused, now), "a row is near");
        let again = now + Duration::from_millis(pause);
        assert_eq!(bell.lock_at, again);
        now = again;
    }
}

#[test]
fn each_cause_wakes_and_then_unlocks() {
    type Cause = (&'static str, fn(&mut Doorbell, Instant), Readiness);
    let busy = Readiness {
        is_quiet: false,
        ..ready(&LANES_A)
    };
    let causes: [Cause; 5] = [
        ("a ring", |bell, now| bell.on_ring(now), ready(&LANES_A)),
        (
            "rows",
            |bell, now| bell.on_fetched(Found::Rows, now),
            ready(&LANES_A),
        ),
        (
            "an answer that was not used",
            |bell, now| bell.on_fetched(Found::Unread, now),
            ready(&LANES_A),
        ),
        ("known rows", |_, _| (), busy),
        ("other lanes", |_, _| (), ready(&LANES_A[1..])),
    ];
    for (name, cause, ready) in causes {
        let (mut bell, now) = asleep();
        cause(&mut bell, now);
        assert_eq!(
            bell.next_request(ready, now),
            Some(BellRequest::Unlock),
            "{name}"
        );
        assert!(bell.may_hold_locks(), "{name}: not answered yet");
        bell.on_answer(BellAnswer::Unlocked, now);
        assert!(!bell.may_hold_locks() && !bell.is_asleep(), "{name}");
    }
}

#[test]
fn a_ring_during_a_fetch_asks_for_another_one() {
    let (mut bell, now) = locked();
    bell.on_fetch_begun(ready(&LANES_A).lanes);
    bell.on_ring(now);
    bell.on_fetched(Found::NoRows, now);
    assert!(bell.has_rung && !bell.is_asleep());
    bell.on_fetch_begun(ready(&LANES_A).lanes);
    assert!(!bell.has_rung);
}

#[test]
fn many_rings_in_a_second_keep_it_awake() {
    let (mut bell, now) = asleep();
    (0..RINGS_MAX).for_each(|_| bell.on_ring(now));
    assert!(bell.lock_at <= now);
    bell.on_ring(now);
    assert_eq!(bell.lock_at, now + RINGS_PERIOD);
    bell.on_ring(now + RINGS_PERIOD);
    assert_eq!(bell.lock_at, now + RINGS_PERIOD, "a new second");
}

#[test]
fn lanes_that_must_be_read_again_are_no_row_that_did_not_ring() {
    let (mut bell, now) = asleep();
    bell.on_fetched(Found::Unread, now);
    bell.next_request(ready(&LANES_A), now);
    bell.on_answer(BellAnswer::Unlocked, now);
    let request = bell.next_request(ready(&LANES_A), now + AWAKE_AFTER_ROWS);
    assert_eq!((request, bell.has_silence), (Some(locks()), false));
}

#[test]
fn a_row_that_did_not_ring_keeps_it_awake_for_a_minute() {
    for rings in [false, true] {
        let (mut bell, now) = asleep();
        bell.on_fetch_begun(ready(&LANES_A).lanes);
        bell.on_fetched(Found::Rows, now);
        bell.next_request(ready(&LANES_A), now);
        bell.on_answer(BellAnswer::Unlocked, now);
        if rings {
            bell.on_ring(now);
        }
        let then = now + RING_MAX;
        let request = bell.next_request(ready(&LANES_A), then);
        assert_eq!(request, rings.then(locks), "rings: {rings}");
    }
}

#[test]
fn a_connection_that_is_idle_is_pinged_and_one_that_is_gone_is_not_used() {
    let (mut bell, now) = asleep();
    let then = now + PING_EVERY;
    assert_eq!(
        bell.next_request(ready(&LANES_A), then),
        Some(BellRequest::Ping)
    );
    bell.on_answer(BellAnswer::Alive, then);
    assert!(bell.is_asleep());
    bell.on_lost();
    assert!(!bell.is_asleep() && !bell.may_hold_locks());
    assert_eq!(bell.next_request_at(ready(&LANES_A), then), None);
}

/// A lane is drained only when it can be given back: a round of the lease would follow at once for
/// each one that cannot.
#[test]
fn no_lane_is_drained_while_it_may_be_locked() {
    let (bell, now) = asleep();
    let mut core = Core::new(
        Routes::new(&[]),
        Budget::default(),
        Duration::from_millis(50),
        now,
    );
    core.on_granted(
        &[Grant {
            lane: LANES_A[0],
            epoch: 1,
            watermark: RowId::new(0),
            high_id: RowId::new(0),
        }],
        now,
    );
    assert!(!core.has_drained_lanes(), "it is kept");
    core.drain(1, now);
    assert!(core.has_drained_lanes());
    core.doorbell = bell;
    assert!(!core.has_drained_lanes());
}
