//! What the operator remembers between two passes, per OutboxRelay. All of it may be lost: after a
//! restart each child is applied once more.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;

use super::{
    build::{ChildKind, Prepared},
    observe::Observed,
    plan::Remembered,
};
use crate::api::OutboxRelay;

/// What no watch tells of is looked at this often.
const TRUSTED: Duration = Duration::from_mins(10);

impl ObjectMemory {
    fn changed(&mut self) {
        self.changes += 1;
        self.seen = None;
    }
}

/// By namespace and name.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<HashMap<(String, String), ObjectMemory>>);

#[derive(Debug, Default)]
struct ObjectMemory {
    children: HashMap<ChildKind, Settled>,
    failures: u32,
    status_written_at: Option<Timestamp>,
    scaling: Remembered,
    /// Changes that a watch told of, and writes of ours.
    changes: u64,
    seen: Option<(Seen, Instant)>,
}

/// An OutboxRelay with all that it has, as the API server showed it, and its status as we left it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub relay: OutboxRelay,
    pub observed: Observed,
}

/// How much had changed when a pass began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u64);

/// A child that was found or made as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settled {
    wanted: u64,
    /// Fingerprint of what the API server made of it; absent where nobody watches.
    live: Option<u64>,
    at: Instant,
}

/// Key of an OutboxRelay.
pub(crate) type Key<'a> = (&'a str, &'a str);

impl Memory {
    /// Nothing is to be done for this child: it is wanted as it was wanted, and as far as we can
    /// see nobody changed it.
    pub(crate) fn is_settled(
        &self,
        key: Key<'_>,
        child: &Prepared,
        live: Option<u64>,
        now: Instant,
    ) -> bool {
        let all = self.lock();
        let settled = all
            .get(&owned(key))
            .and_then(|object| object.children.get(&child.kind));
        settled.is_some_and(|settled| {
            settled.wanted == wanted(child)
                && settled.live == live
                && now.duration_since(settled.at) < TRUSTED
        })
    }

    pub(crate) fn settle(&self, key: Key<'_>, child: &Prepared, live: Option<u64>, now: Instant) {
        self.lock().entry(owned(key)).or_default().children.insert(
            child.kind,
            Settled {
                wanted: wanted(child),
                live,
                at: now,
            },
        );
    }

    /// What the pass before saw, if nothing has changed since and it is not old; for once.
    pub(crate) fn recall(&self, key: Key<'_>, now: Instant) -> (Mark, Option<(Seen, Instant)>) {
        let mut all = self.lock();
        let object = all.entry(owned(key)).or_default();
        (
            Mark(object.changes),
            object
                .seen
                .take()
                .filter(|(_, at)| now.duration_since(*at) < TRUSTED),
        )
    }

    /// For the next pass, unless something changed since this one began.
    pub(crate) fn keep(&self, key: Key<'_>, mark: Mark, seen: Seen, seen_at: Instant) {
        if let Some(object) = self
            .lock()
            .get_mut(&owned(key))
            .filter(|object| Mark(object.changes) == mark)
        {
            object.seen = Some((seen, seen_at));
        }
    }

    /// Something of it changed, or may have.
    pub(crate) fn changed(&self, key: Key<'_>) {
        self.lock()
            .get_mut(&owned(key))
            .into_iter()
            .for_each(ObjectMemory::changed);
    }

    /// A watch of this namespace, or of all, began anew: what went meanwhile goes without a word.
    pub(crate) fn all_changed(&self, namespace: Option<&str>) {
        let mut all = self.lock();
        let of_it = all
            .iter_mut()
            .filter(|((known, _), _)| namespace.is_none_or(|namespace| known == namespace));
        of_it.for_each(|(_, object)| object.changed());
    }

    /// Failures in a row, with this one.
    pub(crate) fn count_failure(&self, key: Key<'_>) -> u32 {
        let mut all = self.lock();
        let object = all.entry(owned(key)).or_default();
        object.failures = object.failures.saturating_add(1);
        object.failures
    }

    pub(crate) fn clear_failures(&self, key: Key<'_>) {
        self.lock().entry(owned(key)).or_default().failures = 0;
    }

    /// Objects whose last pass failed.
    pub(crate) fn failing(&self) -> usize {
        self.lock()
            .values()
            .filter(|object| object.failures > 0)
            .count()
    }

    pub(crate) fn status_written_at(&self, key: Key<'_>) -> Option<Timestamp> {
        self.lock()
            .get(&owned(key))
            .and_then(|object| object.status_written_at)
    }

