use super::*;

#[test]
fn a_topic_flows_only_once_a_broker_has_named_it() {
    let mut stops = Stops::new(1);
    assert!(!stops.flows(0));
    stops.exists(0);
    assert!(
        stops.due(Instant::now(), |_| false).is_empty(),
        "records of an earlier life are still with the producer"
    );
    assert_eq!(stops.due(Instant::now(), |_| true).len(), 1);
    stops.flow(0);
    assert!(stops.flows(0));
    stops.missing(0);
    assert_eq!(stops.reasons().0, vec![(0, ProblemClass::TopicMissing)]);
}

#[test]
fn relays_do_not_try_a_failed_topic_again_at_the_same_moment() {
    let start = Instant::now();
    let next = |seed| {
        let mut stops = Stops::new(1).jittered(Jitter::seeded(seed));
        stops.flow(0);
        stops.failed(0, ProblemClass::TopicNotAuthorized, start);
        stops.next(start, |_| true)
    };
    let all: BTreeSet<_> = (0..50).map(next).collect();
    assert_eq!(all.len(), 50);
}

#[test]
fn a_topic_that_waits_flows_when_nothing_of_it_is_with_the_producer() {
    let (mut stops, now) = (Stops::new(2), Instant::now());
    stops.flow(0);
    stops.flow(1);
    stops.wait(0);
    assert!(!stops.flows(0) && stops.any_flows());
    assert_eq!(
        stops.reasons().0,
        vec![],
        "that it has much there is nobody's business"
    );
    assert_eq!(
        (stops.waited(|_| false), stops.waited(|_| true)),
        (vec![], vec![0])
    );
    stops.failed(1, ProblemClass::TopicNotAuthorized, now);
    stops.wait(1);
    assert_eq!(
        stops.reasons().0,
        vec![(1, ProblemClass::TopicNotAuthorized)],
        "it rests already"
    );
}

#[test]
fn a_failed_topic_rests_longer_each_time_until_a_success() {
    let (mut stops, start) = (Stops::new(1), Instant::now());
    stops.flow(0);
    for pause in [1, 2, 4] {
        stops.failed(0, ProblemClass::TopicNotAuthorized, start);
        let over = start + Duration::from_secs(pause);
        assert!(
            stops
                .due(start + Duration::from_millis(pause * 500 - 1), |_| true)
                .is_empty(),
            "at least half of it"
        );
        assert!(
            stops.due(over, |_| false).is_empty(),
            "records of it are still with the producer"
        );
        assert_eq!(
            stops.due(over, |_| true),
            [(0, ProblemClass::TopicNotAuthorized)]
        );
        stops.flow(0);
    }
    stops.succeeded(0);
    stops.failed(0, ProblemClass::TopicNotAuthorized, start);
    assert!(stops.next(start, |_| true) <= Some(start + PAUSE_MIN));
}

#[test]
fn a_topic_with_a_refused_record_is_slow_for_a_minute() {
    let (mut stops, start) = (Stops::new(1), Instant::now());
    stops.flow(0);
    stops.suspect(0);
    assert!(!stops.flows(0) && stops.identified(0, start) && stops.flows(0));
    assert!(
        stops.is_slow(0, start + Duration::from_secs(59)) && !stops.is_slow(0, start + SLOW_FOR)
    );
}

#[test]
fn a_parked_topic_rests_until_it_is_parked_no_more() {
    let mut stops = Stops::new(2);
    stops.flow(0);
    stops.flow(1);
    assert_eq!(stops.parked(BTreeSet::from([1])), (vec![], vec![1]));
    assert!(stops.flows(0) && !stops.flows(1) && stops.any());
    assert_eq!(stops.parked(BTreeSet::new()), (vec![1], vec![]));
    assert!(stops.flows(1) && !stops.any());
}

#[test]
fn a_parked_topic_is_not_tried_until_it_is_freed() {
    let (mut stops, start) = (Stops::new(1), Instant::now());
    stops.flow(0);
    stops.failed(0, ProblemClass::TopicNotAuthorized, start);
    let over = start + Duration::from_secs(60);
    stops.parked(BTreeSet::from([0]));
    assert_eq!(
        (stops.due(over, |_| true), stops.next(over, |_| true)),
        (vec![], None)
    );
    stops.parked(BTreeSet::new());
    assert_eq!(stops.due(over, |_| true).len(), 1);
}
