//! What the operator keeps between two reconciliations, per OutboxRelay. All of it may be lost:
//! after a restart each child is applied once more.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;

use crate::operator::{
    children::{ChildKind, Prepared},
    identity::RelayKey,
    reconcile::{
        manifest::Manifest,
        observe::Observed,
        plan::{Migration, ScalingMemory},
    },
};

/// Age at which cached state is read again, because watches do not report every change.
const CACHE_TTL: Duration = Duration::from_mins(10);

/// Cached state of all OutboxRelays.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<HashMap<RelayKey, CacheEntry>>);

#[derive(Debug, Default)]
struct CacheEntry {
    children: HashMap<ChildKind, WrittenChild>,
    /// Reconciliations that failed in a row.
    failures: u32,
    status_written_at: Option<Timestamp>,
    scaling: ScalingMemory,
    /// Value of annotation `reconcile-at` for which all children were last applied.
    reconcile_at: Option<String>,
    /// The last attempt of the migration failed.
    migration_fails: bool,
    /// Number of changes that a watch reported, and of our own writes.
    changes: u64,
    /// State as of the last complete reconciliation, with the time when it was read.
    snapshot: Option<(Snapshot, Instant)>,
}

impl CacheEntry {
    fn changed(&mut self) {
        self.changes += 1;
        self.snapshot = None;
    }
}

/// An OutboxRelay with its children as the API server had them, and its status as we left it.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub manifest: Manifest,
    pub observed: Observed,
}

/// Number of changes when a reconciliation began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u64);

/// What a reconciliation begins with: both parts of a snapshot, or none.
#[derive(Debug)]
pub(crate) struct Recalled {
    pub mark: Mark,
    /// When the snapshot was read; now if there is none.
    pub read_at: Instant,
    pub manifest: Option<Manifest>,
    pub observed: Option<Observed>,
}

/// A child as it was last found or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WrittenChild {
    body_hash: u64,
    /// Fingerprint of the object as the API server returned it; absent for kinds without a watch.
    live_fingerprint: Option<u64>,
    at: Instant,
}

impl Cache {
    /// Returns whether a child needs no write: its body is as it was written, and no watch
    /// reported a change of the object.
    pub(crate) fn is_up_to_date(
        &self,
        key: &RelayKey,
        child: &Prepared,
        live_fingerprint: Option<u64>,
        now: Instant,
    ) -> bool {
        let all = self.lock();
        let written = all
            .get(key)
            .and_then(|entry| entry.children.get(&child.kind));
        written.is_some_and(|written| {
            written.body_hash == body_hash(child)
                && written.live_fingerprint == live_fingerprint
                && now.duration_since(written.at) < CACHE_TTL
        })
    }

    /// Records a child that was found or written as it should be.
    pub(crate) fn record_written(
        &self,
        key: &RelayKey,
        child: &Prepared,
        live_fingerprint: Option<u64>,
        now: Instant,
    ) {
        let written = WrittenChild {
            body_hash: body_hash(child),
            live_fingerprint,
            at: now,
        };
        self.update(key, |entry| entry.children.insert(child.kind, written));
    }

    /// Takes the snapshot of the last reconciliation, if nothing changed since and it is not too
    /// old. A reconciliation that fails leaves none.
    pub(crate) fn recall(&self, key: &RelayKey, now: Instant) -> Recalled {
        self.update(key, |entry| {
            let mark = Mark(entry.changes);
            let snapshot = entry.snapshot.take();
            match snapshot.filter(|(_, at)| now.duration_since(*at) < CACHE_TTL) {
                Some((Snapshot { manifest, observed }, read_at)) => Recalled {
                    mark,
                    read_at,
                    manifest: Some(manifest),
                    observed: Some(observed),
                },
                None => Recalled {
                    mark,
                    read_at: now,
                    manifest: None,
                    observed: None,
                },
            }
        })
    }

    /// Keeps a snapshot for the next reconciliation, unless something changed since `mark`.
    pub(crate) fn keep(&self, key: &RelayKey, mark: Mark, snapshot: Snapshot, read_at: Instant) {
        let mut all = self.lock();
        if let Some(entry) = all.get_mut(key)
            && Mark(entry.changes) == mark
        {
            entry.snapshot = Some((snapshot, read_at));
        }
    }

