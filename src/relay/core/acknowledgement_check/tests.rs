use std::{collections::BTreeMap, time::Duration};

use crate::{
    kafka::BrokerTimes,
    outbox::{
        FetchRequest, Fetched, Grant, Lane, LaneRead, OutboxRow, Parked, RowId, RowText, Snapshot,
    },
    relay::core::{
        ClusterError, Core, DrainBlockers, Outcome, SettleWhen, TopicPresence, ids::Slot,
        in_flight::Budget, lane_share::LANES, routing::Routes, watermarks::XidTick,
    },
    report::{BreakerState, ProblemClass},
    settings::{BreakerSettings, OnPoison, TopicSettings},
};

use super::*;

const SICK: TopicIndex = TopicIndex::new(0);
const WELL: TopicIndex = TopicIndex::new(1);
const BUDGET: Budget = Budget {
    rows: 800,
    bytes: 1 << 20,
    rows_per_lane: 100,
};

/// A relay of two topics, a table full of rows, and a cluster that does not acknowledge records of
/// topic 0.
struct World {
    core: Core,
    now: Instant,
    rows: BTreeMap<RowId, OutboxRow>,
    sent: Vec<(Slot, TopicIndex)>,
    published: usize,
    xid: u64,
    next_id: i64,
    fetches: usize,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let topic = |name: &str| TopicSettings {
            name: name.to_owned(),
            event_types: vec![],
            aggregate_types: vec![],
            on_poison: OnPoison::Block,
        };
        let core = Core::new(
            Routes::new(&[topic("t0"), topic("t1")]),
            BUDGET,
            Duration::from_millis(50),
            now,
        );
        let mut core = core.with_breaker(BreakerSettings::default(), 3, now);
        let grant = |lane| Grant {
            lane,
            epoch: 1,
            watermark: RowId::ZERO,
            high_id: RowId::ZERO,
        };
        core.on_granted(&Lane::all().map(grant).collect::<Vec<_>>(), now);
        core.on_topic_metadata(SICK, TopicPresence::Present, now);
        core.on_topic_metadata(WELL, TopicPresence::Present, now);
        Self {
            core,
            now,
            rows: BTreeMap::new(),
            sent: vec![],
            published: 0,
            xid: 10,
            next_id: 1,
            fetches: 0,
        }
    }

    /// Commits rows of a topic, in lanes that take turns up to `lanes`.
    fn commit(&mut self, topic: TopicIndex, rows: usize, lanes: i64) {
        for _ in 0..rows {
            let id = self.next_id;
            self.next_id += 1;
            self.rows
                .insert(RowId::new(id), row((id % lanes) as u8, id, topic));
        }
    }

    /// Lets the loop turn for this time. Records that Kafka takes are acknowledged and settled
    /// within a turn.
    fn turn(&mut self, during: Duration) {
        let end = self.now + during;
        while self.now < end {
            self.now += Duration::from_millis(20);
            self.core.resume_due(self.now);
            self.core
                .check_acknowledgements(ClusterError::None, self.now);
            self.fetch();
            self.try_rows();
            self.acknowledge();
            while let Some(settle) = self.core.next_settle(1000, SettleWhen::Now) {
                for settle in &settle.rows {
                    self.rows.remove(&settle.row.id);
                }
                self.core.on_settled(&settle.slots);
            }
            self.xid += 1;
            self.core.on_tick(XidTick {
                xid: self.xid,
                drawn: self.core.highest_id(),
            });
        }
    }

    fn fetch(&mut self) {
        let Some(plan) = self.core.plan_fetch(self.now) else {
            return;
        };
        self.fetches += 1;
        let fetched = Fetched {
            snapshot: Snapshot::new(self.xid + 1, vec![]),
            rows: self.select(&plan),
            scanned: vec![],
            cut: vec![],
        };
        let outgoing = self.core.accept(&plan, fetched, self.now);
        self.sent.extend(
            outgoing
                .into_iter()
                .map(|outgoing| (outgoing.slot, outgoing.topic)),
        );
    }

    fn select(&self, plan: &FetchRequest) -> Vec<OutboxRow> {
        let is_active = |row: &&OutboxRow| {
            plan.filter
                .as_ref()
                .is_none_or(|filter| filter.topics.iter().any(|topic| row.topic() == Some(topic)))
        };
        let of_lane = |read: &LaneRead| {
            let lane = read.lane;
            let rows = self
                .rows
                .range(read.low.next()..)
                .map(|(_, row)| row)
                .filter(move |row| row.lane == lane);
            rows.filter(is_active)
                .take(read.rows_max as usize)
                .cloned()
                .collect::<Vec<_>>()
        };
        plan.lanes.iter().flat_map(of_lane).collect()
    }

    /// Reads rows that the core looks up, and sends rows that it probes.
    fn try_rows(&mut self) {
        while let Some(lookup) = self.core.next_lookup() {
            let rows = lookup
                .rows
                .iter()
                .filter_map(|name| self.rows.get(&name.id))
                .cloned()
                .collect();
            self.core.on_looked_up(&lookup, rows, self.now);
        }
        while let Some(outgoing) = self.core.next_probe(self.now) {
            self.sent.extend(
                outgoing
                    .into_iter()
                    .map(|outgoing| (outgoing.slot, outgoing.topic)),
            );
        }
    }

    /// Sends a row of the topic, and rejects its batch.
    fn refuse(&mut self, topic: TopicIndex) {
        self.commit(topic, 1, 64);
        let refused = (0..100).find_map(|_| {
            self.now += Duration::from_millis(20);
            self.fetch();
            let at = self.sent.iter().position(|(_, of)| *of == topic)?;
            Some(self.sent.swap_remove(at).0)
        });
        self.core.on_report(
            refused.expect("it was fetched"),
            Outcome::Rejected(ProblemClass::RecordRejected),
            self.now,
        );
    }

    fn acknowledge(&mut self) {
        let (sick, well): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sent)
            .into_iter()
            .partition(|(_, topic)| *topic == SICK);
        self.sent = sick;
        self.published += well.len();
        well.into_iter()
            .for_each(|(slot, _)| self.core.on_report(slot, Outcome::Published, self.now));
    }

    /// Producers measure how far away the brokers are, and for how long they mute requests.
    fn measure(&mut self, round_trip_ms: u64, muted_for: u64) {
        let times = BrokerTimes {
            round_trip: Some(Duration::from_millis(round_trip_ms)),
            throttle: seconds(muted_for),
        };
        self.core.on_broker_times(times, self.now);
    }

    fn heal(&mut self) {
        for (slot, _) in std::mem::take(&mut self.sent) {
            self.core.on_report(slot, Outcome::Published, self.now);
        }
    }

    fn state(&self) -> BreakerState {
        self.core.breaker().state()
    }

    fn problems(&self) -> Vec<(TopicIndex, ProblemClass)> {
        self.core.topic_problems().0
    }
}

