//! Records that the brokers refuse: suspects are looked up, tried on a producer of their own, and
//! judged; only their keys rest meanwhile. Pure.
//!
//! ```text
//!   refused -> topic rests until all its reports are in -> look its rows up -> their keys rest, the topic flows -> trials
//!           -> culprit: verdict (park its key, or move the row to dead_letter)      -> innocent: its key flows again
//!   topic failed -> rests, longer each time -> look its head row up -> trial -> flows again, or rests on
//! ```

mod bisect;
mod candidates;
mod disposition;
mod probes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::{
    outbox::{Parked, ParkedKey},
    relay::core::{
        in_flight::RowIdentity,
        isolation::bisect::{Ended, Finding, Trials},
    },
    settings::OnPoison,
};

/// Rows to look up by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lookup {
    topic: TopicIndex,
    class: ProblemClass,
    purpose: Purpose,
    pub rows: Vec<RowIdentity>,
}

/// Why rows are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    /// Their batch was refused.
    Suspects,
    /// The first row of a topic that failed: it shows whether the topic takes records again.
    Topic,
    /// The first row of a key that was parked until now.
    Retry(Arc<str>),
}

/// A row that Kafka rejected although it was sent alone, and what is to be done with it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RejectedRow {
    pub row: RowIdentity,
    pub topic: TopicIndex,
    pub key: Arc<str>,
    pub class: ProblemClass,
    pub attempts: u32,
    pub disposition: Disposition,
}

/// What happens to a row that Kafka rejected for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// Its key is parked: the row and all later rows of the key wait for a person.
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

/// Why a key rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rest {
    /// Rows of it are on trial, or wait for it.
    OnTrial,
    /// Parked no more; its first row is looked up, to be tried.
    Retried,
    /// Judged; the database does not know yet.
    Judged,
    /// The database says so; since when we know.
    Parked { since: Instant },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct RestingKey {
    lane: u8,
    rest: Rest,
    /// The row that it rests for; a key that a person parked has none.
    head: Option<RowIdentity>,
}

impl RestingKey {
    fn is_parked(&self) -> bool {
        matches!(self.rest, Rest::Parked { .. })
    }
}

/// Keys that rest, by topic; a topic without any has no entry.
type Keys = BTreeMap<TopicIndex, BTreeMap<Arc<str>, RestingKey>>;

/// Rows of a slow topic that go on trial together.
const SLOW_ROWS_MAX: usize = 500;

/// Everything about refused records.
#[derive(Clone, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Isolation {
    trials: Trials,
    /// Rows of refused batches, until they are looked up.
    suspects: BTreeMap<TopicIndex, (ProblemClass, BTreeSet<RowIdentity>)>,
    /// Lowest row of each topic that failed: what it is tried with.
    heads: BTreeMap<TopicIndex, RowIdentity>,
    lookups: VecDeque<Lookup>,
    keys: Keys,
    verdicts: VecDeque<RejectedRow>,
    /// Rows of slow topics from the fetch that is being looked at.
    slow_rows: BTreeMap<TopicIndex, Vec<OutboxRow>>,
    /// A batch of so many bytes was too large.
    too_large: Option<usize>,
}

impl Isolation {
    pub(super) fn is_on_trial(&self, slot: Slot) -> bool {
        self.trials.holds(slot)
    }

    /// Rows that are on trial now.
    pub(super) fn on_trial(&self) -> impl Iterator<Item = &OutboxRow> {
        self.trials.under_way()
    }

    /// Whether so many rows of a topic wait for their trial that more would only take memory.
    pub(super) fn has_enough_to_try(&self, topic: TopicIndex) -> bool {
        self.waiting(topic) >= SLOW_ROWS_MAX
    }

    pub(super) fn waiting(&self, topic: TopicIndex) -> usize {
        self.trials.waiting(topic)
    }

    pub(super) fn any_key_rests(&self) -> bool {
        !self.keys.is_empty()
    }

    pub(super) fn resting_key(&self, topic: TopicIndex, key: &str) -> Option<Arc<str>> {
        self.keys
            .get(&topic)?
            .get_key_value(key)
            .map(|(key, _)| Arc::clone(key))
    }

