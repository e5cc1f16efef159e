//! `spec.migration.adopt`: outbox tables that services have already.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An outbox table that a service has already. The migration puts triggers on it: each row that the
/// service inserts becomes a row of `event`. The code of the service does not change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.preset) || (has(self.expressions.payload) && has(self.expressions.eventType) && \
     has(self.expressions.aggregateType) && has(self.expressions.aggregateId))",
    "without a preset, set expressions for payload, eventType, aggregateType and aggregateId"
))]
#[x_kube(validation = (
    "!has(self.retain) || has(self.publishedColumn) || (has(self.preset) && self.preset == \
     'EventOutbox')",
    "retain needs publishedColumn, the column with the time of publication"
))]
#[x_kube(validation = (
    "!has(self.retain) || (duration(self.retain) >= duration('1h') && duration(self.retain) <= \
     duration('87600h'))",
    "retain must be between 1h and 87600h"
))]
pub struct AdoptedTable {
    /// Name of the table with its schema, such as `public.event_outbox`. Both are written as the
    /// catalog has them, without quotes.
    #[schemars(
        length(min = 3, max = 127),
        regex(pattern = r"^[^.]{1,63}\.[^.]{1,63}$")
    )]
    pub table: String,
    /// Set of expressions for a known form of table. EventOutbox: `event_outbox` of the essay
    /// platform. Debezium: the columns of Debezium's outbox event router. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<AdoptPreset>,
    /// SQL expressions over the columns of the row, one for each column of `event`. They take
    /// precedence over those of the preset.
    #[serde(default)]
    pub expressions: AdoptExpressions,
    /// Column with the time of publication, of type timestamptz or timestamp. The trigger sets it
    /// in each new row, so that an old worker leaves the row alone; a row that is inserted with a
    /// value is no event. Default: that of the preset, which is `published_at` for EventOutbox;
    /// else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub published_column: Option<String>,
    /// What happens to waiting rows that the old worker has given up, when the table is adopted.
    /// Move: they become events, like other waiting rows. Leave: they stay as they are. Only preset
    /// EventOutbox knows such rows: retry_count is 5 or more. Default: Move.
    #[serde(default)]
    pub exhausted: ExhaustedRows,
    /// Whether the trigger locks the key of each row until its transaction ends, so that ids of a
    /// key commit in their order. A transaction with several keys can then fail with a deadlock.
    /// Default: false.
    #[serde(default)]
    pub ordered: bool,
    /// Age from which published rows are deleted from the table, from 1h to 87600h, such as 168h.
    /// If absent, rows stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub retain: Option<String>,
}

/// Known forms of outbox tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdoptPreset {
    /// Table `event_outbox` of the essay platform, with or without column `topic`.
    EventOutbox,
    /// Table of Debezium's outbox event router: `id`, `aggregatetype`, `aggregateid`, `type`,
    /// `payload`.
    Debezium,
}

/// What happens to waiting rows that the old worker has given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExhaustedRows {
    /// The rows become events.
    #[default]
    Move,
    /// The rows stay in the table as they are.
    Leave,
}

/// SQL expressions, one for each column of `event`. An expression is evaluated for each row, with
/// the columns of the table by their names, as the owner of the schema and with only that schema in
/// the search path: write other types and functions with their schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdoptExpressions {
    /// Value of the record: bytea, which is sent as it is, or a type whose text is sent, such as
    /// text or json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub payload: Option<String>,
    /// Headers of the record: a JSON object of names and texts. If absent, there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub headers: Option<String>,
    /// Kafka topic. If absent or null, the row is routed by its types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub topic: Option<String>,
    /// Kafka key. If absent or null, it is the aggregate's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub event_key: Option<String>,
    /// Unique id of the event, a UUID. If absent or null, a random one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub event_id: Option<String>,
    /// Type of the aggregate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub aggregate_type: Option<String>,
    /// Id of the aggregate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub aggregate_id: Option<String>,
    /// Type of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub event_type: Option<String>,
    /// Time of the event, a timestamptz. If absent or null, it is the time of the insert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub created_at: Option<String>,
}
