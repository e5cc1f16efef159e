//! Sources of a process' settings and secrets: files that the operator wrote, or a manifest.
//! Reading them is IO.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    manifest::{self, ManifestError},
    report::{Problem, ProblemClass},
    secrets::Secrets,
    settings::{InvalidSettings, RelaySettings},
    telemetry::chain,
};

/// Files that settings and secrets are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsSource {
    /// In a pod: settings of a ConfigMap, and a folder of projected secrets.
    Settings {
        /// Settings file.
        file: PathBuf,
        /// Folder of the secrets.
        secrets: PathBuf,
    },
    /// Without Kubernetes: a manifest.
    Manifest {
        /// Manifest file.
        file: PathBuf,
        /// Folder of the secrets that are not in the file, if there is one.
        secrets: Option<PathBuf>,
        /// First part of the owner's name.
        cluster: String,
    },
}

/// Why settings cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum SettingsSourceError {
    /// The settings file cannot be read.
    #[error("cannot read settings '{}'", file.display())]
    ReadSettings {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The content of the settings file is not usable.
    #[error("settings '{}' were written by another version or edited by hand; let the operator \
        write them, and run a relay of its version", file.display())]
    ParseSettings {
        file: PathBuf,
        #[source]
        source: InvalidSettings,
    },
    /// The manifest is not usable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl SettingsSourceError {
    /// Problem for a migration report.
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem::new(ProblemClass::InvalidSettings, chain(self))
    }
}

impl SettingsSource {
    /// Reads the settings. Secrets are read later, when they are needed.
    ///
    /// # Errors
    /// If a file cannot be read, or its content is not usable.
    pub fn load(&self) -> Result<(RelaySettings, Secrets), SettingsSourceError> {
        match self {
            Self::Settings { file, secrets } => {
                Ok((read_settings(file)?, Secrets::folder(secrets)))
            }
            Self::Manifest {
                file,
                secrets,
                cluster,
            } => Ok(manifest::load(file, secrets.clone(), cluster)?),
        }
    }
}

fn read_settings(file: &Path) -> Result<RelaySettings, SettingsSourceError> {
    let text = read_text(file)?;
    RelaySettings::read(&text).map_err(|source| SettingsSourceError::ParseSettings {
        file: file.to_owned(),
        source,
    })
}

fn read_text(file: &Path) -> Result<String, SettingsSourceError> {
    std::fs::read_to_string(file).map_err(|source| SettingsSourceError::ReadSettings {
        file: file.to_owned(),
        source,
    })
}
