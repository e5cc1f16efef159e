//! Whether the operator's process is ready and alive, for `/readyz` and `/healthz`. Pure but for
//! the shared cell.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Longest time without an ended reconciliation, where there are objects. Every object is
/// reconciled each 15 s, and in back-off each 5 min; a longer silence means that the loop hangs.
const RECONCILE_SILENCE_MAX: Duration = Duration::from_mins(12);
/// A watch is stuck when it received nothing for this many times the time after which it ends and
/// is opened again.
const SILENT_WATCH_TIMEOUTS_MAX: u32 = 3;

/// A namespace, or all of them, and the paths of its watches.
#[derive(Clone, Debug)]
pub(crate) struct WatchedScope {
    /// `None` means all namespaces.
    pub namespace: Option<String>,
    pub paths: Vec<String>,
}

impl WatchedScope {
    fn watches(&self, path: &str) -> bool {
        self.paths.iter().any(|watched| watched == path)
    }
}

/// What an operator that leads is expected to do.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub scopes: Vec<WatchedScope>,
    /// Time after which a watch ends and is opened again.
    pub watch_timeout: Duration,
}

/// The API server's response to a list or a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchResponse {
    /// The watch began.
    Opened,
    /// The operator lacks the right to it.
    Forbidden,
    /// Another error that concerns the request.
    Refused,
}

/// A change of the operator's rights in a namespace; `None` means all namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AccessChange {
    Lost(Option<String>),
    Regained(Option<String>),
}

/// Records what the process does, and decides whether it is ready and alive.
#[derive(Debug)]
pub(crate) struct HealthState {
    expected: Expected,
    observed: Mutex<Observed>,
}

#[derive(Debug, Default)]
struct Observed {
    lease_seen: bool,
    leads_since: Option<Instant>,
    /// When a reconciliation last ended, or there was no object to reconcile.
    reconciled_at: Option<Instant>,
    /// Numbers of the scopes whose OutboxRelays have been listed.
    listed: BTreeSet<usize>,
    /// When each watch last received something, by its path.
    received_at: HashMap<String, Instant>,
    /// Paths that the operator lacks the right to.
    forbidden: HashSet<String>,
}

impl Observed {
    fn record(&mut self, path: &str, response: WatchResponse, now: Instant) {
        self.received_at.insert(path.to_owned(), now);
        match response {
            WatchResponse::Opened => self.forbidden.remove(path),
            WatchResponse::Forbidden => self.forbidden.insert(path.to_owned()),
            WatchResponse::Refused => false,
        };
    }

    fn is_forbidden(&self, scope: &WatchedScope) -> bool {
        scope.paths.iter().any(|path| self.forbidden.contains(path))
    }

    fn is_ready_to_stand_by(&self) -> Result<(), String> {
        match self.lease_seen {
            true => Ok(()),
            false => Err("the Lease has not been read yet".to_owned()),
        }
    }

    fn is_ready_to_lead(&self, scopes: &[WatchedScope]) -> Result<(), String> {
        match self.are_all_listed(scopes) {
            true => Ok(()),
            false => Err("not all OutboxRelays have been listed yet".to_owned()),
        }
    }

    /// A scope that the operator has no right to is not waited for, as long as there is another.
    fn are_all_listed(&self, scopes: &[WatchedScope]) -> bool {
        let is_done = |(number, scope): (usize, &WatchedScope)| {
            self.listed.contains(&number) || self.is_forbidden(scope)
        };
        !self.listed.is_empty() && scopes.iter().enumerate().all(is_done)
    }

    /// Each watch has received something within `silence_max`, measured from the start of leading.
    fn are_watches_alive(
        &self,
        paths: impl Iterator<Item = impl AsRef<str>>,
        leads_since: Instant,
        silence_max: Duration,
        now: Instant,
    ) -> Result<(), String> {
        for path in paths {
            let path = path.as_ref();
            let last = self.received_at.get(path).copied().unwrap_or(leads_since);
            let silence = now.saturating_duration_since(last);
            if silence > silence_max {
                let seconds = silence.as_secs();
                return Err(format!(
                    "the watch of {path} received nothing for {seconds}s"
                ));
            }
        }
        Ok(())
    }

    /// A reconciliation has ended within [`RECONCILE_SILENCE_MAX`], if there are objects.
    fn is_reconciling(
        &mut self,
        objects: usize,
        leads_since: Instant,
        now: Instant,
    ) -> Result<(), String> {
        // Without objects, silence means nothing. The time for the first object starts here.
        if objects == 0 {
            self.reconciled_at = Some(now);
        }
        let last = self.reconciled_at.unwrap_or(leads_since);
        let silence = now.saturating_duration_since(last);
        if silence > RECONCILE_SILENCE_MAX {
            return Err(format!(
                "no reconciliation ended for {}s",
                silence.as_secs()
            ));
        }
        Ok(())
    }
}

