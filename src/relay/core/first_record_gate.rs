//! The first record of a producer to each partition goes alone. Pure.
//!
//! Brokers notice a gap in a producer's records by their sequence numbers, but only in partitions
//! where they know the producer. Where they do not, they accept whatever comes first. librdkafka
//! has the next request ready before the answer to the first one is in, and sends it after a
//! rejection too. So if the first record of a producer in a partition is rejected, the next one
//! would overtake it (seen with Kafka 4.3 and librdkafka 2.12). Once a record is acknowledged, the
//! broker knows the producer, until `producer.id.expiration.ms` after the last one.

use std::time::{Duration, Instant};

use crate::{
    kafka::partition_of,
    relay::core::ids::{Slot, TopicIndex},
};

/// Time after the last acknowledged record for which a partition is taken to know the producer. Far
/// below `producer.id.expiration.ms`, which is a day by default.
const KNOWN_FOR: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, Default)]
struct Partition {
    /// When its last record was acknowledged.
    known_since: Option<Instant>,
    /// The record that goes alone.
    first_record: Option<Slot>,
    /// The last round in which a row was kept back; all later rows of that round must be, too.
    closed_in: Option<u64>,
}

impl Partition {
    /// Whether a record of this round may be sent.
    fn admit(&mut self, slot: Slot, round: u64, now: Instant) -> bool {
        let is_known = self.knows_producer(now);
        if !is_known && self.first_record.is_some() {
            // For the whole round: the report of the first record may come in the middle of it,
            // and a later row must not be sent before one that was kept back.
            self.closed_in = Some(round);
        }
        if self.closed_in == Some(round) {
            return false;
        }
        if !is_known {
            self.first_record = Some(slot);
        }
        true
    }

    /// Records how a record ended that was sent to this partition.
    fn on_ended(&mut self, slot: Slot, delivery: Delivery, now: Instant) {
        if delivery == Delivery::Acknowledged {
            self.known_since = Some(now);
        }
        if self.first_record == Some(slot) {
            self.first_record = None;
        }
    }

    fn knows_producer(&self, now: Instant) -> bool {
        self.known_since
            .is_some_and(|since| now.saturating_duration_since(since) < KNOWN_FOR)
    }
}

/// How a record ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Acknowledged,
    Failed,
}

/// Which partitions know one producer.
#[derive(Clone, Debug)]
pub(crate) struct FirstRecordGate {
    topics: Vec<Vec<Partition>>,
    /// Topic and partition of the record in a slot.
    slots: Vec<Option<(TopicIndex, usize)>>,
    /// Number of the round, which is a group of rows to send.
    round: u64,
}

impl FirstRecordGate {
    /// A producer that no partition knows; each topic has one partition until
    /// [`Self::on_partition_count`].
    pub(crate) fn new(topics: usize, slots: usize) -> Self {
        Self {
            topics: vec![vec![Partition::default()]; topics],
            slots: vec![None; slots],
            round: 0,
        }
    }

    /// Sets the number of partitions of a topic. When it changes, keys move to other partitions,
    /// and none of them counts as known.
    pub(crate) fn on_partition_count(&mut self, topic: TopicIndex, partitions: usize) {
        let (known, count) = (&mut self.topics[topic.index()], partitions.max(1));
        if known.len() != count {
            *known = vec![Partition::default(); count];
        }
    }

    /// Forgets all partitions: a new producer begins, which none of them knows.
    pub(crate) fn forget(&mut self) {
        for partitions in &mut self.topics {
            partitions.fill(Partition::default());
        }
    }

    /// Forgets the partitions of a topic that was deleted: created again, it knows no producer.
    pub(crate) fn forget_topic(&mut self, topic: TopicIndex) {
        self.topics[topic.index()].fill(Partition::default());
    }

    /// Begins a round: rows follow, in the order in which they are to be sent.
    pub(crate) fn begin_round(&mut self) {
        self.round += 1;
    }

    /// Whether a record may be sent now. A row that may not is read again, and with it all later
    /// rows of its partition in this round.
    pub(crate) fn may_send(
        &mut self,
        topic: TopicIndex,
        key: &str,
        slot: Slot,
        now: Instant,
    ) -> bool {
        let at = partition_of(key.as_bytes(), self.topics[topic.index()].len());
        let partition = &mut self.topics[topic.index()][at];
        let is_admitted = partition.admit(slot, self.round, now);
        if is_admitted {
            self.slots[slot.index()] = Some((topic, at));
        }
        is_admitted
    }

    /// Records how the record in a slot ended. Nothing happens if another producer has it.
    pub(crate) fn on_ended(&mut self, slot: Slot, delivery: Delivery, now: Instant) {
        if let Some(partition) = self.take_partition(slot) {
            partition.on_ended(slot, delivery, now);
        }
    }

