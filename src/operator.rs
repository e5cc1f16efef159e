//! The operator: watches `OutboxRelay` objects and keeps a Deployment of relays for each, behind
//! its migration.
//!
//! observe (IO) -> validate -> plan -> build (pure) -> apply (IO) -> status. [`Operator::pass`] is
//! that line; everything else here is wiring. While nothing changes, what was observed holds: such
//! a pass asks the relays for their reports, and the API server for nothing.

mod apply;
mod backlog;
mod build;
mod call;
mod client;
mod controller;
mod election;
mod events;
mod fence;
mod fingerprint;
#[cfg(test)]
mod fixtures;
mod health;
mod identity;
mod installation;
mod lease;
mod memory;
mod metrics;
mod observe;
mod ownership;
mod pace;
mod plan;
mod reason;
mod reports;
mod run;
mod scopes;
mod status;
mod surface;
mod upgrades;
mod validate;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    core::{DeserializeGuard, error_boundary::InvalidObject},
};

pub use installation::Installation;
pub use run::{Options, RunError, run};

use self::{
    apply::{Applied, ApplyError, Corner, apply, set_scale},
    build::build,
    call::{CallError, ErrorClass, call_opt},
    events::Teller,
    identity::{Identity, PAUSED, is_ours},
    memory::{Key, Memory, Seen},
    metrics::Metrics,
    observe::{ObserveError, Observed, observe},
    plan::{Before, Plan, Remembered, Scale, change, plan, progress},
    status::{Facts, Invalid, Verdict, assess, not_understood, publish, unreadable},
    upgrades::{Progress, Turn, UpgradeQueue},
    validate::{Count, Unworkable, ValidatedRelay, validate, wish_for_none},
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

    /// What a busy API server asked for.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Read(call) | Self::Publish(call) => call.retry_after(),
            Self::Observe(error) => error.call().retry_after(),
            Self::Apply(error) => error.call()?.retry_after(),
            Self::Timeout(_) => None,
        }
    }
}

/// What passes are made with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub installation: Installation,
    /// Which OutboxRelays are its own, where several operators share a cluster.
    pub operator_name: String,
    /// Name of this pod, for Events.
    pub pod_name: Option<String>,
}

/// What every pass needs.
pub struct Operator {
    client: Client,
    settings: Settings,
    memory: Arc<Memory>,
    metrics: Metrics,
    upgrades: Mutex<UpgradeQueue>,
    teller: Teller,
}

impl Operator {
    #[must_use]
    pub fn new(client: Client, settings: Settings) -> Self {
        let teller = Teller::new(client.clone(), settings.pod_name.clone());
        Self {
            client,
            settings,
            memory: Arc::default(),
            metrics: Metrics::new(),
            upgrades: Mutex::default(),
            teller,
        }
    }

