//! What a user writes and reads: the `OutboxRelay` kind of `outboxrelay.dev/v1alpha1`. Types,
//! schema and rules; no IO.
//!
//! Every field here works; a field that would be ignored is left out until it does.

#![expect(
    unreachable_pub,
    reason = "the expansion of KubeSchema repeats each struct inside a function"
)]

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
