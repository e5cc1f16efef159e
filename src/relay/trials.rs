//! Which of several records spoilt a batch: suspects are tried on a producer of their own, halved
//! until one fails alone. Pure.
//!
//! The brokers judge batches, so the reports of a refused batch blame all of its records. Its rows
//! come here; meanwhile their keys rest and everything else flows. Of each topic one trial is under
//! way at a time, in the order of the rows, so that a key's rows stay in order, and a partition
//! that does not answer holds up no other topic's trials.

use std::collections::{BTreeMap, VecDeque};

use super::window::{Slot, TopicIndex};
use crate::{outbox::OutboxRow, report::ProblemClass};

/// Why rows are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    /// One of them is bad, or their batch was; the number names the suspicion.
    Suspicion(u32),
    /// Whether their topic takes records again.
    Topic,
}

/// Rows of one topic that are tried together.
#[derive(Clone)]
#[cfg_attr(test, derive(Hash))]
pub struct Group {
    pub topic: TopicIndex,
    pub rows: Vec<OutboxRow>,
    purpose: Purpose,
    /// How often these rows have failed.
    attempts: u32,
}

impl Group {
    /// The same with other rows.
    #[must_use]
    pub fn with(&self, rows: Vec<OutboxRow>) -> Self {
        Self { rows, ..*self }
    }
}

/// A batch that was refused, while its rows are being tried.
#[derive(Clone, Copy, Debug, Hash)]
struct Suspicion {
    topic: TopicIndex,
    /// Of the smallest batch that was refused for being too large.
    too_large: Option<usize>,
    /// A row was to blame, or not all rows were tried.
    batch_is_innocent: bool,
}

/// How one record of a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    Published,
    /// It was refused, or it stood in a batch that was.
    Refused(ProblemClass),
    /// Its topic failed.
    TopicFailed,
    /// Thrown out with the producer.
    Purged,
}

/// What a trial showed.
#[derive(Clone, PartialEq)]
pub enum Finding {
    /// This row was refused although it was sent alone.
    Culprit {
        topic: TopicIndex,
        row: Box<OutboxRow>,
        class: ProblemClass,
        attempts: u32,
    },
    /// A batch of so many bytes was refused, but none of its rows is: the batch was too large.
    BatchTooLarge { topic: TopicIndex, bytes: usize },
    /// The topic takes records.
    TopicWorks(TopicIndex),
}

#[derive(Clone)]
#[cfg_attr(test, derive(Hash))]
struct Trial {
    group: Group,
    slots: BTreeMap<Slot, usize>,
    ends: Vec<Option<Ended>>,
}

/// Rows on trial, and those that wait for theirs.
#[derive(Clone, Default)]
#[cfg_attr(test, derive(Hash))]
pub struct Trials {
    queue: VecDeque<Group>,
    under_way: BTreeMap<TopicIndex, Trial>,
    suspicions: BTreeMap<u32, Suspicion>,
    last: u32,
}

