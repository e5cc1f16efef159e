//! Whether a producer may send, as far as its producer id is concerned. librdkafka reports each
//! change of that state in its log, and nowhere else at once. Pure but for the clock.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::config::RDKafkaLogLevel;

/// What has to be logged for [`Idempotence`]: a context of librdkafka's property `debug`, with a
/// line for each change and none for a record.
pub(super) const DEBUG_CONTEXT: &str = "eos";
/// Level of these lines.
pub(super) const LOG_LEVEL: RDKafkaLogLevel = RDKafkaLogLevel::Debug;
const FACILITY: &str = "IDEMPSTATE";
const ARROW: &str = " -> ";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The producer has no producer id yet.
    #[default]
    Waiting,
    /// The producer sends.
    Assigned,
    /// The producer sends nothing before all requests under way have ended. Then it raises its
    /// epoch. A request to a broker that is frozen ends after `socket.timeout.ms`.
    Draining(Instant),
}

/// Follows the state of one producer. It learns of changes while the producer is polled: the log's
/// lines wait in the queue of its events.
#[derive(Debug, Default)]
pub(super) struct Idempotence(Mutex<State>);

impl Idempotence {
    /// Takes a line of librdkafka's log.
    pub(super) fn on_log(&self, facility: &str, message: &str) {
        if facility != FACILITY {
            return;
        }
        if let Some((_, state)) = message.split_once(ARROW) {
            *self.state() = state_of(state, Instant::now());
        }
    }

    /// How long the producer has been waiting for its requests to end, to raise its epoch. Zero if
    /// it is not.
    pub(super) fn draining_for(&self) -> Duration {
        match *self.state() {
            State::Draining(since) => since.elapsed(),
            State::Waiting | State::Assigned => Duration::ZERO,
        }
    }

    /// Whether the producer has a producer id, and sends.
    pub(super) fn has_id(&self) -> bool {
        *self.state() == State::Assigned
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// librdkafka's name of a state -> state.
fn state_of(name: &str, now: Instant) -> State {
    match name {
        "Assigned" => State::Assigned,
        "DrainReset" | "DrainBump" => State::Draining(now),
        _ => State::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_about_the_state_count_and_a_drain_takes_time() {
        let idempotence = Idempotence::default();
        assert!(!idempotence.has_id());
        idempotence.on_log("GETPID", "state change WaitPID -> Assigned");
        assert!(!idempotence.has_id());
        idempotence.on_log(FACILITY, "[thrd:main]: state change WaitPID -> Assigned");
        assert!(idempotence.has_id());
        assert_eq!(idempotence.draining_for(), Duration::ZERO);
        idempotence.on_log(FACILITY, "[thrd:x]: state change Assigned -> DrainBump");
        assert!(!idempotence.has_id());
        std::thread::yield_now();
        assert!(idempotence.draining_for() > Duration::ZERO);
    }
}