fn row(lane: u8, id: i64, topic: TopicIndex) -> OutboxRow {
    let (key, topic) = (format!("k{id}"), format!("t{}", topic.index()));
    OutboxRow::with(
        lane,
        id,
        RowText {
            aggregate_id: &key,
            topic: Some(&topic),
            ..RowText::PLAIN
        },
    )
}

/// A row of the sick topic with a key of 200 bytes.
fn large_row(id: i64) -> OutboxRow {
    let (key, topic) = (format!("{id:0200}"), format!("t{}", SICK.index()));
    OutboxRow::with(
        (id % 64) as u8,
        id,
        RowText {
            aggregate_id: &key,
            topic: Some(&topic),
            ..RowText::PLAIN
        },
    )
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// By round trip and length of a mute: the time until a topic counts as stalled.
#[test]
fn a_topic_is_stalled_later_where_the_brokers_take_longer() {
    for (round_trip_ms, muted_for, stalled_after_ms) in [
        (0, 0, 2_000),
        (20, 0, 2_240),
        (100, 0, 3_200),
        (300, 0, 5_600),
        (0, 5, 12_000),
    ] {
        let mut world = World::new();
        world.measure(round_trip_ms, muted_for);
        world.commit(SICK, 10, 64);
        world.turn(Duration::from_millis(20));
        let began = world.now;
        world.now += Duration::from_millis(stalled_after_ms - 200);
        for _ in 0..20 {
            if !world.problems().is_empty() {
                break;
            }
            world.commit(WELL, 1, 64);
            world.turn(Duration::from_millis(20));
        }
        let after_ms = (world.now - began).as_millis() as u64;
        assert!(
            (stalled_after_ms - 40..stalled_after_ms + 200).contains(&after_ms),
            "{after_ms} ms, {round_trip_ms} ms away and muted for {muted_for} s"
        );
        assert_eq!(world.state(), BreakerState::Closed);
    }
}

#[test]
fn under_a_quota_few_bytes_are_with_the_producers_and_lanes_take_turns() {
    let (mut world, mut rows_of_lanes) = (World::new(), [0; LANES]);
    for id in 1..=6_400 {
        world.rows.insert(RowId::new(id), large_row(id));
    }
    while rows_of_lanes.iter().sum::<usize>() < 3_200 {
        world.measure(0, 60);
        world.turn(Duration::from_millis(20));
        let bytes = world.core.topics()[SICK].unacknowledged().bytes();
        assert!(bytes < 4_096 + 300, "{bytes} bytes are with the producers");
        for (slot, _) in &world.sent {
            let row = world.core.in_flight().sent_row(*slot).expect("it was sent");
            rows_of_lanes[row.lane.index()] += 1;
        }
        world.heal();
    }
    let (least, most) = (rows_of_lanes.iter().min(), rows_of_lanes.iter().max());
    assert!(least >= Some(&45) && most <= Some(&55), "{rows_of_lanes:?}");
}

/// Ten rows of the sick topic for one of the other, in all lanes or in two.
#[test]
fn a_sick_topic_neither_takes_the_window_nor_a_lane_from_the_others() {
    for lanes in [64, 2] {
        let mut world = World::new();
        for _ in 0..60 {
            world.commit(SICK, 50, lanes);
            world.commit(WELL, 5, lanes);
            world.turn(Duration::from_millis(100));
        }
        assert_eq!(world.state(), BreakerState::Closed);
        assert_eq!(
            world.problems(),
            vec![(SICK, ProblemClass::TopicStalled)],
            "{lanes} lanes"
        );
        let mut behind = 0;
        for _ in 0..20 {
            world.commit(WELL, 5, lanes);
            world.turn(Duration::from_millis(200));
            behind = world
                .rows
                .values()
                .filter(|row| row.topic() == Some("t1"))
                .count();
        }
        assert_eq!((world.published, behind), (400, 0), "{lanes} lanes");
        world.heal();
        world.turn(Duration::from_millis(100));
        assert_eq!(world.problems(), vec![]);
    }
}

#[test]
fn a_topic_that_is_sick_alone_leaves_room_for_those_that_come_later() {
    let mut world = World::new();
    world.commit(SICK, 3000, 64);
    world.turn(seconds(60));
    assert_eq!(
        world.state(),
        BreakerState::Open,
        "nothing else shows whether the cluster works"
    );
    world.commit(WELL, 300, 64);
    world.turn(seconds(31));
    assert_eq!(
        (world.published, world.state()),
        (300, BreakerState::Closed)
    );
    assert_eq!(world.problems(), vec![(SICK, ProblemClass::TopicStalled)]);
}

#[test]
fn while_it_is_open_what_a_topic_has_sent_is_its_probe_and_nothing_more_of_it_is_fetched() {
    let mut world = World::new();
    world.commit(SICK, 20, 64);
    world.turn(seconds(20));
    assert_eq!((world.state(), world.sent.len()), (BreakerState::Open, 20));
    world.commit(SICK, 3000, 64);
    world.turn(seconds(100));
    assert_eq!((world.state(), world.sent.len()), (BreakerState::Open, 20));
    let fetches = world.fetches;
    world
        .core
        .on_topic_metadata(WELL, TopicPresence::Missing, world.now);
    world.turn(seconds(100));
    assert_eq!(world.fetches, fetches, "no topic is left to probe for");
}

#[test]
fn after_an_outage_rows_are_sent_in_small_steps() {
    let mut world = World::new();
    world.commit(SICK, 3000, 64);
    world.turn(seconds(20));
    world.heal();
    assert_eq!(world.state(), BreakerState::Closed);
    world.turn(Duration::from_millis(40));
    // 200 old rows were acknowledged: that is two windows, of 64 and of 128.
    assert!(
        (1..=256).contains(&world.sent.len()),
        "{} rows",
        world.sent.len()
    );
}

#[test]
fn a_leaving_lane_waits_for_its_records_and_reports_when_they_may_never_end() {
    let mut world = World::new();
    world.commit(SICK, 1, 64);
    world.commit(WELL, 1, 64);
    world.turn(Duration::from_millis(40));
    world.core.drain(64, world.now);
    let for_main = DrainBlockers {
        main: true,
        probe: false,
    };
    assert!(
        world.core.drain_blockers() == for_main && !world.core.has_stuck_records(),
        "it has only just been sent"
    );
    world.turn(seconds(2));
    assert!(world.core.drain_blockers() == for_main && world.core.has_stuck_records());
    world.heal();
    assert_eq!(
        world.core.drain_blockers(),
        DrainBlockers {
            main: false,
            probe: false
        }
    );
}

/// A batch was rejected, and its row is being probed when the partition loses its leader.
fn with_a_stuck_probe() -> World {
    let mut world = World::new();
    world.refuse(SICK);
    for _ in 0..150 {
        world.commit(SICK, 200, 64);
        world.commit(WELL, 1, 64);
        world.turn(Duration::from_millis(20));
    }
    world
}

#[test]
fn a_probe_that_does_not_end_is_reported_and_holds_up_no_other_topic() {
    let mut world = with_a_stuck_probe();
    assert_eq!(
        (world.problems(), world.published),
        (vec![(SICK, ProblemClass::TopicStalled)], 150)
    );
    assert_eq!(
        world.core.sent_on_main(),
        0,
        "a new producer need not wait for it"
    );
    world.refuse(WELL);
    world.turn(Duration::from_millis(100));
    assert_eq!(
        (world.published, world.state()),
        (151, BreakerState::Closed),
        "the other topic has its probe meanwhile"
    );
    for _ in 0..2000 {
        world.heal();
        world.turn(Duration::from_millis(20));
    }
    assert!(
        world.rows.is_empty() && world.core.is_probing_done() && world.problems().is_empty(),
        "{} rows are left",
        world.rows.len()
    );
}

#[test]
fn few_rows_of_a_topic_wait_for_a_probe_that_does_not_end() {
    let world = with_a_stuck_probe();
    let two_fetches = BUDGET.rows / 4 * 2;
    assert!(
        world.core.isolation.waiting_rows(SICK) <= 500 + two_fetches,
        "{} rows",
        world.core.isolation.waiting_rows(SICK)
    );
}

#[test]
fn a_probe_that_does_not_end_keeps_no_lane() {
    let mut world = with_a_stuck_probe();
    world.core.drain(64, world.now);
    assert_eq!(
        world.core.drain_blockers(),
        DrainBlockers {
            main: false,
            probe: true
        }
    );
    assert!(world.core.has_stuck_records());
    for (slot, _) in std::mem::take(&mut world.sent) {
        world.core.on_report(slot, Outcome::Purged, world.now);
    }
    world.turn(Duration::from_millis(20));
    assert!(
        world.sent.is_empty() && world.core.is_probing_done(),
        "the next owner of the lanes decides about their rows"
    );
    assert_eq!(world.core.drained_lanes().len(), LANES);
}

#[test]
fn a_topic_whose_probe_goes_with_its_lane_is_probed_by_the_next_rows() {
    let mut world = World::new();
    world.next_id = 63;
    world.commit(SICK, 1, 64);
    while world.sent.is_empty() {
        world.now += Duration::from_millis(20);
        world.fetch();
    }
    let (slot, _) = world.sent.remove(0);
    world.core.on_report(
        slot,
        Outcome::TopicFailed(ProblemClass::TopicNotAuthorized),
        world.now,
    );
    world.turn(seconds(2));
    assert!(
        world.core.has_probe_under_way(),
        "its row is probed, which does not end"
    );
    world.core.drain(1, world.now);
    let (slot, _) = world.sent.remove(0);
    world.core.on_report(slot, Outcome::Purged, world.now);
    let drained = world.core.drained_lanes();
    assert_eq!(drained.len(), 1);
    assert_eq!(drained[0].lane, Lane::new(63));
    world.commit(SICK, 1, 64);
    world.turn(seconds(1));
    assert_eq!(
        (world.sent.len(), world.problems()),
        (1, vec![]),
        "the topic is active in the other lanes"
    );
}

#[test]
fn nothing_of_a_parked_topic_is_probed() {
    let parked = |topics: &[&str]| Parked {
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        keys: vec![],
    };
    let lanes: Vec<Lane> = Lane::all().collect();
    let mut world = World::new();
    world.refuse(SICK);
    world
        .core
        .set_parked(&parked(&["t0"]), &lanes, world.now, world.now);
    world.turn(seconds(5));
    assert!(
        world.sent.is_empty() && !world.core.is_probing_done(),
        "a batch was rejected; its row waits"
    );
    world
        .core
        .set_parked(&parked(&[]), &lanes, world.now, world.now);
    world.turn(Duration::from_millis(20));
    assert_eq!(world.sent.len(), 1);
}

#[test]
fn a_fetch_that_began_before_a_lane_left_and_came_back_shows_nothing_of_it() {
    let mut world = World::new();
    world.next_id = 63;
    world.commit(WELL, 1, 64);
    let plan = world.core.plan_fetch(world.now).expect("it is time");
    let fetched = Fetched {
        snapshot: Snapshot::new(world.xid + 1, vec![]),
        rows: world.select(&plan),
        scanned: vec![],
        cut: vec![],
    };
    assert_eq!(fetched.rows.len(), 1);
    world.core.drain(1, world.now);
    let left = world.core.drained_lanes();
    world.core.on_released(&left);
    world.core.on_granted(
        &[Grant {
            lane: Lane::new(63),
            epoch: 3,
            watermark: RowId::new(63),
            high_id: RowId::new(63),
        }],
        world.now,
    );
    assert!(
        world.core.accept(&plan, fetched, world.now).is_empty(),
        "another relay published it meanwhile"
    );
}

#[test]
fn a_second_report_of_a_slot_counts_nothing() {
    let mut world = World::new();
    world.commit(SICK, 2, 1);
    world.turn(Duration::from_millis(20));
    let (slot, _) = world.sent[0];
    let sent = world.core.topics()[SICK].unacknowledged().rows();
    world.core.on_report(slot, Outcome::Purged, world.now);
    world.core.on_report(slot, Outcome::Purged, world.now);
    let unacknowledged = world.core.topics()[SICK].unacknowledged();
    assert_eq!(
        unacknowledged.rows(),
        sent - 1,
        "one of {sent} rows has ended"
    );
}
