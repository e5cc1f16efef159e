//! Who an OutboxRelay is, and how everything that belongs to it is named and labelled. Pure.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::{
    Resource,
    core::{ObjectMeta as Meta, error_boundary::InvalidObject},
};
use sha2::{Digest, Sha256};

use crate::api::OutboxRelay;

/// Name of the operator as field manager, event reporter and value of `managed-by`.
pub(crate) const OPERATOR: &str = "outbox-operator";
/// Standard label of Kubernetes for the manager of an object.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label of relay pods and everything around them; their selectors use it alone.
pub(crate) const RELAY_LABEL: &str = "outboxrelay.dev/relay";
/// Label of migration Jobs and pods. They do not have [`RELAY_LABEL`], so no Service, budget or
/// Deployment selects them.
pub(crate) const MIGRATION_LABEL: &str = "outboxrelay.dev/migration";
/// Name of the container of a relay pod. Others of its pod are injected.
pub(crate) const RELAY_CONTAINER: &str = "relay";
/// Name of the container of a migration pod. Others of its pod are injected.
pub(crate) const MIGRATION_CONTAINER: &str = "migrate";
/// On a Job: which attempt it is, counted from 1.
pub(crate) const ATTEMPT: &str = "outboxrelay.dev/attempt";
/// On an OutboxRelay: any new value ends the back-off of a failed migration. A Job carries the
/// value that it was created with.
pub(crate) const RECONCILE_AT: &str = "outboxrelay.dev/reconcile-at";
/// On an OutboxRelay: while it is `"true"` nothing but its status is written.
pub(crate) const PAUSED: &str = "outboxrelay.dev/paused";
/// On an OutboxRelay: the name of the operator that it is meant for, where a cluster has several.
pub(crate) const OPERATOR_NAME: &str = "outboxrelay.dev/operator-name";

/// Returns whether an OutboxRelay is meant for the operator of this name. Without the annotation it
/// is meant for the operator with the usual name, so each has exactly one operator.
fn is_ours(meta: &Meta, operator_name: &str) -> bool {
    let named = meta
        .annotations
        .as_ref()
        .and_then(|all| all.get(OPERATOR_NAME));
    named.map_or(OPERATOR, String::as_str) == operator_name
}

/// Returns whether the operator of this name reconciles the object regularly: this version can read
/// it, it is meant for this operator, and it is not about to go.
pub(crate) fn is_reconciled(
    found: &Result<OutboxRelay, InvalidObject>,
    operator_name: &str,
) -> bool {
    found
        .as_ref()
        .is_ok_and(|relay| is_managed(&relay.metadata, operator_name))
}

/// Returns whether the operator of this name is responsible for an OutboxRelay: it is meant for
/// this operator, and not about to go.
pub(crate) fn is_managed(meta: &Meta, operator_name: &str) -> bool {
    meta.deletion_timestamp.is_none() && is_ours(meta, operator_name)
}

/// On a Deployment and on a Job: hash of what pods are made from.
pub(crate) const REVISION_HASH: &str = "outboxrelay.dev/revision-hash";
/// On a Deployment: generation of the OutboxRelay that it was last written for.
pub(crate) const GENERATION: &str = "outboxrelay.dev/generation";
/// On a Deployment: hash of the spec that it was last written for, without the number of replicas.
pub(crate) const SPEC_HASH: &str = "outboxrelay.dev/spec-hash";

/// Names that [`REVISION_HASH`] and [`SPEC_HASH`] had before the first release. They are read where
/// the new ones are absent, because a Job that succeeded stays as it is, and never written. Remove
/// them after the first release.
const FORMER_NAMES: [(&str, &str); 2] = [
    (REVISION_HASH, "outboxrelay.dev/form"),
    (SPEC_HASH, "outboxrelay.dev/wishes"),
];

/// Returns the value of an annotation of a child, under its name or its former name.
pub(crate) fn annotation(annotations: &BTreeMap<String, String>, name: &str) -> Option<String> {
    let former = || annotations.get(former_name(name)?);
    annotations.get(name).or_else(former).cloned()
}

/// Returns the name that an annotation had before the first release.
fn former_name(name: &str) -> Option<&'static str> {
    let found = FORMER_NAMES.iter().find(|(new, _)| *new == name);
    found.map(|(_, former)| *former)
}

/// Namespace and name of an OutboxRelay.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayKey {
    pub namespace: String,
    pub name: String,
}

impl RelayKey {
    /// Returns the key of the OutboxRelay `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for RelayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An OutboxRelay without its spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
}

