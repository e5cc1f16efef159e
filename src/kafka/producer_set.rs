//! Several strict producers that act as one: the clients of the main producer. The sender chooses
//! the client of each record, so that what holds for a producer holds for each partition: order,
//! and no gap.
//!
//! Why several: librdkafka puts one partition into a request, and an idempotent producer has at
//! most five requests under way per broker. With many partitions and a broker that is not next
//! door, one producer sends `5 / round trip` batches in a second, however few records they hold.

use std::time::Duration;

use crate::{
    failpoints::{self, Bug},
    kafka::{
        batch_limits::BatchLimits,
        delivery_error::DeliveryError,
        producer::{DeliveryReport, Producer, Record},
    },
};

/// A client of a set. Numbers are not used twice by one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u32);

impl ClientId {
    /// The client that a set begins with.
    pub const FIRST: Self = Self(0);

    /// The client that is added after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Producers that act as one. Dropping them blocks until their threads have ended.
pub struct ProducerSet {
    /// Never empty.
    clients: Vec<(ClientId, Producer)>,
    newest: ClientId,
}

impl ProducerSet {
    /// A set of one client.
    #[must_use]
    pub fn new(first: Producer) -> Self {
        Self {
            clients: vec![(ClientId::FIRST, first)],
            newest: ClientId::FIRST,
        }
    }

    /// Adds a client, and returns its number.
    pub fn add(&mut self, client: Producer) -> ClientId {
        self.newest = self.newest.next();
        self.clients.push((self.newest, client));
        self.newest
    }

    /// Takes a client out. Nothing of it may be out. Returns `None` for the last client, and for
    /// one that the set does not have.
    pub fn remove(&mut self, client: ClientId) -> Option<Producer> {
        let at = self.clients.iter().position(|(id, _)| *id == client)?;
        (self.clients.len() > 1).then(|| self.clients.remove(at).1)
    }

    /// Number of clients.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Limits that the clients were made with.
    #[must_use]
    pub fn batch_limits(&self) -> BatchLimits {
        self.clients[0].1.batch_limits()
    }

    /// Appends the delivery reports that arrived since the last call, those of each client in their
    /// order. Never blocks.
    pub fn poll(&self, reports: &mut Vec<DeliveryReport>) {
        for producer in self.producers() {
            producer.poll(reports);
        }
    }

    /// Adds a record to the queue of this client.
    ///
    /// # Errors
    /// If librdkafka rejects the record immediately: it is too large, or the queue is full. Also
    /// [`DeliveryError::Purged`] if the set does not have the client.
    pub fn send(
        &self,
        client: ClientId,
        record: Record<'_>,
        slot: usize,
    ) -> Result<(), DeliveryError> {
        if failpoints::has(Bug::MoveWithRecordsOut) {
            return self.clients[slot % self.clients.len()].1.send(record, slot);
        }
        let found = self.clients.iter().find(|(id, _)| *id == client);
        let (_, producer) = found.ok_or(DeliveryError::Purged)?;
        producer.send(record, slot)
    }

    /// Whether a fatal error has ended one of the clients: it never sends again.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.producers().any(Producer::is_fatal)
    }

    /// Whether a record was refused because a client does not know its partition.
    #[must_use]
    pub fn has_missed_partition(&self) -> bool {
        self.producers().any(Producer::has_missed_partition)
    }

    /// Longest time for which one of the clients has sent nothing, because it waits for all of its
    /// requests to end; zero if none waits.
    #[must_use]
    pub fn draining_for(&self) -> Duration {
        let draining = self.producers().map(Producer::draining_for);
        draining.max().unwrap_or_default()
    }

    /// Purges the records that were not sent yet; each still gets a delivery report.
    pub fn purge_queue(&self) {
        self.producers().for_each(Producer::purge_queue);
    }

    /// Purges all records that are not acknowledged; each still gets a delivery report.
    pub fn purge(&self) {
        self.producers().for_each(Producer::purge);
    }

    fn producers(&self) -> impl Iterator<Item = &Producer> {
        self.clients.iter().map(|(_, producer)| producer)
    }
}
