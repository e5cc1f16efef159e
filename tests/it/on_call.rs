//! Failures that people on call meet, with the operator as a process of its own and real pods: the
//! status names the cause, and the service heals after what the status asks for. Each test prints a
//! row of the table in docs/troubleshooting.md with both times; waits have a cap.
//!
//! They take longer than 20 s: pods start, the operator reads reports every 15 s, and a changed
//! Secret reaches the files of a pod within 90 s.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota, Service};
use kube::api::DeleteParams;
use outbox_relay::api::OutboxRelay;
use serde_json::{Value, json};

use crate::harness::{
    gate::Gate,
    kafka::{alter_topic, create_topic_with, delete_topic, topic_name},
    kubernetes::{NAME, kubectl},
    on_call::{Incident, RELAY, STATUS_MAX},
    pods,
    postgres::execute,
    rig::rig,
};

/// Prints a row of the table in docs/troubleshooting.md.
fn row(failure: &str, reason: &str, shown: Duration, step: &str, healed: Duration) {
    let (shown, healed) = (shown.as_secs_f64(), healed.as_secs_f64());
    eprintln!("| {failure} | `{reason}` | {shown:.0} s | {step} | {healed:.0} s |");
}

fn pods_address(of: &str) -> std::net::SocketAddr {
    rig(of).parse().expect("an address")
}

