//! Failures that people on call meet, with the operator as a process of its own and real pods: the
//! status names the cause, and the service heals after what the status asks for. Each test prints a
//! row of the table in docs/on-call.md with both times; waits have a cap.
//!
//! They take longer than 20 s: pods start, the operator reads reports every 15 s, and a changed
//! Secret reaches the files of a pod within 90 s.

use std::time::{Duration, Instant};

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{LimitRange, ResourceQuota, Secret, Service},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use outbox_relay::api::OutboxRelay;
use serde_json::{Value, json};

use crate::harness::{
    gate::Gate,
    kafka::{alter_topic, create_topic, create_topic_with, delete_topic, topic_name},
    kubernetes::{NAME, Namespace, kubectl},
    operator::OperatorProcess,
    pods,
    postgres::{Database, execute},
    rig::rig,
};

const RELAY: &str = "file-service-relay";
/// Longest wait for a status.
const STATUS_MAX: Duration = Duration::from_secs(240);

/// A service with an outbox, its operator, and what a person does about it.
struct OnCall {
    ns: Namespace,
    database: Database,
    topic: String,
    /// Held: it is killed when it is dropped.
    _operator: OperatorProcess,
}

/// What a condition says: its status and reason, and its message.
struct Seen {
    state: String,
    message: String,
}

impl OnCall {
    /// A service whose OutboxRelay does not exist yet.
    async fn new() -> Self {
        let (ns, database) = (Namespace::create().await, Database::create(15).await);
        let topic = topic_name("on-call");
        create_topic(&topic).await;
        let images = ["--allowed-images", "localhost/*"];
        let operator = OperatorProcess::start_one(&ns.name, "one", &images).await;
        Self {
            ns,
            database,
            topic,
            _operator: operator,
        }
    }

    /// A service whose relay publishes.
    async fn running(change: impl FnOnce(&mut Value)) -> Self {
        let service = Self::new().await;
        pods::good_credentials(&service.ns, &service.database).await;
        service.apply(change).await;
        service.shows("Ready", "True Ready", &[]).await;
        service
    }

    async fn apply(&self, change: impl FnOnce(&mut Value)) {
        self.ns
            .create_relay(|relay| {
                pods::real(relay, &self.database, &self.topic);
                relay["spec"]["replicas"] = json!(1);
                change(relay);
            })
            .await;
    }

    async fn seen(&self, type_: &str) -> Seen {
        let relay: OutboxRelay = self.ns.get(NAME).await;
        let conditions = relay.status.map(|status| status.conditions);
        let found = conditions
            .into_iter()
            .flatten()
            .find(|one| one.type_ == type_);
        found.map_or_else(
            || Seen {
                state: "none".to_owned(),
                message: String::new(),
            },
            |one| Seen {
                state: format!("{} {}", one.status, one.reason),
                message: one.message,
            },
        )
    }

