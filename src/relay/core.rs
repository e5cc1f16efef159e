//! The relay's decisions: what to fetch, what of it to send, what to settle, which lanes to give back. Facts and `now` in, plans out. Pure.

mod outage;
mod poison;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use self::poison::Poison;
pub use self::poison::{Lookup, Verdict};
use super::{
    breaker::Breaker,
    jitter::Jitter,
    lanes::LANES,
    marks::{Covered, LaneMarks, Reading, Tick, Ticks},
    outstanding::Outstanding,
    routes::{Destination, Routes},
    stops::Stops,
    window::{Budget, GivenBack, Settle, Slot, TopicIndex, Window},
};
use crate::{
    outbox::{FetchPlan, Fetched, Flowing, Grant, LaneMarksPlan, OutboxRow},
    report::ProblemClass,
    settings::BreakerSettings,
};

/// Pause after a fetch that brought rows, and first pause of an idle table.
const PAUSE_AFTER_WORK: Duration = Duration::from_millis(5);

/// Fetches that leave rows out look at no more rows than this, so that a mountain of them cannot block the loop.
const SCAN_ROWS_MAX: usize = 50_000;

/// Rows that fetches leave out: they stay in the table, above a position that their lane remembers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Left {
    Topic(TopicIndex),
    Key(TopicIndex, Arc<str>),
    /// Rows without a declared topic.
    Astray,
}

/// A lane of ours.
#[derive(Clone, Debug, Hash)]
struct Lane {
    epoch: i64,
    marks: LaneMarks,
    /// Rows that are left out lie above these ids; they must be found again.
    held: BTreeMap<Left, i64>,
    /// On its way back: nothing new is taken.
    draining: bool,
    /// More waits than the last fetch could bring.
    hungry: bool,
    high_id: i64,
}

/// A row to send, in this order.
pub struct Outgoing {
    pub slot: Slot,
    pub topic: TopicIndex,
    pub row: OutboxRow,
}

/// How a record ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Kafka has it.
    Published,
    /// Its topic failed, and must rest.
    TopicFailed(ProblemClass),
    /// It was refused, or it stood in a batch that was.
    Refused(ProblemClass),
    /// It was thrown out together with the producer, through no fault of its own.
    Purged,
}

/// State of one relay process, without any IO.
#[derive(Clone)]
pub struct Core {
    routes: Arc<Routes>,
    window: Window,
    stops: Stops,
    poison: Poison,
    outstanding: Outstanding,
    breaker: Breaker,
    ticks: Ticks,
    lanes: [Option<Lane>; LANES],
    /// Highest id ever seen: every id up to it has been drawn.
    seen: i64,
    fetch_under_way: bool,
    /// The fetch under way leaves out rows that flow again since: what it covers would be believed to be all.
    fetch_is_stale: bool,
    fetch_at: Instant,
    pause: Duration,
    poll_interval: Duration,
    /// Rows first fetched by this process.
    pub added: u64,
}

impl Core {
    #[must_use]
    pub fn new(routes: Routes, budget: Budget, poll_interval: Duration, now: Instant) -> Self {
        let topics = routes.len();
        Self {
            routes: Arc::new(routes),
            window: Window::new(budget, topics),
            stops: Stops::new(topics),
            poison: Poison::default(),
            outstanding: Outstanding::new(topics, budget.rows),
            breaker: Breaker::new(BreakerSettings::default(), budget.rows, Jitter::seeded(0), now),
            ticks: Ticks::default(),
            lanes: std::array::from_fn(|_| None),
            seen: 0,
            fetch_under_way: false,
            fetch_is_stale: false,
            fetch_at: now,
            pause: PAUSE_AFTER_WORK,
            poll_interval,
            added: 0,
        }
    }

    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    #[must_use]
    pub fn stops(&self) -> &Stops {
        &self.stops
    }

    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Highest id seen so far; goes with a tick whose transaction has not begun yet.
    #[must_use]
    pub fn seen(&self) -> i64 {
        self.seen
    }

    pub fn tick(&mut self, tick: Tick) {
        self.ticks.add(tick);
    }

    // --- lanes

    /// Lanes that were claimed: each is read from the mark of its last owner.
    pub fn granted(&mut self, grants: &[Grant], now: Instant) {
        for grant in grants {
            let held = self.left_topics().map(|left| (left, grant.mark)).collect();
            self.lanes[usize::from(grant.lane)] = Some(Lane {
                epoch: grant.epoch,
                marks: LaneMarks::starting_at(grant.mark),
                held,
                draining: false,
                hungry: true,
                high_id: grant.high_id,
            });
        }
        self.fetch_at = now;
    }

