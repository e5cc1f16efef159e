//! Secrets as files: each reference in a manifest has a fixed file name. The operator projects the
//! files into pods; `run --manifest` finds their contents in the manifest's own documents. Pure.

use crate::{
    api::{CertificateSource, DatabaseConnection, Kafka, OutboxRelaySpec, Sasl, Tls},
    settings::{DatabaseSettings, Endpoint, KafkaSettings, TlsSettings},
};

/// A file below the secrets folder, for example `database/password`. Its path is fixed, so settings
/// do not contain it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretFile {
    DatabaseUrl,
    DatabaseUsername,
    DatabasePassword,
    DatabaseCa,
    DatabaseCertificate,
    DatabaseKey,
    MigrationUrl,
    MigrationUsername,
    MigrationPassword,
    MigrationCa,
    MigrationCertificate,
    MigrationKey,
    KafkaPassword,
    KafkaCa,
    KafkaCertificate,
    KafkaKey,
}

impl SecretFile {
    /// Path relative to the secrets folder.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::DatabaseUrl => "database/url",
            Self::DatabaseUsername => "database/username",
            Self::DatabasePassword => "database/password",
            Self::DatabaseCa => "database/ca.crt",
            Self::DatabaseCertificate => "database/tls.crt",
            Self::DatabaseKey => "database/tls.key",
            Self::MigrationUrl => "migration/url",
            Self::MigrationUsername => "migration/username",
            Self::MigrationPassword => "migration/password",
            Self::MigrationCa => "migration/ca.crt",
            Self::MigrationCertificate => "migration/tls.crt",
            Self::MigrationKey => "migration/tls.key",
            Self::KafkaPassword => "kafka/password",
            Self::KafkaCa => "kafka/ca.crt",
            Self::KafkaCertificate => "kafka/tls.crt",
            Self::KafkaKey => "kafka/tls.key",
        }
    }
}

/// Object and key in Kubernetes that the content of a [`SecretFile`] comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A key of a Secret.
    Secret { name: String, key: String },
    /// A key of a ConfigMap.
    ConfigMap { name: String, key: String },
}

impl SecretSource {
    /// Name of the object, and the key in it.
    pub(crate) fn name_and_key(&self) -> (&str, &str) {
        let (Self::Secret { name, key } | Self::ConfigMap { name, key }) = self;
        (name, key)
    }
}

/// A file of the secrets folder, and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    /// File in the folder.
    pub file: SecretFile,
    /// Source of its content.
    pub source: SecretSource,
}

/// Secret files of one database connection.
pub(crate) struct DatabaseFiles {
    pub(crate) url: SecretFile,
    pub(crate) username: SecretFile,
    pub(crate) password: SecretFile,
    pub(crate) tls: TlsFiles,
}

/// Secret files for TLS to one server.
pub(crate) struct TlsFiles {
    pub(crate) ca: SecretFile,
    pub(crate) certificate: SecretFile,
    pub(crate) key: SecretFile,
}

/// Secret files of the relay's database connection.
pub(crate) const DATABASE: DatabaseFiles = DatabaseFiles {
    url: SecretFile::DatabaseUrl,
    username: SecretFile::DatabaseUsername,
    password: SecretFile::DatabasePassword,
    tls: TlsFiles {
        ca: SecretFile::DatabaseCa,
        certificate: SecretFile::DatabaseCertificate,
        key: SecretFile::DatabaseKey,
    },
};
/// Secret files of the migration's own database connection.
pub(crate) const MIGRATION: DatabaseFiles = DatabaseFiles {
    url: SecretFile::MigrationUrl,
    username: SecretFile::MigrationUsername,
    password: SecretFile::MigrationPassword,
    tls: TlsFiles {
        ca: SecretFile::MigrationCa,
        certificate: SecretFile::MigrationCertificate,
        key: SecretFile::MigrationKey,
    },
};
/// Secret files for TLS to the brokers.
pub(crate) const KAFKA: TlsFiles = TlsFiles {
    ca: SecretFile::KafkaCa,
    certificate: SecretFile::KafkaCertificate,
    key: SecretFile::KafkaKey,
};

impl DatabaseSettings {
    /// Secret files that a relay needs to connect to its database.
    #[must_use]
    pub fn files(&self) -> Vec<SecretFile> {
        let mut files = DATABASE.login(&self.endpoint);
        files.extend(DATABASE.tls.of(&self.tls));
        files
    }
}

impl DatabaseFiles {
    /// Secret files that hold user name and password, with or without the address.
    fn login(&self, endpoint: &Endpoint) -> Vec<SecretFile> {
        match endpoint {
            Endpoint::Url => vec![self.url],
            Endpoint::Host { .. } => vec![self.username, self.password],
        }
    }
}

impl KafkaSettings {
    /// Secret files that a relay needs to connect to its brokers.
    #[must_use]
    pub fn files(&self) -> Vec<SecretFile> {
        let mut files = Vec::new();
        if self.sasl.is_some() {
            files.push(SecretFile::KafkaPassword);
        }
        files.extend(KAFKA.of(&self.tls));
        files
    }
}

