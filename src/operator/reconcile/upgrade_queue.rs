//! Whose turn it is: rollouts that the operator itself starts (a new image, new settings) go
//! through a queue, so that one bad version reaches a few relays and not all. Changes by a user do
//! not wait. Pure: requests, progress and `now` in; turns out.
//!
//! ```text
//! (due) --> waiting --> under way --> done: failures in a row are 0 again
//!              ^            |--> paused or invalid: it leaves its slot, and asks again later
//!              |            `--> failed: retried outside of the queue; the third in a row stops it
//!              `--- stopped until one of the failed ones succeeds, or the operator restarts
//! ```

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::operator::identity::RelayKey;

/// Failures in a row that stop the queue.
const FAILURES_MAX: usize = 3;
/// Longest turn. A rollout gives up after ten minutes without progress, and so does a migration: a
/// relay that holds its turn for longer has failed, whatever it reports.
const TURN_TIME_MAX: SignedDuration = SignedDuration::from_mins(15);

/// All upgrades of this operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct UpgradeQueue {
    /// Start of each relay's turn.
    under_way: BTreeMap<RelayKey, Timestamp>,
    waiting: BTreeSet<RelayKey>,
    /// Relays whose upgrade failed and has not succeeded since.
    failed: BTreeSet<RelayKey>,
    failures_in_a_row: usize,
    /// Relays that asked since the operator started.
    known: BTreeSet<RelayKey>,
}

/// What the next write of a relay's children is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// No change, or one that its manifest asks for.
    BySpec,
    /// A new revision of the same manifest.
    Upgrade,
}

/// Whether the relay's pods are being replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PodReplacement {
    UnderWay,
    Done,
}

/// Whether a relay may get its new revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Go,
    /// Others come first.
    Waiting,
    /// Too many upgrades failed.
    Stopped,
}

/// Progress of the rollout of one relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Rolling,
    Done,
    Failed,
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub waiting: usize,
    pub under_way: usize,
    pub failures_in_a_row: usize,
    pub stopped: bool,
}

impl UpgradeQueue {
    /// Decides whether a relay may get its next revision, with at most `slots` upgrades at a time.
    ///
    /// Each reconciliation asks, so turns that take too long end here: their holders may not report
    /// any more. Pods that are being replaced when a relay asks for the first time mean a turn that
    /// began before the operator started.
    pub(crate) fn turn(
        &mut self,
        key: &RelayKey,
        change: Change,
        pods: PodReplacement,
        slots: usize,
        now: Timestamp,
    ) -> Turn {
        self.end_overdue_turns(now);
        let asks_first = self.known.insert(key.clone());
        match change {
            Change::BySpec => {
                self.waiting.remove(key);
                if asks_first && pods == PodReplacement::UnderWay {
                    self.under_way.insert(key.clone(), now);
                }
                Turn::Go
            }
            Change::Upgrade => self.upgrade_turn(key, slots, now),
        }
    }

    fn upgrade_turn(&mut self, key: &RelayKey, slots: usize, now: Timestamp) -> Turn {
        if self.under_way.contains_key(key) || self.failed.contains(key) {
            return Turn::Go;
        }
        if self.is_stopped() || self.under_way.len() >= slots {
            self.waiting.insert(key.clone());
            return if self.is_stopped() {
                Turn::Stopped
            } else {
                Turn::Waiting
            };
        }
        self.waiting.remove(key);
        self.under_way.insert(key.clone(), now);
        Turn::Go
    }

    /// Records the progress of a relay that has its turn.
    pub(crate) fn note(&mut self, key: &RelayKey, progress: Progress) {
        match progress {
            Progress::Rolling => {}
            Progress::Done => self.succeed(key),
            Progress::Failed => self.fail(key),
        }
    }

    /// Frees the slot of a relay that is not written now: it is paused, or its manifest is invalid.
    /// It asks again later.
    pub(crate) fn leave_queue(&mut self, key: &RelayKey) {
        self.under_way.remove(key);
        self.waiting.remove(key);
    }