    /// All lanes are lost, or given back.
    pub fn lose_lanes(&mut self) {
        self.lanes = std::array::from_fn(|_| None);
    }

    /// Lanes that we own, without those on their way back.
    #[must_use]
    pub fn owned(&self) -> u32 {
        self.lanes.iter().flatten().filter(|lane| !lane.draining).count() as u32
    }

    /// Whether exactly these lanes are still ours.
    #[must_use]
    pub fn owns_exactly(&self, lanes: &[u8]) -> bool {
        let owned = self.lanes.iter().flatten().count();
        lanes.len() == owned && lanes.iter().all(|lane| self.lanes[usize::from(*lane)].is_some())
    }

    /// Sends so many lanes on their way back, the highest first.
    pub fn drain(&mut self, lanes: u32) {
        for lane in self.lanes.iter_mut().rev().flatten().filter(|lane| !lane.draining).take(lanes as usize) {
            lane.draining = true;
        }
        self.drop_trials_of_leaving_lanes();
    }

    /// Lanes on their way back of which nothing is in flight any more, with their marks.
    #[must_use]
    pub fn drained(&self) -> LaneMarksPlan {
        self.marks_of(|lane, state| state.draining && self.window.is_lane_empty(lane))
    }

    /// These lanes were given back.
    pub fn released(&mut self, lanes: &LaneMarksPlan) {
        for lane in &lanes.lanes {
            self.lanes[usize::try_from(*lane).unwrap_or(0)] = None;
        }
        self.forget_keys_of_lost_lanes();
    }

    /// Marks of all our lanes.
    #[must_use]
    pub fn marks(&self) -> LaneMarksPlan {
        self.marks_of(|_, _| true)
    }

    /// From where the backlog is counted: rows of parked keys and of topics that a person parked wait for a person, and do not count.
    #[must_use]
    pub fn backlog_from(&self) -> (Vec<i16>, Vec<i64>) {
        let counts = |left: &Left| match left {
            Left::Topic(topic) => !self.stops.is_parked(*topic),
            Left::Key(..) => false,
            Left::Astray => true,
        };
        let lanes = self.lanes.iter().enumerate().filter_map(|(lane, state)| Some((lane as u8, state.as_ref()?)));
        let from = |(lane, state): (u8, &Lane)| {
            let held = state.held.iter().filter(|(left, _)| counts(left)).map(|(_, id)| *id);
            (i16::from(lane), held.fold(self.position(lane, state), i64::min))
        };
        lanes.map(from).unzip()
    }

    fn marks_of(&self, wanted: impl Fn(u8, &Lane) -> bool) -> LaneMarksPlan {
        let mut plan = LaneMarksPlan::default();
        for (lane, state) in self.lanes.iter().enumerate() {
            let (lane, Some(state)) = (lane as u8, state) else { continue };
            if wanted(lane, state) {
                plan.lanes.push(i16::from(lane));
                plan.epochs.push(state.epoch);
                plan.marks.push(self.mark(lane, state));
                plan.high_ids.push(state.high_id);
            }
        }
        plan
    }

    /// Every row up to here is settled, and none is still to come: what a new owner starts from.
    fn mark(&self, lane: u8, state: &Lane) -> i64 {
        state.held.values().copied().fold(self.position(lane, state), i64::min)
    }

    /// The same, but for rows that are left out.
    fn position(&self, lane: u8, state: &Lane) -> i64 {
        self.window.lowest(lane).map_or(i64::MAX, |id| id - 1).min(state.marks.mark())
    }

    // --- fetch

    /// When the next fetch may begin; `None` while one is under way or there is no room: then a report or a settle has to come first.
    #[must_use]
    pub fn fetch_at(&self) -> Option<Instant> {
        let possible = !self.fetch_under_way
            && self.lanes.iter().flatten().any(|lane| !lane.draining)
            && self.stops.any_flows()
            && self.room_rows() > 0
            && self.window.room_bytes() > 0;
        possible.then(|| self.breaker.not_before().map_or(self.fetch_at, |at| at.max(self.fetch_at)))
    }

