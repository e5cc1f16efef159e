//! Writes the children that a plan selects. IO. It reads before it writes: if somebody else owns an
//! object with the name of a child, nothing is written. Only the number of replicas is set anyway:
//! no other object may keep a relay from being suspended.

mod write;

use std::time::Instant;

use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::Status,
};
use serde_json::{Value, json};

use crate::operator::{
    call::{CallError, ErrorClass, call, call_opt},
    children::{ChildKind, Prepared},
    identity::{Identity, RelayKey},
    ownership::{Ownership, ownership},
    reconcile::{
        cache::Cache,
        observe::{ObjectKey, Observed, RelayDeployment},
        plan::{Plan, RelayPlan, Scale, WriteResult},
    },
};

/// Field manager of the scale subresource alone, so that the main one never owns `replicas`.
const SCALE_MANAGER: &str = "outbox-operator-scale";

/// Why something is not as it was decided.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("{0}: the name is taken by an object that does not belong to this OutboxRelay")]
    NameConflict(String),
    #[error("{0}: left from a deleted OutboxRelay of this name")]
    FormerChildren(String),
    #[error("failed to read {kind:?} '{name}'")]
    Read {
        kind: ChildKind,
        name: String,
        source: CallError,
    },
    #[error("failed to create {kind:?} '{name}'")]
    Create {
        kind: ChildKind,
        name: String,
        source: CallError,
    },
    #[error("failed to take over the fields of {kind:?} '{name}'")]
    Claim {
        kind: ChildKind,
        name: String,
        source: CallError,
    },
    #[error("failed to apply {kind:?} '{name}'")]
    Apply {
        kind: ChildKind,
        name: String,
        source: CallError,
    },
    #[error("failed to set the replicas of Deployment '{name}'")]
    Scale { name: String, source: CallError },
    #[error("failed to delete {kind:?} '{name}'")]
    Delete {
        kind: ChildKind,
        name: String,
        source: CallError,
    },
}

impl ApplyError {
    /// Returns the failed request, if there was one.
    pub(crate) fn call(&self) -> Option<&CallError> {
        match self {
            Self::NameConflict(_) | Self::FormerChildren(_) => None,
            Self::Read { source, .. }
            | Self::Create { source, .. }
            | Self::Claim { source, .. }
            | Self::Apply { source, .. }
            | Self::Scale { source, .. }
            | Self::Delete { source, .. } => Some(source),
        }
    }

    /// Returns when another attempt can help.
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::NameConflict(_) => ErrorClass::Permanent,
            Self::FormerChildren(_) => ErrorClass::Transient,
            other => other.call().map_or(ErrorClass::Transient, CallError::class),
        }
    }
}

/// Where the children of one OutboxRelay are written.
pub(crate) struct Target<'a> {
    pub client: &'a Client,
    pub key: &'a RelayKey,
    pub identity: &'a Identity,
    pub cache: &'a Cache,
}

impl Target<'_> {
    /// Returns the API for a write: what is cached does not hold after it.
    fn writing(&self, kind: ChildKind) -> Api<DynamicObject> {
        self.cache.changed(self.key);
        self.api(kind)
    }

    fn api(&self, kind: ChildKind) -> Api<DynamicObject> {
        Api::namespaced_with(
            self.client.clone(),
            &self.identity.namespace,
            &kind.resource(),
        )
    }
}

/// Children that may need a write, each with the live object of its name.
type Due<'a> = Vec<(&'a Prepared, Option<DynamicObject>)>;

/// What was written, and what went wrong.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// The Deployment as it is now, if it was written.
    pub deployment: Option<RelayDeployment>,
    /// The cluster has no kind PodMonitor, and the manifest asks for one.
    pub no_pod_monitors: bool,
    /// The number of replicas is as it was decided.
    pub scaled: bool,
    /// Why not everything is as it was decided.
    pub error: Option<ApplyError>,
}

impl Applied {
    /// Returns the error, if there is one.
    pub(crate) fn into_result(self) -> Result<(), ApplyError> {
        self.error.map_or(Ok(()), Err)
    }

    /// Returns whether a child is refused until a person changes something.
    pub(crate) fn write_result(&self) -> WriteResult {
        match &self.error {
            Some(error) if error.class() == ErrorClass::Permanent => WriteResult::Refused,
            _ => WriteResult::Accepted,
        }
    }
}

