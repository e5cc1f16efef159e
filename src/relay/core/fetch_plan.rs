//! What to fetch, and what of it to send. Pure.

use std::time::{Duration, Instant};

use crate::{
    failpoints::{self, Bug},
    outbox::{
        FetchRequest, Fetched, Lane, LaneRead, OutboxRow, RowId, Snapshot,
        row_sql::FETCHED_BYTES_MAX,
    },
    relay::core::{
        Core, FetchState, Outgoing,
        doorbell::Found,
        excluded::Excluded,
        fair_share::{Amount, Room, Window},
        ids::{Slot, TopicIndex},
        isolation::class_of,
        lane_share::LANES,
        owned_lanes::OwnedLane,
        routing::Destination,
        row_limits::Sending,
        topic_state::TopicState,
        watermarks::{Covered, ReadDecision},
    },
};

/// Pause after a fetch that brought rows, and first pause while there are none.
pub(super) const PAUSE_AFTER_WORK: Duration = Duration::from_millis(5);
/// Pause after a fetch that brought [`MANY_ROWS`]: where rows come that fast, the next fetch brings
/// more of them for the same cost, to writers too.
const PAUSE_AFTER_MANY: Duration = Duration::from_millis(10);
/// Rows of a fetch from which on [`PAUSE_AFTER_MANY`] applies.
const MANY_ROWS: usize = 16;
/// Rows that a fetch with a filter reads at most, over all lanes: a large number of excluded rows
/// must not block the loop.
const SCAN_ROWS_MAX: usize = 50_000;
/// The remembered size of the largest row shrinks by this part with each fetch that brings only
/// smaller ones.
const LARGEST_ROW_DECAY_DIVISOR: usize = 8;

/// What a fetch requested of one lane, and how far it read.
struct LaneAnswer {
    read: LaneRead,
    /// A fetch with a filter read no row above this id.
    scanned: Option<RowId>,
    /// Rows were left out because of their bytes.
    is_cut_by_bytes: bool,
}

impl LaneAnswer {
    /// The answer for a lane.
    fn new(read: LaneRead, fetched: &Fetched) -> Self {
        let mut scanned = fetched.scanned.iter();
        let scanned = scanned.find(|(lane, _)| *lane == read.lane);
        Self {
            read,
            scanned: scanned.map(|(_, id)| *id),
            is_cut_by_bytes: fetched.cut.contains(&read.lane),
        }
    }

    /// Whether a limit cut the rows short.
    fn is_cut(&self, rows: &[OutboxRow]) -> bool {
        rows.len() >= self.read.rows_max as usize || self.is_cut_by_bytes
    }
}

/// What all lanes of a fetch have in common.
struct Reading<'a> {
    snapshot: &'a Snapshot,
    /// Every id up to here was drawn by a transaction that the snapshot shows as finished or
    /// running.
    safe_id: RowId,
    now: Instant,
}

impl Core {
    /// When the next fetch may begin; `None` while one is under way or there is no room. Then a
    /// delivery report or a settled row makes room first.
    #[must_use]
    pub fn next_fetch_at(&self) -> Option<Instant> {
        if !self.is_fetch_possible() {
            return None;
        }
        let not_before = self.breaker.not_before().unwrap_or(self.fetch_at);
        Some(not_before.max(self.fetch_at))
    }

    /// Whether no fetch is under way, and one would have lanes, topics and room.
    fn is_fetch_possible(&self) -> bool {
        self.fetch == FetchState::Idle && self.has_room_to_fetch()
    }

    /// Whether a fetch would have lanes, topics and room.
    pub(super) fn has_room_to_fetch(&self) -> bool {
        self.kept_lanes().next().is_some()
            && self.topics.any_is_active()
            && self.has_room(self.fetch_room())
    }

    /// Whether a fetch may bring anything.
    fn has_room(&self, room: Room) -> bool {
        room.rows > 0 && self.free_amount(self.unacknowledged_of_paused()).bytes > 0
    }

    /// What the next fetch may bring.
    fn fetch_room(&self) -> Room {
        let paused = self.unacknowledged_of_paused();
        let active = self.topics.active().map(TopicState::unacknowledged);
        self.fair_share.room(&self.window(paused), active)
    }

    /// How full the window is; `paused` is what paused topics have with the producers.
    fn window(&self, paused: Amount) -> Window {
        Window {
            limit: self.send_window.limit(),
            free: self.free_amount(paused),
            paused,
            breaker_rows: self.breaker.room(self.in_flight.sent() - paused.rows),
            more_waits: self.has_more(),
        }
    }

