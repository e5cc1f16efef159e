//! What to fetch, and what of it to send. Pure.

use super::*;
use crate::failpoints::{self, Bug};

impl Core {
    /// When the next fetch may begin; `None` while one is under way or there is no room: then a
    /// report or a settle has to come first.
    #[must_use]
    pub fn next_fetch_at(&self) -> Option<Instant> {
        let possible = !self.fetch_under_way
            && self.lanes.iter().flatten().any(|lane| !lane.draining)
            && self.topic_states.any_is_active()
            && self.room_rows() > 0
            && self.in_flight.room_bytes() > 0;
        possible.then(|| {
            self.breaker
                .not_before()
                .map_or(self.fetch_at, |at| at.max(self.fetch_at))
        })
    }

    /// The next fetch, if it is time and there is room. Exactly one is under way at a time.
    pub fn plan_fetch(&mut self, now: Instant) -> Option<FetchRequest> {
        if self.next_fetch_at().is_none_or(|at| at > now) {
            return None;
        }
        let (room, has_more) = (
            self.room_rows(),
            self.lanes
                .iter()
                .flatten()
                .filter(|lane| lane.has_more && !lane.draining)
                .count(),
        );
        let mut plan = FetchRequest {
            flowing: self.filter(),
            ..FetchRequest::default()
        };
        plan.scan_max = (SCAN_ROWS_MAX / self.owned_lanes().max(1) as usize) as i32;
        for (lane, state) in self.lanes.iter().enumerate() {
            let (lane, Some(state)) = (lane as u8, state) else {
                continue;
            };
            let share = if has_more == 0 || !state.has_more {
                LANES
            } else {
                has_more
            };
            let rows = self.lane_room(lane).min((room / share).max(1));
            if state.draining || rows == 0 {
                continue;
            }
            let low = if failpoints::has(Bug::ForwardOnly) {
                state.high_id
            } else {
                state.marks.low(now)
            };
            let (again_rows, again_bytes) = self.in_flight.above(lane, low);
            plan.lanes.push(i16::from(lane));
            plan.lows.push(low);
            plan.rows_max.push((rows + again_rows) as i32);
            plan.bytes_max
                .push((self.room_bytes() / share + again_bytes).max(1) as i64);
        }
        plan.small = self.are_small(&plan);
        self.fetch_under_way = !plan.lanes.is_empty();
        if !self.fetch_under_way {
            // Every lane is full.
            self.fetch_at = now + PAUSE_AFTER_WORK;
        } else {
            self.breaker.on_fetch(now);
        }
        self.fetch_under_way.then_some(plan)
    }

    /// Whether all rows of a plan fit, if none is larger than those of late.
    fn are_small(&self, plan: &FetchRequest) -> bool {
        let rows: i64 = plan.rows_max.iter().copied().map(i64::from).sum();
        self.largest
            .is_some_and(|largest| rows * largest as i64 <= plan.bytes_max.iter().sum())
    }

    fn remember_largest(&mut self, rows: &[OutboxRow]) {
        if let Some(largest) = rows.iter().map(OutboxRow::payload_bytes).max() {
            self.largest = Some(
                self.largest
                    .map_or(largest, |before| largest.max(before - before / 8)),
            );
        }
    }

    /// The fetch failed, or its rows cannot be used: it is made again.
    pub fn on_fetch_failed(&mut self, now: Instant) {
        self.fetch_is_in();
        self.rest(now);
    }

    pub(super) fn fetch_is_in(&mut self) {
        (self.fetch_under_way, self.fetch_is_stale) = (false, false);
        self.in_flight.fetch_is_in();
    }

    /// The rows of a fetch that are new, in the order in which they must be sent.
    pub fn accept(&mut self, plan: &FetchRequest, fetched: Fetched, now: Instant) -> Vec<Outgoing> {
        if self.fetch_is_stale {
            self.fetch_is_in();
            return Vec::new();
        }
        self.remember_largest(&fetched.rows);
        self.first_record_gate.begin_round();
        let base = self.ticks.base(&fetched.snapshot);
        let mut rows = fetched.rows.into_iter();
        let mut outgoing = Vec::with_capacity(rows.len());
        for (at, lane) in plan.lanes.iter().enumerate() {
            let lane = *lane as u8;
            let count = rows
                .as_slice()
                .iter()
                .take_while(|row| row.lane == lane)
                .count();
            let of_lane = &rows.as_slice()[..count];
            let scanned = fetched
                .scanned
                .iter()
                .find(|(of, _)| *of == lane)
                .map(|(_, id)| *id);
            let asked = Asked {
                lane,
                low: plan.lows[at],
                rows_max: plan.rows_max[at] as usize,
                bytes_max: plan.bytes_max[at],
                scanned,
            };
            self.seen = of_lane
                .last()
                .map(|row| row.id)
                .max(scanned)
                .map_or(self.seen, |id| id.max(self.seen));
            let covered = self.cover(&asked, of_lane);
            let mut of_lane = rows.by_ref().take(count);
            if let Some((covered, fitting)) = covered {
                self.take(
                    lane,
                    covered,
                    of_lane.by_ref().take(fitting),
                    &fetched.snapshot,
                    base,
                    now,
                    &mut outgoing,
                );
            }
            of_lane.for_each(drop);
        }
        self.fetch_is_in();
        let slow = self.isolation.try_slow_rows();
        self.set_pace(outgoing.len() + usize::from(slow), now);
        outgoing
    }