    /// One pass over one OutboxRelay, as the controller does it when something has changed; the
    /// answer is when to look again.
    ///
    /// # Errors
    /// When it did not come to its end; the status says so too.
    pub async fn pass(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Duration>, Box<dyn std::error::Error + Send + Sync>> {
        self.memory.changed((namespace, name));
        Ok(Box::pin(self.work_through(namespace, name)).await?)
    }

    /// Dropped half-way, it has written a part; the next pass reads everything anew, and writes the
    /// rest.
    async fn work_through(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Duration>, PassError> {
        let began = Instant::now();
        let (mark, unchanged) = self.memory.recall((namespace, name), began);
        let (mut seen, seen_at) = match unchanged {
            Some(known) => known,
            None => match self.see(namespace, name).await? {
                Some(seen) => (seen, began),
                None => return Ok(None),
            },
        };
        seen.observed.reports = reports::collect(&seen.observed.pods).await;
        let again = self.work_on(&mut seen).await?;
        if seen.observed.is_watched() {
            self.memory.keep((namespace, name), mark, seen, seen_at);
        }
        Ok(Some(again))
    }

    /// The OutboxRelay with all that it has; nothing when there is none for this operator to work
    /// on.
    async fn see(&self, namespace: &str, name: &str) -> Result<Option<Seen>, PassError> {
        let relay = match read(&self.client, namespace, name)
            .await?
            .meant_for(&self.settings.operator_name)
        {
            Found::Relay(relay) => *relay,
            Found::Unreadable(invalid) => {
                return self.say_unreadable(&invalid).await.map(|()| None);
            }
            Found::Gone => {
                self.forget((namespace, name));
                return Ok(None);
            }
        };
        match Box::pin(observe(&self.client, &Identity::of(&relay.metadata))).await {
            Ok(observed) => Ok(Some(Seen { relay, observed })),
            Err(error) => Err(self.cannot_observe(&relay, error).await?),
        }
    }

    /// Leaves the status that it wrote in what was seen.
    async fn work_on(&self, Seen { relay, observed }: &mut Seen) -> Result<Duration, PassError> {
        let identity = Identity::of(&relay.metadata);
        let previous = relay.status.take().unwrap_or_default();
        let corner = Corner {
            client: &self.client,
            identity: &identity,
            memory: &self.memory,
        };
        let facts = Facts {
            identity: &identity,
            previous: &previous,
            written_at: self.memory.status_written_at(corner.key()),
            paused: relay
                .annotations()
                .get(PAUSED)
                .is_some_and(|value| value == "true"),
            now: Timestamp::now(),
        };
        let validated = validate(relay, &self.settings.installation);
        if facts.paused || validated.is_err() {
            self.step_aside(corner.key());
        }
        let (status, again) = match validated {
            Ok(valid) => self.carry_out(&corner, &facts, &valid, observed).await?,
            Err(why) => (
                self.stop_if_wished(
                    &corner,
                    &facts,
                    &why,
                    wish_for_none(&relay.spec).as_ref(),
                    observed,
                )
                .await?,
                plan::LOOK,
            ),
        };
        relay.status = Some(status);
        Ok(again)
    }

    async fn carry_out(
        &self,
        corner: &Corner<'_>,
        facts: &Facts<'_>,
        valid: &ValidatedRelay,
        observed: &mut Observed,
    ) -> Result<(OutboxRelayStatus, Duration), PassError> {
        let scaling = self.memory.scaling(corner.key());
        let turn = if facts.paused {
            Turn::Go
        } else {
            self.turn(corner, valid, observed, facts.now)
        };
        let before = Before {
            generation: facts.carried_out(),
            scaling: &scaling,
            turn,
        };
        let mut plan = plan(valid, observed, &before, facts.now);
        let applied = if facts.paused {
            plan = plan.paused();
            Applied::default()
        } else {
            apply(corner, &build(valid, &plan), &plan, observed).await
        };
        if let Some(deployment) = &applied.deployment {
            observed.deployment = Some(deployment.clone());
        }
        if !facts.paused {
            let refused = applied
                .obstacle
                .as_ref()
                .is_some_and(|error| error.class() == ErrorClass::Permanent);
            self.note_progress(corner, progress(valid, &plan, observed, refused));
        }
        if applied.scaled {
            self.remember(corner, valid, &plan);
        }
        let verdict = Verdict::Planned {
            relay: valid,
            plan: &plan,
            applied: &applied,
        };
        let status = self.conclude(corner, facts, observed, &verdict).await?;
        applied
            .obstacle
            .map_or(Ok((status, plan.look_again_in)), |error| {
                Err(PassError::Apply(error))
            })
    }

    /// Of a manifest that cannot work: whatever runs goes on as it is, unless no relay is wished
    /// for.
    async fn stop_if_wished(
        &self,
        corner: &Corner<'_>,
        facts: &Facts<'_>,
        why: &Unworkable,
        wish: Option<&Count>,
        observed: &Observed,
    ) -> Result<OutboxRelayStatus, PassError> {
        let scale = if facts.paused {
            Scale::Keep
        } else {
            plan::stop(wish, observed)
        };
        let stopped = set_scale(corner, scale, observed).await;
        if wish.is_some() && stopped.is_ok() {
            self.memory
                .remember_scaling(corner.key(), Remembered::default());
        }
        let verdict = Verdict::Invalid(Invalid {
            why,
            wish,
            obstacle: stopped.as_ref().err(),
        });
        let status = self.conclude(corner, facts, observed, &verdict).await?;
        stopped.map(|()| status).map_err(PassError::Apply)
    }

    fn turn(
        &self,
        corner: &Corner<'_>,
        valid: &ValidatedRelay,
        observed: &Observed,
        now: Timestamp,
    ) -> Turn {
        let moving = observed
            .deployment
            .as_ref()
            .is_some_and(|deployment| deployment.moving && !deployment.rolled_out());
        let places = self.settings.installation.upgrades_max;
        self.upgrades()
            .turn(corner.key(), change(valid, observed), moving, places, now)
    }

    fn note_progress(&self, corner: &Corner<'_>, progress: Option<Progress>) {
        self.queue(|queue| {
            progress
                .into_iter()
                .for_each(|progress| queue.note(corner.key(), progress))
        });
    }

    /// Nothing is written for it now, whoever else may have its place.
    fn step_aside(&self, key: Key<'_>) {
        self.queue(|queue| queue.step_aside(key));
    }

    /// An OutboxRelay is gone.
    fn forget(&self, key: Key<'_>) {
        self.memory.forget(key);
        self.queue(|queue| queue.forget(key));
    }

    fn queue(&self, tell: impl FnOnce(&mut UpgradeQueue)) {
        let mut queue = self.upgrades();
        tell(&mut queue);
        self.metrics.queued(queue.counts());
    }

    /// A panic while it was held cannot have left a turn half given.
    fn upgrades(&self) -> MutexGuard<'_, UpgradeQueue> {
        self.upgrades.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was decided and done; a decision that was not carried out is made again.
    fn remember(&self, corner: &Corner<'_>, valid: &ValidatedRelay, plan: &Plan) {
        match &plan.scaling {
            Some(scaling) => {
                self.metrics.decided(&scaling.decision);
                self.memory
                    .remember_scaling(corner.key(), scaling.remember.clone());
            }
            None if matches!(valid.count, Count::Scaled(_)) => {}
            None => self
                .memory
                .remember_scaling(corner.key(), Remembered::default()),
        }
    }

    async fn conclude(
        &self,
        corner: &Corner<'_>,
        facts: &Facts<'_>,
        observed: &Observed,
        verdict: &Verdict<'_>,
    ) -> Result<OutboxRelayStatus, PassError> {
        let status = assess(facts, observed, verdict);
        let tellings = events::tellings(facts.previous, &status, verdict);
        say(corner, facts.previous, &status).await?;
        self.teller.tell(corner.identity, tellings).await;
        Ok(status)
    }

    /// Its status cannot be read either, so it is written anew; relays that run go on. Looked at
    /// again only when it changes.
    async fn say_unreadable(&self, invalid: &InvalidObject) -> Result<(), PassError> {
        let identity = Identity::of(&invalid.metadata);
        let (namespace, name) = (&identity.namespace, &identity.name);
        self.step_aside((namespace, name));
        tracing::error!(
            namespace,
            name,
            error = invalid.error,
            "an OutboxRelay is not of a form that this version knows"
        );
        let (status, telling) = not_understood(&identity, &invalid.error, Timestamp::now());
        publish(&self.client, &identity, &status)
            .await
            .map_err(PassError::Publish)?;
        self.teller.tell(&identity, vec![telling]).await;
        Ok(())
    }

    async fn cannot_observe(
        &self,
        relay: &OutboxRelay,
        error: ObserveError,
    ) -> Result<PassError, PassError> {
        let identity = Identity::of(&relay.metadata);
        let previous = relay.status.clone().unwrap_or_default();
        let corner = Corner {
            client: &self.client,
            identity: &identity,
            memory: &self.memory,
        };
        let why = format!("{error}: {}. It is tried again.", error.call());
        say(
            &corner,
            &previous,
            &unreadable(&identity, &previous, &why, Timestamp::now()),
        )
        .await?;
        Ok(PassError::Observe(error))
    }
}

/// An OutboxRelay as the API server has it.
enum Found {
    Relay(Box<OutboxRelay>),
    /// Another version's form, which this one cannot read.
    Unreadable(Box<InvalidObject>),
    /// Or about to be.
    Gone,
}

impl Found {
    /// One that is meant for another operator is as good as gone.
    fn meant_for(self, operator_name: &str) -> Self {
        let meta = match &self {
            Self::Relay(relay) => &relay.metadata,
            Self::Unreadable(invalid) => &invalid.metadata,
            Self::Gone => return self,
        };
        if is_ours(meta, operator_name) {
            self
        } else {
            Self::Gone
        }
    }
}

/// The latest form, with the latest status: what the watch has brought may be older than what we
/// wrote.
async fn read(client: &Client, namespace: &str, name: &str) -> Result<Found, PassError> {
    let api = Api::<DeserializeGuard<OutboxRelay>>::namespaced(client.clone(), namespace);
    let Some(found) = call_opt(api.get(name)).await.map_err(PassError::Read)? else {
        return Ok(Found::Gone);
    };
    Ok(match found.0 {
        _ if is_going(&found.0) => Found::Gone,
        Ok(relay) => Found::Relay(Box::new(relay)),
        Err(invalid) => Found::Unreadable(Box::new(invalid)),
    })
}

fn is_going(found: &Result<OutboxRelay, InvalidObject>) -> bool {
    let metadata = match found {
        Ok(relay) => &relay.metadata,
        Err(invalid) => &invalid.metadata,
    };
    metadata.deletion_timestamp.is_some()
}

/// Writes a status that says something new.
async fn say(
    corner: &Corner<'_>,
    previous: &OutboxRelayStatus,
    status: &OutboxRelayStatus,
) -> Result<(), PassError> {
    if status == previous {
        return Ok(());
    }
    publish(corner.client, corner.identity, status)
        .await
        .map_err(PassError::Publish)?;
    corner.memory.status_written(corner.key(), Timestamp::now());
    Ok(())
}