    /// What fits in beside what is in flight, and beside what producers have.
    fn free_amount(&self, paused: Amount) -> Amount {
        let of_budget = Amount {
            rows: self.in_flight.room_rows(),
            bytes: self.in_flight.room_bytes(),
        };
        of_budget.min(self.send_window.room(paused))
    }

    /// The next fetch, if it is time and there is room. [`Self::accept`] or
    /// [`Self::on_fetch_failed`] must follow; one fetch is under way at a time.
    pub fn plan_fetch(&mut self, now: Instant) -> Option<FetchRequest> {
        if self.next_fetch_at().is_none_or(|at| at > now) {
            return None;
        }
        let request = self.fetch_request(now);
        if request.lanes.is_empty() {
            // Every lane is full.
            self.fetch_at = now + PAUSE_AFTER_WORK;
            return None;
        }
        self.fetch = FetchState::UnderWay;
        self.breaker.on_fetch(now);
        let lanes = request.lanes.iter().map(|read| read.lane);
        self.doorbell.on_fetch_begun(lanes.collect());
        Some(request)
    }

    /// A fetch of all lanes that have room.
    fn fetch_request(&self, now: Instant) -> FetchRequest {
        let lanes = self.plan_lanes(now);
        FetchRequest {
            small: self.are_small(&lanes),
            filter: self.fetch_filter(),
            scan_max: self.lane_scan_max(),
            bytes_max: self.fetch_room().bytes,
            held: self.in_flight.large().clone(),
            lanes,
        }
    }

    /// Rows of one lane that a fetch with a filter reads at most.
    fn lane_scan_max(&self) -> i32 {
        (SCAN_ROWS_MAX / self.owned_lanes().max(1) as usize) as i32
    }

    /// What a fetch reads of each lane that has room.
    fn plan_lanes(&self, now: Instant) -> Vec<LaneRead> {
        let room = self.fetch_room();
        let mut reads = Vec::new();
        let lanes_with_more = self.kept_lanes().filter(|lane| lane.has_more).count();
        for (lane, owned) in self.lanes_by_number() {
            let divisor = room_divisor(owned, lanes_with_more);
            reads.extend(self.plan_lane((lane, owned), room, divisor, now));
        }
        self.begin_at_first_lane(&mut reads);
        reads
    }

    /// Changes the order of lanes: those that got no room last time come first.
    fn begin_at_first_lane(&self, reads: &mut [LaneRead]) {
        let Some(first) = self.first_lane else {
            return;
        };
        let is_later = |read: &LaneRead| read.lane.index() >= first.index();
        let at = reads.iter().position(is_later).unwrap_or(0);
        reads.rotate_left(at);
    }

    /// What a fetch reads of a lane, which gets the `divisor`-th part of the room; `None` if the
    /// lane is leaving or full.
    fn plan_lane(
        &self,
        (lane, owned): (Lane, &OwnedLane),
        room: Room,
        divisor: usize,
        now: Instant,
    ) -> Option<LaneRead> {
        let rows = self
            .fair_share
            .lane_rows(self.in_flight.lane_room(lane))
            .min((room.rows / divisor).max(1));
        if owned.is_leaving() || rows == 0 {
            return None;
        }
        let low = read_from(owned, now);
        // A fetch returns rows in flight again, which take no room but count for the SQL limits.
        let (again_rows, again_bytes) = self.in_flight.rows_above(lane, low);
        Some(LaneRead {
            lane,
            low,
            rows_max: (rows + again_rows) as i32,
            bytes_max: (room.bytes / divisor + again_bytes).max(1) as i64,
        })
    }

    /// Whether all rows of a fetch fit, if no row is larger than the largest remembered one.
    fn are_small(&self, reads: &[LaneRead]) -> bool {
        let rows: i64 = reads.iter().map(|read| i64::from(read.rows_max)).sum();
        let bytes_max: i64 = reads.iter().map(|read| read.bytes_max).sum();
        self.largest_row
            .is_some_and(|largest| rows * largest as i64 <= bytes_max)
    }

    fn remember_largest_row(&mut self, rows: &[OutboxRow]) {
        let read = rows.iter().map(OutboxRow::read_bytes);
        // A large row comes without its payload.
        let read = read.map(|bytes| bytes.min(FETCHED_BYTES_MAX));
        if let Some(largest) = read.max() {
            self.largest_row = Some(largest.max(self.decayed_largest_row()));
        }
    }

    /// The remembered size of the largest row, after one more fetch; 0 before the first row.
    fn decayed_largest_row(&self) -> usize {
        match self.largest_row {
            Some(before) => before - before / LARGEST_ROW_DECAY_DIVISOR,
            None => 0,
        }
    }

