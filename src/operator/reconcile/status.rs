//! What was observed, planned and done -> `status` and Events. Pure, except for [`write_status`].

mod available;
mod conditions;
mod invalid;
mod paused;
mod pending_events;
mod publishing;
mod ready;
mod reports_current;
mod scaling;
mod schema;
mod secret_names;
#[cfg(test)]
mod tests;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client, Resource,
    api::{DynamicObject, Patch, PatchParams},
    core::ApiResource,
};
use serde_json::{Value, json};

pub(crate) use conditions::carried_out_generation;
pub(crate) use pending_events::{PendingEvent, Severity};

use crate::{
    api::{MigrationStatus, OutboxRelay, OutboxRelayStatus},
    operator::{
        call::{CallError, call_opt},
        identity::Identity,
        reason::Reason,
        reconcile::{
            apply::Applied,
            observe::Observed,
            plan::{
                Migration, Plan, RelayPlan,
                load::{self, Numbers, StatusWrite},
            },
            status::conditions::{ConditionType, Finding, Previous, State, find, repeat},
            validate::ValidatedRelay,
        },
    },
};

/// Field manager of the status alone.
const STATUS_MANAGER: &str = "outbox-operator-status";

/// What was decided, and what was done of it.
struct Outcome<'a> {
    plan: &'a Plan<'a>,
    applied: &'a Applied,
}

/// What the status is made from, beside the outcome.
pub(crate) struct StatusInputs<'a> {
    pub identity: &'a Identity,
    pub previous: &'a OutboxRelayStatus,
    /// When the status was last written.
    pub written_at: Option<Timestamp>,
    /// Nothing but the status is written.
    pub paused: bool,
    pub now: Timestamp,
}

/// Everything that a condition of a valid manifest is found from.
struct ConditionInputs<'a> {
    context: &'a StatusInputs<'a>,
    observed: &'a Observed,
    relay: &'a ValidatedRelay,
    plan: &'a RelayPlan<'a>,
    applied: &'a Applied,
}

impl ConditionInputs<'_> {
    /// Returns the condition of this type in the previous status.
    fn previous(&self, type_: ConditionType) -> Option<Previous<'_>> {
        find(&self.context.previous.conditions, type_)
    }

    /// Returns whether the previous condition of this type was found for the current generation.
    fn is_current(&self, type_: ConditionType) -> bool {
        let previous = self.previous(type_);
        previous.is_some_and(|it| it.generation == Some(self.context.identity.generation))
    }

    /// Returns the previous condition as a finding, if it had this state.
    fn repeat(&self, type_: ConditionType, state: State) -> Option<Finding> {
        repeat(&self.context.previous.conditions, type_, state)
    }
}

/// Returns the status, and Events for what changed in it.
pub(crate) fn assess(
    context: &StatusInputs<'_>,
    observed: &Observed,
    plan: &Plan<'_>,
    applied: &Applied,
) -> (OutboxRelayStatus, Vec<PendingEvent>) {
    let outcome = Outcome { plan, applied };
    let findings = findings(context, observed, &outcome);
    let status = match plan {
        Plan::Unreadable { .. } => unreadable_status(context, &findings),
        _ => readable_status(context, observed, &outcome, &findings),
    };
    let events = pending_events::pending_events(context, &outcome, &findings);
    (status, events)
}

fn findings(
    context: &StatusInputs<'_>,
    observed: &Observed,
    outcome: &Outcome<'_>,
) -> Vec<Finding> {
    let applied = outcome.applied;
    match outcome.plan {
        Plan::CarryOut(plan) | Plan::Paused(plan) => ready::planned(&ConditionInputs {
            context,
            observed,
            relay: &plan.desired.relay,
            plan,
            applied,
        }),
        Plan::Invalid(plan) => invalid::invalid(plan, applied, observed),
        Plan::Unreadable { error } => ready::unreadable_manifest(error),
    }
}

/// Returns the status of a manifest that this version cannot read. The previous one could not be
/// read either, so nothing of it stays.
fn unreadable_status(context: &StatusInputs<'_>, findings: &[Finding]) -> OutboxRelayStatus {
    let generation = context.identity.generation;
    OutboxRelayStatus {
        observed_generation: generation,
        conditions: conditions::merge(&[], findings, generation, context.now),
        selector: Some(context.identity.relay_selector_text()),
        ..OutboxRelayStatus::default()
    }
}

