//! Signs of life of the operator, and what follows from them for `/healthz` and `/readyz`. Pure but
//! for the shared cell.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Every object is looked at each 15 s, in back-off each 5 min. Longer silence means that the loop
/// hangs.
const LONGEST_SILENCE: Duration = Duration::from_mins(12);
/// A watch ends and is opened again after its time: one that was silent for so many of these is
/// wedged.
const SILENT_ROUNDS: u32 = 3;

/// A namespace, or all of them, and the paths of its watches.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub namespace: Option<String>,
    pub paths: Vec<String>,
}

/// What is expected of one that leads.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub scopes: Vec<Watched>,
    /// For how long a watch is asked for at a time.
    pub round: Duration,
}

/// What the API server answered to a list or a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The watch began.
    Opened,
    /// The operator has not the right to it.
    Forbidden,
    /// Not for another reason that lies with what was asked.
    Refused,
}

/// What an answer changed for the namespace that it is about; none: for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Lost(Option<String>),
    Regained(Option<String>),
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
    /// When a pass ended, or there was nothing to pass over.
    passed_at: Option<Instant>,
    /// Of which OutboxRelays are known.
    listed: BTreeSet<usize>,
    /// When each watch was heard of last, by its path.
    heard_at: HashMap<String, Instant>,
    /// Paths that the operator has not the right to.
    forbidden: HashSet<String>,
}

impl Signs {
    fn is_shut(&self, scope: &Watched) -> bool {
        scope.paths.iter().any(|path| self.forbidden.contains(path))
    }
}