    /// Forgets which record is in a slot, and returns its partition.
    fn take_partition(&mut self, slot: Slot) -> Option<&mut Partition> {
        let (topic, at) = self.slots[slot.index()].take()?;
        self.topics[topic.index()].get_mut(at)
    }
}

/// For the model: the slot of a first record is only a name, and rounds end in the step that begins
/// them.
#[cfg(test)]
impl std::hash::Hash for FirstRecordGate {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let Self {
            topics,
            slots: _,
            round: _,
        } = self;
        topics.iter().flatten().for_each(|partition| {
            (
                partition.known_since.is_some(),
                partition.first_record.is_some(),
            )
                .hash(state);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: TopicIndex = TopicIndex::new(0);

    fn round(first_record_gate: &mut FirstRecordGate, keys: &[&str], now: Instant) -> Vec<bool> {
        first_record_gate.begin_round();
        keys.iter()
            .enumerate()
            .map(|(slot, key)| first_record_gate.may_send(TOPIC, key, Slot::new(slot), now))
            .collect()
    }

    #[test]
    fn the_first_record_goes_alone_and_all_others_once_it_is_acknowledged() {
        let (mut first_record_gate, now) = (FirstRecordGate::new(1, 8), Instant::now());
        assert_eq!(
            round(&mut first_record_gate, &["a", "b", "a"], now),
            [true, false, false],
            "a topic of one partition"
        );
        first_record_gate.on_ended(Slot::new(0), Delivery::Acknowledged, now);
        assert_eq!(
            round(&mut first_record_gate, &["a", "b", "a"], now),
            [true, true, true]
        );
        first_record_gate.forget();
        assert_eq!(
            round(&mut first_record_gate, &["a", "b"], now),
            [true, false]
        );
        first_record_gate.on_ended(Slot::new(0), Delivery::Acknowledged, now);
        first_record_gate.forget_topic(TOPIC);
        assert_eq!(
            round(&mut first_record_gate, &["a", "b"], now),
            [true, false]
        );
    }

    #[test]
    fn a_row_that_waits_is_not_overtaken_in_its_round_by_one_that_comes_after_the_acknowledgement()
    {
        let (mut first_record_gate, now) = (FirstRecordGate::new(1, 8), Instant::now());
        first_record_gate.begin_round();
        assert!(first_record_gate.may_send(TOPIC, "a", Slot::new(0), now));
        assert!(!first_record_gate.may_send(TOPIC, "a", Slot::new(1), now));
        first_record_gate.on_ended(Slot::new(0), Delivery::Acknowledged, now);
        assert!(!first_record_gate.may_send(TOPIC, "a", Slot::new(2), now));
        assert_eq!(
            round(&mut first_record_gate, &["a", "a"], now),
            [true, true]
        );
    }

    #[test]
    fn a_rejected_first_record_leaves_its_place_to_another_and_partitions_do_not_wait_for_each_other()
     {
        let (mut first_record_gate, now) = (FirstRecordGate::new(1, 8), Instant::now());
        first_record_gate.on_partition_count(TOPIC, 6);
        let other = (0..)
            .map(|n| format!("b{n}"))
            .find(|key| partition_of(key.as_bytes(), 6) != partition_of(b"a", 6))
            .expect("one");
        assert_eq!(
            round(&mut first_record_gate, &["a", &other, "a", &other], now),
            [true, true, false, false]
        );
        first_record_gate.on_ended(Slot::new(0), Delivery::Failed, now);
        first_record_gate.on_ended(Slot::new(1), Delivery::Acknowledged, now);
        assert_eq!(
            round(&mut first_record_gate, &["a", "a", &other, &other], now),
            [true, false, true, true]
        );
    }

    #[test]
    fn a_partition_without_records_for_long_may_have_forgotten_the_producer() {
        let (mut first_record_gate, start) = (FirstRecordGate::new(1, 8), Instant::now());
        assert_eq!(round(&mut first_record_gate, &["a"], start), [true]);
        first_record_gate.on_ended(Slot::new(0), Delivery::Acknowledged, start);
        assert_eq!(
            round(&mut first_record_gate, &["a", "a"], start + KNOWN_FOR),
            [true, false]
        );
    }

    #[test]
    fn what_another_producer_had_in_a_slot_does_not_count() {
        let (mut main, mut probe, now) = (
            FirstRecordGate::new(1, 8),
            FirstRecordGate::new(1, 8),
            Instant::now(),
        );
        assert!(main.may_send(TOPIC, "a", Slot::new(0), now));
        probe.on_ended(Slot::new(0), Delivery::Acknowledged, now);
        assert_eq!(round(&mut probe, &["a", "a"], now), [true, false]);
    }
}
