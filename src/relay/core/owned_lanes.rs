//! The lanes of this relay: claimed, given back, and up to which id each of them is settled. Pure.

use std::{collections::BTreeMap, time::Instant};

use crate::{
    outbox::{
        BacklogPlan, FetchFilter, FetchRequest, Grant, Lane, LaneBacklog, LaneWatermark,
        ParkedRows, RowId,
    },
    relay::core::{
        Core, backlog_change::FetchExtent, excluded::Excluded, topic_state::TopicStates,
        watermarks::Watermark,
    },
};

/// Whether new rows of an owned lane are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum LaneState {
    /// New rows of the lane are taken.
    Kept,
    /// No new rows are taken: the lane is given back once nothing of it is in flight.
    Leaving,
}

/// A lane that this relay owns.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct OwnedLane {
    /// Number of this ownership.
    epoch: i64,
    /// Up to which id rows were read.
    pub(super) watermark: Watermark,
    /// Where to read again once these rows are no longer left out of fetches: all of them have ids
    /// above.
    resume_from: BTreeMap<Excluded, RowId>,
    pub(super) state: LaneState,
    /// More rows wait than the last fetch could return.
    pub(super) has_more: bool,
    /// Highest id that was taken.
    pub(super) highest_id: RowId,
}

impl OwnedLane {
    /// A lane as the database granted it, from which `excluded` is left out.
    fn granted(grant: &Grant, excluded: impl Iterator<Item = Excluded>) -> Self {
        Self {
            epoch: grant.epoch,
            watermark: Watermark::starting_at(grant.watermark),
            resume_from: excluded
                .map(|excluded| (excluded, grant.watermark))
                .collect(),
            state: LaneState::Kept,
            has_more: true,
            highest_id: grant.high_id,
        }
    }

    /// Whether new rows of the lane are taken.
    pub(super) fn is_kept(&self) -> bool {
        self.state == LaneState::Kept
    }

    /// Whether the lane is on its way back.
    pub(super) fn is_leaving(&self) -> bool {
        self.state == LaneState::Leaving
    }

    /// Reads again from above `id`, since rows there were given back.
    pub(super) fn read_again_above(&mut self, id: RowId) {
        self.watermark.rewind(id);
        self.has_more = true;
    }

    /// Leaves rows out of fetches, all of which have ids above `id`.
    pub(super) fn exclude(&mut self, excluded: Excluded, id: RowId) {
        // Rows that were left out with the topic are from now on left out with their key.
        let of_topic = match &excluded {
            Excluded::Key(topic, _) => self.resume_from.get(&Excluded::Topic(*topic)),
            _ => None,
        };
        let id = of_topic.map_or(id, |of_topic| id.min(*of_topic));
        let resume_from = self.resume_from.entry(excluded).or_insert(id);
        *resume_from = id.min(*resume_from);
    }

    /// Reads rows again that were left out.
    pub(super) fn resume(&mut self, excluded: &Excluded, topics: &TopicStates) {
        let Some(id) = self.resume_from.remove(excluded) else {
            return;
        };
        match excluded {
            // The topic is paused: rows that were left out with the key are from now on left out
            // with the topic.
            Excluded::Key(topic, _) if !topics[*topic].is_active() => {
                self.exclude(Excluded::Topic(*topic), id);
            }
            _ => self.read_again_above(id),
        }
    }

    /// Lowest id above which rows are left out that `counts` holds for, or `id` if it is lower.
    fn lowest_excluded(&self, id: RowId, counts: impl Fn(&Excluded) -> bool) -> RowId {
        let mut lowest = id;
        for (excluded, resume_from) in &self.resume_from {
            if counts(excluded) {
                lowest = lowest.min(*resume_from);
            }
        }
        lowest
    }
}

impl Core {
    /// Records lanes that were claimed: each is read from the watermark of its last owner.
    pub fn on_granted(&mut self, grants: &[Grant], now: Instant) {
        if grants.is_empty() {
            return;
        }
        // A fetch under way may return rows of an earlier ownership, which another relay has
        // published since.
        self.discard_fetch();
        for grant in grants {
            let lane = OwnedLane::granted(grant, self.excluded_topics());
            self.lanes[grant.lane.index()] = Some(lane);
        }
        self.fetch_at = now;
    }

    /// Drops all lanes: the lease is lost, or everything was given back.
    pub fn lose_lanes(&mut self) {
        self.lanes = std::array::from_fn(|_| None);
    }

    /// Number of lanes that are owned and kept.
    #[must_use]
    pub fn owned_lanes(&self) -> u32 {
        self.kept_lanes().count() as u32
    }

    /// Whether a lane is owned, a leaving one included.
    #[must_use]
    pub fn owns(&self, lane: Lane) -> bool {
        self.lanes[lane.index()].is_some()
    }

    /// Lanes that are owned and kept.
    pub(super) fn kept_lanes(&self) -> impl Iterator<Item = &OwnedLane> {
        self.lanes.iter().flatten().filter(|lane| lane.is_kept())
    }

