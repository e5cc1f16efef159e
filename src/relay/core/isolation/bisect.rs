//! Which of several records made Kafka reject their batch: candidates are sent by a producer of
//! their own, halved until one fails alone. Pure.
//!
//! Brokers judge batches, so the reports of a rejected batch blame all of its records. Its rows
//! come here; meanwhile their keys are paused and everything else is active. Of each topic one
//! probe is under way at a time, in the order of the rows. So the rows of a key stay in order, and
//! a partition that does not answer holds up no other topic's probes.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    outbox::OutboxRow,
    relay::core::ids::{Slot, TopicIndex},
    report::ProblemClass,
};

/// Number of a rejected batch.
type BatchNumber = u32;

/// Why rows are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    /// The rows were in this rejected batch: one of them is bad, or the batch itself was.
    Batch(BatchNumber),
    /// The row shows whether its topic takes records again.
    Topic,
    /// The row is sent alone because of its size.
    Alone,
}

/// Which producer probes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// The probe producer: rows that are under suspicion, several at a time, in order.
    Candidates,
    /// The single producer: rows that are sent alone because of their size.
    Alone,
}

impl From<Purpose> for ProbeKind {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Batch(_) | Purpose::Topic => Self::Candidates,
            Purpose::Alone => Self::Alone,
        }
    }
}

/// Rows of one topic that are probed together.
#[derive(Clone)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct ProbeGroup {
    pub(crate) topic: TopicIndex,
    /// Ordered by lane and id.
    pub(crate) rows: Vec<OutboxRow>,
    purpose: Purpose,
    /// How often these rows were rejected.
    attempts: u32,
}

impl ProbeGroup {
    /// Drops rows for which `is_unwanted` holds. Returns whether there were any.
    fn drop_rows(&mut self, is_unwanted: impl Fn(TopicIndex, &OutboxRow) -> bool) -> bool {
        let before = self.rows.len();
        self.rows.retain(|row| !is_unwanted(self.topic, row));
        self.rows.len() < before
    }

    /// Which producer probes the rows.
    pub(crate) fn kind(&self) -> ProbeKind {
        self.purpose.into()
    }

    fn has_several_rows(&self) -> bool {
        self.rows.len() > 1
    }

    /// Size of the batch that the rows were sent in.
    fn bytes(&self) -> usize {
        self.rows.iter().map(OutboxRow::bytes).sum()
    }

    /// Splits the later half of the rows off.
    fn split_off_half(&mut self) -> Self {
        let later = self.rows.split_off(self.rows.len() / 2);
        self.with(later)
    }

    fn has_key(&self, key: &str) -> bool {
        self.rows.iter().any(|row| row.key() == key)
    }

    /// A group of other rows, for the same purpose.
    #[must_use]
    pub(crate) fn with(&self, rows: Vec<OutboxRow>) -> Self {
        Self { rows, ..*self }
    }
}

/// A batch that was rejected, while its rows are probed.
#[derive(Clone, Copy, Debug, Hash)]
struct RejectedBatch {
    topic: TopicIndex,
    /// Bytes of the smallest batch that was rejected as too large.
    too_large_bytes: Option<usize>,
    /// A row of it was rejected alone, or was not probed: its size need not be the cause.
    size_is_cleared: bool,
}

impl RejectedBatch {
    /// A batch whose size is not known to be too large.
    fn new(topic: TopicIndex) -> Self {
        Self {
            topic,
            too_large_bytes: None,
            size_is_cleared: false,
        }
    }

    /// Remembers the size of a batch that was rejected as too large, if it is the smallest yet.
    fn on_too_large(&mut self, bytes: usize) {
        let smallest = self.too_large_bytes.map_or(bytes, |known| known.min(bytes));
        self.too_large_bytes = Some(smallest);
    }

    /// The result of a batch without a row left to probe, if its size was why it was rejected.
    fn too_large(self) -> Option<ProbeResult> {
        let bytes = self.too_large_bytes.filter(|_| !self.size_is_cleared)?;
        Some(ProbeResult::BatchTooLarge {
            topic: self.topic,
            bytes,
        })
    }
}

