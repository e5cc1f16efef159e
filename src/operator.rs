//! The operator: watches `OutboxRelay` objects and keeps a Deployment of relays for each, behind its migration.
//!
//! observe (IO) -> validate -> plan -> build (pure) -> apply (IO) -> status. [`Operator::pass`] is that line; everything else here is wiring.

mod apply;
mod backlog;
mod build;
mod call;
mod controller;
mod events;
mod fingerprint;
#[cfg(test)]
mod fixtures;
mod health;
mod identity;
mod installation;
mod memory;
mod metrics;
mod observe;
mod ownership;
mod plan;
mod reason;
mod reports;
mod status;
mod validate;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, ResourceExt, core::DeserializeGuard};

pub use controller::{RunError, Settings, run};
pub use installation::Installation;

use self::{
    apply::{Applied, ApplyError, Corner, apply},
    build::build,
    call::{CallError, ErrorClass, call_opt},
    events::Teller,
    identity::{Identity, PAUSED},
    memory::Memory,
    metrics::Metrics,
    observe::{ObserveError, Observed, observe},
    plan::{Before, Plan, Remembered, plan},
    status::{Facts, Verdict, assess, publish, unreadable},
    validate::{Count, ValidatedRelay, validate},
};
use crate::api::{OutboxRelay, OutboxRelayStatus};

/// Why a pass did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    #[error("failed to read the OutboxRelay")]
    Read(#[source] CallError),
    #[error("failed to observe")]
    Observe(#[source] ObserveError),
    #[error("failed to apply")]
    Apply(#[source] ApplyError),
    #[error("failed to write the status")]
    Publish(#[source] CallError),
    #[error("took longer than {}s", .0.as_secs())]
    Timeout(Duration),
}

impl PassError {
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Read(call) | Self::Publish(call) => call.class(),
            Self::Observe(error) => error.call().class(),
            Self::Apply(error) => error.class(),
            Self::Timeout(_) => ErrorClass::Transient,
        }
    }
}

/// What every pass needs.
pub struct Operator {
    client: Client,
    settings: Settings,
    memory: Memory,
    metrics: Metrics,
    teller: Teller,
}

impl Operator {
    #[must_use]
    pub fn new(client: Client, settings: Settings) -> Self {
        let teller = Teller::new(client.clone(), settings.pod_name.clone());
        Self { client, settings, memory: Memory::default(), metrics: Metrics::new(), teller }
    }

    /// One pass over one OutboxRelay, as the controller does it at every change; the answer is when to look again.
    ///
    /// # Errors
    /// When it did not come to its end; the status says so too.
    pub async fn pass(&self, namespace: &str, name: &str) -> Result<Option<Duration>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Box::pin(self.work_through(namespace, name)).await?)
    }

    /// Dropped half-way, it has written a part; the next pass writes the rest.
    async fn work_through(&self, namespace: &str, name: &str) -> Result<Option<Duration>, PassError> {
        let Some(relay) = read(&self.client, namespace, name).await? else { return Ok(None) };
        let identity = Identity::of(&relay.metadata);
        let previous = relay.status.clone().unwrap_or_default();
        let corner = Corner { client: &self.client, identity: &identity, memory: &self.memory };

        let observed = match Box::pin(observe(&self.client, &identity)).await {
            Ok(observed) => observed,
            Err(error) => return Err(self.cannot_observe(&corner, &previous, error).await?),
        };
        let facts = Facts {
            identity: &identity,
            previous: &previous,
            written_at: self.memory.status_written_at(corner.key()),
            paused: relay.annotations().get(PAUSED).is_some_and(|value| value == "true"),
            now: Timestamp::now(),
        };
        match validate(&relay, &self.settings.installation) {
            Ok(valid) => self.carry_out(&corner, &facts, &valid, observed).await,
            Err(invalid) => {
                self.conclude(&corner, &facts, &observed, &Verdict::Invalid(&invalid)).await?;
                Ok(Some(plan::LOOK))
            }
        }
    }

    async fn carry_out(
        &self,
        corner: &Corner<'_>,
        facts: &Facts<'_>,
        valid: &ValidatedRelay,
        mut observed: Observed,
    ) -> Result<Option<Duration>, PassError> {
        let scaling = self.memory.scaling(corner.key());
        let before = Before { generation: facts.previous.observed_generation, scaling: &scaling };
        let mut plan = plan(valid, &observed, &before, facts.now);
        let applied = if facts.paused {
            plan = plan.paused();
            Ok(Applied::default())
        } else {
            apply(corner, &build(valid, &plan), &plan, &observed).await
        };
        if let Ok(Applied { deployment: Some(deployment), .. }) = &applied {
            observed.deployment = Some(deployment.clone());
        }
        if applied.is_ok() {
            self.remember(corner, valid, &plan);
        }
        let verdict = Verdict::Planned { relay: valid, plan: &plan, applied: applied.as_ref() };
        self.conclude(corner, facts, &observed, &verdict).await?;
        applied.map_err(PassError::Apply)?;
        Ok(Some(plan.look_again_in))
    }

    /// What was decided and done; a decision that was not carried out is made again.
    fn remember(&self, corner: &Corner<'_>, valid: &ValidatedRelay, plan: &Plan) {
        match &plan.scaling {
            Some(scaling) => {
                self.metrics.decided(&scaling.decision);
                self.memory.remember_scaling(corner.key(), scaling.remember.clone());
            }
            None if matches!(valid.count, Count::Scaled(_)) => {}
            None => self.memory.remember_scaling(corner.key(), Remembered::default()),
        }
    }

    async fn conclude(&self, corner: &Corner<'_>, facts: &Facts<'_>, observed: &Observed, verdict: &Verdict<'_>) -> Result<(), PassError> {
        let status = assess(facts, observed, verdict);
        let tellings = events::tellings(facts.previous, &status, verdict);
        say(corner, facts.previous, &status).await?;
        self.teller.tell(corner.identity, tellings).await;
        Ok(())
    }

    async fn cannot_observe(&self, corner: &Corner<'_>, previous: &OutboxRelayStatus, error: ObserveError) -> Result<PassError, PassError> {
        let why = format!("{error}: {}. It is tried again.", error.call());
        say(corner, previous, &unreadable(corner.identity, previous, &why, Timestamp::now())).await?;
        Ok(PassError::Observe(error))
    }
}

/// The latest form, with the latest status: what the watch has brought may be older than what we wrote.
async fn read(client: &Client, namespace: &str, name: &str) -> Result<Option<OutboxRelay>, PassError> {
    let api = Api::<DeserializeGuard<OutboxRelay>>::namespaced(client.clone(), namespace);
    let Some(found) = call_opt(api.get(name)).await.map_err(PassError::Read)? else { return Ok(None) };
    match found.0 {
        Ok(relay) if relay.metadata.deletion_timestamp.is_none() => Ok(Some(relay)),
        Ok(_) => Ok(None),
        Err(invalid) => {
            tracing::error!(
                namespace,
                name,
                error = invalid.error,
                "an OutboxRelay is not of a form that this version knows; it is left alone"
            );
            Ok(None)
        }
    }
}

/// Writes a status that says something new.
async fn say(corner: &Corner<'_>, previous: &OutboxRelayStatus, status: &OutboxRelayStatus) -> Result<(), PassError> {
    if status == previous {
        return Ok(());
    }
    publish(corner.client, corner.identity, status).await.map_err(PassError::Publish)?;
    corner.memory.status_written(corner.key(), Timestamp::now());
    Ok(())
}
