//! Where the operator looks, and the OutboxRelays that its watches brought from there. No IO.

use std::sync::Arc;

use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job, core::v1::Pod};
use kube::{
    Resource,
    core::DeserializeGuard,
    runtime::reflector::{self, Store, store::Writer},
};

use crate::{
    api::OutboxRelay,
    operator::{identity::is_reconciled, process::health::Watched},
};

pub(crate) type Guarded = DeserializeGuard<OutboxRelay>;

/// One namespace, or all of them, with a store of its OutboxRelays.
pub(crate) struct Scope {
    pub namespace: Option<String>,
    pub known: Store<Guarded>,
    pub writer: Writer<Guarded>,
}

impl Scope {
    fn watched(&self) -> Watched {
        let namespace = self.namespace.as_deref();
        let paths = [
            OutboxRelay::url_path(&(), namespace),
            Deployment::url_path(&(), namespace),
            Job::url_path(&(), namespace),
            Pod::url_path(&(), namespace),
        ];
        Watched {
            namespace: self.namespace.clone(),
            paths: paths.into(),
        }
    }
}

/// All that the operator looks at.
pub(crate) struct Scopes(pub Vec<Scope>);

impl Scopes {
    /// These namespaces; none: all there are.
    pub(crate) fn new(namespaces: &[String]) -> Self {
        let scope = |namespace| {
            let (known, writer) = reflector::store();
            Scope {
                namespace,
                known,
                writer,
            }
        };
        let mut named: Vec<Scope> = namespaces.iter().cloned().map(Some).map(scope).collect();
        if named.is_empty() {
            named.push(scope(None));
        }
        Self(named)
    }

    pub(crate) fn watched(&self) -> Vec<Watched> {
        self.0.iter().map(Scope::watched).collect()
    }

    /// Those of them that the operator of this name looks after.
    pub(crate) fn known(&self, operator_name: &str) -> Known {
        Known {
            stores: self.0.iter().map(|scope| scope.known.clone()).collect(),
            operator_name: operator_name.into(),
        }
    }
}

/// The OutboxRelays that passes are made over, as the watches brought them.
#[derive(Clone)]
pub(crate) struct Known {
    stores: Vec<Store<Guarded>>,
    operator_name: Arc<str>,
}

impl Known {
    pub(crate) fn count(&self) -> usize {
        self.relays().len()
    }

    pub(crate) fn relays(&self) -> Vec<Arc<Guarded>> {
        let ours = |found: &Arc<Guarded>| is_reconciled(&found.0, &self.operator_name);
        self.stores
            .iter()
            .flat_map(Store::state)
            .filter(ours)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::operator::fixtures::relay;

    #[test]
    fn what_the_watches_brought_is_counted_by_the_operator_that_looks_after_it() {
        let mut scopes = Scopes::new(&["a".to_owned(), "b".to_owned()]);
        for scope in &mut scopes.0 {
            let mut relay = relay();
            relay.metadata.namespace.clone_from(&scope.namespace);
            scope
                .writer
                .apply_watcher_event(&Event::Apply(DeserializeGuard(Ok(relay))));
        }
        assert_eq!(scopes.known("outbox-operator").count(), 2);
        assert_eq!(scopes.known("team-a").count(), 0);
    }

    #[test]
    fn each_namespace_has_four_watches() {
        let paths = |namespaces: &[String]| Scopes::new(namespaces).watched().remove(0).paths;
        let of_one = paths(&["a".to_owned()]);
        assert_eq!(
            of_one[0],
            "/apis/outboxrelay.dev/v1alpha1/namespaces/a/outboxrelays"
        );
        assert_eq!(of_one[3], "/api/v1/namespaces/a/pods");
        assert_eq!(paths(&[])[1], "/apis/apps/v1/deployments");
    }
}
