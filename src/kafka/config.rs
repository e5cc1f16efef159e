//! Settings and secrets -> librdkafka's properties. Certificates and keys go in as text, never as
//! paths. Pure but for reading secret files.

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use secrecy::ExposeSecret;

use crate::{
    report::{Problem, ProblemClass},
    secrets::{SecretError, Secrets},
    settings::{KAFKA, KafkaSettings, SaslMechanism, SecretFile, TlsMode},
};

/// A client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(
        "Kafka client cannot be made; check spec.kafka: certificates and keys must be PEM, and belong to each other"
    )]
    Create(#[source] rdkafka::error::KafkaError),
}

impl ConfigError {
    /// The same for a report.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Secret(error) => error.problem(),
            Self::Create(_) => Problem::new(ProblemClass::SecretInvalid, self.to_string()),
        }
    }
}

/// Properties that every client of the relay shares: where the brokers are and how to log in.
///
/// # Errors
/// When a secret file is missing or cannot be used.
pub fn client_config(
    settings: &KafkaSettings,
    secrets: &Secrets,
    client_id: &str,
) -> Result<ClientConfig, SecretError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", settings.bootstrap_servers.join(","))
        .set("client.id", client_id)
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "2000")
        .set("allow.auto.create.topics", "false")
        .set("security.protocol", protocol(settings))
        .set_log_level(RDKafkaLogLevel::Warning);
    if settings.tls.mode != TlsMode::Disable {
        let checks_name = settings.tls.mode == TlsMode::VerifyFull;
        config.set(
            "ssl.endpoint.identification.algorithm",
            if checks_name { "https" } else { "none" },
        );
    }
    if settings.tls.ca {
        config.set("ssl.ca.pem", secrets.authority(KAFKA.ca)?.expose_secret());
    }
    if settings.tls.client_certificate {
        let (certificate, key) = secrets.client_certificate(&KAFKA)?;
        config
            .set("ssl.certificate.pem", certificate.expose_secret())
            .set("ssl.key.pem", key.expose_secret());
    }
    if let Some(sasl) = &settings.sasl {
        config
            .set("sasl.mechanism", mechanism(sasl.mechanism))
            .set("sasl.username", &sasl.username);
        config.set(
            "sasl.password",
            secrets.get(SecretFile::KafkaPassword)?.expose_secret(),
        );
    }
    Ok(config)
}

fn protocol(settings: &KafkaSettings) -> &'static str {
    match (
        settings.tls.mode == TlsMode::Disable,
        settings.sasl.is_some(),
    ) {
        (true, false) => "plaintext",
        (true, true) => "sasl_plaintext",
        (false, false) => "ssl",
        (false, true) => "sasl_ssl",
    }
}

fn mechanism(mechanism: SaslMechanism) -> &'static str {
    match mechanism {
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::Plain => "PLAIN",
    }
}