    /// Waits until a condition has this status and reason, and a message with these words. Returns
    /// how long that took.
    async fn shows(&self, type_: &str, state: &str, words: &[&str]) -> Duration {
        let start = Instant::now();
        loop {
            let seen = self.seen(type_).await;
            if seen.state == state && words.iter().all(|word| seen.message.contains(word)) {
                eprintln!("{type_} {}: {}", seen.state, seen.message);
                return start.elapsed();
            }
            assert!(
                start.elapsed() < STATUS_MAX,
                "{type_} is {}, not {state} with {words:?}: {}",
                seen.state,
                seen.message
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What heals the failure: a person carries out the next step.
    async fn heals(&self) -> Duration {
        self.shows("Ready", "True Ready", &[]).await
    }

    /// Waits until the migration has been attempted this often.
    async fn attempts(&self, count: u32) {
        let start = Instant::now();
        loop {
            let jobs = self.ns.api::<Job>().list(&ListParams::default()).await;
            let attempt = jobs.expect("a list").items.into_iter().find_map(|job| {
                job.annotations()
                    .get("outboxrelay.dev/attempt")?
                    .parse()
                    .ok()
            });
            if attempt >= Some(count) {
                return;
            }
            assert!(start.elapsed() < STATUS_MAX, "attempt {attempt:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn replace_secret(&self, name: &str, user: &str, password: &str) {
        let secrets = self.ns.api::<Secret>();
        secrets
            .delete(name, &DeleteParams::default())
            .await
            .expect("deleted");
        pods::credentials(&self.ns, name, user, password).await;
    }

    async fn set_password(&self, name: &str, password: &str) {
        let patch = Patch::Merge(json!({"stringData": {"password": password}}));
        let secrets = self.ns.api::<Secret>();
        let set = secrets.patch(name, &PatchParams::default(), &patch).await;
        set.expect("a Secret");
    }

    async fn reconcile_now(&self, value: &str) {
        let annotations = json!({"outboxrelay.dev/reconcile-at": value});
        self.ns
            .patch_relay(json!({"metadata": {"annotations": annotations}}))
            .await;
    }
}

/// Prints a row of the table in docs/on-call.md.
fn row(failure: &str, reason: &str, shown: Duration, step: &str, healed: Duration) {
    let (shown, healed) = (shown.as_secs_f64(), healed.as_secs_f64());
    println!("| {failure} | `{reason}` | {shown:.0} s | {step} | {healed:.0} s |");
}

fn pods_address(of: &str) -> std::net::SocketAddr {
    rig(of).parse().expect("an address")
}

/// The state of what a retry interrupts, and since when it is so.
async fn conditions_of_the_migration(service: &OnCall) -> Vec<String> {
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
    let service = OnCall::new().await;
    let database = &service.database;
    pods::credentials(&service.ns, "relay", &database.relay, database.password()).await;
    service.apply(|_| ()).await;
    let words = ["Key 'username' of Secret 'owner' is missing"];
    let shown = service.shows("Ready", "False SecretMissing", &words).await;
    let before = conditions_of_the_migration(&service).await;
    service.attempts(4).await;
    assert_eq!(conditions_of_the_migration(&service).await, before);
    pods::credentials(&service.ns, "owner", &database.owner, database.password()).await;
    let started = service
        .shows("SchemaReady", "True MigrationSucceeded", &[])
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
    let service = OnCall::new().await;
    let database = &service.database;
    pods::credentials(&service.ns, "relay", &database.relay, database.password()).await;
    pods::credentials(&service.ns, "owner", &database.owner, "wrong").await;
    service.apply(|_| ()).await;
    let user = format!("as user '{}'", database.owner);
    let words = [user.as_str(), "correct key 'password' of Secret 'owner'"];
    let shown = service
        .shows("Ready", "False AuthenticationFailed", &words)
        .await;
    service.attempts(4).await;
    service
        .replace_secret("owner", &database.owner, database.password())
        .await;
    let started = service
        .shows("SchemaReady", "True MigrationSucceeded", &[])
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
    let service = OnCall::new().await;
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
        .shows("Ready", "False Unreachable", &[&address])
        .await;
    service.attempts(3).await;
    gate.set_open(true);
    let started = service
        .shows("SchemaReady", "True MigrationSucceeded", &[])
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
    let service = OnCall::running(|_| ()).await;
    let image = |image: &str| json!({"spec": {"template": {"image": image}}});
    service
        .ns
        .patch_relay(image("localhost/outbox-relay:absent"))
        .await;
    let words = ["outbox-relay:absent", "the old ones run until"];
    let shown = service.shows("Ready", "False PodsPending", &words).await;
    assert_eq!(
        service.seen("Available").await.state,
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
    let service = OnCall::running(|_| ()).await;
    let hard = json!({"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}});
    service.ns.create_object::<ResourceQuota>(hard).await;
    service
        .ns
        .patch_relay(json!({"spec": {"replicas": 3}}))
        .await;
    let words = ["being added", "xceeded quota"];
    let shown = service.shows("Ready", "True PodsRefused", &words).await;
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
    let service = OnCall::running(|_| ()).await;
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
    let shown = service.shows("Ready", "False PodsRefused", &words).await;
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
    let service = OnCall::running(|relay| relay["spec"]["database"]["port"] = json!(port)).await;
    gate.set_open(false);
    let address = format!("at '{}:{port}' as user", rig("RIG_HOST"));
    let words = [address.as_str(), "check"];
    let shown = service
        .shows("Publishing", "False Unreachable", &words)
        .await;
    gate.set_open(true);
    let healed = service.heals().await;
    row(
        "a running relay is cut off from the database",
        "Unreachable",
        shown,
        "make it available",
        healed,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_is_wrong_while_the_old_one_works() {
    let service = OnCall::running(|_| ()).await;
    service.set_password("relay", "wrong").await;
    let words = [
        "the new secret is not used",
        "correct key 'password' of Secret 'relay'",
    ];
    let shown = service
        .shows("Ready", "True AuthenticationFailed", &words)
        .await;
    assert_eq!(
        service.seen("Publishing").await.state,
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
    let service = OnCall::running(|_| ()).await;
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
    let shown = service.shows("Ready", "True RecordTooLarge", &words).await;
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
    let service = OnCall::running(|_| ()).await;
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
        .shows("Ready", "True TopicMissing", &[&missing, "create"])
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
    let service = OnCall::running(|_| ()).await;
    let brokers = |servers: &str| {
        let servers: Vec<&str> = servers.split(',').collect();
        json!({"spec": {"kafka": {"bootstrapServers": servers}}})
    };
    let nowhere = format!("{}:1", rig("RIG_HOST"));
    service.ns.patch_relay(brokers(&nowhere)).await;
    let shown = service
        .shows("Ready", "True KafkaUnreachable", &["bootstrapServers"])
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
    let service = OnCall::running(|_| ()).await;
    let selector = |value: Value| json!({"spec": {"template": {"nodeSelector": {"outboxrelay.dev/nowhere": value}}}});
    service.ns.patch_relay(selector(json!("true"))).await;
    let shown = service
        .shows("Ready", "False PodsPending", &["Unschedulable", "node"])
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
    let service = OnCall::running(|_| ()).await;
    let limits = |memory: &str| {
        let resources = json!({"requests": {"memory": "8Mi"}, "limits": {"memory": memory}});
        json!({"spec": {"template": {"resources": resources}}})
    };
    service.ns.patch_relay(limits("8Mi")).await;
    let shown = service
        .shows("Ready", "False PodsPending", &["OOMKilled"])
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
    let service = OnCall::running(|_| ()).await;
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
    let service = OnCall::new().await;
    pods::good_credentials(&service.ns, &service.database).await;
    service
        .ns
        .create_object::<Service>(
            json!({"metadata": {"name": RELAY}, "spec": {"ports": [{"port": 80}]}}),
        )
        .await;
    service.apply(|_| ()).await;
    let words = ["Service 'file-service-relay'", "rename"];
    let shown = service.shows("Stalled", "True NameConflict", &words).await;
    service
        .ns
        .api::<Service>()
        .delete(RELAY, &DeleteParams::default())
        .await
        .expect("deleted");
    let healed = service.shows("Stalled", "False NotStalled", &[]).await;
    row(
        "another object has the name of a child",
        "NameConflict",
        shown,
        "delete or rename it",
        healed,
    );
}
