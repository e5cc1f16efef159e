use super::*;

const FIRST: TopicIndex = TopicIndex::new(0);
const SECOND: TopicIndex = TopicIndex::new(1);

const NOT_AUTHORIZED: ProblemClass = ProblemClass::TopicNotAuthorized;

/// Topics that are active.
fn active(topics: usize) -> TopicStates {
    let mut states = TopicStates::new(topics);
    for topic in 0..topics {
        states[TopicIndex::new(topic)].activate();
    }
    states
}

/// A row of 10 bytes that a producer gets.
fn send(states: &mut TopicStates, topic: TopicIndex, now: Instant) -> SentRow {
    let burst = states.on_sent(topic, Lane::new(1), 10, now);
    SentRow {
        topic,
        lane: Lane::new(1),
        bytes: 10,
        burst,
    }
}

#[test]
fn a_topic_is_active_only_once_a_broker_has_listed_it() {
    let (mut states, now) = (TopicStates::new(1), Instant::now());
    assert!(!states[FIRST].is_active());
    states[FIRST].on_present();
    let sent = send(&mut states, FIRST, now);
    assert!(
        states.due(now).is_empty(),
        "a record of it is still with the producer"
    );
    states.on_ended(&sent);
    assert_eq!(states.due(now).len(), 1);
    states[FIRST].activate();
    assert!(states[FIRST].is_active());
    states[FIRST].on_missing();
    assert_eq!(states.problems(), vec![(FIRST, ProblemClass::TopicMissing)]);
}

#[test]
fn relays_do_not_probe_a_failed_topic_again_at_the_same_moment() {
    let start = Instant::now();
    let next = |seed| {
        let mut states = active(1).with_jitter(Jitter::seeded(seed));
        states.on_failed(FIRST, NOT_AUTHORIZED, start);
        states.next_due_at(start)
    };
    let all: BTreeSet<_> = (0..50).map(next).collect();
    assert_eq!(all.len(), 50);
}

#[test]
fn a_draining_topic_is_paused_until_no_row_of_it_is_with_a_producer() {
    let (mut states, now) = (active(2), Instant::now());
    let sent = send(&mut states, FIRST, now);
    states[FIRST].drain();
    assert!(!states[FIRST].is_active() && states.any_is_active());
    assert_eq!(states.problems(), vec![], "that is not worth a report");
    assert!(!states[FIRST].has_drained());
    states.on_ended(&sent);
    assert!(states[FIRST].has_drained());
    states.on_failed(SECOND, NOT_AUTHORIZED, now);
    states[SECOND].drain();
    assert_eq!(
        states.problems(),
        vec![(SECOND, NOT_AUTHORIZED)],
        "it is paused already"
    );
}

#[test]
fn a_failed_topic_is_paused_longer_each_time_until_a_success() {
    let (mut states, start) = (active(1), Instant::now());
    for pause in [1, 2, 4] {
        states.on_failed(FIRST, NOT_AUTHORIZED, start);
        let over = start + Duration::from_secs(pause);
        assert!(
            states
                .due(start + Duration::from_millis(pause * 500 - 1))
                .is_empty(),
            "at least half of it"
        );
        let sent = send(&mut states, FIRST, start);
        assert!(
            states.due(over).is_empty(),
            "a record of it is still with the producer"
        );
        states.on_ended(&sent);
        assert_eq!(states.due(over), [(FIRST, NOT_AUTHORIZED)]);
        states[FIRST].activate();
    }
    states[FIRST].on_success();
    states.on_failed(FIRST, NOT_AUTHORIZED, start);
    assert!(states.next_due_at(start) <= Some(start + PAUSE_MIN));
}