impl TlsFiles {
    fn of(&self, tls: &TlsSettings) -> Vec<SecretFile> {
        let mut files = Vec::new();
        if tls.ca {
            files.push(self.ca);
        }
        if tls.client_certificate {
            files.extend([self.certificate, self.key]);
        }
        files
    }
}

/// Secret files of a relay pod, for its database and its brokers.
#[must_use]
pub fn relay_projections(spec: &OutboxRelaySpec) -> Vec<Projection> {
    let mut all = database_projections(spec);
    all.extend(kafka_projections(&spec.kafka));
    all
}

/// Secret files of the connection to the brokers.
fn kafka_projections(kafka: &Kafka) -> Vec<Projection> {
    let mut all = tls_projections(&kafka.tls, &KAFKA);
    all.extend(kafka.sasl.as_ref().map(password_projection));
    all
}

fn password_projection(sasl: &Sasl) -> Projection {
    let secret = &sasl.credentials_secret_ref;
    from_secret(
        SecretFile::KafkaPassword,
        &secret.name,
        &secret.password_key,
    )
}

/// Secret files of a migration pod: those of the relay's database, from which the migration takes
/// the name of the relay's user, and those of its own database, if set.
#[must_use]
pub fn migration_projections(spec: &OutboxRelaySpec) -> Vec<Projection> {
    let mut all = database_projections(spec);
    if let Some(own) = &spec.migration.database {
        all.extend(connection_projections(own, &MIGRATION));
    }
    all
}

/// Secret files of the relay's database connection.
#[must_use]
pub fn database_projections(spec: &OutboxRelaySpec) -> Vec<Projection> {
    connection_projections(&spec.database.connection(), &DATABASE)
}

fn connection_projections(
    connection: &DatabaseConnection,
    files: &DatabaseFiles,
) -> Vec<Projection> {
    let mut all = Vec::new();
    if let Some(url) = &connection.url_secret_ref {
        all.push(from_secret(files.url, &url.name, &url.key));
    }
    if let Some(user) = &connection.credentials_secret_ref {
        all.push(from_secret(files.username, &user.name, &user.username_key));
        all.push(from_secret(files.password, &user.name, &user.password_key));
    }
    all.extend(tls_projections(&connection.tls, &files.tls));
    all
}

fn tls_projections(tls: &Tls, files: &TlsFiles) -> Vec<Projection> {
    let mut all = Vec::new();
    if let Some(ca) = &tls.ca {
        all.extend(ca_projections(ca, files.ca));
    }
    if let Some(client) = &tls.client_cert_secret_ref {
        all.push(from_secret(
            files.certificate,
            &client.name,
            &client.cert_key,
        ));
        all.push(from_secret(files.key, &client.name, &client.key_key));
    }
    all
}

fn ca_projections(ca: &CertificateSource, file: SecretFile) -> Vec<Projection> {
    let mut all = Vec::new();
    if let Some(secret) = &ca.secret_ref {
        all.push(from_secret(file, &secret.name, &secret.key));
    }
    if let Some(map) = &ca.config_map_ref {
        let (name, key) = (map.name.clone(), map.key.clone());
        let source = SecretSource::ConfigMap { name, key };
        all.push(Projection { file, source });
    }
    all
}

fn from_secret(file: SecretFile, name: &str, key: &str) -> Projection {
    Projection {
        file,
        source: SecretSource::Secret {
            name: name.to_owned(),
            key: key.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::settings::{Owner, RelaySettings};

    #[track_caller]
    fn check(database: &str, kafka: &str) {
        let text = format!(
            "{{ database: {{ {database} }}, kafka: {{ bootstrapServers: ['b:1'], {kafka} }}, \
             topics: [{{ name: t }}] }}"
        );
        let spec: OutboxRelaySpec = serde_yaml::from_str(&text).expect("a spec");
        let owner = Owner {
            cluster: "c".to_owned(),
            namespace: "n".to_owned(),
            name: "r".to_owned(),
        };
        let settings = RelaySettings::from_manifest(owner, &spec).expect("valid");
        let brought: BTreeSet<SecretFile> = relay_projections(&spec)
            .iter()
            .map(|projection| projection.file)
            .collect();
        let read: BTreeSet<SecretFile> = [settings.database.files(), settings.kafka.files()]
            .concat()
            .into_iter()
            .collect();
        assert_eq!(read, brought, "{text}");
    }

    #[test]
    fn a_relay_follows_exactly_the_files_that_its_pod_brings() {
        let host = "host: h, name: d, credentialsSecretRef: { name: s }";
        let tls =
            "tls: { ca: { secretRef: { name: s, key: k } }, clientCertSecretRef: { name: s } }";
        let sasl =
            "sasl: { mechanism: SCRAM-SHA-512, username: u, credentialsSecretRef: { name: s } }";
        check(host, "");
        check("urlSecretRef: { name: s, key: k }", sasl);
        check(&format!("{host}, {tls}"), &format!("{tls}, {sasl}"));
        check(host, tls);
    }
}
