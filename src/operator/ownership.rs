//! Owner of an object that has the name of a child. Only our own objects are written or deleted.
//! Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use crate::{
    api::OutboxRelay,
    operator::identity::{Identity, MANAGED_BY, MIGRATION_LABEL, OPERATOR, RELAY_LABEL},
};

/// Who an object belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// Made for this very OutboxRelay.
    Ours,
    /// Made for an earlier OutboxRelay of this name; the garbage collector is about to remove it.
    Former,
    /// Made for an OutboxRelay of this name, and left without an owner: by `kubectl delete
    /// --cascade=orphan`, or by a backup tool that restores no owners.
    Orphan,
    /// Made by somebody else.
    Foreign,
}

/// Returns the owner of an object that has the name of a child of `identity`.
pub(crate) fn ownership(meta: &ObjectMeta, identity: &Identity) -> Ownership {
    let mut relays = owners(meta)
        .filter(|owner| is_relay(owner) && owner.name == identity.name)
        .peekable();
    if is_orphan(meta, identity) {
        Ownership::Orphan
    } else if relays.peek().is_none() {
        Ownership::Foreign
    } else if relays.any(|owner| owner.uid == identity.uid) {
        Ownership::Ours
    } else {
        Ownership::Former
    }
}

/// Returns whether an object has no owner at all, and both labels that the operator gives to the
/// children of this OutboxRelay.
fn is_orphan(meta: &ObjectMeta, identity: &Identity) -> bool {
    let has = |label: &str, value: &str| {
        let labels = meta.labels.as_ref();
        labels.and_then(|all| all.get(label)).map(String::as_str) == Some(value)
    };
    owners(meta).next().is_none()
        && has(MANAGED_BY, OPERATOR)
        && (has(RELAY_LABEL, &identity.name) || has(MIGRATION_LABEL, &identity.name))
}

fn owners(meta: &ObjectMeta) -> impl Iterator<Item = &OwnerReference> {
    meta.owner_references.iter().flatten()
}

/// Returns whether an owner is an OutboxRelay, of any version of its API.
fn is_relay(owner: &OwnerReference) -> bool {
    owner.kind == OutboxRelay::kind(&()) && group(owner) == Some(&*OutboxRelay::group(&()))
}

/// Returns the API group of an owner; nothing if its kind is one of the core group.
fn group(owner: &OwnerReference) -> Option<&str> {
    owner.api_version.split_once('/').map(|(group, _)| group)
}

/// Returns the name of the OutboxRelay that owns the object, or that an earlier owner had.
pub(crate) fn relay_name(meta: &ObjectMeta) -> Option<&str> {
    owners(meta)
        .find(|owner| is_relay(owner))
        .map(|owner| owner.name.as_str())
}

/// Returns the uid of the object that controls this one.
pub(crate) fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    owners(meta)
        .find(|owner| owner.controller == Some(true))
        .map(|owner| owner.uid.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::fixtures::relay;

    fn child() -> (ObjectMeta, Identity) {
        let identity = Identity::of(&relay().metadata);
        (
            identity.child_meta("child".to_owned(), identity.relay_labels()),
            identity,
        )
    }

    fn owner(meta: &mut ObjectMeta) -> &mut OwnerReference {
        &mut meta
            .owner_references
            .as_mut()
            .expect("a child has an owner")[0]
    }

    #[test]
    fn our_child_is_ours() {
        let (meta, identity) = child();
        assert_eq!(ownership(&meta, &identity), Ownership::Ours);
    }

    #[test]
    fn a_child_of_an_earlier_relay_of_this_name_is_left_to_the_garbage_collector() {
        let (mut meta, identity) = child();
        owner(&mut meta).uid = "another".to_owned();
        assert_eq!(ownership(&meta, &identity), Ownership::Former);
    }

    #[test]
    fn everything_else_is_foreign_even_with_our_labels() {
        let (mut meta, identity) = child();
        owner(&mut meta).name = "another".to_owned();
        assert_eq!(ownership(&meta, &identity), Ownership::Foreign);
        owner(&mut meta).name = identity.name.clone();
        owner(&mut meta).api_version = "outboxrelay.example/v1".to_owned();
        assert_eq!(ownership(&meta, &identity), Ownership::Foreign);
    }

    #[test]
    fn a_child_that_lost_its_owner_is_an_orphan_and_one_of_another_name_is_foreign() {
        for labels in [Identity::relay_labels, Identity::migration_labels] {
            let (_, identity) = child();
            let mut meta = identity.child_meta("child".to_owned(), labels(&identity));
            meta.owner_references = None;
            assert_eq!(ownership(&meta, &identity), Ownership::Orphan);
            let other = Identity {
                name: "another".to_owned(),
                ..identity.clone()
            };
            assert_eq!(ownership(&meta, &other), Ownership::Foreign);
            meta.labels.as_mut().expect("labels").remove(MANAGED_BY);
            assert_eq!(ownership(&meta, &identity), Ownership::Foreign);
        }
    }
}
