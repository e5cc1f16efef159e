//! The clients of the main producer on real brokers: what librdkafka does to a whole client when
//! one partition has a problem must not reach the others for long, and leaves no gap.

use std::collections::BTreeSet;

use outbox_relay::settings::{OnPoison, RelaySettings, TopicSettings};
use rdkafka::admin::{NewTopic, TopicReplication};

use crate::harness::{
    brokers::Brokers,
    kafka::{Record, create_topic_at, read_all_at, topic_name},
    postgres::{Database, execute, value},
    relay::{Relay, until},
    writers::{Steady, verify},
};

fn settings(database: &Database, servers: &str, topics: &[&str]) -> RelaySettings {
    let declared = topics.iter().map(|topic| TopicSettings {
        name: (*topic).to_owned(),
        event_types: vec![],
        aggregate_types: vec![],
        on_poison: OnPoison::Block,
    });
    let mut settings = database.publishing(declared.collect());
    settings.kafka.bootstrap_servers = servers.split(',').map(str::to_owned).collect();
    settings
}

/// Inserts rows of 100 kB that do not compress, all with the same key.
async fn insert_large(database: &Database, topic: &str, rows: usize) {
    let sql = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
         select 'a', 'key', 'E', '{topic}', convert_to(
             (select string_agg(md5(n::text || m::text || random()::text), '')
              from generate_series(1, 3000) m), 'UTF8')
         from generate_series(1, {rows}) n"
    );
    execute(&mut database.as_admin().await, &sql).await;
}

async fn published(relay: &Relay, topic: &str) -> f64 {
    let metric = format!("outbox_events_published_total{{topic=\"{topic}\"}}");
    relay.metric(&metric).await
}

async fn wait_until_published(relay: &Relay, topic: &str, rows: f64) {
    until(&format!("{rows} rows of {topic}"), async || {
        (published(relay, topic).await >= rows).then_some(())
    })
    .await;
}

async fn read(servers: &str, topic: &str) -> Vec<Record> {
    let (servers, topic) = (servers.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || read_all_at(&servers, &topic))
        .await
        .expect("read")
}

/// Number of each row of a key, in the order of their first records.
fn first_occurrences(records: &[Record]) -> Vec<i64> {
    let mut seen = BTreeSet::new();
    records
        .iter()
        .map(|record| record.headers["outbox_seq"].parse().expect("a number"))
        .filter(|number: &i64| seen.insert(*number))
        .collect()
}

/// A broker answers the requests of a connection one after the other. One that waits for a replica
/// which hangs holds up all behind it, for as long as the producer lets it wait. Afterwards it is
/// rejected as long as replicas are missing, and so are those behind it, as out of order: then
/// librdkafka raises the epoch of the whole client, once all of its requests have ended. One of them
/// is at the broker that hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_hangs_does_not_hold_up_the_partitions_beside_it() {
    let brokers = Brokers::start(2).await;
    let servers = brokers.servers();
    let [guarded, hangs, other] = ["guarded", "hangs", "other"].map(topic_name);
    for (topic, replicas, min_insync) in [
        (&guarded, &[&[1, 2][..]][..], "2"),
        (&hangs, &[&[2][..]], "1"),
        (&other, &[&[1][..]], "1"),
    ] {
        let topic = NewTopic::new(topic, 1, TopicReplication::Variable(replicas))
            .set("min.insync.replicas", min_insync);
        create_topic_at(&servers, &topic).await;
    }
    let database = Database::create(15).await.migrated().await;
    let settings = settings(&database, &servers, &[&guarded, &hangs, &other]);
    let relay = Relay::start(&database, &settings).await;
    let service = Steady::start(&database, &other, 5);
    for topic in [&guarded, &hangs] {
        insert_large(&database, topic, 1).await;
    }
    for topic in [&guarded, &hangs, &other] {
        wait_until_published(&relay, topic, 1.0).await;
    }
    brokers.signal(2, "STOP");
    insert_large(&database, &hangs, 1).await;
    insert_large(&database, &guarded, 30).await;
    let before = published(&relay, &other).await;
    wait_until_published(&relay, &other, before + 2_000.0).await;
    for topic in [&guarded, &hangs] {
        assert_eq!(published(&relay, topic).await, 1.0, "its replica hangs");
    }
    assert!(!relay.log().contains("breaker Open"), "others stood still");
    brokers.signal(2, "CONT");
    let committed = service.stop().await;
    let mut admin = database.as_admin().await;
    until("the outbox to be empty", async || {
        let rows: i64 = value(&mut admin, "select count(*) from outbox.event").await;
        (rows == 0).then_some(())
    })
    .await;
    eprintln!(
        "{} repeated",
        verify(&committed, &read(&servers, &other).await)
    );
    let numbers = first_occurrences(&read(&servers, &guarded).await);
    assert_eq!(numbers.len(), 31);
    assert!(numbers.is_sorted(), "first occurrences: {numbers:?}");
}
