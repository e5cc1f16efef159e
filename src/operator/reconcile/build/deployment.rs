//! The Deployment of the relays. A rollout starts a new pod before it stops an old one, and leaves
//! the old one time to drain.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector,
            PodSpec, PodTemplateSpec, Probe, TopologySpreadConstraint,
        },
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::{
    api::Template,
    operator::{
        identity::{GENERATION, RELAY_CONTAINER, REVISION_HASH, SPEC_HASH, hash8},
        reconcile::{
            build::pod::{HTTP, arguments, container, pod, pod_meta},
            validate::ValidatedRelay,
        },
    },
    report::HTTP_PORT,
    settings::RELAY_ENVIRONMENT,
};

/// Grace period of a pod, in seconds. A relay flushes for at most 20 s, then settles and releases
/// its lanes.
const DRAIN_SECONDS: i64 = 45;

/// Builds the Deployment. It has no `replicas`: they are set apart from it.
pub(super) fn build(relay: &ValidatedRelay) -> Deployment {
    let spec = spec(relay);
    let mut metadata = relay.identity.relay_meta();
    metadata.annotations = Some(annotations(relay, &spec));
    Deployment {
        metadata,
        spec,
        status: None,
    }
}

fn spec(relay: &ValidatedRelay) -> DeploymentSpec {
    DeploymentSpec {
        selector: relay.identity.relay_selector(),
        strategy: Some(surge_first()),
        // Older ReplicaSets are only kept to be read: their ConfigMaps are removed.
        revision_history_limit: Some(2),
        template: template(relay),
        ..DeploymentSpec::default()
    }
}

fn surge_first() -> DeploymentStrategy {
    let one_more = RollingUpdateDeployment {
        max_surge: Some(IntOrString::Int(1)),
        max_unavailable: Some(IntOrString::Int(0)),
    };
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(one_more),
    }
}

fn template(relay: &ValidatedRelay) -> PodTemplateSpec {
    let metadata = pod_meta(&relay.template, relay.identity.relay_labels());
    PodTemplateSpec {
        metadata: Some(metadata),
        spec: Some(relay_pod(relay)),
    }
}

/// Returns what the Deployment is written for.
fn annotations(relay: &ValidatedRelay, spec: &DeploymentSpec) -> BTreeMap<String, String> {
    let generation = relay.identity.generation.to_string();
    BTreeMap::from([
        (REVISION_HASH.to_owned(), revision_hash(relay, spec)),
        (GENERATION.to_owned(), generation),
        (SPEC_HASH.to_owned(), relay.spec_hash.clone()),
    ])
}

/// Hashes everything that replaces pods, and the migration that must run before them.
fn revision_hash(relay: &ValidatedRelay, spec: &DeploymentSpec) -> String {
    let migration = relay.migration.as_ref().map(|target| &target.hash);
    hash8(&serde_json::to_vec(&(spec, migration)).expect("typed objects are JSON"))
}

fn relay_pod(relay: &ValidatedRelay) -> PodSpec {
    PodSpec {
        termination_grace_period_seconds: Some(DRAIN_SECONDS),
        topology_spread_constraints: Some(vec![spread_over_nodes(relay)]),
        ..pod(relay, relay_container(relay), &relay.relay_files)
    }
}

fn spread_over_nodes(relay: &ValidatedRelay) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(relay.identity.relay_selector()),
        ..TopologySpreadConstraint::default()
    }
}

fn relay_container(relay: &ValidatedRelay) -> Container {
    let address = format!("[::]:{HTTP_PORT}");
    Container {
        args: Some(arguments("run", "--listen", &address)),
        env: Some(environment(&relay.template)),
        ports: Some(vec![http_port()]),
        // The liveness probe checks that the loop of the relay runs. An outage of database or Kafka
        // makes a relay unready; a restart would not help.
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            failure_threshold: Some(3),
            ..probe("/healthz")
        }),
        readiness_probe: Some(Probe {
            period_seconds: Some(5),
            failure_threshold: Some(3),
            ..probe("/readyz")
        }),
        ..container(RELAY_CONTAINER, relay)
    }
}

fn environment(template: &Template) -> Vec<EnvVar> {
    let (tunables, huge_pages) = RELAY_ENVIRONMENT;
    let mut all = vec![
        pod_name(),
        EnvVar {
            name: tunables.to_owned(),
            value: Some(huge_pages.to_owned()),
            value_from: None,
        },
    ];
    all.extend(template.env.iter().cloned());
    all
}

fn pod_name() -> EnvVar {
    EnvVar {
        name: "POD_NAME".to_owned(),
        value: None,
        value_from: Some(pod_field("metadata.name")),
    }
}

/// Returns a field of the pod itself, as the source of a variable.
fn pod_field(path: &str) -> EnvVarSource {
    let field = ObjectFieldSelector {
        field_path: path.to_owned(),
        api_version: Some("v1".to_owned()),
    };
    EnvVarSource {
        field_ref: Some(field),
        ..EnvVarSource::default()
    }
}

fn http_port() -> ContainerPort {
    ContainerPort {
        name: Some(HTTP.to_owned()),
        container_port: HTTP_PORT.into(),
        ..ContainerPort::default()
    }
}

