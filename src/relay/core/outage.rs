//! What the core makes of a cluster or a topic that does not answer: the breaker's window, and topics that wait for what they have sent. Pure.

use std::time::Instant;

use super::Core;
use crate::relay::{
    breaker::Breaker,
    jitter::Jitter,
    stops::{Stops, Wait},
    window::TopicIndex,
};
use crate::{report::BreakerState, settings::BreakerSettings};

/// A topic may have this part of the window, and of a lane, with the producer for long.
const SHARE: usize = 4;
/// For long: this part of `slowAfter`. Whoever is faster may have everything.
const SOON: u32 = 4;

impl Core {
    /// With these times, and pauses that differ from those of other relays.
    #[must_use]
    pub fn with_breaker(mut self, settings: BreakerSettings, seed: u64, now: Instant) -> Self {
        self.breaker = Breaker::new(settings, self.window.budget().rows, Jitter::seeded(seed), now);
        self.stops = Stops::new(self.routes.len()).jittered(Jitter::seeded(seed.rotate_left(32)));
        self
    }

    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Looks at what was not acknowledged until now; `trouble`: see [`Breaker::look`]. Once a turn of the loop.
    pub fn look(&mut self, trouble: bool, now: Instant) {
        self.breaker.look(self.window.sent(), trouble, now);
        for topic in 0..self.routes.len() {
            if let Some(wait) = self.must_wait(topic, now)
                && self.stops.can_wait(topic, wait)
            {
                self.hold_all();
                self.stops.wait(topic, wait);
            }
        }
    }

    /// The brokers answered a question.
    pub fn answered(&mut self, now: Instant) {
        self.breaker.answered(self.window.sent(), now);
    }

    /// The producer was thrown out without a cause; returns the pause before the next one.
    pub fn rebuilt(&mut self, now: Instant) -> std::time::Duration {
        self.breaker.rebuilt(now)
    }

    /// Whether lanes on their way back wait for records that do not end: those of a stalled topic, or any while the breaker is not Closed.
    #[must_use]
    pub fn is_drain_stuck(&self) -> bool {
        let mut draining = (0..).zip(&self.lanes).filter(|(_, lane)| lane.as_ref().is_some_and(|lane| lane.draining));
        let sick = self.breaker.state() != BreakerState::Closed || self.stops.is_any_stalled();
        sick && draining.any(|(lane, _)| self.outstanding.has_lane(lane))
    }

    /// Whether a topic must wait until nothing of it is with the producer any more, and why.
    fn must_wait(&self, topic: TopicIndex, now: Instant) -> Option<Wait> {
        let age = now.saturating_duration_since(self.outstanding.oldest(topic)?);
        let slow_after = self.breaker.slow_after();
        if age >= slow_after && self.outstanding.is_overtaken(topic) {
            Some(Wait::Stalled)
        } else if self.breaker.state() == BreakerState::Open {
            Some(Wait::Outage)
        } else if age >= slow_after / SOON && self.routes.len() > 1 && self.has_too_much(topic) {
            Some(Wait::Share)
        } else {
            None
        }
    }

    /// A part of what those that wait have left of the window, so that any number of them leaves something.
    fn has_too_much(&self, topic: TopicIndex) -> bool {
        let (mut rows, mut bytes) = (self.window.budget().rows, self.window.budget().bytes);
        for other in (0..self.routes.len()).filter(|other| *other != topic && !self.stops.flows(*other)) {
            rows = rows.saturating_sub(self.outstanding.rows(other));
            bytes = bytes.saturating_sub(self.outstanding.bytes(other));
        }
        self.outstanding.rows(topic) >= rows / SHARE
            || self.outstanding.bytes(topic) >= bytes / SHARE
            || self.outstanding.most_in_a_lane(topic) >= self.window.budget().rows_per_lane / SHARE
    }

    /// Rows that may be fetched now.
    pub(super) fn room_rows(&self) -> usize {
        self.window.room_rows().min(self.breaker.room(self.window.sent()))
    }

    /// With more waiting than fits, many small fetches would only cost: a quarter of the window has to be free, not counting what is stuck.
    pub(super) fn is_crowded(&self) -> bool {
        let stuck: usize = (0..self.routes.len()).filter(|topic| !self.stops.flows(*topic)).map(|topic| self.outstanding.rows(topic)).sum();
        self.window.room_rows() < (self.window.budget().rows - stuck) / SHARE
            && self.lanes.iter().flatten().any(|lane| lane.hungry && !lane.draining)
    }
}
