//! How many partitions topics have, and which of them got more. When that happens, keys move to
//! other partitions, for every producer, and the order of a key does not hold across that moment.
//! Pure.

use std::time::{Duration, Instant};

use crate::relay::core::ids::TopicIndex;

/// Time for which a growth is reported. The producer itself notices it within 5 minutes.
const REPORTED_FOR: Duration = Duration::from_secs(15 * 60);

/// A topic that got more partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Growth {
    pub(crate) from: usize,
    pub(crate) to: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct TopicPartitions {
    /// 0 while no broker has listed the topic.
    partitions: usize,
    /// The last growth, and when it was noticed.
    growth: Option<(Growth, Instant)>,
}

/// Partitions of each declared topic.
#[derive(Clone, Debug)]
pub(crate) struct PartitionCounts(Vec<TopicPartitions>);

impl PartitionCounts {
    /// Declared topics that no broker has listed.
    pub(crate) fn new(topics: usize) -> Self {
        Self(vec![TopicPartitions::default(); topics])
    }

    /// Records how many partitions the brokers list. Returns how many were added since the last
    /// call; the first call adds none.
    pub(crate) fn on_metadata(
        &mut self,
        topic: TopicIndex,
        partitions: usize,
        now: Instant,
    ) -> usize {
        let seen = &mut self.0[topic.index()];
        let from = std::mem::replace(&mut seen.partitions, partitions);
        if from == 0 || partitions <= from {
            return 0;
        }
        seen.growth = Some((
            Growth {
                from,
                to: partitions,
            },
            now,
        ));
        partitions - from
    }

    /// Partitions of each topic; 0 while no broker has listed it.
    pub(crate) fn counts(&self) -> Vec<usize> {
        self.0.iter().map(|seen| seen.partitions).collect()
    }

    /// The last growth of a topic, as long as it is to be reported.
    pub(crate) fn growth(&self, topic: TopicIndex, now: Instant) -> Option<Growth> {
        let (growth, at) = self.0[topic.index()].growth?;
        (now.saturating_duration_since(at) < REPORTED_FOR).then_some(growth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_more_partitions_than_before_are_a_growth_which_is_reported_for_a_while() {
        let (mut partitions, start) = (PartitionCounts::new(2), Instant::now());
        assert_eq!(
            (
                partitions.on_metadata(TopicIndex::new(0), 6, start),
                partitions.growth(TopicIndex::new(0), start)
            ),
            (0, None),
            "the first call"
        );
        assert_eq!(
            (
                partitions.on_metadata(TopicIndex::new(0), 6, start),
                partitions.growth(TopicIndex::new(0), start)
            ),
            (0, None)
        );
        assert_eq!(partitions.on_metadata(TopicIndex::new(0), 10, start), 4);
        assert_eq!(
            (
                partitions.growth(TopicIndex::new(0), start),
                partitions.growth(TopicIndex::new(1), start)
            ),
            (Some(Growth { from: 6, to: 10 }), None)
        );
        assert_eq!(
            partitions.growth(TopicIndex::new(0), start + REPORTED_FOR),
            None
        );
        assert_eq!(
            partitions.on_metadata(TopicIndex::new(0), 6, start),
            0,
            "the topic was created again"
        );
    }
}
