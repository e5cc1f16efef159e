//! `spec.scaling`: how many relays by what waits. `spec.monitoring` and `spec.networkPolicy`: who
//! finds and who reaches them.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Lets the operator choose the number of relay pods: by the rows that wait and by the age of the
/// oldest. Up at once, at most to the double every 15 s; down to the most that was wanted within
/// `scaleDownStabilization`. While a relay does not report, or Kafka is away, nothing is added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.minReplicas <= self.maxReplicas", "scaling.minReplicas must not be more \
        than scaling.maxReplicas"),
    validation = ("duration(self.targetOldestAge) >= duration('1s') && \
        duration(self.targetOldestAge) <= duration('1h')", "scaling.targetOldestAge must be between 1s and 1h"),
    validation = ("duration(self.scaleDownStabilization) <= duration('1h')", "scaling.scaleDownStabilization must be at most 1h")
)]
pub struct Scaling {
    /// Fewest relay pods, 1 to 64: without any nobody could say what waits. Default: 1.
    #[serde(default = "default_min_replicas")]
    #[schemars(range(min = 1, max = 64))]
    pub min_replicas: i32,
    /// Most relay pods, 1 to 64. Default: 8.
    #[serde(default = "default_max_replicas")]
    #[schemars(range(min = 1, max = 64))]
    pub max_replicas: i32,
    /// Rows that may wait for each relay pod, 1 to 10,000,000. Default: 10000.
    #[serde(default = "default_target_backlog")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub target_backlog_per_replica: i32,
    /// Age that the oldest waiting row may have: numbers with ms, s, m or h, from 1s to 1h.
    /// Default: 5s.
    #[serde(default = "default_target_age")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub target_oldest_age: String,
    /// Relay pods are taken away only when fewer were enough for this long: numbers with ms, s, m
    /// or h, at most 1h. Default: 300s.
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

/// How the relays' metrics are found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// True: a PodMonitor of the Prometheus operator for the relay pods, unless the operator's
    /// chart has one for all of them. Default: false.
    #[serde(default)]
    pub pod_monitor: bool,
}

/// Who may reach the relays' HTTP port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// True: a NetworkPolicy lets only the operator's namespace and the monitoring namespace (both
    /// of the installation) reach the relay pods, on their HTTP port. What relays reach is not
    /// limited by it. Default: false.
    #[serde(default)]
    pub enabled: bool,
}
