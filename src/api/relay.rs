//! Kind `OutboxRelay`: its spec, and the settings of its pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, EnvFromSource, EnvVar, LocalObjectReference, Toleration,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    Breaker, Database, Kafka, Migration, Monitoring, NetworkPolicy, OutboxRelayStatus, Scaling,
    Topic,
};

/// Desired state of an OutboxRelay.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "outboxrelay.dev",
    version = "v1alpha1",
    kind = "OutboxRelay",
    plural = "outboxrelays",
    shortname = "obr",
    category = "outbox",
    namespaced,
    status = "OutboxRelayStatus",
    derive = "PartialEq",
    doc = "Sends committed rows of one PostgreSQL outbox table to Kafka: without loss, in order \
        per key, through outages.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(
        name = "Schema",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='SchemaReady')].status"
    ),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Backlog", type_ = "integer", json_path = ".status.backlog.rows"),
    printcolumn(name = "Oldest", type_ = "date", json_path = ".status.backlog.oldestAt"),
    printcolumn(name = "Breaker", type_ = "string", json_path = ".status.breaker"),
    printcolumn(
        name = "Rate",
        type_ = "integer",
        json_path = ".status.publishedPerSecond",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = (
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && \
         size(self.metadata.name) <= 46",
        "metadata.name must be at most 46 characters, start with a letter, and hold only a-z, 0-9 \
         and -"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.scaling) || !has(oldSelf.scaling) || self.replicas == oldSelf.replicas",
    "replicas is not used while scaling is set: remove scaling first, or change scaling.minReplicas"
))]
pub struct OutboxRelaySpec {
    /// Database of the outbox table. Set either `urlSecretRef`, or `host` with `name` and
    /// `credentialsSecretRef`.
    pub database: Database,
    /// Who creates the outbox tables, with which rights, and for which roles.
    #[serde(default)]
    pub migration: Migration,
    /// Kafka cluster that records are sent to.
    pub kafka: Kafka,
    /// Headers that the relay adds to each record, in addition to the row's own. Standard:
    /// event_id, event_type, aggregate_type, aggregate_id, outbox_seq and outbox_created_at.
    /// Debezium: id, eventType and outbox_seq. CloudEvents: binary mode, and outbox_seq. Default:
    /// Standard.
    #[serde(default)]
    pub record_headers: RecordHeaders,
    /// Topics that rows may be published to, 1 to 64.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = (
        "self.all(a, self.all(b, a.name >= b.name || !a.eventTypes.exists(type, type in \
         b.eventTypes)))",
        "an event type stands at two topics: keep it at one"
    ))]
    #[x_kube(validation = (
        "self.all(a, self.all(b, a.name >= b.name || !a.aggregateTypes.exists(type, type in \
         b.aggregateTypes)))",
        "an aggregate type stands at two topics: keep it at one"
    ))]
    pub topics: Vec<Topic>,
    /// Maximum number of rows that one statement settles, 1 to 10,000. More than 400 rows do not
    /// fit into one TLS record, and can be slower with TLS. Default: 400.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 10000))]
    pub batch_size: i32,
    /// Longest pause between two reads of an idle table, from 5ms to 10s, where relays do not
    /// sleep. A duration is a number with unit ms, s, m or h. Default: 50ms.
    #[serde(default = "default_poll_interval")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    #[x_kube(validation = ("duration(self) >= duration('5ms') && duration(self) <= \
        duration('10s')", "pollInterval must be between 5ms and 10s"))]
    pub poll_interval: String,
    /// When the relay stops sending to a Kafka cluster that acknowledges nothing.
    #[serde(default)]
    pub breaker: Breaker,
    /// Number of relay pods, 0 to 64. `kubectl scale`, an HPA and KEDA set this field. While
    /// `scaling` is set, it is not used and must not be changed. Default: 2.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 64))]
    pub replicas: i32,
    /// Lets the operator choose the number of relay pods by the number and age of waiting rows. If
    /// absent, `replicas` applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// Whether relays are stopped: they finish what is in flight and end, and rows wait in the
    /// table. Default: false.
    #[serde(default)]
    pub suspend: bool,
    /// Settings of the relay's pods. They apply to the migration's pod, too.
    #[serde(default)]
    pub template: Template,
    /// How Prometheus finds the metrics of the relays.
    #[serde(default)]
    pub monitoring: Monitoring,
    /// Which namespaces may connect to the HTTP port of the relays.
    #[serde(default)]
    pub network_policy: NetworkPolicy,
}

