//! `spec.topics`: what may be published, and how rows without a topic are routed.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A topic that rows may go to. A row's own topic must be one of them; a row without one is routed
/// by its types.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Topic {
    /// Name of the Kafka topic. It must exist: the relay never creates topics.
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub name: String,
    /// Event types of rows without a topic that go here, at most 16; a type stands at one topic.
    /// They beat aggregateTypes. Default: none.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 255)))]
    pub event_types: Vec<String>,
    /// Aggregate types of rows without a topic that go here, at most 16; a type stands at one
    /// topic. Default: none.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 255)))]
    pub aggregate_types: Vec<String>,
    /// What becomes of a row that Kafka refuses for good. Default: Block. Block: its key is parked,
    /// with the rows behind it, until a person decides; all other keys flow. DeadLetter: the row is
    /// moved to the table dead_letter, and the rows behind it go on.
    #[serde(default)]
    pub on_poison: OnPoison,
}

/// What becomes of a row that Kafka refuses for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OnPoison {
    /// Its key is parked, with the rows behind it.
    #[default]
    Block,
    /// It is moved to dead_letter; the rows behind it go on.
    DeadLetter,
}
