//! The API that users write and read: kind `OutboxRelay` of `outboxrelay.dev/v1alpha1`, with types,
//! schema and rules. No IO.
//!
//! Every field has an effect. A field that would be ignored is not added until it has one.

#![expect(
    unreachable_pub,
    reason = "the expansion of KubeSchema repeats each struct inside a function"
)]

pub(crate) mod address;
mod adopt;
mod breaker;
mod crd;
mod database;
mod duration;
mod kafka;
mod references;
mod relay;
mod scaling;
mod status;
mod topics;

pub use adopt::{AdoptExpressions, AdoptPreset, AdoptedTable, ExhaustedRows};
pub use breaker::{Breaker, BreakerState};
pub use crd::custom_resource_definition;
pub use database::{Database, DatabaseConnection, Grants, Migration, MigrationPolicy};
pub use duration::{ParseDurationError, parse_duration};
pub use kafka::{Kafka, PasswordSecret, Sasl, SaslMechanism};
pub use references::{
    CertificateSource, ClientCertificate, ConfigMapKey, SecretKey, Tls, TlsMode, UserCredentials,
};
pub use relay::{OutboxRelay, OutboxRelaySpec, PodResources, RecordHeaders, Template};
pub use scaling::{Monitoring, NetworkPolicy, Scaling};
pub use status::{BacklogStatus, LastScale, MigrationStatus, OutboxRelayStatus};
pub use topics::{OnPoison, Topic};
