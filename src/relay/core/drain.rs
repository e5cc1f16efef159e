//! Lanes that leave: nothing new of them is taken, and once nothing of them is in flight they are
//! given back. Pure.

use std::time::Instant;

use crate::{
    outbox::{Lane, LaneWatermark},
    relay::core::{
        Core,
        owned_lanes::{LaneState, OwnedLane},
    },
};

/// What leaving lanes wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainBlockers {
    /// Records of the main producer.
    pub main: bool,
    /// Records of the probe producer.
    pub probe: bool,
}

impl DrainBlockers {
    /// Whether leaving lanes wait for anything.
    #[must_use]
    pub fn any(self) -> bool {
        self.main || self.probe
    }
}

impl Core {
    /// Begins to give back this number of lanes, those with the highest numbers first.
    pub fn drain(&mut self, lanes: u32, now: Instant) {
        let kept = self.lanes.iter_mut().rev().flatten();
        for lane in kept.filter(|lane| lane.is_kept()).take(lanes as usize) {
            lane.state = LaneState::Leaving;
        }
        self.drop_probes_of_leaving_lanes(now);
    }

    /// Leaving lanes of which nothing is in flight any more, with their watermarks. None while the
    /// doorbell may lock them: their next owner could not sleep.
    #[must_use]
    pub fn drained_lanes(&self) -> Vec<LaneWatermark> {
        if self.may_hold_bell_locks() {
            return Vec::new();
        }
        self.watermarks_of(|number, lane| lane.is_leaving() && self.in_flight.is_lane_empty(number))
    }

    /// Whether there are [`Self::drained_lanes`].
    #[must_use]
    pub fn has_drained_lanes(&self) -> bool {
        // Asked in each turn of the loop, in most of which no lane leaves.
        let any_leaves = self.lanes_by_number().any(|(_, lane)| lane.is_leaving());
        any_leaves && !self.drained_lanes().is_empty()
    }

    /// Whether a lane is owned and kept.
    pub(super) fn is_kept(&self, lane: Lane) -> bool {
        self.lanes[lane.index()]
            .as_ref()
            .is_some_and(OwnedLane::is_kept)
    }

    /// What leaving lanes wait for.
    #[must_use]
    pub fn drain_blockers(&self) -> DrainBlockers {
        let (sent, probed) = (self.sent_in_leaving_lanes(), self.probed_in_leaving_lanes());
        DrainBlockers {
            main: sent > probed,
            probe: probed > 0,
        }
    }

    /// Rows of leaving lanes that producers have.
    fn sent_in_leaving_lanes(&self) -> usize {
        self.lanes_by_number()
            .filter(|(_, lane)| lane.is_leaving())
            .map(|(number, _)| self.unacknowledged_in_lane(number))
            .sum()
    }

    /// Rows of leaving lanes that the probe producer has.
    fn probed_in_leaving_lanes(&self) -> usize {
        let probed = self.isolation.probed_rows();
        probed.filter(|row| self.is_leaving(row.lane)).count()
    }

    /// Whether a lane is owned and on its way back.
    fn is_leaving(&self, lane: Lane) -> bool {
        self.lanes[lane.index()]
            .as_ref()
            .is_some_and(OwnedLane::is_leaving)
    }

    /// Rows of a lane that producers have.
    fn unacknowledged_in_lane(&self, lane: Lane) -> usize {
        self.topics
            .iter()
            .map(|(_, state)| state.unacknowledged().rows_in_lane(lane))
            .sum()
    }

    /// Rows that producers have but the probe producer does not.
    #[must_use]
    pub fn sent_on_main(&self) -> usize {
        self.in_flight.sent() - self.isolation.probed_rows().count()
    }
}
