//! `status`: what the operator found out. The reasons of its conditions are a closed set,
//! documented in docs/reasons.md.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::BreakerState;

/// What the operator last saw and did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutboxRelayStatus {
    /// Generation that this status was computed for; -1 until the operator has seen the object.
    #[serde(default = "never_observed")]
    pub observed_generation: i64,
    /// Ready, Reconciling, Stalled, SchemaReady, Available, Publishing, SecretsResolved,
    /// ReportsAvailable, ScalingActive, Paused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The last migration that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationStatus>,
    /// Relay pods that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Relay pods that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Label selector of the relay pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Rows that wait; absent while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<BacklogStatus>,
    /// Whether Kafka takes records: the worst of what the relays report; absent while none reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerState>,
    /// Keys that are parked; absent while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_keys: Option<i64>,
    /// Rows in the table dead_letter; absent while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<i64>,
    /// What `spec.scaling` last did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale: Option<LastScale>,
}

impl Default for OutboxRelayStatus {
    fn default() -> Self {
        Self {
            observed_generation: never_observed(),
            conditions: Vec::new(),
            migration: None,
            replicas: None,
            ready_replicas: None,
            selector: None,
            backlog: None,
            breaker: None,
            parked_keys: None,
            dead_letters: None,
            last_scale: None,
        }
    }
}

fn never_observed() -> i64 {
    -1
}

/// The last migration that succeeded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationStatus {
    /// Hash of what it was run for: schema level, database, policy, grants and credential
    /// references.
    pub hash: String,
    /// Level of the schema that it left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<i64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
}

/// Rows that wait, over all relays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BacklogStatus {
    /// Number of rows; at least that many where the relays stopped counting.
    pub rows: i64,
    /// When the oldest of them was written; absent when none waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_at: Option<Time>,
}

/// A step of `spec.scaling`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastScale {
    /// When it was taken.
    pub time: Time,
    /// Relay pods before it.
    pub from: i32,
    /// Relay pods after it.
    pub to: i32,
    /// Why: one of the reasons of condition ScalingActive.
    pub reason: String,
}