/// What became of one probed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProbeOutcome {
    /// Kafka acknowledged the record.
    Published,
    /// Kafka rejected the record, or a batch that it was part of.
    Rejected(ProblemClass),
    /// The record failed for a reason that concerns its topic.
    TopicFailed,
    /// The record was discarded with its producer, or never handed to it.
    NotTried,
}

/// What a probe showed.
#[derive(Clone, PartialEq)]
pub(crate) enum ProbeResult {
    /// This row was rejected although it was sent alone.
    RowRejected {
        topic: TopicIndex,
        row: Box<OutboxRow>,
        class: ProblemClass,
        attempts: u32,
    },
    /// A batch of this size was rejected although none of its rows is: the batch was too large.
    BatchTooLarge { topic: TopicIndex, bytes: usize },
    /// The topic takes records.
    TopicAccepted(TopicIndex),
}

/// A group that the probe producer has.
#[derive(Clone)]
#[cfg_attr(test, derive(Hash))]
struct Probe {
    group: ProbeGroup,
    /// Slot of each row -> its index in the group.
    slots: BTreeMap<Slot, usize>,
    /// Outcomes by index in the group; `None` while the delivery report is to come.
    outcomes: Vec<Option<ProbeOutcome>>,
}

impl Probe {
    /// Rows that were just sent, in these slots.
    fn new(group: ProbeGroup, slots: &[Slot]) -> Self {
        Self {
            slots: slots.iter().copied().zip(0..).collect(),
            outcomes: vec![None; group.rows.len()],
            group,
        }
    }

    /// Rows whose delivery reports are still to come.
    fn open_rows(&self) -> impl Iterator<Item = &OutboxRow> {
        self.group
            .rows
            .iter()
            .zip(&self.outcomes)
            .filter_map(|(row, outcome)| outcome.is_none().then_some(row))
    }

    /// Index of the row in a slot whose delivery report is still to come.
    fn open_row(&self, slot: Slot) -> Option<usize> {
        let at = *self.slots.get(&slot)?;
        self.outcomes[at].is_none().then_some(at)
    }

    fn is_complete(&self) -> bool {
        self.outcomes.iter().all(Option::is_some)
    }
}

/// The rows of a complete probe, by outcome.
#[derive(Default)]
struct Sorted {
    rejected: Vec<OutboxRow>,
    not_tried: Vec<OutboxRow>,
    /// Class of the last rejection; `None` if no row was rejected.
    class: Option<ProblemClass>,
    topic_failed: bool,
    /// A record was published, or rejected for its own sake.
    topic_accepted: bool,
}

impl Sorted {
    fn new(rows: Vec<OutboxRow>, outcomes: Vec<Option<ProbeOutcome>>) -> Self {
        let mut sorted = Self::default();
        for (row, outcome) in rows.into_iter().zip(outcomes.into_iter().flatten()) {
            match outcome {
                ProbeOutcome::Published => sorted.topic_accepted = true,
                ProbeOutcome::Rejected(class) => {
                    sorted.topic_accepted = true;
                    sorted.class = Some(class);
                    sorted.rejected.push(row);
                }
                ProbeOutcome::TopicFailed => sorted.topic_failed = true,
                ProbeOutcome::NotTried => sorted.not_tried.push(row),
            }
        }
        sorted
    }
}

/// Rows that are probed, and those that wait for it.
#[derive(Clone, Default)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Bisect {
    queue: VecDeque<ProbeGroup>,
    under_way: BTreeMap<TopicIndex, Probe>,
    batches: BTreeMap<BatchNumber, RejectedBatch>,
    /// The highest number of a batch.
    last_batch: BatchNumber,
}

