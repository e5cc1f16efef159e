//! What the core makes of a cluster or a topic that does not answer: the breaker's window, and
//! topics that wait for what they have sent. Pure.

use std::time::Instant;

use crate::{
    relay::core::{
        Core, LANES,
        breaker::{Breaker, ClusterError},
        in_flight::{Slot, TopicIndex},
        jitter::Jitter,
        topic_state::TopicStates,
    },
    report::{BreakerState, ProblemClass},
    settings::BreakerSettings,
};

/// A topic may have this part of the window, and of a lane, with the producer for long.
const SHARE: usize = 4;
/// With more waiting than fits, a fetch waits for this part of the window: many small ones cost
/// more (8 % of a drain's rate with a quarter).
const CROWDED: usize = 2;
/// So much is nobody's business, however small the window is.
const SHARE_ROWS_MIN: usize = 64;
const SHARE_BYTES_MIN: usize = 64 << 10;
/// For long: this part of `slowAfter`. Whoever is faster may have everything.
const SOON: u32 = 4;

impl Core {
    /// With these times, and pauses that differ from those of other relays.
    #[must_use]
    pub fn with_breaker(mut self, settings: BreakerSettings, seed: u64, now: Instant) -> Self {
        self.breaker = Breaker::new(
            settings,
            self.in_flight.budget().rows,
            Jitter::seeded(seed),
            now,
        );
        self.topic_states =
            TopicStates::new(self.routes.len()).jittered(Jitter::seeded(seed.rotate_left(32)));
        self
    }

    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Looks at what was not acknowledged until now; `cluster_error`: see [`Breaker::evaluate`]. Once a turn
    /// of the loop.
    pub fn check_acknowledgements(&mut self, cluster_error: ClusterError, now: Instant) {
        // What a stalled topic has there says nothing about the cluster.
        let stalled = self.held_by(|topic| self.is_stalled(topic)).rows;
        self.breaker
            .evaluate(self.in_flight.sent() - stalled, cluster_error, now);
        for topic in 0..self.routes.len() {
            if self.topic_states.is_active(topic) && self.must_wait(topic, now) {
                self.hold_topic(topic);
                self.topic_states.wait(topic);
            }
        }
    }

    /// The brokers answered a question.
    pub fn on_brokers_answered(&mut self, now: Instant) {
        self.breaker.on_brokers_answered(self.in_flight.sent(), now);
    }

    /// The producer was thrown out without a cause; returns the pause before the next one.
    pub fn on_producer_rebuilt(&mut self, now: Instant) -> std::time::Duration {
        self.breaker.on_producer_rebuilt(now)
    }

    /// Rows that the main producer has: all that were sent, but for those on trial.
    #[must_use]
    pub fn sent_on_main(&self) -> usize {
        self.in_flight.sent() - self.isolation.on_trial().count()
    }

    /// What lanes on their way back wait for.
    #[must_use]
    pub fn drain_blockers(&self) -> DrainBlockers {
        let is_leaving = |lane: u8| {
            self.lanes[usize::from(lane)]
                .as_ref()
                .is_some_and(|lane| lane.draining)
        };
        let sent: usize = (0..LANES as u8)
            .filter(|lane| is_leaving(*lane))
            .map(|lane| self.unacknowledged.in_lane(lane))
            .sum();
        let on_trial = self
            .isolation
            .on_trial()
            .filter(|row| is_leaving(row.lane))
            .count();
        DrainBlockers {
            main: sent > on_trial,
            trial: on_trial > 0,
        }
    }

    /// Whether there are records that may never end: the cluster acknowledges nothing, or a topic
    /// does not.
    #[must_use]
    pub fn has_stuck_records(&self) -> bool {
        self.breaker.state() != BreakerState::Closed || self.stalled_topics().next().is_some()
    }

    /// Whether the row of this slot is on trial, with a producer of its own.
    #[must_use]
    pub fn is_probed(&self, slot: Slot) -> bool {
        self.isolation.is_on_trial(slot)
    }

    /// Topics whose records do not end while later ones of others do.
    pub fn stalled_topics(&self) -> impl Iterator<Item = TopicIndex> {
        (0..self.routes.len()).filter(|topic| self.is_stalled(*topic))
    }

    /// Topics whose records do not end, whatever others do.
    pub fn overdue_topics(&self, now: Instant) -> impl Iterator<Item = TopicIndex> {
        let oldest = |topic: &TopicIndex| self.unacknowledged.oldest(*topic);
        (0..self.routes.len()).filter(move |topic| {
            oldest(topic)
                .is_some_and(|at| now.saturating_duration_since(at) >= self.breaker.slow_after())
        })
    }

    fn is_stalled(&self, topic: TopicIndex) -> bool {
        self.unacknowledged
            .is_overtaken(topic, self.breaker.slow_after())
    }