    /// Drops the snapshot of an OutboxRelay: it or a child of it changed, or may have.
    pub(crate) fn changed(&self, key: &RelayKey) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.changed();
        }
    }

    /// Drops all snapshots of a namespace, or of all: a watch started over, and does not report
    /// what was deleted meanwhile.
    pub(crate) fn all_changed(&self, namespace: Option<&str>) {
        for (key, entry) in self.lock().iter_mut() {
            if namespace.is_none_or(|namespace| key.namespace == namespace) {
                entry.changed();
            }
        }
    }

    /// Forgets which children are up to date if annotation `reconcile-at` has a new value: all are
    /// applied again, also those of kinds without a watch.
    pub(crate) fn recheck_children(&self, key: &RelayKey, reconcile_at: Option<&str>) {
        self.update(key, |entry| {
            if entry.reconcile_at.as_deref() != reconcile_at {
                entry.reconcile_at = reconcile_at.map(str::to_owned);
                entry.children.clear();
            }
        });
    }

    /// Records whether the last attempt of the migration failed.
    pub(crate) fn record_migration(&self, key: &RelayKey, migration: &Migration) {
        self.update(key, |entry| entry.migration_fails = migration.is_failing());
    }

    /// Returns the number of objects whose migration fails.
    pub(crate) fn failing_migrations(&self) -> usize {
        let all = self.lock();
        all.values().filter(|entry| entry.migration_fails).count()
    }

    /// Counts a failed reconciliation. Returns the failures in a row, with this one.
    pub(crate) fn count_failure(&self, key: &RelayKey) -> u32 {
        self.update(key, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.failures
        })
    }

    /// Records a reconciliation that succeeded. Returns the failures in a row before it.
    pub(crate) fn clear_failures(&self, key: &RelayKey) -> u32 {
        self.update(key, |entry| std::mem::take(&mut entry.failures))
    }

    /// Returns the number of objects whose last reconciliation failed.
    pub(crate) fn failing(&self) -> usize {
        let all = self.lock();
        all.values().filter(|entry| entry.failures > 0).count()
    }

    /// Returns when the status was last written; nothing if not since the start.
    pub(crate) fn status_written_at(&self, key: &RelayKey) -> Option<Timestamp> {
        self.lock().get(key)?.status_written_at
    }

    /// Records that the status was written.
    pub(crate) fn status_written(&self, key: &RelayKey, now: Timestamp) {
        self.update(key, |entry| entry.status_written_at = Some(now));
    }

    /// Returns what the last scaling decision left.
    pub(crate) fn scaling(&self, key: &RelayKey) -> ScalingMemory {
        let all = self.lock();
        let entry = all.get(key);
        entry.map(|entry| entry.scaling.clone()).unwrap_or_default()
    }

    /// Records what a scaling decision that was carried out left.
    pub(crate) fn record_scaling(&self, key: &RelayKey, scaling: ScalingMemory) {
        self.update(key, |entry| entry.scaling = scaling);
    }

    /// Drops everything about an OutboxRelay.
    pub(crate) fn forget(&self, key: &RelayKey) {
        self.lock().remove(key);
    }

    fn update<T>(&self, key: &RelayKey, update: impl FnOnce(&mut CacheEntry) -> T) -> T {
        update(self.lock().entry(key.clone()).or_default())
    }

    /// Returns all entries. A panic while they were locked cannot have left anything half done that
    /// matters: no entry depends on another.
    fn lock(&self) -> MutexGuard<'_, HashMap<RelayKey, CacheEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hashes what a child should be. The body carries the owner's uid: a new OutboxRelay of an old
