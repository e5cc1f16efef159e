//! Settings and secrets -> librdkafka's properties. Certificates and keys go in as text, never as
//! paths. Pure but for reading secret files.

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use secrecy::ExposeSecret;

use crate::{
    report::{Problem, ProblemClass},
    secrets::{SecretError, Secrets},
    settings::{
        KAFKA, KafkaSettings, SaslMechanism, SaslSettings, SecretFile, TlsMode, TlsSettings,
    },
};

/// Why a Kafka client cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(
        "cannot create a Kafka client: check spec.kafka; certificates and keys must be in PEM \
         form, and match each other"
    )]
    Create(#[source] rdkafka::error::KafkaError),
}

impl ConfigError {
    /// Problem for the status report.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Secret(error) => error.problem(),
            Self::Create(_) => Problem::new(ProblemClass::SecretInvalid, self.to_string()),
        }
    }
}

/// Properties that every Kafka client of the relay shares: addresses of the brokers, TLS and login.
///
/// # Errors
/// If a secret file is missing or cannot be used.
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
        .set("security.protocol", security_protocol(settings))
        .set_log_level(RDKafkaLogLevel::Warning);
    set_tls(&mut config, &settings.tls, secrets)?;
    if let Some(sasl) = &settings.sasl {
        set_sasl(&mut config, sasl, secrets)?;
    }
    Ok(config)
}

fn set_tls(
    config: &mut ClientConfig,
    tls: &TlsSettings,
    secrets: &Secrets,
) -> Result<(), SecretError> {
    if let Some(algorithm) = host_name_check(tls.mode) {
        config.set("ssl.endpoint.identification.algorithm", algorithm);
    }
    if tls.mode == TlsMode::Require {
        config.set("enable.ssl.certificate.verification", "false");
    }
    if tls.ca {
        let ca = secrets.ca_certificates(KAFKA.ca)?;
        config.set("ssl.ca.pem", ca.expose_secret());
    }
    if tls.client_certificate {
        let (certificate, key) = secrets.client_certificate(&KAFKA)?;
        config
            .set("ssl.certificate.pem", certificate.expose_secret())
            .set("ssl.key.pem", key.expose_secret());
    }
    Ok(())
}

/// librdkafka's algorithm to compare a certificate with the broker's host name; `None` without TLS.
fn host_name_check(mode: TlsMode) -> Option<&'static str> {
    match mode {
        TlsMode::VerifyFull => Some("https"),
        TlsMode::VerifyCa | TlsMode::Require => Some("none"),
        TlsMode::Disable => None,
    }
}

fn set_sasl(
    config: &mut ClientConfig,
    sasl: &SaslSettings,
    secrets: &Secrets,
) -> Result<(), SecretError> {
    let password = secrets.get(SecretFile::KafkaPassword)?;
    config
        .set("sasl.mechanism", mechanism_name(sasl.mechanism))
        .set("sasl.username", &sasl.username)
        .set("sasl.password", password.expose_secret());
    Ok(())
}

fn security_protocol(settings: &KafkaSettings) -> &'static str {
    match (settings.tls.mode, &settings.sasl) {
        (TlsMode::Disable, None) => "plaintext",
        (TlsMode::Disable, Some(_)) => "sasl_plaintext",
        (_, None) => "ssl",
        (_, Some(_)) => "sasl_ssl",
    }
}

fn mechanism_name(mechanism: SaslMechanism) -> &'static str {
    match mechanism {
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::Plain => "PLAIN",
    }
}