    /// Records that the fetch failed, or that its rows cannot be used: it is made again.
    pub fn on_fetch_failed(&mut self, now: Instant) {
        self.end_fetch();
        self.doorbell.on_fetch_useless();
        self.back_off(now);
    }

    fn end_fetch(&mut self) {
        self.fetch = FetchState::Idle;
        self.in_flight.end_fetch();
    }

    /// Ignores the rows of the fetch that is under way, if there is one.
    pub(super) fn discard_fetch(&mut self) {
        if self.fetch == FetchState::UnderWay {
            self.fetch = FetchState::Stale;
        }
    }

    /// Takes the new rows of a fetch. Returns them in the order in which they must be sent.
    pub fn accept(&mut self, plan: &FetchRequest, fetched: Fetched, now: Instant) -> Vec<Outgoing> {
        if self.fetch == FetchState::Stale {
            self.end_fetch();
            self.doorbell.on_fetch_useless();
            return Vec::new();
        }
        self.remember_largest_row(&fetched.rows);
        self.first_record_gate.begin_round();
        let outgoing = self.take_rows(plan, fetched, now);
        self.end_fetch();
        let any_slow = self.isolation.probe_slow_rows();
        self.set_pace(outgoing.len() + usize::from(any_slow), now);
        outgoing
    }

    /// Takes the rows of all lanes of a fetch, lane by lane.
    fn take_rows(&mut self, plan: &FetchRequest, fetched: Fetched, now: Instant) -> Vec<Outgoing> {
        let reading = Reading {
            safe_id: self.ticks.safe_id(&fetched.snapshot),
            snapshot: &fetched.snapshot,
            now,
        };
        let answers = plan
            .lanes
            .iter()
            .map(|read| LaneAnswer::new(*read, &fetched));
        let answers: Vec<_> = answers.collect();
        let mut rows = fetched.rows.into_iter();
        let mut outgoing = Vec::with_capacity(rows.len());
        self.first_lane = None;
        for answer in answers {
            self.take_lane(&answer, &mut rows, &reading, &mut outgoing);
        }
        outgoing
    }

    /// Takes the rows of one lane, which are the next in `rows`. Rows that cannot be taken are
    /// dropped: the lane reads them again.
    fn take_lane(
        &mut self,
        answer: &LaneAnswer,
        rows: &mut std::vec::IntoIter<OutboxRow>,
        reading: &Reading<'_>,
        outgoing: &mut Vec<Outgoing>,
    ) {
        let lane_rows = rows_of_lane(rows.as_slice(), answer.read.lane);
        let (returned, taken) = (lane_rows.len(), self.read_lane(answer, lane_rows, reading));
        for row in rows.by_ref().take(taken) {
            self.take_row(row, reading.now, outgoing);
        }
        rows.by_ref().take(returned - taken).for_each(drop);
    }

    /// Advances a lane by what a fetch read of it. Returns how many of its rows, from the first on,
    /// are to be taken: none if the lane is not kept, or must be read again from further below.
    fn read_lane(
        &mut self,
        answer: &LaneAnswer,
        rows: &[OutboxRow],
        reading: &Reading<'_>,
    ) -> usize {
        let lane = answer.read.lane;
        if let Some(highest) = rows.last().map(|row| row.id).max(answer.scanned) {
            self.highest_id = self.highest_id.max(highest);
        }
        if !self.is_kept(lane) {
            return 0;
        }
        let (covered, fitting) = self.cover(answer, rows);
        if fitting < rows.len() {
            self.first_lane.get_or_insert(lane);
        }
        let Some(owned) = self.lanes[lane.index()].as_mut() else {
            return 0;
        };
        match advance(owned, covered, reading) {
            ReadDecision::Take => {
                owned.has_more = covered.reached != RowId::MAX;
                fitting
            }
            ReadDecision::Again => {
                owned.has_more = true;
                0
            }
        }
    }

    /// Which ids of a lane its rows cover, and how many of the rows there is room for.
    fn cover(&self, answer: &LaneAnswer, rows: &[OutboxRow]) -> (Covered, usize) {
        let read = answer.read;
        let fitting = self.fitting_rows(read.lane, rows);
        let reached = if fitting < rows.len() || answer.is_cut(rows) {
            rows[..fitting].last().map_or(read.low, |row| row.id)
        } else {
            answer.scanned.unwrap_or(RowId::MAX)
        };
        let covered = Covered {
            low: read.low,
            reached,
        };
        (covered, fitting)
    }

