//! Where a lane may go on reading so that no committed row is ever missed: snapshots, ticks and
//! marks -> the next `low`. Pure.
//!
//! Ids are drawn before their transaction commits, so the highest id read says nothing about the
//! ids below it. What does:
//!
//! ```text
//!   a tick    = (xid of one of our own transactions, highest id that we had seen before it began)
//!               -> every id up to there was drawn before, and `event.xact` comes before `event.id`:
//!                  so by a transaction whose xid is below the tick's
//!   base(S)   = the id of the newest tick below S.xmax
//!               -> every id up to base belongs to a transaction that S shows as finished, or lists as running
//!   open[x]   = an id below everything that the listed transaction x may still bring: base of the snapshot before x was listed
//! ```
//!
//! `S.xmax` is only the latest *completed* xid + 1: transactions at or above it run without being
//! listed. That is why "not listed" alone proves nothing, and why only ids below a tick below
//! `S.xmax` count.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::outbox::Snapshot;

/// A listed transaction younger than this holds the reading position back, so that its rows come
/// with an ordinary fetch; for an older one the lane goes on and reads its range again when it has
/// ended.
pub const YOUNG: Duration = Duration::from_millis(250);

/// `xid` is one of our own transactions; every id up to `drawn` had been drawn before it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    pub xid: u64,
    pub drawn: i64,
}

/// Ticks that no snapshot has passed yet, and the best that one has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ticks {
    ahead: BTreeMap<u64, i64>,
    base: i64,
}

impl Ticks {
    /// Adds a tick, in any order.
    pub fn add(&mut self, tick: Tick) {
        let drawn = self.ahead.entry(tick.xid).or_default();
        *drawn = tick.drawn.max(*drawn);
    }

    /// `base` of a snapshot. Snapshots come in the order in which they were taken.
    pub fn base(&mut self, snapshot: &Snapshot) -> i64 {
        let ahead = self.ahead.split_off(&snapshot.xmax());
        let passed = std::mem::replace(&mut self.ahead, ahead);
        self.base = passed.into_values().fold(self.base, i64::max);
        self.base
    }
}

/// A transaction that was listed as running and may still bring ids above `above` into the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Open {
    above: i64,
    since: Instant,
    /// It has ended, and its range has not been read since.
    ended: bool,
}

/// What one fetch of a lane covered: all visible rows in `(low, reached]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    pub low: i64,
    /// Highest id up to which every visible row was read; `i64::MAX` when no limit cut the fetch
    /// short.
    pub reached: i64,
}

/// What to do with the rows of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Reading {
    /// Take them, in id order.
    Take,
    /// A transaction ended whose range begins below this fetch: take nothing, read again from
    /// [`LaneMarks::low`]. Else a row of a key could go out before an earlier one of the same key.
    Again,
}

/// The reading position of one lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LaneMarks {
    base: i64,
    open: BTreeMap<u64, Open>,
}

impl LaneMarks {
    /// A new owner starts at the mark of the one before.
    #[must_use]
    pub fn starting_at(mark: i64) -> Self {
        Self {
            base: mark,
            open: BTreeMap::new(),
        }
    }

    /// The next fetch reads ids above this.
    #[must_use]
    pub fn low(&self, now: Instant) -> i64 {
        let holds = |open: &&Open| open.ended || now.saturating_duration_since(open.since) < YOUNG;
        self.open
            .values()
            .filter(holds)
            .map(|open| open.above)
            .fold(self.base, i64::min)
    }

    /// No row at or below this is still to come, or was left unread: what a new owner may start at
    /// once all rows taken are settled.
    #[must_use]
    pub fn mark(&self) -> i64 {
        self.open
            .values()
            .map(|open| open.above)
            .fold(self.base, i64::min)
    }

    /// Rows above `id` were given back, or left out: they are read again.
    pub fn rewind(&mut self, id: i64) {
        self.base = self.base.min(id);
    }

    /// What a careless engineer would do: whatever is below this is believed to have been read.
    #[cfg(feature = "planted-bugs")]
    pub fn go_forward(&mut self, highest: i64) {
        (self.base, self.open) = (highest, BTreeMap::new());
    }

    /// Learns from one fetch of this lane. `base` is [`Ticks::base`] of its snapshot.
    pub fn learn(
        &mut self,
        covered: Covered,
        snapshot: &Snapshot,
        base: i64,
        now: Instant,
    ) -> Reading {
        // A fetch that began above the base would skip what was given back since.
        let mut missed = covered.low > self.base;
        for (_, open) in self
            .open
            .iter_mut()
            .filter(|(xid, _)| snapshot.has_ended(**xid))
        {
            open.ended = true;
            missed |= open.above < covered.low;
        }
        if missed {
            return Reading::Again;
        }
        let before = self.base;
        self.base = before.max(base.min(covered.reached));
        for open in self.open.values_mut().filter(|open| open.ended) {
            open.above = open.above.max(covered.reached);
        }
        let base = self.base;
        self.open.retain(|_, open| !open.ended || open.above < base);
        for &xid in snapshot.running() {
            self.open.entry(xid).or_insert(Open {
                above: before,
                since: now,
                ended: false,
            });
        }
        Reading::Take
    }
}

#[cfg(test)]
#[path = "marks_model.rs"]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_counts_only_once_a_snapshot_has_passed_it() {
        let mut ticks = Ticks::default();
        ticks.add(Tick { xid: 280, drawn: 2 });
        // As measured: 278 and 279 run, 278 has committed id 2, and the snapshot does not list 279,
        // which holds id 1.
        assert_eq!(ticks.base(&Snapshot::new(279, vec![])), 0);
        assert_eq!(ticks.base(&Snapshot::new(281, vec![279])), 2);
    }

    #[test]
    fn the_rows_of_a_long_transaction_come_before_later_ones_of_its_keys() {
        let start = Instant::now();
        let (mut marks, mut ticks) = (LaneMarks::starting_at(0), Ticks::default());
        ticks.add(Tick { xid: 12, drawn: 9 });
        let listed = Snapshot::new(13, vec![10]);
        let base = ticks.base(&listed);
        assert_eq!(
            marks.learn(
                Covered {
                    low: 0,
                    reached: i64::MAX
                },
                &listed,
                base,
                start
            ),
            Reading::Take
        );
        assert_eq!(
            marks.low(start),
            0,
            "a young transaction holds the position"
        );
        let later = start + YOUNG;
        assert_eq!(marks.low(later), 9, "an old one does not");
        assert_eq!(marks.mark(), 0, "but a new owner starts below it");

        let ended = Snapshot::new(20, vec![]);
        let from_nine = Covered {
            low: 9,
            reached: i64::MAX,
        };
        assert_eq!(marks.learn(from_nine, &ended, base, later), Reading::Again);
        assert_eq!(marks.low(later), 0, "its range is read again first");
        assert_eq!(
            marks.learn(
                Covered {
                    low: 0,
                    reached: i64::MAX
                },
                &ended,
                base,
                later
            ),
            Reading::Take
        );
        assert_eq!((marks.low(later), marks.mark()), (9, 9));
    }
}
