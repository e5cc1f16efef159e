//! Rows in flight, from the moment they are taken until no fetch can return them any more. Pure.
//!
//! ```text
//!   take -> Sent -> on_acknowledged -> Acked -> next_settle -> Settling -> on_settled -> Settled
//!             \-> on_failed: gone, its lane reads it again     \-> on_settle_failed: Acked again
//! ```
//!
//! A settled row stays as long as a fetch is under way that began before its DELETE was answered:
//! that fetch's snapshot may be older, and would make the row look new. [`InFlight::end_fetch`]
//! removes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;

use crate::{
    failpoints::{self, Bug},
    outbox::{Ctid, Lane, OutboxRow, RowId, RowIdentity, SettleRow, row_sql::FETCHED_BYTES_MAX},
    relay::core::{
        ids::{Slot, TopicIndex},
        lane_share::LANES,
        unacknowledged::BurstNumber,
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
enum State {
    /// The row is with a producer; its delivery report is still to come.
    Sent,
    /// Kafka has acknowledged the row; it is still in the table.
    Acked,
    /// The DELETE of the row is under way.
    Settling,
    /// The row is deleted; a fetch that began before may still return it.
    Settled,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    row: RowIdentity,
    ctid: Ctid,
    topic: TopicIndex,
    bytes: usize,
    burst: BurstNumber,
    state: State,
}

/// A row whose delivery report is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentRow {
    pub topic: TopicIndex,
    pub lane: Lane,
    pub bytes: usize,
    /// The rows of its topic that were sent at the same moment.
    pub burst: BurstNumber,
}

impl From<Entry> for SentRow {
    fn from(entry: Entry) -> Self {
        Self {
            topic: entry.topic,
            lane: entry.row.lane,
            bytes: entry.bytes,
            burst: entry.burst,
        }
    }
}

/// A row that Kafka did not take, and that its lane must read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnedRow {
    pub row: RowIdentity,
    pub topic: TopicIndex,
}

impl From<Entry> for ReturnedRow {
    fn from(entry: Entry) -> Self {
        Self {
            row: entry.row,
            topic: entry.topic,
        }
    }
}

/// The rows of one settling statement, and their slots, with which its result is reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettleBatch {
    pub slots: Vec<Slot>,
    pub rows: Vec<SettleRow>,
}

impl SettleBatch {
    fn with_room(rows: usize) -> Self {
        Self {
            slots: Vec::with_capacity(rows),
            rows: Vec::with_capacity(rows),
        }
    }
}

/// What becomes of a row that was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterSettle {
    /// The row is forgotten: no fetch is under way that could return it.
    Forget,
    /// The row is kept until the fetch under way has ended.
    KeepUntilFetchEnds,
}

impl AfterSettle {
    fn keeps_row(self) -> bool {
        self == Self::KeepUntilFetchEnds && !failpoints::has(Bug::ForgetAtOnce)
    }
}

/// When acknowledged rows are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleWhen {
    /// Once there are as many as a batch holds.
    BatchIsFull,
    /// Now, however few there are.
    Now,
}

/// Upper bounds of what may be in flight.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Rows of all lanes.
    pub rows: usize,
    /// Bytes of all rows: payloads, texts and headers.
    pub bytes: usize,
    /// Rows of one lane.
    pub rows_per_lane: usize,
}

/// Part of the memory that rows in flight may take.
const MEMORY_DIVISOR: usize = 8;

impl Budget {
    /// The default budget, or a smaller one for a process that may use only `memory` bytes.
    #[must_use]
    pub fn within(memory: usize) -> Self {
        let default = Self::default();
        Self {
            bytes: default.bytes.min(memory / MEMORY_DIVISOR),
            ..default
        }
    }
}

impl Default for Budget {
    /// 16,384 rows and 32 MiB for the process, 2,048 rows for a lane.
    fn default() -> Self {
        Self {
            rows: 16_384,
            bytes: 32 << 20,
            rows_per_lane: 2_048,
        }
    }
}

/// Rows in flight, by slot and by lane.
#[derive(Clone, Debug)]
pub struct InFlight {
    budget: Budget,
    /// By slot.
    entries: Vec<Option<Entry>>,
    /// Slots without a row.
    free: Vec<Slot>,
    /// By lane; ordered by id.
    lanes: Vec<BTreeMap<(RowId, Uuid), Slot>>,
    /// Rows in [`State::Acked`], the oldest acknowledgement first.
    acked: VecDeque<Slot>,
    /// Rows in [`State::Settled`].
    settled: Vec<Slot>,
    /// Rows that fetches return without their payload.
    large: BTreeSet<RowIdentity>,
    /// Rows in [`State::Sent`].
    sent: usize,
    bytes: usize,
}

