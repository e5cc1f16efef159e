//! `spec.breaker`: when the circuit breaker reacts to a Kafka cluster that acknowledges nothing;
//! and the breaker's state.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When the relay stops sending to a Kafka cluster that acknowledges nothing. Meanwhile rows wait
/// in the table, and no row counts as failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "duration(self.slowAfter) >= duration('100ms') && duration(self.slowAfter) < \
         duration(self.openAfter) && duration(self.openAfter) <= duration('10m')",
        "breaker: slowAfter must be at least 100ms and less than openAfter, openAfter at most 10m"
    ),
    validation = ("duration(self.maxBackoff) >= duration('1s') && duration(self.maxBackoff) <= \
        duration('10m')", "breaker.maxBackoff must be between 1s and 10m")
)]
pub struct Breaker {
    /// Time without an acknowledgement after which the relay halves the number of rows in flight. A
    /// topic without one for this long, while other topics get theirs, is paused. Brokers that are
    /// far away, or throttle, get more time. At least 100ms, and less than openAfter. Default: 2s.
    #[serde(default = "default_slow_after")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub slow_after: String,
    /// Time without an acknowledgement after which the relay stops sending new records. Brokers
    /// that are far away, or throttle, get more time. At most 10m. Default: 10s.
    #[serde(default = "default_open_after")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub open_after: String,
    /// Longest pause between two attempts to send, from 1s to 10m. Default: 30s.
    #[serde(default = "default_max_backoff")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub max_backoff: String,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            slow_after: default_slow_after(),
            open_after: default_open_after(),
            max_backoff: default_max_backoff(),
        }
    }
}

fn default_slow_after() -> String {
    "2s".to_owned()
}

fn default_open_after() -> String {
    "10s".to_owned()
}

fn default_max_backoff() -> String {
    "30s".to_owned()
}

// In order of severity: the operator publishes the maximum over all relays.
/// State of the circuit breaker on Kafka's acknowledgements.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum BreakerState {
    /// Kafka acknowledges records.
    Closed,
    /// Nothing was acknowledged for `slowAfter`.
    Slow,
    /// Nothing was acknowledged for `openAfter`: only probes are sent.
    Open,
}

impl BreakerState {
    /// All states, in order of severity.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Slow, Self::Open];

    /// Name in reports, metrics and status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "Closed",
            Self::Slow => "Slow",
            Self::Open => "Open",
        }
    }
}
