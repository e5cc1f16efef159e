//! A service with an outbox on the rig's cluster, with the operator as a process and real pods, as a
//! person on call finds it.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Secret},
    jiff::Timestamp,
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use outbox_relay::api::OutboxRelay;
use serde_json::{Value, json};

use super::{
    kafka::{create_topic, topic_name},
    kubernetes::{NAME, Namespace},
    operator::OperatorProcess,
    pods,
    postgres::Database,
};

/// Name of the relays' Deployment, and of other children.
pub(crate) const RELAY: &str = "file-service-relay";
/// Longest wait for a status.
pub(crate) const STATUS_MAX: Duration = Duration::from_secs(240);

/// A service with an outbox, its operator, and what a person does about it.
pub(crate) struct Incident {
    pub(crate) ns: Namespace,
    pub(crate) database: Database,
    pub(crate) topic: String,
    /// Held: it is killed when it is dropped.
    _operator: OperatorProcess,
}

/// What a condition says: its status and reason, and its message.
pub(crate) struct Condition {
    pub(crate) state: String,
    pub(crate) message: String,
}

impl Incident {
    /// A service whose OutboxRelay does not exist yet.
    pub(crate) async fn new() -> Self {
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
    pub(crate) async fn running(change: impl FnOnce(&mut Value)) -> Self {
        let service = Self::new().await;
        pods::good_credentials(&service.ns, &service.database).await;
        service.apply(change).await;
        service.until_reported("Ready", "True Ready", &[]).await;
        service
    }

    pub(crate) async fn apply(&self, change: impl FnOnce(&mut Value)) {
        self.ns
            .create_relay(|relay| {
                pods::real(relay, &self.database, &self.topic);
                relay["spec"]["replicas"] = json!(1);
                change(relay);
            })
            .await;
    }

    pub(crate) async fn condition(&self, type_: &str) -> Condition {
        self.condition_of(NAME, type_).await
    }

    /// A condition of the OutboxRelay of this name.
    pub(crate) async fn condition_of(&self, name: &str, type_: &str) -> Condition {
        let relay: OutboxRelay = self.ns.get(name).await;
        let conditions = relay.status.map(|status| status.conditions);
        let found = conditions
            .into_iter()
            .flatten()
            .find(|one| one.type_ == type_);
        found.map_or_else(
            || Condition {
                state: "none".to_owned(),
                message: String::new(),
            },
            |one| Condition {
                state: format!("{} {}", one.status, one.reason),
                message: one.message,
            },
        )
    }

    /// Waits until a condition has this status and reason, and a message with these words. Returns
    /// how long that took.
    pub(crate) async fn until_reported(
        &self,
        type_: &str,
        state: &str,
        words: &[&str],
    ) -> Duration {
        self.until_reported_of(NAME, type_, state, words).await
    }

    /// Waits like [`Self::until_reported`] for the OutboxRelay of this name.
    pub(crate) async fn until_reported_of(
        &self,
        name: &str,
        type_: &str,
        state: &str,
        words: &[&str],
    ) -> Duration {
        let start = Instant::now();
        loop {
            let found = self.condition_of(name, type_).await;
            if found.state == state && words.iter().all(|word| found.message.contains(word)) {
                eprintln!("{type_} {}: {}", found.state, found.message);
                return start.elapsed();
            }
            assert!(
                start.elapsed() < STATUS_MAX,
                "{type_} is {}, not {state} with {words:?}: {}",
                found.state,
                found.message
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until relays have run for so long that a problem must last before it shows.
    pub(crate) async fn runs_for_a_while(&self) {
        let start = Instant::now();
        loop {
            let relay: OutboxRelay = self.ns.get(NAME).await;
            let conditions = relay.status.map(|status| status.conditions);
            let mut all = conditions.into_iter().flatten();
            let available = all
                .find(|one| one.type_ == "Available")
                .expect("a condition");
            let since = available.last_transition_time.0;
            if since.duration_until(Timestamp::now()).as_secs() > 31 {
                return;
            }
            assert!(start.elapsed() < STATUS_MAX, "available since {since}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// What heals the failure: a person carries out the next step.
    pub(crate) async fn heals(&self) -> Duration {
        self.until_reported("Ready", "True Ready", &[]).await
    }

    /// Waits until the migration has been attempted this often.
    pub(crate) async fn attempts(&self, count: u32) {
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

    pub(crate) async fn replace_secret(&self, name: &str, user: &str, password: &str) {
        let secrets = self.ns.api::<Secret>();
        secrets
            .delete(name, &DeleteParams::default())
            .await
            .expect("deleted");
        pods::credentials(&self.ns, name, user, password).await;
    }

    pub(crate) async fn set_password(&self, name: &str, password: &str) {
        let patch = Patch::Merge(json!({"stringData": {"password": password}}));
        let secrets = self.ns.api::<Secret>();
        let set = secrets.patch(name, &PatchParams::default(), &patch).await;
        set.expect("a Secret");
    }

    pub(crate) async fn reconcile_now(&self, value: &str) {
        let annotations = json!({"outboxrelay.dev/reconcile-at": value});
        self.ns
            .patch_relay(json!({"metadata": {"annotations": annotations}}))
            .await;
    }
}
