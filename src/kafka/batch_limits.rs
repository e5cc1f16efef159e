//! Limits of topics -> limits of the producer's batches and records, and of their timestamps. Pure.
//!
//! A broker judges whole batches, not single records, and librdkafka never splits a batch. A topic
//! with `max.message.bytes` 20,000 therefore rejects 300-byte records that are sent in a batch of
//! 1 MB. So no batch is larger than the strictest topic accepts. librdkafka checks a single record
//! before it is compressed, so it gets no limit there: the broker judges it, or the relay by its
//! size ([`crate::relay::core`]).

use std::time::Duration;

/// Limits of one topic, from its configuration. A value is `None` if it is unknown: the topic is
/// missing, or the relay may not read the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicLimits {
    /// `max.message.bytes`: largest batch in bytes.
    pub max_message_bytes: Option<usize>,
    /// `min.insync.replicas`: number of brokers that must have a record before it is acknowledged.
    pub min_insync_replicas: Option<usize>,
    /// `retention.ms`: age in ms at which records are deleted, by their timestamps. `None` also if
    /// they are kept without limit.
    pub retention_ms: Option<u64>,
    /// `message.timestamp.before.max.ms`: age in ms above which a timestamp is rejected.
    pub timestamp_before_max_ms: Option<u64>,
    /// `message.timestamp.difference.max.ms`, which brokers before Kafka 4 have: difference in ms
    /// to their time above which a timestamp is rejected.
    pub timestamp_difference_max_ms: Option<u64>,
}

impl TopicLimits {
    /// Greatest age that the timestamp of a record may have when it is sent: half of the smallest
    /// limit, so that the record is neither rejected nor deleted soon, even if its request takes
    /// long and the brokers' clock is ahead.
    #[must_use]
    pub fn timestamp_age_max(&self) -> Duration {
        let known = [
            self.retention_ms,
            self.timestamp_before_max_ms,
            self.timestamp_difference_max_ms,
        ];
        let smallest = known.into_iter().flatten().fold(AGE_LIMIT_MS, u64::min);
        Duration::from_millis(smallest / 2)
    }
}

/// Limits of all declared topics, in manifest order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsByTopic(pub Vec<TopicLimits>);

impl LimitsByTopic {
    /// Greatest age that the timestamp of a record of a topic may have when it is sent; see
    /// [`TopicLimits::timestamp_age_max`]. `topic` is an index in manifest order.
    #[must_use]
    pub fn timestamp_age_max(&self, topic: usize) -> Duration {
        let limits = self.0.get(topic).copied().unwrap_or_default();
        limits.timestamp_age_max()
    }

    /// Smallest known `max.message.bytes`; [`TOPIC_BYTES_UNKNOWN`] if none is known.
    fn strictest(&self) -> usize {
        self.known_bytes().min().unwrap_or(TOPIC_BYTES_UNKNOWN)
    }

    fn known_bytes(&self) -> impl Iterator<Item = usize> {
        self.0.iter().filter_map(|topic| topic.max_message_bytes)
    }
}

/// Size limits of a producer, derived from its topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// `batch.size`: bytes of a batch before compression, with all framing. A single larger record
    /// is still sent, alone in its batch.
    pub batch_bytes: usize,
}

/// Age limit of timestamps in ms if a topic has none that is known, or only greater ones: 1 h.
const AGE_LIMIT_MS: u64 = 3_600_000;
/// Largest value of `batch.size` in bytes, whatever the topics accept.
const BATCH_BYTES_MAX: usize = 1_000_000;
/// Limit of a topic in bytes that is assumed while it is unknown.
pub const TOPIC_BYTES_UNKNOWN: usize = 1_000_000;
/// Smallest value of `batch.size` in bytes: smaller batches would hold one record each, which is
/// too slow.
pub const BATCH_BYTES_MIN: usize = 1024;
/// `message.max.bytes` of each producer: the largest value that librdkafka accepts.
pub(super) const MESSAGE_BYTES_MAX: usize = 1_000_000_000;

impl BatchLimits {
    /// Limits for a set of topics: batches as small as the strictest topic requires.
    #[must_use]
    pub fn for_topics(limits: &LimitsByTopic) -> Self {
        let strictest = limits.strictest();
        Self {
            batch_bytes: strictest.clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX),
        }
    }

    /// Whether a producer with these limits can be kept when `wanted` are the right ones: its
    /// batches are not larger.
    #[must_use]
    pub fn fits(self, wanted: Self) -> bool {
        self.batch_bytes <= wanted.batch_bytes
    }
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self::for_topics(&LimitsByTopic::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(limits: &[Option<usize>], batch_bytes: usize) {
        let limits = limits
            .iter()
            .map(|bytes| TopicLimits {
                max_message_bytes: *bytes,
                ..TopicLimits::default()
            })
            .collect();
        assert_eq!(
            BatchLimits::for_topics(&LimitsByTopic(limits)),
            BatchLimits { batch_bytes }
        );
    }

    #[test]
    fn batches_fit_the_strictest_topic() {
        check(&[], 1_000_000);
        check(&[None, None], 1_000_000);
        check(&[Some(1_048_588)], 1_000_000);
        check(&[Some(1_048_588), Some(20_000), None], 20_000);
        check(&[Some(20_000)], 20_000);
    }

    #[test]
    fn a_timestamp_is_at_most_as_old_as_half_of_the_smallest_known_limit() {
        let limits = |retention_ms, timestamp_before_max_ms, timestamp_difference_max_ms| {
            let limits = TopicLimits {
                retention_ms,
                timestamp_before_max_ms,
                timestamp_difference_max_ms,
                ..TopicLimits::default()
            };
            limits.timestamp_age_max().as_millis()
        };
        let week = Some(604_800_000);
        for (retention, before, difference, expected) in [
            (None, None, None, 1_800_000),
            (week, Some(u64::MAX), Some(u64::MAX), 1_800_000),
            (Some(3_600_000), None, None, 1_800_000),
            (Some(600_000), Some(u64::MAX), None, 300_000),
            (week, Some(60_000), None, 30_000),
            (week, Some(60_000), Some(10_000), 5_000),
            (Some(1), Some(60_000), None, 0),
        ] {
            let found = limits(retention, before, difference);
            assert_eq!(found, expected, "{retention:?} {before:?} {difference:?}");
        }
    }

    #[test]
    fn a_producer_fits_while_no_topic_takes_only_smaller_batches() {
        let producer = BatchLimits {
            batch_bytes: 500_000,
        };
        for (batch_bytes, fits) in [(500_000, true), (1_000_000, true), (499_999, false)] {
            assert_eq!(producer.fits(BatchLimits { batch_bytes }), fits);
        }
    }

    #[test]
    fn limits_that_make_no_sense_do_not_make_a_producer_that_cannot_work() {
        check(&[Some(0)], 1024);
        check(&[Some(usize::MAX)], 1_000_000);
    }
}