    /// The next fetch, if it is time and there is room. Exactly one is under way at a time.
    pub fn plan_fetch(&mut self, now: Instant) -> Option<FetchPlan> {
        if self.fetch_at().is_none_or(|at| at > now) {
            return None;
        }
        let (room, hungry) = (self.room_rows(), self.lanes.iter().flatten().filter(|lane| lane.hungry && !lane.draining).count());
        let mut plan = FetchPlan { flowing: self.filter(), ..FetchPlan::default() };
        plan.scan_max = (SCAN_ROWS_MAX / self.owned().max(1) as usize) as i32;
        for (lane, state) in self.lanes.iter().enumerate() {
            let (lane, Some(state)) = (lane as u8, state) else { continue };
            let share = if hungry == 0 || !state.hungry { LANES } else { hungry };
            let rows = self.lane_room(lane).min((room / share).max(1));
            if state.draining || rows == 0 {
                continue;
            }
            let low = state.marks.low(now);
            let (again_rows, again_bytes) = self.window.above(lane, low);
            plan.lanes.push(i16::from(lane));
            plan.lows.push(low);
            plan.rows_max.push((rows + again_rows) as i32);
            plan.bytes_max.push((self.room_bytes() / share + again_bytes).max(1) as i64);
        }
        self.fetch_under_way = !plan.lanes.is_empty();
        if !self.fetch_under_way {
            // Every lane is full.
            self.fetch_at = now + PAUSE_AFTER_WORK;
        } else {
            self.breaker.fetching(now);
        }
        self.fetch_under_way.then_some(plan)
    }

    /// The fetch failed, or its rows cannot be used: it is made again.
    pub fn fetch_failed(&mut self, now: Instant) {
        self.fetch_is_in();
        self.rest(now);
    }

    fn fetch_is_in(&mut self) {
        (self.fetch_under_way, self.fetch_is_stale) = (false, false);
        self.window.fetch_is_in();
    }

    /// The rows of a fetch that are new, in the order in which they must be sent.
    pub fn accept(&mut self, plan: &FetchPlan, fetched: Fetched, now: Instant) -> Vec<Outgoing> {
        if self.fetch_is_stale {
            self.fetch_is_in();
            return Vec::new();
        }
        let base = self.ticks.base(&fetched.snapshot);
        let mut outgoing = Vec::new();
        let mut rows = fetched.rows.into_iter().peekable();
        for (at, lane) in plan.lanes.iter().enumerate() {
            let lane = *lane as u8;
            let mut of_lane = Vec::new();
            while let Some(row) = rows.next_if(|row| row.lane == lane) {
                of_lane.push(row);
            }
            let scanned = fetched.scanned.iter().find(|(of, _)| *of == lane).map(|(_, id)| *id);
            self.seen = of_lane.last().map(|row| row.id).max(scanned).map_or(self.seen, |id| id.max(self.seen));
            let asked = Asked { lane, low: plan.lows[at], rows_max: plan.rows_max[at] as usize, bytes_max: plan.bytes_max[at], scanned };
            if let Some(covered) = self.cover(&asked, &mut of_lane) {
                self.take(asked.lane, covered, of_lane, &fetched.snapshot, base, now, &mut outgoing);
            }
        }
        self.fetch_is_in();
        self.added += outgoing.len() as u64;
        let slow = self.poison.try_slow_rows();
        self.set_pace(slow || !outgoing.is_empty(), now);
        outgoing
    }

    /// Cuts the rows of a lane to what there is room for, and says what of the lane they cover. `None` when it is not ours any more.
    fn cover(&self, asked: &Asked, rows: &mut Vec<OutboxRow>) -> Option<Covered> {
        self.lanes[usize::from(asked.lane)].as_ref().filter(|lane| !lane.draining)?;
        let bytes: usize = rows.iter().map(|row| row.payload.as_ref().map_or(0, Vec::len)).sum();
        let mut cut = rows.len() >= asked.rows_max || bytes as i64 >= asked.bytes_max;
        let mut room = self.window.lane_room(asked.lane);
        let fits = |row: &&OutboxRow| {
            let new = !self.window.holds(row.lane, row.id, row.event_id);
            let fits = !new || room > 0;
            room -= usize::from(new && fits);
            fits
        };
        let fitting = rows.iter().take_while(fits).count();
        cut |= fitting < rows.len();
        rows.truncate(fitting);
        let reached = if cut { rows.last().map_or(asked.low, |row| row.id) } else { asked.scanned.unwrap_or(i64::MAX) };
        Some(Covered { low: asked.low, reached })
    }