    /// Drops a relay that was deleted.
    pub(crate) fn forget(&mut self, key: &RelayKey) {
        self.leave_queue(key);
        self.failed.remove(key);
        self.known.remove(key);
        // Only a failed relay that succeeds ends the stop: without any, nothing else would.
        if self.failed.is_empty() {
            self.failures_in_a_row = 0;
        }
    }

    /// Returns the numbers for metrics.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            waiting: self.waiting.len(),
            under_way: self.under_way.len(),
            failures_in_a_row: self.failures_in_a_row,
            stopped: self.is_stopped(),
        }
    }

    fn end_overdue_turns(&mut self, now: Timestamp) {
        let overdue: Vec<RelayKey> = self
            .under_way
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= TURN_TIME_MAX)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &overdue {
            self.fail(key);
        }
    }

    /// Records a turn that succeeded, or a retry after one that failed.
    fn succeed(&mut self, key: &RelayKey) {
        let had_turn = self.under_way.remove(key).is_some();
        let had_failed = self.failed.remove(key);
        if had_turn || had_failed {
            self.failures_in_a_row = 0;
        }
    }

    /// Counts a failed turn. A relay without a turn failed before, or carries out its manifest.
    fn fail(&mut self, key: &RelayKey) {
        if self.under_way.remove(key).is_some() {
            self.failed.insert(key.clone());
            self.failures_in_a_row += 1;
        }
    }

    fn is_stopped(&self) -> bool {
        self.failures_in_a_row >= FAILURES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::fixtures::{at, now};

    fn key(name: &str) -> RelayKey {
        RelayKey::new("n", name)
    }

    fn upgrade(queue: &mut UpgradeQueue, name: &str, seconds: i64) -> Turn {
        queue.turn(
            &key(name),
            Change::Upgrade,
            PodReplacement::Done,
            2,
            at(seconds),
        )
    }

    fn end(queue: &mut UpgradeQueue, name: &str, progress: Progress) {
        queue.note(&key(name), progress);
    }

    #[test]
    fn slots_are_given_until_none_is_left_and_again_when_an_upgrade_is_done() {
        let mut queue = UpgradeQueue::default();
        let turns: Vec<Turn> = ["a", "b", "c", "a"]
            .iter()
            .map(|name| upgrade(&mut queue, name, 0))
            .collect();
        assert_eq!(
            turns,
            [Turn::Go, Turn::Go, Turn::Waiting, Turn::Go],
            "who has a turn keeps it"
        );
        assert_eq!((queue.counts().waiting, queue.counts().under_way), (1, 2));
        end(&mut queue, "a", Progress::Rolling);
        assert_eq!(upgrade(&mut queue, "c", 1), Turn::Waiting);
        end(&mut queue, "a", Progress::Done);
        assert_eq!(upgrade(&mut queue, "c", 2), Turn::Go);
        assert_eq!(queue.counts().waiting, 0);
    }

    #[test]
    fn a_change_of_the_manifest_does_not_wait() {
        let mut queue = UpgradeQueue::default();
        for name in ["a", "b", "c"] {
            upgrade(&mut queue, name, 0);
        }
        assert_eq!(
            queue.turn(&key("c"), Change::BySpec, PodReplacement::Done, 2, now()),
            Turn::Go
        );
        assert_eq!(queue.counts().waiting, 0);
    }

    #[test]
    fn three_failures_in_a_row_stop_the_queue_until_one_of_them_succeeds() {
        let mut queue = UpgradeQueue::default();
        for name in ["a", "b", "c"] {
            assert_eq!(upgrade(&mut queue, name, 0), Turn::Go, "{name}");
            end(&mut queue, name, Progress::Failed);
            end(&mut queue, name, Progress::Failed);
        }
        assert_eq!(queue.counts().failures_in_a_row, 3, "each counts once");
        assert_eq!(upgrade(&mut queue, "d", 1), Turn::Stopped);
        assert_eq!(
            upgrade(&mut queue, "a", 1),
            Turn::Go,
            "a failed one is retried"
        );
        end(&mut queue, "a", Progress::Done);
        assert_eq!(upgrade(&mut queue, "d", 2), Turn::Go);
    }

    #[test]
    fn a_success_between_failures_counts_from_the_start() {
        let mut queue = UpgradeQueue::default();
        for (name, progress) in [
            ("a", Progress::Failed),
            ("b", Progress::Failed),
            ("c", Progress::Done),
            ("d", Progress::Failed),
        ] {
            upgrade(&mut queue, name, 0);
            end(&mut queue, name, progress);
        }
        assert_eq!(upgrade(&mut queue, "e", 1), Turn::Go);
    }

    #[test]
    fn a_turn_that_does_not_end_is_a_failure() {
        let mut queue = UpgradeQueue::default();
        for name in ["a", "b"] {
            upgrade(&mut queue, name, 0);
        }
        end(&mut queue, "a", Progress::Rolling);
        assert_eq!(upgrade(&mut queue, "c", 899), Turn::Waiting);
        assert_eq!(
            upgrade(&mut queue, "c", 900),
            Turn::Go,
            "whatever they report, or if they report nothing"
        );
        assert_eq!(
            (queue.counts().under_way, queue.counts().failures_in_a_row),
            (1, 2)
        );
    }

    #[test]
    fn a_relay_that_leaves_the_queue_frees_its_slot_and_may_ask_again() {
        let mut queue = UpgradeQueue::default();
        for name in ["a", "b", "c"] {
            upgrade(&mut queue, name, 0);
        }
        for name in ["a", "c"] {
            queue.leave_queue(&key(name));
        }
        assert_eq!(
            queue.counts(),
            Counts {
                under_way: 1,
                ..Counts::default()
            }
        );
        assert_eq!(upgrade(&mut queue, "d", 1), Turn::Go);
        assert_eq!(upgrade(&mut queue, "a", 2), Turn::Waiting);
        end(&mut queue, "d", Progress::Done);
        assert_eq!(upgrade(&mut queue, "a", 3), Turn::Go);
    }

    #[test]
    fn a_failed_relay_that_leaves_the_queue_does_not_end_the_stop() {
        let mut queue = UpgradeQueue::default();
        for name in ["a", "b", "c"] {
            upgrade(&mut queue, name, 0);
            end(&mut queue, name, Progress::Failed);
            queue.leave_queue(&key(name));
        }
        assert_eq!(upgrade(&mut queue, "d", 1), Turn::Stopped);
        assert_eq!(
            upgrade(&mut queue, "a", 1),
            Turn::Go,
            "it is retried when it is no longer paused"
        );
    }

    #[test]
    fn a_rollout_that_was_under_way_when_the_operator_started_holds_a_slot() {
        let mut queue = UpgradeQueue::default();
        queue.turn(
            &key("a"),
            Change::BySpec,
            PodReplacement::UnderWay,
            2,
            now(),
        );
        queue.turn(&key("b"), Change::BySpec, PodReplacement::Done, 2, now());
        queue.turn(
            &key("b"),
            Change::BySpec,
            PodReplacement::UnderWay,
            2,
            now(),
        );
        assert_eq!(
            queue.counts().under_way,
            1,
            "b's came later, and so from its manifest"
        );
    }

    #[test]
    fn a_deleted_relay_frees_its_slot_and_ends_a_stop_that_it_alone_could_end() {
        let mut queue = UpgradeQueue::default();
        for name in ["a", "b", "c"] {
            upgrade(&mut queue, name, 0);
            end(&mut queue, name, Progress::Failed);
        }
        for name in ["a", "b", "c"] {
            assert_eq!(upgrade(&mut queue, "d", 1), Turn::Stopped);
            queue.forget(&key(name));
        }
        assert_eq!(upgrade(&mut queue, "d", 2), Turn::Go);
    }
}
