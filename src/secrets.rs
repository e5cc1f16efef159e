//! Contents of [`SecretFile`]s: from a folder (a pod's projected volume), or from the documents of
//! a manifest and a folder beside it (`run --manifest`), read anew at every call; or from a
//! [`SecretSnapshot`] of them, which stays as it is. IO, but no values in errors, logs or Debug output.

mod certificates;
pub mod change;
mod snapshot;

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
pub use snapshot::SecretSnapshot;

use crate::{
    report::{Problem, ProblemClass},
    settings::{Projection, SecretFile, SecretSource},
};

/// Why a secret file cannot be used. Each names the file, its source where it is known, and never
/// its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{location} is missing: create it, or correct {}", manifest_field(*file))]
    Missing { file: SecretFile, location: String },
    #[error("{location} cannot be read: check its permissions")]
    Read {
        location: String,
        #[source]
        source: io::Error,
    },
    #[error("{location} is no UTF-8 text: check what {} names", manifest_field(*file))]
    NotText { file: SecretFile, location: String },
    #[error("{location} is empty: correct what {} names", manifest_field(*file))]
    Empty { file: SecretFile, location: String },
    #[error("{location} is no {what} in PEM form: correct what {} names", manifest_field(*file))]
    Pem {
        file: SecretFile,
        location: String,
        what: &'static str,
    },
    #[error("{location} does not belong to the key beside it: bring both anew in one step, or \
        correct what {} names", manifest_field(*file))]
    KeyMismatch { file: SecretFile, location: String },
}

impl SecretError {
    /// As it goes into a report.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let class = match self {
            Self::Missing { .. } => ProblemClass::SecretMissing,
            _ => ProblemClass::SecretInvalid,
        };
        Problem::new(class, self.to_string())
    }
}

/// Where the contents come from.
#[derive(Clone)]
pub struct Secrets(Store);

#[derive(Clone)]
enum Store {
    /// One file per [`SecretFile`], at its fixed path.
    Folder(PathBuf),
    /// The manifest's references, looked up in its documents first, then below the folder as
    /// `<name>/<key>`.
    Manifest {
        sources: Vec<Projection>,
        documents: EmbeddedData,
        folder: Option<PathBuf>,
    },
    /// As they were at one moment.
    Snapshot(SecretSnapshot),
}

/// Data of the `Secret` and `ConfigMap` documents of a manifest.
#[derive(Clone, Default)]
pub struct EmbeddedData {
    secrets: BTreeMap<String, Data>,
    config_maps: BTreeMap<String, Data>,
}

type Data = BTreeMap<String, Vec<u8>>;

impl EmbeddedData {
    pub(crate) fn add_secret(&mut self, name: String, data: Data) {
        self.secrets.entry(name).or_default().extend(data);
    }

    pub(crate) fn add_config_map(&mut self, name: String, data: Data) {
        self.config_maps.entry(name).or_default().extend(data);
    }

    fn get(&self, source: &SecretSource) -> Option<&Vec<u8>> {
        match source {
            SecretSource::Secret { name, key } => self.secrets.get(name)?.get(key),
            SecretSource::ConfigMap { name, key } => self.config_maps.get(name)?.get(key),
        }
    }
}