    /// How many rows, from the first on, may be taken now.
    fn fitting_rows(&self, lane: Lane, rows: &[OutboxRow]) -> usize {
        let fitting = self.rows_with_room(lane, rows);
        self.rows_before_waiting(lane, &rows[..fitting])
    }

    /// How many rows, from the first on, the lane and the producers have room for. Rows in flight
    /// need none.
    fn rows_with_room(&self, lane: Lane, rows: &[OutboxRow]) -> usize {
        let room = self.room_of_lane(lane);
        let bytes: usize = rows.iter().map(OutboxRow::bytes).sum();
        if rows.len() <= room.rows && bytes <= room.bytes {
            return rows.len();
        }
        self.rows_within(room, rows)
    }

    /// How many rows, from the first on, `room` is enough for.
    fn rows_within(&self, mut room: Amount, rows: &[OutboxRow]) -> usize {
        for (at, row) in rows.iter().enumerate() {
            if !self.is_in_flight(row) {
                // The last row may be larger than the room: a large one must be sent, too.
                if room.rows == 0 || room.bytes == 0 {
                    return at;
                }
                let bytes = row.bytes();
                room = room.without(Amount { rows: 1, bytes });
            }
        }
        rows.len()
    }

    /// What may be taken of a lane: its own room, and that of the producers.
    fn room_of_lane(&self, lane: Lane) -> Amount {
        let of_lane = Amount {
            rows: self.in_flight.lane_room(lane),
            bytes: usize::MAX,
        };
        of_lane.min(self.send_window.room(self.unacknowledged_of_paused()))
    }

    /// Takes one row: sends it, or leaves it out with its topic or its key.
    fn take_row(&mut self, row: OutboxRow, now: Instant, outgoing: &mut Vec<Outgoing>) {
        if self.is_in_flight(&row) {
            return;
        }
        let (lane, below) = (row.lane, row.id.before());
        if let Some(owned) = self.lanes[lane.index()].as_mut() {
            owned.highest_id = owned.highest_id.max(row.id);
        }
        match self.routes.destination(&row) {
            Destination::Topic(topic) => self.take_declared_row(row, topic, now, outgoing),
            Destination::Undeclared => self.exclude_undeclared(lane, below, now),
        }
    }

    /// Takes a row of a declared topic.
    fn take_declared_row(
        &mut self,
        row: OutboxRow,
        topic: TopicIndex,
        now: Instant,
        outgoing: &mut Vec<Outgoing>,
    ) {
        let (lane, below) = (row.lane, row.id.before());
        let excluded = if !self.topics[topic].is_active() {
            Excluded::Topic(topic)
        } else if let Some(sending) = self.special(&row) {
            return self.take_special_row(&row, topic, sending, now);
        } else if self.topics[topic].is_slow(now) {
            Excluded::Key(topic, self.isolation.add_slow_row(topic, row))
        } else if let Some(key) = self.isolation.paused_key(topic, row.key()) {
            Excluded::Key(topic, key)
        } else {
            if let Some(slot) = self.put_in_flight(&row, topic, now) {
                outgoing.push(Outgoing { slot, topic, row });
            }
            return;
        };
        self.exclude(lane, excluded, below);
    }

    /// Takes a row that is not sent with others: it is sent alone, or rejected.
    fn take_special_row(
        &mut self,
        row: &OutboxRow,
        topic: TopicIndex,
        sending: Sending,
        now: Instant,
    ) {
        if let Some(key) = self.isolation.paused_key(topic, row.key()) {
            self.exclude_from(row, Excluded::Key(topic, key));
        } else if sending == Sending::Alone {
            let key = self.isolation.send_alone(topic, row);
            self.exclude_from(row, Excluded::Key(topic, key));
        } else {
            self.reject(topic, row, class_of(row.fault()), 1, now);
        }
    }

    fn exclude_undeclared(&mut self, lane: Lane, below: RowId, now: Instant) {
        self.exclude(lane, Excluded::Undeclared, below);
        self.exclude_everywhere(&Excluded::Undeclared);
        self.topics.on_undeclared(now);
    }

    /// Records that a row goes to a producer. Returns its slot; `None` without room for it.
    pub(super) fn put_in_flight(
        &mut self,
        row: &OutboxRow,
        topic: TopicIndex,
        now: Instant,
    ) -> Option<Slot> {
        self.put_counted_in_flight(row, row.bytes(), topic, now)
    }

