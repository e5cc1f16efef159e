//! PostgreSQL as a relay sees it: ids drawn before they commit, snapshots, leases and lanes.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
};

use uuid::Uuid;

use crate::{
    outbox::{
        FetchRequest, Fetched, Grant, Lane, LaneWatermark, OutboxRow, RowId, RowIdentity, RowText,
        Snapshot,
    },
    relay::core::model::Bug,
};

/// Ids that the sequence skips when it is moved forward.
const JUMP: i64 = 100;

/// A row; `event` stands for its event_id, which never comes again, while an id may.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) id: RowId,
    pub(super) event: u64,
    pub(super) key: Key,
}

/// A key lives in one lane; here it also has one topic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) name: u8,
    pub(super) lane: u8,
    pub(super) topic: u8,
}

impl Key {
    pub(super) fn lane(&self) -> Lane {
        Lane::new(self.lane)
    }
}

impl Row {
    pub(super) fn event_id(&self) -> Uuid {
        Uuid::from_u64_pair(0, self.event)
    }

    pub(super) fn identity(&self) -> RowIdentity {
        RowIdentity {
            lane: self.key.lane(),
            id: self.id,
            event_id: self.event_id(),
        }
    }

    pub(super) fn as_read(&self) -> OutboxRow {
        let (key, topic) = (
            format!("k{}", self.key.name),
            format!("t{}", self.key.topic),
        );
        let texts = RowText {
            aggregate_id: &key,
            topic: Some(&topic),
            ..RowText::PLAIN
        };
        OutboxRow {
            event_id: self.event_id(),
            ..OutboxRow::with(self.key.lane, self.id.get(), texts)
        }
    }
}

/// A row of the table `lane`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct LaneRow {
    pub(super) owner: Option<u8>,
    epoch: i64,
    mark: RowId,
    high_id: RowId,
}

#[derive(Clone, Debug)]
pub(super) struct Database {
    next_xid: u64,
    completed_xid: u64,
    next_id: i64,
    /// Open transactions of writers, and of settles.
    open: BTreeMap<u64, Vec<Row>>,
    pub(super) rows: BTreeSet<Row>,
    /// Every row ever committed, in the order of the commits.
    pub(super) committed: Vec<Row>,
    next_event: u64,
    /// Whether the lease of an instance runs.
    pub(super) leases: BTreeMap<u8, bool>,
    pub(super) lanes: Vec<LaneRow>,
    /// TRUNCATE .. RESTART IDENTITY ran, and the sequence was not moved forward since.
    ids_come_again: bool,
    /// Changes each time that the sequence is moved forward.
    incarnation: u8,
}

impl Hash for Database {
    /// Leaves the next xid out: remembered xids are only compared, and new ones are above all of
    /// them.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (
            &self.open,
            &self.rows,
            &self.committed,
            &self.leases,
            &self.lanes,
            self.next_id,
        )
            .hash(state);
        (self.ids_come_again, self.incarnation).hash(state);
        if !self.open.is_empty() {
            (self.next_xid, self.completed_xid).hash(state);
        }
    }
}

