//! What topics take -> how large the producer's batches and records may be. Pure.
//!
//! A broker judges batches, not records, and librdkafka never splits a batch: 300-byte records in a
//! batch of 1 MB are all refused by a topic whose `max.message.bytes` is 20,000. So no batch may be
//! larger than the smallest topic takes, and no record is refused here that some topic would take.

/// What a topic takes, by its configuration; `None`: unknown, because the topic is missing or we
/// may not ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicLimits {
    /// `max.message.bytes`.
    pub max_message_bytes: Option<usize>,
    /// `min.insync.replicas`: a record is acknowledged only when so many brokers have it.
    pub min_insync_replicas: Option<usize>,
}

/// Those of the declared topics, in manifest order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits(pub Vec<TopicLimits>);

/// Properties of a producer that depend on its topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// `batch.size`: before compression, with all framing. A single larger record still goes out,
    /// alone in its batch.
    pub batch_bytes: usize,
    /// `message.max.bytes`: a larger record is refused by [`super::Producer::send`].
    pub message_max_bytes: usize,
}

impl Sizes {
    /// Whether a producer of this size can carry all that one of `wanted` could, in batches that
    /// are not too large.
    #[must_use]
    pub fn fit(self, wanted: Self) -> bool {
        self.message_max_bytes >= wanted.message_max_bytes && self.batch_bytes <= wanted.batch_bytes
    }
}

/// Batches are never larger, whatever the topics take; also what an unknown topic is taken to
/// accept.
const BATCH_BYTES_MAX: usize = 1_000_000;
/// Batches are never smaller: one record each would be slower than any use.
pub const BATCH_BYTES_MIN: usize = 1024;
/// The most that librdkafka lets a record have.
const MESSAGE_BYTES_MAX: usize = 1_000_000_000;

impl Default for Sizes {
    fn default() -> Self {
        sizes(&Limits::default())
    }
}

/// Batches as small as the strictest topic wants them, records as large as the most generous one
/// lets them be.
#[must_use]
pub fn sizes(limits: &Limits) -> Sizes {
    let known = || limits.0.iter().filter_map(|topic| topic.max_message_bytes);
    Sizes {
        batch_bytes: known()
            .min()
            .unwrap_or(BATCH_BYTES_MAX)
            .clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX),
        message_max_bytes: known()
            .max()
            .unwrap_or(BATCH_BYTES_MAX)
            .clamp(BATCH_BYTES_MAX, MESSAGE_BYTES_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(limits: &[Option<usize>], batch_bytes: usize, message_max_bytes: usize) {
        let limits = limits
            .iter()
            .map(|bytes| TopicLimits {
                max_message_bytes: *bytes,
                ..TopicLimits::default()
            })
            .collect();
        assert_eq!(
            sizes(&Limits(limits)),
            Sizes {
                batch_bytes,
                message_max_bytes
            }
        );
    }

    #[test]
    fn batches_fit_the_strictest_topic_and_records_the_most_generous() {
        check(&[], 1_000_000, 1_000_000);
        check(&[None, None], 1_000_000, 1_000_000);
        check(&[Some(1_048_588)], 1_000_000, 1_048_588);
        check(&[Some(1_048_588), Some(20_000), None], 20_000, 1_048_588);
        check(&[Some(20_000)], 20_000, 1_000_000);
    }

    #[test]
    fn a_producer_fits_while_no_topic_takes_larger_records_or_only_smaller_batches() {
        let sizes = |batch_bytes, message_max_bytes| Sizes {
            batch_bytes,
            message_max_bytes,
        };
        let producer = sizes(500_000, 2_000_000);
        for (wanted, fits) in [
            (producer, true),
            (sizes(1_000_000, 1_000_000), true), // it can do more than is wanted
            (sizes(500_000, 2_000_001), false),
            (sizes(499_999, 2_000_000), false),
        ] {
            assert_eq!(producer.fit(wanted), fits, "{wanted:?}");
        }
    }

    #[test]
    fn limits_that_make_no_sense_do_not_make_a_producer_that_cannot_work() {
        check(&[Some(0)], 1024, 1_000_000);
        check(&[Some(usize::MAX)], 1_000_000, 1_000_000_000);
    }
}
