//! Whether a producer sends to stale leaders: the brokers list leaders of a topic, yet its records
//! are not acknowledged. Pure.
//!
//! This happens now and then after a topic was deleted and created again. The likely cause, by the
//! source of librdkafka 2.12: the new partitions begin at leader epoch 0. librdkafka takes a leader
//! with a lower epoch than the one that it remembers as outdated (`rd_kafka_toppar_leader_update`),
//! and keeps asking the old leaders. A new producer remembers nothing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::relay::core::ids::TopicIndex;

/// Time for which records wait before the leaders count as stale. It is longer than brokers need to
/// elect a new leader and to learn of it.
pub const LOST_AFTER: Duration = Duration::from_secs(15);
/// Pause before the producer is replaced once more. A new one does not help if, for example, one
/// broker cannot be reached, and what is in flight may be published twice.
pub const AGAIN_AFTER: Duration = Duration::from_secs(300);

/// Topics whose records wait although each partition has a leader, and since when.
#[derive(Clone, Debug, Default)]
pub struct StaleLeaders {
    since: BTreeMap<TopicIndex, Instant>,
    /// When the producer was last replaced.
    replaced: Option<Instant>,
}

impl StaleLeaders {
    /// Checks whether the producer is to be replaced. `waiting` are the topics whose records are
    /// not acknowledged although each partition has a leader, by the latest metadata.
    pub fn check(&mut self, waiting: impl IntoIterator<Item = TopicIndex>, now: Instant) -> bool {
        self.note_waiting(waiting, now);
        let are_stale = self.are_stale(now);
        if are_stale {
            self.since.clear();
            self.replaced = Some(now);
        }
        are_stale
    }

    /// Remembers since when each of these topics waits, and forgets all others.
    fn note_waiting(&mut self, waiting: impl IntoIterator<Item = TopicIndex>, now: Instant) {
        let before = std::mem::take(&mut self.since);
        for topic in waiting {
            let since = before.get(&topic).copied().unwrap_or(now);
            self.since.insert(topic, since);
        }
    }

    fn are_stale(&self, now: Instant) -> bool {
        self.since
            .values()
            .any(|since| is_older(*since, LOST_AFTER, now))
            && self
                .replaced
                .is_none_or(|at| is_older(at, AGAIN_AFTER, now))
    }
}

/// Whether `at` is at least `age` ago.
fn is_older(at: Instant, age: Duration, now: Instant) -> bool {
    now.saturating_duration_since(at) >= age
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_waits_for_long_has_the_producer_replaced_once_in_five_minutes() {
        let (mut leaders, start) = (StaleLeaders::default(), Instant::now());
        let replaced: Vec<u64> = (0..700)
            .filter(|s| leaders.check([TopicIndex::new(1)], start + Duration::from_secs(*s)))
            .collect();
        assert_eq!(replaced, vec![15, 315, 615]);
    }

    #[test]
    fn a_topic_that_went_on_meanwhile_or_had_no_leader_is_not_lost() {
        let (mut leaders, start) = (StaleLeaders::default(), Instant::now());
        // Another one waits each time.
        assert!(!(0..100).any(|s| leaders.check(
            (s % 14 != 0).then_some(TopicIndex::new(2)),
            start + Duration::from_secs(s)
        )));
    }
}
