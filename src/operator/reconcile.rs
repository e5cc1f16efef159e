//! One OutboxRelay, from what is read to what is written. [`Operator::reconcile`] is the line; the
//! modules below are its steps.

pub(crate) mod apply;
pub(crate) mod build;
pub(crate) mod cache;
pub(crate) mod event_recorder;
pub(crate) mod manifest;
pub(crate) mod observe;
pub(crate) mod plan;
pub(crate) mod status;
pub(crate) mod upgrade_queue;
pub(crate) mod validate;

use std::{
    sync::{MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kube::{Api, core::DeserializeGuard};

pub use plan::Requeue;

use crate::{
    api::{OutboxRelay, OutboxRelayStatus},
    operator::{
        Operator, RelayKey,
        call::{CallError, ErrorClass, call_opt},
        reconcile::{
            apply::{Applied, ApplyError, Target, apply},
            build::{Desired, build},
            cache::{Recalled, Snapshot},
            manifest::Manifest,
            observe::{ObserveError, Observed, observe, relay_reports},
            plan::{History, Plan, RelayPlan, ScalingMemory, change, load, plan, progress},
            status::{
                PendingEvent, StatusInputs, assess, carried_out_generation, not_observed,
                write_status,
            },
            upgrade_queue::{Progress, Turn, UpgradeQueue},
            validate::{DesiredReplicas, InvalidManifest, validate},
        },
    },
};

/// Why a reconciliation failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ReconcileError(#[from] StepError);

/// The step that failed.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("failed to read the OutboxRelay")]
    Read(#[source] CallError),
    #[error("failed to read the children")]
    Observe(#[source] ObserveError),
    #[error("failed to write the children")]
    Apply(#[source] ApplyError),
    #[error("failed to write the status")]
    Publish(#[source] CallError),
    #[error("took longer than {}s", .0.as_secs())]
    Timeout(Duration),
}

impl ReconcileError {
    /// Returns the error of a reconciliation that was given up after `limit`.
    pub(crate) fn timeout(limit: Duration) -> Self {
        Self(StepError::Timeout(limit))
    }

    /// Returns when another attempt can help.
    pub(crate) fn class(&self) -> ErrorClass {
        match &self.0 {
            StepError::Apply(error) => error.class(),
            _ => self.call().map_or(ErrorClass::Transient, CallError::class),
        }
    }

    /// Returns the pause that a busy API server asked for.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.call()?.retry_after()
    }

    /// Returns the failed request, if there was one.
    fn call(&self) -> Option<&CallError> {
        match &self.0 {
            StepError::Read(call) | StepError::Publish(call) => Some(call),
            StepError::Observe(error) => Some(error.call()),
            StepError::Apply(error) => error.call(),
            StepError::Timeout(_) => None,
        }
    }
}

impl Operator {
    /// Brings the children of one OutboxRelay to what its manifest says, as far as that is possible
    /// now, and writes its status and Events.
    ///
    /// While nothing changes, the manifest and its children come from the cache: then the relays
    /// are asked for their reports, and the API server for nothing.
    ///
    /// # Errors
    /// When a step failed. The status has the error too, unless writing it failed.
    ///
    /// # Cancel safety
    /// If dropped, some children may be written and others not, and nothing stays in the cache: the
    /// next call reads everything again and writes what is missing.
    pub async fn reconcile(&self, key: &RelayKey) -> Result<Requeue, ReconcileError> {
        // A change that a watch reports from here on keeps this reconciliation out of the cache.
        let mut recalled = self.cache.recall(key, Instant::now());
        let Some(mut manifest) = self.read(key, &mut recalled).await? else {
            return Ok(Requeue::OnChange);
        };
        self.cache
            .recheck_children(key, manifest.reconcile_at.as_deref());
        let mut observed = self.observe(key, &manifest, &mut recalled).await?;

        let now = Timestamp::now();
        let desired = validate(&manifest, &self.settings.installation).map(build);
        let history = self.history(key, &manifest, &desired, &observed, now);
        let plan = plan(&desired, &observed, &history, now);

        let target = self.target(key, &manifest);
        let applied = Box::pin(apply(&target, &plan, &observed)).await;
        observed.deployment = applied.deployment.clone().or(observed.deployment);
        // Before the status is written: if that fails, a step that was taken is still remembered.
        self.record(key, &plan, &applied, &observed);

        let inputs = self.status_inputs(key, &manifest, now);
        let (status, events) = assess(&inputs, &observed, &plan, &applied);
        // Also if a child was not written: the status reports why.
        Box::pin(self.publish(&target, &manifest.status, &status, events)).await?;
        applied.into_result().map_err(StepError::Apply)?;

        let requeue = load::requeue(plan.requeue(), &status, &observed.reports);
        manifest.status = status;
        self.keep(key, recalled, manifest, observed);
        Ok(requeue)
    }

    /// Returns the manifest with the status as this operator wrote it, from the cache or the API
    /// server. What the watch brought may be older than that. Returns nothing if the OutboxRelay is
    /// gone, about to go, or meant for another operator.
    async fn read(
        &self,
        key: &RelayKey,
        recalled: &mut Recalled,
    ) -> Result<Option<Manifest>, StepError> {
        if let Some(manifest) = recalled.manifest.take() {
            return Ok(Some(manifest));
        }
        let manifest = Box::pin(self.get_manifest(key))
            .await
            .map_err(StepError::Read)?;
        match &manifest {
            None => self.forget(key),
            Some(manifest) => log_unreadable(key, manifest),
        }
        Ok(manifest)
    }

    async fn get_manifest(&self, key: &RelayKey) -> Result<Option<Manifest>, CallError> {
        // The guard returns even a manifest that this version cannot parse, with its metadata:
        // enough to write its status.
        let api =
            Api::<DeserializeGuard<OutboxRelay>>::namespaced(self.client.clone(), &key.namespace);
        let found = call_opt(api.get(&key.name)).await?;
        Ok(found.and_then(|found| Manifest::of(found.0, &self.settings.operator_name)))
    }

    /// Returns the children, from the cache or the API server, with fresh reports of the relays. An
    /// unreadable manifest needs none: nothing is done to its children.
    async fn observe(
        &self,
        key: &RelayKey,
        manifest: &Manifest,
        recalled: &mut Recalled,
    ) -> Result<Observed, StepError> {
        if manifest.content.is_err() {
            return Ok(Observed::default());
        }
        let mut observed = match recalled.observed.take() {
            Some(observed) => observed,
            None => match Box::pin(observe(&self.client, &manifest.identity)).await {
                Ok(observed) => observed,
                Err(error) => {
                    return Err(Box::pin(self.cannot_observe(key, manifest, error)).await?);
                }
            },
        };
        observed.reports = Box::pin(relay_reports::collect(&observed.pods)).await;
        Ok(observed)
    }

    /// Writes the status of an OutboxRelay whose children could not be read. No Event: the error is
    /// of the API server, and it is retried.
    async fn cannot_observe(
        &self,
        key: &RelayKey,
        manifest: &Manifest,
        error: ObserveError,
    ) -> Result<StepError, StepError> {
        let message = format!(
            "{error}: {}. The operator retries automatically.",
            error.call()
        );
        let status = not_observed(
            &manifest.identity,
            &manifest.status,
            &message,
            Timestamp::now(),
        );
        let target = self.target(key, manifest);
        self.publish(&target, &manifest.status, &status, Vec::new())
            .await?;
        Ok(StepError::Observe(error))
    }

    fn target<'a>(&'a self, key: &'a RelayKey, manifest: &'a Manifest) -> Target<'a> {
        Target {
            client: &self.client,
            key,
            identity: &manifest.identity,
            cache: &self.cache,
        }
    }

    /// Returns what earlier reconciliations left, and whether others allow an upgrade now.
    fn history(
        &self,
        key: &RelayKey,
        manifest: &Manifest,
        desired: &Result<Desired, InvalidManifest>,
        observed: &Observed,
        now: Timestamp,
    ) -> History {
        History {
            paused: manifest.paused,
            generation: carried_out_generation(&manifest.status),
            scaling: self.cache.scaling(key),
            turn: self.turn(key, manifest, desired, observed, now),
            failing_migrations: self.cache.failing_migrations(),
            migration: manifest.status.migration.clone(),
        }
    }

    fn status_inputs<'a>(
        &self,
        key: &RelayKey,
        manifest: &'a Manifest,
        now: Timestamp,
    ) -> StatusInputs<'a> {
        StatusInputs {
            identity: &manifest.identity,
            previous: &manifest.status,
            written_at: self.cache.status_written_at(key),
            paused: manifest.paused,
            now,
        }
    }

    /// Asks the upgrade queue whether this relay may get a new revision now. A paused, invalid or
    /// unreadable manifest gets none, so it leaves the queue to others.
    fn turn(
        &self,
        key: &RelayKey,
        manifest: &Manifest,
        desired: &Result<Desired, InvalidManifest>,
        observed: &Observed,
        now: Timestamp,
    ) -> Turn {
        match desired {
            Ok(desired) if !manifest.paused => {
                let slots = self.settings.installation.upgrades_max;
                let change = change(desired, observed);
                self.upgrades()
                    .turn(key, change, observed.pod_replacement(), slots, now)
            }
            _ => {
                self.update_queue(|queue| queue.leave_queue(key));
                Turn::Go
            }
        }
    }

    /// Records what was done: the progress of an upgrade, and a scaling decision if it was carried
    /// out. One that was not carried out is made again.
    fn record(&self, key: &RelayKey, plan: &Plan<'_>, applied: &Applied, observed: &Observed) {
        match plan {
            Plan::CarryOut(plan) => {
                self.cache.record_migration(key, &plan.migration);
                self.record_progress(key, progress(plan, observed, applied.write_result()));
                if applied.scaled {
                    self.record_scaling(key, plan);
                }
            }
            Plan::Invalid(plan) if plan.zero.is_some() && applied.error.is_none() => {
                self.cache.record_scaling(key, ScalingMemory::default());
            }
            Plan::Invalid(_) | Plan::Paused(_) | Plan::Unreadable { .. } => {}
        }
    }

    fn record_progress(&self, key: &RelayKey, progress: Option<Progress>) {
        self.update_queue(|queue| {
            if let Some(progress) = progress {
                queue.note(key, progress);
            }
        });
    }

    fn record_scaling(&self, key: &RelayKey, plan: &RelayPlan<'_>) {
        match &plan.scaling {
            Some(scaling) => {
                self.metrics.decided(&scaling.decision);
                self.cache.record_scaling(key, scaling.next_memory.clone());
            }
            None if matches!(plan.desired.relay.replicas, DesiredReplicas::Scaled(_)) => {}
            None => self.cache.record_scaling(key, ScalingMemory::default()),
        }
    }

    /// Writes a status that differs from the previous one, then the Events.
    async fn publish(
        &self,
        target: &Target<'_>,
        previous: &OutboxRelayStatus,
        status: &OutboxRelayStatus,
        events: Vec<PendingEvent>,
    ) -> Result<(), StepError> {
        if status != previous {
            write_status(&self.client, target.identity, status)
                .await
                .map_err(StepError::Publish)?;
            self.cache.status_written(target.key, Timestamp::now());
        }
        self.events.record(target.identity, events).await;
        Ok(())
    }

    /// Keeps what was read for the next reconciliation, unless watches do not report every change
    /// of it.
    fn keep(&self, key: &RelayKey, recalled: Recalled, manifest: Manifest, observed: Observed) {
        if manifest.content.is_ok() && observed.is_watched() {
            let snapshot = Snapshot { manifest, observed };
            self.cache
                .keep(key, recalled.mark, snapshot, recalled.read_at);
        }
    }

    /// Drops everything about an OutboxRelay that is gone.
    pub(crate) fn forget(&self, key: &RelayKey) {
        self.cache.forget(key);
        self.update_queue(|queue| queue.forget(key));
    }

    fn update_queue(&self, update: impl FnOnce(&mut UpgradeQueue)) {
        let mut queue = self.upgrades();
        update(&mut queue);
        self.metrics.queued(queue.counts());
    }

    /// Returns the queue. A panic while it was locked cannot have left it half updated.
    fn upgrades(&self) -> MutexGuard<'_, UpgradeQueue> {
        self.upgrades.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_unreadable(key: &RelayKey, manifest: &Manifest) {
    if let Err(error) = &manifest.content {
        tracing::error!(
            namespace = key.namespace,
            name = key.name,
            error,
            "this version of the operator cannot read an OutboxRelay"
        );
    }
}
