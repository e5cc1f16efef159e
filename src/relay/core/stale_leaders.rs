//! Whether a producer has lost its way to a topic: the brokers name leaders, yet its records do not
//! end. Pure.
//!
//! Seen of topics that were deleted and made again, now and then. Most likely why, by the source of
//! librdkafka 2.12: their partitions begin at leader epoch 0, and what is below the epoch that it
//! remembers it takes for old news (`rd_kafka_toppar_leader_update`), and goes on asking the old
//! leaders. A new producer remembers nothing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::relay::core::in_flight::TopicIndex;

/// Longer than brokers need to hear of a new leader, and than one needs to be missed.
pub const LOST_AFTER: Duration = Duration::from_secs(15);
/// If that was not it, such as when the way to one broker is cut, it is not tried again at once:
/// what is in flight may come twice.
pub const AGAIN_AFTER: Duration = Duration::from_secs(300);

/// Topics whose records wait although each partition has a leader, and since when.
#[derive(Clone, Debug, Default)]
pub struct StaleLeaders {
    since: BTreeMap<TopicIndex, Instant>,
    replaced: Option<Instant>,
}

impl StaleLeaders {
    /// Whether the producer is to be replaced. `waiting`: topics whose records do not end although
    /// each partition has a leader, by what the brokers said just now.
    pub fn check(&mut self, waiting: impl IntoIterator<Item = TopicIndex>, now: Instant) -> bool {
        let before = std::mem::take(&mut self.since);
        self.since = waiting
            .into_iter()
            .map(|topic| (topic, before.get(&topic).copied().unwrap_or(now)))
            .collect();
        let older = |at: &Instant, age| now.saturating_duration_since(*at) >= age;
        let lost = self.since.values().any(|since| older(since, LOST_AFTER))
            && self.replaced.is_none_or(|at| older(&at, AGAIN_AFTER));
        if lost {
            self.since.clear();
            self.replaced = Some(now);
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_waits_for_long_has_the_producer_replaced_once_in_five_minutes() {
        let (mut leaders, start) = (StaleLeaders::default(), Instant::now());
        let replaced: Vec<u64> = (0..700)
            .filter(|s| leaders.check([1], start + Duration::from_secs(*s)))
            .collect();
        assert_eq!(replaced, vec![15, 315, 615]);
    }

    #[test]
    fn a_topic_that_went_on_meanwhile_or_had_no_leader_is_not_lost() {
        let (mut leaders, start) = (StaleLeaders::default(), Instant::now());
        // Another one waits each time.
        assert!(
            !(0..100)
                .any(|s| leaders.check((s % 14 != 0).then_some(2), start + Duration::from_secs(s)))
        );
    }
}
