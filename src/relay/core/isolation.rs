//! Records that Kafka rejects. The rows of a rejected batch are candidates: they are looked up,
//! probed by a producer of their own, and bisected until one fails alone. Meanwhile only their keys
//! are paused. Pure.
//!
//! ```text
//!   batch rejected -> topic paused until its reports are in -> its rows are looked up
//!                  -> their keys are paused, the topic is active -> probes
//!      rejected alone -> disposition: its key is parked, or the row is moved to dead_letter
//!      accepted       -> its key is active
//!   topic failed -> paused, longer each time -> its lowest row is looked up -> probe
//!                -> active, or paused again
//! ```

mod bisect;
mod candidates;
mod disposition;
mod probes;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

pub use bisect::ProbeKind;

use crate::{
    event_labels::EventLabels,
    outbox::{Lane, OutboxRow, RowFault, RowIdentity, TextColumn},
    relay::core::{
        excluded::Excluded,
        ids::{Slot, TopicIndex},
        in_flight::ReturnedRow,
        isolation::bisect::Bisect,
    },
    report::ProblemClass,
    settings::OnPoison,
};

/// Rows of a topic that wait to be probed at most, before the topic is paused; and rows of one
/// fetch of a slow topic that are probed together at most.
const PROBED_ROWS_MAX: usize = 500;

/// Bytes of the rows of a topic that are probed or wait for it, from which on no others are looked
/// up.
const PROBED_TOPIC_BYTES_MAX: usize = 4 << 20;
/// Such bytes of all topics.
const PROBED_BYTES_MAX: usize = 16 << 20;

/// Rows to read by identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lookup {
    topic: TopicIndex,
    class: ProblemClass,
    purpose: LookupPurpose,
    pub rows: Vec<RowIdentity>,
}

impl Lookup {
    /// Looks up the rows of rejected batches of a topic.
    fn candidates(topic: TopicIndex, candidates: CandidateRows) -> Self {
        Self {
            topic,
            class: candidates.class,
            purpose: LookupPurpose::Candidates,
            rows: candidates.rows.into_iter().collect(),
        }
    }

    /// Looks up the lowest row of a topic that failed with `class`.
    fn head(topic: TopicIndex, class: ProblemClass, head: RowIdentity) -> Self {
        Self {
            topic,
            class,
            purpose: LookupPurpose::ProbeTopic,
            rows: vec![head],
        }
    }

    /// Looks up a row that is sent alone because of its size.
    fn alone(topic: TopicIndex, key: &Arc<str>, row: RowIdentity) -> Self {
        Self {
            topic,
            class: ProblemClass::RecordTooLarge,
            purpose: LookupPurpose::Alone(Arc::clone(key)),
            rows: vec![row],
        }
    }

    /// Looks up the row that a key was parked for.
    fn retry(topic: TopicIndex, key: &Arc<str>, head: RowIdentity) -> Self {
        Self {
            topic,
            class: ProblemClass::RecordRejected,
            purpose: LookupPurpose::RetryKey(Arc::clone(key)),
            rows: vec![head],
        }
    }
}

/// Why rows are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum LookupPurpose {
    /// The batch of the rows was rejected.
    Candidates,
    /// A topic failed: its lowest row shows whether it takes records again.
    ProbeTopic,
    /// This key was parked until now: its first row is probed before the others are sent.
    RetryKey(Arc<str>),
    /// The topic of the row may reject it because of its size. Later rows of this key wait.
    Alone(Arc<str>),
}

/// A row that Kafka rejected although it was sent alone, and what is to be done with it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RejectedRow {
    pub row: RowIdentity,
    pub topic: TopicIndex,
    pub key: Arc<str>,
    pub class: ProblemClass,
    /// How often the row was sent.
    pub attempts: u32,
    pub disposition: Disposition,
    /// Why it was not sent at all; `None` if it was.
    pub fault: Option<RowFault>,
    /// For the log.
    pub labels: EventLabels,
}

/// Class of a row that cannot become a record. Without a fault, it is larger than its topic takes.
pub(super) fn class_of(fault: Option<RowFault>) -> ProblemClass {
    match fault {
        Some(RowFault::NotUtf8(_)) => ProblemClass::RowUnreadable,
        Some(RowFault::TooLarge) | None => ProblemClass::RecordTooLarge,
    }
}

