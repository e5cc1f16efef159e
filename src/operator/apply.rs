//! Makes the API server hold what was built and decided. IO. Reads before it writes: an object of ours that belongs to somebody else stops
//! the whole pass before anything is touched.

mod write;

use std::time::Instant;

use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy},
};
use serde_json::json;

use super::{
    build::{ChildKind, Prepared},
    call::{CallError, ErrorClass, call, call_opt},
    identity::Identity,
    memory::{Key, Memory},
    observe::{ObjectKey, Observed, RelayDeployment},
    ownership::{Ownership, ownership},
    plan::{Plan, Scale},
};

/// Field manager of the scale subresource alone, so that the main one never names `replicas`.
const SCALE_MANAGER: &str = "outbox-operator-scale";

/// Why not everything is as it was decided.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("{0} exist already and belong to somebody else")]
    NameConflict(String),
    #[error("{0} of a deleted OutboxRelay of this name are still there")]
    FormerChildren(String),
    #[error("failed to read {kind:?} '{name}'")]
    Read { kind: ChildKind, name: String, source: CallError },
    #[error("failed to create {kind:?} '{name}'")]
    Create { kind: ChildKind, name: String, source: CallError },
    #[error("failed to take over the fields of {kind:?} '{name}'")]
    Claim { kind: ChildKind, name: String, source: CallError },
    #[error("failed to apply {kind:?} '{name}'")]
    Apply { kind: ChildKind, name: String, source: CallError },
    #[error("failed to set the replicas of Deployment '{name}'")]
    Scale { name: String, source: CallError },
    #[error("failed to delete {kind:?} '{name}'")]
    Delete { kind: ChildKind, name: String, source: CallError },
}

impl ApplyError {
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

    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::NameConflict(_) => ErrorClass::Permanent,
            Self::FormerChildren(_) => ErrorClass::Transient,
            other => other.call().map_or(ErrorClass::Transient, CallError::class),
        }
    }
}

/// One OutboxRelay's corner of the API server.
pub(crate) struct Corner<'a> {
    pub client: &'a Client,
    pub identity: &'a Identity,
    pub memory: &'a Memory,
}

impl Corner<'_> {
    pub(crate) fn key(&self) -> Key<'_> {
        (&self.identity.namespace, &self.identity.name)
    }

    fn api(&self, kind: ChildKind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.identity.namespace, &kind.resource())
    }
}

/// Children as they should be but may not be, with what stands in their place.
type Due<'a> = Vec<(&'a Prepared, Option<DynamicObject>)>;

/// Answers with the Deployment as it is now, if it was written. Dropped half-way, it leaves some children new and some old; the next pass
/// brings the rest.
pub(crate) async fn apply(
    corner: &Corner<'_>,
    prepared: &[Prepared],
    plan: &Plan,
    observed: &Observed,
) -> Result<Option<RelayDeployment>, ApplyError> {
    let mut deployment = None;
    let due = look(corner, prepared, observed).await?;
    refuse_what_is_not_ours(corner.identity, &due)?;
    for job in &plan.outdated_jobs {
        delete(corner, ChildKind::MigrationJob, job).await?;
    }
    for (child, live) in due {
        let outdated = live.as_ref().is_some_and(|object| plan.outdated_jobs.contains(&ObjectKey::of(object)));
        deployment = write::write(corner, child, live.filter(|_| !outdated)).await?.or(deployment);
    }
    set_scale(corner, plan.scale).await?;
    for config_map in &plan.outdated_config_maps {
        delete(corner, ChildKind::ConfigMap, config_map).await?;
    }
    Ok(deployment)
}

async fn look<'a>(corner: &Corner<'_>, prepared: &'a [Prepared], observed: &Observed) -> Result<Due<'a>, ApplyError> {
    let mut due = Vec::new();
    for child in prepared {
        if !is_settled(corner, child, observed) {
            let found = call_opt(corner.api(child.kind).get(&child.name)).await;
            let live = found.map_err(|source| ApplyError::Read { kind: child.kind, name: child.name.clone(), source })?;
            due.push((child, live));
        }
    }
    Ok(due)
}

fn is_settled(corner: &Corner<'_>, child: &Prepared, observed: &Observed) -> bool {
    match child.kind {
        // It is only built when it is to be created.
        ChildKind::MigrationJob => false,
        ChildKind::ConfigMap => observed.config_maps.iter().any(|map| map.name == child.name),
        ChildKind::Deployment => observed
            .deployment
            .as_ref()
            .is_some_and(|live| corner.memory.is_settled(corner.key(), child, Some(live.fingerprint), Instant::now())),
        _ => corner.memory.is_settled(corner.key(), child, None, Instant::now()),
    }
}

fn refuse_what_is_not_ours(identity: &Identity, due: &Due<'_>) -> Result<(), ApplyError> {
    let of = |wanted: Ownership| {
        let found = due.iter().filter(|(_, live)| live.as_ref().is_some_and(|object| ownership(&object.metadata, identity) == wanted));
        found.map(|(child, _)| format!("{:?} '{}'", child.kind, child.name)).collect::<Vec<_>>().join(", ")
    };
    let foreign = of(Ownership::Foreign);
    if !foreign.is_empty() {
        return Err(ApplyError::NameConflict(foreign));
    }
    let former = of(Ownership::Former);
    if former.is_empty() { Ok(()) } else { Err(ApplyError::FormerChildren(former)) }
}

async fn set_scale(corner: &Corner<'_>, scale: Scale) -> Result<(), ApplyError> {
    let (Scale::Set { to, .. } | Scale::SetBack { to, .. }) = scale else { return Ok(()) };
    let name = corner.identity.relay_name();
    let manager = PatchParams { field_manager: Some(SCALE_MANAGER.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"spec": {"replicas": to}}));
    let set = call(corner.api(ChildKind::Deployment).patch_scale(&name, &manager, &patch)).await;
    set.map(|_| ()).map_err(|source| ApplyError::Scale { name, source })
}

/// This very object: one that took its name meanwhile stays. Its pods go with it.
async fn delete(corner: &Corner<'_>, kind: ChildKind, key: &ObjectKey) -> Result<(), ApplyError> {
    let parameters = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(key.uid.clone()), resource_version: None }),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    let deleted = call_opt(corner.api(kind).delete(&key.name, &parameters)).await;
    deleted.map(|_| ()).map_err(|source| ApplyError::Delete { kind, name: key.name.clone(), source })
}
