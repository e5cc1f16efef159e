//! Secrets as files: which fixed file name each reference of a manifest gets. The operator projects
//! them into pods, `run --manifest` reads them from the manifest's own documents. Pure.

use super::{DatabaseSettings, Endpoint, KafkaSettings, TlsSettings};
use crate::api::{CertificateSource, DatabaseConnection, OutboxRelaySpec, Tls};

/// A file below the secrets folder, for example `database/password`. Fixed, so that settings never
/// have to name it.
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

/// Where the content of a [`SecretFile`] comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    Secret { name: String, key: String },
    ConfigMap { name: String, key: String },
}

/// One file of the secrets folder and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    pub file: SecretFile,
    pub source: SecretSource,
}

/// The files of one database connection.
pub(crate) struct DatabaseFiles {
    pub(crate) url: SecretFile,
    pub(crate) username: SecretFile,
    pub(crate) password: SecretFile,
    pub(crate) tls: TlsFiles,
}

/// The files of TLS towards one server.
pub(crate) struct TlsFiles {
    pub(crate) ca: SecretFile,
    pub(crate) certificate: SecretFile,
    pub(crate) key: SecretFile,
}

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
pub(crate) const KAFKA: TlsFiles = TlsFiles {
    ca: SecretFile::KafkaCa,
    certificate: SecretFile::KafkaCertificate,
    key: SecretFile::KafkaKey,
};

impl DatabaseSettings {
    /// Files that a relay reads for its database.
    #[must_use]
    pub fn files(&self) -> Vec<SecretFile> {
        let login: &[SecretFile] = match self.endpoint {
            Endpoint::Url => &[DATABASE.url],
            Endpoint::Host { .. } => &[DATABASE.username, DATABASE.password],
        };
        [login, &DATABASE.tls.of(&self.tls)].concat()
    }
}

impl KafkaSettings {
    /// Files that a relay reads for its brokers.
    #[must_use]
    pub fn files(&self) -> Vec<SecretFile> {
        let password = self.sasl.iter().map(|_| SecretFile::KafkaPassword);
        password.chain(KAFKA.of(&self.tls)).collect()
    }
}

impl TlsFiles {
    fn of(&self, tls: &TlsSettings) -> Vec<SecretFile> {
        let ca = tls.ca.then_some(self.ca);
        let pair = tls
            .client_certificate
            .then_some([self.certificate, self.key]);
        ca.into_iter().chain(pair.into_iter().flatten()).collect()
    }
}

/// Files of a relay pod: its database and its brokers.
#[must_use]
pub fn relay_projections(spec: &OutboxRelaySpec) -> Vec<Projection> {
    let mut all = database_projections(spec);
    all.extend(tls_projections(&spec.kafka.tls, &KAFKA));
    if let Some(sasl) = &spec.kafka.sasl {
        let secret = &sasl.credentials_secret_ref;
        all.push(from_secret(
            SecretFile::KafkaPassword,
            &secret.name,
            &secret.password_key,
        ));
    }
    all
}

/// Files of a migration pod: the relay's database (it learns the relay's user from it) and, where
/// set, its own.
#[must_use]
pub fn migration_projections(spec: &OutboxRelaySpec) -> Vec<Projection> {
    let mut all = database_projections(spec);
    if let Some(own) = &spec.migration.database {
        all.extend(connection_projections(own, &MIGRATION));
    }
    all
}

/// Files of the relay's database connection.
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
    if let Some(CertificateSource {
        secret_ref: Some(secret),
        ..
    }) = &tls.ca
    {
        all.push(from_secret(files.ca, &secret.name, &secret.key));
    }
    if let Some(CertificateSource {
        config_map_ref: Some(map),
        ..
    }) = &tls.ca
    {
        let source = SecretSource::ConfigMap {
            name: map.name.clone(),
            key: map.key.clone(),
        };
        all.push(Projection {
            file: files.ca,
            source,
        });
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
            "{{ database: {{ {database} }}, kafka: {{ bootstrapServers: [b], {kafka} }}, topics: [{{ name: t }}] }}"
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
