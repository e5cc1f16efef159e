//! Several strict producers that act as one. Each partition belongs to one of them for as long as
//! the set lives, so that what holds for a producer holds for the set: order in a partition, and no
//! gap.
//!
//! Why several: librdkafka puts one partition into a request, and an idempotent producer has at
//! most five requests under way per broker. With many partitions and a broker that is not next
//! door, one producer sends `5 / round trip` batches in a second, however few records they hold.

use crate::kafka::{
    batch_limits::BatchLimits,
    config::ConfigError,
    delivery_error::DeliveryError,
    partitioner::partition_of,
    producer::{DeliveryReport, Producer, Record},
};

/// Most producers of a set. Each has a connection to every broker and five threads.
const PRODUCERS_MAX: usize = 8;

/// Number of partitions for each producer of a set, as long as there are fewer than
/// [`PRODUCERS_MAX`].
const PARTITIONS_PER_PRODUCER: usize = 3;

/// Producers that act as one. Dropping them blocks until their threads have ended.
pub struct ProducerSet {
    producers: Vec<Producer>,
    /// Number of partitions of each topic, in the order of the topics.
    partitions: Vec<usize>,
}

impl ProducerSet {
    /// Makes as many producers as topics with these numbers of partitions need. They connect in the
    /// background.
    ///
    /// # Errors
    /// If `make` fails.
    pub fn new(
        partitions: Vec<usize>,
        make: impl Fn() -> Result<Producer, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let count = producer_count(&partitions);
        let producers = (0..count).map(|_| make()).collect::<Result<_, _>>()?;
        Ok(Self {
            producers,
            partitions,
        })
    }

    /// Whether the set was made for topics with these numbers of partitions. If not, replace it: a
    /// partition must not change its producer while records of it are out.
    #[must_use]
    pub fn is_for(&self, partitions: &[usize]) -> bool {
        self.partitions == partitions
    }

    /// Limits that the producers were made with.
    #[must_use]
    pub fn batch_limits(&self) -> BatchLimits {
        self.producers[0].batch_limits()
    }

    /// Appends the delivery reports that arrived since the last call, those of each producer in
    /// their order. Never blocks.
    pub fn poll(&self, reports: &mut Vec<DeliveryReport>) {
        for producer in &self.producers {
            producer.poll(reports);
        }
    }

    /// Adds a record of the topic with this index to the queue of its partition's producer.
    ///
    /// # Errors
    /// If librdkafka rejects the record immediately: it is too large, or the queue is full.
    pub fn send(&self, topic: usize, record: Record<'_>, slot: usize) -> Result<(), DeliveryError> {
        let partitions = self.partitions.get(topic).copied().unwrap_or(1);
        let partition = partition_of(record.key.as_bytes(), partitions);
        self.producers[self.producer_of(topic, partition)].send(record, slot)
    }

    /// Neighbouring partitions are usually led by different brokers, and get different producers.
    fn producer_of(&self, topic: usize, partition: usize) -> usize {
        (topic * PARTITIONS_PER_PRODUCER + partition) % self.producers.len()
    }

    /// Whether a fatal error has ended one of the producers: it never sends again.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.producers.iter().any(Producer::is_fatal)
    }

    /// Purges the records that were not sent yet; each still gets a delivery report.
    pub fn purge_queue(&self) {
        self.producers.iter().for_each(Producer::purge_queue);
    }

    /// Purges all records that are not acknowledged; each still gets a delivery report.
    pub fn purge(&self) {
        self.producers.iter().for_each(Producer::purge);
    }
}

/// Number of producers for topics with these numbers of partitions.
fn producer_count(partitions: &[usize]) -> usize {
    let all: usize = partitions.iter().sum();
    all.div_ceil(PARTITIONS_PER_PRODUCER)
        .clamp(1, PRODUCERS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_partitions_need_one_producer_and_many_at_most_eight() {
        assert_eq!(producer_count(&[]), 1);
        assert_eq!(producer_count(&[3]), 1);
        assert_eq!(producer_count(&[3, 3]), 2);
        assert_eq!(producer_count(&[12; 10]), PRODUCERS_MAX);
    }
}
