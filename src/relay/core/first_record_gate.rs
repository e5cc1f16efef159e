//! The first record of a producer to each partition goes alone. Pure.
//!
//! Brokers notice a gap in a producer's records by their sequence numbers, but only in partitions
//! where they know the producer. Where they do not, they accept whatever comes first. librdkafka
//! has the next request ready before the answer to the first one is in, and sends it after a
//! rejection too. So if the first record of a producer in a partition is rejected, the next one
//! would overtake it (seen with Kafka 4.3 and librdkafka 2.12). Once a record is acknowledged, the
//! broker knows the producer, until `producer.id.expiration.ms` after the last one.
//!
//! A producer of several clients has a producer id for each, so a partition that changes its client
//! ([`partition_client`](crate::relay::core::partition_client)) begins with a single record again.
//! A client whose epoch librdkafka raises needs none: a broker that knows the old epoch takes the
//! new one from its first record on only, and refuses what comes behind a record that it rejected.

use std::time::{Duration, Instant};

use crate::{
    failpoints::{self, Bug},
    kafka::{ClientId, partition_of},
    relay::core::{
        ids::{Slot, TopicIndex},
        partition_client::{Choice, Delivery, PartitionClient},
    },
};

/// Time after the last acknowledged record for which a partition is taken to know the producer. Far
/// below `producer.id.expiration.ms`, which is a day by default.
const KNOWN_FOR: Duration = Duration::from_secs(600);

/// Distance of the clients of two topics' partitions with the same number.
const TOPIC_SPREAD: usize = 3;

/// 2^32 divided by the golden ratio.
const GOLDEN_RATIO_OF_2_32: u32 = 0x9E37_79B9;

#[derive(Clone, Copy, Debug, Default)]
struct Partition {
    client: PartitionClient,
    /// When its last record was acknowledged.
    known_since: Option<Instant>,
    /// The record that goes alone.
    first_record: Option<Slot>,
    /// The last round in which a row was kept back; all later rows of that round must be, too.
    closed_in: Option<u64>,
    /// When the last request was sent whose time was counted.
    counted: Option<Instant>,
}

impl Partition {
    /// The client for a record of this round; `None` if the record may not be sent. `wanted` is the
    /// client that the partition gets as soon as it may change.
    fn admit(
        &mut self,
        slot: Slot,
        round: u64,
        wanted: ClientId,
        now: Instant,
    ) -> Option<ClientId> {
        // For the whole round: the report of the first record may come in the middle of it, and a
        // later row must not be sent before one that was kept back.
        if self.closed_in == Some(round) {
            return None;
        }
        if self.client.waits_for(wanted) {
            self.closed_in = Some(round);
            return None;
        }
        let client = self.choose_client(wanted);
        if !self.knows_producer(now) {
            if self.first_record.is_some() {
                self.closed_in = Some(round);
                return None;
            }
            self.first_record = Some(slot);
        }
        self.client.on_sent();
        Some(client)
    }

    /// The client for the next record. One that is new to the partition is not known to its broker.
    fn choose_client(&mut self, wanted: ClientId) -> ClientId {
        match self.client.choose(wanted) {
            Choice::Same(client) => client,
            Choice::Other(client) => {
                self.known_since = None;
                client
            }
        }
    }

    /// Records how a record ended that was sent to this partition. Returns how long its request
    /// took, once for each request.
    fn on_ended(
        &mut self,
        slot: Slot,
        sent_at: Instant,
        delivery: Delivery,
        now: Instant,
    ) -> Option<Duration> {
        self.client.on_ended(delivery);
        if delivery == Delivery::Acknowledged {
            self.known_since = Some(now);
        }
        if self.first_record == Some(slot) {
            // It may have waited for a connection, so its time says little.
            self.first_record = None;
            return None;
        }
        self.request_time(sent_at, delivery, now)
    }

    /// Time from sending to acknowledgement, for the first record of those that were sent together.
    fn request_time(
        &mut self,
        sent_at: Instant,
        delivery: Delivery,
        now: Instant,
    ) -> Option<Duration> {
        if delivery == Delivery::Failed || self.counted == Some(sent_at) {
            return None;
        }
        self.counted = Some(sent_at);
        Some(now.saturating_duration_since(sent_at))
    }

    fn knows_producer(&self, now: Instant) -> bool {
        let is_recent = |since| now.saturating_duration_since(since) < KNOWN_FOR;
        self.known_since.is_some_and(is_recent) || failpoints::has(Bug::SecondRecordEarly)
    }

    /// Forgets that its broker knows the producer. The client stays as it is: records of it may be
    /// out.
    fn forget(&mut self) {
        *self = Self {
            client: self.client,
            ..Self::default()
        };
    }
}

/// Where a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Partition of the topic, from 0.
    pub partition: usize,
    /// Client of the main producer. The probe producer has only one.
    pub client: ClientId,
}

/// A record that a producer has.
#[derive(Clone, Copy, Debug)]
struct Sent {
    topic: TopicIndex,
    partition: usize,
    at: Instant,
}