impl Identity {
    pub(crate) fn of(meta: &Meta) -> Self {
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
        }
    }

    /// Returns the name of the Deployment, the ServiceAccount, the Service and the
    /// PodDisruptionBudget. The suffix avoids names of the service whose events are relayed: it
    /// usually has the name of the OutboxRelay.
    pub(crate) fn relay_name(&self) -> String {
        format!("{}-relay", self.name)
    }

    pub(crate) fn config_map_name(&self, settings_hash: &str) -> String {
        format!("{}-relay-{settings_hash}", self.name)
    }

    pub(crate) fn migration_job_name(&self, migration_hash: &str) -> String {
        format!("{}-migrate-{migration_hash}", self.name)
    }

    pub(crate) fn relay_labels(&self) -> BTreeMap<String, String> {
        self.labels(RELAY_LABEL)
    }

    pub(crate) fn migration_labels(&self) -> BTreeMap<String, String> {
        self.labels(MIGRATION_LABEL)
    }

    fn labels(&self, own: &str) -> BTreeMap<String, String> {
        BTreeMap::from([
            (
                "app.kubernetes.io/name".to_owned(),
                "outbox-relay".to_owned(),
            ),
            ("app.kubernetes.io/instance".to_owned(), self.relay_name()),
            (MANAGED_BY.to_owned(), OPERATOR.to_owned()),
            (own.to_owned(), self.name.clone()),
        ])
    }

    pub(crate) fn relay_selector(&self) -> LabelSelector {
        let label = BTreeMap::from([(RELAY_LABEL.to_owned(), self.name.clone())]);
        LabelSelector {
            match_labels: Some(label),
            match_expressions: None,
        }
    }

    /// Returns the selector of relay pods as `kubectl -l` takes it.
    pub(crate) fn relay_selector_text(&self) -> String {
        format!("{RELAY_LABEL}={}", self.name)
    }

    pub(crate) fn migration_selector_text(&self) -> String {
        format!("{MIGRATION_LABEL}={}", self.name)
    }

    /// Returns the metadata of a child that has the name and the labels of the relays.
    pub(crate) fn relay_meta(&self) -> ObjectMeta {
        self.child_meta(self.relay_name(), self.relay_labels())
    }

    /// Returns the metadata of a child of this OutboxRelay.
    pub(crate) fn child_meta(&self, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.namespace.clone()),
            labels: Some(labels),
            owner_references: Some(vec![self.owner_reference()]),
            ..ObjectMeta::default()
        }
    }

    /// Returns the reference by which the garbage collector removes a child with its OutboxRelay.
    fn owner_reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: OutboxRelay::api_version(&()).into_owned(),
            kind: OutboxRelay::kind(&()).into_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            // `true` would need a right on the finalizers of OutboxRelays, where the admission
            // plugin OwnerReferencesPermissionEnforcement is on, as in OpenShift.
            block_owner_deletion: None,
        }
    }
}

/// Returns the first eight hex digits of a SHA-256, as names of children carry them.
pub(crate) fn hash8(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::operator::fixtures::{now, relay_with};

    #[test]
    fn names_of_the_longest_relay_fit_into_a_label() {
        let identity = Identity {
            namespace: "n".to_owned(),
            name: "a".repeat(46),
            uid: "u".to_owned(),
            generation: 1,
        };
        let hash = hash8(b"anything");
        assert_eq!(hash.len(), 8);
        for name in [
            identity.relay_name(),
            identity.config_map_name(&hash),
            identity.migration_job_name(&hash),
        ] {
            assert!(name.len() <= 63, "{name}");
        }
    }

    #[test]
    fn an_annotation_is_read_under_its_former_name_unless_the_new_one_is_there() {
        let with = |all: &[(&str, &str)]| -> BTreeMap<String, String> {
            let all = all.iter();
            all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let former = ("outboxrelay.dev/form", "old");
        assert_eq!(
            annotation(&with(&[former]), REVISION_HASH).as_deref(),
            Some("old")
        );
        let both = with(&[former, (REVISION_HASH, "new")]);
        assert_eq!(annotation(&both, REVISION_HASH).as_deref(), Some("new"));
        assert_eq!(annotation(&both, SPEC_HASH), None);
        assert_eq!(annotation(&both, ATTEMPT), None);
    }

    #[test]
    fn each_relay_is_meant_for_one_operator() {
        let mut meta = Meta::default();
        assert!(is_ours(&meta, OPERATOR) && !is_ours(&meta, "team-a"));
        meta.annotations = Some(BTreeMap::from([(
            OPERATOR_NAME.to_owned(),
            "team-a".to_owned(),
        )]));
        assert!(!is_ours(&meta, OPERATOR) && is_ours(&meta, "team-a"));
    }

    #[test]
    fn an_object_that_is_unreadable_deleted_or_of_another_operator_is_not_reconciled() {
        let looked_after = |change: fn(&mut Meta)| {
            is_reconciled(
                &Ok(relay_with(|relay| change(&mut relay.metadata))),
                OPERATOR,
            )
        };
        assert!(looked_after(|_| ()));
        assert!(!looked_after(|meta| meta.annotations = Some(
            BTreeMap::from([(OPERATOR_NAME.to_owned(), "team-a".to_owned())])
        )));
        assert!(!looked_after(
            |meta| meta.deletion_timestamp = Some(Time(now()))
        ));
        let invalid = InvalidObject {
            error: "of another version".to_owned(),
            metadata: Meta::default(),
        };
        assert!(!is_reconciled(&Err(invalid), OPERATOR));
    }

    #[test]
    fn migration_pods_are_not_selected_as_relays() {
        let identity = Identity {
            namespace: "n".to_owned(),
            name: "a".to_owned(),
            uid: "u".to_owned(),
            generation: 1,
        };
        assert!(!identity.migration_labels().contains_key(RELAY_LABEL));
    }
}
