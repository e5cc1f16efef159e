//! Signs of life of the operator, and what follows from them for `/healthz` and `/readyz`. Pure but for the shared cell.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Every object is looked at each 15 s, in back-off each 5 min. Longer silence means that the loop hangs.
const LONGEST_SILENCE: Duration = Duration::from_mins(12);
/// A watch ends and is opened again after its time: one that was silent for so many of these is wedged.
const SILENT_ROUNDS: u32 = 3;

/// What is expected of one that leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Lists of OutboxRelays, one per namespace.
    pub lists: usize,
    pub watches: usize,
    /// For how long a watch is asked for at a time.
    pub round: Duration,
}

/// Signs of life.
#[derive(Debug)]
pub(crate) struct Pulse {
    expected: Expected,
    signs: Mutex<Signs>,
}

#[derive(Debug, Default)]
struct Signs {
    lease_seen: bool,
    leads_since: Option<Instant>,
    passed_at: Option<Instant>,
    /// Of which OutboxRelays are known.
    listed: BTreeSet<usize>,
    /// When each watch was asked for first, or heard of last.
    watches: BTreeMap<String, Instant>,
}

impl Pulse {
    pub(crate) fn new(expected: Expected) -> Self {
        Self { expected, signs: Mutex::default() }
    }

    pub(crate) fn lease_seen(&self) {
        self.signs().lease_seen = true;
    }

    pub(crate) fn leads(&self, now: Instant) {
        self.signs().leads_since = Some(now);
    }

    /// A pass ended, whatever came of it.
    pub(crate) fn passed(&self, now: Instant) {
        self.signs().passed_at = Some(now);
    }

    /// All OutboxRelays of one namespace have been listed.
    pub(crate) fn listed(&self, namespace: usize) {
        self.signs().listed.insert(namespace);
    }

    pub(crate) fn watch_asked(&self, path: &str, now: Instant) {
        self.signs().watches.entry(path.to_owned()).or_insert(now);
    }

    /// It was opened, brought something, or a bookmark.
    pub(crate) fn watch_heard(&self, path: &str, now: Instant) {
        if let Some(heard_at) = self.signs().watches.get_mut(path) {
            *heard_at = now;
        }
    }

    /// One that stands by is ready once it can read the Lease: a rollout need not wait until it leads.
    pub(crate) fn is_ready(&self) -> Result<(), String> {
        let signs = self.signs();
        match signs.leads_since {
            None if signs.lease_seen => Ok(()),
            None => Err("the Lease could not be read yet".to_owned()),
            Some(_) if signs.listed.len() == self.expected.lists => Ok(()),
            Some(_) => Err("not all OutboxRelays have been listed yet".to_owned()),
        }
    }

    /// Why it should be started anew. One that does not lead has nothing to hang on.
    pub(crate) fn is_alive(&self, objects: usize, now: Instant) -> Result<(), String> {
        let signs = self.signs();
        let Some(leads_since) = signs.leads_since else { return Ok(()) };
        let age = |at: Instant| now.saturating_duration_since(at);
        let patience = self.expected.round * SILENT_ROUNDS;
        if let Some((path, heard_at)) = signs.watches.iter().find(|(_, heard_at)| age(**heard_at) > patience) {
            return Err(format!("nothing was heard of the watch of {path} for {}s", age(*heard_at).as_secs()));
        }
        if signs.watches.len() < self.expected.watches && age(leads_since) > patience {
            return Err(format!("{} of {} watches could be opened", signs.watches.len(), self.expected.watches));
        }
        // Without objects there is nothing to do, and silence is no sign.
        let silence = age(signs.passed_at.unwrap_or(leads_since));
        if objects > 0 && silence > LONGEST_SILENCE {
            return Err(format!("no pass came to an end for {}s", silence.as_secs()));
        }
        Ok(())
    }

    fn signs(&self) -> MutexGuard<'_, Signs> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_secs(60);

    fn pulse() -> (Pulse, Instant) {
        (Pulse::new(Expected { lists: 1, watches: 1, round: ROUND }), Instant::now())
    }

    #[test]
    fn one_that_stands_by_is_ready_and_alive_once_it_has_seen_the_lease() {
        let (pulse, start) = pulse();
        assert!(pulse.is_ready().is_err());
        pulse.lease_seen();
        assert_eq!(pulse.is_ready(), Ok(()));
        assert_eq!(pulse.is_alive(5, start + ROUND * 100), Ok(()));
    }

    #[test]
    fn one_that_leads_is_ready_when_all_is_listed() {
        let (pulse, start) = pulse();
        pulse.lease_seen();
        pulse.leads(start);
        assert!(pulse.is_ready().is_err());
        pulse.listed(0);
        assert_eq!(pulse.is_ready(), Ok(()));
    }

    #[test]
    fn a_watch_of_which_nothing_is_heard_is_death_and_a_bookmark_is_life() {
        let (pulse, start) = pulse();
        pulse.leads(start);
        pulse.watch_asked("/pods", start);
        assert_eq!(pulse.is_alive(0, start + ROUND * 3), Ok(()));
        assert!(pulse.is_alive(0, start + ROUND * 4).is_err());
        // Asking again and again is no answer.
        pulse.watch_asked("/pods", start + ROUND * 4);
        assert!(pulse.is_alive(0, start + ROUND * 4).is_err());
        pulse.watch_heard("/pods", start + ROUND * 4);
        assert_eq!(pulse.is_alive(0, start + ROUND * 7), Ok(()));
    }

    #[test]
    fn a_watch_that_was_never_opened_is_death() {
        let (pulse, start) = pulse();
        pulse.leads(start);
        assert_eq!(pulse.is_alive(0, start + ROUND), Ok(()));
        assert!(pulse.is_alive(0, start + ROUND * 4).is_err());
    }

    #[test]
    fn passes_that_never_end_are_death_only_when_there_is_something_to_do() {
        let (pulse, start) = pulse();
        pulse.leads(start);
        pulse.watch_asked("/pods", start);
        let later = start + LONGEST_SILENCE * 2;
        pulse.watch_heard("/pods", later);
        assert_eq!(pulse.is_alive(0, later), Ok(()));
        assert!(pulse.is_alive(1, later).is_err());
        pulse.passed(later);
        assert_eq!(pulse.is_alive(1, later), Ok(()));
    }
}
