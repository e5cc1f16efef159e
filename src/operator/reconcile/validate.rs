//! OutboxRelay -> ValidatedRelay: names, settings and hashes, computed once; later steps need no
//! rule of the raw spec. Pure.

use std::collections::BTreeSet;

use k8s_openapi::jiff::SignedDuration;
use serde::Serialize;

use crate::{
    api::{
        MigrationPolicy, OutboxRelay, OutboxRelaySpec, Scaling, Template, TlsMode, parse_duration,
    },
    operator::{
        identity::{Identity, RECONCILE_AT, hash8},
        installation::Installation,
        reconcile::manifest::Manifest,
    },
    report::LANES,
    settings::{
        Endpoint, InvalidSpec, MigrationSettings, Owner, Projection, RelaySettings, SCHEMA_LEVEL,
        SecretSource, TlsSettings, migration_projections, relay_projections,
    },
};

/// Largest number of relays of one OutboxRelay: each needs a lane of its own.
const RELAYS_MAX: i32 = LANES as i32;

/// A relay that can be built.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValidatedRelay {
    pub identity: Identity,
    /// Content of the ConfigMap. Its name has the hash of the content, so an old pod keeps its old
    /// settings.
    pub settings: String,
    pub config_map: String,
    /// Absent with `policy: Never`.
    pub migration: Option<MigrationTarget>,
    pub replicas: DesiredReplicas,
    /// Hash of the spec without the number of replicas.
    pub spec_hash: String,
    pub template: Template,
    /// Image of relays and migration.
    pub image: String,
    pub pod_monitor: bool,
    /// Namespaces that may connect to the relays; absent if all may.
    pub allowed_namespaces: Option<Vec<String>>,
    pub relay_files: Vec<Projection>,
    /// Connections without TLS, for a Warning.
    pub plaintext: Vec<&'static str>,
    /// Connections with TLS to a server that is not verified, for a Warning.
    pub unverified: Vec<&'static str>,
}

/// Number of relays that the manifest asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DesiredReplicas {
    /// No relay: `spec.suspend`.
    Suspended,
    /// A number: `spec.replicas`.
    Fixed(i32),
    /// A number that follows the load: `spec.scaling`.
    Scaled(ScalingPolicy),
}

/// `spec.scaling`, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScalingPolicy {
    pub min: i32,
    pub max: i32,
    pub rows_per_relay: i32,
    pub oldest_age: SignedDuration,
    pub stabilization: SignedDuration,
}

/// Why a manifest cannot be carried out as a whole.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum InvalidManifest {
    /// This version cannot read it; holds the parser's message.
    Unreadable(String),
    Invalid {
        error: Box<ValidationError>,
        /// Set if the manifest asks for no relay: that is carried out whatever else is wrong.
        zero: Option<DesiredReplicas>,
    },
}

/// Why a manifest cannot be carried out before a person changes something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValidationError {
    #[error(transparent)]
    Spec(#[from] InvalidSpec),
    #[error(
        "spec.template.image: '{0}' is not allowed by this installation; use an allowed image, \
         or ask an administrator to add this one to relay.allowedImages of the operator's chart"
    )]
    ImageNotAllowed(String),
}

/// The migration that must have succeeded before relays get this spec.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MigrationTarget {
    pub hash: String,
    pub job: String,
    pub files: Vec<Projection>,
    /// Value of annotation `reconcile-at`, which ends a back-off.
    pub reconcile_at: Option<String>,
}

/// Checks a manifest that may be of any kind.
pub(crate) fn validate(
    manifest: &Manifest,
    installation: &Installation,
) -> Result<ValidatedRelay, InvalidManifest> {
    match &manifest.content {
        Ok(relay) => {
            validate_relay(relay, installation).map_err(|error| InvalidManifest::Invalid {
                error: Box::new(error),
                zero: zero_replicas(&relay.spec),
            })
        }
        Err(error) => Err(InvalidManifest::Unreadable(error.clone())),
    }
}