    /// Topics with a reason to report, and whether rows went astray.
    #[must_use]
    pub fn topic_problems(&self) -> (Vec<(TopicIndex, ProblemClass)>, bool) {
        let (mut topics, astray) = self.topic_states.reasons();
        topics.extend(
            self.stalled_topics()
                .map(|topic| (topic, ProblemClass::TopicStalled)),
        );
        (topics, astray)
    }

    /// Whether a topic must wait until nothing of it is with a producer any more: it is stalled; or
    /// no record of any topic ends, and what it has there is probe enough; or it has so much there
    /// that it could take the window from the others; or enough of it waits for trials.
    fn must_wait(&self, topic: TopicIndex, now: Instant) -> bool {
        let Some(oldest) = self.unacknowledged.oldest(topic) else {
            return false;
        };
        let is_old = now.saturating_duration_since(oldest) >= self.breaker.slow_after() / SOON;
        self.is_stalled(topic)
            || self.breaker.state() == BreakerState::Open
            || is_old && self.has_its_share(topic, self.free_for_others(topic))
            || self.isolation.has_enough_to_try(topic)
    }

    /// A part of what those that wait have left of the window, so that any number of them leaves
    /// something; or of a lane. A relay of one topic has nobody to share with.
    fn has_its_share(&self, topic: TopicIndex, free: Amount) -> bool {
        let (rows, of_lane) = (
            self.unacknowledged.rows(topic),
            share_of_rows(self.in_flight.budget().rows_per_lane),
        );
        self.routes.len() > 1
            && (rows >= share_of_rows(free.rows)
                || self.unacknowledged.bytes(topic) >= share_of_bytes(free.bytes)
                || rows >= of_lane && self.unacknowledged.most_in_a_lane(topic) >= of_lane)
    }

    /// What the other topics that wait have left of the window.
    fn free_for_others(&self, topic: TopicIndex) -> Amount {
        let (held, budget) = (
            self.held_by(|other| other != topic && !self.topic_states.is_active(other)),
            self.in_flight.budget(),
        );
        Amount {
            rows: budget.rows.saturating_sub(held.rows),
            bytes: budget.bytes.saturating_sub(held.bytes),
        }
    }

    /// What these topics have with the producer.
    fn held_by(&self, of: impl Fn(TopicIndex) -> bool) -> Amount {
        let topics = (0..self.routes.len()).filter(|topic| of(*topic));
        topics.fold(Amount::default(), |sum, topic| Amount {
            rows: sum.rows + self.unacknowledged.rows(topic),
            bytes: sum.bytes + self.unacknowledged.bytes(topic),
        })
    }

    /// Rows that the next fetch may bring. None while much of it could be taken by one topic that
    /// has its share: in a moment that has ended, or the topic waits.
    pub(super) fn room_rows(&self) -> usize {
        let stuck = self.held_by(|topic| !self.topic_states.is_active(topic));
        let free = self.in_flight.budget().rows.saturating_sub(stuck.rows);
        let room = self
            .in_flight
            .room_rows()
            .min(self.breaker.room(self.in_flight.sent() - stuck.rows));
        let bytes = self.in_flight.budget().bytes.saturating_sub(stuck.bytes);
        let shared = (0..self.routes.len()).any(|topic| {
            self.topic_states.is_active(topic)
                && self.has_its_share(topic, Amount { rows: free, bytes })
        });
        let crowded = self.in_flight.room_rows() < free / CROWDED
            && self
                .lanes
                .iter()
                .flatten()
                .any(|lane| lane.has_more && !lane.draining);
        match (shared || crowded, self.routes.len()) {
            (true, _) => 0,
            (false, 1) => room,
            (false, _) => room.min(share_of_rows(free)),
        }
    }

    /// Bytes that the next fetch may bring.
    pub(super) fn room_bytes(&self) -> usize {
        let room = self.in_flight.room_bytes();
        if self.routes.len() > 1 {
            room.min(share_of_bytes(self.in_flight.budget().bytes))
        } else {
            room
        }
    }

    /// Rows that the next fetch may bring of a lane.
    pub(super) fn lane_room(&self, lane: u8) -> usize {
        let room = self.in_flight.lane_room(lane);
        if self.routes.len() > 1 {
            room.min(share_of_rows(self.in_flight.budget().rows_per_lane))
        } else {
            room
        }
    }
}

fn share_of_rows(rows: usize) -> usize {
    (rows / SHARE).max(SHARE_ROWS_MIN)
}

fn share_of_bytes(bytes: usize) -> usize {
    (bytes / SHARE).max(SHARE_BYTES_MIN)
}

/// What lanes on their way back wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainBlockers {
    /// Records of the main producer.
    pub main: bool,
    /// Records on trial.
    pub trial: bool,
}

#[derive(Clone, Copy, Default)]
struct Amount {
    rows: usize,
    bytes: usize,
}

#[cfg(test)]
mod tests;
