//! What the core makes of a cluster or a topic that does not answer: the breaker's window, and topics that wait for what they have sent. Pure.

use std::time::Instant;

use super::{Core, LANES, Left};
use crate::relay::{
    breaker::Breaker,
    jitter::Jitter,
    stops::Stops,
    window::{Slot, TopicIndex},
};
use crate::{
    report::{BreakerState, ProblemClass},
    settings::BreakerSettings,
};

/// A topic may have this part of the window, and of a lane, with the producer for long.
const SHARE: usize = 4;
/// So much is nobody's business, however small the window is.
const SHARE_ROWS_MIN: usize = 64;
const SHARE_BYTES_MIN: usize = 64 << 10;
/// For long: this part of `slowAfter`. Whoever is faster may have everything.
const SOON: u32 = 4;

impl Core {
    /// With these times, and pauses that differ from those of other relays.
    #[must_use]
    pub fn with_breaker(mut self, settings: BreakerSettings, seed: u64, now: Instant) -> Self {
        self.breaker = Breaker::new(settings, self.window.budget().rows, Jitter::seeded(seed), now);
        self.stops = Stops::new(self.routes.len()).jittered(Jitter::seeded(seed.rotate_left(32)));
        self
    }

    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Looks at what was not acknowledged until now; `trouble`: see [`Breaker::look`]. Once a turn of the loop.
    pub fn look(&mut self, trouble: bool, now: Instant) {
        // What a stalled topic has there says nothing about the cluster.
        let stalled = self.held_by(|topic| self.is_stalled(topic)).rows;
        self.breaker.look(self.window.sent() - stalled, trouble, now);
        for topic in 0..self.routes.len() {
            if self.stops.flows(topic) && self.must_wait(topic, now) {
                self.hold_all(&Left::Topic(topic));
                self.stops.wait(topic);
            }
        }
    }

    /// The brokers answered a question.
    pub fn answered(&mut self, now: Instant) {
        self.breaker.answered(self.window.sent(), now);
    }

    /// The producer was thrown out without a cause; returns the pause before the next one.
    pub fn rebuilt(&mut self, now: Instant) -> std::time::Duration {
        self.breaker.rebuilt(now)
    }

    /// Rows that the main producer has: all that were sent, but for those on trial.
    #[must_use]
    pub fn sent_on_main(&self) -> usize {
        self.window.sent() - self.poison.on_trial().count()
    }

    /// What lanes on their way back wait for.
    #[must_use]
    pub fn drain_waits_for(&self) -> DrainWaits {
        let is_leaving = |lane: u8| self.lanes[usize::from(lane)].as_ref().is_some_and(|lane| lane.draining);
        let sent: usize = (0..LANES as u8).filter(|lane| is_leaving(*lane)).map(|lane| self.outstanding.in_lane(lane)).sum();
        let on_trial = self.poison.on_trial().filter(|row| is_leaving(row.lane)).count();
        DrainWaits { main: sent > on_trial, trial: on_trial > 0 }
    }

    /// Whether there are records that may never end: the cluster acknowledges nothing, or a topic does not.
    #[must_use]
    pub fn is_sick(&self) -> bool {
        self.breaker.state() != BreakerState::Closed || self.stalled().next().is_some()
    }

    /// Whether the row of this slot is on trial, with a producer of its own.
    #[must_use]
    pub fn is_on_trial(&self, slot: Slot) -> bool {
        self.poison.is_on_trial(slot)
    }

    /// Topics whose records do not end while later ones of others do.
    pub fn stalled(&self) -> impl Iterator<Item = TopicIndex> {
        (0..self.routes.len()).filter(|topic| self.is_stalled(*topic))
    }

    fn is_stalled(&self, topic: TopicIndex) -> bool {
        self.outstanding.is_overtaken(topic, self.breaker.slow_after())
    }

    /// Topics with a reason to report, and whether rows went astray.
    #[must_use]
    pub fn troubled_topics(&self) -> (Vec<(TopicIndex, ProblemClass)>, bool) {
        let (mut topics, astray) = self.stops.reasons();
        topics.extend(self.stalled().map(|topic| (topic, ProblemClass::TopicStalled)));
        (topics, astray)
    }

    /// Whether a topic must wait until nothing of it is with a producer any more: it is stalled; or no record of any topic ends, and what it
    /// has there is probe enough; or it has so much there that it could take the window from the others; or enough of it waits for trials.
    fn must_wait(&self, topic: TopicIndex, now: Instant) -> bool {
        let Some(oldest) = self.outstanding.oldest(topic) else { return false };
        let is_old = now.saturating_duration_since(oldest) >= self.breaker.slow_after() / SOON;
        self.is_stalled(topic)
            || self.breaker.state() == BreakerState::Open
            || is_old && self.has_its_share(topic, self.free_for_others(topic))
            || self.poison.has_enough_to_try(topic)
    }