/// The column whose text cannot become UTF-8.
fn unreadable_column(fault: Option<RowFault>) -> Option<TextColumn> {
    match fault {
        Some(RowFault::NotUtf8(column)) => Some(column),
        Some(RowFault::TooLarge) | None => None,
    }
}

/// What happens to a row that Kafka rejected for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// The key of the row is parked: the row and all later rows of the key wait for a person.
    ParkKey,
    /// The row is moved to `outbox.dead_letter`; later rows of its key are sent.
    DeadLetter,
}

impl From<OnPoison> for Disposition {
    fn from(on_poison: OnPoison) -> Self {
        match on_poison {
            OnPoison::Block => Self::ParkKey,
            OnPoison::DeadLetter => Self::DeadLetter,
        }
    }
}

/// Why a key is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum KeyPause {
    /// Rows of the key are probed, or wait for their probe.
    Probing,
    /// The key is no longer parked, or has a row that is sent alone: this row is looked up, to be
    /// probed.
    Retrying,
    /// A row of the key was rejected; the disposition is not stored in the database yet.
    Rejected,
    /// The database lists the key as parked; this relay learned of it at `since`.
    Parked { since: Instant },
}

/// A key of which no rows are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PausedKey {
    lane: Lane,
    pause: KeyPause,
    /// The rejected row that it is paused for; `None` for a key that a person parked, and while
    /// candidates are probed.
    head: Option<RowIdentity>,
    /// The column of that row whose text cannot become UTF-8, if that is why.
    column: Option<TextColumn>,
    /// Why that row was rejected, once it was.
    class: Option<ProblemClass>,
}

impl PausedKey {
    /// A key of which rows are probed.
    fn probing(lane: Lane) -> Self {
        Self {
            lane,
            pause: KeyPause::Probing,
            head: None,
            column: None,
            class: None,
        }
    }

    /// A key that a person parked.
    fn parked(lane: Lane, since: Instant) -> Self {
        Self {
            pause: KeyPause::Parked { since },
            ..Self::probing(lane)
        }
    }

    fn is_parked(&self) -> bool {
        matches!(self.pause, KeyPause::Parked { .. })
    }
}

/// Paused keys by topic; a topic without any has no entry.
type PausedKeys = BTreeMap<TopicIndex, BTreeMap<Arc<str>, PausedKey>>;

/// Rows of batches of one topic that were rejected, until they are looked up.
#[derive(Clone)]
#[cfg_attr(test, derive(Hash))]
struct CandidateRows {
    class: ProblemClass,
    rows: BTreeSet<RowIdentity>,
}

impl CandidateRows {
    /// No rows yet, of a topic with a batch that was rejected with `class`.
    fn new(class: ProblemClass) -> Self {
        Self {
            class,
            rows: BTreeSet::new(),
        }
    }
}

/// Everything about rejected records.
#[derive(Clone, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Isolation {
    bisect: Bisect,
    candidates: BTreeMap<TopicIndex, CandidateRows>,
    /// Lowest row of each topic that failed, with which the topic is probed.
    heads: BTreeMap<TopicIndex, RowIdentity>,
    lookups: VecDeque<Lookup>,
    paused: PausedKeys,
    /// Whether the keys that are parked here are those that the database listed last.
    parked_as_listed: bool,
    rejected: VecDeque<RejectedRow>,
    /// Rows of slow topics from the fetch that is being accepted.
    slow_rows: BTreeMap<TopicIndex, Vec<OutboxRow>>,
    /// Bytes of a batch that was too large.
    oversized_batch: Option<usize>,
}

impl Isolation {
    /// Whether the row in a slot is with the probe producer.
    pub(super) fn is_probed(&self, slot: Slot) -> bool {
        self.bisect.is_probed(slot)
    }

    /// Which producer has the row in a slot; `None` if it is not probed.
    pub(super) fn probe_kind(&self, slot: Slot) -> Option<ProbeKind> {
        self.bisect.kind_of(slot)
    }

    /// Rows that are with the probe producer.
    pub(super) fn probed_rows(&self) -> impl Iterator<Item = &OutboxRow> {
        self.bisect.probed_rows()
    }

    /// Whether enough rows of a topic wait to be probed: more would only take memory.
    pub(super) fn has_enough_candidates(&self, topic: TopicIndex) -> bool {
        self.waiting_rows(topic) >= PROBED_ROWS_MAX
            || self.bisect.candidate_bytes(topic) >= PROBED_TOPIC_BYTES_MAX
    }

