//! The safety net below the marks: which page of each lane comes next. There should be no rows; if
//! there are many, each sweep goes on where the one before stopped. Pure.

use uuid::Uuid;

use super::lanes::LANES;
use crate::outbox::{LaneMarksPlan, SweepPlan};

/// Rows of a lane that one sweep brings at most.
const PAGE: usize = 100;

/// A row by lane, id and event_id.
pub(super) type Straggler = (u8, i64, Uuid);

/// How far each lane was swept; 0: from the start.
#[derive(Clone, Debug)]
pub(super) struct Sweep {
    after: [i64; LANES],
}

impl Default for Sweep {
    fn default() -> Self {
        Self { after: [0; LANES] }
    }
}

impl Sweep {
    /// The next page of these lanes.
    pub(super) fn plan(&self, marks: &LaneMarksPlan) -> SweepPlan {
        let after = marks
            .lanes
            .iter()
            .map(|lane| self.after[*lane as usize])
            .collect();
        SweepPlan {
            lanes: marks.lanes.clone(),
            after,
            marks: marks.marks.clone(),
            rows_max: PAGE as i64,
        }
    }

    /// What the page brought: a lane goes on behind a full page, and from the start after any
    /// other.
    pub(super) fn swept(&mut self, plan: &SweepPlan, found: &[Straggler]) {
        for lane in &plan.lanes {
            let ids = || {
                found
                    .iter()
                    .filter(|(of, ..)| i16::from(*of) == *lane)
                    .map(|(_, id, _)| *id)
            };
            self.after[*lane as usize] = if ids().count() < PAGE {
                0
            } else {
                ids().max().unwrap_or(0)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lane: u8, ids: impl Iterator<Item = i64>) -> Vec<Straggler> {
        ids.map(|id| (lane, id, Uuid::nil())).collect()
    }

    #[test]
    fn a_sweep_goes_on_behind_a_full_page_and_begins_again_after_the_last() {
        let (mut sweep, marks) = (
            Sweep::default(),
            LaneMarksPlan {
                lanes: vec![3, 60],
                marks: vec![900, 800],
                ..LaneMarksPlan::default()
            },
        );
        let first = sweep.plan(&marks);
        assert_eq!(
            (
                first.lanes.as_slice(),
                first.after.as_slice(),
                first.marks.as_slice()
            ),
            ([3, 60].as_slice(), [0, 0].as_slice(), [900, 800].as_slice())
        );

        let full = found(3, (1..=100).map(|n| n * 2))
            .into_iter()
            .chain(found(60, 5..=7))
            .collect::<Vec<_>>();
        sweep.swept(&first, &full);
        let second = sweep.plan(&marks);
        assert_eq!(second.after, [200, 0], "lane 60 brought all that it has");

        sweep.swept(&second, &found(3, 201..=203));
        assert_eq!(sweep.plan(&marks).after, [0, 0]);
    }

    #[test]
    fn a_lane_that_was_not_swept_keeps_its_place() {
        let mut sweep = Sweep::default();
        let plan = |lane: i16| LaneMarksPlan {
            lanes: vec![lane],
            marks: vec![900],
            ..LaneMarksPlan::default()
        };
        sweep.swept(&sweep.clone().plan(&plan(3)), &found(3, 1..=100));
        sweep.swept(&sweep.clone().plan(&plan(4)), &[]);
        assert_eq!(sweep.plan(&plan(3)).after, [100]);
    }
}
