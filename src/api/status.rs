//! `status`: state that the operator has observed. The reasons of its conditions are a closed set,
//! documented in docs/reasons.md.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::api::BreakerState;

/// State that the operator last observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutboxRelayStatus {
    /// Generation of the spec that this status describes; -1 until the operator has observed the
    /// object.
    #[serde(default = "never_observed")]
    pub observed_generation: i64,
    /// Conditions: Ready, Reconciling, Stalled, SchemaReady, Available, Publishing,
    /// SecretsResolved, ReportsAvailable, ScalingActive and Paused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Last migration that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationStatus>,
    /// Number of relay pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Number of relay pods that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Label selector of the relay pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Rows of all relays that wait, once one of them has waited for 5 seconds; 0 before. Absent
    /// while unknown. A backlog shows within 15 seconds, and 0 within 5 seconds after the last row
    /// went. In between, the numbers may be a minute old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<BacklogStatus>,
    /// Records that Kafka acknowledges per second, all relays together, averaged over 10 seconds;
    /// absent while unknown. Written at most once a minute: with another change of the status, or
    /// when it has moved by half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_per_second: Option<i64>,
    /// State of the relays' circuit breakers, the most severe one; absent while no relay reports.
    /// Closed: Kafka acknowledges records. Slow: no acknowledgement for slowAfter. Open: none for
    /// openAfter, so only probes are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerState>,
    /// Number of parked keys; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_keys: Option<i64>,
    /// Number of rows in the table dead_letter; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<i64>,
    /// Last change of the number of relay pods by `spec.scaling`.
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
            published_per_second: None,
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

/// Last migration that succeeded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationStatus {
    /// Hash of the migration's inputs: schema level, database, policy, grants and credential
    /// references.
    pub hash: String,
    /// Schema level after the migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<i64>,
    /// Time at which the migration ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
}

/// Rows that wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BacklogStatus {
    /// Number of rows. Relays stop counting at a limit, so there may be more.
    pub rows: i64,
    /// Time at which the oldest waiting row was written; absent unless a row has waited for 5
    /// seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_at: Option<Time>,
}

/// Change of the number of relay pods by `spec.scaling`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastScale {
    /// Time of the change.
    pub time: Time,
    /// Number of relay pods before the change.
    pub from: i32,
    /// Number of relay pods after the change.
    pub to: i32,
    /// Reason for the change: one of the reasons of condition ScalingActive.
    pub reason: String,
}
