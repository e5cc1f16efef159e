//! Where a process gets its settings and secrets from: files that the operator made, or a manifest.
//! Reading is IO.

use std::{io, path::PathBuf};

use crate::{
    manifest::{self, ManifestError},
    report::{Problem, ProblemClass},
    secrets::Secrets,
    settings::{InvalidSettings, RelaySettings},
    telemetry::chain,
};

/// Files to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a pod: the settings of a ConfigMap, and a folder of projected secrets.
    Settings { file: PathBuf, secrets: PathBuf },
    /// Without Kubernetes: a manifest, and a folder for the secrets that are not in it.
    Manifest {
        file: PathBuf,
        secrets: Option<PathBuf>,
        cluster: String,
    },
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot read settings '{}'", file.display())]
    ReadSettings {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("settings '{}' are of another version, or changed by hand; let the operator write \
        them, and run its version", file.display())]
    ParseSettings {
        file: PathBuf,
        #[source]
        source: InvalidSettings,
    },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl SourceError {
    /// As it goes into a report.
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem::new(ProblemClass::InvalidSettings, chain(self))
    }
}

impl Source {
    /// Reads the settings; secrets are read when they are needed.
    ///
    /// # Errors
    /// When a file cannot be read or cannot work.
    pub fn load(&self) -> Result<(RelaySettings, Secrets), SourceError> {
        match self {
            Self::Settings { file, secrets } => {
                let text = std::fs::read_to_string(file);
                let text = text.map_err(|source| SourceError::ReadSettings {
                    file: file.clone(),
                    source,
                })?;
                let settings = RelaySettings::read(&text);
                let settings = settings.map_err(|source| SourceError::ParseSettings {
                    file: file.clone(),
                    source,
                })?;
                Ok((settings, Secrets::folder(secrets)))
            }
            Self::Manifest {
                file,
                secrets,
                cluster,
            } => Ok(manifest::load(file, secrets.clone(), cluster)?),
        }
    }
}
