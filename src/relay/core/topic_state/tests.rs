use super::*;

#[test]
fn a_topic_flows_only_once_a_broker_has_named_it() {
    let mut topic_states = TopicStates::new(1);
    assert!(!topic_states.is_active(0));
    topic_states.exists(0);
    assert!(
        topic_states.due(Instant::now(), |_| false).is_empty(),
        "records of an earlier life are still with the producer"
    );
    assert_eq!(topic_states.due(Instant::now(), |_| true).len(), 1);
    topic_states.flow(0);
    assert!(topic_states.is_active(0));
    topic_states.missing(0);
    assert_eq!(
        topic_states.reasons().0,
        vec![(0, ProblemClass::TopicMissing)]
    );
}

#[test]
fn relays_do_not_try_a_failed_topic_again_at_the_same_moment() {
    let start = Instant::now();
    let next = |seed| {
        let mut topic_states = TopicStates::new(1).jittered(Jitter::seeded(seed));
        topic_states.flow(0);
        topic_states.failed(0, ProblemClass::TopicNotAuthorized, start);
        topic_states.next(start, |_| true)
    };
    let all: BTreeSet<_> = (0..50).map(next).collect();
    assert_eq!(all.len(), 50);
}

#[test]
fn a_topic_that_waits_flows_when_nothing_of_it_is_with_the_producer() {
    let (mut topic_states, now) = (TopicStates::new(2), Instant::now());
    topic_states.flow(0);
    topic_states.flow(1);
    topic_states.wait(0);
    assert!(!topic_states.is_active(0) && topic_states.any_is_active());
    assert_eq!(
        topic_states.reasons().0,
        vec![],
        "that it has much there is nobody's business"
    );
    assert_eq!(
        (
            topic_states.waited(|_| false),
            topic_states.waited(|_| true)
        ),
        (vec![], vec![0])
    );
    topic_states.failed(1, ProblemClass::TopicNotAuthorized, now);
    topic_states.wait(1);
    assert_eq!(
        topic_states.reasons().0,
        vec![(1, ProblemClass::TopicNotAuthorized)],
        "it rests already"
    );
}

#[test]
fn a_failed_topic_rests_longer_each_time_until_a_success() {
    let (mut topic_states, start) = (TopicStates::new(1), Instant::now());
    topic_states.flow(0);
    for pause in [1, 2, 4] {
        topic_states.failed(0, ProblemClass::TopicNotAuthorized, start);
        let over = start + Duration::from_secs(pause);
        assert!(
            topic_states
                .due(start + Duration::from_millis(pause * 500 - 1), |_| true)
                .is_empty(),
            "at least half of it"
        );
        assert!(
            topic_states.due(over, |_| false).is_empty(),
            "records of it are still with the producer"
        );
        assert_eq!(
            topic_states.due(over, |_| true),
            [(0, ProblemClass::TopicNotAuthorized)]
        );
        topic_states.flow(0);
    }
    topic_states.succeeded(0);
    topic_states.failed(0, ProblemClass::TopicNotAuthorized, start);
    assert!(topic_states.next(start, |_| true) <= Some(start + PAUSE_MIN));
}

#[test]
fn a_topic_with_a_refused_record_is_slow_for_a_minute() {
    let (mut topic_states, start) = (TopicStates::new(1), Instant::now());
    topic_states.flow(0);
    topic_states.suspect(0);
    assert!(
        !topic_states.is_active(0)
            && topic_states.identified(0, start)
            && topic_states.is_active(0)
    );
    assert!(
        topic_states.is_slow(0, start + Duration::from_secs(59))
            && !topic_states.is_slow(0, start + SLOW_FOR)
    );
}

#[test]
fn a_parked_topic_rests_until_it_is_parked_no_more() {
    let mut topic_states = TopicStates::new(2);
    topic_states.flow(0);
    topic_states.flow(1);
    assert_eq!(topic_states.parked(BTreeSet::from([1])), (vec![], vec![1]));
    assert!(topic_states.is_active(0) && !topic_states.is_active(1) && topic_states.any());
    assert_eq!(topic_states.parked(BTreeSet::new()), (vec![1], vec![]));
    assert!(topic_states.is_active(1) && !topic_states.any());
}

#[test]
fn a_parked_topic_is_not_tried_until_it_is_freed() {
    let (mut topic_states, start) = (TopicStates::new(1), Instant::now());
    topic_states.flow(0);
    topic_states.failed(0, ProblemClass::TopicNotAuthorized, start);
    let over = start + Duration::from_secs(60);
    topic_states.parked(BTreeSet::from([0]));
    assert_eq!(
        (
            topic_states.due(over, |_| true),
            topic_states.next(over, |_| true)
        ),
        (vec![], None)
    );
    topic_states.parked(BTreeSet::new());
    assert_eq!(topic_states.due(over, |_| true).len(), 1);
}