    #[expect(clippy::too_many_arguments, reason = "the facts of one lane of one fetch")]
    fn take(
        &mut self,
        lane: u8,
        covered: Covered,
        rows: Vec<OutboxRow>,
        snapshot: &crate::outbox::Snapshot,
        base: i64,
        now: Instant,
        outgoing: &mut Vec<Outgoing>,
    ) {
        let Some(state) = self.lanes[usize::from(lane)].as_mut() else { return };
        let reading = state.marks.learn(covered, snapshot, base, now);
        state.hungry = covered.reached != i64::MAX || reading == Reading::Again;
        if reading == Reading::Again {
            return;
        }
        for row in rows {
            if self.window.holds(lane, row.id, row.event_id) {
                continue;
            }
            let Some(state) = self.lanes[usize::from(lane)].as_mut() else { return };
            state.high_id = state.high_id.max(row.id);
            match self.routes.destination(&row) {
                Destination::Topic(topic) if !self.stops.flows(topic) => state.hold(Left::Topic(topic), row.id - 1),
                Destination::Topic(topic) if self.stops.is_slow(topic, now) => {
                    let id = row.id - 1;
                    state.hold(Left::Key(topic, self.poison.take_slowly(topic, row)), id);
                }
                Destination::Topic(topic) => match self.poison.resting_key(topic, row.key()) {
                    Some(key) => state.hold(Left::Key(topic, key), row.id - 1),
                    None => {
                        let Some(slot) = self.window.take(&row, topic) else { continue };
                        self.outstanding.sent(slot, topic, lane, row.bytes(), now);
                        outgoing.push(Outgoing { slot, topic, row });
                    }
                },
                Destination::Astray => {
                    state.hold(Left::Astray, row.id - 1);
                    self.hold_all(&Left::Astray);
                    self.stops.astray(now);
                }
            }
        }
    }

    fn set_pace(&mut self, brought_rows: bool, now: Instant) {
        if brought_rows && self.is_hungry() {
            (self.pause, self.fetch_at) = (PAUSE_AFTER_WORK, now);
        } else if brought_rows || self.is_hungry() {
            (self.pause, self.fetch_at) = (PAUSE_AFTER_WORK, now + PAUSE_AFTER_WORK);
        } else {
            self.rest(now);
        }
    }

    fn is_hungry(&self) -> bool {
        self.lanes.iter().flatten().any(|lane| lane.hungry && !lane.draining)
    }

    /// Whether the reading position could move on with a new tick.
    #[must_use]
    pub fn wants_ticks(&self) -> bool {
        self.window.rows() > 0 || self.is_hungry()
    }

    fn rest(&mut self, now: Instant) {
        self.fetch_at = now + self.pause;
        self.pause = (self.pause * 2).min(self.poll_interval.max(PAUSE_AFTER_WORK));
    }

    // --- records

    /// A record ended.
    pub fn reported(&mut self, slot: Slot, outcome: Outcome, now: Instant) {
        if outcome == Outcome::Published {
            self.outstanding.acknowledged(slot, now);
            self.breaker.acknowledged(now);
        } else {
            self.outstanding.ended(slot);
        }
        if self.poison.is_on_trial(slot) {
            return self.trial_reported(slot, outcome, now);
        }
        if outcome == Outcome::Published {
            if let Some(topic) = self.window.acknowledged(slot) {
                self.stops.succeeded(topic);
            }
            return;
        }
        let Some(given_back) = self.window.failed(slot) else { return };
        self.read_again(given_back);
        match outcome {
            Outcome::TopicFailed(class) => self.topic_failed(given_back, class, now),
            Outcome::Refused(class) => self.suspect(given_back, class),
            Outcome::Published | Outcome::Purged => {}
        }
    }

    /// Whether a row may still be sent: since it was taken, its topic or its key may have come to rest.
    #[must_use]
    pub fn may_send(&self, topic: TopicIndex, row: &OutboxRow) -> bool {
        self.stops.flows(topic) && self.poison.resting_key(topic, row.key()).is_none()
    }

    fn read_again(&mut self, given_back: GivenBack) {
        if let Some(lane) = self.lanes[usize::from(given_back.row.lane)].as_mut() {
            lane.marks.rewind(given_back.row.id - 1);
            lane.hungry = true;
        }
    }

    // --- what rests

    /// Topics that are left out, and rows without one.
    fn left_topics(&self) -> impl Iterator<Item = Left> {
        self.stops.resting().map(Left::Topic).chain(self.stops.is_astray().then_some(Left::Astray))
    }

    /// What fetches leave out; `None`: nothing.
    fn filter(&self) -> Option<Flowing> {
        let rests = self.stops.any() || self.poison.any_key_rests();
        rests.then(|| Flowing {
            resting_keys: self.poison.resting_keys(|topic| self.routes.name(topic)),
            ..self.routes.flowing(|topic| self.stops.flows(topic))
        })
    }