/// Which partitions know one producer, and which of its clients each of them has.
#[derive(Clone, Debug)]
pub(crate) struct FirstRecordGate {
    topics: Vec<Vec<Partition>>,
    /// The record in each slot.
    slots: Vec<Option<Sent>>,
    /// Clients that partitions are spread over. Never empty.
    clients: Vec<ClientId>,
    /// Number of the round, which is a group of rows to send.
    round: u64,
}

impl FirstRecordGate {
    /// A producer with one client, that no partition knows; each topic has one partition until
    /// [`Self::on_partition_count`].
    pub(crate) fn new(topics: usize, slots: usize) -> Self {
        Self {
            topics: vec![vec![Partition::default()]; topics],
            slots: vec![None; slots],
            clients: vec![ClientId::FIRST],
            round: 0,
        }
    }

    /// Number of partitions of all topics.
    pub(crate) fn partitions(&self) -> usize {
        self.topics.iter().map(Vec::len).sum()
    }

    /// Sets the number of partitions of a topic. When it changes, keys move to other partitions,
    /// and none of them counts as known. Records that are out count for none of them any more: the
    /// producer is replaced before another record of the topic is sent. Returns whether it must be:
    /// whether it has sent records of the topic.
    pub(crate) fn on_partition_count(&mut self, topic: TopicIndex, partitions: usize) -> bool {
        let (known, count) = (&mut self.topics[topic.index()], partitions.max(1));
        if known.len() == count {
            return false;
        }
        let was_used = known.iter().any(|partition| partition.client.is_used());
        *known = vec![Partition::default(); count];
        for slot in &mut self.slots {
            slot.take_if(|sent| sent.topic == topic);
        }
        was_used
    }

    /// Forgets all partitions and all clients but the first: a new producer begins, which none of
    /// them knows, and of which nothing is out.
    pub(crate) fn forget(&mut self) {
        for partitions in &mut self.topics {
            partitions.fill(Partition::default());
        }
        self.clients = vec![ClientId::FIRST];
    }

    /// Forgets the partitions of a topic that was deleted: created again, it knows no producer.
    pub(crate) fn forget_topic(&mut self, topic: TopicIndex) {
        self.topics[topic.index()]
            .iter_mut()
            .for_each(Partition::forget);
    }

    /// Adds a client. Partitions move to it one by one, each when it may.
    pub(crate) fn add_client(&mut self, client: ClientId) {
        self.clients.push(client);
    }

    /// Takes the newest client away unless it is the only one: partitions leave it one by one.
    /// Returns it.
    pub(crate) fn remove_client(&mut self) -> Option<ClientId> {
        if self.clients.len() > 1 {
            self.clients.pop()
        } else {
            None
        }
    }

    /// Whether no partition needs a client that was taken away.
    pub(crate) fn is_client_free(&self, client: ClientId) -> bool {
        let mut partitions = self.topics.iter().flatten();
        partitions.all(|partition| !partition.client.needs(client))
    }

    /// Begins a round: rows follow, in the order in which they are to be sent.
    pub(crate) fn begin_round(&mut self) {
        self.round += 1;
    }

    /// Where a record goes; `None` if it may not be sent now. A row that may not is read again, and
    /// with it all later rows of its partition in this round.
    pub(crate) fn admit(
        &mut self,
        topic: TopicIndex,
        key: &str,
        slot: Slot,
        now: Instant,
    ) -> Option<Destination> {
        let partition = partition_of(key.as_bytes(), self.topics[topic.index()].len());
        let wanted = self.wanted_client(topic, partition);
        let client = self.topics[topic.index()][partition].admit(slot, self.round, wanted, now)?;
        self.slots[slot.index()] = Some(Sent {
            topic,
            partition,
            at: now,
        });
        Some(Destination { partition, client })
    }

    /// The client that a partition should have. Brokers lead the partitions of a topic in turn, so
    /// clients must not take turns in step with them: each should have partitions at each broker.
    /// Multiples of the golden ratio fall evenly, whichever brokers' partitions are taken out.
    fn wanted_client(&self, topic: TopicIndex, partition: usize) -> ClientId {
        let number = topic.index() * TOPIC_SPREAD + partition + 1;
        let fraction = (number as u32).wrapping_mul(GOLDEN_RATIO_OF_2_32);
        let client = (u64::from(fraction) * self.clients.len() as u64) >> 32;
        self.clients[client as usize]
    }

