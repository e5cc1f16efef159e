//! What was found and done -> `status`. Pure, except for [`publish`], which writes it when it says
//! something new.

mod available;
mod conditions;
mod invalid;
mod paused;
mod publishing;
mod ready;
mod reports;
mod scaling;
mod schema;
#[cfg(test)]
mod tests;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client, Resource,
    api::{DynamicObject, Patch, PatchParams},
    core::ApiResource,
    runtime::events::EventType,
};
use serde_json::json;

pub(crate) use conditions::{Finding, State, find};
pub(crate) use schema::sentence;

use super::{
    apply::{Applied, ApplyError},
    backlog,
    call::{CallError, call_opt},
    events::Telling,
    identity::Identity,
    observe::Observed,
    plan::{Migration, Plan},
    reason::{Reason, leaves_undone},
    validate::{Count, Unworkable, ValidatedRelay},
};
use crate::api::{MigrationStatus, OutboxRelay, OutboxRelayStatus};

/// Field manager of the status alone.
const STATUS_MANAGER: &str = "outbox-operator-status";

/// How far a pass came.
pub(crate) enum Verdict<'a> {
    Invalid(Invalid<'a>),
    /// It was planned, and applied as far as `applied` says.
    Planned {
        relay: &'a ValidatedRelay,
        plan: &'a Plan,
        applied: &'a Applied,
    },
}

/// The spec cannot work; whatever runs goes on as it is, unless no relay is wished for.
pub(crate) struct Invalid<'a> {
    pub why: &'a Unworkable,
    /// What says that there shall be no relay.
    pub wish: Option<&'a Count>,
    /// Why it was not carried out.
    pub obstacle: Option<&'a ApplyError>,
}

/// What the status is made from, beside the verdict.
pub(crate) struct Facts<'a> {
    pub identity: &'a Identity,
    pub previous: &'a OutboxRelayStatus,
    /// When the backlog was last written.
    pub written_at: Option<Timestamp>,
    /// Nothing but the status is written.
    pub paused: bool,
    pub now: Timestamp,
}

impl Facts<'_> {
    /// The generation that the last pass carried out; none when it left something undone.
    pub(crate) fn carried_out(&self) -> Option<i64> {
        let undone = find(&self.previous.conditions, "Ready")
            .is_some_and(|ready| leaves_undone(&ready.reason));
        (!undone).then_some(self.previous.observed_generation)
    }
}

/// Everything that a condition can be found from.
struct Scene<'a> {
    facts: &'a Facts<'a>,
    observed: &'a Observed,
    relay: &'a ValidatedRelay,
    plan: &'a Plan,
    applied: &'a Applied,
}

pub(crate) fn assess(
    facts: &Facts<'_>,
    observed: &Observed,
    verdict: &Verdict<'_>,
) -> OutboxRelayStatus {
    let findings = match verdict {
        Verdict::Invalid(invalid) => invalid::invalid(invalid, observed),
        Verdict::Planned {
            relay,
            plan,
            applied,
        } => ready::planned(&Scene {
            facts,
            observed,
            relay,
            plan,
            applied,
        }),
    };
    let previous = facts.previous;
    let migration = match verdict {
        Verdict::Invalid(_) => previous.migration.clone(),
        Verdict::Planned { relay, plan, .. } => migration(relay, plan, previous.migration.as_ref()),
    };
    let deployment = observed.deployment.as_ref();
    let due = backlog::is_due(facts.written_at, facts.now);
    let reports = || {
        observed
            .reports
            .iter()
            .filter_map(|one| one.report.as_ref())
    };
    // What was not carried out was not worked through.
    let generation = if facts.paused {
        previous.observed_generation
    } else {
        facts.identity.generation
    };
    let said = conditions::merge(&previous.conditions, findings, generation, facts.now);
    OutboxRelayStatus {
        observed_generation: generation,
        conditions: conditions::merge(
            &said,
            vec![paused::paused(facts)],
            facts.identity.generation,
            facts.now,
        ),
        migration,
        replicas: Some(deployment.map_or(0, |deployment| deployment.existing)),
        ready_replicas: Some(deployment.map_or(0, |deployment| deployment.ready)),
        selector: Some(facts.identity.relay_selector_text()),
        backlog: backlog::to_show(
            previous.backlog.as_ref(),
            backlog::total(&observed.reports),
            due,
        ),
        breaker: backlog::worst_breaker(&observed.reports),
        parked_keys: backlog::count_to_show(
            previous.parked_keys,
            reports().find_map(|report| report.parked_keys),
            due,
        ),
        dead_letters: backlog::count_to_show(
            previous.dead_letters,
            reports().find_map(|report| report.dead_letters),
            due,
        ),
        last_scale: scaling::last_scale(facts, verdict),
    }
}

/// Nothing could be read: everything stays as it was said, and stays marked with the generation
/// that it was said for.
pub(crate) fn unreadable(
    identity: &Identity,
    previous: &OutboxRelayStatus,
    why: &str,
    now: Timestamp,
) -> OutboxRelayStatus {
    let finding = Finding::new("Reconciling", State::True, Reason::ApiRequestFailed, why);
    let conditions = conditions::merge(
        &previous.conditions,
        vec![finding],
        identity.generation,
        now,
    );
    OutboxRelayStatus {
        conditions,
        ..previous.clone()
    }
}

/// The object is not of a form that this version can read, so neither is what was said before.
pub(crate) fn not_understood(
    identity: &Identity,
    error: &str,
    now: Timestamp,
) -> (OutboxRelayStatus, Telling) {
    let findings = ready::not_understood(error);
    let telling = Telling::new(
        EventType::Warning,
        &findings[0].reason,
        &findings[0].message,
    );
    let conditions = conditions::merge(&[], findings, identity.generation, now);
    let selector = Some(identity.relay_selector_text());
    (
        OutboxRelayStatus {
            observed_generation: identity.generation,
            conditions,
            selector,
            ..OutboxRelayStatus::default()
        },
        telling,
    )
}

/// The last migration that succeeded. Its pod may be gone, and with it the level; then the level is
/// remembered here.
fn migration(
    relay: &ValidatedRelay,
    plan: &Plan,
    previous: Option<&MigrationStatus>,
) -> Option<MigrationStatus> {
    let target = relay.migration.as_ref()?;
    let Migration::Succeeded {
        at, schema_version, ..
    } = &plan.migration
    else {
        return previous.cloned();
    };
    let remembered = previous
        .filter(|status| status.hash == target.hash)
        .and_then(|status| status.schema_version);
    Some(MigrationStatus {
        hash: target.hash.clone(),
        schema_version: schema_version.or(remembered),
        completed_at: Some(Time(*at)),
    })
}

/// Writes the whole status: what is not named any more is removed. An object that is gone, or has
/// another uid by now, is left alone.
pub(crate) async fn publish(
    client: &Client,
    identity: &Identity,
    status: &OutboxRelayStatus,
) -> Result<(), CallError> {
    let resource = ApiResource::erase::<OutboxRelay>(&());
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &identity.namespace, &resource);
    let body = json!({
        "apiVersion": OutboxRelay::api_version(&()),
        "kind": OutboxRelay::kind(&()),
        "metadata": {"uid": identity.uid},
        "status": status,
    });
    let manager = PatchParams::apply(STATUS_MANAGER).force();
    call_opt(async {
        api.patch_status(&identity.name, &manager, &Patch::Apply(body))
            .await
    })
    .await
    .map(|_| ())
}
