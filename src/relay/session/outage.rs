//! A cluster or a topic that does not answer: what the loop tells of it, and lanes that must not
//! wait for it. What to do is decided in the core.

use super::*;
use crate::report::BreakerState;

/// Lanes on their way back wait at most this long for records that do not end.
const STUCK_MAX: Duration = Duration::from_secs(2);
/// While records wait, the brokers are asked this often who leads.
const LEADERS_EVERY: Duration = Duration::from_secs(5);
/// What rests is told this often.
const TOPICS_EVERY: Duration = Duration::from_millis(500);

impl Session<'_> {
    pub(super) fn look(&mut self, now: Instant) {
        let cluster_error = match self.cluster_error.get() {
            Some(_) => ClusterError::Reported,
            None => ClusterError::None,
        };
        self.core.check_acknowledgements(cluster_error, now);
        self.tell_breaker(now);
        if now >= self.timers.topics {
            self.timers.topics = now + TOPICS_EVERY;
            self.tell_topics();
        }
        if now >= self.timers.leaders && self.core.overdue_topics(now).next().is_some() {
            self.timers.leaders = now + LEADERS_EVERY;
            self.watch.request_now();
        }
        if self.watch.restart_if_stuck() == Restart::ClockSetBack {
            self.replace_producers(now);
        }
        self.end_stuck_drain(now);
        if self.memory.is_reported_long_enough(now) {
            self.status.set_problems(ProblemSource::Sequence, vec![]);
        }
    }

    fn tell_breaker(&mut self, now: Instant) {
        let (state, before) = (self.core.breaker().state(), self.breaker);
        if state == before {
            return;
        }
        self.breaker = state;
        // The other relays see it in the next renewal.
        self.timers.renew = now;
        self.status.set_breaker(state, kafka::rfc3339(now_us()));
        let (rows, before) = (self.core.in_flight().sent(), before.name());
        match state {
            BreakerState::Open => {
                tracing::warn!(
                    rows,
                    before,
                    "breaker Open: Kafka acknowledges nothing; rows wait in the table, and it is \
                     tried again by itself"
                );
                self.watch.request_now();
            }
            BreakerState::Slow => {
                tracing::warn!(
                    rows,
                    before,
                    "breaker Slow: Kafka acknowledges nothing for a while; the window is halved"
                );
            }
            BreakerState::Closed => tracing::info!(
                rows,
                before,
                "breaker Closed: Kafka acknowledges records again"
            ),
        }
    }

    /// What the producer holds may never end; a new producer starts at the lowest unsettled rows,
    /// here or where the lanes go.
    fn end_stuck_drain(&mut self, now: Instant) {
        let waits_for = self.core.drain_blockers();
        if !(waits_for.main || waits_for.trial) {
            self.draining_since = None;
            return;
        }
        let since = *self.draining_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= STUCK_MAX && self.core.has_stuck_records() {
            self.draining_since = None;
            if waits_for.trial {
                self.trial_by = self.trial.as_ref().map(|_| now);
            }
            if waits_for.main {
                self.retire_producer(
                    "lanes are asked for, and Kafka does not take what is in flight for them",
                );
            }
        }
    }
}

pub(super) fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as i64)
}