/// Checks what the API server's schema cannot, and names all children.
///
/// # Errors
/// When the spec cannot work, or its image is not allowed.
pub(crate) fn validate_relay(
    relay: &OutboxRelay,
    installation: &Installation,
) -> Result<ValidatedRelay, ValidationError> {
    let spec = &relay.spec;
    let identity = Identity::of(&relay.metadata);
    let settings = RelaySettings::from_manifest(owner(&identity, installation), spec)?;
    let migration = migration_target(relay, &identity, &settings);
    let settings = serde_yaml::to_string(&settings)
        .expect("settings are maps with text keys, which YAML can always hold");
    Ok(ValidatedRelay {
        config_map: identity.config_map_name(&hash8(settings.as_bytes())),
        migration,
        settings,
        replicas: desired_replicas(spec)?,
        spec_hash: spec_hash(spec),
        image: image(spec, installation)?,
        template: spec.template.clone(),
        pod_monitor: spec.monitoring.pod_monitor && !installation.relays_monitored,
        allowed_namespaces: allowed_namespaces(spec, installation),
        relay_files: relay_projections(spec),
        plaintext: sides_with(TlsMode::Disable, spec),
        unverified: sides_with(TlsMode::Require, spec),
        identity,
    })
}

fn owner(identity: &Identity, installation: &Installation) -> Owner {
    Owner {
        cluster: installation.cluster_name.clone(),
        namespace: identity.namespace.clone(),
        name: identity.name.clone(),
    }
}

fn spec_hash(spec: &OutboxRelaySpec) -> String {
    let spec = OutboxRelaySpec {
        replicas: 0,
        scaling: None,
        suspend: false,
        ..spec.clone()
    };
    hash8(&serde_json::to_vec(&spec).expect("a spec is JSON"))
}

/// Returns what asks for no relay: `suspend` and `replicas: 0` are carried out even if other
/// parts of the spec are invalid.
pub(crate) fn zero_replicas(spec: &OutboxRelaySpec) -> Option<DesiredReplicas> {
    desired_replicas(spec).ok().filter(|replicas| {
        matches!(
            replicas,
            DesiredReplicas::Suspended | DesiredReplicas::Fixed(0)
        )
    })
}

fn desired_replicas(spec: &OutboxRelaySpec) -> Result<DesiredReplicas, InvalidSpec> {
    Ok(match &spec.scaling {
        _ if spec.suspend => DesiredReplicas::Suspended,
        Some(scaling) => DesiredReplicas::Scaled(policy(scaling)?),
        None => DesiredReplicas::Fixed(spec.replicas),
    })
}

/// Checks the rules of the CRD again: a maximum or a target of 0 would scale without limit.
fn policy(scaling: &Scaling) -> Result<ScalingPolicy, InvalidSpec> {
    let age = duration("spec.scaling.targetOldestAge", &scaling.target_oldest_age)?;
    let bounds = 1..=scaling.max_replicas;
    if !bounds.contains(&scaling.min_replicas)
        || scaling.max_replicas > RELAYS_MAX
        || scaling.target_backlog_per_replica < 1
        || age < SignedDuration::from_secs(1)
    {
        return Err(InvalidSpec::Scaling);
    }
    Ok(ScalingPolicy {
        min: scaling.min_replicas,
        max: scaling.max_replicas,
        rows_per_relay: scaling.target_backlog_per_replica,
        oldest_age: age,
        stabilization: duration(
            "spec.scaling.scaleDownStabilization",
            &scaling.scale_down_stabilization,
        )?,
    })
}

fn duration(field: &'static str, text: &str) -> Result<SignedDuration, InvalidSpec> {
    let parsed = parse_duration(text).map_err(|error| InvalidSpec::Duration { field, error })?;
    Ok(SignedDuration::try_from(parsed).unwrap_or(SignedDuration::MAX))
}

fn image(spec: &OutboxRelaySpec, installation: &Installation) -> Result<String, ValidationError> {
    match &spec.template.image {
        None => Ok(installation.relay_image.clone()),
        Some(image) if installation.allows(image) => Ok(image.clone()),
        Some(image) => Err(ValidationError::ImageNotAllowed(image.clone())),
    }
}

fn allowed_namespaces(spec: &OutboxRelaySpec, installation: &Installation) -> Option<Vec<String>> {
    let is_restricted = spec.network_policy.enabled;
    is_restricted.then(|| client_namespaces(installation))
}