impl InFlight {
    /// No rows; allocates for as many as the budget allows.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            entries: vec![None; budget.rows],
            free: (0..budget.rows).rev().map(Slot::new).collect(),
            lanes: vec![BTreeMap::new(); LANES],
            acked: VecDeque::new(),
            settled: Vec::new(),
            large: BTreeSet::new(),
            sent: 0,
            bytes: 0,
        }
    }

    /// Upper bounds of what may be in flight.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// Rows that may still be taken.
    #[must_use]
    pub fn room_rows(&self) -> usize {
        self.free.len()
    }

    /// Bytes that may still be taken.
    #[must_use]
    pub fn room_bytes(&self) -> usize {
        self.budget.bytes.saturating_sub(self.bytes)
    }

    /// Rows of a lane that may still be taken.
    #[must_use]
    pub fn lane_room(&self, lane: Lane) -> usize {
        self.room_rows().min(
            self.budget
                .rows_per_lane
                .saturating_sub(self.lane(lane).len()),
        )
    }

    /// Rows in flight.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.budget.rows - self.free.len()
    }

    /// Bytes in flight.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Rows whose delivery report is still to come.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Rows that wait to be settled.
    #[must_use]
    pub fn acked(&self) -> usize {
        self.acked.len()
    }

    /// Whether nothing of a lane is in flight.
    #[must_use]
    pub fn is_lane_empty(&self, lane: Lane) -> bool {
        self.lane(lane).is_empty()
    }

    /// Lowest id in flight of a lane; `None` if nothing of it is.
    #[must_use]
    pub fn lowest_id(&self, lane: Lane) -> Option<RowId> {
        self.lane(lane).keys().next().map(|(id, _)| *id)
    }

    /// Rows of a lane in flight above an id, and their bytes: a fetch from there returns them
    /// again.
    #[must_use]
    pub fn rows_above(&self, lane: Lane, low: RowId) -> (usize, usize) {
        let (mut rows, mut bytes) = (0, 0);
        for (_, slot) in self.lane(lane).range((low.next(), Uuid::nil())..) {
            if let Some(entry) = self.entries[slot.index()] {
                rows += 1;
                bytes += entry.bytes;
            }
        }
        (rows, bytes)
    }

    /// Whether a row is in flight.
    #[must_use]
    pub fn holds(&self, row: RowIdentity) -> bool {
        self.lane(row.lane).contains_key(&(row.id, row.event_id))
    }

    /// Rows in flight that fetches return without their payload.
    #[must_use]
    pub fn large(&self) -> &BTreeSet<RowIdentity> {
        &self.large
    }

    /// Whether a row of a lane and of a topic, with a lower id, is with a producer.
    #[must_use]
    pub fn has_sent_below(&self, lane: Lane, id: RowId, topic: TopicIndex) -> bool {
        let mut below = self.lane(lane).range(..(id, Uuid::nil()));
        below.any(|(_, slot)| self.topic_of(*slot) == Some(topic))
    }

    /// Adds a row that goes to a producer. Returns `None`, and adds nothing, without room for it.
    pub fn take(&mut self, row: &OutboxRow, topic: TopicIndex) -> Option<Slot> {
        self.take_counted(row, row.bytes(), topic)
    }

    /// Adds a row like [`Self::take`], and counts this many bytes for it.
    pub fn take_counted(
        &mut self,
        row: &OutboxRow,
        bytes: usize,
        topic: TopicIndex,
    ) -> Option<Slot> {
        if self.lane_room(row.lane) == 0 {
            return None;
        }
        let slot = self.free.pop()?;
        self.entries[slot.index()] = Some(Entry {
            row: row.identity(),
            ctid: row.ctid,
            topic,
            bytes,
            burst: 0,
            state: State::Sent,
        });
        self.lanes[row.lane.index()].insert((row.id, row.event_id), slot);
        if row.bytes() > FETCHED_BYTES_MAX / 2 {
            self.large.insert(row.identity());
        }
        self.sent += 1;
        self.bytes += bytes;
        Some(slot)
    }

    /// Sets to which burst of its topic a row belongs.
    pub fn set_burst(&mut self, slot: Slot, burst: BurstNumber) {
        if let Some(entry) = self.entry_mut(slot) {
            entry.burst = burst;
        }
    }

    /// The sent row in a slot; `None` if its delivery report is in, or the slot has no row.
    #[must_use]
    pub fn sent_row(&self, slot: Slot) -> Option<SentRow> {
        self.sent_entry(slot).map(SentRow::from)
    }

    /// Topic of the sent row in a slot; `None` if its delivery report is in, or the slot has no
    /// row.
    #[must_use]
    pub fn topic_of(&self, slot: Slot) -> Option<TopicIndex> {
        self.sent_entry(slot).map(|entry| entry.topic)
    }

    fn sent_entry(&self, slot: Slot) -> Option<Entry> {
        self.entries
            .get(slot.index())?
            .filter(|entry| entry.state == State::Sent)
    }

    fn sent_entry_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(slot.index())?.as_mut();
        entry.filter(|entry| entry.state == State::Sent)
    }

    /// Records that Kafka acknowledged the row in a slot. Returns its topic; `None` if the slot has
    /// no sent row.
    pub fn on_acknowledged(&mut self, slot: Slot) -> Option<TopicIndex> {
        let entry = self.sent_entry_mut(slot)?;
        let topic = entry.topic;
        entry.state = State::Acked;
        self.sent -= 1;
        self.acked.push_back(slot);
        Some(topic)
    }

    /// Records that Kafka did not take the row in a slot: it is removed, and its lane must read it
    /// again. `None` if the slot has no sent row.
    pub fn on_failed(&mut self, slot: Slot) -> Option<ReturnedRow> {
        let entry = self.sent_entry(slot)?;
        self.sent -= 1;
        self.forget(slot);
        Some(entry.into())
    }

    /// The next acknowledged rows to delete, at most `rows_max`; `None` if there are none.
    /// [`Self::on_settled`] or [`Self::on_settle_failed`] must follow.
    pub fn next_settle(&mut self, rows_max: usize) -> Option<SettleBatch> {
        let mut settle = SettleBatch::with_room(rows_max.min(self.acked.len()));
        while settle.slots.len() < rows_max {
            let Some(slot) = self.acked.pop_front() else {
                break;
            };
            let Some(entry) = self.entry_mut(slot) else {
                continue;
            };
            entry.state = State::Settling;
            settle.slots.push(slot);
            settle.rows.push(SettleRow {
                row: entry.row,
                ctid: entry.ctid,
            });
        }
        (!settle.slots.is_empty()).then_some(settle)
    }

    /// Records that the rows in these slots are deleted.
    pub fn on_settled(&mut self, slots: &[Slot], after: AfterSettle) {
        for &slot in slots {
            if after.keeps_row() {
                self.keep_settled(slot);
            } else {
                self.forget(slot);
            }
        }
    }

    /// Keeps a deleted row until [`Self::end_fetch`].
    fn keep_settled(&mut self, slot: Slot) {
        if let Some(entry) = self.entry_mut(slot) {
            entry.state = State::Settled;
        }
        self.settled.push(slot);
    }

    /// Records that the DELETE failed, or that its result is unknown: it is done again.
    pub fn on_settle_failed(&mut self, slots: &[Slot]) {
        for &slot in slots {
            if let Some(entry) = self.entry_mut(slot) {
                entry.state = State::Acked;
                self.acked.push_back(slot);
            }
        }
    }

    /// Removes settled rows: the fetch that was under way has ended, and the ones that it returned
    /// were skipped.
    pub fn end_fetch(&mut self) {
        for slot in std::mem::take(&mut self.settled) {
            self.forget(slot);
        }
    }

    fn forget(&mut self, slot: Slot) {
        if let Some(entry) = self.entries[slot.index()].take() {
            let row = entry.row;
            self.lanes[row.lane.index()].remove(&(row.id, row.event_id));
            self.large.remove(&row);
            self.bytes -= entry.bytes;
            self.free.push(slot);
        }
    }

    fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.entries[slot.index()].as_mut()
    }

    fn lane(&self, lane: Lane) -> &BTreeMap<(RowId, Uuid), Slot> {
        &self.lanes[lane.index()]
    }
}

/// For the model: two values are alike if they hold the same rows in the same states. Slots differ
/// only as names.
#[cfg(test)]
impl std::hash::Hash for InFlight {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let Self {
            budget: _,
            entries,
            free: _,
            lanes,
            acked,
            settled,
            large: _,
            sent: _,
            bytes: _,
        } = self;
        let name = |slot: &Slot| entries[slot.index()].map(|entry| (entry.row, entry.state));
        for slots in lanes
            .iter()
            .map(BTreeMap::values)
            .filter(|slots| slots.len() > 0)
        {
            slots.map(name).for_each(|name| name.hash(state));
        }
        for slots in [
            acked.iter().map(name).collect::<Vec<_>>(),
            settled.iter().map(name).collect(),
        ] {
            slots.hash(state);
        }
    }
}

#[cfg(test)]
mod tests;
