//! An OutboxRelay as the API server has it, whether or not this version can read it. Pure.

use kube::{
    ResourceExt,
    core::{ObjectMeta, error_boundary::InvalidObject},
};

use crate::{
    api::{OutboxRelay, OutboxRelayStatus},
    operator::identity::{Identity, PAUSED, RECONCILE_AT, is_managed},
};

/// A manifest that this operator is responsible for.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub identity: Identity,
    /// Set by the annotation: nothing but the status may be written.
    pub paused: bool,
    /// Value of annotation `reconcile-at`: a new one makes every child due.
    pub reconcile_at: Option<String>,
    /// Status as this operator wrote it last; empty if the manifest is unreadable.
    pub status: OutboxRelayStatus,
    /// The manifest, or why this version cannot read it.
    pub content: Result<OutboxRelay, String>,
}

impl Manifest {
    /// Returns nothing if the object is about to go, or is meant for another operator.
    pub(crate) fn of(
        found: Result<OutboxRelay, InvalidObject>,
        operator_name: &str,
    ) -> Option<Self> {
        if !is_managed(metadata(&found), operator_name) {
            return None;
        }
        Some(found.map_or_else(Self::unreadable, Self::readable))
    }

    fn unreadable(invalid: InvalidObject) -> Self {
        Self {
            identity: Identity::of(&invalid.metadata),
            paused: false,
            reconcile_at: None,
            status: OutboxRelayStatus::default(),
            content: Err(invalid.error),
        }
    }

    /// Returns the manifest of an object that was read, with its status taken out.
    pub(crate) fn readable(mut relay: OutboxRelay) -> Self {
        Self {
            identity: Identity::of(&relay.metadata),
            paused: is_paused(&relay),
            reconcile_at: relay.annotations().get(RECONCILE_AT).cloned(),
            status: relay.status.take().unwrap_or_default(),
            content: Ok(relay),
        }
    }
}

fn metadata(found: &Result<OutboxRelay, InvalidObject>) -> &ObjectMeta {
    match found {
        Ok(relay) => &relay.metadata,
        Err(invalid) => &invalid.metadata,
    }
}

fn is_paused(relay: &OutboxRelay) -> bool {
    let value = relay.annotations().get(PAUSED);
    value.is_some_and(|value| value == "true")
}
