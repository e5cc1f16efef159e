//! A manifest file -> settings and secrets, for running without Kubernetes: one `OutboxRelay` and
//! the `Secret`s and `ConfigMap`s that it refers to, as documents of one YAML file. Defaults are
//! those of the CRD; what an API server would refuse is refused here. Reading is IO.

mod documents;
mod unknown_fields;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    api::OutboxRelay,
    secrets::{EmbeddedData, Secrets},
    settings::{
        InvalidSpec, Owner, RelaySettings, database_projections, migration_projections,
        relay_projections,
    },
};
use documents::{Parsed, parse};

/// Why a manifest cannot be used: which document, which field, and what to write instead. Never a
/// value of a Secret.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("cannot read manifest '{}'", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("document {document} is no YAML: {reason}")]
    Yaml { document: usize, reason: String },
    #[error(
        "document {document} is of version '{found}': this version reads outboxrelay.dev/v1alpha1"
    )]
    Version { document: usize, found: String },
    #[error("document {document} ({kind}): {field}: {reason}")]
    Field {
        document: usize,
        kind: &'static str,
        field: String,
        reason: String,
    },
    #[error("there is no document of kind OutboxRelay")]
    NoRelay,
    #[error(
        "documents {first} and {second} are both of kind OutboxRelay: one process runs one of \
         them, split the file"
    )]
    SeveralRelays { first: usize, second: usize },
    #[error("document {document} (OutboxRelay)")]
    Spec {
        document: usize,
        #[source]
        source: InvalidSpec,
    },
}

/// Reads a manifest. `cluster` stands in the owner's name; `folder` holds what is not in the file,
/// as `<name>/<key>`.
///
/// # Errors
/// When the file cannot be read, or holds something else than one usable `OutboxRelay`.
pub fn load(
    path: &Path,
    folder: Option<PathBuf>,
    cluster: &str,
) -> Result<(RelaySettings, Secrets), ManifestError> {
    let text = std::fs::read_to_string(path).map_err(|source| ManifestError::Read {
        path: path.to_owned(),
        source,
    })?;
    from_text(&text, folder, cluster)
}

fn from_text(
    text: &str,
    folder: Option<PathBuf>,
    cluster: &str,
) -> Result<(RelaySettings, Secrets), ManifestError> {
    let Parsed {
        document,
        relay,
        documents,
    } = parse(text)?;
    let settings = RelaySettings::from_manifest(owner(&relay, cluster), &relay.spec);
    let settings = settings.map_err(|source| ManifestError::Spec { document, source })?;
    Ok((settings, secrets(&relay, documents, folder)))
}

fn owner(relay: &OutboxRelay, cluster: &str) -> Owner {
    let namespace = relay
        .metadata
        .namespace
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    Owner {
        cluster: cluster.to_owned(),
        namespace,
        name: relay.metadata.name.clone().unwrap_or_default(),
    }
}

fn secrets(relay: &OutboxRelay, documents: EmbeddedData, folder: Option<PathBuf>) -> Secrets {
    let mut sources = relay_projections(&relay.spec);
    let of_the_relay = database_projections(&relay.spec).len();
    sources.extend(
        migration_projections(&relay.spec)
            .into_iter()
            .skip(of_the_relay),
    );
    Secrets::manifest(sources, documents, folder)
}

#[cfg(test)]
mod tests;