    pub(super) fn resting_keys<'a>(
        &self,
        name: impl Fn(TopicIndex) -> &'a str,
    ) -> Vec<(String, String)> {
        let keys = self
            .keys
            .iter()
            .flat_map(|(topic, keys)| keys.keys().map(move |key| (*topic, key)));
        keys.map(|(topic, key)| (name(topic).to_owned(), key.to_string()))
            .collect()
    }

    pub(super) fn is_parked(&self, topic: TopicIndex, key: &str) -> bool {
        self.keys
            .get(&topic)
            .and_then(|keys| keys.get(key))
            .is_some_and(RestingKey::is_parked)
    }

    /// Keys that the database says are parked.
    pub(super) fn parked(&self) -> impl Iterator<Item = (TopicIndex, &str)> {
        let keys = self.keys.iter().flat_map(|(topic, keys)| {
            keys.iter()
                .map(move |(key, resting)| (*topic, key, resting))
        });
        keys.filter(|(_, _, resting)| resting.is_parked())
            .map(|(topic, key, _)| (topic, &**key))
    }

    fn rest(&mut self, topic: TopicIndex, key: &str, resting: RestingKey) -> Arc<str> {
        let keys = self.keys.entry(topic).or_default();
        let key = keys
            .get_key_value(key)
            .map_or_else(|| Arc::from(key), |(key, _)| Arc::clone(key));
        keys.insert(Arc::clone(&key), resting);
        key
    }

    /// The first row of a retried key was looked up: with its trial, or without a row, its rest
    /// ends.
    fn is_retried(&mut self, topic: TopicIndex, key: &str) {
        let resting = self.keys.get_mut(&topic).and_then(|keys| keys.get_mut(key));
        if let Some(resting) = resting.filter(|resting| resting.rest == Rest::Retried) {
            resting.rest = Rest::OnTrial;
        }
    }

    /// Keys for which `over` holds are parked no more: the row that one was parked for is tried
    /// first, any other flows again.
    fn retry(&mut self, over: impl Fn(TopicIndex, &str, RestingKey) -> bool) -> Vec<Excluded> {
        for (topic, keys) in &mut self.keys {
            for (key, resting) in keys.iter_mut() {
                if let Some(head) = resting.head
                    && over(*topic, key, *resting)
                {
                    resting.rest = Rest::Retried;
                    let purpose = Purpose::Retry(Arc::clone(key));
                    self.lookups.push_back(Lookup {
                        topic: *topic,
                        class: ProblemClass::RecordRejected,
                        purpose,
                        rows: vec![head],
                    });
                }
            }
        }
        end_rest(&mut self.keys, over)
    }

    /// Takes out keys of which nothing is on trial any more.
    fn end_trials(&mut self) -> Vec<Excluded> {
        let Self { keys, trials, .. } = self;
        end_rest(keys, |topic, key, resting| {
            resting.rest == Rest::OnTrial && !trials.has_key(topic, key)
        })
    }

    /// A fetched row of a slow topic goes on trial, unless its key rests already. Returns the key,
    /// which rests now in any case.
    pub(super) fn take_slowly(&mut self, topic: TopicIndex, row: OutboxRow) -> Arc<str> {
        let resting = self.resting_key(topic, row.key());
        let waiting = self.slow_rows.entry(topic).or_default();
        if let Some(key) = resting
            && !waiting.iter().any(|other| other.key() == row.key())
        {
            return key;
        }
        let has_room = waiting.len() < SLOW_ROWS_MAX;
        let key = self.rest(
            topic,
            row.key(),
            RestingKey {
                lane: row.lane,
                rest: Rest::OnTrial,
                head: None,
            },
        );
        if has_room {
            self.slow_rows.entry(topic).or_default().push(row);
        }
        key
    }

    /// Sends the rows that were taken slowly to their trials. Returns whether there are any.
    pub(super) fn try_slow_rows(&mut self) -> bool {
        let slow_rows = std::mem::take(&mut self.slow_rows);
        let any = slow_rows.values().any(|rows| !rows.is_empty());
        for (topic, rows) in slow_rows {
            self.trials.suspect(topic, None, rows);
        }
        any
    }
}

/// Takes out keys for which `ended` holds.
fn end_rest(
    keys: &mut Keys,
    ended: impl Fn(TopicIndex, &str, RestingKey) -> bool,
) -> Vec<Excluded> {
    let mut flowing = Vec::new();
    for (topic, keys) in keys.iter_mut() {
        let gone = keys.extract_if(.., |key, resting| ended(*topic, key, *resting));
        flowing.extend(gone.map(|(key, _)| Excluded::Key(*topic, key)));
    }
    keys.retain(|_, keys| !keys.is_empty());
    flowing
}
