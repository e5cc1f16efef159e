//! How many partitions topics have, and which of them got more. Then keys move to other partitions,
//! for every producer, and a key's order does not hold across that moment. Pure.

use std::time::{Duration, Instant};

use super::window::TopicIndex;

/// How long a growth is told of. The producer itself notices it within 5 minutes.
const TOLD_FOR: Duration = Duration::from_secs(15 * 60);

/// A topic that got more partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Growth {
    pub(super) from: usize,
    pub(super) to: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    partitions: usize,
    growth: Option<(Growth, Instant)>,
}

/// What was seen of each declared topic.
#[derive(Clone, Debug)]
pub(super) struct Partitions(Vec<Seen>);

impl Partitions {
    pub(super) fn new(topics: usize) -> Self {
        Self(vec![Seen::default(); topics])
    }

    /// The brokers name this many partitions. Returns how many were added while we looked; the
    /// first look adds none.
    pub(super) fn seen(&mut self, topic: TopicIndex, partitions: usize, now: Instant) -> usize {
        let seen = &mut self.0[topic];
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

    /// Partitions of each topic; none while it was never seen.
    pub(super) fn counts(&self) -> Vec<usize> {
        self.0.iter().map(|seen| seen.partitions).collect()
    }

    /// The last growth, while it is to be told.
    pub(super) fn growth(&self, topic: TopicIndex, now: Instant) -> Option<Growth> {
        let (growth, at) = self.0[topic].growth?;
        (now.saturating_duration_since(at) < TOLD_FOR).then_some(growth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_more_partitions_than_before_are_a_growth_and_it_is_told_for_a_while() {
        let (mut partitions, start) = (Partitions::new(2), Instant::now());
        assert_eq!(
            (partitions.seen(0, 6, start), partitions.growth(0, start)),
            (0, None),
            "the first look"
        );
        assert_eq!(
            (partitions.seen(0, 6, start), partitions.growth(0, start)),
            (0, None)
        );
        assert_eq!(partitions.seen(0, 10, start), 4);
        assert_eq!(
            (partitions.growth(0, start), partitions.growth(1, start)),
            (Some(Growth { from: 6, to: 10 }), None)
        );
        assert_eq!(partitions.growth(0, start + TOLD_FOR), None);
        assert_eq!(partitions.seen(0, 6, start), 0, "the topic was made anew");
    }
}
