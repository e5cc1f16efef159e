//! The operator: watches `OutboxRelay` objects and keeps a Deployment of relays for each, behind
//! its migration.
//!
//! [`Operator::reconcile`] is the line that every change of an object goes through: read, observe,
//! validate, build, plan, apply, assess, publish. `process` runs it: watches, leader election,
//! health and metrics.

mod call;
mod children;
mod fingerprint;
#[cfg(test)]
mod fixtures;
mod identity;
mod installation;
mod ownership;
pub mod process;
mod reason;
mod reconcile;

use std::sync::{Arc, Mutex};

use kube::Client;

pub use identity::RelayKey;
pub use installation::Installation;
pub use reconcile::{ReconcileError, Requeue};

use crate::operator::{
    process::metrics::Metrics,
    reconcile::{cache::Cache, event_recorder::EventRecorder, upgrade_queue::UpgradeQueue},
};

/// What an operator is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub installation: Installation,
    /// Only OutboxRelays that are meant for this operator are reconciled, where several operators
    /// share a cluster.
    pub operator_name: String,
    /// Name of this pod, for Events.
    pub pod_name: Option<String>,
}

/// Reconciles OutboxRelays. Holds what outlives one reconciliation.
pub struct Operator {
    client: Client,
    settings: Settings,
    cache: Arc<Cache>,
    metrics: Metrics,
    upgrades: Mutex<UpgradeQueue>,
    events: EventRecorder,
}

impl Operator {
    /// Returns an operator that has cached nothing.
    #[must_use]
    pub fn new(client: Client, settings: Settings) -> Self {
        let events = EventRecorder::new(client.clone(), settings.pod_name.clone());
        Self {
            client,
            settings,
            cache: Arc::default(),
            metrics: Metrics::new(),
            upgrades: Mutex::default(),
            events,
        }
    }

    /// Drops what is cached of an OutboxRelay: it changed, or one of its children did. The next
    /// [`Self::reconcile`] reads everything from the API server.
    pub fn mark_changed(&self, key: &RelayKey) {
        self.cache.changed(key);
    }
}
