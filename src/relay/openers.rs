//! The first record of a producer to each partition goes alone. Pure.
//!
//! Brokers notice a gap in a producer's records by their sequence numbers, but only in partitions
//! where they know the producer: where they do not, they take whatever comes first. librdkafka has
//! the next request ready before the answer to the first one is in, and sends it after a refusal
//! too. So a record that is the first of its producer in its partition, and is refused, would be
//! overtaken by the next one (seen with Kafka 4.3 and librdkafka 2.12). Once one is acknowledged
//! the broker knows the producer, for `producer.id.expiration.ms` after the last.

use std::time::{Duration, Instant};

use super::window::{Slot, TopicIndex};
use crate::kafka::partition_of;

/// After so long without an acknowledged record of ours a partition may have forgotten the
/// producer; a day is what brokers come with.
const KNOWN_FOR: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, Default)]
struct Partition {
    /// Its last acknowledged record.
    known_since: Option<Instant>,
    /// The record that goes alone.
    opener: Option<Slot>,
    /// The last round in which a row of it was left for later: all rows after it must be, too.
    closed_in: Option<u64>,
}

/// What the brokers know of one producer.
#[derive(Clone, Debug)]
pub(super) struct Openers {
    topics: Vec<Vec<Partition>>,
    /// Where the records of slots go.
    slots: Vec<Option<(TopicIndex, usize)>>,
    round: u64,
}

impl Openers {
    pub(super) fn new(topics: usize, slots: usize) -> Self {
        Self {
            topics: vec![vec![Partition::default()]; topics],
            slots: vec![None; slots],
            round: 0,
        }
    }

    /// The brokers name so many partitions of a topic. When that changes keys move.
    pub(super) fn partitions(&mut self, topic: TopicIndex, partitions: usize) {
        if self.topics[topic].len() != partitions.max(1) {
            self.topics[topic] = vec![Partition::default(); partitions.max(1)];
        }
    }

    /// A new producer takes over: no partition knows it.
    pub(super) fn forget(&mut self) {
        (0..self.topics.len()).for_each(|topic| self.forget_topic(topic));
    }

    /// A topic is gone: whoever makes it again knows nobody.
    pub(super) fn forget_topic(&mut self, topic: TopicIndex) {
        self.topics[topic].fill(Partition::default());
    }

    /// Rows follow, in the order in which they are to be sent.
    pub(super) fn begin_round(&mut self) {
        self.round += 1;
    }

    /// Whether a record may be sent now; a row that may not is read again, and with it all later
    /// ones of its partition.
    pub(super) fn may_send(
        &mut self,
        topic: TopicIndex,
        key: &str,
        slot: Slot,
        now: Instant,
    ) -> bool {
        let at = partition_of(key.as_bytes(), self.topics[topic].len());
        let partition = &mut self.topics[topic][at];
        let known = partition
            .known_since
            .is_some_and(|since| now.saturating_duration_since(since) < KNOWN_FOR);
        if !known && partition.opener.is_some() {
            partition.closed_in = Some(self.round);
        }
        if partition.closed_in == Some(self.round) {
            return false;
        }
        if !known {
            partition.opener = Some(slot);
        }
        self.slots[slot] = Some((topic, at));
        true
    }

    /// The record of a slot ended. Nothing happens for one that another producer has.
    pub(super) fn ended(&mut self, slot: Slot, acknowledged: bool, now: Instant) {
        let Some((topic, at)) = self.slots[slot].take() else {
            return;
        };
        let Some(partition) = self.topics[topic].get_mut(at) else {
            return;
        };
        if acknowledged {
            partition.known_since = Some(now);
        }
        if partition.opener == Some(slot) {
            partition.opener = None;
        }
    }
}

/// For the model: which slot is a partition's opener is only a name, and rounds end in the step
/// that begins them.
#[cfg(test)]
impl std::hash::Hash for Openers {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let Self {
            topics,
            slots: _,
            round: _,
        } = self;
        topics.iter().flatten().for_each(|partition| {
            (partition.known_since.is_some(), partition.opener.is_some()).hash(state)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(openers: &mut Openers, keys: &[&str], now: Instant) -> Vec<bool> {
        openers.begin_round();
        keys.iter()
            .enumerate()
            .map(|(slot, key)| openers.may_send(0, key, slot, now))
            .collect()
    }

    #[test]
    fn the_first_record_goes_alone_and_all_others_once_it_is_acknowledged() {
        let (mut openers, now) = (Openers::new(1, 8), Instant::now());
        assert_eq!(
            round(&mut openers, &["a", "b", "a"], now),
            [true, false, false],
            "a topic of one partition"
        );
        openers.ended(0, true, now);
        assert_eq!(
            round(&mut openers, &["a", "b", "a"], now),
            [true, true, true]
        );
        openers.forget();
        assert_eq!(round(&mut openers, &["a", "b"], now), [true, false]);
        openers.ended(0, true, now);
        openers.forget_topic(0);
        assert_eq!(round(&mut openers, &["a", "b"], now), [true, false]);
    }

    #[test]
    fn a_row_that_waits_is_not_overtaken_in_its_round_by_one_that_comes_after_the_acknowledgement()
    {
        let (mut openers, now) = (Openers::new(1, 8), Instant::now());
        openers.begin_round();
        assert!(openers.may_send(0, "a", 0, now));
        assert!(!openers.may_send(0, "a", 1, now));
        openers.ended(0, true, now);
        assert!(!openers.may_send(0, "a", 2, now));
        assert_eq!(round(&mut openers, &["a", "a"], now), [true, true]);
    }

    #[test]
    fn a_refused_opener_leaves_its_place_to_another_and_partitions_do_not_wait_for_each_other() {
        let (mut openers, now) = (Openers::new(1, 8), Instant::now());
        openers.partitions(0, 6);
        let other = (0..)
            .map(|n| format!("b{n}"))
            .find(|key| partition_of(key.as_bytes(), 6) != partition_of(b"a", 6))
            .expect("one");
        assert_eq!(
            round(&mut openers, &["a", &other, "a", &other], now),
            [true, true, false, false]
        );
        openers.ended(0, false, now);
        openers.ended(1, true, now);
        assert_eq!(
            round(&mut openers, &["a", "a", &other, &other], now),
            [true, false, true, true]
        );
    }

    #[test]
    fn a_partition_without_records_for_long_may_have_forgotten_the_producer() {
        let (mut openers, start) = (Openers::new(1, 8), Instant::now());
        assert_eq!(round(&mut openers, &["a"], start), [true]);
        openers.ended(0, true, start);
        assert_eq!(
            round(&mut openers, &["a", "a"], start + KNOWN_FOR),
            [true, false]
        );
    }

    #[test]
    fn what_another_producer_had_in_a_slot_does_not_count() {
        let (mut main, mut trial, now) = (Openers::new(1, 8), Openers::new(1, 8), Instant::now());
        assert!(main.may_send(0, "a", 0, now));
        trial.ended(0, true, now);
        assert_eq!(round(&mut trial, &["a", "a"], now), [true, false]);
    }
}