/// name finds nothing up to date.
fn body_hash(child: &Prepared) -> u64 {
    let mut hasher = DefaultHasher::new();
    child.body.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operator::fixtures::relay;

    fn key() -> RelayKey {
        RelayKey::new("essays", "file-service")
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            manifest: Manifest::readable(relay()),
            observed: Observed::default(),
        }
    }

    fn child(data: &str) -> Prepared {
        Prepared {
            kind: ChildKind::Service,
            name: "s".to_owned(),
            body: json!({"data": data}),
            first_replicas: None,
        }
    }

    #[test]
    fn a_child_is_up_to_date_until_its_body_changes_it_is_changed_or_the_cache_expires() {
        let cache = Cache::default();
        let now = Instant::now();
        assert!(!cache.is_up_to_date(&key(), &child("a"), Some(1), now));
        cache.record_written(&key(), &child("a"), Some(1), now);
        assert!(cache.is_up_to_date(&key(), &child("a"), Some(1), now));
        assert!(!cache.is_up_to_date(&key(), &child("b"), Some(1), now));
        assert!(!cache.is_up_to_date(&key(), &child("a"), Some(2), now));
        assert!(!cache.is_up_to_date(&key(), &child("a"), Some(1), now + CACHE_TTL));
        assert!(!cache.is_up_to_date(&RelayKey::new("essays", "other"), &child("a"), Some(1), now));
    }

    #[test]
    fn a_new_value_of_reconcile_at_makes_every_child_due_once() {
        let (cache, now) = (Cache::default(), Instant::now());
        let is_up_to_date = |value| {
            cache.recheck_children(&key(), value);
            cache.is_up_to_date(&key(), &child("a"), None, now)
        };
        let write = || cache.record_written(&key(), &child("a"), None, now);
        write();
        assert!(is_up_to_date(None));
        assert!(!is_up_to_date(Some("1")));
        write();
        assert!(is_up_to_date(Some("1")));
        assert!(!is_up_to_date(Some("2")));
    }

    #[test]
    fn migrations_that_fail_are_counted_until_they_succeed_or_their_object_is_gone() {
        let (cache, other) = (Cache::default(), RelayKey::new("essays", "other"));
        let retry = Migration::Start { attempt: 2 };
        cache.record_migration(&key(), &retry);
        cache.record_migration(&other, &retry);
        assert_eq!(cache.failing_migrations(), 2);
        cache.record_migration(&key(), &Migration::Off);
        assert_eq!(cache.failing_migrations(), 1);
        cache.forget(&other);
        assert_eq!(cache.failing_migrations(), 0);
    }

    fn has_snapshot(cache: &Cache, now: Instant) -> bool {
        cache.recall(&key(), now).manifest.is_some()
    }

    #[test]
    fn a_snapshot_is_valid_until_something_changes_or_for_ten_minutes() {
        let (cache, now) = (Cache::default(), Instant::now());
        let first = cache.recall(&key(), now);
        assert!(first.manifest.is_none());
        let keep = || cache.keep(&key(), first.mark, snapshot(), now);
        keep();
        assert!(has_snapshot(&cache, now));
        assert!(
            !has_snapshot(&cache, now),
            "a pass that does not come to its end leaves nothing"
        );
        keep();
        assert!(!has_snapshot(&cache, now + CACHE_TTL));
        keep();
        cache.changed(&RelayKey::new("essays", "another"));
        assert!(has_snapshot(&cache, now));
        keep();
        cache.changed(&key());
        assert!(!has_snapshot(&cache, now));
        keep();
        assert!(
            !has_snapshot(&cache, now),
            "it changed after that pass began"
        );
    }

    #[test]
    fn a_watch_that_restarts_drops_all_snapshots_of_its_namespace() {
        let now = Instant::now();
        let has_snapshot_after = |namespace: Option<&str>| {
            let cache = Cache::default();
            let mark = cache.recall(&key(), now).mark;
            cache.all_changed(namespace);
            cache.keep(&key(), mark, snapshot(), now);
            has_snapshot(&cache, now)
        };
        assert!(!has_snapshot_after(None));
        assert!(!has_snapshot_after(Some("essays")));
        assert!(
            has_snapshot_after(Some("another")),
            "a watch that is refused restarts again and again"
        );
    }

    #[test]
    fn failures_are_counted_in_a_row_and_forgotten_with_the_object() {
        let cache = Cache::default();
        assert_eq!(
            (
                cache.count_failure(&key()),
                cache.count_failure(&key()),
                cache.failing()
            ),
            (1, 2, 1)
        );
        cache.clear_failures(&key());
        assert_eq!(cache.failing(), 0);
        assert_eq!(cache.count_failure(&key()), 1);
        cache.forget(&key());
        assert_eq!(cache.count_failure(&key()), 1);
    }
}