    pub(crate) fn status_written(&self, key: Key<'_>, now: Timestamp) {
        self.lock().entry(owned(key)).or_default().status_written_at = Some(now);
    }

    pub(crate) fn scaling(&self, key: Key<'_>) -> Remembered {
        self.lock()
            .get(&owned(key))
            .map(|object| object.scaling.clone())
            .unwrap_or_default()
    }

    pub(crate) fn remember_scaling(&self, key: Key<'_>, scaling: Remembered) {
        self.lock().entry(owned(key)).or_default().scaling = scaling;
    }

    pub(crate) fn forget(&self, key: Key<'_>) {
        self.lock().remove(&owned(key));
    }

    /// A panic while it was held cannot have left anything half done that matters: every entry
    /// stands for itself.
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), ObjectMemory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn owned((namespace, name): Key<'_>) -> (String, String) {
    (namespace.to_owned(), name.to_owned())
}

/// The body carries the owner's uid: a new OutboxRelay of an old name finds nothing settled.
fn wanted(child: &Prepared) -> u64 {
    let mut hasher = DefaultHasher::new();
    child.body.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operator::fixtures::relay;

    const KEY: Key<'_> = ("essays", "file-service");

    fn child(data: &str) -> Prepared {
        Prepared {
            kind: ChildKind::Service,
            name: "s".to_owned(),
            body: json!({"data": data}),
            first_replicas: None,
        }
    }

    #[test]
    fn a_child_is_settled_until_it_is_wanted_otherwise_changed_or_not_looked_at_for_long() {
        let memory = Memory::default();
        let now = Instant::now();
        assert!(!memory.is_settled(KEY, &child("a"), Some(1), now));
        memory.settle(KEY, &child("a"), Some(1), now);
        assert!(memory.is_settled(KEY, &child("a"), Some(1), now));
        assert!(!memory.is_settled(KEY, &child("b"), Some(1), now));
        assert!(!memory.is_settled(KEY, &child("a"), Some(2), now));
        assert!(!memory.is_settled(KEY, &child("a"), Some(1), now + TRUSTED));
        assert!(!memory.is_settled(("essays", "other"), &child("a"), Some(1), now));
    }

    fn remembers(memory: &Memory, now: Instant) -> bool {
        memory.recall(KEY, now).1.is_some()
    }

    #[test]
    fn what_was_seen_holds_until_something_changes_or_for_ten_minutes() {
        let (memory, now) = (Memory::default(), Instant::now());
        let seen = || Seen {
            relay: relay(),
            observed: Observed::default(),
        };
        let (mark, nothing) = memory.recall(KEY, now);
        assert!(nothing.is_none());
        let keep = || memory.keep(KEY, mark, seen(), now);
        keep();
        assert!(remembers(&memory, now));
        assert!(
            !remembers(&memory, now),
            "a pass that does not come to its end leaves nothing"
        );
        keep();
        assert!(!remembers(&memory, now + TRUSTED));
        keep();
        memory.changed(("essays", "another"));
        assert!(remembers(&memory, now));
        keep();
        memory.changed(KEY);
        assert!(!remembers(&memory, now));
        keep();
        assert!(!remembers(&memory, now), "it changed after that pass began");
    }

    #[test]
    fn a_watch_that_begins_anew_makes_everything_be_looked_at() {
        let now = Instant::now();
        let remembers_after = |namespace: Option<&str>| {
            let memory = Memory::default();
            let (mark, _) = memory.recall(KEY, now);
            memory.all_changed(namespace);
            memory.keep(
                KEY,
                mark,
                Seen {
                    relay: relay(),
                    observed: Observed::default(),
                },
                now,
            );
            remembers(&memory, now)
        };
        assert!(!remembers_after(None));
        assert!(!remembers_after(Some("essays")));
        assert!(
            remembers_after(Some("another")),
            "it begins anew again and again where it is refused"
        );
    }

    #[test]
    fn failures_are_counted_in_a_row_and_forgotten_with_the_object() {
        let memory = Memory::default();
        assert_eq!(
            (
                memory.count_failure(KEY),
                memory.count_failure(KEY),
                memory.failing()
            ),
            (1, 2, 1)
        );
        memory.clear_failures(KEY);
        assert_eq!(memory.failing(), 0);
        assert_eq!(memory.count_failure(KEY), 1);
        memory.forget(KEY);
        assert_eq!(memory.count_failure(KEY), 1);
    }
}
