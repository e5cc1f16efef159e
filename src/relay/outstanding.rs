//! What each topic has with the producers: rows, bytes, by lane, and since when. A constant amount
//! of work per row. Pure.
//!
//! Rows that are sent at the same moment are one burst. A burst goes when its last row has ended
//! and no older one is left, so the front of a topic's bursts is its oldest row.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    lanes::LANES,
    window::{Slot, TopicIndex},
};

/// Rows of one topic that were sent together and have not ended.
#[derive(Clone, Debug)]
struct Burst {
    at: Instant,
    rows: usize,
}

#[derive(Clone, Debug)]
struct OfTopic {
    rows: usize,
    bytes: usize,
    by_lane: [u32; LANES],
    bursts: VecDeque<Burst>,
    /// Bursts that are gone: number of the front one.
    gone: u64,
}

/// A sent row.
#[derive(Clone, Copy, Debug)]
struct Sent {
    topic: TopicIndex,
    lane: u8,
    bytes: usize,
    burst: u64,
}

/// Rows whose delivery report is still to come, by topic.
#[derive(Clone, Debug)]
pub struct Outstanding {
    topics: Vec<OfTopic>,
    slots: Vec<Option<Sent>>,
    /// Of all acknowledged rows the last sent: when it was sent, and when it was acknowledged.
    newest_acknowledged: Option<(Instant, Instant)>,
}

impl Outstanding {
    #[must_use]
    pub fn new(topics: usize, slots: usize) -> Self {
        let topic = OfTopic {
            rows: 0,
            bytes: 0,
            by_lane: [0; LANES],
            bursts: VecDeque::new(),
            gone: 0,
        };
        Self {
            topics: vec![topic; topics],
            slots: vec![None; slots],
            newest_acknowledged: None,
        }
    }

    /// A row goes to the producer.
    pub fn sent(&mut self, slot: Slot, topic: TopicIndex, lane: u8, bytes: usize, now: Instant) {
        let of = &mut self.topics[topic];
        match of.bursts.back_mut().filter(|burst| burst.at == now) {
            Some(burst) => burst.rows += 1,
            None => of.bursts.push_back(Burst { at: now, rows: 1 }),
        }
        of.rows += 1;
        of.bytes += bytes;
        of.by_lane[usize::from(lane)] += 1;
        self.slots[slot] = Some(Sent {
            topic,
            lane,
            bytes,
            burst: of.gone + of.bursts.len() as u64 - 1,
        });
    }

    /// Kafka has the row. Nothing happens for a slot that has no sent row.
    pub fn acknowledged(&mut self, slot: Slot, now: Instant) {
        let acknowledged = self.ended(slot).map(|sent| (sent, now));
        self.newest_acknowledged = self.newest_acknowledged.max(acknowledged);
    }

    /// The row's report is in; returns when it was sent. `None` for a slot that has no sent row.
    pub fn ended(&mut self, slot: Slot) -> Option<Instant> {
        let sent = self.slots.get_mut(slot)?.take()?;
        let of = &mut self.topics[sent.topic];
        of.rows -= 1;
        of.bytes -= sent.bytes;
        of.by_lane[usize::from(sent.lane)] -= 1;
        let burst = of.bursts.get_mut((sent.burst - of.gone) as usize)?;
        burst.rows -= 1;
        let at = burst.at;
        while of.bursts.front().is_some_and(|burst| burst.rows == 0) {
            of.bursts.pop_front();
            of.gone += 1;
        }
        Some(at)
    }

    /// Rows of a topic.
    #[must_use]
    pub fn rows(&self, topic: TopicIndex) -> usize {
        self.topics[topic].rows
    }

    /// Bytes of a topic's rows.
    #[must_use]
    pub fn bytes(&self, topic: TopicIndex) -> usize {
        self.topics[topic].bytes
    }

    /// Most rows that a topic has in one lane.
    #[must_use]
    pub fn most_in_a_lane(&self, topic: TopicIndex) -> usize {
        self.topics[topic]
            .by_lane
            .iter()
            .max()
            .map_or(0, |rows| *rows as usize)
    }

    /// Rows of a lane.
    #[must_use]
    pub fn in_lane(&self, lane: u8) -> usize {
        self.topics
            .iter()
            .map(|of| of.by_lane[usize::from(lane)] as usize)
            .sum()
    }

    /// When a topic's oldest row was sent.
    #[must_use]
    pub fn oldest(&self, topic: TopicIndex) -> Option<Instant> {
        self.topics[topic].bursts.front().map(|burst| burst.at)
    }

    /// Whether a topic's oldest row was sent so long ago, and one that was sent later was
    /// acknowledged when it was that old already: then it is not the cluster that is slow or away.
    #[must_use]
    pub fn is_overtaken(&self, topic: TopicIndex, after: Duration) -> bool {
        let Some((sent, acknowledged)) = self.newest_acknowledged else {
            return false;
        };
        self.oldest(topic)
            .is_some_and(|oldest| sent > oldest && acknowledged >= oldest + after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn the_oldest_row_is_the_first_sent_of_those_that_have_not_ended() {
        let (mut outstanding, start) = (Outstanding::new(1, 8), Instant::now());
        for (slot, ms) in [(0, 0), (1, 0), (2, 5), (3, 9)] {
            outstanding.sent(slot, 0, 7, 10, after(start, ms));
        }
        // Reports of different partitions come in any order.
        for (slot, oldest) in [(2, Some(0)), (0, Some(0)), (1, Some(9)), (3, None)] {
            assert!(outstanding.ended(slot).is_some());
            assert_eq!(
                outstanding.oldest(0),
                oldest.map(|ms| after(start, ms)),
                "after slot {slot}"
            );
        }
        assert_eq!(
            (
                outstanding.rows(0),
                outstanding.bytes(0),
                outstanding.most_in_a_lane(0)
            ),
            (0, 0, 0)
        );
    }

    #[test]
    fn a_slot_that_is_used_again_counts_for_its_new_row() {
        let (mut outstanding, start) = (Outstanding::new(2, 1), Instant::now());
        outstanding.sent(0, 0, 1, 10, start);
        assert_eq!(outstanding.ended(0), Some(start));
        assert_eq!(outstanding.ended(0), None);
        outstanding.sent(0, 1, 2, 20, after(start, 1));
        assert_eq!(
            (
                outstanding.rows(0),
                outstanding.rows(1),
                outstanding.bytes(1)
            ),
            (0, 1, 20)
        );
        assert_eq!((outstanding.in_lane(1), outstanding.in_lane(2)), (0, 1));
    }

    #[test]
    fn only_a_row_that_was_sent_later_and_acknowledged_late_enough_overtakes() {
        let start = Instant::now();
        for (sent, acknowledged, overtakes) in [
            (0, 3000, false),
            (1, 1999, false),
            (1, 2000, true),
            (2500, 2501, true),
        ] {
            let mut outstanding = Outstanding::new(2, 2);
            outstanding.sent(0, 0, 1, 1, start);
            outstanding.sent(1, 1, 1, 1, after(start, sent));
            outstanding.acknowledged(1, after(start, acknowledged));
            assert_eq!(
                outstanding.is_overtaken(0, Duration::from_secs(2)),
                overtakes,
                "sent {sent}, acknowledged {acknowledged}"
            );
            assert!(
                !outstanding.is_overtaken(1, Duration::ZERO),
                "it has nothing there"
            );
        }
    }
}
