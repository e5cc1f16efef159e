//! Contents of [`SecretFile`]s. IO. No value appears in errors, logs or Debug output.
//!
//! There are three sources:
//! - a folder, such as a pod's projected volume; files are read again at every call
//! - the documents of a manifest, with a folder for what they lack (`run --manifest`)
//! - a [`SecretSnapshot`] of one of these, which never changes

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

/// Why a secret file cannot be used. The text contains the location of the file and the field of
/// the manifest that refers to it, but never its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file does not exist.
    #[error("{location} is missing: create it, or correct {}", manifest_field(*file))]
    Missing { file: SecretFile, location: String },
    /// Reading the file failed.
    #[error("{location} cannot be read: check its permissions")]
    Read {
        location: String,
        #[source]
        source: io::Error,
    },
    /// The content is not UTF-8, or contains NUL.
    #[error("{location} is not UTF-8 text without NUL: correct it, or {}", manifest_field(*file))]
    NotText { file: SecretFile, location: String },
    /// The content is empty, apart from one newline.
    #[error("{location} is empty: fill it, or correct {}", manifest_field(*file))]
    Empty { file: SecretFile, location: String },
    /// The content is not PEM of the expected kind.
    #[error("{location} is not a {what} in PEM form: correct it, or {}", manifest_field(*file))]
    Pem {
        file: SecretFile,
        location: String,
        what: &'static str,
    },
    /// A client certificate and its private key do not match; `file` is the certificate.
    #[error("{location} does not match its private key: update both in one step, or correct \
        {}", manifest_field(*file))]
    KeyMismatch { file: SecretFile, location: String },
}

impl SecretError {
    /// Problem for a status report or a migration report.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let class = match self {
            Self::Missing { .. } => ProblemClass::SecretMissing,
            _ => ProblemClass::SecretInvalid,
        };
        Problem::new(class, self.to_string())
    }
}

/// Source of the contents of secret files.
#[derive(Clone)]
pub struct Secrets(Store);

#[derive(Clone)]
enum Store {
    /// A folder with one file per [`SecretFile`], at its fixed path.
    Folder(PathBuf),
    /// A manifest. Its references are looked up in its documents first, then below the folder as
    /// `<name>/<key>`.
    Manifest {
        sources: Vec<Projection>,
        embedded: EmbeddedData,
        folder: Option<PathBuf>,
    },
    /// Contents as they were at one moment.
    Snapshot(SecretSnapshot),
}

/// Data of the `Secret` and `ConfigMap` documents in a manifest file, by name of the object.
#[derive(Clone, Default)]
pub struct EmbeddedData {
    secrets: BTreeMap<String, DataByKey>,
    config_maps: BTreeMap<String, DataByKey>,
}

/// Content of a file; `None` if the file does not exist.
type ReadResult = io::Result<Option<Vec<u8>>>;

/// Data of one `Secret` or `ConfigMap`.
pub(crate) type DataByKey = BTreeMap<String, Vec<u8>>;

impl EmbeddedData {
    /// Adds the data of a `Secret` document. A later document with the same name wins.
    pub(crate) fn add_secret(&mut self, name: String, data: DataByKey) {
        self.secrets.entry(name).or_default().extend(data);
    }

    /// Adds the data of a `ConfigMap` document. A later document with the same name wins.
    pub(crate) fn add_config_map(&mut self, name: String, data: DataByKey) {
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
    /// Secrets in files at fixed paths below a folder, as the operator projects them into a pod.
    #[must_use]
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self(Store::Folder(path.into()))
    }

    /// Secrets that a manifest refers to. A reference is looked up in the documents of its file
    /// first, then as `<folder>/<name of the Secret or ConfigMap>/<key>`.
    #[must_use]
    pub fn manifest(
        sources: Vec<Projection>,
        embedded: EmbeddedData,
        folder: Option<PathBuf>,
    ) -> Self {
        Self(Store::Manifest {
            sources,
            embedded,
            folder,
        })
    }

    /// Content of a file, without one newline at its end.
    ///
    /// # Errors
    /// If the file is missing, cannot be read, is empty, is not UTF-8, or contains NUL.
    pub fn get(&self, file: SecretFile) -> Result<SecretString, SecretError> {
        let location = self.location(file);
        match self.read(file)?.map(String::from_utf8) {
            None => Err(SecretError::Missing { file, location }),
            Some(Err(_)) => Err(SecretError::NotText { file, location }),
            Some(Ok(text)) if text.contains('\0') => Err(SecretError::NotText { file, location }),
            Some(Ok(text)) => match without_newline(text) {
                text if text.is_empty() => Err(SecretError::Empty { file, location }),
                text => Ok(text.into()),
            },
        }
    }

    /// Snapshot of `files` as they are now. Files that are missing or cannot be read are part of
    /// it.
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

    fn read_bytes(&self, file: SecretFile) -> ReadResult {
        match &self.0 {
            Store::Folder(folder) => read_file(&folder.join(file.path())),
            Store::Snapshot(snapshot) => snapshot.read(file),
            Store::Manifest {
                sources,
                embedded,
                folder,
            } => match source(sources, file) {
                Some(source) => read_source(source, embedded, folder.as_deref()),
                None => Ok(None),
            },
        }
    }

    /// Location of a file in words, for problems.
    pub(crate) fn location(&self, file: SecretFile) -> String {
        let sources = match &self.0 {
            Store::Folder(_) => return format!("secret file '{}'", file.path()),
            Store::Snapshot(snapshot) => return snapshot.location(file),
            Store::Manifest { sources, .. } => sources,
        };
        match source(sources, file) {
            Some(source) => source_in_words(source),
            None => format!("the reference for '{}'", file.path()),
        }
    }
}

fn source_in_words(source: &SecretSource) -> String {
    match source {
        SecretSource::Secret { name, key } => format!("key '{key}' of Secret '{name}'"),
        SecretSource::ConfigMap { name, key } => format!("key '{key}' of ConfigMap '{name}'"),
    }
}

/// Reads what a manifest refers to: from its documents, or else from its folder.
fn read_source(
    source: &SecretSource,
    embedded: &EmbeddedData,
    folder: Option<&Path>,
) -> ReadResult {
    if let Some(content) = embedded.get(source) {
        return Ok(Some(content.clone()));
    }
    match (folder, relative_path(source)) {
        (Some(folder), Some(path)) => read_file(&folder.join(path)),
        _ => Ok(None),
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
        f.write_str("EmbeddedData(..)")
    }
}

/// Field of the manifest that refers to the source of a file.
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

/// Path `<name>/<key>` below the folder; `None` for a name or key that would leave the folder. In
/// Kubernetes neither contains a slash.
fn relative_path(source: &SecretSource) -> Option<PathBuf> {
    let (name, key) = source.name_and_key();
    (is_file_name(name) && is_file_name(key)).then(|| Path::new(name).join(key))
}

/// Whether `part` is the name of a file, and not a path.
fn is_file_name(part: &str) -> bool {
    !part.contains(['/', '\\']) && !matches!(part, "" | "." | "..")
}

fn read_file(path: &Path) -> ReadResult {
    match std::fs::read(path).map(Some) {
        Err(error) if is_missing(&error) => Ok(None),
        content => content,
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
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
