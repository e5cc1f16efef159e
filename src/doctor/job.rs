//! A Job that runs the doctor where a relay would run: with its Secrets, its ServiceAccount and its
//! labels, before there is a relay. Pure.

use std::collections::BTreeMap;

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{
    api::{OutboxRelay, Template},
    settings::{Projection, SecretSource},
};

/// Path of the program in the image.
const PROGRAM: &str = "/usr/local/bin/outbox-relay";
const MANIFEST_DIR: &str = "/etc/outbox-relay";
const MANIFEST_FILE: &str = "manifest.yaml";
const SECRETS_DIR: &str = "/var/run/secrets/outbox-relay";
/// Time in seconds for which the Job and its log stay.
const TTL_SECONDS: u32 = 3600;
/// Longest run, in seconds.
const DEADLINE_SECONDS: u32 = 900;

/// Builds the ConfigMap with the manifest, which `manifest` is the text of, and the Job. `options`
/// are further arguments of `doctor`.
#[must_use]
pub fn objects(
    relay: &OutboxRelay,
    manifest: &str,
    projections: &[Projection],
    image: &str,
    options: &[String],
) -> [Value; 2] {
    let name = format!("{}-doctor", relay.name_any());
    let labels = labels(relay);
    let meta = json!({"name": name, "namespace": relay.namespace(), "labels": labels});
    let config_map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta,
        "data": {MANIFEST_FILE: manifest},
    });
    let template = &relay.spec.template;
    let spec = json!({
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": TTL_SECONDS,
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "template": {
            "metadata": {"labels": labels, "annotations": template.annotations},
            "spec": pod(template, &name, projections, container(template, image, options)),
        },
    });
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec});
    [config_map, job]
}

/// Labels of a relay's pod, by which NetworkPolicies know it, but for the one by which the operator
/// counts relays.
fn labels(relay: &OutboxRelay) -> BTreeMap<String, String> {
    let mut labels = relay.spec.template.labels.clone();
    let own = [
        ("app.kubernetes.io/name", "outbox-relay".to_owned()),
        (
            "app.kubernetes.io/instance",
            format!("{}-relay", relay.name_any()),
        ),
        ("app.kubernetes.io/component", "doctor".to_owned()),
    ];
    labels.extend(own.map(|(name, value)| (name.to_owned(), value)));
    labels
}

fn container(template: &Template, image: &str, options: &[String]) -> Value {
    let manifest = format!("{MANIFEST_DIR}/{MANIFEST_FILE}");
    let own = ["doctor", "--manifest", &manifest, "--secrets", SECRETS_DIR];
    let own = own.into_iter().map(str::to_owned);
    let arguments: Vec<String> = own.chain(options.iter().cloned()).collect();
    json!({
        "name": "doctor",
        "image": image,
        "command": [PROGRAM],
        "args": arguments,
        "resources": template.resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "manifest", "mountPath": MANIFEST_DIR, "readOnly": true},
            {"name": "secrets", "mountPath": SECRETS_DIR, "readOnly": true},
        ],
    })
}

fn pod(template: &Template, name: &str, projections: &[Projection], container: Value) -> Value {
    let sources: Vec<Value> = projections.iter().map(|one| source(&one.source)).collect();
    json!({
        "restartPolicy": "Never",
        "serviceAccountName": template.service_account_name,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": {
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": template.node_selector,
        "tolerations": template.tolerations,
        "affinity": template.affinity,
        "priorityClassName": template.priority_class_name,
        "imagePullSecrets": template.image_pull_secrets,
        "containers": [container],
        "volumes": [
            {"name": "manifest", "configMap": {"name": name}},
            {"name": "secrets", "projected": {"sources": sources}},
        ],
    })
}

/// A file of the folder of secrets. One that is missing is a finding, and does not keep the pod
/// from starting.
fn source(source: &SecretSource) -> Value {
    let (name, key) = source.name_and_key();
    let kind = match source {
        SecretSource::Secret { .. } => "secret",
        SecretSource::ConfigMap { .. } => "configMap",
    };
    let items = json!([{"key": key, "path": format!("{name}/{key}")}]);
    json!({kind: {"name": name, "items": items, "optional": true}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SecretFile;

    fn relay() -> OutboxRelay {
        serde_json::from_value(json!({
            "apiVersion": "outboxrelay.dev/v1alpha1",
            "kind": "OutboxRelay",
            "metadata": {"name": "file-service", "namespace": "essays"},
            "spec": {
                "database": {"host": "db", "name": "files", "credentialsSecretRef": {"name": "db"}},
                "kafka": {"bootstrapServers": ["kafka:9093"]},
                "topics": [{"name": "files", "eventTypes": ["Uploaded"]}],
                "template": {
                    "labels": {"team": "files"},
                    "serviceAccountName": "files",
                    "nodeSelector": {"disk": "fast"},
                },
            },
        }))
        .expect("a manifest")
    }

    fn built() -> [Value; 2] {
        let projections = [Projection {
            file: SecretFile::DatabasePassword,
            source: SecretSource::Secret {
                name: "db".to_owned(),
                key: "password".to_owned(),
            },
        }];
        let options = ["--pre".to_owned()];
        objects(
            &relay(),
            "text",
            &projections,
            "registry.test/relay:1",
            &options,
        )
    }

    #[test]
    fn the_job_runs_like_a_relay_and_is_counted_as_none() {
        let [config_map, job] = built();
        assert_eq!(config_map["data"]["manifest.yaml"], "text");
        assert_eq!(job["metadata"], config_map["metadata"]);
        let template = &job["spec"]["template"];
        let labels = &template["metadata"]["labels"];
        assert_eq!(labels["team"], "files");
        assert_eq!(labels["app.kubernetes.io/instance"], "file-service-relay");
        assert!(!labels.to_string().contains("outboxrelay.dev"), "{labels}");
        let pod = &template["spec"];
        assert_eq!(pod["serviceAccountName"], "files");
        assert_eq!(pod["nodeSelector"], json!({"disk": "fast"}));
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        let container = &pod["containers"][0];
        assert_eq!(container["image"], "registry.test/relay:1");
        assert_eq!(container["args"][5], "--pre");
    }

    #[test]
    fn secrets_are_files_by_name_and_key_and_may_be_missing() {
        let [_, job] = built();
        let volumes = &job["spec"]["template"]["spec"]["volumes"];
        let source = &volumes[1]["projected"]["sources"][0]["secret"];
        let expected = json!({
            "name": "db",
            "items": [{"key": "password", "path": "db/password"}],
            "optional": true,
        });
        assert_eq!(*source, expected);
    }
}