fn default_batch_size() -> i32 {
    400
}

fn default_poll_interval() -> String {
    "50ms".to_owned()
}

fn default_replicas() -> i32 {
    2
}

/// Headers that the relay adds to each record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RecordHeaders {
    /// `event_id, event_type, aggregate_type, aggregate_id, outbox_seq, outbox_created_at`.
    #[default]
    Standard,
    /// `id` and `eventType`, as Debezium's outbox event router writes them, and `outbox_seq`.
    Debezium,
    /// CloudEvents in binary mode (`ce_id, ce_type, ...`) and `outbox_seq`.
    CloudEvents,
}

/// Settings of the relay's pods. They apply to the migration's pod, too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Resource requests and limits of the relay's container. Without them it requests 50m of CPU
    /// and 64Mi of memory, and may use 256Mi of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<PodResources>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        extend("maxProperties" = 32),
        extend("additionalProperties" = {
            "type": "string",
            "maxLength": 63,
            "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
        })
    )]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Additional labels of the pods. `app.kubernetes.io/*` and `outboxrelay.dev/*` are reserved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        extend("maxProperties" = 32),
        extend("additionalProperties" = {
            "type": "string",
            "maxLength": 63,
            "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
        })
    )]
    #[x_kube(validation = (
        "self.all(name, !name.startsWith('app.kubernetes.io/') && \
         !name.startsWith('outboxrelay.dev/'))",
        "app.kubernetes.io/* and outboxrelay.dev/* are the operator's own"
    ))]
    pub labels: BTreeMap<String, String>,
    /// Additional annotations of the pods. `outboxrelay.dev/*` is reserved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = (
        "self.all(name, !name.startsWith('outboxrelay.dev/'))",
        "outboxrelay.dev/* are the operator's own"
    ))]
    pub annotations: BTreeMap<String, String>,
    /// Affinity of the pods to nodes and to other pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Secrets for pulling the relay's image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Name of an existing ServiceAccount that the pods run as. Its token is not mounted. If
    /// absent, the operator creates a ServiceAccount without rights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub service_account_name: Option<String>,
    /// Environment variables of relay and migration, such as `RUST_LOG`. `POD_NAME` and
    /// `GLIBC_TUNABLES` are the operator's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = (
        "self.all(one, !(one.name in ['POD_NAME', 'GLIBC_TUNABLES']))",
        "POD_NAME and GLIBC_TUNABLES are the operator's own"
    ))]
    pub env: Vec<EnvVar>,
    /// ConfigMaps and Secrets whose keys become environment variables of relay and migration.
    /// Relays take user names, passwords and certificates from files only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub env_from: Vec<EnvFromSource>,
    /// Image of relay and migration. The operator's installation must allow it
    /// (`relay.allowedImages`). If absent, the image of the installation applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$")
    )]
    pub image: Option<String>,
}

/// Requests and limits of a container, as Kubernetes quantities (`100m`, `128Mi`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodResources {
    /// Resources that the scheduler reserves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        extend("maxProperties" = 8),
        extend("additionalProperties" = {
            "type": "string",
            "maxLength": 32,
            "pattern": "^[0-9]+([.][0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
        })
    )]
    pub requests: BTreeMap<String, String>,
    /// Resources that the container may not exceed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        extend("maxProperties" = 8),
        extend("additionalProperties" = {
            "type": "string",
            "maxLength": 32,
            "pattern": "^[0-9]+([.][0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
        })
    )]
    pub limits: BTreeMap<String, String>,
}
