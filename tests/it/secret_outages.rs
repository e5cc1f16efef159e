//! Secrets that change while Kafka is away: they wait for it, or do not need it; nothing restarts,
//! nothing is lost, and keys stay in order.

use outbox_relay::{
    report::{BreakerState, ProblemClass},
    settings::{OnPoison, RelaySettings, SaslMechanism, SaslSettings, TopicSettings},
};
use rdkafka::admin::{NewTopic, TopicReplication};

use crate::harness::{
    brokers::Brokers,
    kafka::{create_topic_at, read_all_at, set_scram_password_at, topic_name},
    postgres::{Database, execute, value, values},
    relay::{Relay, until},
    writers::{Steady, judge},
};

const USER: &str = "rotated";
const OLD: &str = "the-old-password";
const NEW: &str = "the-new-password";

/// A relay that logs in by password at brokers behind a gate, while a service writes.
struct Scene {
    brokers: Brokers,
    database: Database,
    topic: String,
    relay: Relay,
    service: Steady,
    instance: String,
}

impl Scene {
    async fn begin() -> Self {
        let brokers = Brokers::start(1).await;
        let topic = topic_name("rotated");
        create_topic_at(
            &brokers.servers(),
            &NewTopic::new(&topic, 6, TopicReplication::Fixed(1)),
        )
        .await;
        set_scram_password_at(&brokers.servers(), USER, OLD).await;
        let database = Database::create(18).await.migrated().await;
        database.write_secret("kafka/password", OLD);
        let relay = Relay::start(&database, &settings(&database, &brokers, &topic)).await;
        let service = Steady::start(&database, &topic, 20);
        let mut scene = Self {
            brokers,
            database,
            topic,
            relay,
            service,
            instance: String::new(),
        };
        scene.flows().await;
        scene.instance = scene.relay.report().await.expect("a report").instance;
        scene
    }

    async fn flows(&self) {
        let published = async || {
            self.relay
                .metric("outbox_publish_latency_seconds_count")
                .await
        };
        let before = published().await;
        until("rows to flow", async || {
            (published().await > before + 200.0).then_some(())
        })
        .await;
    }

    /// Kafka is away for the relay, and it has noticed.
    async fn lose_kafka(&self) {
        self.brokers.password_gate.set_open(false);
        self.breaker(BreakerState::Open).await;
    }

    async fn breaker(&self, wanted: BreakerState) {
        until(&format!("breaker {wanted:?}"), async || {
            (self.relay.report().await?.breaker?.state == wanted).then_some(())
        })
        .await;
    }

    async fn has_problem(&self, class: ProblemClass, last_good_used: bool) -> bool {
        let report = self.relay.report().await;
        report.is_some_and(|report| {
            report
                .problems
                .iter()
                .any(|one| (one.class, one.last_good_used) == (class, last_good_used))
        })
    }

    /// Returns how many records came twice.
    async fn end(self) -> usize {
        let committed = self.service.stop().await;
        let mut admin = self.database.as_admin().await;
        until("the outbox to be empty", async || {
            (value::<i64>(&mut admin, "select count(*) from outbox.event").await == 0).then_some(())
        })
        .await;
        assert_eq!(
            self.relay.report().await.expect("a report").instance,
            self.instance,
            "it began anew"
        );
        let (servers, topic) = (self.brokers.servers(), self.topic);
        judge(
            &committed,
            &tokio::task::spawn_blocking(move || read_all_at(&servers, &topic))
                .await
                .expect("read"),
        )
    }
}

fn settings(database: &Database, brokers: &Brokers, topic: &str) -> RelaySettings {
    let declared = TopicSettings {
        name: topic.to_owned(),
        event_types: vec![],
        aggregate_types: vec![],
        on_poison: OnPoison::Block,
    };
    let mut settings = database.publishing(vec![declared]);
    settings.kafka.bootstrap_servers = vec![brokers.with_password()];
    settings.kafka.sasl = Some(SaslSettings {
        mechanism: SaslMechanism::ScramSha512,
        username: USER.to_owned(),
    });
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_at_the_brokers_is_taken_when_kafka_is_back_and_rows_flow_again() {
    let scene = Scene::begin().await;
    scene.lose_kafka().await;
    set_scram_password_at(&scene.brokers.servers(), USER, NEW).await;
    scene.database.write_secret("kafka/password", NEW);
    until("the new secret to wait for Kafka", async || {
        scene
            .has_problem(ProblemClass::KafkaUnreachable, true)
            .await
            .then_some(())
    })
    .await;
    scene.brokers.password_gate.set_open(true);
    scene.flows().await;
    scene.breaker(BreakerState::Closed).await;
    assert!(
        !scene
            .has_problem(ProblemClass::KafkaUnreachable, true)
            .await,
        "the new secret is in use"
    );
    // The producer was replaced while Kafka was away: what it had sent may have been written.
    eprintln!("{} duplicates", scene.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_at_the_database_is_taken_while_kafka_is_away() {
    let scene = Scene::begin().await;
    let backends = async || {
        let of_relay = format!(
            "select pid from pg_stat_activity where usename = '{}'",
            scene.database.relay
        );
        values::<i32>(&mut scene.database.as_admin().await, &of_relay).await
    };
    scene.lose_kafka().await;
    let old = backends().await;
    execute(
        &mut scene.database.as_admin().await,
        &format!("alter role {} password '{NEW}'", scene.database.relay),
    )
    .await;
    scene.database.write_secret("database/password", NEW);
    until("new connections only", async || {
        let now = backends().await;
        (!now.is_empty() && now.iter().all(|pid| !old.contains(pid))).then_some(())
    })
    .await;
    scene.breaker(BreakerState::Open).await;
    scene.brokers.password_gate.set_open(true);
    scene.flows().await;
    // The connection was cut: one request may have been written and not been answered, and is
    // repeated by the same producer.
    assert_eq!(
        scene.end().await,
        0,
        "duplicates of a producer that was not replaced"
    );
}