    /// A part of what those that wait have left of the window, so that any number of them leaves something; or of a lane. A relay of one topic
    /// has nobody to share with.
    fn has_its_share(&self, topic: TopicIndex, free: Amount) -> bool {
        let (rows, of_lane) = (self.outstanding.rows(topic), share_of_rows(self.window.budget().rows_per_lane));
        self.routes.len() > 1
            && (rows >= share_of_rows(free.rows)
                || self.outstanding.bytes(topic) >= share_of_bytes(free.bytes)
                || rows >= of_lane && self.outstanding.most_in_a_lane(topic) >= of_lane)
    }

    /// What the other topics that wait have left of the window.
    fn free_for_others(&self, topic: TopicIndex) -> Amount {
        let (held, budget) = (self.held_by(|other| other != topic && !self.stops.flows(other)), self.window.budget());
        Amount { rows: budget.rows.saturating_sub(held.rows), bytes: budget.bytes.saturating_sub(held.bytes) }
    }

    /// What these topics have with the producer.
    fn held_by(&self, of: impl Fn(TopicIndex) -> bool) -> Amount {
        let topics = (0..self.routes.len()).filter(|topic| of(*topic));
        topics.fold(Amount::default(), |sum, topic| Amount {
            rows: sum.rows + self.outstanding.rows(topic),
            bytes: sum.bytes + self.outstanding.bytes(topic),
        })
    }

    /// Rows that the next fetch may bring. None while much of it could be taken by one topic that has its share: in a moment that has ended, or
    /// the topic waits.
    pub(super) fn room_rows(&self) -> usize {
        let stuck = self.held_by(|topic| !self.stops.flows(topic));
        let free = self.window.budget().rows.saturating_sub(stuck.rows);
        let room = self.window.room_rows().min(self.breaker.room(self.window.sent() - stuck.rows));
        let bytes = self.window.budget().bytes.saturating_sub(stuck.bytes);
        let shared = (0..self.routes.len()).any(|topic| self.stops.flows(topic) && self.has_its_share(topic, Amount { rows: free, bytes }));
        // With more waiting than fits, many small fetches would only cost.
        let crowded = self.window.room_rows() < free / SHARE && self.lanes.iter().flatten().any(|lane| lane.hungry && !lane.draining);
        match (shared || crowded, self.routes.len()) {
            (true, _) => 0,
            (false, 1) => room,
            (false, _) => room.min(share_of_rows(free)),
        }
    }

    /// Bytes that the next fetch may bring.
    pub(super) fn room_bytes(&self) -> usize {
        let room = self.window.room_bytes();
        if self.routes.len() > 1 { room.min(share_of_bytes(self.window.budget().bytes)) } else { room }
    }

    /// Rows that the next fetch may bring of a lane.
    pub(super) fn lane_room(&self, lane: u8) -> usize {
        let room = self.window.lane_room(lane);
        if self.routes.len() > 1 { room.min(share_of_rows(self.window.budget().rows_per_lane)) } else { room }
    }
}

fn share_of_rows(rows: usize) -> usize {
    (rows / SHARE).max(SHARE_ROWS_MIN)
}

fn share_of_bytes(bytes: usize) -> usize {
    (bytes / SHARE).max(SHARE_BYTES_MIN)
}

/// What lanes on their way back wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainWaits {
    /// Records of the main producer.
    pub main: bool,
    /// Records on trial.
    pub trial: bool,
}

#[derive(Clone, Copy, Default)]
struct Amount {
    rows: usize,
    bytes: usize,
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use uuid::Uuid;

    use crate::{
        outbox::{FetchPlan, Fetched, Grant, OutboxRow, Snapshot},
        relay::{
            core::{Core, Outcome},
            lanes::LANES,
            marks::Tick,
            routes::Routes,
            window::{Budget, Slot},
        },
        report::{BreakerState, ProblemClass},
        settings::{BreakerSettings, OnPoison, TopicSettings},
    };

    use super::*;

    const SICK: TopicIndex = 0;
    const WELL: TopicIndex = 1;
    const BUDGET: Budget = Budget { rows: 800, bytes: 1 << 20, rows_per_lane: 100 };

