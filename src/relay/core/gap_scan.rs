//! The gap scan, a safety net below the watermarks: which page of each lane to read next. There
//! should be no rows. If there are many, each scan goes on where the one before stopped. Pure.

use crate::{
    outbox::{GapScanPlan, Lane, LaneGapScan, LaneWatermark, RowId, RowIdentity},
    relay::core::lane_share::LANES,
};

/// Rows of a lane that one scan returns at most.
const PAGE_ROWS: usize = 100;

/// How far each lane was scanned.
#[derive(Clone, Debug)]
pub(crate) struct GapScan {
    /// The next page of each lane begins above this id.
    above: [RowId; LANES],
}

impl Default for GapScan {
    fn default() -> Self {
        Self {
            above: [RowId::ZERO; LANES],
        }
    }
}

impl GapScan {
    /// The next page of these lanes.
    pub(crate) fn plan(&self, watermarks: &[LaneWatermark]) -> GapScanPlan {
        let pages = watermarks.iter().map(|owned| self.next_page(owned));
        GapScanPlan {
            lanes: pages.collect(),
            rows_max: PAGE_ROWS as i64,
        }
    }

    fn next_page(&self, owned: &LaneWatermark) -> LaneGapScan {
        LaneGapScan {
            lane: owned.lane,
            above: self.above[owned.lane.index()],
            watermark: owned.watermark,
        }
    }

    /// Records the rows of a page. A lane goes on above a full page, and from the start after any
    /// other.
    pub(crate) fn on_page(&mut self, plan: &GapScanPlan, found: &[RowIdentity]) {
        for scan in &plan.lanes {
            self.above[scan.lane.index()] = next_above(scan.lane, found);
        }
    }
}

/// Where the next page of a lane begins, after one that found these rows.
fn next_above(lane: Lane, found: &[RowIdentity]) -> RowId {
    let (mut rows, mut highest) = (0, RowId::ZERO);
    for row in found.iter().filter(|row| row.lane == lane) {
        rows += 1;
        highest = highest.max(row.id);
    }
    if rows < PAGE_ROWS {
        RowId::ZERO
    } else {
        highest
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn found(lane: u8, ids: impl Iterator<Item = i64>) -> Vec<RowIdentity> {
        ids.map(|id| RowIdentity {
            lane: Lane::new(lane),
            id: RowId::new(id),
            event_id: Uuid::nil(),
        })
        .collect()
    }

    fn owned(lane: u8, watermark: i64) -> LaneWatermark {
        let watermark = RowId::new(watermark);
        LaneWatermark {
            lane: Lane::new(lane),
            epoch: 1,
            watermark,
            high_id: watermark,
        }
    }

    fn pages(plan: &GapScanPlan) -> Vec<(usize, i64, i64)> {
        let page = |scan: &LaneGapScan| (scan.lane.index(), scan.above.get(), scan.watermark.get());
        plan.lanes.iter().map(page).collect()
    }

    #[test]
    fn a_scan_goes_on_above_a_full_page_and_begins_again_after_the_last() {
        let mut gap_scan = GapScan::default();
        let watermarks = [owned(3, 900), owned(60, 800)];
        let first = gap_scan.plan(&watermarks);
        assert_eq!(pages(&first), [(3, 0, 900), (60, 0, 800)]);

        let mut full = found(3, (1..=100).map(|n| n * 2));
        full.extend(found(60, 5..=7));
        gap_scan.on_page(&first, &full);
        let second = gap_scan.plan(&watermarks);
        assert_eq!(
            pages(&second),
            [(3, 200, 900), (60, 0, 800)],
            "lane 60 brought all that it has"
        );

        gap_scan.on_page(&second, &found(3, 201..=203));
        assert_eq!(
            pages(&gap_scan.plan(&watermarks)),
            [(3, 0, 900), (60, 0, 800)]
        );
    }

    #[test]
    fn a_lane_that_was_not_scanned_keeps_its_position() {
        let mut gap_scan = GapScan::default();
        gap_scan.on_page(&gap_scan.clone().plan(&[owned(3, 900)]), &found(3, 1..=100));
        gap_scan.on_page(&gap_scan.clone().plan(&[owned(4, 900)]), &[]);
        assert_eq!(pages(&gap_scan.plan(&[owned(3, 900)])), [(3, 100, 900)]);
    }
}
