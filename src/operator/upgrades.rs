//! Whose turn it is: rollouts that the operator itself brings, a new image or new settings, go
//! through a queue, so that one bad version meets a few relays and not all. What a user changes
//! does not wait. Pure: who asks, how it went and `now` in; turns out.
//!
//! ```text
//! (due) --> waiting --> under way --> done: failures in a row are 0 again
//!              ^            |--> paused, or its manifest cannot work: it leaves its place, and asks again when it goes on
//!              |            `--> failed: goes on trying outside of the queue; the third in a row stops the queue
//!              `--- stopped until one of the failed ones succeeds, or the operator is started anew
//! ```

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Failures in a row that stop the queue.
const FAILURES_MAX: usize = 3;
/// A rollout gives up after ten minutes without progress, a migration after as long; who holds a
/// turn for longer has failed, whatever it says.
const LONGEST: SignedDuration = SignedDuration::from_mins(15);

/// Namespace and name.
type Owned = (String, String);

/// All upgrades of this operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct UpgradeQueue {
    /// With the time when their turn began.
    under_way: BTreeMap<Owned, Timestamp>,
    waiting: BTreeSet<Owned>,
    /// Failed, and not yet well again.
    failed: BTreeSet<Owned>,
    failures_in_a_row: usize,
    /// Seen since the operator was started.
    known: BTreeSet<Owned>,
}

/// What a relay is about to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing, or what its manifest asks for.
    Own,
    /// Another form of the same manifest.
    Upgrade,
}

/// Whether a relay may get its new form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Go,
    /// Others come first.
    Waiting,
    /// Too many failed.
    Stopped,
}

/// How the rollout of one relay goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Moving,
    Done,
    Failed,
}

/// For metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub waiting: usize,
    pub under_way: usize,
    pub failures_in_a_row: usize,
    pub stopped: bool,
}

impl UpgradeQueue {
    /// Asked at each pass, and so the place to see whose time is over: who holds a place may have
    /// fallen silent. `moving`: its pods are being replaced, which in the first pass after a start
    /// is somebody's turn from before it.
    pub(crate) fn turn(
        &mut self,
        key: (&str, &str),
        change: Change,
        moving: bool,
        places: usize,
        now: Timestamp,
    ) -> Turn {
        self.end_what_takes_too_long(now);
        let key = owned(key);
        let first_sight = self.known.insert(key.clone());
        if change == Change::Own {
            self.waiting.remove(&key);
            if first_sight && moving {
                self.under_way.insert(key, now);
            }
            return Turn::Go;
        }
        if self.under_way.contains_key(&key) || self.failed.contains(&key) {
            return Turn::Go;
        }
        if self.is_stopped() || self.under_way.len() >= places {
            self.waiting.insert(key);
            return if self.is_stopped() {
                Turn::Stopped
            } else {
                Turn::Waiting
            };
        }
        self.waiting.remove(&key);
        self.under_way.insert(key, now);
        Turn::Go
    }

    /// Told after each pass of a relay that has its turn.
    pub(crate) fn note(&mut self, key: (&str, &str), progress: Progress) {
        let key = owned(key);
        match progress {
            Progress::Moving => {}
            Progress::Done if self.under_way.remove(&key).is_some() | self.failed.remove(&key) => {
                self.failures_in_a_row = 0
            }
            Progress::Done => {}
            Progress::Failed => self.fail(key),
        }
    }

    /// Nothing is written for it now: it was paused, or its manifest cannot work. Others come
    /// first; later it asks again.
    pub(crate) fn step_aside(&mut self, key: (&str, &str)) {
        let key = owned(key);
        self.under_way.remove(&key);
        self.waiting.remove(&key);
    }

    /// It was deleted.
    pub(crate) fn forget(&mut self, key: (&str, &str)) {
        self.step_aside(key);
        let key = owned(key);
        self.failed.remove(&key);
        self.known.remove(&key);
        // Whoever could have ended the stop by getting well may have gone.
        if self.failed.is_empty() {
            self.failures_in_a_row = 0;
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            waiting: self.waiting.len(),
            under_way: self.under_way.len(),
            failures_in_a_row: self.failures_in_a_row,
            stopped: self.is_stopped(),
        }
    }

