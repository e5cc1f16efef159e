//! `spec.kafka`: the Kafka side of a manifest.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    address::HOST_PORT_PATTERN,
    references::{Tls, password_key},
};

/// Kafka cluster that records are sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.sasl) || self.sasl.mechanism != 'PLAIN' || !(self.tls.mode in ['disable', \
     'require'])",
    "sasl.mechanism PLAIN sends the password itself: set tls.mode to verify-full"
))]
pub struct Kafka {
    /// Bootstrap servers, 1 to 16, each as `host:port`, with an IPv6 address in brackets.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(max = 261), regex(pattern = HOST_PORT_PATTERN))
    )]
    pub bootstrap_servers: Vec<String>,
    /// TLS to the brokers.
    #[serde(default)]
    pub tls: Tls,
    /// SASL login. If absent, the relay logs in with the client certificate of `tls`, if set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
    /// Properties of librdkafka. Only `linger.ms` (0 to 1000) and `compression.type` (none, gzip,
    /// snappy, lz4 or zstd) may be set. If absent, `linger.ms` is 0 and `compression.type` is lz4.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        extend("maxProperties" = 8),
        extend("additionalProperties" = {
            "type": "string",
            "maxLength": 64
        })
    )]
    #[x_kube(validation = (
        "self.all(name, name in ['linger.ms', 'compression.type'])",
        "only linger.ms and compression.type may be set: the others carry the order and no-loss \
         guarantees"
    ))]
    #[x_kube(validation = (
        "!('linger.ms' in self) || self['linger.ms'].matches('^([0-9]{1,3}|1000)$')",
        "linger.ms must be a number of milliseconds, 0 to 1000"
    ))]
    #[x_kube(validation = (
        "!('compression.type' in self) || self['compression.type'] in ['none', 'gzip', 'snappy', \
         'lz4', 'zstd']",
        "compression.type must be none, gzip, snappy, lz4 or zstd"
    ))]
    pub properties: BTreeMap<String, String>,
}

/// SASL login to the brokers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sasl {
    /// SASL mechanism: SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN. PLAIN sends the password itself, and
    /// needs TLS.
    pub mechanism: SaslMechanism,
    /// User name.
    #[schemars(length(min = 1, max = 256))]
    pub username: String,
    /// Secret that contains the password.
    pub credentials_secret_ref: PasswordSecret,
}

/// A password from one Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordSecret {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the password. Default: password.
    #[serde(default = "password_key")]
    #[schemars(length(min = 1, max = 253))]
    pub password_key: String,
}

/// SASL mechanisms. PLAIN needs TLS, since it sends the password itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    /// Salted challenge-response with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// Salted challenge-response with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The password itself, inside TLS.
    #[serde(rename = "PLAIN")]
    Plain,
}
