//! Secrets that change during an outage of Kafka: they are used afterwards, or at once if they do
//! not need Kafka. Nothing restarts, nothing is lost, and keys stay in order.

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
    writers::{Steady, verify},
};

const USER: &str = "rotated";
const OLD: &str = "the-old-password";
const NEW: &str = "the-new-password";

/// A relay that logs in with a password at brokers behind a gate, and a service that writes.
struct Setup {
    brokers: Brokers,
    database: Database,
    topic: String,
    relay: Relay,
    service: Steady,
    instance: String,
}

impl Setup {
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
        let mut setup = Self {
            brokers,
            database,
            topic,
            relay,
            service,
            instance: String::new(),
        };
        setup.flows().await;
        setup.instance = setup.relay.report().await.expect("a report").instance;
        setup
    }

    async fn flows(&self) {
        let published = async || {
            self.relay
                .metric("outbox_publish_latency_seconds_count")
                .await
        };
        let before = published().await;
        until("rows to be published", async || {
            (published().await > before + 200.0).then_some(())
        })
        .await;
    }

    /// Disconnects the relay from Kafka, and waits until it reports the problem.
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

    /// Stops the service and verifies the records. Returns the number of duplicates.
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
        verify(
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
async fn a_new_password_for_the_brokers_is_used_once_kafka_is_available_again() {
    let setup = Setup::begin().await;
    setup.lose_kafka().await;
    set_scram_password_at(&setup.brokers.servers(), USER, NEW).await;
    setup.database.write_secret("kafka/password", NEW);
    until("the new secret to wait for Kafka", async || {
        setup
            .has_problem(ProblemClass::KafkaUnreachable, true)
            .await
            .then_some(())
    })
    .await;
    setup.brokers.password_gate.set_open(true);
    setup.flows().await;
    setup.breaker(BreakerState::Closed).await;
    assert!(
        !setup
            .has_problem(ProblemClass::KafkaUnreachable, true)
            .await,
        "the new secret is in use"
    );
    // The producer was replaced during the outage. Records that it had sent may have been written.
    eprintln!("{} duplicates", setup.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_database_password_is_used_while_kafka_is_down() {
    let setup = Setup::begin().await;
    let backends = async || {
        let of_relay = format!(
            "select pid from pg_stat_activity where usename = '{}'",
            setup.database.relay
        );
        values::<i32>(&mut setup.database.as_admin().await, &of_relay).await
    };
    setup.lose_kafka().await;
    let old = backends().await;
    execute(
        &mut setup.database.as_admin().await,
        &format!("alter role {} password '{NEW}'", setup.database.relay),
    )
    .await;
    setup.database.write_secret("database/password", NEW);
    until("new connections only", async || {
        let now = backends().await;
        (!now.is_empty() && now.iter().all(|pid| !old.contains(pid))).then_some(())
    })
    .await;
    setup.breaker(BreakerState::Open).await;
    setup.brokers.password_gate.set_open(true);
    setup.flows().await;
    // The connection was cut. One request may have been written without an answer, and the producer
    // repeats it.
    assert_eq!(
        setup.end().await,
        0,
        "duplicates of a producer that was not replaced"
    );
}