    fn end_what_takes_too_long(&mut self, now: Timestamp) {
        let over = self
            .under_way
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= LONGEST);
        for key in over.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.fail(key);
        }
    }

    /// Whoever has no turn has failed before, or does what its manifest asks for.
    fn fail(&mut self, key: Owned) {
        if self.under_way.remove(&key).is_some() {
            self.failed.insert(key);
            self.failures_in_a_row += 1;
        }
    }

    fn is_stopped(&self) -> bool {
        self.failures_in_a_row >= FAILURES_MAX
    }
}

fn owned((namespace, name): (&str, &str)) -> Owned {
    (namespace.to_owned(), name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::fixtures::{at, now};

    fn upgrade(queue: &mut UpgradeQueue, name: &str, seconds: i64) -> Turn {
        queue.turn(("n", name), Change::Upgrade, false, 2, at(seconds))
    }

    fn end(queue: &mut UpgradeQueue, name: &str, progress: Progress) {
        queue.note(("n", name), progress);
    }

    #[test]
    fn places_are_given_until_none_is_left_and_again_when_one_is_done() {
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
        end(&mut queue, "a", Progress::Moving);
        assert_eq!(upgrade(&mut queue, "c", 1), Turn::Waiting);
        end(&mut queue, "a", Progress::Done);
        assert_eq!(upgrade(&mut queue, "c", 2), Turn::Go);
        assert_eq!(queue.counts().waiting, 0);
    }

    #[test]
    fn what_a_user_changes_does_not_wait() {
        let mut queue = UpgradeQueue::default();
        for name in ["a", "b", "c"] {
            upgrade(&mut queue, name, 0);
        }
        assert_eq!(
            queue.turn(("n", "c"), Change::Own, false, 2, now()),
            Turn::Go
        );
        assert_eq!(queue.counts().waiting, 0);
    }

    #[test]
    fn three_failures_in_a_row_stop_the_queue_until_one_of_them_is_well() {
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
            "a failed one goes on trying"
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
        end(&mut queue, "a", Progress::Moving);
        assert_eq!(upgrade(&mut queue, "c", 899), Turn::Waiting);
        assert_eq!(
            upgrade(&mut queue, "c", 900),
            Turn::Go,
            "whatever they say, or if they say nothing"
        );
        assert_eq!(
            (queue.counts().under_way, queue.counts().failures_in_a_row),
            (1, 2)
        );
    }

    #[test]
    fn who_steps_aside_leaves_its_place_fails_nobody_and_asks_again() {
        let mut queue = UpgradeQueue::default();
        for name in ["a", "b", "c"] {
            upgrade(&mut queue, name, 0);
        }
        for name in ["a", "c"] {
            queue.step_aside(("n", name));
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
    fn who_failed_and_steps_aside_does_not_end_the_stop() {
        let mut queue = UpgradeQueue::default();
        for name in ["a", "b", "c"] {
            upgrade(&mut queue, name, 0);
            end(&mut queue, name, Progress::Failed);
            queue.step_aside(("n", name));
        }
        assert_eq!(upgrade(&mut queue, "d", 1), Turn::Stopped);
        assert_eq!(
            upgrade(&mut queue, "a", 1),
            Turn::Go,
            "it goes on trying when it goes on"
        );
    }

    #[test]
    fn a_rollout_that_was_under_way_when_the_operator_was_started_holds_a_place() {
        let mut queue = UpgradeQueue::default();
        queue.turn(("n", "a"), Change::Own, true, 2, now());
        queue.turn(("n", "b"), Change::Own, false, 2, now());
        queue.turn(("n", "b"), Change::Own, true, 2, now());
        assert_eq!(
            queue.counts().under_way,
            1,
            "b's came later, and so from its manifest"
        );
    }

    #[test]
    fn who_is_deleted_leaves_its_place_and_ends_a_stop_that_it_alone_could_end() {
        let mut queue = UpgradeQueue::default();
        for name in ["a", "b", "c"] {
            upgrade(&mut queue, name, 0);
            end(&mut queue, name, Progress::Failed);
        }
        for name in ["a", "b", "c"] {
            assert_eq!(upgrade(&mut queue, "d", 1), Turn::Stopped);
            queue.forget(("n", name));
        }
        assert_eq!(upgrade(&mut queue, "d", 2), Turn::Go);
    }
}