impl Database {
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            next_xid: 10,
            completed_xid: 9,
            next_id: 1,
            open: BTreeMap::new(),
            rows: BTreeSet::new(),
            committed: Vec::new(),
            next_event: 1,
            leases: BTreeMap::new(),
            lanes: vec![LaneRow::default(); lanes],
            ids_come_again: false,
            incarnation: 0,
        }
    }

    // --- transactions

    pub(super) fn begin(&mut self) -> u64 {
        self.next_xid += 1;
        self.open.insert(self.next_xid - 1, Vec::new());
        self.next_xid - 1
    }

    /// A key has one writer at a time: the row joins the transaction that has it, or a new one.
    pub(super) fn insert(&mut self, key: Key) -> u64 {
        let of_key = |rows: &[Row]| rows.iter().any(|row| row.key == key);
        let holder = self
            .open
            .iter()
            .find(|(_, rows)| of_key(rows))
            .map(|(xid, _)| *xid);
        let xid = holder.unwrap_or_else(|| self.begin());
        let row = Row {
            id: RowId::new(self.next_id),
            event: self.next_event,
            key,
        };
        (self.next_id, self.next_event) = (self.next_id + 1, self.next_event + 1);
        self.open.entry(xid).or_default().push(row);
        xid
    }

    pub(super) fn writers(&self) -> Vec<u64> {
        self.open
            .iter()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(xid, _)| *xid)
            .collect()
    }

    pub(super) fn commit(&mut self, xid: u64) {
        let rows = self.open.remove(&xid).unwrap_or_default();
        self.committed.extend(&rows);
        self.rows.extend(rows);
        self.completed_xid = self.completed_xid.max(xid);
    }

    pub(super) fn roll_back(&mut self, xid: u64) {
        self.open.remove(&xid);
        self.completed_xid = self.completed_xid.max(xid);
    }

    /// One of our own transactions that does nothing.
    pub(super) fn tick(&mut self) -> u64 {
        let xid = self.begin();
        self.commit(xid);
        xid
    }

    /// TRUNCATE .. RESTART IDENTITY: waiting rows are removed, and ids are drawn again.
    pub(super) fn restart_ids(&mut self) {
        let gone = std::mem::take(&mut self.rows);
        self.committed.retain(|row| !gone.contains(row));
        (self.next_id, self.ids_come_again) = (1, true);
    }

    /// The incarnation as `sequence_state` reports it: none while ids are drawn again.
    pub(super) fn incarnation(&self) -> Option<u8> {
        (!self.ids_come_again).then_some(self.incarnation)
    }

    /// resume_sequence(): waiting rows get ids above all known ones, and marks are no longer valid.
    /// It waits for writers.
    pub(super) fn resume_sequence(&mut self) {
        if !self.ids_come_again || !self.writers().is_empty() {
            return;
        }
        let highest = self.lanes.iter().map(|lane| lane.high_id);
        let above = highest.fold(RowId::ZERO, RowId::max).get() + JUMP;
        let moved = |row: &Row| Row {
            id: RowId::new(row.id.get() + above),
            ..*row
        };
        let waiting = std::mem::take(&mut self.rows);
        for row in self
            .committed
            .iter_mut()
            .filter(|row| waiting.contains(row))
        {
            *row = moved(row);
        }
        self.rows = waiting.iter().map(moved).collect();
        self.next_id += above;
        let high_id = RowId::new(self.next_id - 1);
        self.lanes
            .iter_mut()
            .for_each(|lane| (lane.mark, lane.high_id) = (RowId::ZERO, high_id));
        (self.ids_come_again, self.incarnation) = (false, self.incarnation + 1);
    }

    /// A committed row by its event_id; `None` for an event_id that a planted bug invented.
    pub(super) fn row(&self, event_id: Uuid) -> Option<Row> {
        self.committed
            .iter()
            .find(|row| row.event == event_id.as_u64_pair().1)
            .copied()
    }

    // --- statements of a relay

    pub(super) fn fetch(&self, plan: &FetchRequest) -> Fetched {
        let xmax = self.completed_xid + 1;
        let running = self
            .open
            .keys()
            .copied()
            .filter(|xid| *xid < xmax)
            .collect();
        let mut rows = Vec::new();
        for read in &plan.lanes {
            let above = self
                .rows
                .iter()
                .filter(|row| row.key.lane() == read.lane && row.id > read.low);
            let active = above.map(Row::as_read).filter(|row| is_active(plan, row));
            rows.extend(active.take(read.rows_max as usize));
        }
        Fetched {
            snapshot: Snapshot::new(xmax, running),
            rows,
            scanned: vec![],
            cut: vec![],
        }
    }

    /// The DELETE; returns what it deleted.
    pub(super) fn settle(&mut self, rows: &[Row], bug: Bug) -> Vec<Row> {
        let named = |row: &Row| match bug {
            Bug::SettleById => rows
                .iter()
                .any(|other| (other.key.lane, other.id) == (row.key.lane, row.id)),
            _ => rows.contains(row),
        };
        self.rows.extract_if(.., named).collect()
    }

    /// Moves a row to dead_letter: later rows of its key are sent.
    pub(super) fn bury(&mut self, event: u64) {
        self.rows.retain(|row| row.event != event);
        self.committed.retain(|row| row.event != event);
    }

    /// Rows that a gap scan finds.
    pub(super) fn gap_scan(&self, watermarks: &[LaneWatermark]) -> Vec<Row> {
        let below = |row: &&Row| {
            watermarks
                .iter()
                .any(|of| row.key.lane() == of.lane && row.id <= of.watermark)
        };
        self.rows.iter().filter(below).copied().collect()
    }

    /// A row at or below the mark of its lane that is committed, or may be: no relay would read it.
    /// While ids are drawn again, marks are not valid, and there is none.
    pub(super) fn below_mark(&self) -> Option<Row> {
        self.incarnation()?;
        let waiting = self.rows.iter().chain(self.open.values().flatten());
        waiting
            .copied()
            .find(|row| row.id <= self.lanes[usize::from(row.key.lane)].mark)
    }

    /// Writes marks of the lanes that the instance still owns, and gives these back if requested.
    /// Returns the lanes: none in another incarnation.
    pub(super) fn write_marks(
        &mut self,
        (instance, incarnation): (u8, u8),
        written: &[LaneWatermark],
        give_back: bool,
        bug: Bug,
    ) -> Vec<Lane> {
        let mut ours = Vec::new();
        if self.incarnation() != Some(incarnation) {
            return ours;
        }
        for of in written {
            let row = &mut self.lanes[of.lane.index()];
            if (row.owner, row.epoch) == (Some(instance), of.epoch) {
                let mark = if bug == Bug::ForwardOnly {
                    of.high_id
                } else {
                    of.watermark
                };
                (row.mark, row.high_id) = (row.mark.max(mark), row.high_id.max(of.high_id));
                row.owner = row.owner.filter(|_| !give_back);
                ours.push(of.lane);
            }
        }
        ours
    }

    /// Takes all free lanes; instances whose lease has run out are deleted first.
    pub(super) fn claim(
        &mut self,
        instance: u8,
        known: &[LaneWatermark],
        lanes_max: usize,
    ) -> Vec<Grant> {
        self.leases.retain(|_, runs| *runs);
        let mut grants = Vec::new();
        for (lane, row) in self.lanes.iter_mut().enumerate() {
            let lane = Lane::new(lane as u8);
            let is_known = known.iter().any(|of| of.lane == lane);
            let lost_claim = row.owner == Some(instance) && !is_known;
            let owned = row
                .owner
                .is_some_and(|owner| self.leases.contains_key(&owner));
            if (owned && !lost_claim) || grants.len() == lanes_max {
                continue;
            }
            (row.owner, row.epoch) = (Some(instance), row.epoch + 1);
            grants.push(Grant {
                lane,
                epoch: row.epoch,
                watermark: row.mark,
                high_id: row.high_id,
            });
        }
        grants
    }
}

fn is_active(plan: &FetchRequest, row: &OutboxRow) -> bool {
    let (topic, key) = (
        row.topic().unwrap_or_default().to_owned(),
        row.key().to_owned(),
    );
    plan.filter.as_ref().is_none_or(|filter| {
        filter.topics.contains(&topic) && !filter.paused_keys.contains(&(topic, key))
    })
}