/// Returns the namespaces of the operator and of the Prometheus server, each once.
fn client_namespaces(installation: &Installation) -> Vec<String> {
    let both = installation
        .namespace
        .iter()
        .chain(&installation.monitoring_namespace);
    both.cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

fn migration_target(
    relay: &OutboxRelay,
    identity: &Identity,
    settings: &RelaySettings,
) -> Option<MigrationTarget> {
    if settings.migration.policy == MigrationPolicy::Never {
        return None;
    }
    let files = migration_projections(&relay.spec);
    let hash = migration_hash(settings, &files);
    let annotations = relay.metadata.annotations.as_ref();
    Some(MigrationTarget {
        job: identity.migration_job_name(&hash),
        hash,
        files,
        reconcile_at: annotations.and_then(|all| all.get(RECONCILE_AT).cloned()),
    })
}

/// Hashes what a migration depends on. Neither the image nor the version of the operator is
/// covered: an upgrade without a new schema runs no migration.
fn migration_hash(settings: &RelaySettings, files: &[Projection]) -> String {
    let database = &settings.database;
    let covered = CoveredByMigration {
        level: SCHEMA_LEVEL,
        owner: &settings.owner,
        endpoint: &database.endpoint,
        tls: &database.tls,
        schema: database.schema.as_str(),
        migration: &settings.migration,
        references: files.iter().map(reference).collect(),
    };
    hash8(&serde_json::to_vec(&covered).expect("plain data is JSON"))
}

/// What a migration depends on. Names and order of the fields are part of the hash.
#[derive(Serialize)]
struct CoveredByMigration<'a> {
    level: i64,
    owner: &'a Owner,
    endpoint: &'a Endpoint,
    tls: &'a TlsSettings,
    schema: &'a str,
    migration: &'a MigrationSettings,
    references: Vec<[&'a str; 4]>,
}

fn reference(projection: &Projection) -> [&str; 4] {
    match &projection.source {
        SecretSource::Secret { name, key } => [projection.file.path(), "Secret", name, key],
        SecretSource::ConfigMap { name, key } => [projection.file.path(), "ConfigMap", name, key],
    }
}

/// Connections whose `tls.mode` is this one.
fn sides_with(wanted: TlsMode, spec: &OutboxRelaySpec) -> Vec<&'static str> {
    let own = spec.migration.database.as_ref();
    let sides = [
        ("spec.database", spec.database.tls.mode),
        (
            "spec.migration.database",
            own.map_or(TlsMode::VerifyFull, |database| database.tls.mode),
        ),
        ("spec.kafka", spec.kafka.tls.mode),
    ];
    sides
        .into_iter()
        .filter(|(_, mode)| *mode == wanted)
        .map(|(side, _)| side)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::Tls,
        operator::fixtures::{installation, relay, relay_with},
    };

    fn hash_after(change: impl FnOnce(&mut OutboxRelay)) -> String {
        validate_relay(&relay_with(change), &installation())
            .expect("a valid change")
            .migration
            .expect("policy Apply")
            .hash
    }

    #[test]
    fn the_migration_runs_again_for_another_target_grant_or_credential_but_for_nothing_else() {
        let before = hash_after(|_| ());
        assert_ne!(
            before,
            hash_after(|r| r.spec.database.host = Some("other".to_owned()))
        );
        assert_ne!(
            before,
            hash_after(|r| r.spec.migration.policy = MigrationPolicy::Verify)
        );
        assert_ne!(
            before,
            hash_after(|r| r.spec.migration.grants.producers.push("writer".to_owned()))
        );
        assert_ne!(
            before,
            hash_after(|r| r
                .spec
                .database
                .credentials_secret_ref
                .as_mut()
                .expect("fixture")
                .name = "new".to_owned())
        );
        assert_eq!(before, hash_after(|r| r.spec.replicas = 7));
        assert_eq!(before, hash_after(|r| r.spec.database.max_connections = 8));
        assert_eq!(
            before,
            hash_after(|r| r.spec.kafka.bootstrap_servers.push("b:9092".to_owned()))
        );
    }

    #[test]
    fn other_settings_get_another_config_map_and_the_same_settings_the_same() {
        let name = |r: &OutboxRelay| {
            validate_relay(r, &installation())
                .expect("valid")
                .config_map
        };
        assert_eq!(name(&relay()), name(&relay_with(|r| r.spec.replicas = 9)));
        assert_ne!(name(&relay()), name(&relay_with(|r| r.spec.batch_size = 9)));
    }

    #[test]
    fn policy_off_has_no_migration() {
        let off = relay_with(|r| r.spec.migration.policy = MigrationPolicy::Never);
        assert_eq!(
            validate_relay(&off, &installation())
                .expect("valid")
                .migration,
            None
        );
    }

    #[test]
    fn the_number_of_relays_has_one_of_three_sources() {
        let count = |change: fn(&mut OutboxRelay)| {
            validate_relay(&relay_with(change), &installation()).map(|valid| valid.replicas)
        };
        assert_eq!(
            count(|r| r.spec.replicas = 3),
            Ok(DesiredReplicas::Fixed(3))
        );
        let scaled =
            count(|r| r.spec.scaling = serde_yaml::from_str("maxReplicas: 4").ok()).expect("valid");
        assert!(
            matches!(
                scaled,
                DesiredReplicas::Scaled(ScalingPolicy {
                    min: 1,
                    max: 4,
                    rows_per_relay: 10_000,
                    ..
                })
            ),
            "{scaled:?}"
        );
        let suspended =
            count(|r| (r.spec.scaling, r.spec.suspend) = (serde_yaml::from_str("{}").ok(), true));
        assert_eq!(suspended, Ok(DesiredReplicas::Suspended));
        for wrong in [
            "minReplicas: 0",
            "minReplicas: 9",
            "maxReplicas: 65",
            "targetBacklogPerReplica: 0",
            "targetOldestAge: 0s",
        ] {
            let scaling = serde_yaml::from_str(wrong).expect("a form that is read");
            let refused = validate_relay(
                &relay_with(|r| r.spec.scaling = Some(scaling)),
                &installation(),
            );
            assert_eq!(
                refused,
                Err(ValidationError::Spec(InvalidSpec::Scaling)),
                "{wrong}"
            );
        }
    }

    #[test]
    fn zero_replicas_are_read_whatever_else_is_wrong_with_the_manifest() {
        let zero = |change: fn(&mut OutboxRelay)| {
            let broken = relay_with(|r| {
                r.spec.topics.clear();
                r.spec.scaling = serde_yaml::from_str("maxReplicas: 65").ok();
                change(r);
            });
            assert!(validate_relay(&broken, &installation()).is_err());
            zero_replicas(&broken.spec)
        };
        assert_eq!(zero(|_| ()), None);
        assert_eq!(
            zero(|r| r.spec.suspend = true),
            Some(DesiredReplicas::Suspended)
        );
        assert_eq!(
            zero(|r| (r.spec.scaling, r.spec.replicas) = (None, 0)),
            Some(DesiredReplicas::Fixed(0))
        );
        assert_eq!(
            zero(|r| (r.spec.scaling, r.spec.replicas) = (None, 1)),
            None
        );
    }

    #[test]
    fn plaintext_and_unverified_servers_are_found_on_each_side() {
        let both = ["spec.database", "spec.kafka"];
        for (mode, plaintext, unverified) in [
            (TlsMode::Disable, &both[..], &[][..]),
            (TlsMode::Require, &[], &both),
            (TlsMode::VerifyCa, &[], &[]),
        ] {
            let relay = relay_with(|r| {
                r.spec.database.tls = Tls {
                    mode,
                    ..Tls::default()
                };
                r.spec.kafka.tls.mode = mode;
            });
            let valid = validate_relay(&relay, &installation()).expect("valid");
            assert_eq!(
                (&valid.plaintext[..], &valid.unverified[..]),
                (plaintext, unverified)
            );
        }
    }

    #[test]
    fn an_invalid_spec_is_reported_with_its_field() {
        let refused = validate_relay(&relay_with(|r| r.spec.topics.clear()), &installation())
            .expect_err("no topics");
        assert!(refused.to_string().starts_with("spec.topics"), "{refused}");
    }

    #[test]
    fn an_image_of_another_registry_is_not_run() {
        let with = |image: &str| {
            validate_relay(
                &relay_with(|r| r.spec.template.image = Some(image.to_owned())),
                &installation(),
            )
        };
        assert_eq!(
            with("registry.test/relay:2").expect("allowed").image,
            "registry.test/relay:2"
        );
        assert_eq!(
            with("evil.test/relay:2"),
            Err(ValidationError::ImageNotAllowed(
                "evil.test/relay:2".to_owned()
            ))
        );
        assert_eq!(
            validate_relay(&relay(), &installation())
                .expect("valid")
                .image,
            "relay:1"
        );
    }

    #[test]
    fn relays_that_are_scraped_already_get_no_monitor_of_their_own() {
        let requested = relay_with(|r| r.spec.monitoring.pod_monitor = true);
        let of = |relays_monitored| {
            validate_relay(
                &requested,
                &Installation {
                    relays_monitored,
                    ..installation()
                },
            )
            .expect("valid")
            .pod_monitor
        };
        assert_eq!((of(false), of(true)), (true, false));
    }

    #[test]
    fn only_the_operators_and_the_monitoring_namespace_are_admitted() {
        let enabled = relay_with(|r| r.spec.network_policy.enabled = true);
        assert_eq!(
            validate_relay(&relay(), &installation())
                .expect("valid")
                .allowed_namespaces,
            None
        );
        let both = Some(vec!["monitoring".to_owned(), "outbox-system".to_owned()]);
        assert_eq!(
            validate_relay(&enabled, &installation())
                .expect("valid")
                .allowed_namespaces,
            both
        );
    }
}
