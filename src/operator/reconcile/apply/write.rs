//! One child: created when absent, applied when ours. IO.
//!
//! It is created with POST, because server-side apply has no "only if the name is free". A POST
//! leaves its fields to an `Update` entry of managedFields, where a field that is dropped later
//! would stay; and once the entry were gone, the next apply would leave everything to
//! `before-first-apply`, with the same result. So that entry is replaced by an `Apply` entry that
//! owns a single label, and the apply after it takes all other fields.

use std::time::Instant;

use k8s_openapi::{
    api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry,
};
use kube::{
    ResourceExt,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::operator::{
    call::call,
    children::{ChildKind, Prepared},
    identity::{MANAGED_BY, OPERATOR},
    reconcile::{
        apply::{ApplyError, Target, patch_as},
        observe::RelayDeployment,
    },
};

/// Writes one child. Returns a Deployment as the API server has it now; other kinds are not read
/// again for ten minutes.
///
/// # Errors
/// When the API server refuses a write or does not answer.
///
/// # Cancel safety
/// If dropped, the child may exist without the fields that the next reconciliation writes.
pub(super) async fn write(
    target: &Target<'_>,
    child: &Prepared,
    live: Option<DynamicObject>,
) -> Result<Option<RelayDeployment>, ApplyError> {
    let live = match live {
        Some(live) => live,
        None => create(target, child).await?,
    };
    if child.kind.is_immutable() {
        return Ok(None);
    }
    if has_update_entry(&live) {
        claim(target, child, &live).await?;
    }
    let deployment = as_deployment(child.kind, server_side_apply(target, child, &live).await?);
    let fingerprint = deployment.as_ref().map(|deployment| deployment.fingerprint);
    target
        .cache
        .record_written(target.key, child, fingerprint, Instant::now());
    Ok(deployment)
}

async fn create(target: &Target<'_>, child: &Prepared) -> Result<DynamicObject, ApplyError> {
    let object = serde_json::from_value(with_replicas(child)).expect("a built child is an object");
    let manager = PostParams {
        field_manager: Some(OPERATOR.to_owned()),
        ..PostParams::default()
    };
    let created = call(target.writing(child.kind).create(&manager, &object))
        .await
        .map_err(|source| ApplyError::Create {
            kind: child.kind,
            name: child.name.clone(),
            source,
        })?;
    log_created(target, child);
    Ok(created)
}

fn log_created(target: &Target<'_>, child: &Prepared) {
    tracing::info!(
        kind = ?child.kind,
        namespace = target.identity.namespace,
        name = child.name,
        "created"
    );
}

fn with_replicas(child: &Prepared) -> Value {
    let mut body = child.body.clone();
    if let Some(replicas) = child.first_replicas {
        body["spec"]["replicas"] = json!(replicas);
    }
    body
}

fn has_update_entry(live: &DynamicObject) -> bool {
    live.managed_fields().iter().any(is_our_update)
}

/// Returns whether a POST or PUT of ours made this entry. Our writes of subresources have entries
/// of their own.
fn is_our_update(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(OPERATOR)
        && entry.operation.as_deref() == Some("Update")
        && entry.subresource.is_none()
}

async fn claim(
    target: &Target<'_>,
    child: &Prepared,
    live: &DynamicObject,
) -> Result<(), ApplyError> {
    // What others own of an object this young is forgotten with it; they lose nothing but the
    // record, and write it again.
    let entries = [apply_entry(child.kind)];
    let patch = Patch::Merge(json!({"metadata": {"uid": live.uid(), "managedFields": entries}}));
    let api = target.writing(child.kind);
    let claimed = call(api.patch(&child.name, &patch_as(OPERATOR), &patch)).await;
    claimed.map(drop).map_err(|source| ApplyError::Claim {
        kind: child.kind,
        name: child.name.clone(),
        source,
    })
}

/// Returns the entry of a server-side apply that owns a single label.
fn apply_entry(kind: ChildKind) -> Value {
    json!({
        "manager": OPERATOR,
        "operation": "Apply",
        "apiVersion": kind.resource().api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {format!("f:{MANAGED_BY}"): {}}}},
    })
}

/// Applies the child. The body has the uid of the live object: the API server refuses to overwrite
/// another object that took the name meanwhile.
async fn server_side_apply(
    target: &Target<'_>,
    child: &Prepared,
    live: &DynamicObject,
) -> Result<DynamicObject, ApplyError> {
    let mut body = child.body.clone();
    body["metadata"]["uid"] = json!(live.uid());
    // Without `force`, a field that somebody else owns would be a conflict.
    let manager = PatchParams::apply(OPERATOR).force();
    let api = target.writing(child.kind);
    let applied = call(api.patch(&child.name, &manager, &Patch::Apply(body))).await;
    applied.map_err(|source| ApplyError::Apply {
        kind: child.kind,
        name: child.name.clone(),
        source,
    })
}

fn as_deployment(kind: ChildKind, applied: DynamicObject) -> Option<RelayDeployment> {
    if kind != ChildKind::Deployment {
        return None;
    }
    let object = serde_json::to_value(applied).ok()?;
    let deployment: Deployment = serde_json::from_value(object).ok()?;
    Some(RelayDeployment::of(&deployment))
}