impl Pulse {
    pub(crate) fn new(expected: Expected) -> Self {
        Self {
            expected,
            signs: Mutex::default(),
        }
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

    /// The watch brought something, or a bookmark.
    pub(crate) fn heard(&self, path: &str, now: Instant) {
        self.signs().heard_at.insert(path.to_owned(), now);
    }

    /// A refusal is a sign of life, too: the API server was reached, and starting anew would not
    /// change its mind.
    pub(crate) fn answered(&self, path: &str, answer: Answer, now: Instant) -> Option<Access> {
        let scope = self
            .expected
            .scopes
            .iter()
            .find(|scope| scope.paths.iter().any(|watched| watched == path))?;
        let mut signs = self.signs();
        let was_shut = signs.is_shut(scope);
        signs.heard_at.insert(path.to_owned(), now);
        match answer {
            Answer::Opened => signs.forbidden.remove(path),
            Answer::Forbidden => signs.forbidden.insert(path.to_owned()),
            Answer::Refused => false,
        };
        match (was_shut, signs.is_shut(scope)) {
            (false, true) => Some(Access::Lost(scope.namespace.clone())),
            (true, false) => Some(Access::Regained(scope.namespace.clone())),
            _ => None,
        }
    }

    /// Namespaces that the operator has no right to.
    pub(crate) fn refused(&self) -> usize {
        let signs = self.signs();
        self.expected
            .scopes
            .iter()
            .filter(|scope| signs.is_shut(scope))
            .count()
    }

    /// One that stands by is ready once it can read the Lease: a rollout need not wait until it
    /// leads. One that leads does not wait for a namespace that it has no right to, as long as
    /// there is another.
    pub(crate) fn is_ready(&self) -> Result<(), String> {
        let signs = self.signs();
        let done = |(number, scope): (usize, &Watched)| {
            signs.listed.contains(&number) || signs.is_shut(scope)
        };
        match signs.leads_since {
            None if signs.lease_seen => Ok(()),
            None => Err("the Lease could not be read yet".to_owned()),
            Some(_)
                if !signs.listed.is_empty()
                    && self.expected.scopes.iter().enumerate().all(done) =>
            {
                Ok(())
            }
            Some(_) => Err("not all OutboxRelays have been listed yet".to_owned()),
        }
    }

    /// Why it should be started anew; `objects`: those that passes are made over. One that does not
    /// lead has nothing to hang on.
    pub(crate) fn is_alive(&self, objects: usize, now: Instant) -> Result<(), String> {
        let mut signs = self.signs();
        let Some(leads_since) = signs.leads_since else {
            return Ok(());
        };
        let age = |at: Instant| now.saturating_duration_since(at);
        for path in self.expected.scopes.iter().flat_map(|scope| &scope.paths) {
            let silence = age(signs.heard_at.get(path).copied().unwrap_or(leads_since));
            if silence > self.expected.round * SILENT_ROUNDS {
                return Err(format!(
                    "nothing was heard of the watch of {path} for {}s",
                    silence.as_secs()
                ));
            }
        }
        // Without objects there is nothing to do, and silence is no sign; the first one gets its
        // time.
        if objects == 0 {
            signs.passed_at = Some(now);
        }
        let silence = age(signs.passed_at.unwrap_or(leads_since));
        if silence > LONGEST_SILENCE {
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

    /// Of namespaces `a` and `b`, with a watch in each.
    fn pulse() -> (Pulse, Instant) {
        let scope = |name: &str| Watched {
            namespace: Some(name.to_owned()),
            paths: vec![format!("/{name}/pods")],
        };
        (
            Pulse::new(Expected {
                scopes: vec![scope("a"), scope("b")],
                round: ROUND,
            }),
            Instant::now(),
        )
    }

    fn leading() -> (Pulse, Instant) {
        let (pulse, start) = pulse();
        pulse.lease_seen();
        pulse.leads(start);
        (pulse, start)
    }

    fn hear_both(pulse: &Pulse, now: Instant) {
        for path in ["/a/pods", "/b/pods"] {
            assert_eq!(pulse.answered(path, Answer::Opened, now), None);
        }
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
        let (pulse, _) = leading();
        pulse.listed(0);
        assert!(pulse.is_ready().is_err());
        pulse.listed(1);
        assert_eq!(pulse.is_ready(), Ok(()));
    }

    #[test]
    fn a_watch_of_which_nothing_is_heard_is_death_and_a_bookmark_is_life() {
        let (pulse, start) = leading();
        hear_both(&pulse, start);
        assert_eq!(pulse.is_alive(0, start + ROUND * 3), Ok(()));
        pulse.heard("/a/pods", start + ROUND * 4);
        let why = pulse
            .is_alive(0, start + ROUND * 4)
            .expect_err("one is silent");
        assert_eq!(why, "nothing was heard of the watch of /b/pods for 240s");
        pulse.heard("/b/pods", start + ROUND * 4);
        assert_eq!(pulse.is_alive(0, start + ROUND * 7), Ok(()));
    }

    #[test]
    fn a_watch_that_was_never_opened_is_death() {
        let (pulse, start) = leading();
        assert_eq!(pulse.is_alive(0, start + ROUND), Ok(()));
        assert!(pulse.is_alive(0, start + ROUND * 4).is_err());
    }

    #[test]
    fn a_namespace_that_is_refused_is_no_reason_to_start_anew_and_is_not_waited_for() {
        let (pulse, start) = leading();
        let later = start + ROUND * 100;
        pulse.answered("/a/pods", Answer::Opened, later);
        pulse.listed(0);
        assert!(pulse.is_ready().is_err() && pulse.is_alive(0, later).is_err());
        pulse.answered("/b/pods", Answer::Forbidden, later);
        assert_eq!(
            (pulse.is_ready(), pulse.is_alive(0, later)),
            (Ok(()), Ok(()))
        );
        assert!(
            pulse.is_alive(0, later + ROUND * 4).is_err(),
            "a refusal is heard as rarely as a bookmark"
        );
    }

    #[test]
    fn an_operator_that_may_see_nothing_at_all_is_not_ready() {
        let (pulse, start) = leading();
        pulse.answered("/a/pods", Answer::Forbidden, start);
        pulse.answered("/b/pods", Answer::Forbidden, start);
        assert!(pulse.is_ready().is_err());
        assert_eq!(pulse.is_alive(0, start + ROUND), Ok(()));
    }

    #[test]
    fn a_kind_that_is_not_there_yet_is_waited_for_without_starting_anew() {
        let (pulse, start) = leading();
        let later = start + ROUND * 100;
        for path in ["/a/pods", "/b/pods"] {
            assert_eq!(pulse.answered(path, Answer::Refused, later), None);
        }
        assert_eq!(pulse.is_alive(0, later), Ok(()));
        assert!(pulse.is_ready().is_err());
    }

    #[test]
    fn a_refusal_is_told_once_and_its_end_too() {
        let (pulse, now) = leading();
        let b = || Some("b".to_owned());
        assert_eq!(pulse.answered("/b/pods", Answer::Opened, now), None);
        assert_eq!(
            pulse.answered("/b/pods", Answer::Forbidden, now),
            Some(Access::Lost(b()))
        );
        assert_eq!(pulse.answered("/b/pods", Answer::Forbidden, now), None);
        assert_eq!(pulse.refused(), 1);
        // A busy API server says nothing about rights.
        assert_eq!(pulse.answered("/b/pods", Answer::Refused, now), None);
        assert_eq!(
            pulse.answered("/b/pods", Answer::Opened, now),
            Some(Access::Regained(b()))
        );
        assert_eq!(pulse.refused(), 0);
        assert_eq!(
            pulse.answered("/b/replicasets", Answer::Forbidden, now),
            None,
            "nobody watches them"
        );
    }

    #[test]
    fn passes_that_never_end_are_death_only_when_there_is_something_to_do() {
        let (pulse, start) = leading();
        let later = start + LONGEST_SILENCE * 2;
        hear_both(&pulse, later);
        assert!(pulse.is_alive(1, later).is_err());
        assert_eq!(pulse.is_alive(0, later), Ok(()));
        assert_eq!(
            pulse.is_alive(1, later),
            Ok(()),
            "the first object after a long quiet gets its time"
        );
        let silent = later + LONGEST_SILENCE * 2;
        hear_both(&pulse, silent);
        assert!(pulse.is_alive(1, silent).is_err());
        pulse.passed(silent);
        assert_eq!(pulse.is_alive(1, silent), Ok(()));
    }
}
