//! The gap scan, a safety net below the watermarks: which page of each lane to read next. There
//! should be no rows. If there are many, each scan goes on where the one before stopped. Pure.

use uuid::Uuid;

use crate::{
    outbox::{GapScanPlan, LaneWatermarks},
    relay::core::lane_share::LANES,
};

/// Rows of a lane that one scan returns at most.
const PAGE_ROWS: usize = 100;

/// A row by lane, id and event_id.
pub(crate) type Straggler = (u8, i64, Uuid);

/// How far each lane was scanned.
#[derive(Clone, Debug)]
pub(crate) struct GapScan {
    /// The next page of each lane begins above this id.
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
            rows_max: PAGE_ROWS as i64,
        }
    }

    /// Records the rows of a page. A lane goes on above a full page, and from the start after any
    /// other.
    pub(crate) fn on_page(&mut self, plan: &GapScanPlan, found: &[Straggler]) {
        for lane in &plan.lanes {
            let (mut rows, mut highest) = (0, 0);
            for (of, id, _) in found {
                if i16::from(*of) == *lane {
                    rows += 1;
                    highest = highest.max(*id);
                }
            }
            self.after[*lane as usize] = if rows < PAGE_ROWS { 0 } else { highest };
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
    fn a_scan_goes_on_above_a_full_page_and_begins_again_after_the_last() {
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
    fn a_lane_that_was_not_scanned_keeps_its_position() {
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