/// Carries out a plan as far as possible; the result holds what failed.
///
/// # Cancel safety
/// If dropped, some children are new and others old. The next reconciliation writes the others.
pub(crate) async fn apply(target: &Target<'_>, plan: &Plan<'_>, observed: &Observed) -> Applied {
    match plan {
        Plan::CarryOut(plan) => carry_out(target, plan, observed).await,
        Plan::Invalid(plan) => {
            let scaled = set_scale(target, plan.scale, observed).await;
            Applied {
                scaled: scaled.is_ok(),
                error: scaled.err(),
                ..Applied::default()
            }
        }
        Plan::Paused(_) | Plan::Unreadable { .. } => Applied::default(),
    }
}

/// Writes all children. Running relays are scaled even if another write fails; the first relays
/// start after all other writes, and so with the current revision.
async fn carry_out(target: &Target<'_>, plan: &RelayPlan<'_>, observed: &Observed) -> Applied {
    let mut applied = Applied::default();
    let mut scaled = Ok(());
    if !plan.scale.starts_the_first() {
        scaled = set_scale(target, plan.scale, observed).await;
        applied.scaled = scaled.is_ok();
    }
    let written = write_children(target, plan, observed, &mut applied).await;
    applied.error = written.and(scaled).err();
    applied
}

async fn write_children(
    target: &Target<'_>,
    plan: &RelayPlan<'_>,
    observed: &Observed,
    applied: &mut Applied,
) -> Result<(), ApplyError> {
    let children = plan.children();
    let due = read_due(target, &children, observed, applied).await?;
    refuse_what_is_not_ours(target.identity, &due)?;
    for job in &plan.outdated_jobs {
        delete(target, ChildKind::MigrationJob, job).await?;
    }
    for (child, live) in due {
        let live = live_to_keep(target, child, live).await?;
        // A Job that was deleted above makes room for one of the same name.
        let live = live.filter(|object| !plan.outdated_jobs.contains(&ObjectKey::of(object)));
        let written = write::write(target, child, live).await?;
        applied.deployment = written.or(applied.deployment.take());
    }
    if plan.scale.starts_the_first() {
        set_scale(target, plan.scale, observed).await?;
        applied.scaled = true;
    }
    clean_up(target, plan).await
}

/// Returns the live object unless the child takes its place: one that lost its owner and cannot be
/// changed is deleted. Others get their owner back when the child is applied.
async fn live_to_keep(
    target: &Target<'_>,
    child: &Prepared,
    live: Option<DynamicObject>,
) -> Result<Option<DynamicObject>, ApplyError> {
    match live {
        Some(object)
            if child.kind.is_immutable()
                && ownership(&object.metadata, target.identity) == Ownership::Orphan =>
        {
            delete(target, child.kind, &ObjectKey::of(&object)).await?;
            Ok(None)
        }
        live => Ok(live),
    }
}

/// Removes what the manifest no longer asks for, after everything that replaces it is written.
async fn clean_up(target: &Target<'_>, plan: &RelayPlan<'_>) -> Result<(), ApplyError> {
    for config_map in &plan.outdated_config_maps {
        delete(target, ChildKind::ConfigMap, config_map).await?;
    }
    for kind in &plan.unwanted {
        remove(target, *kind).await?;
    }
    Ok(())
}

/// Reads the objects that have the names of children that may need a write.
async fn read_due<'a>(
    target: &Target<'_>,
    children: &'a [Prepared],
    observed: &Observed,
    applied: &mut Applied,
) -> Result<Due<'a>, ApplyError> {
    let mut due = Vec::new();
    for child in children {
        if is_up_to_date(target, child, observed) {
            continue;
        }
        match read(target, child).await? {
            Live::Found(live) => due.push((child, Some(*live))),
            Live::Absent => due.push((child, None)),
            Live::UnknownKind => applied.no_pod_monitors = true,
        }
    }
    Ok(due)
}

/// What the API server has under the name of a child.
enum Live {
    Found(Box<DynamicObject>),
    Absent,
    /// No object can have this kind: the CRD of the Prometheus operator is not installed.
    UnknownKind,
}

async fn read(target: &Target<'_>, child: &Prepared) -> Result<Live, ApplyError> {
    match call(target.api(child.kind).get(&child.name)).await {
        Ok(live) => Ok(Live::Found(Box::new(live))),
        Err(CallError::Refused(status))
            if child.kind == ChildKind::PodMonitor && is_unknown_kind(&status) =>
        {
            Ok(Live::UnknownKind)
        }
        Err(CallError::Refused(status)) if status.code == 404 => Ok(Live::Absent),
        Err(source) => Err(read_error(child, source)),
    }
}

fn read_error(child: &Prepared, source: CallError) -> ApplyError {
    ApplyError::Read {
        kind: child.kind,
        name: child.name.clone(),
        source,
    }
}

/// Returns whether a 404 means that the kind does not exist. If only the object is absent, the
/// answer has its name.
fn is_unknown_kind(status: &Status) -> bool {
    status.code == 404
        && status
            .details
            .as_ref()
            .is_none_or(|details| details.name.is_empty())
}

