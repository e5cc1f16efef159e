//! Brokers that are far away, connections that break, and quotas, on real brokers: none of them is an
//! outage. Nothing is reported that is not so, nothing is published twice, and what is in flight
//! stays bounded.

use std::time::Duration;

use outbox_relay::{
    report::{Problem, ProblemClass, RelayReport},
    settings::{OnPoison, RelaySettings, TopicSettings},
};
use rdkafka::admin::{NewTopic, TopicReplication};
use uuid::Uuid;

use crate::harness::{
    brokers::Brokers,
    kafka::{Record, create_topic_at, read_all_at, set_producer_quota_at, topic_name},
    postgres::{Database, value},
    relay::{Relay, until},
    writers::{Committed, Steady, verify},
};

/// A topic on a broker, and a relay that reaches it through the broker's gate.
struct Setup {
    brokers: Brokers,
    database: Database,
    topics: [String; 2],
    settings: RelaySettings,
}

impl Setup {
    async fn new() -> Self {
        let brokers = Brokers::start(1).await;
        let topics = [topic_name("far"), topic_name("away")];
        for topic in &topics {
            let topic = NewTopic::new(topic, 12, TopicReplication::Fixed(1));
            create_topic_at(&brokers.servers(), &topic).await;
        }
        let database = Database::create(17).await.migrated().await;
        let mut settings = database.publishing(topics.iter().map(|name| declared(name)).collect());
        settings.kafka.bootstrap_servers = vec![brokers.behind_the_gate()];
        Self {
            brokers,
            database,
            topics,
            settings,
        }
    }

    async fn records(&self, topic: &str) -> Vec<Record> {
        let (servers, topic) = (self.brokers.servers(), topic.to_owned());
        tokio::task::spawn_blocking(move || read_all_at(&servers, &topic))
            .await
            .expect("read")
    }

    /// Waits until no row waits. Returns the most bytes that were in flight.
    async fn drained(&self, relay: &Relay) -> f64 {
        let (mut admin, mut most) = (self.database.as_admin().await, 0.0_f64);
        until("the outbox to be empty", async || {
            most = most.max(relay.metric("outbox_in_flight_bytes").await);
            let rows: i64 = value(&mut admin, "select count(*) from outbox.event").await;
            (rows == 0).then_some(())
        })
        .await;
        most
    }
}

fn declared(name: &str) -> TopicSettings {
    TopicSettings {
        name: name.to_owned(),
        event_types: vec![],
        aggregate_types: vec![],
        on_poison: OnPoison::Block,
    }
}

/// Asserts that the relay has reported no problem since its start but of these classes, and that its
/// topics have one replica. Its breaker was always closed, and it has kept its producer.
async fn never_had(relay: &Relay, allowed: &[ProblemClass]) {
    let (metrics, log) = (relay.metrics().await, relay.log());
    let is_allowed = |line: &&str| {
        [ProblemClass::TopicUnderReplicated]
            .iter()
            .chain(allowed)
            .any(|class| line.contains(&format!("\"{class}\"")))
    };
    let errors: Vec<_> = metrics
        .lines()
        .filter(|line| line.starts_with("outbox_relay_errors_total{") && !is_allowed(line))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    for never in ["breaker Slow", "breaker Open", "replaced"] {
        assert!(!log.contains(never), "the log has '{never}'");
    }
}

async fn wait_until_published(relay: &Relay, topic: &str, rows: f64) {
    let name = format!("outbox_events_published_total{{topic=\"{topic}\"}}");
    until(&format!("{rows} records of {topic}"), async || {
        (relay.metric(&name).await >= rows).then_some(())
    })
    .await;
}

