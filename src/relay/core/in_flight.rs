//! Rows in flight, from the moment they are taken until no fetch can show them any more. Pure.
//!
//! ```text
//!   take -> Sent -> acknowledged -> Acked -> next_settle -> Settling -> settled -> Settled -> gone
//!             \-> failed: gone, the lane reads it again        \-> settle_failed: Acked again
//! ```
//!
//! A settled row stays as long as a fetch is under way that began before its DELETE was answered:
//! that fetch's snapshot may be older, and would make the row look new.

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

use crate::{
    failpoints::{self, Bug},
    outbox::{Ctid, OutboxRow, SettlePlan},
    relay::core::lane_share::LANES,
};

/// Index of a row in flight; travels through the producer as the record's opaque.
pub type Slot = usize;

/// Index into the routes: a declared topic.
pub type TopicIndex = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
enum State {
    /// With the producer; its delivery report is still to come.
    Sent,
    /// Kafka has it; it is still in the table.
    Acked,
    /// Its DELETE is under way.
    Settling,
    /// Deleted; a fetch that began before may still show it.
    Settled,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    lane: u8,
    id: i64,
    event_id: Uuid,
    place: Ctid,
    topic: TopicIndex,
    bytes: usize,
    state: State,
}

/// A row that left the window unpublished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnedRow {
    pub row: RowIdentity,
    pub topic: TopicIndex,
}

/// A row by lane, id and event_id: an id may come again with another event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowIdentity {
    pub lane: u8,
    pub id: i64,
    pub event_id: Uuid,
}

/// One settling statement: the rows, and their slots to tell how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettleBatch {
    pub slots: Vec<Slot>,
    pub plan: SettlePlan,
}

impl SettleBatch {
    fn with_room(rows: usize) -> Self {
        let plan = SettlePlan {
            lanes: Vec::with_capacity(rows),
            ids: Vec::with_capacity(rows),
            event_ids: Vec::with_capacity(rows),
            places: Vec::with_capacity(rows),
        };
        Self {
            slots: Vec::with_capacity(rows),
            plan,
        }
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

/// How much the window may hold.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub rows: usize,
    pub bytes: usize,
    pub rows_per_lane: usize,
}

impl Default for Budget {
    /// 16,384 rows and 64 MiB for the process, 2,048 rows for a lane.
    fn default() -> Self {
        Self {
            rows: 16_384,
            bytes: 64 << 20,
            rows_per_lane: 2_048,
        }
    }
}

/// Rows in flight, by slot and by lane.
#[derive(Clone, Debug)]
pub struct InFlight {
    budget: Budget,
    entries: Vec<Option<Entry>>,
    free: Vec<Slot>,
    lanes: Vec<BTreeMap<(i64, Uuid), Slot>>,
    acked: VecDeque<Slot>,
    settled: Vec<Slot>,
    sent_by_topic: Vec<usize>,
    bytes: usize,
}

impl InFlight {
    #[must_use]
    pub fn new(budget: Budget, topics: usize) -> Self {
        Self {
            budget,
            entries: vec![None; budget.rows],
            free: (0..budget.rows).rev().collect(),
            lanes: vec![BTreeMap::new(); LANES],
            acked: VecDeque::new(),
            settled: Vec::new(),
            sent_by_topic: vec![0; topics],
            bytes: 0,
        }
    }

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
    pub fn lane_room(&self, lane: u8) -> usize {
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
        self.sent_by_topic.iter().sum()
    }

    /// The same, of one topic.
    #[must_use]
    pub fn sent_of(&self, topic: TopicIndex) -> usize {
        self.sent_by_topic[topic]
    }

    /// Rows that wait to be settled.
    #[must_use]
    pub fn acked(&self) -> usize {
        self.acked.len()
    }

    /// Whether nothing of a lane is in flight.
    #[must_use]
    pub fn is_lane_empty(&self, lane: u8) -> bool {
        self.lane(lane).is_empty()
    }

    /// Lowest id of a lane in flight.
    #[must_use]
    pub fn lowest(&self, lane: u8) -> Option<i64> {
        self.lane(lane).keys().next().map(|(id, _)| *id)
    }

    /// Rows of a lane in flight above an id, and their bytes: what a fetch from there will show
    /// again.
    #[must_use]
    pub fn above(&self, lane: u8, low: i64) -> (usize, usize) {
        let slots = self
            .lane(lane)
            .range((low.saturating_add(1), Uuid::nil())..)
            .map(|(_, slot)| *slot);
        slots
            .filter_map(|slot| self.entries[slot])
            .fold((0, 0), |(rows, bytes), entry| {
                (rows + 1, bytes + entry.bytes)
            })
    }

