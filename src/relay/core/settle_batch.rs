//! Which acknowledged rows to delete, what follows when they are deleted, and rows that were found
//! below a watermark. Pure.

use crate::{
    outbox::RowIdentity,
    relay::core::{
        Core, FetchState,
        ids::Slot,
        in_flight::{AfterSettle, SettleBatch, SettleWhen},
    },
};

impl Core {
    /// The next acknowledged rows to delete, at most `batch_size`; `None` if there is nothing to
    /// delete yet. [`Self::on_settled`] or [`Self::on_settle_failed`] must follow.
    pub fn next_settle(&mut self, batch_size: usize, when: SettleWhen) -> Option<SettleBatch> {
        if when == SettleWhen::BatchIsFull && self.in_flight.acked() < batch_size {
            return None;
        }
        self.in_flight.next_settle(batch_size)
    }

    /// Records that the rows in these slots are deleted.
    pub fn on_settled(&mut self, slots: &[Slot]) {
        // A race: the snapshot of a fetch under way may be older than the DELETE, and show the row
        // once more. Forgotten now, it would look new and be published twice.
        let after = match self.fetch {
            FetchState::Idle => AfterSettle::Forget,
            FetchState::UnderWay | FetchState::Stale => AfterSettle::KeepUntilFetchEnds,
        };
        self.in_flight.on_settled(slots, after);
    }

    /// Records that the DELETE of the rows in these slots failed, or that its result is unknown.
    pub fn on_settle_failed(&mut self, slots: &[Slot]) {
        self.in_flight.on_settle_failed(slots);
    }

    /// Records that a gap scan found a row at or below the watermark of its lane, which is read
    /// again. Returns whether the row is a straggler: it is none if it is in flight, or its lane is
    /// not owned.
    pub fn on_straggler(&mut self, row: RowIdentity) -> bool {
        if self.in_flight.holds(row) {
            return false;
        }
        let Some(lane) = self.lanes[row.lane.index()].as_mut() else {
            return false;
        };
        lane.read_again_above(row.id.before());
        true
    }
}
