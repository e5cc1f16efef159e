//! The lanes of this relay: taken, drained, given back, and up to where each of them is settled.
//! Pure.

use super::*;
use crate::outbox::{BacklogPlan, ParkedRows};

impl Core {
    /// Lanes that were claimed: each is read from the mark of its last owner. A fetch under way may
    /// show rows of when they were ours before, which others have published since.
    pub fn on_granted(&mut self, grants: &[Grant], now: Instant) {
        self.fetch_is_stale |= self.fetch_under_way && !grants.is_empty();
        for grant in grants {
            let held = self.left_topics().map(|left| (left, grant.mark)).collect();
            self.lanes[usize::from(grant.lane)] = Some(Lane {
                epoch: grant.epoch,
                marks: Watermark::starting_at(grant.mark),
                held,
                draining: false,
                has_more: true,
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
    pub fn owned_lanes(&self) -> u32 {
        self.lanes
            .iter()
            .flatten()
            .filter(|lane| !lane.draining)
            .count() as u32
    }

    /// Whether exactly these lanes are still ours.
    #[must_use]
    pub fn owns_exactly(&self, lanes: &[u8]) -> bool {
        let owned = self.lanes.iter().flatten().count();
        lanes.len() == owned
            && lanes
                .iter()
                .all(|lane| self.lanes[usize::from(*lane)].is_some())
    }

    /// Sends so many lanes on their way back, the highest first.
    pub fn drain(&mut self, lanes: u32, now: Instant) {
        for lane in self
            .lanes
            .iter_mut()
            .rev()
            .flatten()
            .filter(|lane| !lane.draining)
            .take(lanes as usize)
        {
            lane.draining = true;
        }
        self.drop_trials_of_leaving_lanes(now);
    }

    /// Lanes on their way back of which nothing is in flight any more, with their marks.
    #[must_use]
    pub fn drained_lanes(&self) -> LaneWatermarks {
        self.marks_of(|lane, state| state.draining && self.in_flight.is_lane_empty(lane))
    }

    /// These lanes were given back.
    pub fn on_released(&mut self, lanes: &LaneWatermarks) {
        for lane in &lanes.lanes {
            self.lanes[usize::try_from(*lane).unwrap_or(0)] = None;
        }
        self.forget_keys_of_lost_lanes();
    }

    /// Marks of all our lanes.
    #[must_use]
    pub fn watermarks(&self) -> LaneWatermarks {
        self.marks_of(|_, _| true)
    }

    /// Which rows are the backlog: those of parked keys and of topics that a person parked wait for
    /// a person, and do not count. They are left out by name only where rows before them wait for
    /// another reason: the others lie below the position.
    #[must_use]
    pub fn backlog_plan(&self) -> BacklogPlan {
        let counts = |left: &Excluded| match left {
            Excluded::Topic(topic) => !self.topic_states.is_parked(*topic),
            Excluded::Key(topic, key) => !self.isolation.is_parked(*topic, key),
            Excluded::Astray => true,
        };
        let (mut plan, mut others_wait) = (BacklogPlan::default(), false);
        for (lane, state) in self.lanes.iter().enumerate() {
            let (lane, Some(state)) = (lane as u8, state) else {
                continue;
            };
            let position = self.position(lane, state);
            let mark = state
                .held
                .iter()
                .filter(|(left, _)| counts(left))
                .map(|(_, id)| *id)
                .fold(position, i64::min);
            others_wait |= mark < position;
            plan.lanes.push(i16::from(lane));
            plan.marks.push(mark);
        }
        plan.parked = if others_wait {
            self.parked_rows()
        } else {
            None
        };
        plan
    }

    fn parked_rows(&self) -> Option<ParkedRows> {
        let FetchFilter {
            topics,
            by_event_type,
            by_aggregate_type,
            ..
        } = self
            .routes
            .flowing(|topic| self.topic_states.is_parked(topic));
        let keys: Vec<_> = self
            .isolation
            .parked()
            .map(|(topic, key)| (self.routes.name(topic).to_owned(), key.to_owned()))
            .collect();
        (!topics.is_empty() || !keys.is_empty()).then_some(ParkedRows {
            topics,
            keys,
            by_event_type,
            by_aggregate_type,
        })
    }

    pub(super) fn marks_of(&self, wanted: impl Fn(u8, &Lane) -> bool) -> LaneWatermarks {
        let mut plan = LaneWatermarks::default();
        for (lane, state) in self.lanes.iter().enumerate() {
            let (lane, Some(state)) = (lane as u8, state) else {
                continue;
            };
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
    pub(super) fn mark(&self, lane: u8, state: &Lane) -> i64 {
        state
            .held
            .values()
            .copied()
            .fold(self.position(lane, state), i64::min)
    }

    /// The same, but for rows that are left out.
    pub(super) fn position(&self, lane: u8, state: &Lane) -> i64 {
        self.in_flight
            .lowest(lane)
            .map_or(i64::MAX, |id| id - 1)
            .min(state.marks.mark())
    }
}