    /// Whether the rows that wait to be probed are so large that no more are looked up.
    fn has_enough_bytes(&self, topic: TopicIndex) -> bool {
        let (of_topic, of_all) = self.bisect.bytes(topic);
        of_topic >= PROBED_TOPIC_BYTES_MAX || of_topic > 0 && of_all >= PROBED_BYTES_MAX
    }

    /// Pauses the key of a row that is sent alone, and looks the row up.
    pub(super) fn send_alone(&mut self, topic: TopicIndex, row: &OutboxRow) -> Arc<str> {
        let identity = row.identity();
        let paused = PausedKey {
            pause: KeyPause::Retrying,
            head: Some(identity),
            ..PausedKey::probing(row.lane)
        };
        let key = self.pause_key(topic, row.key(), paused);
        self.lookups.push_back(Lookup::alone(topic, &key, identity));
        key
    }

    /// Number of rows of a topic that wait for their probe.
    pub(super) fn waiting_rows(&self, topic: TopicIndex) -> usize {
        self.bisect.waiting_rows(topic)
    }

    /// Whether any key is paused.
    pub(super) fn any_key_is_paused(&self) -> bool {
        !self.paused.is_empty()
    }

    /// Number of paused keys.
    pub(super) fn paused_keys_count(&self) -> usize {
        self.paused.values().map(BTreeMap::len).sum()
    }

    /// The key, if it is paused.
    pub(super) fn paused_key(&self, topic: TopicIndex, key: &str) -> Option<Arc<str>> {
        let (key, _) = self.paused.get(&topic)?.get_key_value(key)?;
        Some(Arc::clone(key))
    }