fn readable_status(
    context: &StatusInputs<'_>,
    observed: &Observed,
    outcome: &Outcome<'_>,
    findings: &[Finding],
) -> OutboxRelayStatus {
    let generation = observed_generation(context);
    let deployment = observed.deployment.as_ref();
    let status = OutboxRelayStatus {
        observed_generation: generation,
        conditions: conditions(context, findings, generation),
        migration: migration(outcome.plan, context.previous.migration.as_ref()),
        replicas: Some(deployment.map_or(0, |deployment| deployment.existing)),
        ready_replicas: Some(deployment.map_or(0, |deployment| deployment.ready)),
        selector: Some(context.identity.relay_selector_text()),
        breaker: load::worst_breaker(&observed.reports),
        last_scale: scaling::last_scale(context, outcome),
        ..OutboxRelayStatus::default()
    };
    with_numbers(context, observed, status)
}

fn observed_generation(context: &StatusInputs<'_>) -> i64 {
    // While paused, nothing is carried out, so `observedGeneration` does not advance.
    if context.paused {
        context.previous.observed_generation
    } else {
        context.identity.generation
    }
}

/// `Paused` is found for the current generation, the others for the one that was carried out.
fn conditions(
    context: &StatusInputs<'_>,
    findings: &[Finding],
    generation: i64,
) -> Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    let others = conditions::merge(
        &context.previous.conditions,
        findings,
        generation,
        context.now,
    );
    conditions::merge(
        &others,
        &[paused::paused(context)],
        context.identity.generation,
        context.now,
    )
}

/// Returns the status with numbers: those that relays report if they are worth a write, or if it is
/// written anyway.
fn with_numbers(
    context: &StatusInputs<'_>,
    observed: &Observed,
    status: OutboxRelayStatus,
) -> OutboxRelayStatus {
    let shown = Numbers::shown(context.previous);
    let found = Numbers::reported(&observed.reports, context.now);
    let refresh = load::refresh(context.written_at, context.now);
    let unchanged = shown.clone().put_into(status.clone()) == *context.previous;
    let write = if unchanged {
        StatusWrite::NotNeeded
    } else {
        StatusWrite::Needed
    };
    load::to_show(shown, found, refresh, write).put_into(status)
}

/// Returns the status when the children could not be read: everything stays as it was, and stays
/// marked with the generation that it was found for.
pub(crate) fn not_observed(
    identity: &Identity,
    previous: &OutboxRelayStatus,
    message: &str,
    now: Timestamp,
) -> OutboxRelayStatus {
    let finding = Finding::new(
        ConditionType::Reconciling,
        State::True,
        Reason::ApiRequestFailed,
        message,
    );
    let conditions = conditions::merge(&previous.conditions, &[finding], identity.generation, now);
    OutboxRelayStatus {
        conditions,
        ..previous.clone()
    }
}

/// Returns the last migration that succeeded: that of the plan, else that of the previous status.
fn migration(plan: &Plan<'_>, previous: Option<&MigrationStatus>) -> Option<MigrationStatus> {
    let (Plan::CarryOut(plan) | Plan::Paused(plan)) = plan else {
        return previous.cloned();
    };
    let target = plan.desired.relay.migration.as_ref()?;
    let Migration::Succeeded {
        at, schema_version, ..
    } = &plan.migration
    else {
        return previous.cloned();
    };
    // The version is in the termination message of the pod. A pod may be removed any time after it
    // ended; then the previous status still has the version.
    let remembered = previous
        .filter(|status| status.hash == target.hash)
        .and_then(|status| status.schema_version);
    Some(MigrationStatus {
        hash: target.hash.clone(),
        schema_version: schema_version.or(remembered),
        completed_at: Some(Time(*at)),
    })
}

/// Writes the whole status: fields that are absent are removed. An object that is gone, or has
/// another uid by now, is left alone.
///
/// # Errors
/// When the API server refuses the status or does not answer.
///
/// # Cancel safety
/// If dropped, the status may be written or not; the next reconciliation reads which.
pub(crate) async fn write_status(
    client: &Client,
    identity: &Identity,
    status: &OutboxRelayStatus,
) -> Result<(), CallError> {
    // Untyped: the answer must be readable even if this version cannot read the manifest.
    let resource = ApiResource::erase::<OutboxRelay>(&());
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &identity.namespace, &resource);
    let manager = PatchParams::apply(STATUS_MANAGER).force();
    let patch = Patch::Apply(status_body(identity, status));
    let written = call_opt(api.patch_status(&identity.name, &manager, &patch)).await;
    written.map(|_| ())
}

fn status_body(identity: &Identity, status: &OutboxRelayStatus) -> Value {
    json!({
        "apiVersion": OutboxRelay::api_version(&()),
        "kind": OutboxRelay::kind(&()),
        "metadata": {"uid": identity.uid},
        "status": status,
    })
}
