//! `spec.topics`: topics that may be published to, and how rows without a topic are routed.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A topic that rows may be published to. A row's own topic must be one of the list; a row without
/// a topic is routed by its types.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Topic {
    /// Name of the Kafka topic. The topic must exist: the relay never creates topics.
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub name: String,
    /// Rows without a topic are routed here by these event types, at most 16. Event types take
    /// precedence over aggregateTypes. A type may be listed at one topic only. Default: none.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 255)))]
    pub event_types: Vec<String>,
    /// Rows without a topic are routed here by these aggregate types, at most 16. A type may be
    /// listed at one topic only. Default: none.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 255)))]
    pub aggregate_types: Vec<String>,
    /// What happens to a row that Kafka rejects permanently. Block: its key is parked, with all
    /// later rows of the key, until a person decides; other keys are not affected. DeadLetter: the
    /// row is moved to the table dead_letter, and later rows of the key are published. Default:
    /// Block.
    #[serde(default)]
    pub on_poison: OnPoison,
}

/// What happens to a row that Kafka rejects permanently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OnPoison {
    /// The key of the row is parked, with all later rows of the key.
    #[default]
    Block,
    /// The row is moved to dead_letter, and later rows of its key are published.
    DeadLetter,
}