    /// All paused keys, each with the name of its topic.
    pub(super) fn paused_keys<'a>(
        &self,
        name: impl Fn(TopicIndex) -> &'a str,
    ) -> Vec<(String, String)> {
        let mut paused = Vec::new();
        for (topic, keys) in &self.paused {
            for key in keys.keys() {
                paused.push((name(*topic).to_owned(), key.to_string()));
            }
        }
        paused
    }

    /// Whether the database lists a key as parked.
    pub(super) fn is_parked(&self, topic: TopicIndex, key: &str) -> bool {
        self.paused
            .get(&topic)
            .and_then(|keys| keys.get(key))
            .is_some_and(PausedKey::is_parked)
    }

    /// Whether the database lists any key as parked.
    pub(super) fn any_key_is_parked(&self) -> bool {
        self.paused_values().any(PausedKey::is_parked)
    }

    /// Whether any key is paused for another reason than that it is parked.
    pub(super) fn any_key_is_probed(&self) -> bool {
        !self.paused_values().all(PausedKey::is_parked)
    }

    /// Number of keys that the database lists as parked in some lanes.
    pub(super) fn parked_keys_count(&self, lanes: &[Lane]) -> usize {
        let of_lanes = self.paused_values().filter(|key| lanes.contains(&key.lane));
        of_lanes.filter(|paused| paused.is_parked()).count()
    }

    /// All paused keys, without their names.
    fn paused_values(&self) -> impl Iterator<Item = &PausedKey> {
        self.paused.values().flat_map(BTreeMap::values)
    }

    /// Adds a row of a rejected batch to those that are looked up.
    fn add_candidate(&mut self, returned: ReturnedRow, class: ProblemClass) {
        let candidates = self.candidates.entry(returned.topic);
        let candidates = candidates.or_insert_with(|| CandidateRows::new(class));
        candidates.rows.insert(returned.row);
    }

    /// Remembers a row with which its topic failed, if it is the lowest one.
    fn note_head(&mut self, returned: ReturnedRow) {
        let ReturnedRow { row, topic } = returned;
        let head = self.heads.entry(topic).or_insert(row);
        if row.id < head.id {
            *head = row;
        }
    }

    /// Pauses a key, or changes why it is paused.
    fn pause_key(&mut self, topic: TopicIndex, key: &str, paused: PausedKey) -> Arc<str> {
        let keys = self.paused.entry(topic).or_default();
        let key = match keys.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::from(key),
        };
        keys.insert(Arc::clone(&key), paused);
        key
    }

    /// Records that the key of a rejected row is parked.
    fn on_row_parked(&mut self, rejected: &RejectedRow, now: Instant) {
        // A person may have ended it already: then the list has not changed.
        self.parked_as_listed = false;
        let row = rejected.row;
        let paused = PausedKey {
            head: Some(row),
            column: unreadable_column(rejected.fault),
            class: Some(rejected.class),
            ..PausedKey::parked(row.lane, now)
        };
        self.pause_key(rejected.topic, &rejected.key, paused);
    }

    /// Records that the first row of a retried key was looked up. The pause of the key ends with
    /// its probe, or now if the row does not exist. Returns whether the key is still retried.
    fn on_retry_looked_up(&mut self, topic: TopicIndex, key: &str) -> bool {
        let paused = self.paused_key_mut(topic, key);
        let paused = paused.filter(|paused| paused.pause == KeyPause::Retrying);
        let is_retried = paused.is_some();
        if let Some(paused) = paused {
            paused.pause = KeyPause::Probing;
        }
        is_retried
    }

    fn paused_key_mut(&mut self, topic: TopicIndex, key: &str) -> Option<&mut PausedKey> {
        self.paused.get_mut(&topic)?.get_mut(key)
    }

    /// Retries keys that are no longer parked. The row that a key was parked for is looked up, to
    /// be probed first; keys without such a row are removed, and returned.
    fn retry_keys(
        &mut self,
        is_over: impl Fn(TopicIndex, &str, PausedKey) -> bool,
    ) -> Vec<Excluded> {
        for (topic, keys) in &mut self.paused {
            for (key, paused) in keys.iter_mut() {
                if let Some(head) = paused.head
                    && is_over(*topic, key, *paused)
                {
                    paused.pause = KeyPause::Retrying;
                    self.lookups.push_back(Lookup::retry(*topic, key, head));
                }
            }
        }
        remove_keys(&mut self.paused, is_over)
    }

    /// Removes keys of which no row is probed any more, and returns them.
    fn end_probed_keys(&mut self) -> Vec<Excluded> {
        remove_keys(&mut self.paused, |topic, key, paused| {
            paused.pause == KeyPause::Probing && !self.bisect.has_key(topic, key)
        })
    }

    /// Adds a fetched row of a slow topic to those that are probed, unless its key is paused
    /// already. Returns the key, which is paused from now on in any case.
    pub(super) fn add_slow_row(&mut self, topic: TopicIndex, row: OutboxRow) -> Arc<str> {
        if let Some(key) = self.paused_key(topic, row.key())
            && !self.is_key_slow(topic, row.key())
        {
            return key;
        }
        let key = self.pause_key(topic, row.key(), PausedKey::probing(row.lane));
        let waiting = self.slow_rows.entry(topic).or_default();
        // A row beyond the limit is read again when the pause of its key ends.
        let bytes: usize = waiting.iter().map(OutboxRow::bytes).sum();
        if waiting.len() < PROBED_ROWS_MAX && bytes < PROBED_TOPIC_BYTES_MAX {
            waiting.push(row);
        }
        key
    }

    /// Whether the fetch that is being accepted brought another row of this key of a slow topic.
    fn is_key_slow(&self, topic: TopicIndex, key: &str) -> bool {
        let mut waiting = self.slow_rows.get(&topic).into_iter().flatten();
        waiting.any(|row| row.key() == key)
    }

    /// Queues the rows of slow topics for their probes. Returns whether there are any.
    pub(super) fn probe_slow_rows(&mut self) -> bool {
        let any = self.slow_rows.values().any(|rows| !rows.is_empty());
        for (topic, rows) in std::mem::take(&mut self.slow_rows) {
            self.bisect.add_candidates(topic, None, rows);
        }
        any
    }
}

/// Removes keys for which `is_over` holds, and returns them.
fn remove_keys(
    paused: &mut PausedKeys,
    is_over: impl Fn(TopicIndex, &str, PausedKey) -> bool,
) -> Vec<Excluded> {
    let mut removed = Vec::new();
    for (topic, keys) in paused.iter_mut() {
        for (key, _) in keys.extract_if(.., |key, paused| is_over(*topic, key, *paused)) {
            removed.push(Excluded::Key(*topic, key));
        }
    }
    paused.retain(|_, keys| !keys.is_empty());
    removed
}