    /// Records that a row goes to a producer, and counts this many bytes for it: none for a row
    /// that is sent alone, or it would take the room of all others.
    pub(super) fn put_counted_in_flight(
        &mut self,
        row: &OutboxRow,
        bytes: usize,
        topic: TopicIndex,
        now: Instant,
    ) -> Option<Slot> {
        let slot = self.in_flight.take_counted(row, bytes, topic)?;
        let burst = self.topics.on_sent(topic, row.lane, bytes, now);
        self.send_window.on_sent(bytes, now);
        self.in_flight.set_burst(slot, burst);
        Some(slot)
    }

    fn is_in_flight(&self, row: &OutboxRow) -> bool {
        self.in_flight.holds(row.identity()) && !failpoints::has(Bug::NoInFlightCheck)
    }

    /// Sets when the next fetch begins, after one that brought `rows`.
    fn set_pace(&mut self, rows: usize, now: Instant) {
        let is_idle = rows == 0 && !self.has_more();
        let found = match rows {
            0 if is_idle => Found::NoRows,
            0 => Found::Unread,
            _ => Found::Rows,
        };
        self.doorbell.on_fetched(found, now);
        if self.has_rung() {
            self.fetch_at = now;
            return;
        }
        if is_idle {
            return self.back_off(now);
        }
        self.pause = PAUSE_AFTER_WORK;
        self.fetch_at = now + self.pause_after(rows);
    }

    /// Pause after a fetch that brought `rows`; none if it brought rows and more wait.
    fn pause_after(&self, rows: usize) -> Duration {
        match rows {
            1.. if self.has_more() => Duration::ZERO,
            MANY_ROWS.. => PAUSE_AFTER_MANY,
            _ => PAUSE_AFTER_WORK,
        }
    }

    /// Whether more rows of a kept lane wait than the last fetch could return.
    pub(super) fn has_more(&self) -> bool {
        self.kept_lanes().any(|lane| lane.has_more)
    }

    /// Whether a tick could move a watermark on.
    #[must_use]
    pub fn needs_tick(&self) -> bool {
        !self.doorbell.is_asleep() && (self.in_flight.rows() > 0 || self.has_more())
    }

    /// Begins the next fetch now, and those after it as after rows.
    pub(super) fn poll_now(&mut self, now: Instant) {
        self.pause = PAUSE_AFTER_WORK;
        self.fetch_at = self.fetch_at.min(now);
    }

    /// Delays the next fetch: until the end of a sleep, or else twice as long each time, up to the
    /// poll interval.
    fn back_off(&mut self, now: Instant) {
        if let Some(until) = self.sleeps_until(now) {
            self.fetch_at = until;
            return;
        }
        self.fetch_at = now + self.pause;
        self.pause = (self.pause * 2).min(self.poll_interval.max(PAUSE_AFTER_WORK));
    }
}

/// By what the room of a fetch is divided for a lane: lanes where more waits share the room, and
/// each other one has its part of all lanes.
fn room_divisor(lane: &OwnedLane, lanes_with_more: usize) -> usize {
    match (lanes_with_more, lane.has_more) {
        (0, _) | (_, false) => LANES,
        (lanes_with_more, true) => lanes_with_more,
    }
}

/// The id above which the next fetch reads a lane.
fn read_from(lane: &OwnedLane, now: Instant) -> RowId {
    if failpoints::has(Bug::ForwardOnly) {
        lane.highest_id
    } else {
        lane.watermark.read_from(now)
    }
}

/// The rows at the front that belong to a lane.
fn rows_of_lane(rows: &[OutboxRow], lane: Lane) -> &[OutboxRow] {
    let end = rows.iter().position(|row| row.lane != lane);
    &rows[..end.unwrap_or(rows.len())]
}

/// Advances the watermark of a lane by what a fetch covered.
#[cfg(not(feature = "planted-bugs"))]
fn advance(lane: &mut OwnedLane, covered: Covered, reading: &Reading<'_>) -> ReadDecision {
    lane.watermark
        .advance(covered, reading.snapshot, reading.safe_id, reading.now)
}

/// Advances the watermark of a lane by what a fetch covered; with the bug, to the highest id.
#[cfg(feature = "planted-bugs")]
fn advance(lane: &mut OwnedLane, covered: Covered, reading: &Reading<'_>) -> ReadDecision {
    let is_forward_only = failpoints::has(Bug::ForwardOnly);
    if is_forward_only {
        lane.watermark.go_forward(lane.highest_id);
    }
    let decision = lane
        .watermark
        .advance(covered, reading.snapshot, reading.safe_id, reading.now);
    if is_forward_only {
        ReadDecision::Take
    } else {
        decision
    }
}