    /// A relay of two topics, with a table that is full of rows and a cluster where the topic 0 is sick.
    struct World {
        core: Core,
        now: Instant,
        rows: BTreeMap<i64, OutboxRow>,
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
            let core = Core::new(Routes::new(&[topic("t0"), topic("t1")]), BUDGET, Duration::from_millis(50), now);
            let mut core = core.with_breaker(BreakerSettings::default(), 3, now);
            let grant = |lane| Grant { lane, epoch: 1, mark: 0, high_id: 0 };
            core.granted(&(0..LANES as u8).map(grant).collect::<Vec<_>>(), now);
            core.topic_seen(SICK, true, now);
            core.topic_seen(WELL, true, now);
            Self { core, now, rows: BTreeMap::new(), sent: vec![], published: 0, xid: 10, next_id: 1, fetches: 0 }
        }

        /// Commits rows of a topic, in lanes that take turns up to `lanes`.
        fn commit(&mut self, topic: TopicIndex, rows: usize, lanes: i64) {
            for _ in 0..rows {
                let id = self.next_id;
                self.next_id += 1;
                self.rows.insert(id, row((id % lanes) as u8, id, topic));
            }
        }

        /// Lets the loop turn for so long. What is well is acknowledged and settled within a turn.
        fn turn(&mut self, during: Duration) {
            let end = self.now + during;
            while self.now < end {
                self.now += Duration::from_millis(20);
                self.core.resume(self.now);
                self.core.look(false, self.now);
                self.fetch();
                self.try_rows();
                self.acknowledge();
                while let Some(settle) = self.core.next_settle(1000, true) {
                    settle.plan.ids.iter().for_each(|id| drop(self.rows.remove(id)));
                    self.core.settled(&settle.slots);
                }
                self.xid += 1;
                self.core.tick(Tick { xid: self.xid, drawn: self.core.seen() });
            }
        }

        fn fetch(&mut self) {
            let Some(plan) = self.core.plan_fetch(self.now) else { return };
            self.fetches += 1;
            let fetched = Fetched { snapshot: Snapshot::new(self.xid + 1, vec![]), rows: self.select(&plan), scanned: vec![] };
            let outgoing = self.core.accept(&plan, fetched, self.now);
            self.sent.extend(outgoing.into_iter().map(|outgoing| (outgoing.slot, outgoing.topic)));
        }

        fn select(&self, plan: &FetchPlan) -> Vec<OutboxRow> {
            let flows =
                |row: &&OutboxRow| plan.flowing.as_ref().is_none_or(|flowing| flowing.topics.contains(row.topic.as_ref().expect("set")));
            let of_lane = |at: usize| {
                let rows =
                    self.rows.range(plan.lows[at] + 1..).map(|(_, row)| row).filter(move |row| i16::from(row.lane) == plan.lanes[at]);
                rows.filter(flows).take(plan.rows_max[at] as usize).cloned().collect::<Vec<_>>()
            };
            (0..plan.lanes.len()).flat_map(of_lane).collect()
        }

        /// What the core wants to look up is read, and what it wants to try is sent.
        fn try_rows(&mut self) {
            while let Some(lookup) = self.core.next_lookup() {
                let rows = lookup.rows.iter().filter_map(|name| self.rows.get(&name.id)).cloned().collect();
                self.core.looked_up(&lookup, rows, self.now);
            }
            while let Some(outgoing) = self.core.next_trial(self.now) {
                self.sent.extend(outgoing.into_iter().map(|outgoing| (outgoing.slot, outgoing.topic)));
            }
        }

        /// Sends a row of the topic, and its batch is refused.
        fn refuse(&mut self, topic: TopicIndex) {
            self.commit(topic, 1, 64);
            let refused = (0..100).find_map(|_| {
                self.now += Duration::from_millis(20);
                self.fetch();
                let at = self.sent.iter().position(|(_, of)| *of == topic)?;
                Some(self.sent.swap_remove(at).0)
            });
            self.core.reported(refused.expect("it was fetched"), Outcome::Refused(ProblemClass::RecordRejected), self.now);
        }

