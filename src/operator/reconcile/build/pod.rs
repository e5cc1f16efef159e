//! What relay and migration pods have in common: settings and secrets as files, no rights, the
//! manifest's `template`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapProjection, ConfigMapVolumeSource, Container, KeyToPath,
        PodSecurityContext, PodSpec, ProjectedVolumeSource, ResourceRequirements, SeccompProfile,
        SecretProjection, SecurityContext, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use crate::{
    api::{PodResources, Template},
    operator::reconcile::{build::config_map::SETTINGS, validate::ValidatedRelay},
    settings::{Projection, SecretSource},
};

/// Name of the HTTP port.
pub(super) const HTTP: &str = "http";
/// Path of the relay's program in its image.
pub(super) const PROGRAM: &str = "/usr/local/bin/outbox-relay";
const SETTINGS_DIR: &str = "/etc/outbox-relay";
const SECRETS_DIR: &str = "/var/run/secrets/outbox-relay";
/// Mode of mounted files, readable by any user: image or cluster choose the user of the pod.
const READABLE: i32 = 0o444;

/// Returns the arguments of a command of the relay, with one option of its own.
pub(super) fn arguments(command: &str, option: &str, value: &str) -> Vec<String> {
    [
        command,
        "--settings",
        &format!("{SETTINGS_DIR}/{SETTINGS}"),
        "--secrets",
        SECRETS_DIR,
        option,
        value,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Returns a container that may read its files and use the network, and nothing else.
pub(super) fn container(name: &str, relay: &ValidatedRelay) -> Container {
    let mounts = [
        mount("settings", SETTINGS_DIR),
        mount("secrets", SECRETS_DIR),
    ];
    Container {
        name: name.to_owned(),
        image: Some(relay.image.clone()),
        command: Some(vec![PROGRAM.to_owned()]),
        env: some_list(&relay.template.env),
        env_from: some_list(&relay.template.env_from),
        resources: Some(resources(relay.template.resources.as_ref())),
        security_context: Some(no_privileges()),
        volume_mounts: Some(mounts.into()),
        ..Container::default()
    }
}

fn no_privileges() -> SecurityContext {
    let no_capabilities = Capabilities {
        add: None,
        drop: Some(vec!["ALL".to_owned()]),
    };
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(no_capabilities),
        ..SecurityContext::default()
    }
}

/// Returns a pod with this container. It sets neither user nor group: the image has a numeric user,
/// and OpenShift assigns its own.
pub(super) fn pod(relay: &ValidatedRelay, container: Container, files: &[Projection]) -> PodSpec {
    let template = &relay.template;
    let account = template
        .service_account_name
        .clone()
        .unwrap_or_else(|| relay.identity.relay_name());
    PodSpec {
        containers: vec![container],
        volumes: Some(vec![settings_volume(relay), secrets_volume(files)]),
        service_account_name: Some(account),
        automount_service_account_token: Some(false),
        // Otherwise each Service of the namespace would add environment variables to the pod.
        enable_service_links: Some(false),
        security_context: Some(restricted()),
        node_selector: some_map(&template.node_selector),
        affinity: template.affinity.clone(),
        tolerations: some_list(&template.tolerations),
        priority_class_name: template.priority_class_name.clone(),
        image_pull_secrets: some_list(&template.image_pull_secrets),
        ..PodSpec::default()
    }
}

/// Returns what level "restricted" of the Pod Security Standards requires of a pod.
fn restricted() -> PodSecurityContext {
    let default_profile = SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        localhost_profile: None,
    };
    PodSecurityContext {
        run_as_non_root: Some(true),
        seccomp_profile: Some(default_profile),
        ..PodSecurityContext::default()
    }
}

/// Returns the metadata of a pod: labels and annotations of the manifest, and our own labels.
pub(super) fn pod_meta(template: &Template, own_labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        labels: Some(labels(template, own_labels)),
        annotations: some_map(&template.annotations),
        ..ObjectMeta::default()
    }
}

/// Returns the labels of the manifest with our own, which take precedence.
fn labels(template: &Template, own: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = template.labels.clone();
    all.extend(own);
    all
}

/// Returns the map, or nothing if it is empty: the API server drops empty maps.
fn some_map(map: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then(|| map.clone())
}

fn some_list<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

/// Returns the resources of the manifest, or the default ones. The CPU has no limit by default: a
/// throttled relay is late.
fn resources(wanted: Option<&PodResources>) -> ResourceRequirements {
    let resources = wanted.cloned().unwrap_or_else(default_resources);
    ResourceRequirements {
        requests: quantities(&resources.requests),
        limits: quantities(&resources.limits),
        claims: None,
    }
}

/// Small requests, and a limit of memory. A relay measures out what it reads by this limit, and
/// needs a third of it at most: 77 MiB with 96 rows of 4 MiB, 42 MiB with a row of 300 MB.
fn default_resources() -> PodResources {
    PodResources {
        requests: BTreeMap::from([
            ("cpu".to_owned(), "50m".to_owned()),
            ("memory".to_owned(), "64Mi".to_owned()),
        ]),
        limits: BTreeMap::from([("memory".to_owned(), "256Mi".to_owned())]),
    }
}

fn quantities(texts: &BTreeMap<String, String>) -> Option<BTreeMap<String, Quantity>> {
    let quantity = |(name, text): (String, String)| (name, Quantity(text));
    Some(some_map(texts)?.into_iter().map(quantity).collect())
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn settings_volume(relay: &ValidatedRelay) -> Volume {
    let source = ConfigMapVolumeSource {
        name: relay.config_map.clone(),
        default_mode: Some(READABLE),
        ..ConfigMapVolumeSource::default()
    };
    Volume {
        name: "settings".to_owned(),
        config_map: Some(source),
        ..Volume::default()
    }
}

/// Mounts Secrets and ConfigMaps. All are optional: the program reports which file is missing, and
/// a pod that cannot start could not.
fn secrets_volume(files: &[Projection]) -> Volume {
    let source = ProjectedVolumeSource {
        default_mode: Some(READABLE),
        sources: Some(files.iter().map(projected).collect()),
        default_user: None,
    };
    Volume {
        name: "secrets".to_owned(),
        projected: Some(source),
        ..Volume::default()
    }
}

fn projected(file: &Projection) -> VolumeProjection {
    let path = file.file.path();
    match &file.source {
        SecretSource::Secret { name, key } => VolumeProjection {
            secret: Some(SecretProjection {
                name: name.clone(),
                items: Some(vec![key_to_path(key, path)]),
                optional: Some(true),
            }),
            ..VolumeProjection::default()
        },
        SecretSource::ConfigMap { name, key } => VolumeProjection {
            config_map: Some(ConfigMapProjection {
                name: name.clone(),
                items: Some(vec![key_to_path(key, path)]),
                optional: Some(true),
            }),
            ..VolumeProjection::default()
        },
    }
}

fn key_to_path(key: &str, path: &str) -> KeyToPath {
    KeyToPath {
        key: key.to_owned(),
        path: path.to_owned(),
        ..KeyToPath::default()
    }
}