    /// Whether `lanes` are exactly the lanes that are owned, leaving ones included.
    #[must_use]
    pub fn owns_exactly(&self, lanes: &[Lane]) -> bool {
        let owned = self.lanes.iter().flatten().count();
        lanes.len() == owned && lanes.iter().all(|lane| self.lanes[lane.index()].is_some())
    }

    /// Records that these lanes were given back.
    pub fn on_released(&mut self, released: &[LaneWatermark]) {
        for released in released {
            self.lanes[released.lane.index()] = None;
        }
        self.forget_keys_of_lost_lanes();
    }

    /// Watermarks of all owned lanes.
    #[must_use]
    pub fn watermarks(&self) -> Vec<LaneWatermark> {
        self.watermarks_of(|_, _| true)
    }

    /// Watermarks of the owned lanes that are `wanted`.
    pub(super) fn watermarks_of(
        &self,
        wanted: impl Fn(Lane, &OwnedLane) -> bool,
    ) -> Vec<LaneWatermark> {
        let mut watermarks = Vec::new();
        for (lane, owned) in self.lanes_by_number() {
            if wanted(lane, owned) {
                watermarks.push(LaneWatermark {
                    lane,
                    epoch: owned.epoch,
                    watermark: self.settled_up_to(lane, owned),
                    high_id: owned.highest_id,
                });
            }
        }
        watermarks
    }

    /// Which rows to count as backlog. Rows of parked keys and topics wait for a person, and do not
    /// count. They are listed only where rows before them wait for another reason; all others are
    /// below the position anyway.
    #[must_use]
    pub fn backlog_plan(&self) -> BacklogPlan {
        // Mostly all paused keys are parked: then none of many is looked up.
        let any_probed = self.isolation.any_key_is_probed();
        let counts = |excluded: &Excluded| match excluded {
            Excluded::Topic(topic) => !self.topics[*topic].is_parked(),
            Excluded::Key(topic, key) => any_probed && !self.isolation.is_parked(*topic, key),
            Excluded::Undeclared => true,
        };
        let (mut plan, mut others_wait) = (BacklogPlan::default(), false);
        for (lane, owned) in self.lanes_by_number() {
            let position = self.taken_up_to(lane, owned);
            let lowest = owned.lowest_excluded(position, counts);
            others_wait |= lowest < position;
            plan.lanes.push(LaneBacklog {
                lane,
                above: lowest,
            });
        }
        if others_wait {
            plan.parked = self.parked_rows();
        }
        plan
    }

    /// Returns what a fetch that returned this number of rows saw of the backlog. To be called
    /// before its rows are accepted, which moves the positions that it read from.
    #[must_use]
    pub fn fetch_extent(&self, request: &FetchRequest, returned: usize) -> FetchExtent {
        if returned > 0 {
            FetchExtent::AllReturned
        } else if self.reads_all(request) && self.covers_backlog(request) {
            FetchExtent::NothingWaits
        } else {
            FetchExtent::NothingReturned
        }
    }

    /// Whether a fetch leaves no rows out, and none was left out by its lanes before.
    fn reads_all(&self, request: &FetchRequest) -> bool {
        request.filter.is_none() && !self.isolation.any_key_is_paused()
    }

    /// Whether a fetch reads all rows that count as backlog.
    fn covers_backlog(&self, request: &FetchRequest) -> bool {
        self.backlog_plan().lanes.iter().all(|of| {
            let mut reads = request.lanes.iter();
            reads.any(|read| read.lane == of.lane && read.low <= of.above)
        })
    }

    /// Whether a lane has rows that the last fetch could not take.
    #[must_use]
    pub fn has_more_rows(&self) -> bool {
        self.kept_lanes().any(|lane| lane.has_more)
    }

    /// Rows that wait for a person; `None` if there are none.
    fn parked_rows(&self) -> Option<ParkedRows> {
        let FetchFilter {
            topics,
            by_event_type,
            by_aggregate_type,
            ..
        } = self.routes.filter(|topic| self.topics[topic].is_parked());
        let are_any = !topics.is_empty() || self.isolation.any_key_is_parked();
        are_any.then_some(ParkedRows {
            topics,
            by_event_type,
            by_aggregate_type,
        })
    }

    /// Owned lanes with their numbers.
    pub(super) fn lanes_by_number(&self) -> impl Iterator<Item = (Lane, &OwnedLane)> {
        Lane::all().filter_map(|lane| Some((lane, self.lanes[lane.index()].as_ref()?)))
    }

    /// Every row of a lane up to this id is settled, and none is still to come: a new owner starts
    /// here.
    fn settled_up_to(&self, lane: Lane, owned: &OwnedLane) -> RowId {
        owned.lowest_excluded(self.taken_up_to(lane, owned), |_| true)
    }

    /// Every row of a lane up to this id is settled or left out, and none is still to come.
    pub(super) fn taken_up_to(&self, lane: Lane, owned: &OwnedLane) -> RowId {
        let lowest_in_flight = self.in_flight.lowest_id(lane);
        let below_in_flight = lowest_in_flight.map_or(RowId::MAX, RowId::before);
        below_in_flight.min(owned.watermark.complete_to())
    }
}