        fn acknowledge(&mut self) {
            let (sick, well): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sent).into_iter().partition(|(_, topic)| *topic == SICK);
            self.sent = sick;
            self.published += well.len();
            well.into_iter().for_each(|(slot, _)| self.core.reported(slot, Outcome::Published, self.now));
        }

        fn heal(&mut self) {
            for (slot, _) in std::mem::take(&mut self.sent) {
                self.core.reported(slot, Outcome::Published, self.now);
            }
        }

        fn state(&self) -> BreakerState {
            self.core.breaker().state()
        }

        fn problems(&self) -> Vec<(TopicIndex, ProblemClass)> {
            self.core.troubled_topics().0
        }
    }

    fn row(lane: u8, id: i64, topic: TopicIndex) -> OutboxRow {
        OutboxRow {
            lane,
            id,
            event_id: Uuid::from_u128(id as u128),
            aggregate_type: "t".to_owned(),
            aggregate_id: format!("k{id}"),
            event_type: "E".to_owned(),
            topic: Some(format!("t{topic}")),
            event_key: None,
            payload: Some(vec![0; 8]),
            headers: "{}".to_owned(),
            created_at_us: 0,
        }
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
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
            assert_eq!(world.problems(), vec![(SICK, ProblemClass::TopicStalled)], "{lanes} lanes");
            let mut behind = 0;
            for _ in 0..20 {
                world.commit(WELL, 5, lanes);
                world.turn(Duration::from_millis(200));
                behind = world.rows.values().filter(|row| row.topic.as_deref() == Some("t1")).count();
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
        assert_eq!(world.state(), BreakerState::Open, "nothing else tells whether the cluster works");
        world.commit(WELL, 300, 64);
        world.turn(seconds(31));
        assert_eq!((world.published, world.state()), (300, BreakerState::Closed));
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
        world.core.topic_seen(WELL, false, world.now);
        world.turn(seconds(100));
        assert_eq!(world.fetches, fetches, "nobody is left to probe for");
    }

    #[test]
    fn after_an_outage_rows_flow_again_in_small_steps() {
        let mut world = World::new();
        world.commit(SICK, 3000, 64);
        world.turn(seconds(20));
        world.heal();
        assert_eq!(world.state(), BreakerState::Closed);
        world.turn(Duration::from_millis(40));
        // 200 old rows were acknowledged: that is two windows, of 64 and of 128.
        assert!((1..=256).contains(&world.sent.len()), "{} rows", world.sent.len());
    }

    #[test]
    fn a_lane_on_its_way_back_waits_for_what_it_has_sent_and_sees_when_that_may_take_for_ever() {
        let mut world = World::new();
        world.commit(SICK, 1, 64);
        world.commit(WELL, 1, 64);
        world.turn(Duration::from_millis(40));
        world.core.drain(64);
        let for_main = DrainWaits { main: true, trial: false };
        assert!(world.core.drain_waits_for() == for_main && !world.core.is_sick(), "it has only just been sent");
        world.turn(seconds(2));
        assert!(world.core.drain_waits_for() == for_main && world.core.is_sick());
        world.heal();
        assert_eq!(world.core.drain_waits_for(), DrainWaits { main: false, trial: false });
    }

    /// A batch was refused, and the row is on trial when its partition loses its leader.
    fn with_a_stuck_trial() -> World {
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
    fn a_trial_that_does_not_end_is_told_and_holds_up_nobody_else() {
        let mut world = with_a_stuck_trial();
        assert_eq!((world.problems(), world.published), (vec![(SICK, ProblemClass::TopicStalled)], 150));
        assert_eq!(world.core.sent_on_main(), 0, "a new producer need not wait for it");
        world.refuse(WELL);
        world.turn(Duration::from_millis(100));
        assert_eq!((world.published, world.state()), (151, BreakerState::Closed), "the other topic has its trial meanwhile");
        for _ in 0..2000 {
            world.heal();
            world.turn(Duration::from_millis(20));
        }
        assert!(world.rows.is_empty() && world.core.trials_are_over() && world.problems().is_empty(), "{} rows are left", world.rows.len());
    }

    #[test]
    fn few_rows_of_a_topic_wait_for_a_trial_that_does_not_end() {
        let world = with_a_stuck_trial();
        let fetched = SHARE_ROWS_MIN.max(BUDGET.rows / SHARE) * 2;
        assert!(world.core.poison.waiting(SICK) <= 500 + fetched, "{} rows", world.core.poison.waiting(SICK));
    }

    #[test]
    fn a_trial_that_does_not_end_keeps_no_lane() {
        let mut world = with_a_stuck_trial();
        world.core.drain(64);
        assert_eq!(world.core.drain_waits_for(), DrainWaits { main: false, trial: true });
        assert!(world.core.is_sick());
        for (slot, _) in std::mem::take(&mut world.sent) {
            world.core.reported(slot, Outcome::Purged, world.now);
        }
        world.turn(Duration::from_millis(20));
        assert!(world.sent.is_empty() && world.core.trials_are_over(), "who has the lanes next decides about their rows");
        assert_eq!(world.core.drained().lanes.len(), LANES);
    }
}
