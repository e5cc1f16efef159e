//! Kinds of objects that the operator writes for an OutboxRelay, and one such object. Pure.

use k8s_openapi::{
    Metadata,
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        core::v1::{ConfigMap, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Resource,
    core::{ApiResource, GroupVersionKind},
};
use serde::Serialize;
use serde_json::Value;

/// A child as it should exist.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prepared {
    pub kind: ChildKind,
    pub name: String,
    /// The fields that the operator sets; other fields of the object are left alone.
    pub body: Value,
    /// Number of replicas that a new Deployment starts with. Never part of `body`: a field manager
    /// that sets `replicas` once and drops it later resets it to 1.
    pub first_replicas: Option<i32>,
}

impl Prepared {
    /// Returns a child of one of Kubernetes' own kinds.
    pub(crate) fn of<K>(kind: ChildKind, object: &K) -> Self
    where
        K: Resource<DynamicType = ()> + Metadata<Ty = ObjectMeta> + Serialize,
    {
        Self {
            kind,
            name: object.meta().name.clone().unwrap_or_default(),
            body: serde_json::to_value(object).expect("typed objects are JSON"),
            first_replicas: None,
        }
    }
}

/// Kinds of children, in the order in which they are written: what pods mount and run as comes
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ChildKind {
    ServiceAccount,
    Service,
    PodDisruptionBudget,
    NetworkPolicy,
    ConfigMap,
    MigrationJob,
    Deployment,
    PodMonitor,
}

impl ChildKind {
    /// Returns how the API server addresses this kind.
    pub(crate) fn resource(self) -> ApiResource {
        match self {
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::MigrationJob => ApiResource::erase::<Job>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            // A kind of the Prometheus operator: there is no type for it.
            Self::PodMonitor => ApiResource::from_gvk_with_plural(
                &GroupVersionKind::gvk("monitoring.coreos.com", "v1", "PodMonitor"),
                "podmonitors",
            ),
        }
    }

    /// Immutable children are created, and replaced by one of another name.
    pub(crate) fn is_immutable(self) -> bool {
        matches!(self, Self::ConfigMap | Self::MigrationJob)
    }
}