async fn far_away(round_trip_ms: u64) {
    let setup = Setup::new().await;
    setup
        .brokers
        .gate
        .set_round_trip(Duration::from_millis(round_trip_ms));
    let [first, second] = &setup.topics;
    let services = [
        Steady::start(&setup.database, first, 20),
        Steady::start(&setup.database, second, 5),
    ];
    let relay = Relay::start(&setup.database, &setup.settings).await;
    wait_until_published(&relay, first, 3_000.0).await;
    wait_until_published(&relay, second, 750.0).await;
    let mut committed = Vec::new();
    for service in services {
        committed.push(service.stop().await);
    }
    let most = setup.drained(&relay).await;
    for (topic, committed) in setup.topics.iter().zip(&committed) {
        assert_eq!(verify(committed, &setup.records(topic).await), 0);
    }
    assert!(most <= f64::from(64 << 20), "{most} bytes were in flight");
    never_had(&relay, &[]).await;
    let round_trip = relay.metric("outbox_kafka_round_trip_seconds").await;
    eprintln!("{round_trip} s are measured");
    assert!(round_trip >= round_trip_ms as f64 / 1_000.0);
    let clients = relay.metric("outbox_kafka_clients").await;
    assert!(clients > 1.0, "{clients} clients: one is too slow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_20_ms_away_are_no_problem() {
    far_away(20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_100_ms_away_are_no_problem() {
    far_away(100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_300_ms_away_are_no_problem() {
    far_away(300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_now_and_then_are_no_problem() {
    let setup = Setup::new().await;
    let gate = &setup.brokers.gate;
    gate.set_round_trip(Duration::from_millis(20));
    let [topic, _] = &setup.topics;
    let service = Steady::start(&setup.database, topic, 20);
    let relay = Relay::start(&setup.database, &setup.settings).await;
    wait_until_published(&relay, topic, 1_000.0).await;
    gate.set_cuts(10);
    wait_until_published(&relay, topic, 9_000.0).await;
    gate.set_cuts(0);
    let committed = service.stop().await;
    setup.drained(&relay).await;
    assert_eq!(verify(&committed, &setup.records(topic).await), 0);
    never_had(&relay, &[ProblemClass::KafkaUnreachable]).await;
}

/// Writes rows of 2,000 random bytes with one statement, which no compression makes smaller.
async fn write_random(database: &Database, topic: &str, rows: usize) -> Committed {
    let rows: Vec<_> = (0..rows)
        .map(|n| (format!("key-{}", n % 100), Uuid::new_v4()))
        .collect();
    let (keys, event_ids): (Vec<_>, Vec<_>) = rows.iter().cloned().unzip();
    sqlx::query(
        "insert into outbox.event (event_id, aggregate_type, aggregate_id, event_type, topic, \
         payload)
         select event_id, 'aggregate', key, 'Counted', $1,
           (select string_agg(decode(md5(event_id::text || i), 'hex'), '')
            from generate_series(1, 125) as i)
         from unnest($2::text[], $3::uuid[]) with ordinality as row (key, event_id, n) order by n",
    )
    .bind(topic)
    .bind(keys)
    .bind(event_ids)
    .execute(&database.producer_pool(1))
    .await
    .expect("rows");
    let mut committed = Committed::new();
    for (key, event_id) in rows {
        committed.entry(key).or_default().push(event_id);
    }
    committed
}

fn throttled(report: &RelayReport) -> Option<&Problem> {
    let mut problems = report.problems.iter();
    problems.find(|problem| problem.class == ProblemClass::KafkaThrottled)
}

/// 3 MB in random rows of 2,000 bytes at 50 kB/s: a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_slows_records_down_and_is_no_outage() {
    let setup = Setup::new().await;
    let servers = setup.brokers.servers();
    set_producer_quota_at(&servers, Some(50_000)).await;
    let [topic, other] = &setup.topics;
    let committed = write_random(&setup.database, topic, 1_500).await;
    let relay = Relay::start(&setup.database, &setup.settings).await;
    let most = setup.drained(&relay).await;
    eprintln!("{most} bytes were in flight at most");
    assert!(most < 1_000_000.0, "{most} bytes were in flight");
    assert_eq!(verify(&committed, &setup.records(topic).await), 0);
    never_had(&relay, &[ProblemClass::KafkaThrottled]).await;
    let report = relay.report().await.expect("it answers");
    let problem = throttled(&report).expect("a quota");
    eprintln!("{}", problem.message);
    assert!(problem.message.contains("client id 'relay-"));
    set_producer_quota_at(&servers, None).await;
    let service = Steady::start(&setup.database, other, 5);
    until("the end of the problem", async || {
        let report = relay.report().await?;
        throttled(&report).is_none().then_some(())
    })
    .await;
    let committed = service.stop().await;
    setup.drained(&relay).await;
    assert_eq!(verify(&committed, &setup.records(other).await), 0);
}
