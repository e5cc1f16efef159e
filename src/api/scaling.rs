//! `spec.scaling`: number of relays by waiting rows. `spec.monitoring` and `spec.networkPolicy`:
//! how relays are found, and who may connect to them.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Lets the operator choose the number of relay pods by the number and age of waiting rows. It adds
/// pods immediately, at most doubling them every 15 s, but none while a relay does not report or
/// Kafka is unavailable. It removes pods down to the largest number that was needed within
/// `scaleDownStabilization`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.minReplicas <= self.maxReplicas", "scaling.minReplicas must not be more \
        than scaling.maxReplicas"),
    validation = (
        "duration(self.targetOldestAge) >= duration('1s') && duration(self.targetOldestAge) <= \
         duration('1h')",
        "scaling.targetOldestAge must be between 1s and 1h"
    ),
    validation = (
        "duration(self.scaleDownStabilization) <= duration('1h')",
        "scaling.scaleDownStabilization must be at most 1h"
    )
)]
pub struct Scaling {
    /// Minimum number of relay pods, 1 to 64. Without a relay pod, nothing could report the waiting
    /// rows. Default: 1.
    #[serde(default = "default_min_replicas")]
    #[schemars(range(min = 1, max = 64))]
    pub min_replicas: i32,
    /// Maximum number of relay pods, 1 to 64. Default: 8.
    #[serde(default = "default_max_replicas")]
    #[schemars(range(min = 1, max = 64))]
    pub max_replicas: i32,
    /// Number of waiting rows per relay pod that the operator aims for, 1 to 10,000,000. Default:
    /// 10000.
    #[serde(default = "default_target_backlog")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub target_backlog_per_replica: i32,
    /// Age of the oldest waiting row that the operator aims for, from 1s to 1h. A duration is a
    /// number with unit ms, s, m or h. Default: 5s.
    #[serde(default = "default_target_age")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub target_oldest_age: String,
    /// Time for which fewer relay pods must have been enough before the operator removes any, at
    /// most 1h. A duration is a number with unit ms, s, m or h. Default: 300s.
    #[serde(default = "default_stabilization")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub scale_down_stabilization: String,
}

fn default_min_replicas() -> i32 {
    1
}

fn default_max_replicas() -> i32 {
    8
}

fn default_target_backlog() -> i32 {
    10_000
}

fn default_target_age() -> String {
    "5s".to_owned()
}

fn default_stabilization() -> String {
    "300s".to_owned()
}

/// How Prometheus finds the metrics of the relays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// Whether the operator creates a PodMonitor of the Prometheus operator for the relay pods. It
    /// creates none if its chart installs one for all relays. Default: false.
    #[serde(default)]
    pub pod_monitor: bool,
}

/// Which namespaces may connect to the HTTP port of the relays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// Whether the operator creates a NetworkPolicy for the relay pods. It allows connections to
    /// their HTTP port from the namespace of the operator and from the monitoring namespace of the
    /// installation only. It does not limit outgoing connections. Default: false.
    #[serde(default)]
    pub enabled: bool,
}