/// Removes a child that the manifest does not ask for. It is read as rarely as children that should
/// exist.
async fn remove(target: &Target<'_>, kind: ChildKind) -> Result<(), ApplyError> {
    let nothing = Prepared {
        kind,
        name: target.identity.relay_name(),
        body: Value::Null,
        first_replicas: None,
    };
    if !is_cached(target, &nothing, None) {
        delete_if_ours(target, &nothing).await?;
        target
            .cache
            .record_written(target.key, &nothing, None, Instant::now());
    }
    Ok(())
}

async fn delete_if_ours(target: &Target<'_>, child: &Prepared) -> Result<(), ApplyError> {
    // Where the kind does not exist, the answer is 404 too.
    let found = call_opt(target.api(child.kind).get(&child.name))
        .await
        .map_err(|source| read_error(child, source))?;
    match found {
        Some(object) if ownership(&object.metadata, target.identity) == Ownership::Ours => {
            delete(target, child.kind, &ObjectKey::of(&object)).await
        }
        _ => Ok(()),
    }
}

fn is_up_to_date(target: &Target<'_>, child: &Prepared, observed: &Observed) -> bool {
    match child.kind {
        // It is only selected if it is to be created.
        ChildKind::MigrationJob => false,
        // Its name has the hash of its content, so one that exists is right.
        ChildKind::ConfigMap => {
            let mut existing = observed.config_maps.iter();
            existing.any(|map| map.name == child.name)
        }
        ChildKind::Deployment => {
            let live = observed.deployment.as_ref();
            live.is_some_and(|live| is_cached(target, child, Some(live.fingerprint)))
        }
        _ => is_cached(target, child, None),
    }
}

/// Returns whether the child was written like this within the last minutes, and has not changed
/// since.
fn is_cached(target: &Target<'_>, child: &Prepared, fingerprint: Option<u64>) -> bool {
    target
        .cache
        .is_up_to_date(target.key, child, fingerprint, Instant::now())
}

fn refuse_what_is_not_ours(identity: &Identity, due: &Due<'_>) -> Result<(), ApplyError> {
    let foreign = names_of(Ownership::Foreign, identity, due);
    if !foreign.is_empty() {
        return Err(ApplyError::NameConflict(foreign));
    }
    let former = names_of(Ownership::Former, identity, due);
    if !former.is_empty() {
        return Err(ApplyError::FormerChildren(former));
    }
    Ok(())
}

/// Lists the children in whose place there is an object with this owner.
fn names_of(owner: Ownership, identity: &Identity, due: &Due<'_>) -> String {
    let has_owner = |live: &DynamicObject| ownership(&live.metadata, identity) == owner;
    let found = due
        .iter()
        .filter(|(_, live)| live.as_ref().is_some_and(has_owner));
    found
        .map(|(child, _)| format!("{:?} '{}'", child.kind, child.name))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Sets the replicas of the Deployment that was observed; the uid excludes a later one of its name.
async fn set_scale(
    target: &Target<'_>,
    scale: Scale,
    observed: &Observed,
) -> Result<(), ApplyError> {
    let Some(replicas) = scale.target() else {
        return Ok(());
    };
    let name = target.identity.relay_name();
    let deployment = observed.deployment.as_ref();
    let uid = deployment.map(|deployment| &deployment.uid);
    // The API server answers 409 if the Deployment has another uid by now.
    let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "spec": {"replicas": replicas}}));
    let api = target.writing(ChildKind::Deployment);
    let set = call(api.patch_scale(&name, &patch_as(SCALE_MANAGER), &patch)).await;
    set.map(drop)
        .map_err(|source| ApplyError::Scale { name, source })
}

/// Returns the parameters of a merge patch by this field manager.
fn patch_as(manager: &str) -> PatchParams {
    PatchParams {
        field_manager: Some(manager.to_owned()),
        ..PatchParams::default()
    }
}

/// Deletes an object with its pods. Another object that took the name meanwhile stays.
async fn delete(target: &Target<'_>, kind: ChildKind, key: &ObjectKey) -> Result<(), ApplyError> {
    // The API server answers 409 if the object of this name has another uid by now.
    let this_object = Preconditions {
        uid: Some(key.uid.clone()),
        resource_version: None,
    };
    // Jobs would orphan their pods by default.
    let parameters = DeleteParams {
        preconditions: Some(this_object),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    let name = key.name.clone();
    match call_opt(target.writing(kind).delete(&name, &parameters)).await {
        Ok(_) => Ok(()),
        Err(source) => Err(ApplyError::Delete { kind, name, source }),
    }
}