impl HealthState {
    pub(crate) fn new(expected: Expected) -> Self {
        Self {
            expected,
            observed: Mutex::default(),
        }
    }

    /// Records that the Lease could be read.
    pub(crate) fn lease_seen(&self) {
        self.observed().lease_seen = true;
    }

    /// Records that this operator leads from `now` on.
    pub(crate) fn leads(&self, now: Instant) {
        self.observed().leads_since = Some(now);
    }

    /// Records that a reconciliation ended, successful or not.
    pub(crate) fn reconciled(&self, now: Instant) {
        self.observed().reconciled_at = Some(now);
    }

    /// Records that all OutboxRelays of the scope with this number have been listed.
    pub(crate) fn listed(&self, scope: usize) {
        self.observed().listed.insert(scope);
    }

    /// Records that a watch received an event or a bookmark.
    pub(crate) fn received(&self, path: &str, now: Instant) {
        self.observed().received_at.insert(path.to_owned(), now);
    }

    /// Records a response to a list or a watch, and returns whether access to its scope changed. A
    /// refusal counts as received too: the API server was reached, and a restart would not help.
    pub(crate) fn responded(
        &self,
        path: &str,
        response: WatchResponse,
        now: Instant,
    ) -> Option<AccessChange> {
        let scope = self.expected.scope_of(path)?;
        let mut observed = self.observed();
        let was_forbidden = observed.is_forbidden(scope);
        observed.record(path, response, now);
        match (was_forbidden, observed.is_forbidden(scope)) {
            (false, true) => Some(AccessChange::Lost(scope.namespace.clone())),
            (true, false) => Some(AccessChange::Regained(scope.namespace.clone())),
            _ => None,
        }
    }

    /// Number of scopes that the operator has no right to.
    pub(crate) fn forbidden_count(&self) -> usize {
        let observed = self.observed();
        let scopes = self.expected.scopes.iter();
        scopes.filter(|scope| observed.is_forbidden(scope)).count()
    }

    /// Decides the answer of `/readyz`. An operator that stands by is ready once it can read the
    /// Lease: a rollout need not wait until it leads. One that leads is ready once all OutboxRelays
    /// that it may read have been listed.
    ///
    /// # Errors
    /// What the process still waits for.
    pub(crate) fn is_ready(&self) -> Result<(), String> {
        let observed = self.observed();
        match observed.leads_since {
            None => observed.is_ready_to_stand_by(),
            Some(_) => observed.is_ready_to_lead(&self.expected.scopes),
        }
    }

    /// Decides the answer of `/healthz`. `objects` is the number of OutboxRelays to reconcile. An
    /// operator that does not lead has nothing that could hang.
    ///
    /// # Errors
    /// Why the process must be restarted.
    pub(crate) fn is_alive(&self, objects: usize, now: Instant) -> Result<(), String> {
        let mut observed = self.observed();
        let Some(leads_since) = observed.leads_since else {
            return Ok(());
        };
        let silence_max = self.expected.watch_timeout * SILENT_WATCH_TIMEOUTS_MAX;
        let paths = self.expected.scopes.iter().flat_map(|scope| &scope.paths);
        observed.are_watches_alive(paths, leads_since, silence_max, now)?;
        observed.is_reconciling(objects, leads_since, now)
    }

