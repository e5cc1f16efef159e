//! What follows when records are not acknowledged: the breaker opens if the cluster takes nothing,
//! and a topic is paused if only its own records wait, or if it could take the window from the
//! others. Pure.

use std::time::{Duration, Instant};

use crate::{
    kafka::BrokerTimes,
    relay::core::{
        Core,
        breaker::{Breaker, ClusterError},
        fair_share::{Amount, SHARE_APPLIES_AFTER_DIVISOR},
        ids::{Slot, TopicIndex},
        jitter::Jitter,
        topic_state::{TopicState, TopicStates},
    },
    report::{BreakerState, ProblemClass},
    settings::BreakerSettings,
};

impl Core {
    /// Sets the times of the breaker, and a seed for pauses that differ from those of other relays.
    /// Call it before the first row is sent: it forgets what is known of topics.
    #[must_use]
    pub fn with_breaker(mut self, settings: BreakerSettings, seed: u64, now: Instant) -> Self {
        let rows = self.in_flight.budget().rows;
        self.breaker = Breaker::new(settings, rows, Jitter::seeded(seed), now);
        let jitter = Jitter::seeded(seed.rotate_left(32));
        self.topics = TopicStates::new(self.routes.len()).with_jitter(jitter);
        self.overdue_after = settings.slow_after();
        self
    }

    /// The breaker of the cluster.
    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Checks what has not been acknowledged until now, and pauses topics that must wait. Call it
    /// once per turn of the loop.
    pub fn check_acknowledgements(&mut self, cluster_error: ClusterError, now: Instant) {
        self.update_overdue_after(now);
        self.evaluate_breaker(cluster_error, now);
        self.drain_topics(now);
    }

    /// Takes what was measured of the brokers: how far away they are, and for how long they mute
    /// requests.
    pub fn on_broker_times(&mut self, times: BrokerTimes, now: Instant) {
        self.throttle.on_statistics(times.throttle, now);
        self.send_window.on_statistics(times.throttle, now);
        // A request that was muted took longer than the way to the broker and back.
        if let Some(round_trip) = times.round_trip
            && self.throttle.delay(now).is_zero()
        {
            self.patience.on_round_trip(round_trip);
        }
    }

