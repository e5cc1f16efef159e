//! The rows of one topic that producers have and Kafka has not acknowledged: how many, their bytes,
//! how many in each lane, and since when. A constant amount of work per row. Pure.
//!
//! Rows that are sent at the same moment form a burst. A burst is removed once its last row has
//! ended and no older burst is left, so the front burst holds the topic's oldest row.

use std::{collections::VecDeque, time::Instant};

use crate::{outbox::Lane, relay::core::lane_share::LANES};

/// Rows of one topic that were sent at the same moment.
#[derive(Clone, Debug)]
struct Burst {
    sent_at: Instant,
    /// Rows of it whose delivery report is still to come.
    rows: usize,
}

/// Number of a burst, counted per topic from 0.
pub type BurstNumber = u64;

/// The unacknowledged rows of one topic.
#[derive(Clone, Debug)]
pub struct Unacknowledged {
    rows: usize,
    bytes: usize,
    rows_by_lane: [u32; LANES],
    bursts: VecDeque<Burst>,
    /// Number of the front burst, which is how many were removed.
    front: BurstNumber,
}

impl Default for Unacknowledged {
    fn default() -> Self {
        Self {
            rows: 0,
            bytes: 0,
            rows_by_lane: [0; LANES],
            bursts: VecDeque::new(),
            front: 0,
        }
    }
}

impl Unacknowledged {
    /// Records that a row of `bytes` goes to a producer. Returns the number of its burst, which
    /// [`Self::on_ended`] needs.
    pub fn on_sent(&mut self, lane: Lane, bytes: usize, now: Instant) -> BurstNumber {
        self.add_to_newest_burst(now);
        self.add_row(lane, bytes);
        self.front + self.bursts.len() as BurstNumber - 1
    }

    /// Adds a row to the burst of this moment, which begins with its first row.
    fn add_to_newest_burst(&mut self, now: Instant) {
        match self.bursts.back_mut().filter(|burst| burst.sent_at == now) {
            Some(burst) => burst.rows += 1,
            None => self.bursts.push_back(Burst {
                sent_at: now,
                rows: 1,
            }),
        }
    }

    /// Records that the delivery report of a sent row is in. Returns when the row was sent; `None`
    /// for a burst that does not exist.
    pub fn on_ended(&mut self, lane: Lane, bytes: usize, burst: BurstNumber) -> Option<Instant> {
        self.remove_row(lane, bytes);
        let sent_at = self.end_row_of(burst)?;
        self.remove_ended_bursts();
        Some(sent_at)
    }

    /// Records that a row of a burst has ended. Returns when the burst was sent.
    fn end_row_of(&mut self, burst: BurstNumber) -> Option<Instant> {
        let burst = self.bursts.get_mut((burst - self.front) as usize)?;
        burst.rows -= 1;
        Some(burst.sent_at)
    }

    fn remove_ended_bursts(&mut self) {
        // Reports of different partitions come in any order, so only the front is removed: numbers
        // of later bursts stay valid.
        while self.bursts.front().is_some_and(|burst| burst.rows == 0) {
            self.bursts.pop_front();
            self.front += 1;
        }
    }

    fn add_row(&mut self, lane: Lane, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes;
        self.rows_by_lane[lane.index()] += 1;
    }

    fn remove_row(&mut self, lane: Lane, bytes: usize) {
        self.rows -= 1;
        self.bytes -= bytes;
        self.rows_by_lane[lane.index()] -= 1;
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of all rows.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Rows of one lane.
    #[must_use]
    pub fn rows_in_lane(&self, lane: Lane) -> usize {
        self.rows_by_lane[lane.index()] as usize
    }

    /// Rows of the lane that has most of them.
    #[must_use]
    pub fn rows_in_fullest_lane(&self) -> usize {
        self.rows_by_lane
            .iter()
            .max()
            .map_or(0, |rows| *rows as usize)
    }

    /// When the oldest row was sent; `None` without rows.
    #[must_use]
    pub fn oldest_sent_at(&self) -> Option<Instant> {
        self.bursts.front().map(|burst| burst.sent_at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn the_oldest_row_is_the_first_sent_of_those_that_have_not_ended() {
        let (mut unacknowledged, start) = (Unacknowledged::default(), Instant::now());
        let bursts =
            [0, 0, 5, 9].map(|ms| unacknowledged.on_sent(Lane::new(7), 10, after(start, ms)));
        // Reports of different partitions come in any order.
        for (row, oldest) in [(2, Some(0)), (0, Some(0)), (1, Some(9)), (3, None)] {
            assert!(
                unacknowledged
                    .on_ended(Lane::new(7), 10, bursts[row])
                    .is_some()
            );
            assert_eq!(
                unacknowledged.oldest_sent_at(),
                oldest.map(|ms| after(start, ms)),
                "after row {row}"
            );
        }
        assert_eq!(
            (
                unacknowledged.rows(),
                unacknowledged.bytes(),
                unacknowledged.rows_in_fullest_lane()
            ),
            (0, 0, 0)
        );
    }

    #[test]
    fn rows_are_counted_by_lane() {
        let (mut unacknowledged, now) = (Unacknowledged::default(), Instant::now());
        let burst = [1, 2, 2].map(|lane| unacknowledged.on_sent(Lane::new(lane), 20, now))[0];
        assert_eq!(unacknowledged.on_ended(Lane::new(1), 20, burst), Some(now));
        assert_eq!(
            (
                unacknowledged.rows_in_lane(Lane::new(1)),
                unacknowledged.rows_in_lane(Lane::new(2)),
                unacknowledged.rows_in_fullest_lane(),
                unacknowledged.bytes()
            ),
            (0, 2, 2, 40)
        );
    }
}
