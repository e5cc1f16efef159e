//! The namespaces that the operator watches, and the OutboxRelays that its watches found there. No
//! IO.

use std::sync::Arc;

use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job, core::v1::Pod};
use kube::{
    Resource,
    core::DeserializeGuard,
    runtime::reflector::{self, Store, store::Writer},
};

use crate::{
    api::OutboxRelay,
    operator::{identity::is_reconciled, process::health::WatchedScope},
};

/// An OutboxRelay, or why its manifest cannot be read.
pub(crate) type GuardedRelay = DeserializeGuard<OutboxRelay>;

/// One namespace, or all of them, with a store of its OutboxRelays.
pub(crate) struct WatchScope {
    /// `None` means all namespaces.
    pub namespace: Option<String>,
    pub store: Store<GuardedRelay>,
    pub writer: Writer<GuardedRelay>,
}

impl WatchScope {
    fn new(namespace: Option<String>) -> Self {
        let (store, writer) = reflector::store();
        Self {
            namespace,
            store,
            writer,
        }
    }

    fn watched(&self) -> WatchedScope {
        let namespace = self.namespace.as_deref();
        let paths = [
            OutboxRelay::url_path(&(), namespace),
            Deployment::url_path(&(), namespace),
            Job::url_path(&(), namespace),
            Pod::url_path(&(), namespace),
        ];
        WatchedScope {
            namespace: self.namespace.clone(),
            paths: paths.into(),
        }
    }
}

/// Everything that the operator watches.
pub(crate) struct WatchScopes(pub Vec<WatchScope>);

impl WatchScopes {
    /// Returns one scope for each namespace. Without namespaces, returns one scope for all.
    pub(crate) fn new(namespaces: &[String]) -> Self {
        if namespaces.is_empty() {
            return Self(vec![WatchScope::new(None)]);
        }
        let namespaces = namespaces.iter().cloned().map(Some);
        Self(namespaces.map(WatchScope::new).collect())
    }

    /// Returns the paths that are watched in each scope.
    pub(crate) fn watched(&self) -> Vec<WatchedScope> {
        self.0.iter().map(WatchScope::watched).collect()
    }

    /// Returns the OutboxRelays of all scopes that the operator of this name reconciles.
    pub(crate) fn relay_store(&self, operator_name: &str) -> RelayStore {
        RelayStore {
            stores: self.0.iter().map(|scope| scope.store.clone()).collect(),
            operator_name: operator_name.into(),
        }
    }
}

/// The OutboxRelays that the operator reconciles, as its watches received them.
#[derive(Clone)]
pub(crate) struct RelayStore {
    stores: Vec<Store<GuardedRelay>>,
    operator_name: Arc<str>,
}

impl RelayStore {
    pub(crate) fn count(&self) -> usize {
        self.relays().len()
    }

    pub(crate) fn relays(&self) -> Vec<Arc<GuardedRelay>> {
        let relays = self.stores.iter().flat_map(Store::state);
        relays
            .filter(|relay| is_reconciled(&relay.0, &self.operator_name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::operator::fixtures::relay;

    #[test]
    fn watched_relays_are_counted_by_the_operator_that_reconciles_them() {
        let mut scopes = WatchScopes::new(&["a".to_owned(), "b".to_owned()]);
        for scope in &mut scopes.0 {
            let mut relay = relay();
            relay.metadata.namespace.clone_from(&scope.namespace);
            scope
                .writer
                .apply_watcher_event(&Event::Apply(DeserializeGuard(Ok(relay))));
        }
        assert_eq!(scopes.relay_store("outbox-operator").count(), 2);
        assert_eq!(scopes.relay_store("team-a").count(), 0);
    }

    #[test]
    fn each_namespace_has_four_watches() {
        let paths = |namespaces: &[String]| WatchScopes::new(namespaces).watched().remove(0).paths;
        let of_one = paths(&["a".to_owned()]);
        assert_eq!(
            of_one[0],
            "/apis/outboxrelay.dev/v1alpha1/namespaces/a/outboxrelays"
        );
        assert_eq!(of_one[3], "/api/v1/namespaces/a/pods");
        assert_eq!(paths(&[])[1], "/apis/apps/v1/deployments");
    }
}