    /// Records how the record in a slot ended. Nothing happens if another producer has it. Returns
    /// how long its request took, once for each request.
    pub(crate) fn on_ended(
        &mut self,
        slot: Slot,
        delivery: Delivery,
        now: Instant,
    ) -> Option<Duration> {
        let sent = self.slots[slot.index()].take()?;
        let partition = self.topics[sent.topic.index()].get_mut(sent.partition)?;
        partition.on_ended(slot, sent.at, delivery, now)
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
            clients,
            round: _,
        } = self;
        clients.hash(state);
        topics.iter().flatten().for_each(|partition| {
            (
                partition.client,
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

    fn may_send(gate: &mut FirstRecordGate, key: &str, slot: usize, now: Instant) -> bool {
        gate.admit(TOPIC, key, Slot::new(slot), now).is_some()
    }

    fn round(first_record_gate: &mut FirstRecordGate, keys: &[&str], now: Instant) -> Vec<bool> {
        first_record_gate.begin_round();
        keys.iter()
            .enumerate()
            .map(|(slot, key)| may_send(first_record_gate, key, slot, now))
            .collect()
    }

    /// Brokers lead the partitions of a topic in turn.
    #[test]
    fn clients_have_partitions_at_each_broker() {
        for clients in 1..=8 {
            let mut gate = FirstRecordGate::new(1, 8);
            let mut newest = ClientId::FIRST;
            for _ in 1..clients {
                newest = newest.next();
                gate.add_client(newest);
            }
            for (partitions, at_least) in [(120, clients / 2), (1_200, clients)] {
                for brokers in 1..=12 {
                    let mut found = Vec::new();
                    for partition in (0..partitions).step_by(brokers) {
                        let client = gate.wanted_client(TOPIC, partition);
                        if !found.contains(&client) {
                            found.push(client);
                        }
                    }
                    assert!(
                        found.len() >= at_least,
                        "{} of {clients} clients, {brokers} brokers, {partitions} partitions",
                        found.len()
                    );
                }
            }
        }
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
        assert!(may_send(&mut first_record_gate, "a", 0, now));
        assert!(!may_send(&mut first_record_gate, "a", 1, now));
        first_record_gate.on_ended(Slot::new(0), Delivery::Acknowledged, now);
        assert!(!may_send(&mut first_record_gate, "a", 2, now));
        assert_eq!(
            round(&mut first_record_gate, &["a", "a"], now),
            [true, true]
        );
    }

    #[test]
    fn a_producer_must_be_replaced_only_if_keys_moved_that_it_sent_records_of() {
        let (mut gate, now) = (FirstRecordGate::new(2, 8), Instant::now());
        assert!(!gate.on_partition_count(TOPIC, 6), "nothing was sent");
        round(&mut gate, &["a"], now);
        assert!(!gate.on_partition_count(TOPIC, 6), "as many as before");
        assert!(
            !gate.on_partition_count(TopicIndex::new(1), 6),
            "another topic"
        );
        assert!(gate.on_partition_count(TOPIC, 7));
        round(&mut gate, &["a"], now);
        gate.forget();
        assert!(!gate.on_partition_count(TOPIC, 8), "a new producer");
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
        assert!(may_send(&mut main, "a", 0, now));
        probe.on_ended(Slot::new(0), Delivery::Acknowledged, now);
        assert_eq!(round(&mut probe, &["a", "a"], now), [true, false]);
    }

    #[test]
    fn a_partition_moves_to_an_added_client_when_it_may_and_begins_there_with_a_single_record() {
        let (mut gate, now) = (FirstRecordGate::new(1, 8), Instant::now());
        let other = ClientId::FIRST.next();
        let admit = |gate: &mut FirstRecordGate, slot| {
            let destination = gate.admit(TOPIC, "a", Slot::new(slot), now);
            destination.map(|destination| destination.client)
        };
        let acknowledge = |gate: &mut FirstRecordGate, slot| {
            gate.on_ended(Slot::new(slot), Delivery::Acknowledged, now);
        };
        assert_eq!(admit(&mut gate, 0), Some(ClientId::FIRST));
        acknowledge(&mut gate, 0);
        assert_eq!(admit(&mut gate, 1), Some(ClientId::FIRST));
        gate.add_client(other);
        assert_eq!(admit(&mut gate, 2), None, "a record is out");
        acknowledge(&mut gate, 1);
        assert_eq!(admit(&mut gate, 2), None, "a row of this round waits");
        gate.begin_round();
        assert_eq!(admit(&mut gate, 3), Some(other));
        assert_eq!(admit(&mut gate, 4), None, "its first record goes alone");
        acknowledge(&mut gate, 3);
        gate.begin_round();
        assert_eq!(
            (admit(&mut gate, 4), admit(&mut gate, 5)),
            (Some(other), Some(other))
        );
        assert_eq!(gate.remove_client(), Some(other));
        assert!(!gate.is_client_free(other));
        acknowledge(&mut gate, 4);
        acknowledge(&mut gate, 5);
        assert!(gate.is_client_free(other));
        assert_eq!(admit(&mut gate, 6), Some(ClientId::FIRST));
        assert_eq!(gate.remove_client(), None, "one is left");
    }

    #[test]
    fn the_time_of_a_request_counts_once_and_not_for_a_first_record() {
        let (mut gate, start) = (FirstRecordGate::new(1, 8), Instant::now());
        let later = start + Duration::from_millis(20);
        let mut ended = |slots: &[usize], delivery| {
            gate.begin_round();
            for slot in slots {
                gate.admit(TOPIC, "a", Slot::new(*slot), start);
            }
            slots
                .iter()
                .map(|slot| gate.on_ended(Slot::new(*slot), delivery, later))
                .collect::<Vec<_>>()
        };
        assert_eq!(ended(&[0], Delivery::Acknowledged), [None]);
        assert_eq!(
            ended(&[0, 1, 2], Delivery::Acknowledged),
            [Some(later - start), None, None]
        );
    }
}