    /// From now on fetches leave rows out: what is not settled yet must be found again when they do not.
    fn hold_all(&mut self, left: &Left) {
        for lane in 0..LANES {
            if let Some(position) = self.lanes[lane].as_ref().map(|state| self.position(lane as u8, state))
                && let Some(state) = self.lanes[lane].as_mut()
            {
                state.hold(left.clone(), position);
            }
        }
    }

    /// What the brokers say about a declared topic.
    pub fn topic_seen(&mut self, topic: TopicIndex, exists: bool, now: Instant) {
        if !exists {
            self.hold_all(&Left::Topic(topic));
            self.stops.missing(topic);
        } else {
            self.stops.exists(topic);
            self.resume(now);
        }
    }

    /// When [`Self::resume`] is to be asked next.
    #[must_use]
    pub fn resume_at(&self, now: Instant) -> Option<Instant> {
        self.stops.next(now, |topic| self.window.sent_of(topic) == 0)
    }

    /// Lets flow again what has rested long enough; a topic that failed shows first that it takes a record.
    pub fn resume(&mut self, now: Instant) {
        for (topic, class) in self.stops.due(now, |topic| self.window.sent_of(topic) == 0) {
            self.try_topic(topic, class, now);
        }
        for topic in self.stops.waited(|topic| self.window.sent_of(topic) == 0) {
            self.stops.flow(topic);
            self.topic_flows_again(topic, now);
        }
        if self.stops.astray_is_over(now) {
            self.flow_again(&[Left::Astray], now);
        }
    }

    fn topic_flows_again(&mut self, topic: TopicIndex, now: Instant) {
        // A person may have parked it meanwhile.
        if self.stops.flows(topic) {
            self.flow_again(&[Left::Topic(topic)], now);
        }
    }

    /// Something flows again: every lane reads again from where its rows may have been left out.
    fn flow_again(&mut self, flowing: &[Left], now: Instant) {
        if flowing.is_empty() {
            return;
        }
        self.fetch_is_stale = self.fetch_under_way;
        for lane in self.lanes.iter_mut().flatten() {
            for left in flowing {
                lane.let_flow(left, &self.stops);
            }
        }
        self.fetch_at = now;
    }

    // --- settle and sweep

    /// The next rows to delete: as soon as a batch is full, or whatever there is when `flush`.
    pub fn next_settle(&mut self, batch_size: usize, flush: bool) -> Option<Settle> {
        if self.window.acked() < batch_size && !flush { None } else { self.window.next_settle(batch_size) }
    }

    pub fn settled(&mut self, slots: &[Slot]) {
        self.window.settled(slots, self.fetch_under_way);
    }

    pub fn settle_failed(&mut self, slots: &[Slot]) {
        self.window.settle_failed(slots);
    }

    /// A sweep found a row at or below the mark: it is read again. Returns whether it was a straggler indeed.
    pub fn straggler(&mut self, lane: u8, id: i64, event_id: uuid::Uuid) -> bool {
        if self.window.holds(lane, id, event_id) {
            return false;
        }
        let Some(state) = self.lanes[usize::from(lane)].as_mut() else { return false };
        state.marks.rewind(id - 1);
        state.hungry = true;
        true
    }
}

impl Lane {
    fn hold(&mut self, left: Left, id: i64) {
        // What was left out with its topic is from now on left out with its key.
        let topic = if let Left::Key(topic, _) = &left { self.held.get(&Left::Topic(*topic)) } else { None };
        let id = topic.map_or(id, |topic| id.min(*topic));
        let held = self.held.entry(left).or_insert(id);
        *held = id.min(*held);
    }

    fn let_flow(&mut self, left: &Left, stops: &Stops) {
        let Some(held) = self.held.remove(left) else { return };
        match left {
            // Its topic rests: what was left out with the key is from now on left out with the topic.
            Left::Key(topic, _) if !stops.flows(*topic) => self.hold(Left::Topic(*topic), held),
            _ => {
                self.marks.rewind(held);
                self.hungry = true;
            }
        }
    }
}

/// What a fetch asked of one lane.
struct Asked {
    lane: u8,
    low: i64,
    rows_max: usize,
    bytes_max: i64,
    /// A fetch that leaves rows out looked at no row above this one.
    scanned: Option<i64>,
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;

#[cfg(test)]
mod model;