/// The limits of a topic may not be known: its rows go on with the present time, which a broker
/// with the same clock takes.
#[test]
fn a_rejected_time_is_sent_again_at_once_as_the_present_and_only_then_pauses_its_topic() {
    let (mut states, start) = (active(1), Instant::now());
    let skew = ProblemClass::ClockSkew;
    assert!(!states[FIRST].needs_present_time(start));
    states.on_failed(FIRST, skew, start);
    assert!(states[FIRST].needs_present_time(start));
    assert_eq!(
        (states.due(start), states.problems()),
        (vec![(FIRST, skew)], vec![])
    );
    states[FIRST].probe(skew);
    assert_eq!(states.problems(), vec![], "it is being tried");
    states.on_failed(FIRST, skew, start);
    assert_eq!(
        (states.due(start), states.problems()),
        (vec![], vec![(FIRST, skew)])
    );
    states[FIRST].probe(skew);
    assert_eq!(states.problems(), vec![(FIRST, skew)]);
    assert!(states[FIRST].on_probe_accepted() && states[FIRST].is_active());
    states[FIRST].on_success();
    assert!(states[FIRST].needs_present_time(start + Duration::from_secs(3599)));
    assert!(!states[FIRST].needs_present_time(start + PRESENT_TIME_FOR));
}

#[test]
fn a_topic_with_a_rejected_record_is_slow_for_a_minute() {
    let (mut states, start) = (active(1), Instant::now());
    states[FIRST].isolate();
    assert!(!states[FIRST].is_active());
    assert!(states[FIRST].on_candidates_known(start) && states[FIRST].is_active());
    assert!(states[FIRST].is_slow(start + Duration::from_secs(59)));
    assert!(!states[FIRST].is_slow(start + SLOW_FOR));
}

#[test]
fn a_topic_that_went_missing_during_its_probe_is_unlisted_afterwards() {
    let mut states = active(1);
    states[FIRST].probe(NOT_AUTHORIZED);
    states[FIRST].on_missing();
    assert_eq!(
        states.problems(),
        vec![(FIRST, NOT_AUTHORIZED)],
        "the probe ends first"
    );
    assert!(!states[FIRST].on_probe_accepted());
    assert_eq!(states.problems(), vec![(FIRST, ProblemClass::TopicMissing)]);
}

#[test]
fn a_parked_topic_is_paused_until_it_is_not_parked_any_more() {
    let mut states = active(2);
    let parked = states.set_parked(&BTreeSet::from([SECOND]));
    assert_eq!(parked, (vec![], vec![SECOND]));
    assert!(states[FIRST].is_active() && !states[SECOND].is_active() && states.any_is_excluded());
    assert_eq!(states.set_parked(&BTreeSet::new()), (vec![SECOND], vec![]));
    assert!(states[SECOND].is_active() && !states.any_is_excluded());
}

#[test]
fn a_parked_topic_is_not_probed_until_it_is_freed() {
    let (mut states, start) = (active(1), Instant::now());
    states.on_failed(FIRST, NOT_AUTHORIZED, start);
    let over = start + Duration::from_secs(60);
    states.set_parked(&BTreeSet::from([FIRST]));
    assert_eq!((states.due(over), states.next_due_at(over)), (vec![], None));
    states.set_parked(&BTreeSet::new());
    assert_eq!(states.due(over).len(), 1);
}

#[test]
fn only_a_row_that_was_sent_later_and_acknowledged_late_enough_overtakes() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    for (sent, acknowledged, overtakes) in [
        (0, 3000, false),
        (1, 1999, false),
        (1, 2000, true),
        (2500, 2501, true),
    ] {
        let mut states = active(2);
        send(&mut states, FIRST, start);
        let later = send(&mut states, SECOND, at(sent));
        states.on_acknowledged(&later, at(acknowledged));
        assert_eq!(
            states.is_overtaken(FIRST, Duration::from_secs(2)),
            overtakes,
            "sent {sent}, acknowledged {acknowledged}"
        );
        assert!(
            !states.is_overtaken(SECOND, Duration::ZERO),
            "no row of it is with the producer"
        );
    }
}
