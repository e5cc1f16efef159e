//! The safety net below the marks: which page of each lane comes next. There should be no rows; if
//! there are many, each sweep goes on where the one before stopped. Pure.

use uuid::Uuid;

use crate::{
    outbox::{GapScanPlan, LaneWatermarks},
    relay::core::lane_share::LANES,
};

/// Rows of a lane that one sweep brings at most.
const PAGE: usize = 100;

/// A row by lane, id and event_id.
pub(crate) type Straggler = (u8, i64, Uuid);

/// How far each lane was swept; 0: from the start.
#[derive(Clone, Debug)]
pub(crate) struct GapScan {
    after: [i64; LANES],
}

impl Default for GapScan {
    fn default() -> Self {
        Self { after: [0; LANES] }
    }
}

impl GapScan {
    /// The next page of these lanes.
    pub(crate) fn plan(&self, marks: &LaneWatermarks) -> GapScanPlan {
        let after = marks
            .lanes
            .iter()
            .map(|lane| self.after[*lane as usize])
            .collect();
        GapScanPlan {
            lanes: marks.lanes.clone(),
            after,
            marks: marks.marks.clone(),
            rows_max: PAGE as i64,
        }
    }

    /// What the page brought: a lane goes on behind a full page, and from the start after any
    /// other.
    pub(crate) fn on_page(&mut self, plan: &GapScanPlan, found: &[Straggler]) {
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
        let (mut gap_scan, marks) = (
            GapScan::default(),
            LaneWatermarks {
                lanes: vec![3, 60],
                marks: vec![900, 800],
                ..LaneWatermarks::default()
            },
        );
        let first = gap_scan.plan(&marks);
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
        gap_scan.on_page(&first, &full);
        let second = gap_scan.plan(&marks);
        assert_eq!(second.after, [200, 0], "lane 60 brought all that it has");

        gap_scan.on_page(&second, &found(3, 201..=203));
        assert_eq!(gap_scan.plan(&marks).after, [0, 0]);
    }

    #[test]
    fn a_lane_that_was_not_swept_keeps_its_place() {
        let mut gap_scan = GapScan::default();
        let plan = |lane: i16| LaneWatermarks {
            lanes: vec![lane],
            marks: vec![900],
            ..LaneWatermarks::default()
        };
        gap_scan.on_page(&gap_scan.clone().plan(&plan(3)), &found(3, 1..=100));
        gap_scan.on_page(&gap_scan.clone().plan(&plan(4)), &[]);
        assert_eq!(gap_scan.plan(&plan(3)).after, [100]);
    }
}