    /// What the rows of a lane cover of it, and how many of them there is room for. `None` when it
    /// is not ours any more.
    fn cover(&self, asked: &Asked, rows: &[OutboxRow]) -> Option<(Covered, usize)> {
        self.lanes[usize::from(asked.lane)]
            .as_ref()
            .filter(|lane| !lane.draining)?;
        let bytes: usize = rows.iter().map(OutboxRow::payload_bytes).sum();
        let mut cut = rows.len() >= asked.rows_max || bytes as i64 >= asked.bytes_max;
        let (room, mut new) = (self.in_flight.lane_room(asked.lane), 0);
        let fits = |row: &&OutboxRow| {
            new += usize::from(!self.holds(row.lane, row));
            new <= room
        };
        // So few all fit, whatever of them is new.
        let fitting = if rows.len() <= room {
            rows.len()
        } else {
            rows.iter().take_while(fits).count()
        };
        cut |= fitting < rows.len();
        let reached = if cut {
            rows[..fitting].last().map_or(asked.low, |row| row.id)
        } else {
            asked.scanned.unwrap_or(i64::MAX)
        };
        Some((
            Covered {
                low: asked.low,
                reached,
            },
            fitting,
        ))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the facts of one lane of one fetch"
    )]
    fn take(
        &mut self,
        lane: u8,
        covered: Covered,
        rows: impl Iterator<Item = OutboxRow>,
        snapshot: &crate::outbox::Snapshot,
        base: i64,
        now: Instant,
        outgoing: &mut Vec<Outgoing>,
    ) {
        let Some(state) = self.lanes[usize::from(lane)].as_mut() else {
            return;
        };
        #[cfg(feature = "planted-bugs")]
        if failpoints::has(Bug::ForwardOnly) {
            state.marks.go_forward(state.high_id);
        }
        let reading = state.marks.learn(covered, snapshot, base, now);
        #[cfg(feature = "planted-bugs")]
        let reading = if failpoints::has(Bug::ForwardOnly) {
            ReadDecision::Take
        } else {
            reading
        };
        state.has_more = covered.reached != i64::MAX || reading == ReadDecision::Again;
        if reading == ReadDecision::Again {
            return;
        }
        for row in rows {
            if self.holds(lane, &row) {
                continue;
            }
            let Some(state) = self.lanes[usize::from(lane)].as_mut() else {
                return;
            };
            state.high_id = state.high_id.max(row.id);
            match self.routes.destination(&row) {
                Destination::Topic(topic) if !self.topic_states.is_active(topic) => {
                    state.hold(Excluded::Topic(topic), row.id - 1)
                }
                Destination::Topic(topic) if self.topic_states.is_slow(topic, now) => {
                    let id = row.id - 1;
                    state.hold(
                        Excluded::Key(topic, self.isolation.take_slowly(topic, row)),
                        id,
                    );
                }
                Destination::Topic(topic) => match self.isolation.resting_key(topic, row.key()) {
                    Some(key) => state.hold(Excluded::Key(topic, key), row.id - 1),
                    None => {
                        let Some(slot) = self.in_flight.take(&row, topic) else {
                            continue;
                        };
                        self.unacknowledged
                            .sent(slot, topic, lane, row.bytes(), now);
                        outgoing.push(Outgoing { slot, topic, row });
                    }
                },
                Destination::Undeclared => {
                    state.hold(Excluded::Astray, row.id - 1);
                    self.hold_all(&Excluded::Astray);
                    self.topic_states.astray(now);
                }
            }
        }
    }

    fn holds(&self, lane: u8, row: &OutboxRow) -> bool {
        self.in_flight.holds(lane, row.id, row.event_id) && !failpoints::has(Bug::NoInFlightCheck)
    }

    fn set_pace(&mut self, brought: usize, now: Instant) {
        if brought == 0 && !self.has_more() {
            return self.rest(now);
        }
        self.pause = PAUSE_AFTER_WORK;
        let until_next = match brought {
            1.. if self.has_more() => Duration::ZERO,
            MANY_ROWS.. => PAUSE_AFTER_MANY,
            _ => PAUSE_AFTER_WORK,
        };
        self.fetch_at = now + until_next;
    }

    pub(super) fn has_more(&self) -> bool {
        self.lanes
            .iter()
            .flatten()
            .any(|lane| lane.has_more && !lane.draining)
    }

    /// Whether the reading position could move on with a new tick.
    #[must_use]
    pub fn needs_tick(&self) -> bool {
        self.in_flight.rows() > 0 || self.has_more()
    }

    pub(super) fn rest(&mut self, now: Instant) {
        self.fetch_at = now + self.pause;
        self.pause = (self.pause * 2).min(self.poll_interval.max(PAUSE_AFTER_WORK));
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
