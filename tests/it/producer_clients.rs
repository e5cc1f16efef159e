//! The clients of the main producer on real brokers: what librdkafka does to a whole client when
//! one partition has a problem must not reach the others for long, and leaves no gap.

use std::{collections::BTreeSet, time::Duration};

use outbox_relay::settings::{OnPoison, RelaySettings, TopicSettings};
use rdkafka::{
    ClientConfig,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};

use crate::harness::{
    brokers::Brokers,
    kafka::{Record, create_topic_at, read_all_at, topic_name},
    postgres::{Database, execute, value},
    relay::{Relay, until},
    writers::{Steady, verify},
};

/// What the relay logs when it replaces a client that waits for its requests.
const RETIRED: &str = "a client waits for answers to all others";

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

/// Sets how many replicas of a topic must have a record.
async fn set_min_insync(servers: &str, topic: &str, replicas: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .create()
        .expect("a client");
    let change =
        AlterConfig::new(ResourceSpecifier::Topic(topic)).set("min.insync.replicas", replicas);
    let changed = admin
        .alter_configs([&change], &AdminOptions::new())
        .await
        .expect("an answer");
    assert!(changed.iter().all(Result::is_ok), "{changed:?}");
}

async fn wait_until_alone_in_sync(servers: &str, topic: &str) {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .create()
        .expect("a client");
    until("one replica in sync", async || {
        let metadata = client
            .fetch_metadata(Some(topic), Duration::from_secs(5))
            .ok()?;
        let partition = metadata.topics().first()?.partitions().first()?;
        (partition.isr().len() == 1).then_some(())
    })
    .await;
}

/// Waits until the cluster lists a single broker.
async fn wait_until_alone(server: &str) {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", server)
        .create()
        .expect("a client");
    until("one broker", async || {
        let metadata = client.fetch_metadata(None, Duration::from_secs(5)).ok()?;
        (metadata.brokers().len() == 1).then_some(())
    })
    .await;
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

/// Longest pause between two records, in ms of the broker's clock.
fn longest_pause(records: &[Record]) -> i64 {
    let times: Vec<i64> = records
        .iter()
        .filter_map(|record| record.timestamp_ms)
        .collect();
    let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
    pauses.max().unwrap_or_default()
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

/// A broker that rejects a request for a while (`NOT_ENOUGH_REPLICAS`) rejects those behind it as
/// out of order. librdkafka then raises the epoch of the whole client, but only after all of its
/// requests have ended, and one of them is at a broker that hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_client_waits_for_a_broker_that_hangs_its_other_partitions_go_on() {
    let mut brokers = Brokers::start(3).await;
    let servers = brokers.servers();
    let first = servers.split(',').next().expect("three").to_owned();
    let [guarded, hangs, other] = ["guarded", "hangs", "other"].map(topic_name);
    for (topic, replicas) in [
        (&guarded, &[&[1, 2][..]][..]),
        (&hangs, &[&[3][..]]),
        (&other, &[&[1][..]]),
    ] {
        let topic = NewTopic::new(topic, 1, TopicReplication::Variable(replicas))
            .set("message.timestamp.type", "LogAppendTime");
        create_topic_at(&servers, &topic).await;
    }
    let database = Database::create(15).await.migrated().await;
    let settings = settings(&database, &servers, &[&guarded, &hangs, &other]);
    let relay = Relay::start(&database, &settings).await;
    let service = Steady::start(&database, &other, 5);
    insert_large(&database, &guarded, 1).await;
    insert_large(&database, &hangs, 1).await;
    for topic in [&guarded, &hangs, &other] {
        wait_until_published(&relay, topic, 1.0).await;
    }
    brokers.kill(2);
    wait_until_alone_in_sync(&servers, &guarded).await;
    brokers.signal(3, "STOP");
    insert_large(&database, &hangs, 1).await;
    // Before that, a request to change a topic may go to the broker that hangs.
    wait_until_alone(&first).await;
    until("a client that waits for its requests", async || {
        // Several requests of 1 MB each are under way: one is rejected, and the next one is not.
        insert_large(&database, &guarded, 200).await;
        for _ in 0..5 {
            set_min_insync(&first, &guarded, "2").await;
            set_min_insync(&first, &guarded, "1").await;
        }
        relay.log().contains(RETIRED).then_some(())
    })
    .await;
    let before = published(&relay, &other).await;
    wait_until_published(&relay, &other, before + 100.0).await;
    assert_eq!(published(&relay, &hangs).await, 1.0, "its broker hangs");
    brokers.signal(3, "CONT");
    brokers.launch(2);
    let committed = service.stop().await;
    let mut admin = database.as_admin().await;
    until("the outbox to be empty", async || {
        let rows: i64 = value(&mut admin, "select count(*) from outbox.event").await;
        (rows == 0).then_some(())
    })
    .await;
    let others = read(&servers, &other).await;
    eprintln!(
        "longest pause of {} records behind the client that waited: {} ms; repeated: {}",
        others.len(),
        longest_pause(&others),
        verify(&committed, &others)
    );
    let numbers = first_occurrences(&read(&servers, &guarded).await);
    assert!(numbers.is_sorted(), "first occurrences: {numbers:?}");
}