impl Bisect {
    /// Whether no row is probed or waits for it.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.under_way.is_empty()
    }

    /// Whether the probe producer has rows.
    #[must_use]
    pub(crate) fn has_probe_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Whether a row of this kind is probed or waits for it.
    pub(crate) fn has_groups(&self, kind: ProbeKind) -> bool {
        self.groups().any(|group| group.kind() == kind)
    }

    /// Whether the producer of this kind has rows.
    pub(crate) fn has_sent(&self, kind: ProbeKind) -> bool {
        let mut probes = self.under_way.values();
        probes.any(|probe| probe.group.kind() == kind)
    }

    /// Which producer has the row in a slot; `None` if it is not probed.
    pub(crate) fn kind_of(&self, slot: Slot) -> Option<ProbeKind> {
        let (topic, _) = self.find_open_row(slot)?;
        Some(self.under_way.get(&topic)?.group.kind())
    }

    /// Rows that the probe producer has, and whose delivery reports are still to come.
    pub(crate) fn probed_rows(&self) -> impl Iterator<Item = &OutboxRow> {
        self.under_way.values().flat_map(Probe::open_rows)
    }

    /// Groups that are probed or wait for it.
    fn groups(&self) -> impl Iterator<Item = &ProbeGroup> {
        let probed = self.under_way.values().map(|probe| &probe.group);
        self.queue.iter().chain(probed)
    }

    /// Number of rows of a topic that wait for their probe.
    #[must_use]
    pub(crate) fn waiting_rows(&self, topic: TopicIndex) -> usize {
        let mut rows = 0;
        for group in &self.queue {
            if group.topic == topic {
                rows += group.rows.len();
            }
        }
        rows
    }

    /// Bytes of the rows of a topic that are probed or wait for it, and those of all topics.
    pub(crate) fn bytes(&self, topic: TopicIndex) -> (usize, usize) {
        let (mut of_topic, mut of_all) = (0, 0);
        for group in self.groups() {
            let bytes = group.bytes();
            of_all += bytes;
            if group.topic == topic {
                of_topic += bytes;
            }
        }
        (of_topic, of_all)
    }

    /// Bytes of the rows of rejected batches of a topic that are probed or wait for it.
    pub(crate) fn candidate_bytes(&self, topic: TopicIndex) -> usize {
        let of_topic = self.groups().filter(|group| group.topic == topic);
        let candidates = of_topic.filter(|group| group.purpose != Purpose::Alone);
        candidates.map(ProbeGroup::bytes).sum()
    }

    /// Queues a row that is sent alone because of its size.
    pub(crate) fn add_alone(&mut self, topic: TopicIndex, row: OutboxRow) {
        self.queue.push_back(ProbeGroup {
            topic,
            rows: vec![row],
            purpose: Purpose::Alone,
            attempts: 0,
        });
    }

    /// Queues the rows of a batch that was rejected with `class`, or of a topic where a rejection
    /// is likely (`None`). They are ordered by lane and id.
    pub(crate) fn add_candidates(
        &mut self,
        topic: TopicIndex,
        class: Option<ProblemClass>,
        rows: Vec<OutboxRow>,
    ) {
        if rows.is_empty() {
            return;
        }
        let group = ProbeGroup {
            topic,
            rows,
            purpose: self.new_batch(topic),
            attempts: u32::from(class.is_some()),
        };
        if let Some(class) = class {
            self.note_size(&group, class);
        }
        self.queue.push_back(group);
    }

    fn new_batch(&mut self, topic: TopicIndex) -> Purpose {
        self.last_batch += 1;
        self.batches
            .insert(self.last_batch, RejectedBatch::new(topic));
        Purpose::Batch(self.last_batch)
    }

    /// Queues a row that shows whether its topic takes records again.
    pub(crate) fn add_topic_row(&mut self, topic: TopicIndex, row: OutboxRow) {
        self.queue.push_back(ProbeGroup {
            topic,
            rows: vec![row],
            purpose: Purpose::Topic,
            attempts: 0,
        });
    }

    /// The next rows to send, in order, for which `may_send` holds and of whose topic no probe is
    /// under way. [`Self::on_sent`] or [`Self::postpone`] must follow.
    pub(crate) fn next_group(
        &mut self,
        may_send: impl Fn(TopicIndex, ProbeKind) -> bool,
    ) -> Option<ProbeGroup> {
        let next = self.queue.iter().position(|group| {
            may_send(group.topic, group.kind()) && !self.under_way.contains_key(&group.topic)
        })?;
        self.queue.remove(next)
    }

    /// Records that the rows of a group are in flight, in these slots.
    pub(crate) fn on_sent(&mut self, group: ProbeGroup, slots: &[Slot]) {
        let topic = group.topic;
        self.under_way.insert(topic, Probe::new(group, slots));
    }

    /// Puts rows back for which there was no room.
    pub(crate) fn postpone(&mut self, group: ProbeGroup) {
        self.queue.push_front(group);
    }

    /// Whether the record in a slot is probed. Once it has ended, its slot may hold another row,
    /// which is not.
    #[must_use]
    pub(crate) fn is_probed(&self, slot: Slot) -> bool {
        self.find_open_row(slot).is_some()
    }

    /// Whether a row of this key is probed, or waits for it.
    #[must_use]
    pub(crate) fn has_key(&self, topic: TopicIndex, key: &str) -> bool {
        let mut groups = self.groups().filter(|group| group.topic == topic);
        groups.any(|group| group.has_key(key))
    }

    /// Drops waiting rows for which `is_unwanted` holds. Returns the topics whose row was to show
    /// whether they take records again.
    #[must_use]
    pub(crate) fn drop_candidates(
        &mut self,
        is_unwanted: impl Fn(TopicIndex, &OutboxRow) -> bool,
    ) -> Vec<TopicIndex> {
        let mut topics = Vec::new();
        for group in &mut self.queue {
            if group.drop_rows(&is_unwanted) {
                clear_size(&mut self.batches, group.purpose);
            }
            if group.rows.is_empty() && group.purpose == Purpose::Topic {
                topics.push(group.topic);
            }
        }
        self.queue.retain(|group| !group.rows.is_empty());
        topics
    }

    /// Records the outcome of a probed record. Returns what its probe showed, once all of its
    /// records have ended; `None` before, and for a slot that is not probed.
    pub(crate) fn on_report(
        &mut self,
        slot: Slot,
        outcome: ProbeOutcome,
    ) -> Option<Vec<ProbeResult>> {
        let topic = self.record_outcome(slot, outcome)?;
        let probe = self.take_complete_probe(topic)?;
        Some(self.conclude(probe))
    }

    /// Records the outcome of the record in a slot. Returns its topic; `None` for a slot that is
    /// not probed.
    fn record_outcome(&mut self, slot: Slot, outcome: ProbeOutcome) -> Option<TopicIndex> {
        let (topic, at) = self.find_open_row(slot)?;
        self.under_way.get_mut(&topic)?.outcomes[at] = Some(outcome);
        Some(topic)
    }

    /// Topic of the probed row in a slot, and the row's index in its group.
    fn find_open_row(&self, slot: Slot) -> Option<(TopicIndex, usize)> {
        let mut probes = self.under_way.iter();
        probes.find_map(|(topic, probe)| Some((*topic, probe.open_row(slot)?)))
    }

    /// Takes the probe of a topic, if all of its records have ended.
    fn take_complete_probe(&mut self, topic: TopicIndex) -> Option<Probe> {
        if self.under_way.get(&topic)?.is_complete() {
            self.under_way.remove(&topic)
        } else {
            None
        }
    }

    /// What a complete probe showed. Rows that were rejected together are halved, and probed next.
    fn conclude(&mut self, probe: Probe) -> Vec<ProbeResult> {
        let ProbeGroup {
            topic,
            rows,
            purpose,
            attempts,
        } = probe.group;
        let sorted = Sorted::new(rows, probe.outcomes);
        let mut results = Vec::new();
        if sorted.topic_failed {
            self.forget_topic(topic);
        } else {
            if purpose == Purpose::Topic && sorted.topic_accepted {
                results.push(ProbeResult::TopicAccepted(topic));
            }
            let group = |rows, attempts| ProbeGroup {
                topic,
                rows,
                purpose,
                attempts,
            };
            // Each group is put in front, so the last one first: rejected rows come before those
            // that were not tried, and their order is that of each key.
            self.probe_next(group(sorted.not_tried, attempts));
            if let Some(class) = sorted.class {
                results.extend(self.bisect(group(sorted.rejected, attempts + 1), class));
            }
        }
        results.extend(self.close_batches());
        results
    }

    /// Halves rows that were rejected together; a row that was sent alone is at fault.
    fn bisect(&mut self, rejected: ProbeGroup, class: ProblemClass) -> Option<ProbeResult> {
        self.note_size(&rejected, class);
        if rejected.has_several_rows() {
            self.probe_halves(rejected);
            return None;
        }
        self.end_bisection(rejected, class)
    }

    /// Puts both halves of a group in front of the queue, in their order.
    fn probe_halves(&mut self, mut group: ProbeGroup) {
        let later = group.split_off_half();
        self.probe_next(later);
        self.probe_next(group);
    }

    /// The result of a row that was rejected although it was sent alone; `None` without a row.
    fn end_bisection(&mut self, mut alone: ProbeGroup, class: ProblemClass) -> Option<ProbeResult> {
        let row = alone.rows.pop()?;
        clear_size(&mut self.batches, alone.purpose);
        Some(ProbeResult::RowRejected {
            topic: alone.topic,
            row: Box::new(row),
            class,
            attempts: alone.attempts,
        })
    }

    /// Forgets the waiting rows of a topic that failed. They are still in the table, and are read
    /// again once the topic takes records.
    fn forget_topic(&mut self, topic: TopicIndex) {
        self.queue.retain(|group| group.topic != topic);
        self.batches.retain(|_, batch| batch.topic != topic);
    }

    /// Remembers the size of a group if `class` shows that it was too large for one batch.
    fn note_size(&mut self, group: &ProbeGroup, class: ProblemClass) {
        if class == ProblemClass::RecordTooLarge
            && let Some(batch) = batch_of(&mut self.batches, group.purpose)
        {
            batch.on_too_large(group.bytes());
        }
    }

    fn probe_next(&mut self, group: ProbeGroup) {
        if !group.rows.is_empty() {
            self.queue.push_front(group);
        }
    }

    /// Removes batches without a row left to probe. A batch that was rejected as too large although
    /// none of its rows is was itself too large.
    fn close_batches(&mut self) -> Vec<ProbeResult> {
        self.batches_to_close()
            .iter()
            .filter_map(|number| self.batches.remove(number)?.too_large())
            .collect()
    }

    /// Batches without a row left to probe.
    fn batches_to_close(&self) -> Vec<BatchNumber> {
        let numbers = self.batches.keys().copied();
        numbers.filter(|number| !self.is_open(*number)).collect()
    }

    /// Whether a row of a batch is probed or waits for it.
    fn is_open(&self, number: BatchNumber) -> bool {
        self.groups()
            .any(|group| group.purpose == Purpose::Batch(number))
    }
}

/// The batch that rows are probed for; `None` for a row that shows whether its topic takes records.
fn batch_of(
    batches: &mut BTreeMap<BatchNumber, RejectedBatch>,
    purpose: Purpose,
) -> Option<&mut RejectedBatch> {
    match purpose {
        Purpose::Batch(number) => batches.get_mut(&number),
        Purpose::Topic | Purpose::Alone => None,
    }
}

/// Records that the size of a batch need not be why it was rejected.
fn clear_size(batches: &mut BTreeMap<BatchNumber, RejectedBatch>, purpose: Purpose) {
    if let Some(batch) = batch_of(batches, purpose) {
        batch.size_is_cleared = true;
    }
}

#[cfg(test)]
mod tests;