    /// Whether a row is in flight. By event_id too: an id may come again with another event.
    #[must_use]
    pub fn holds(&self, lane: u8, id: i64, event_id: Uuid) -> bool {
        self.lane(lane).contains_key(&(id, event_id))
    }

    /// Takes a row; `None` when the window is full.
    pub fn take(&mut self, row: &OutboxRow, topic: TopicIndex) -> Option<Slot> {
        if self.lane_room(row.lane) == 0 {
            return None;
        }
        let slot = self.free.pop()?;
        let bytes = row.bytes();
        let &OutboxRow {
            lane,
            id,
            event_id,
            place,
            ..
        } = row;
        self.entries[slot] = Some(Entry {
            lane,
            id,
            event_id,
            place,
            topic,
            bytes,
            state: State::Sent,
        });
        self.lanes[usize::from(row.lane)].insert((row.id, row.event_id), slot);
        self.sent_by_topic[topic] += 1;
        self.bytes += bytes;
        Some(slot)
    }

    /// Topic of a sent row; `None` for a slot that has none.
    #[must_use]
    pub fn topic_of(&self, slot: Slot) -> Option<TopicIndex> {
        self.entries
            .get(slot)?
            .filter(|entry| entry.state == State::Sent)
            .map(|entry| entry.topic)
    }

    /// Kafka has the row. Returns its topic; `None` for a slot that has no sent row.
    pub fn acknowledged(&mut self, slot: Slot) -> Option<TopicIndex> {
        let entry = self
            .entries
            .get_mut(slot)?
            .as_mut()
            .filter(|entry| entry.state == State::Sent)?;
        entry.state = State::Acked;
        self.sent_by_topic[entry.topic] -= 1;
        self.acked.push_back(slot);
        Some(entry.topic)
    }

    /// Kafka does not have the row: it leaves the window, and its lane must read it again. `None`
    /// for a slot that has no sent row.
    pub fn failed(&mut self, slot: Slot) -> Option<ReturnedRow> {
        let entry = self
            .entries
            .get(slot)?
            .filter(|entry| entry.state == State::Sent)?;
        self.sent_by_topic[entry.topic] -= 1;
        self.forget(slot);
        Some(ReturnedRow {
            row: RowIdentity {
                lane: entry.lane,
                id: entry.id,
                event_id: entry.event_id,
            },
            topic: entry.topic,
        })
    }

    /// The next rows to delete, at most `rows_max`; `None` without any.
    pub fn next_settle(&mut self, rows_max: usize) -> Option<SettleBatch> {
        let mut settle = SettleBatch::with_room(rows_max.min(self.acked.len()));
        while settle.slots.len() < rows_max {
            let Some(slot) = self.acked.pop_front() else {
                break;
            };
            let Some(entry) = self.entries[slot].as_mut() else {
                continue;
            };
            entry.state = State::Settling;
            settle.slots.push(slot);
            settle.plan.lanes.push(i16::from(entry.lane));
            settle.plan.ids.push(entry.id);
            settle.plan.event_ids.push(entry.event_id);
            settle.plan.places.push(entry.place);
        }
        (!settle.slots.is_empty()).then_some(settle)
    }

    /// The rows are deleted. With a fetch under way they stay until it is in.
    pub fn settled(&mut self, slots: &[Slot], fetch_under_way: bool) {
        for &slot in slots {
            if fetch_under_way && !failpoints::has(Bug::ForgetAtOnce) {
                if let Some(entry) = self.entries[slot].as_mut() {
                    entry.state = State::Settled;
                }
                self.settled.push(slot);
            } else {
                self.forget(slot);
            }
        }
    }

    /// The DELETE failed, or nobody knows: it is done again.
    pub fn settle_failed(&mut self, slots: &[Slot]) {
        for &slot in slots {
            if let Some(entry) = self.entries[slot].as_mut() {
                entry.state = State::Acked;
                self.acked.push_back(slot);
            }
        }
    }

    /// The fetch that was under way is in, and what it showed of settled rows was skipped.
    pub fn fetch_is_in(&mut self) {
        for slot in std::mem::take(&mut self.settled) {
            self.forget(slot);
        }
    }

    fn forget(&mut self, slot: Slot) {
        if let Some(entry) = self.entries[slot].take() {
            self.lanes[usize::from(entry.lane)].remove(&(entry.id, entry.event_id));
            self.bytes -= entry.bytes;
            self.free.push(slot);
        }
    }

    fn lane(&self, lane: u8) -> &BTreeMap<(i64, Uuid), Slot> {
        &self.lanes[usize::from(lane)]
    }
}

/// For the model: windows that hold the same rows in the same states are alike, whatever their
/// slots are called.
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
            sent_by_topic: _,
            bytes: _,
        } = self;
        let name = |slot: &Slot| {
            entries[*slot].map(|entry| (entry.lane, entry.id, entry.event_id, entry.state))
        };
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
