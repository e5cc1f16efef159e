//! Where a lane may go on reading so that no committed row is ever missed: snapshots, ticks and
//! watermarks -> the id that the next fetch reads from. Pure.
//!
//! Ids are drawn before their transaction commits, so the highest id read says nothing about the
//! ids below it. What does:
//!
//! ```text
//!   a tick     = (xid of one of our own transactions, highest id that was seen before it began)
//!                -> every id up to there was drawn before, and `event.xact` is set before
//!                   `event.id`: so by a transaction whose xid is below the tick's
//!   safe_id(S) = the id of the newest tick below S.xmax
//!                -> every id up to there belongs to a transaction that S shows as finished, or
//!                   lists as running
//!   open[x]    = an id below everything that the listed transaction x may still bring: up to
//!                where the lane had been read before x was listed
//! ```
//!
//! `S.xmax` is only the latest *completed* xid + 1: transactions at or above it run without being
//! listed. That is why "not listed" alone proves nothing, and why only ids below a tick below
//! `S.xmax` count.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::outbox::{RowId, Snapshot};

/// A transaction that has been listed as running for less time than this holds the reading position
/// back, so that its rows come with an ordinary fetch. For an older one the lane goes on, and reads
/// its range again when it has ended.
pub const YOUNG_FOR: Duration = Duration::from_millis(250);

/// One of our own transactions, which orders the ids that others draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XidTick {
    /// Id of the transaction.
    pub xid: u64,
    /// Every id up to here had been drawn before it began.
    pub drawn: RowId,
}

/// Ticks that no snapshot has passed yet, and the highest id of those that one has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct XidTicks {
    /// Transaction id -> highest id drawn before, of ticks that no snapshot has passed.
    ahead: BTreeMap<u64, RowId>,
    safe_id: RowId,
}

impl XidTicks {
    /// Adds a tick. Ticks come in any order.
    pub fn add(&mut self, tick: XidTick) {
        let drawn = self.ahead.entry(tick.xid).or_default();
        *drawn = tick.drawn.max(*drawn);
    }

    /// Every id up to here belongs to a transaction that the snapshot shows as finished, or lists
    /// as running. Snapshots must come in the order in which they were taken.
    pub fn safe_id(&mut self, snapshot: &Snapshot) -> RowId {
        let ahead = self.ahead.split_off(&snapshot.xmax());
        let passed = std::mem::replace(&mut self.ahead, ahead);
        self.safe_id = passed.into_values().fold(self.safe_id, RowId::max);
        self.safe_id
    }
}

/// A transaction that was listed as running and may still bring ids above `above` into the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct OpenTransaction {
    above: RowId,
    /// When it was first listed.
    since: Instant,
    /// The transaction has ended, and its range has not been read since.
    ended: bool,
}

impl OpenTransaction {
    /// Whether the next fetch reads its range.
    fn holds_back(&self, now: Instant) -> bool {
        self.ended || now.saturating_duration_since(self.since) < YOUNG_FOR
    }
}

/// What one fetch of a lane covered: all visible rows in `(low, reached]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    pub low: RowId,
    /// Highest id up to which every visible row was read; `RowId::MAX` when no limit cut the fetch
    /// short.
    pub reached: RowId,
}

/// What to do with the rows of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum ReadDecision {
    /// Take them, in id order.
    Take,
    /// A transaction ended whose range begins below this fetch: take nothing, read again from
    /// [`Watermark::read_from`]. Else a row of a key could go out before an earlier one of the same
    /// key.
    Again,
}

/// The reading position of one lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Watermark {
    /// Every row up to here was read, but for those of open transactions.
    read_to: RowId,
    /// By transaction id.
    open_transactions: BTreeMap<u64, OpenTransaction>,
}

impl Watermark {
    /// A lane that a new owner reads from the watermark of the last one.
    #[must_use]
    pub fn starting_at(id: RowId) -> Self {
        Self {
            read_to: id,
            open_transactions: BTreeMap::new(),
        }
    }

    /// The next fetch reads ids above this one.
    #[must_use]
    pub fn read_from(&self, now: Instant) -> RowId {
        self.open_transactions
            .values()
            .filter(|open| open.holds_back(now))
            .map(|open| open.above)
            .fold(self.read_to, RowId::min)
    }