    /// Round trip to the brokers, as it was last measured.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.patience.round_trip()
    }

    /// For how long the brokers mute requests because of a quota, if a person should know.
    #[must_use]
    pub fn throttled_for(&self, now: Instant) -> Option<Duration> {
        self.throttle.reported_length(now)
    }

    /// Time that records may take longer than with brokers next door and without a quota.
    #[must_use]
    pub fn allowance(&self, now: Instant) -> Duration {
        self.patience.of_record(&self.throttle, now)
    }

    fn update_overdue_after(&mut self, now: Instant) {
        self.patience.forget_old(now);
        self.overdue_after = self.breaker.slow_after() + self.allowance(now);
    }

    fn evaluate_breaker(&mut self, cluster_error: ClusterError, now: Instant) {
        // What a stalled topic has with the producers says nothing about the cluster.
        let stalled = self.unacknowledged_of(|topic, _| self.is_stalled(topic));
        let unacknowledged = self.in_flight.sent() - stalled.rows;
        let allowance = self.patience.of_cluster(&self.throttle, now);
        self.breaker
            .evaluate(unacknowledged, cluster_error, allowance, now);
    }

    /// Pauses active topics that must wait until no row of them is with a producer.
    fn drain_topics(&mut self, now: Instant) {
        for topic in self.routes.indexes() {
            if self.must_drain(topic, now) {
                self.exclude_topic(topic);
                self.topics[topic].drain();
            }
        }
    }

    /// Records that the brokers answered a request for metadata.
    pub fn on_brokers_answered(&mut self, now: Instant) {
        self.breaker.on_brokers_answered(self.in_flight.sent(), now);
    }

    /// Records that the producer was replaced for an unknown cause. Returns the pause before the
    /// next one.
    pub fn on_producer_rebuilt(&mut self, now: Instant) -> Duration {
        self.breaker.on_producer_rebuilt(now)
    }

    /// Whether there are records that may never end: the breaker is not closed, or a topic is
    /// stalled.
    #[must_use]
    pub fn has_stuck_records(&self) -> bool {
        self.breaker.state() != BreakerState::Closed || self.stalled_topics().next().is_some()
    }

    /// Whether the row in a slot is with the probe producer.
    #[must_use]
    pub fn is_probed(&self, slot: Slot) -> bool {
        self.isolation.is_probed(slot)
    }

    /// Topics whose records are not acknowledged while later records of others are.
    pub fn stalled_topics(&self) -> impl Iterator<Item = TopicIndex> {
        self.routes
            .indexes()
            .filter(|topic| self.is_stalled(*topic))
    }

    /// Topics whose oldest record is overdue, whether or not records of others are acknowledged.
    pub fn overdue_topics(&self, now: Instant) -> impl Iterator<Item = TopicIndex> {
        self.routes
            .indexes()
            .filter(move |topic| self.is_older(*topic, self.overdue_after, now))
    }

    /// Whether any topic is overdue.
    #[must_use]
    pub fn any_is_overdue(&self, now: Instant) -> bool {
        self.overdue_topics(now).next().is_some()
    }

    /// Topics with a problem to report, and whether there are rows without a declared topic.
    #[must_use]
    pub fn topic_problems(&self) -> (Vec<(TopicIndex, ProblemClass)>, bool) {
        let mut problems = self.topics.problems();
        for topic in self.stalled_topics() {
            problems.push((topic, ProblemClass::TopicStalled));
        }
        (problems, self.topics.has_undeclared())
    }

    fn is_stalled(&self, topic: TopicIndex) -> bool {
        self.topics.is_overtaken(topic, self.overdue_after)
    }

    /// Whether the oldest record of a topic has been unacknowledged for `age`.
    fn is_older(&self, topic: TopicIndex, age: Duration, now: Instant) -> bool {
        self.topics[topic]
            .unacknowledged()
            .oldest_sent_at()
            .is_some_and(|sent_at| now.saturating_duration_since(sent_at) >= age)
    }

    /// Whether an active topic must wait until no row of it is with a producer.
    fn must_drain(&self, topic: TopicIndex, now: Instant) -> bool {
        let state = &self.topics[topic];
        state.is_active() && !state.is_drained() && self.must_stop_sending(topic, now)
    }

    /// Whether no more of a topic may be sent for now. This holds if
    /// - it is stalled, or
    /// - the breaker is open: what the topic has sent already probes the cluster, or
    /// - it is slow and has used up its share of the window, or
    /// - enough of its rows wait to be probed.
    fn must_stop_sending(&self, topic: TopicIndex, now: Instant) -> bool {
        let share_applies_after = self.overdue_after / SHARE_APPLIES_AFTER_DIVISOR;
        self.is_stalled(topic)
            || self.breaker.state() == BreakerState::Open
            || self.is_older(topic, share_applies_after, now) && self.has_used_up_share(topic)
            || self.isolation.has_enough_candidates(topic)
    }

    /// Whether a topic has used up its share of what the other paused topics leave of the window.
    fn has_used_up_share(&self, topic: TopicIndex) -> bool {
        let of_others = self.unacknowledged_of(|other, state| other != topic && !state.is_active());
        self.fair_share.is_used_up(
            self.topics[topic].unacknowledged(),
            self.send_window.limit().without(of_others),
        )
    }

    /// What paused topics have with the producers.
    pub(super) fn unacknowledged_of_paused(&self) -> Amount {
        self.unacknowledged_of(|_, state| !state.is_active())
    }

    /// What these topics have with the producers.
    pub(super) fn unacknowledged_of(&self, of: impl Fn(TopicIndex, &TopicState) -> bool) -> Amount {
        let mut amount = Amount::default();
        for (topic, state) in self.topics.iter() {
            if of(topic, state) {
                amount.rows += state.unacknowledged().rows();
                amount.bytes += state.unacknowledged().bytes();
            }
        }
        amount
    }
}

#[cfg(test)]
mod tests;