fn probe(path: &str) -> Probe {
    let get = HTTPGetAction {
        path: Some(path.to_owned()),
        port: IntOrString::String(HTTP.to_owned()),
        ..HTTPGetAction::default()
    };
    Probe {
        http_get: Some(get),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::OutboxRelay,
        operator::fixtures::{validated, validated_with},
    };

    fn built() -> Value {
        serde_json::to_value(build(&validated())).expect("JSON")
    }

    fn pod_spec() -> Value {
        built()["spec"]["template"]["spec"].clone()
    }

    #[test]
    fn the_relay_is_started_with_its_arguments() {
        let container = &pod_spec()["containers"][0];
        assert_eq!(container["command"], json!(["/usr/local/bin/outbox-relay"]));
        let settings = "/etc/outbox-relay/settings.yaml";
        let secrets = "/var/run/secrets/outbox-relay";
        assert_eq!(
            container["args"],
            json!([
                "run",
                "--settings",
                settings,
                "--secrets",
                secrets,
                "--listen",
                "[::]:9090"
            ])
        );
        // Defaults of the command line in a pod.
        assert_eq!(
            (settings, secrets),
            (crate::settings::POD_SETTINGS, crate::settings::POD_SECRETS)
        );
        assert_eq!(
            container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"],
            "metadata.name"
        );
        assert_eq!(
            container["env"][1],
            json!({"name": "GLIBC_TUNABLES", "value": "glibc.malloc.hugetlb=1"})
        );
        assert_eq!(
            container["ports"],
            json!([{"name": "http", "containerPort": 9090}])
        );
    }

    #[test]
    fn a_pod_passes_the_restricted_standard_and_sets_no_user() {
        let pod = pod_spec();
        assert_eq!(
            pod["securityContext"],
            json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}})
        );
        let security = json!({
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        });
        assert_eq!(pod["containers"][0]["securityContext"], security);
        assert_eq!(pod["automountServiceAccountToken"], false);
    }

    #[test]
    fn a_rollout_never_has_fewer_relays_than_desired() {
        let strategy = json!({
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        });
        assert_eq!(built()["spec"]["strategy"], strategy);
        assert_eq!(pod_spec()["terminationGracePeriodSeconds"], 45);
        assert_eq!(
            pod_spec()["topologySpreadConstraints"][0]["whenUnsatisfiable"],
            "ScheduleAnyway"
        );
    }

    #[test]
    fn a_missing_secret_does_not_keep_a_pod_from_starting() {
        let pod = pod_spec();
        let sources = pod["volumes"][1]["projected"]["sources"]
            .as_array()
            .expect("sources")
            .clone();
        assert_eq!(sources.len(), 4, "{sources:?}");
        for source in sources {
            let (_, inner) = source
                .as_object()
                .and_then(|map| map.iter().next())
                .expect("one kind each");
            assert_eq!(inner["optional"], true);
        }
    }

    #[test]
    fn selectors_use_only_the_label_that_no_manifest_can_set() {
        let relay = validated_with(|r| {
            r.spec.template.labels =
                [("outboxrelay.dev/relay".to_owned(), "other".to_owned())].into();
        });
        let spec = build(&relay).spec;
        assert_eq!(
            spec.selector.match_labels,
            Some(
                [(
                    "outboxrelay.dev/relay".to_owned(),
                    "file-service".to_owned()
                )]
                .into()
            )
        );
        let labels = spec
            .template
            .metadata
            .expect("labels")
            .labels
            .expect("labels");
        assert_eq!(labels["outboxrelay.dev/relay"], "file-service");
    }

    #[test]
    fn other_settings_roll_the_pods() {
        let with = |change: fn(&mut OutboxRelay)| build(&validated_with(change)).spec;
        assert_ne!(build(&validated()).spec, with(|r| r.spec.batch_size = 7));
        assert_ne!(
            build(&validated()).spec,
            with(|r| r.spec.template.image = Some("registry.test/relay:2".to_owned()))
        );
        assert_eq!(build(&validated()).spec, with(|r| r.spec.replicas = 7));
    }

    #[test]
    fn the_template_chooses_account_image_and_place() {
        let relay = validated_with(|r| {
            let template = &mut r.spec.template;
            template.service_account_name = Some("mine".to_owned());
            template.image = Some("registry.test/relay:2".to_owned());
            template.affinity =
                serde_json::from_value(json!({"podAntiAffinity": {}})).expect("an affinity");
        });
        let pod =
            serde_json::to_value(build(&relay)).expect("JSON")["spec"]["template"]["spec"].clone();
        assert_eq!(pod["serviceAccountName"], "mine");
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["containers"][0]["image"], "registry.test/relay:2");
        assert_eq!(pod["affinity"], json!({"podAntiAffinity": {}}));
        assert_eq!(pod_spec()["serviceAccountName"], "file-service-relay");
    }

    #[test]
    fn requests_and_the_limit_of_memory_have_defaults() {
        let resources = pod_spec()["containers"][0]["resources"].clone();
        assert_eq!(
            resources,
            json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}})
        );
    }
}