    fn observed(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expected {
    /// The scope that one of the watched paths belongs to.
    fn scope_of(&self, path: &str) -> Option<&WatchedScope> {
        self.scopes.iter().find(|scope| scope.watches(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WATCH_TIMEOUT: Duration = Duration::from_secs(60);

    /// Returns the health of an operator of namespaces `a` and `b`, with one watch in each.
    fn health() -> (HealthState, Instant) {
        let scope = |name: &str| WatchedScope {
            namespace: Some(name.to_owned()),
            paths: vec![format!("/{name}/pods")],
        };
        (
            HealthState::new(Expected {
                scopes: vec![scope("a"), scope("b")],
                watch_timeout: WATCH_TIMEOUT,
            }),
            Instant::now(),
        )
    }

    fn leading() -> (HealthState, Instant) {
        let (health, start) = health();
        health.lease_seen();
        health.leads(start);
        (health, start)
    }

    fn receive_both(health: &HealthState, now: Instant) {
        for path in ["/a/pods", "/b/pods"] {
            assert_eq!(health.responded(path, WatchResponse::Opened, now), None);
        }
    }

    #[test]
    fn a_standby_is_ready_and_alive_once_it_has_read_the_lease() {
        let (health, start) = health();
        assert!(health.is_ready().is_err());
        health.lease_seen();
        assert_eq!(health.is_ready(), Ok(()));
        assert_eq!(health.is_alive(5, start + WATCH_TIMEOUT * 100), Ok(()));
    }

    #[test]
    fn a_leader_is_ready_when_all_relays_are_listed() {
        let (health, _) = leading();
        health.listed(0);
        assert!(health.is_ready().is_err());
        health.listed(1);
        assert_eq!(health.is_ready(), Ok(()));
    }

    #[test]
    fn a_watch_that_receives_nothing_is_dead_and_a_bookmark_keeps_it_alive() {
        let (health, start) = leading();
        receive_both(&health, start);
        assert_eq!(health.is_alive(0, start + WATCH_TIMEOUT * 3), Ok(()));
        health.received("/a/pods", start + WATCH_TIMEOUT * 4);
        let why = health
            .is_alive(0, start + WATCH_TIMEOUT * 4)
            .expect_err("one is silent");
        assert_eq!(why, "the watch of /b/pods received nothing for 240s");
        health.received("/b/pods", start + WATCH_TIMEOUT * 4);
        assert_eq!(health.is_alive(0, start + WATCH_TIMEOUT * 7), Ok(()));
    }

    #[test]
    fn a_watch_that_was_never_opened_is_dead() {
        let (health, start) = leading();
        assert_eq!(health.is_alive(0, start + WATCH_TIMEOUT), Ok(()));
        assert!(health.is_alive(0, start + WATCH_TIMEOUT * 4).is_err());
    }

    #[test]
    fn a_forbidden_namespace_causes_no_restart_and_is_not_waited_for() {
        let (health, start) = leading();
        let later = start + WATCH_TIMEOUT * 100;
        health.responded("/a/pods", WatchResponse::Opened, later);
        health.listed(0);
        assert!(health.is_ready().is_err() && health.is_alive(0, later).is_err());
        health.responded("/b/pods", WatchResponse::Forbidden, later);
        assert_eq!(
            (health.is_ready(), health.is_alive(0, later)),
            (Ok(()), Ok(()))
        );
        assert!(
            health.is_alive(0, later + WATCH_TIMEOUT * 4).is_err(),
            "a refusal must be repeated as often as a bookmark"
        );
    }

    #[test]
    fn an_operator_without_any_rights_is_not_ready() {
        let (health, start) = leading();
        health.responded("/a/pods", WatchResponse::Forbidden, start);
        health.responded("/b/pods", WatchResponse::Forbidden, start);
        assert!(health.is_ready().is_err());
        assert_eq!(health.is_alive(0, start + WATCH_TIMEOUT), Ok(()));
    }

    #[test]
    fn a_kind_that_does_not_exist_yet_is_waited_for_without_a_restart() {
        let (health, start) = leading();
        let later = start + WATCH_TIMEOUT * 100;
        for path in ["/a/pods", "/b/pods"] {
            assert_eq!(health.responded(path, WatchResponse::Refused, later), None);
        }
        assert_eq!(health.is_alive(0, later), Ok(()));
        assert!(health.is_ready().is_err());
    }

    #[test]
    fn lost_and_regained_access_are_each_reported_once() {
        let (health, now) = leading();
        let b = || Some("b".to_owned());
        assert_eq!(
            health.responded("/b/pods", WatchResponse::Opened, now),
            None
        );
        assert_eq!(
            health.responded("/b/pods", WatchResponse::Forbidden, now),
            Some(AccessChange::Lost(b()))
        );
        assert_eq!(
            health.responded("/b/pods", WatchResponse::Forbidden, now),
            None
        );
        assert_eq!(health.forbidden_count(), 1);
        // A busy API server says nothing about rights.
        assert_eq!(
            health.responded("/b/pods", WatchResponse::Refused, now),
            None
        );
        assert_eq!(
            health.responded("/b/pods", WatchResponse::Opened, now),
            Some(AccessChange::Regained(b()))
        );
        assert_eq!(health.forbidden_count(), 0);
        assert_eq!(
            health.responded("/b/replicasets", WatchResponse::Forbidden, now),
            None,
            "they are not watched"
        );
    }

    #[test]
    fn reconciliations_that_never_end_are_dead_only_when_there_are_objects() {
        let (health, start) = leading();
        let later = start + RECONCILE_SILENCE_MAX * 2;
        receive_both(&health, later);
        assert!(health.is_alive(1, later).is_err());
        assert_eq!(health.is_alive(0, later), Ok(()));
        assert_eq!(
            health.is_alive(1, later),
            Ok(()),
            "the first object after a long silence gets its time"
        );
        let silent = later + RECONCILE_SILENCE_MAX * 2;
        receive_both(&health, silent);
        assert!(health.is_alive(1, silent).is_err());
        health.reconciled(silent);
        assert_eq!(health.is_alive(1, silent), Ok(()));
    }
}