impl Secrets {
    /// Files at their fixed paths below a folder, as the operator projects them into a pod.
    #[must_use]
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self(Store::Folder(path.into()))
    }

    /// What a manifest refers to: in its own documents, else `<folder>/<name of the Secret or
    /// ConfigMap>/<key>`.
    #[must_use]
    pub fn manifest(
        sources: Vec<Projection>,
        documents: EmbeddedData,
        folder: Option<PathBuf>,
    ) -> Self {
        Self(Store::Manifest {
            sources,
            documents,
            folder,
        })
    }

    /// The content, without one newline at its end.
    ///
    /// # Errors
    /// When it is missing, cannot be read, is empty, or is no text.
    pub fn get(&self, file: SecretFile) -> Result<SecretString, SecretError> {
        let location = self.location(file);
        let Some(bytes) = self.read(file)? else {
            return Err(SecretError::Missing { file, location });
        };
        match String::from_utf8(bytes).map(without_newline) {
            Ok(text) if text.is_empty() => Err(SecretError::Empty { file, location }),
            Ok(text) => Ok(text.into()),
            Err(_) => Err(SecretError::NotText { file, location }),
        }
    }

    /// These files as they are now.
    #[must_use]
    pub fn read_all(&self, files: &[SecretFile]) -> SecretSnapshot {
        files
            .iter()
            .map(|file| (*file, self.location(*file), self.read_bytes(*file)))
            .collect()
    }

    fn read(&self, file: SecretFile) -> Result<Option<Vec<u8>>, SecretError> {
        self.read_bytes(file).map_err(|source| SecretError::Read {
            location: self.location(file),
            source,
        })
    }

    fn read_bytes(&self, file: SecretFile) -> io::Result<Option<Vec<u8>>> {
        let path = match &self.0 {
            Store::Folder(folder) => folder.join(file.path()),
            Store::Manifest {
                sources,
                documents,
                folder,
            } => {
                let Some(source) = source(sources, file) else {
                    return Ok(None);
                };
                if let Some(content) = documents.get(source) {
                    return Ok(Some(content.clone()));
                }
                let (Some(folder), Some(path)) = (folder, relative(source)) else {
                    return Ok(None);
                };
                folder.join(path)
            }
            Store::Snapshot(snapshot) => return snapshot.read(file),
        };
        read_file(&path)
    }

    /// How a person would name it.
    pub(crate) fn location(&self, file: SecretFile) -> String {
        let sources = match &self.0 {
            Store::Folder(_) => return format!("secret file '{}'", file.path()),
            Store::Snapshot(snapshot) => return snapshot.location(file),
            Store::Manifest { sources, .. } => sources,
        };
        match source(sources, file) {
            Some(SecretSource::Secret { name, key }) => format!("key '{key}' of Secret '{name}'"),
            Some(SecretSource::ConfigMap { name, key }) => {
                format!("key '{key}' of ConfigMap '{name}'")
            }
            None => format!("the reference for '{}'", file.path()),
        }
    }
}

impl From<SecretSnapshot> for Secrets {
    fn from(snapshot: SecretSnapshot) -> Self {
        Self(Store::Snapshot(snapshot))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl fmt::Debug for EmbeddedData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Documents(..)")
    }
}

/// The field of the manifest that says where a file comes from.
pub(crate) fn manifest_field(file: SecretFile) -> &'static str {
    match file {
        SecretFile::DatabaseUrl => "spec.database.urlSecretRef",
        SecretFile::DatabaseUsername | SecretFile::DatabasePassword => {
            "spec.database.credentialsSecretRef"
        }
        SecretFile::DatabaseCa => "spec.database.tls.ca",
        SecretFile::DatabaseCertificate | SecretFile::DatabaseKey => {
            "spec.database.tls.clientCertSecretRef"
        }
        SecretFile::MigrationUrl => "spec.migration.database.urlSecretRef",
        SecretFile::MigrationUsername | SecretFile::MigrationPassword => {
            "spec.migration.database.credentialsSecretRef"
        }
        SecretFile::MigrationCa => "spec.migration.database.tls.ca",
        SecretFile::MigrationCertificate | SecretFile::MigrationKey => {
            "spec.migration.database.tls.clientCertSecretRef"
        }
        SecretFile::KafkaPassword => "spec.kafka.sasl.credentialsSecretRef",
        SecretFile::KafkaCa => "spec.kafka.tls.ca",
        SecretFile::KafkaCertificate | SecretFile::KafkaKey => "spec.kafka.tls.clientCertSecretRef",
    }
}

fn source(sources: &[Projection], file: SecretFile) -> Option<&SecretSource> {
    sources
        .iter()
        .find(|projection| projection.file == file)
        .map(|projection| &projection.source)
}

/// Names and keys hold no slash in Kubernetes; one that does would leave the folder.
fn relative(source: &SecretSource) -> Option<PathBuf> {
    let (SecretSource::Secret { name, key } | SecretSource::ConfigMap { name, key }) = source;
    let plain = |part: &str| !part.contains(['/', '\\']) && !matches!(part, "" | "." | "..");
    (plain(name) && plain(key)).then(|| Path::new(name).join(key))
}

fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn without_newline(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

#[cfg(test)]
mod tests;
