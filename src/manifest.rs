//! Manifest file -> settings and secrets, to run a relay without Kubernetes. The file is YAML with
//! one `OutboxRelay` document and documents of the `Secret`s and `ConfigMap`s that it refers to.
//! Defaults are those of the CRD; a manifest that an API server would reject is rejected here, too.
//! Reading the file is IO.

mod documents;
mod rules;
mod unknown_fields;

use std::{
    io,
    path::{Path, PathBuf},
};

use kube::ResourceExt;

use crate::{
    api::{OutboxRelay, OutboxRelaySpec},
    secrets::Secrets,
    settings::{
        InvalidSpec, Owner, Projection, RelaySettings, database_projections, migration_projections,
        relay_projections,
    },
};
use documents::{Parsed, parse};

/// Why a manifest cannot be used. The text contains the document, the field and what to write
/// instead, but never a value of a Secret. Documents are counted from 1.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read manifest '{}'", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A document is not YAML; `reason` contains the location.
    #[error("document {document} is not YAML: {reason}")]
    Yaml { document: usize, reason: String },
    /// The `OutboxRelay` has an `apiVersion` that this program does not read.
    #[error(
        "document {document} has apiVersion '{found}': this program reads outboxrelay.dev/v1alpha1"
    )]
    Version { document: usize, found: String },
    /// A field is unknown, missing or cannot be read.
    #[error("document {document} ({kind}): {field}: {reason}")]
    Field {
        document: usize,
        kind: &'static str,
        field: String,
        reason: String,
    },
    /// The file contains no `OutboxRelay`.
    #[error("the file contains no document of kind OutboxRelay: add one")]
    NoRelay,
    /// The file contains more than one `OutboxRelay`.
    #[error(
        "documents {first} and {second} are both of kind OutboxRelay: a process runs only \
         one, so split the file"
    )]
    SeveralRelays { first: usize, second: usize },
    /// The spec is readable, but cannot work.
    #[error("document {document} (OutboxRelay)")]
    Spec {
        document: usize,
        #[source]
        source: InvalidSpec,
    },
}

/// Reads the `OutboxRelay` of a manifest file, and which secrets it refers to.
///
/// # Errors
/// If the file cannot be read, or does not contain exactly one readable `OutboxRelay`.
pub fn load_relay(path: &Path) -> Result<(OutboxRelay, Vec<Projection>), ManifestError> {
    let Parsed { relay, .. } = parse(&read(path)?)?;
    let projections = projections(&relay.spec);
    Ok((relay, projections))
}

fn read(path: &Path) -> Result<String, ManifestError> {
    std::fs::read_to_string(path).map_err(|source| ManifestError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Reads a manifest file. `cluster` is the first part of the owner's name. `folder` contains the
/// secrets that are not in the file, as `<name>/<key>`.
///
/// # Errors
/// If the file cannot be read, or does not contain exactly one usable `OutboxRelay`.
pub fn load(
    path: &Path,
    folder: Option<PathBuf>,
    cluster: &str,
) -> Result<(RelaySettings, Secrets), ManifestError> {
    from_text(&read(path)?, folder, cluster)
}

fn from_text(
    text: &str,
    folder: Option<PathBuf>,
    cluster: &str,
) -> Result<(RelaySettings, Secrets), ManifestError> {
    let Parsed {
        document,
        relay,
        embedded,
        manifest,
    } = parse(text)?;
    let settings = RelaySettings::from_manifest(owner(&relay, cluster), &relay.spec)
        .map_err(|source| ManifestError::Spec { document, source })?;
    check_rules(document, &manifest)?;
    let secrets = Secrets::manifest(projections(&relay.spec), embedded, folder);
    Ok((settings, secrets))
}

/// Checks what only the CRD's schema and its rules express.
fn check_rules(document: usize, manifest: &serde_json::Value) -> Result<(), ManifestError> {
    match rules::first_violation(manifest) {
        Some((field, reason)) => Err(ManifestError::Field {
            document,
            kind: "OutboxRelay",
            field,
            reason,
        }),
        None => Ok(()),
    }
}

fn owner(relay: &OutboxRelay, cluster: &str) -> Owner {
    let namespace = relay.namespace().unwrap_or_else(|| "default".to_owned());
    Owner {
        cluster: cluster.to_owned(),
        namespace,
        name: relay.metadata.name.clone().unwrap_or_default(),
    }
}

/// Secret files of the relay and of the migration, each of them once.
fn projections(spec: &OutboxRelaySpec) -> Vec<Projection> {
    let mut all = relay_projections(spec);
    // Projections of a migration begin with those of the relay's database, which are there already.
    let already_there = database_projections(spec).len();
    all.extend(migration_projections(spec).into_iter().skip(already_there));
    all
}

#[cfg(test)]
mod tests;
