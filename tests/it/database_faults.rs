//! Faults of the database under load: no row is lost, keys stay in order, the process continues,
//! and the problem is reported with its class until it is resolved automatically.

use outbox_relay::{
    report::ProblemClass,
    settings::{OnPoison, TopicSettings},
};

use crate::{
    harness::{
        kafka::{create_topic, topic_name},
        outbox::wait_until_drained,
        postgres::{Database, execute, value},
        relay::{Relay, until},
        retrying_writers::Writers,
        server::Server,
        writers::verify,
    },
    relay_order::{lanes, read},
};

/// A relay under load.
struct Running {
    database: Database,
    topic: String,
    relay: Relay,
    writers: Writers,
}

impl Running {
    async fn begin(database: Database) -> Self {
        let topic = topic_name("faults");
        create_topic(&topic).await;
        let topics = vec![TopicSettings {
            name: topic.clone(),
            event_types: vec![],
            aggregate_types: vec![],
            on_poison: OnPoison::Block,
        }];
        let relay = Relay::start(&database, &database.publishing(topics)).await;
        lanes(&relay, |lanes| lanes == 64).await;
        let writers = Writers::start(&database, &topic).await;
        Self {
            database,
            topic,
            relay,
            writers,
        }
    }

    /// Waits until rows reach Kafka and no problem of these classes is reported.
    async fn publishes_without(&self, classes: &[ProblemClass]) {
        let published = async || {
            self.relay
                .metric("outbox_publish_latency_seconds_count")
                .await
        };
        let before = published().await;
        until("rows to be published", async || {
            (published().await > before + 100.0).then_some(())
        })
        .await;
        until(&format!("no problem of {classes:?}"), async || {
            self.relay
                .report()
                .await?
                .problems
                .iter()
                .all(|problem| !classes.contains(&problem.class))
                .then_some(())
        })
        .await;
    }

    async fn wait_for_problem(&self, class: ProblemClass) -> String {
        until(&format!("problem {class}"), async || {
            let problems = self.relay.report().await?.problems;
            problems
                .into_iter()
                .find(|problem| problem.class == class)
                .map(|problem| problem.message)
        })
        .await
    }

    /// Stops the writers, and checks that all committed rows arrived in order and that the process
    /// did not restart.
    async fn end(mut self) {
        let committed = self.writers.end(&self.database).await;
        wait_until_drained(&self.database).await;
        verify(&committed, &read(self.topic).await);
        let mut admin = self.database.as_admin().await;
        let rejected = "select (select count(*) from outbox.dead_letter) + (select count(*) \
            from outbox.parked_key)";
        assert_eq!(
            value::<i64>(&mut admin, rejected).await,
            0,
            "rows were rejected because of a fault of the database"
        );
        self.relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_restarted_or_crashes_costs_nothing_but_time() {
    let mut server = Server::create().await;
    let running = Running::begin(Database::create_on(server.admin()).await.migrated().await).await;
    for signal in ["INT", "QUIT"] {
        running
            .publishes_without(&[ProblemClass::Unreachable])
            .await;
        server.down(signal).await;
        running.wait_for_problem(ProblemClass::Unreachable).await;
        server.up().await;
    }
    running
        .publishes_without(&[ProblemClass::Unreachable])
        .await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_for_longer_than_a_lease_costs_nothing_but_time() {
    let mut server = Server::create().await;
    let running = Running::begin(Database::create_on(server.admin()).await.migrated().await).await;
    running.publishes_without(&[]).await;
    let instance = running.relay.report().await.expect("a report").instance;
    server.down("INT").await;
    until("the lease to be lost", async || {
        (running.relay.report().await?.lanes == 0).then_some(())
    })
    .await;
    running.wait_for_problem(ProblemClass::Unreachable).await;
    server.up().await;
    running
        .publishes_without(&[ProblemClass::Unreachable])
        .await;
    assert_ne!(
        running.relay.report().await.expect("a report").instance,
        instance,
        "a lost lease is not continued"
    );
    running.end().await;
}

/// The cause may be a standby, or an administrator who made the database read-only. Old connections
/// keep the setting, so they must be replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_database_is_reported_and_recovery_is_automatic() {
    let running = Running::begin(Database::create(15).await.migrated().await).await;
    let (name, user) = (
        running.database.name.clone(),
        running.database.relay.clone(),
    );
    let mut admin = running.database.as_admin().await;
    running.publishes_without(&[]).await;
    let read_only = format!(
        "alter database {name} set default_transaction_read_only = on;
         select pg_terminate_backend(pid) from pg_stat_activity where usename = '{user}'"
    );
    execute(&mut admin, &read_only).await;
    let message = running
        .wait_for_problem(ProblemClass::DatabaseReadOnly)
        .await;
    assert!(
        message.contains("default_transaction_read_only"),
        "{message}"
    );
    until("the lease to be lost", async || {
        (running.relay.report().await?.lanes == 0).then_some(())
    })
    .await;
    running
        .wait_for_problem(ProblemClass::DatabaseReadOnly)
        .await;
    execute(
        &mut admin,
        &format!("alter database {name} reset default_transaction_read_only"),
    )
    .await;
    running
        .publishes_without(&[ProblemClass::DatabaseReadOnly])
        .await;
    running.end().await;
}

/// Triggers raise the error of a full disk here: filling a disk at a chosen statement needs rights
/// on the machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_reported_and_recovery_is_automatic() {
    let running = Running::begin(Database::create(15).await.migrated().await).await;
    let mut admin = running.database.as_admin().await;
    running.publishes_without(&[]).await;
    execute(
        &mut admin,
        "create function full_disk() returns trigger language plpgsql
           as 'begin raise exception ''could not extend file: No space left on device'' using \
           errcode = ''disk_full''; end';
         create trigger full_disk before delete on outbox.event for each statement execute \
         function full_disk()",
    )
    .await;
    let message = running.wait_for_problem(ProblemClass::DatabaseFull).await;
    assert!(
        message.contains("settle") && message.contains("free some space"),
        "{message}"
    );
    // Then the lease fails, and after it the registration.
    execute(
        &mut admin,
        "create trigger full_disk before insert or update on outbox.relay for \
        each statement execute function full_disk()",
    )
    .await;
    until("the lease to be lost", async || {
        (running.relay.report().await?.lanes == 0).then_some(())
    })
    .await;
    running.wait_for_problem(ProblemClass::DatabaseFull).await;
    execute(&mut admin, "drop function full_disk cascade").await;
    running
        .publishes_without(&[ProblemClass::DatabaseFull])
        .await;
    running.end().await;
}