    /// No row up to this id is still to come, or was left unread. A new owner may start here once
    /// all rows that were taken are settled.
    #[must_use]
    pub fn complete_to(&self) -> RowId {
        self.open_transactions
            .values()
            .map(|open| open.above)
            .fold(self.read_to, RowId::min)
    }

    /// Reads again from above `id`: rows there were given back, or left out.
    pub fn rewind(&mut self, id: RowId) {
        self.read_to = self.read_to.min(id);
    }

    /// A planted bug: takes everything up to `highest` as read.
    #[cfg(feature = "planted-bugs")]
    pub fn go_forward(&mut self, highest: RowId) {
        (self.read_to, self.open_transactions) = (highest, BTreeMap::new());
    }

    /// Advances by one fetch of this lane. `safe_id` is [`XidTicks::safe_id`] of its snapshot.
    pub fn advance(
        &mut self,
        covered: Covered,
        snapshot: &Snapshot,
        safe_id: RowId,
        now: Instant,
    ) -> ReadDecision {
        // A fetch that began above it would skip what was given back since.
        let mut missed = covered.low > self.read_to;
        for (_, open) in self
            .open_transactions
            .iter_mut()
            .filter(|(xid, _)| snapshot.has_ended(**xid))
        {
            open.ended = true;
            missed |= open.above < covered.low;
        }
        if missed {
            return ReadDecision::Again;
        }
        let before = self.read_to;
        self.read_to = before.max(safe_id.min(covered.reached));
        for open in self
            .open_transactions
            .values_mut()
            .filter(|open| open.ended)
        {
            open.above = open.above.max(covered.reached);
        }
        let read_to = self.read_to;
        self.open_transactions
            .retain(|_, open| !open.ended || open.above < read_to);
        for &xid in snapshot.running() {
            self.open_transactions
                .entry(xid)
                .or_insert(OpenTransaction {
                    above: before,
                    since: now,
                    ended: false,
                });
        }
        ReadDecision::Take
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    const NINE: RowId = RowId::new(9);

    #[test]
    fn a_tick_counts_only_once_a_snapshot_has_passed_it() {
        let mut ticks = XidTicks::default();
        ticks.add(XidTick {
            xid: 280,
            drawn: RowId::new(2),
        });
        // As measured: 278 and 279 run, 278 has committed id 2, and the snapshot does not list 279,
        // which holds id 1.
        assert_eq!(ticks.safe_id(&Snapshot::new(279, vec![])), RowId::ZERO);
        assert_eq!(ticks.safe_id(&Snapshot::new(281, vec![279])), RowId::new(2));
    }

    #[test]
    fn the_rows_of_a_long_transaction_come_before_later_ones_of_its_keys() {
        let start = Instant::now();
        let (mut marks, mut ticks) = (Watermark::starting_at(RowId::ZERO), XidTicks::default());
        ticks.add(XidTick {
            xid: 12,
            drawn: NINE,
        });
        let listed = Snapshot::new(13, vec![10]);
        let safe_id = ticks.safe_id(&listed);
        assert_eq!(
            marks.advance(
                Covered {
                    low: RowId::ZERO,
                    reached: RowId::MAX
                },
                &listed,
                safe_id,
                start
            ),
            ReadDecision::Take
        );
        assert_eq!(
            marks.read_from(start),
            RowId::ZERO,
            "a young transaction holds the position"
        );
        let later = start + YOUNG_FOR;
        assert_eq!(marks.read_from(later), NINE, "an old one does not");
        assert_eq!(
            marks.complete_to(),
            RowId::ZERO,
            "but a new owner starts below it"
        );

        let ended = Snapshot::new(20, vec![]);
        let from_nine = Covered {
            low: NINE,
            reached: RowId::MAX,
        };
        assert_eq!(
            marks.advance(from_nine, &ended, safe_id, later),
            ReadDecision::Again
        );
        assert_eq!(
            marks.read_from(later),
            RowId::ZERO,
            "its range is read again first"
        );
        assert_eq!(
            marks.advance(
                Covered {
                    low: RowId::ZERO,
                    reached: RowId::MAX
                },
                &ended,
                safe_id,
                later
            ),
            ReadDecision::Take
        );
        assert_eq!((marks.read_from(later), marks.complete_to()), (NINE, NINE));
    }
}