impl Trials {
    /// Whether nothing is on trial, or waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.under_way.is_empty()
    }

    #[must_use]
    pub fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Rows whose trials have not ended.
    pub fn under_way(&self) -> impl Iterator<Item = &OutboxRow> {
        let rows = self
            .under_way
            .values()
            .flat_map(|trial| trial.group.rows.iter().zip(&trial.ends));
        rows.filter(|(_, end)| end.is_none()).map(|(row, _)| row)
    }

    /// How many rows of a topic wait for their trial.
    #[must_use]
    pub fn waiting(&self, topic: TopicIndex) -> usize {
        self.queue
            .iter()
            .filter(|group| group.topic == topic)
            .map(|group| group.rows.len())
            .sum()
    }

    /// Rows of a batch that was refused, or of a topic where that is likely; by lane and id.
    pub fn suspect(
        &mut self,
        topic: TopicIndex,
        class: Option<ProblemClass>,
        rows: Vec<OutboxRow>,
    ) {
        if rows.is_empty() {
            return;
        }
        self.last += 1;
        self.suspicions.insert(
            self.last,
            Suspicion {
                topic,
                too_large: None,
                batch_is_innocent: false,
            },
        );
        let purpose = Purpose::Suspicion(self.last);
        if let Some(class) = class {
            self.was_refused(purpose, class, &rows);
        }
        self.queue.push_back(Group {
            topic,
            rows,
            purpose,
            attempts: u32::from(class.is_some()),
        });
    }

    /// A row that tells whether its topic takes records again.
    pub fn try_topic(&mut self, topic: TopicIndex, row: OutboxRow) {
        self.queue.push_back(Group {
            topic,
            rows: vec![row],
            purpose: Purpose::Topic,
            attempts: 0,
        });
    }

    /// The next rows to send, in order, of a topic that `may_go` and of which no trial is under
    /// way. [`Self::began`] or [`Self::postpone`] must follow.
    pub fn next_group(&mut self, may_go: impl Fn(TopicIndex) -> bool) -> Option<Group> {
        let next = self
            .queue
            .iter()
            .position(|group| may_go(group.topic) && !self.under_way.contains_key(&group.topic))?;
        self.queue.remove(next)
    }

    /// The rows of a group were taken into the window, in these slots.
    pub fn began(&mut self, group: Group, slots: &[Slot]) {
        let ends = vec![None; group.rows.len()];
        let slots = slots
            .iter()
            .enumerate()
            .map(|(at, slot)| (*slot, at))
            .collect();
        self.under_way
            .insert(group.topic, Trial { group, slots, ends });
    }

    /// There was no room for these: later.
    pub fn postpone(&mut self, group: Group) {
        self.queue.push_front(group);
    }

    /// Whether the record in this slot is on trial. Once it has ended its slot may carry another
    /// row, which is not.
    #[must_use]
    pub fn holds(&self, slot: Slot) -> bool {
        self.trial_of(slot).is_some()
    }

    fn trial_of(&self, slot: Slot) -> Option<TopicIndex> {
        let holds = |trial: &Trial| {
            trial
                .slots
                .get(&slot)
                .is_some_and(|at| trial.ends[*at].is_none())
        };
        self.under_way
            .iter()
            .find(|(_, trial)| holds(trial))
            .map(|(topic, _)| *topic)
    }

    /// Whether a row of this key is on trial, or waits.
    #[must_use]
    pub fn has_key(&self, topic: TopicIndex, key: &str) -> bool {
        let waiting = self.queue.iter().filter(|group| group.topic == topic);
        waiting
            .chain(self.under_way.get(&topic).map(|trial| &trial.group))
            .any(|group| group.rows.iter().any(|row| row.key() == key))
    }

    /// Drops waiting rows. Returns the topics whose row was to tell whether they take records
    /// again.
    #[must_use]
    pub fn drop_where(
        &mut self,
        unwanted: impl Fn(TopicIndex, &OutboxRow) -> bool,
    ) -> Vec<TopicIndex> {
        for group in &mut self.queue {
            let before = group.rows.len();
            group.rows.retain(|row| !unwanted(group.topic, row));
            if group.rows.len() < before {
                acquit_batch(&mut self.suspicions, group.purpose);
            }
        }
        let is_untried = |group: &&Group| group.rows.is_empty() && group.purpose == Purpose::Topic;
        let untried = self
            .queue
            .iter()
            .filter(is_untried)
            .map(|group| group.topic)
            .collect();
        self.queue.retain(|group| !group.rows.is_empty());
        untried
    }

    /// A record on trial ended. Returns what its trial showed, once all of its records have ended.
    pub fn ended(&mut self, slot: Slot, end: Ended) -> Option<Vec<Finding>> {
        let topic = self.trial_of(slot)?;
        let trial = self.under_way.get_mut(&topic)?;
        trial.ends[trial.slots[&slot]] = Some(end);
        if trial.ends.iter().any(Option::is_none) {
            return None;
        }
        let trial = self.under_way.remove(&topic)?;
        Some(self.conclude(trial))
    }

    fn conclude(&mut self, trial: Trial) -> Vec<Finding> {
        let Trial {
            group:
                Group {
                    topic,
                    rows,
                    purpose,
                    attempts,
                },
            ends,
            ..
        } = trial;
        let (mut refused, mut purged, mut findings) = (Vec::new(), Vec::new(), Vec::new());
        let (mut refusal, mut topic_failed, mut works) =
            (ProblemClass::RecordRejected, false, false);
        for (row, end) in rows.into_iter().zip(ends.into_iter().flatten()) {
            match end {
                Ended::Published => works = true,
                Ended::Refused(class) => {
                    (works, refusal) = (true, class);
                    refused.push(row);
                }
                Ended::TopicFailed => topic_failed = true,
                Ended::Purged => purged.push(row),
            }
        }
        if topic_failed {
            // Its rows are still in the table, and are found there once it works again.
            self.queue.retain(|group| group.topic != topic);
            self.suspicions
                .retain(|_, suspicion| suspicion.topic != topic);
        } else {
            if purpose == Purpose::Topic && works {
                findings.push(Finding::TopicWorks(topic));
            }
            let group = |rows, attempts| Group {
                topic,
                rows,
                purpose,
                attempts,
            };
            self.try_first(group(purged, attempts));
            self.was_refused(purpose, refusal, &refused);
            if refused.len() > 1 {
                let second = refused.split_off(refused.len() / 2);
                self.try_first(group(second, attempts + 1));
                self.try_first(group(refused, attempts + 1));
            } else if let Some(row) = refused.pop() {
                acquit_batch(&mut self.suspicions, purpose);
                findings.push(Finding::Culprit {
                    topic,
                    row: Box::new(row),
                    class: refusal,
                    attempts: attempts + 1,
                });
            }
        }
        findings.extend(self.closed_suspicions());
        findings
    }

    fn was_refused(&mut self, purpose: Purpose, class: ProblemClass, rows: &[OutboxRow]) {
        let bytes: usize = rows.iter().map(OutboxRow::bytes).sum();
        if let Purpose::Suspicion(number) = purpose
            && class == ProblemClass::RecordTooLarge
            && !rows.is_empty()
            && let Some(suspicion) = self.suspicions.get_mut(&number)
        {
            suspicion.too_large = Some(suspicion.too_large.map_or(bytes, |known| known.min(bytes)));
        }
    }

    fn try_first(&mut self, group: Group) {
        if !group.rows.is_empty() {
            self.queue.push_front(group);
        }
    }

    /// Suspicions without a row left to try. A batch that was too large although none of its rows
    /// is was itself too large.
    fn closed_suspicions(&mut self) -> Vec<Finding> {
        let (queue, under_way) = (&self.queue, &self.under_way);
        let groups = || {
            queue
                .iter()
                .chain(under_way.values().map(|trial| &trial.group))
        };
        let is_open =
            |number: &u32| groups().any(|group| group.purpose == Purpose::Suspicion(*number));
        let closed: Vec<Suspicion> = self
            .suspicions
            .extract_if(.., |number, _| !is_open(number))
            .map(|(_, suspicion)| suspicion)
            .collect();
        let too_large = |suspicion: Suspicion| {
            let bytes = suspicion
                .too_large
                .filter(|_| !suspicion.batch_is_innocent)?;
            Some(Finding::BatchTooLarge {
                topic: suspicion.topic,
                bytes,
            })
        };
        closed.into_iter().filter_map(too_large).collect()
    }
}

fn acquit_batch(suspicions: &mut BTreeMap<u32, Suspicion>, purpose: Purpose) {
    if let Purpose::Suspicion(number) = purpose
        && let Some(suspicion) = suspicions.get_mut(&number)
    {
        suspicion.batch_is_innocent = true;
    }
}

#[cfg(test)]
mod tests;
