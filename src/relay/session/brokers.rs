//! What the brokers report, and what their silence means: topic metadata, the breaker, and lanes
//! that must not wait for records that never end. What follows from it is decided in the core.

use std::time::Instant;

use crate::{
    relay::{
        core::TopicPresence,
        session::{
            Session,
            producers::Grace,
            record_problems::{kafka_throttled, record_problems},
        },
        status::ProblemSource,
        topic_metadata::{Restart, TopicMetadata},
    },
    report::BreakerState,
};

impl Session<'_> {
    /// Takes what the brokers describe: which topics exist, their partitions and leaders, and how
    /// large their records may be.
    pub(super) fn on_topic_metadata(&mut self, metadata: &TopicMetadata) {
        let now = Instant::now();
        self.record_presence(metadata, now);
        if self.core.in_flight().sent() == 0 {
            // Brokers close idle connections, for example: that means nothing for the next records.
            self.producers.clear_cluster_error();
        }
        self.fit_producers_to_topics();
        self.fit_producers_to_partitions(metadata);
        self.core.on_brokers_answered(now);
        self.replace_if_leaders_are_stale(metadata, now);
    }

    /// Records which topics exist.
    fn record_presence(&mut self, metadata: &TopicMetadata, now: Instant) {
        for (topic, is_usable) in metadata.usable() {
            let presence = if is_usable {
                TopicPresence::Present
            } else {
                TopicPresence::Missing
            };
            self.core.on_topic_metadata(topic, presence, now);
        }
    }

    /// Replaces the producers if they were made for other sizes than the topics have now.
    fn fit_producers_to_topics(&mut self) {
        if let Some(limits) = self.process.metadata.limits() {
            self.core.on_topic_limits(limits);
        }
        // A batch that is larger than the topic's max.message.bytes is rejected as a whole:
        // librdkafka never splits one.
        self.producers
            .set_batch_limits(self.process.metadata.batch_limits());
        if !self.producers.fits_topics() {
            self.replace_producers_for(
                "a topic takes only smaller batches than it is configured for",
            );
        }
    }

    /// Records how many partitions topics have. Replaces the producers if keys have moved that they
    /// sent records of.
    fn fit_producers_to_partitions(&mut self, metadata: &TopicMetadata) {
        let mut has_moved_keys = false;
        for (topic, partitions) in metadata.partitions() {
            has_moved_keys |= self.core.on_partition_count(topic, partitions);
        }
        if has_moved_keys && self.producers.is_open() {
            tracing::info!(
                in_flight = self.core.in_flight().sent(),
                "the producer is replaced once its records in flight are acknowledged: topics have \
                 other partitions than it was made for"
            );
            // At once: keys move, and records that are out may be in their old partitions.
            self.producers.replace(Grace::Flush, Instant::now());
        }
    }

    /// Replaces the producers if they seem to ask brokers that do not lead any more: records are
    /// overdue although each partition of their topic has a leader.
    fn replace_if_leaders_are_stale(&mut self, metadata: &TopicMetadata, now: Instant) {
        let overdue = self.core.overdue_topics(now);
        let overdue = overdue.filter(|topic| metadata.is_led(*topic));
        if self.producers.has_stale_leaders(overdue, now) {
            tracing::warn!(
                "both producers are replaced: records are not acknowledged although their \
                 partitions have leaders; a topic may have been deleted and created again"
            );
            self.producers.replace(Grace::LastReports, now);
        }
    }

    /// Evaluates what is unacknowledged, once a turn, and reports what changed.
    pub(super) fn observe_kafka(&mut self, now: Instant) {
        self.observe_broker_times(now);
        self.core
            .check_acknowledgements(self.producers.cluster_error(), now);
        self.report_breaker(now);
        self.report_record_problems(now);
        self.request_leaders(now);
        if self.process.metadata.restart_if_stuck() == Restart::ClockSetBack {
            // They work until a wait of theirs begins to last: what is in flight may end.
            self.producers.replace(Grace::Flush, now);
        }
        self.producers.retire_if_drain_is_stuck(&self.core, now);
        if self.process.memory.is_reported_long_enough(now) {
            self.reporter.set_problems(ProblemSource::Sequence, vec![]);
        }
    }

    /// Takes how far away the brokers are and for how long they mute requests, if producers have
    /// measured that, and reports it.
    fn observe_broker_times(&mut self, now: Instant) {
        let Some(times) = self.producers.take_broker_times() else {
            return;
        };
        self.core.on_broker_times(times, now);
        self.reporter
            .set_broker_times(self.core.round_trip(), times.throttle);
        self.reporter.set_clients(self.producers.clients());
        let throttled = self.core.throttled_for(now).map(|muted_for| {
            let options = self.process.options;
            kafka_throttled(&options.settings.kafka, &options.pod, muted_for)
        });
        let problems = throttled.into_iter().collect();
        self.reporter.set_problems(ProblemSource::Quota, problems);
    }

    /// Reports paused topics, parked keys, undeclared topics and clocks that are wrong, if it is
    /// time.
    fn report_record_problems(&mut self, now: Instant) {
        if now >= self.timers.record_problems {
            self.timers.record_problems_reported(now);
            self.reporter.end_minutes_of_row_log(now);
            self.reporter
                .set_problems(ProblemSource::Records, record_problems(&self.core));
            self.reporter
                .set_problems(ProblemSource::Clocks, self.clocks.problems(now));
        }
    }

    /// Requests the leaders of partitions if records are overdue and it is time.
    fn request_leaders(&mut self, now: Instant) {
        if now >= self.timers.leaders && self.core.any_is_overdue(now) {
            self.timers.leaders_requested(now);
            self.process.metadata.request_now();
        }
    }

    /// Reports a change of the breaker's state, in the status, the log and the next renewal.
    fn report_breaker(&mut self, now: Instant) {
        let state = self.core.breaker().state();
        let Some(before) = self.reporter.set_breaker(state) else {
            return;
        };
        // The renewal writes it where the other relays read it.
        self.timers.renewal = now;
        log_breaker(state, before, self.core.in_flight().sent());
        if state == BreakerState::Open {
            // With no record in flight, an answer of the brokers may close it again.
            self.process.metadata.request_now();
        }
    }
}

/// Logs a change of the breaker; `rows` are with the producers.
fn log_breaker(state: BreakerState, before: BreakerState, rows: usize) {
    let before = before.name();
    match state {
        BreakerState::Open => tracing::warn!(
            rows,
            before,
            "breaker Open: Kafka acknowledges no records; rows wait in the table, and the relay \
             retries automatically"
        ),
        BreakerState::Slow => tracing::warn!(
            rows,
            before,
            "breaker Slow: Kafka has acknowledged no records for a while; half as many rows may \
             be in flight"
        ),
        BreakerState::Closed => tracing::info!(
            rows,
            before,
            "breaker Closed: Kafka acknowledges records again"
        ),
    }
}
