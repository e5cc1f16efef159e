//! One attempt of a migration. The operator itself counts attempts and pauses between them: a Job's
//! own retries would hide each reason.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::{
            Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern,
            PodFailurePolicyRule,
        },
        core::v1::{Container, PodSpec, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::operator::{
    identity::{ATTEMPT, Identity, MIGRATION_CONTAINER, RECONCILE_AT, REVISION_HASH, hash8},
    reconcile::{
        build::pod::{arguments, container, pod, pod_meta},
        validate::{MigrationTarget, ValidatedRelay},
    },
};

/// File whose content the kubelet copies into the status of the pod.
const TERMINATION_MESSAGE: &str = "/dev/termination-log";
/// Longest run of one attempt, in seconds.
const DEADLINE_SECONDS: i64 = 600;

/// Builds the Job of the first attempt.
pub(super) fn build(relay: &ValidatedRelay, target: &MigrationTarget) -> Job {
    let template = template(relay, target);
    Job {
        metadata: metadata(&relay.identity, target, &template),
        spec: Some(one_attempt(template)),
        status: None,
    }
}

fn metadata(
    identity: &Identity,
    target: &MigrationTarget,
    template: &PodTemplateSpec,
) -> ObjectMeta {
    ObjectMeta {
        annotations: Some(annotations(target, template)),
        ..identity.child_meta(target.job.clone(), identity.migration_labels())
    }
}

fn one_attempt(template: PodTemplateSpec) -> JobSpec {
    JobSpec {
        backoff_limit: Some(0),
        active_deadline_seconds: Some(DEADLINE_SECONDS),
        pod_failure_policy: Some(ignore_evictions()),
        template,
        ..JobSpec::default()
    }
}

fn template(relay: &ValidatedRelay, target: &MigrationTarget) -> PodTemplateSpec {
    let metadata = pod_meta(&relay.template, relay.identity.migration_labels());
    PodTemplateSpec {
        metadata: Some(metadata),
        spec: Some(migration_pod(relay, target)),
    }
}

fn annotations(target: &MigrationTarget, template: &PodTemplateSpec) -> BTreeMap<String, String> {
    let revision_hash = hash8(&serde_json::to_vec(template).expect("typed objects are JSON"));
    let mut all = BTreeMap::from([
        (ATTEMPT.to_owned(), "1".to_owned()),
        (REVISION_HASH.to_owned(), revision_hash),
    ]);
    all.extend(
        target
            .reconcile_at
            .clone()
            .map(|reconcile_at| (RECONCILE_AT.to_owned(), reconcile_at)),
    );
    all
}

/// Ignores evictions: a drained node is no failure of the migration.
fn ignore_evictions() -> PodFailurePolicy {
    let pattern = PodFailurePolicyOnPodConditionsPattern {
        type_: "DisruptionTarget".to_owned(),
        status: Some("True".to_owned()),
    };
    let rule = PodFailurePolicyRule {
        action: "Ignore".to_owned(),
        on_pod_conditions: Some(vec![pattern]),
        on_exit_codes: None,
    };
    PodFailurePolicy { rules: vec![rule] }
}

fn migration_pod(relay: &ValidatedRelay, target: &MigrationTarget) -> PodSpec {
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        ..pod(relay, migration_container(relay), &target.files)
    }
}

fn migration_container(relay: &ValidatedRelay) -> Container {
    Container {
        args: Some(arguments("migrate", "--result", TERMINATION_MESSAGE)),
        termination_message_path: Some(TERMINATION_MESSAGE.to_owned()),
        ..container(MIGRATION_CONTAINER, relay)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::operator::fixtures::{validated, validated_with};

    fn built(relay: &ValidatedRelay) -> Value {
        let target = relay.migration.as_ref().expect("policy Apply");
        serde_json::to_value(build(relay, target)).expect("JSON")
    }

    #[test]
    fn one_job_is_one_attempt() {
        let job = built(&validated());
        assert_eq!(job["spec"]["backoffLimit"], 0);
        assert_eq!(job["spec"]["activeDeadlineSeconds"], 600);
        assert!(
            job["spec"].get("ttlSecondsAfterFinished").is_none(),
            "a Job that succeeded is the record of it"
        );
        assert_eq!(job["spec"]["template"]["spec"]["restartPolicy"], "Never");
        assert_eq!(
            job["metadata"]["annotations"]["outboxrelay.dev/attempt"],
            "1"
        );
        let rules = json!([{
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        }]);
        assert_eq!(job["spec"]["podFailurePolicy"]["rules"], rules);
    }

    #[test]
    fn the_result_comes_back_as_the_termination_message() {
        let container = built(&validated())["spec"]["template"]["spec"]["containers"][0].clone();
        let settings = "/etc/outbox-relay/settings.yaml";
        let secrets = "/var/run/secrets/outbox-relay";
        assert_eq!(
            container["args"],
            json!([
                "migrate",
                "--settings",
                settings,
                "--secrets",
                secrets,
                "--result",
                "/dev/termination-log"
            ])
        );
        assert_eq!(container["terminationMessagePath"], "/dev/termination-log");
    }

    #[test]
    fn the_template_of_the_manifest_applies_to_the_migration_too() {
        let relay = validated_with(|r| {
            r.spec.template.node_selector = [("disk".to_owned(), "fast".to_owned())].into();
        });
        let pod = built(&relay)["spec"]["template"]["spec"].clone();
        assert_eq!(pod["nodeSelector"], json!({"disk": "fast"}));
    }

    #[test]
    fn variables_of_the_manifest_are_those_of_migrations_and_relays() {
        let relay = validated_with(|r| {
            r.spec.template.env =
                serde_json::from_value(json!([{"name": "RUST_LOG", "value": "debug"}]))
                    .expect("variables");
            r.spec.template.env_from =
                serde_json::from_value(json!([{"configMapRef": {"name": "shared"}}]))
                    .expect("sources");
        });
        let deployment = serde_json::to_value(super::super::deployment::build(&relay));
        let deployment = deployment.expect("JSON");
        for (object, own) in [(built(&relay), 0), (deployment, 2)] {
            let container = &object["spec"]["template"]["spec"]["containers"][0];
            let variables = container["env"].as_array().expect("variables");
            assert_eq!(variables.len(), own + 1);
            assert_eq!(
                variables[own],
                json!({"name": "RUST_LOG", "value": "debug"})
            );
            assert_eq!(
                container["envFrom"],
                json!([{"configMapRef": {"name": "shared"}}])
            );
        }
    }

    #[test]
    fn the_revision_hash_of_a_job_follows_its_pods() {
        let revision_hash = |relay: &ValidatedRelay| {
            let job = build(relay, relay.migration.as_ref().expect("policy Apply"));
            job.metadata
                .annotations
                .expect("annotations")
                .remove(REVISION_HASH)
                .expect("a form")
        };
        let image =
            validated_with(|r| r.spec.template.image = Some("registry.test/relay:2".to_owned()));
        assert_ne!(revision_hash(&validated()), revision_hash(&image));
    }

    #[test]
    fn a_migration_pod_gets_no_kafka_password() {
        let volumes = built(&validated())["spec"]["template"]["spec"]["volumes"].to_string();
        assert!(
            volumes.contains("database/password") && !volumes.contains("kafka/"),
            "{volumes}"
        );
    }
}