/// The state of what a retry interrupts, and since when it is so.
async fn conditions_of_the_migration(service: &Incident) -> Vec<String> {
    let relay: OutboxRelay = service.ns.get(NAME).await;
    let conditions = relay.status.expect("a status").conditions;
    let mut lines = Vec::new();
    for one in conditions {
        if ["Ready", "Stalled", "SchemaReady", "SecretsResolved"].contains(&one.type_.as_str()) {
            let since = one.last_transition_time.0;
            lines.push(format!(
                "{}={} {} {since}",
                one.type_, one.status, one.reason
            ));
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_of_a_migration_is_missing() {
    let service = Incident::new().await;
    let database = &service.database;
    pods::credentials(&service.ns, "relay", &database.relay, database.password()).await;
    service.apply(|_| ()).await;
    let words = ["Key 'username' of Secret 'owner' is missing"];
    let shown = service
        .until_reported("Ready", "False SecretMissing", &words)
        .await;
    let before = conditions_of_the_migration(&service).await;
    service.attempts(4).await;
    assert_eq!(conditions_of_the_migration(&service).await, before);
    pods::credentials(&service.ns, "owner", &database.owner, database.password()).await;
    let started = service
        .until_reported("SchemaReady", "True MigrationSucceeded", &[])
        .await;
    eprintln!("the schema was ready after {started:?}");
    let healed = started + service.heals().await;
    row(
        "the migration's Secret is missing",
        "SecretMissing",
        shown,
        "create it",
        healed,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_has_a_wrong_password() {
    let service = Incident::new().await;
    let database = &service.database;
    pods::credentials(&service.ns, "relay", &database.relay, database.password()).await;
    pods::credentials(&service.ns, "owner", &database.owner, "wrong").await;
    service.apply(|_| ()).await;
    let user = format!("as user '{}'", database.owner);
    let words = [user.as_str(), "correct key 'password' of Secret 'owner'"];
    let shown = service
        .until_reported("Ready", "False AuthenticationFailed", &words)
        .await;
    service.attempts(4).await;
    service
        .replace_secret("owner", &database.owner, database.password())
        .await;
    let started = service
        .until_reported("SchemaReady", "True MigrationSucceeded", &[])
        .await;
    eprintln!("the schema was ready after {started:?}");
    let healed = started + service.heals().await;
    row(
        "the migration's password is wrong",
        "AuthenticationFailed",
        shown,
        "correct the Secret",
        healed,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_cannot_reach_its_database() {
    let service = Incident::new().await;
    pods::good_credentials(&service.ns, &service.database).await;
    let gate = Gate::open_on(&rig("RIG_HOST"), pods_address("RIG_POSTGRES_PODS_15")).await;
    gate.set_open(false);
    let port = gate.port();
    service
        .apply(|relay| {
            relay["spec"]["database"]["port"] = json!(port);
            relay["spec"]["migration"]["database"]["port"] = json!(port);
        })
        .await;
    let address = format!("at '{}:{port}' as user", rig("RIG_HOST"));
    let shown = service
        .until_reported("Ready", "False Unreachable", &[&address])
        .await;
    service.attempts(3).await;
    gate.set_open(true);
    let started = service
        .until_reported("SchemaReady", "True MigrationSucceeded", &[])
        .await;
    eprintln!("the schema was ready after {started:?}");
    let healed = started + service.heals().await;
    row(
        "the migration cannot reach the database",
        "Unreachable",
        shown,
        "make it available",
        healed,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_image_of_a_rollout_cannot_be_pulled() {
    let service = Incident::running(|_| ()).await;
    let image = |image: &str| json!({"spec": {"template": {"image": image}}});
    service
        .ns
        .patch_relay(image("localhost/outbox-relay:absent"))
        .await;
    let words = ["outbox-relay:absent", "the old ones run until"];
    let shown = service
        .until_reported("Ready", "False PodsPending", &words)
        .await;
    assert_eq!(
        service.condition("Available").await.state,
        "True AllRelaysAvailable"
    );
    service.ns.patch_relay(image(pods::image())).await;
    let healed = service.heals().await;
    row(
        "a rollout's image cannot be pulled; old relays run",
        "PodsPending",
        shown,
        "correct the image",
        healed,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_allows_no_further_relay() {
    let service = Incident::running(|_| ()).await;
    let hard = json!({"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}});
    service.ns.create_object::<ResourceQuota>(hard).await;
    service
        .ns
        .patch_relay(json!({"spec": {"replicas": 3}}))
        .await;
    let words = ["being added", "xceeded quota"];
    let shown = service
        .until_reported("Ready", "True PodsRefused", &words)
        .await;
    service
        .ns
        .api::<ResourceQuota>()
        .delete("few", &DeleteParams::default())
        .await
        .expect("deleted");
    let healed = service.heals().await;
    row(
        "a quota allows no further relay; those that run go on",
        "PodsRefused",
        shown,
        "raise the quota",
        healed,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_range_refuses_the_pods_of_a_rollout() {
    let service = Incident::running(|_| ()).await;
    let limits = json!([{"type": "Container", "max": {"memory": "1Gi"},
        "min": {"memory": "256Mi"}, "default": {"memory": "512Mi"}}]);
    service
        .ns
        .create_object::<LimitRange>(
            json!({"metadata": {"name": "range"}, "spec": {"limits": limits}}),
        )
        .await;
    service
        .ns
        .patch_relay(json!({"spec": {"batchSize": 77}}))
        .await;
    let words = ["minimum memory usage per Container"];
    let shown = service
        .until_reported("Ready", "False PodsRefused", &words)
        .await;
    let resources = json!({"requests": {"memory": "256Mi"}, "limits": {"memory": "512Mi"}});
    service
        .ns
        .patch_relay(json!({"spec": {"template": {"resources": resources}}}))
        .await;
    let healed = service.heals().await;
    row(
        "a LimitRange refuses the pods of a rollout; old relays run",
        "PodsRefused",
        shown,
        "set the resources that the message asks for",
        healed,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_relay_is_cut_off_from_its_database() {
    let gate = Gate::open_on(&rig("RIG_HOST"), pods_address("RIG_POSTGRES_PODS_15")).await;
    let port = gate.port();
    let service = Incident::running(|relay| relay["spec"]["database"]["port"] = json!(port)).await;
    service.runs_for_a_while().await;
    gate.set_open(false);
    let address = format!("at '{}:{port}' as user", rig("RIG_HOST"));
    let words = [address.as_str(), "check"];
    let shown = service
        .until_reported("Publishing", "False Unreachable", &words)
        .await;
    gate.set_open(true);
    let healed = service.heals().await;
    row(
        "a relay that has run for a while is cut off from the database",
        "Unreachable",
        shown,
        "make it available",
        healed,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_is_wrong_while_the_old_one_works() {
    let service = Incident::running(|_| ()).await;
    service.runs_for_a_while().await;
    service.set_password("relay", "wrong").await;
    let words = [
        "new secret is not used",
        "correct key 'password' of Secret 'relay'",
    ];
    let shown = service
        .until_reported("Ready", "True AuthenticationFailed", &words)
        .await;
    assert_eq!(
        service.condition("Publishing").await.state,
        "True AuthenticationFailed"
    );
    service
        .set_password("relay", service.database.password())
        .await;
    let healed = service.heals().await;
    row(
        "a new password is wrong; the old one still works",
        "AuthenticationFailed",
        shown,
        "correct the Secret",
        healed,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_too_large_for_its_topic() {
    let service = Incident::running(|_| ()).await;
    service.runs_for_a_while().await;
    alter_topic(&service.topic, "max.message.bytes", "20000").await;
    let large = "insert into outbox.event (aggregate_type, aggregate_id, event_type, payload)
        select 'file', 'f1', 'Uploaded', string_agg(sha256(int4send(n)), '')
        from generate_series(1, 2000) n";
    let mut admin = service.database.as_admin().await;
    execute(&mut admin, large).await;
    let words = [
        "1 key of topic",
        "too large",
        "max.message.bytes",
        "parked retry",
    ];
    let shown = service
        .until_reported("Ready", "True RecordTooLarge", &words)
        .await;
    alter_topic(&service.topic, "max.message.bytes", "1000000").await;
    execute(&mut admin, "delete from outbox.parked_key").await;
    let healed = service.heals().await;
    row(
        "a record is too large for its topic; its key waits",
        "RecordTooLarge",
        shown,
        "raise `max.message.bytes`, then `parked retry`",
        healed,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_topic_does_not_exist() {
    let service = Incident::running(|_| ()).await;
    let missing = topic_name("missing");
    let topics = json!([
        {"name": service.topic, "eventTypes": ["Uploaded"]},
        {"name": missing, "eventTypes": ["Removed"]},
    ]);
    service
        .ns
        .patch_relay(json!({"spec": {"topics": topics}}))
        .await;
    let shown = service
        .until_reported("Ready", "True TopicMissing", &[&missing, "create"])
        .await;
    create_topic_with(&missing, 1, &[]).await;
    let healed = service.heals().await;
    row(
        "a declared topic does not exist",
        "TopicMissing",
        shown,
        "create it",
        healed,
    );
    delete_topic(&missing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_broker_can_be_reached() {
    let service = Incident::running(|_| ()).await;
    let brokers = |servers: &str| {
        let servers: Vec<&str> = servers.split(',').collect();
        json!({"spec": {"kafka": {"bootstrapServers": servers}}})
    };
    let nowhere = format!("{}:1", rig("RIG_HOST"));
    service.ns.patch_relay(brokers(&nowhere)).await;
    let shown = service
        .until_reported("Ready", "True KafkaUnreachable", &["bootstrapServers"])
        .await;
    service
        .ns
        .patch_relay(brokers(&rig("RIG_KAFKA_PODS")))
        .await;
    let healed = service.heals().await;
    row(
        "no broker can be reached",
        "KafkaUnreachable",
        shown,
        "correct `kafka.bootstrapServers`",
        healed,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_node_takes_the_pods() {
    let service = Incident::running(|_| ()).await;
    let selector = |value: Value| json!({"spec": {"template": {"nodeSelector": {"outboxrelay.dev/nowhere": value}}}});
    service.ns.patch_relay(selector(json!("true"))).await;
    let shown = service
        .until_reported("Ready", "False PodsPending", &["Unschedulable", "node"])
        .await;
    service.ns.patch_relay(selector(Value::Null)).await;
    let healed = service.heals().await;
    row(
        "no node takes the pods of a rollout; old relays run",
        "PodsPending",
        shown,
        "correct `template.nodeSelector`",
        healed,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_is_killed_for_its_memory() {
    let service = Incident::running(|_| ()).await;
    let limits = |memory: &str| {
        let resources = json!({"requests": {"memory": "8Mi"}, "limits": {"memory": memory}});
        json!({"spec": {"template": {"resources": resources}}})
    };
    service.ns.patch_relay(limits("8Mi")).await;
    let shown = service
        .until_reported("Ready", "False PodsPending", &["OOMKilled"])
        .await;
    service.ns.patch_relay(limits("256Mi")).await;
    let healed = service.heals().await;
    row(
        "new relays are killed for their memory; old ones run",
        "PodsPending",
        shown,
        "raise the limit",
        healed,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_that_somebody_deleted_are_back_at_once() {
    let service = Incident::running(|_| ()).await;
    let kinds = ["service", "poddisruptionbudget", "serviceaccount"];
    for kind in kinds {
        kubectl(&["delete", kind, RELAY, "-n", &service.ns.name], "");
    }
    let start = Instant::now();
    service.reconcile_now("now").await;
    while kinds.iter().any(|kind| {
        kubectl(&["get", kind, "-n", &service.ns.name, "-o", "name"], "")
            .find(RELAY)
            .is_none()
    }) {
        assert!(start.elapsed() < STATUS_MAX, "a child is not back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    row(
        "Service, account and budget were deleted",
        "-",
        Duration::ZERO,
        "annotation `reconcile-at`",
        start.elapsed(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_taken_by_another_object() {
    let service = Incident::new().await;
    pods::good_credentials(&service.ns, &service.database).await;
    service
        .ns
        .create_object::<Service>(
            json!({"metadata": {"name": RELAY}, "spec": {"ports": [{"port": 80}]}}),
        )
        .await;
    service.apply(|_| ()).await;
    let words = ["Service 'file-service-relay'", "rename"];
    let shown = service
        .until_reported("Stalled", "True NameConflict", &words)
        .await;
    service
        .ns
        .api::<Service>()
        .delete(RELAY, &DeleteParams::default())
        .await
        .expect("deleted");
    let healed = service
        .until_reported("Stalled", "False NotStalled", &[])
        .await;
    row(
        "another object has the name of a child",
        "NameConflict",
        shown,
        "delete or rename it",
        healed,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_outbox_relay_owns_the_schema() {
    let service = Incident::running(|_| ()).await;
    let api = service.ns.api::<OutboxRelay>();
    let first: OutboxRelay = service.ns.get(NAME).await;
    let mut second = first.clone();
    second.metadata = kube::core::ObjectMeta {
        name: Some("second".to_owned()),
        ..kube::core::ObjectMeta::default()
    };
    second.status = None;
    api.create(&kube::api::PostParams::default(), &second)
        .await
        .expect("a valid manifest");
    let words = ["suspend it and set spec.migration.takeOverFrom"];
    let claimed = "False SchemaClaimedByOther";
    let shown = service
        .until_reported_of("second", "Ready", claimed, &words)
        .await;
    let message = service.condition_of("second", "Ready").await.message;
    let after = message.split("OutboxRelay '").nth(1).expect("an owner");
    let owner = after.split('\'').next().expect("an owner");
    service
        .ns
        .patch_relay(json!({"spec": {"suspend": true}}))
        .await;
    service.until_reported("Ready", "True Suspended", &[]).await;
    let patch = kube::api::Patch::Merge(json!({"spec": {"migration": {"takeOverFrom": owner}}}));
    api.patch("second", &kube::api::PatchParams::default(), &patch)
        .await
        .expect("a valid change");
    let healed = service
        .until_reported_of("second", "Ready", "True Ready", &[])
        .await;
    row(
        "another OutboxRelay owns the schema",
        "SchemaClaimedByOther",
        shown,
        "suspend that one, set `migration.takeOverFrom`",
        healed,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_of_the_grants_does_not_exist() {
    let service = Incident::new().await;
    pods::good_credentials(&service.ns, &service.database).await;
    let role = format!("{}_later", service.database.name);
    service
        .apply(|relay| relay["spec"]["migration"]["grants"] = json!({"producers": [role]}))
        .await;
    let shown = service
        .until_reported("Ready", "False RoleMissing", &[&role, "create"])
        .await;
    service.attempts(3).await;
    let mut admin = service.database.as_admin().await;
    execute(&mut admin, &format!("create role {role}")).await;
    let healed = service.heals().await;
    row(
        "a role of `migration.grants` does not exist",
        "RoleMissing",
        shown,
        "create it",
        healed,
    );
    let drop = format!("drop owned by {role}; drop role {role}");
    execute(&mut admin, &drop).await;
}
