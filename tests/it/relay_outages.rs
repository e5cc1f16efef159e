//! Contract B on real servers: an outage of Kafka, of a partition or of one relay's connection to
//! Kafka costs nothing but time, and only the affected rows wait.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use outbox_relay::{
    report::{BreakerState, ProblemClass, RelayReport},
    settings::RelaySettings,
};
use rdkafka::admin::{NewTopic, TopicReplication};

use crate::harness::{
    brokers::Brokers,
    kafka::{KafkaVersion, Record, create_topic_at, read_all_at, topic_name},
    outbox::{topic, wait_until_drained},
    postgres::{Database, execute, value},
    relay::{Relay, until},
    writers::{Load, Steady, verify, write},
};

async fn lanes(relay: &Relay, expected: impl Fn(u32) -> bool) {
    until("the lanes", async || {
        relay.report().await.filter(|report| expected(report.lanes))
    })
    .await;
}

async fn breaker(relay: &Relay, expected: BreakerState) -> RelayReport {
    let is = |report: &RelayReport| {
        report
            .breaker
            .as_ref()
            .is_some_and(|breaker| breaker.state == expected)
    };
    let report = until(&format!("breaker {expected:?}"), async || {
        relay.report().await.filter(is)
    })
    .await;
    for state in BreakerState::ALL {
        let metric = relay
            .metric(&format!(
                "outbox_breaker_state{{state=\"{}\"}}",
                state.name()
            ))
            .await;
        assert!(
            metric == f64::from(u8::from(state == expected)),
            "{state:?} is {metric} while the report says {expected:?}"
        );
    }
    report
}

async fn problem(relay: &Relay, class: ProblemClass) {
    until(&format!("problem {class}"), async || {
        relay
            .report()
            .await?
            .problems
            .into_iter()
            .find(|problem| problem.class == class)
    })
    .await;
}

async fn published(relay: &Relay, topic: &str) -> f64 {
    relay
        .metric(&format!(
            "outbox_events_published_total{{topic=\"{topic}\"}}"
        ))
        .await
}

async fn wait_until_publishing(relay: &Relay, topic: &str, rows: f64) {
    let before = published(relay, topic).await;
    until(
        &format!("{rows} rows of {topic} more than {before}"),
        async || (published(relay, topic).await > before + rows).then_some(()),
    )
    .await;
}

async fn read(brokers: &Brokers, topic: &str) -> Vec<Record> {
    let (servers, topic) = (brokers.servers(), topic.to_owned());
    tokio::task::spawn_blocking(move || read_all_at(&servers, &topic))
        .await
        .expect("read")
}

fn settings(database: &Database, servers: &str, topics: &[&str]) -> RelaySettings {
    let mut settings = database.publishing(topics.iter().map(|name| topic(name)).collect());
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

/// Number of each row of a key, in the order of their first records.
fn first_occurrences(records: &[Record]) -> Vec<i64> {
    let mut seen = BTreeSet::new();
    records
        .iter()
        .map(|record| record.headers["outbox_seq"].parse().expect("a number"))
        .filter(|number: &i64| seen.insert(*number))
        .collect()
}

/// Waits until the outage has lasted for this time.
async fn wait_until_lasted(since: Instant, long: Duration) {
    until("the end of the outage", async || {
        (since.elapsed() >= long).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_down_under_load_costs_nothing_but_time() {
    let mut brokers = Brokers::start(1).await;
    let topic = topic_name("away");
    create_topic_at(
        &brokers.servers(),
        &NewTopic::new(&topic, 6, TopicReplication::Fixed(1)),
    )
    .await;
    let database = Database::create(15).await.migrated().await;
    let relay = Relay::start(
        &database,
        &settings(&database, &brokers.servers(), &[&topic]),
    )
    .await;
    let outage = async {
        wait_until_publishing(&relay, &topic, 100.0).await;
        let before = breaker(&relay, BreakerState::Closed).await;
        brokers.kill(1);
        let killed = Instant::now();
        let open = breaker(&relay, BreakerState::Open).await;
        eprintln!("Open {:?} after the kill", killed.elapsed());
        wait_until_lasted(killed, Duration::from_secs(20)).await;
        assert_eq!(
            relay.report().await.expect("it answers").breaker,
            open.breaker,
            "it stays Open without flapping"
        );
        brokers.launch(1);
        brokers.wait_until_up().await;
        let launched = Instant::now();
        let after = breaker(&relay, BreakerState::Closed).await;
        eprintln!(
            "Closed {:?} after the broker answered again",
            launched.elapsed()
        );
        wait_until_publishing(&relay, &topic, 1000.0).await;
        assert_eq!(before.instance, after.instance, "it has not restarted");
    };
    let load = Load {
        topic: topic.clone(),
        writers: 8,
        keys: 100,
        during: Duration::from_secs(40),
        open_max: Duration::from_millis(200),
        pause_max: Duration::ZERO,
    };
    let (committed, ()) = tokio::join!(write(&database, &load), outage);
    wait_until_drained(&database).await;
    assert_eq!(
        verify(&committed, &read(&brokers, &topic).await),
        0,
        "the producer that survived the outage repeats nothing"
    );
}

on_each_kafka!(a_broker_that_is_killed_and_restarts_under_load_loses_and_reorders_nothing);
async fn a_broker_that_is_killed_and_restarts_under_load_loses_and_reorders_nothing(
    kafka: KafkaVersion,
) {
    let mut brokers = Brokers::start_version(kafka, 1).await;
    let topic = topic_name("restarts");
    create_topic_at(
        &brokers.servers(),
        &NewTopic::new(&topic, 6, TopicReplication::Fixed(1)),
    )
    .await;
    let database = Database::create(15).await.migrated().await;
    let relay = Relay::start(
        &database,
        &settings(&database, &brokers.servers(), &[&topic]),
    )
    .await;
    let service = Steady::start(&database, &topic, 50);
    wait_until_publishing(&relay, &topic, 1000.0).await;
    brokers.kill(1);
    let killed = Instant::now();
    brokers.launch(1);
    brokers.wait_until_up().await;
    wait_until_publishing(&relay, &topic, 1000.0).await;
    eprintln!("publishing again {:?} after the kill", killed.elapsed());
    let committed = service.stop().await;
    wait_until_drained(&database).await;
    assert_eq!(
        verify(&committed, &read(&brokers, &topic).await),
        0,
        "the producer that survived the restart repeats nothing"
    );
}

/// SIGSTOP differs from SIGKILL: connections stay open, and there is no error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_for_20_seconds_under_load_costs_nothing_but_time() {
    let brokers = Brokers::start(1).await;
    let topic = topic_name("hangs");
    create_topic_at(
        &brokers.servers(),
        &NewTopic::new(&topic, 6, TopicReplication::Fixed(1)),
    )
    .await;
    let database = Database::create(17).await.migrated().await;
    let relay = Relay::start(
        &database,
        &settings(&database, &brokers.servers(), &[&topic]),
    )
    .await;
    let service = Steady::start(&database, &topic, 50);
    wait_until_publishing(&relay, &topic, 1000.0).await;
    let before = breaker(&relay, BreakerState::Closed).await;
    brokers.signal(1, "STOP");
    let stopped = Instant::now();
    let open = breaker(&relay, BreakerState::Open).await;
    eprintln!("Open {:?} after SIGSTOP", stopped.elapsed());
    wait_until_lasted(stopped, Duration::from_secs(20)).await;
    assert_eq!(
        relay.report().await.expect("it answers").breaker,
        open.breaker,
        "it stays Open without flapping"
    );
    brokers.signal(1, "CONT");
    let goes_on = Instant::now();
    let after = breaker(&relay, BreakerState::Closed).await;
    eprintln!("Closed {:?} after SIGCONT", goes_on.elapsed());
    wait_until_publishing(&relay, &topic, 1000.0).await;
    assert_eq!(before.instance, after.instance, "it has not restarted");
    let committed = service.stop().await;
    wait_until_drained(&database).await;
    eprintln!("drained {:?} after SIGCONT", goes_on.elapsed());
    assert_eq!(
        verify(&committed, &read(&brokers, &topic).await),
        0,
        "the producer that survived the outage repeats nothing"
    );
}

/// A topic with one working partition and one whose only replica is on the second node. It has more
/// rows than the relay has in flight.
struct StalledTopic {
    brokers: Brokers,
    database: Database,
    stalled: String,
    healthy: String,
    settings: RelaySettings,
}

async fn stalled() -> StalledTopic {
    let brokers = Brokers::start(2).await;
    let (stalled, healthy) = (topic_name("stalled"), topic_name("healthy"));
    for (topic, replicas) in [(&stalled, [&[1][..], &[2]]), (&healthy, [&[1][..], &[1]])] {
        let topic = NewTopic::new(topic, 2, TopicReplication::Variable(&replicas))
            .set("max.message.bytes", "100000");
        create_topic_at(&brokers.servers(), &topic).await;
    }
    let database = Database::create(15).await.migrated().await;
    let settings = settings(&database, &brokers.servers(), &[&stalled, &healthy]);
    StalledTopic {
        brokers,
        database,
        stalled,
        healthy,
        settings,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_without_a_leader_pauses_its_topic_alone() {
    let StalledTopic {
        mut brokers,
        database,
        stalled,
        healthy,
        settings,
    } = stalled().await;
    let relay = Relay::start(&database, &settings).await;
    let (to_stalled, to_healthy) = (
        Steady::start(&database, &stalled, 100),
        Steady::start(&database, &healthy, 20),
    );
    wait_until_publishing(&relay, &stalled, 100.0).await;
    wait_until_publishing(&relay, &healthy, 100.0).await;
    brokers.kill(2);
    let killed = Instant::now();
    problem(&relay, ProblemClass::TopicStalled).await;
    eprintln!("reported {:?} after the kill", killed.elapsed());
    wait_until_lasted(killed, Duration::from_secs(15)).await;
    to_stalled.wait_until_written(20_000).await;
    let stuck = published(&relay, &stalled).await;
    wait_until_publishing(&relay, &healthy, 500.0).await;
    assert!(
        published(&relay, &stalled).await == stuck,
        "records of a stalled topic stay in order"
    );
    let in_flight = relay.metric("outbox_in_flight_rows").await;
    assert!(
        in_flight < 8192.0,
        "{in_flight} rows of 16,384 are in flight"
    );
    breaker(&relay, BreakerState::Closed).await;
    brokers.launch(2);
    wait_until_publishing(&relay, &stalled, 1000.0).await;
    let (stalled_rows, healthy_rows) = (to_stalled.stop().await, to_healthy.stop().await);
    wait_until_drained(&database).await;
    assert_eq!(
        verify(&healthy_rows, &read(&brokers, &healthy).await),
        0,
        "duplicates of a healthy topic"
    );
    assert_eq!(
        verify(&stalled_rows, &read(&brokers, &stalled).await),
        0,
        "duplicates of the stalled topic"
    );
    until("no problem", async || {
        relay.report().await.filter(|report| {
            report
                .problems
                .iter()
                .all(|one| one.class != ProblemClass::TopicStalled)
        })
    })
    .await;
}

/// Starts another relay, which gets half of the lanes. Then the first one stops and releases its
/// remaining lanes. Returns the other one.
async fn shares_and_stops(
    first: &mut Relay,
    database: &Database,
    settings: &RelaySettings,
) -> Relay {
    let second = Relay::start(database, settings).await;
    let began = Instant::now();
    lanes(&second, |lanes| lanes == 32).await;
    eprintln!("half of the lanes after {:?}", began.elapsed());
    let began = Instant::now();
    first.stop().await;
    eprintln!("stopped after {:?}", began.elapsed());
    assert!(
        first.log().contains("stopped: all lanes are free"),
        "it released its lanes"
    );
    second
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_topic_keeps_no_relay_from_stopping_or_from_sharing_its_lanes() {
    let StalledTopic {
        mut brokers,
        database,
        stalled,
        healthy,
        settings,
    } = stalled().await;
    let mut first = Relay::start(&database, &settings).await;
    let (to_stalled, to_healthy) = (
        Steady::start(&database, &stalled, 20),
        Steady::start(&database, &healthy, 20),
    );
    wait_until_publishing(&first, &stalled, 100.0).await;
    wait_until_publishing(&first, &healthy, 100.0).await;
    brokers.kill(2);
    problem(&first, ProblemClass::TopicStalled).await;
    let second = shares_and_stops(&mut first, &database, &settings).await;
    lanes(&second, |lanes| lanes == 64).await;
    wait_until_publishing(&second, &healthy, 100.0).await;
    brokers.launch(2);
    wait_until_publishing(&second, &stalled, 100.0).await;
    let (stalled_rows, healthy_rows) = (to_stalled.stop().await, to_healthy.stop().await);
    wait_until_drained(&database).await;
    // The producer was replaced twice. Each time at most one request per broker may be written
    // twice.
    eprintln!(
        "{} duplicates",
        verify(&healthy_rows, &read(&brokers, &healthy).await)
            + verify(&stalled_rows, &read(&brokers, &stalled).await)
    );
}

/// Writes a row that the brokers reject, and waits until its key is parked. For a minute afterwards
/// the rows of its topic use the probe producer.
async fn refused(database: &Database, topic: &str) {
    let mut admin = database.as_admin().await;
    let large = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
         select 'a', 'large', 'E', '{topic}', string_agg(sha256(int4send(g)), '') \
         from generate_series(1, 9500) g"
    );
    execute(&mut admin, &large).await;
    let parked = format!("select count(*) from outbox.parked_key where topic = '{topic}'");
    until("the parked key", async || {
        (value::<i64>(&mut admin, &parked).await == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_does_not_end_is_reported_and_blocks_neither_other_probes_nor_lanes() {
    let StalledTopic {
        mut brokers,
        database,
        stalled,
        healthy,
        settings,
    } = stalled().await;
    let mut first = Relay::start(&database, &settings).await;
    let (to_stalled, to_healthy) = (
        Steady::start(&database, &stalled, 20),
        Steady::start(&database, &healthy, 20),
    );
    wait_until_publishing(&first, &stalled, 100.0).await;
    wait_until_publishing(&first, &healthy, 100.0).await;
    refused(&database, &stalled).await;
    brokers.kill(2);
    let killed = Instant::now();
    problem(&first, ProblemClass::TopicStalled).await;
    eprintln!("reported {:?} after the kill", killed.elapsed());
    let began = Instant::now();
    refused(&database, &healthy).await;
    eprintln!(
        "a rejected row of the other topic is parked after {:?}",
        began.elapsed()
    );
    wait_until_publishing(&first, &healthy, 100.0).await;
    let second = shares_and_stops(&mut first, &database, &settings).await;
    brokers.launch(2);
    wait_until_publishing(&second, &stalled, 100.0).await;
    let (stalled_rows, healthy_rows) = (to_stalled.stop().await, to_healthy.stop().await);
    for topic in [&stalled, &healthy] {
        execute(
            &mut database.as_admin().await,
            &format!("select outbox.skip_parked('{topic}', 'large')"),
        )
        .await;
    }
    wait_until_drained(&database).await;
    eprintln!(
        "{} duplicates",
        verify(&healthy_rows, &read(&brokers, &healthy).await)
            + verify(&stalled_rows, &read(&brokers, &stalled).await)
    );
}

/// The connection to Kafka is cut for only one relay. The other one takes its lanes and returns
/// them after the connection is restored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_cut_off_from_kafka_alone_leaves_its_lanes_to_the_other() {
    let brokers = Brokers::start(1).await;
    let topic = topic_name("cut");
    create_topic_at(
        &brokers.servers(),
        &NewTopic::new(&topic, 6, TopicReplication::Fixed(1)),
    )
    .await;
    let database = Database::create(15).await.migrated().await;
    let cut_off = Relay::start(
        &database,
        &settings(&database, &brokers.behind_the_gate(), &[&topic]),
    )
    .await;
    let other = Relay::start(
        &database,
        &settings(&database, &brokers.servers(), &[&topic]),
    )
    .await;
    lanes(&cut_off, |lanes| lanes == 32).await;
    lanes(&other, |lanes| lanes == 32).await;
    let service = Steady::start(&database, &topic, 20);
    wait_until_publishing(&cut_off, &topic, 100.0).await;
    wait_until_publishing(&other, &topic, 100.0).await;
    brokers.gate.set_open(false);
    let cut = Instant::now();
    breaker(&cut_off, BreakerState::Open).await;
    eprintln!("Open {:?} after the cut", cut.elapsed());
    lanes(&other, |lanes| lanes == 64).await;
    eprintln!("the other one has all lanes after {:?}", cut.elapsed());
    breaker(&other, BreakerState::Closed).await;
    let committed = service.stop().await;
    wait_until_drained(&database).await;
    breaker(&cut_off, BreakerState::Open).await;
    brokers.gate.set_open(true);
    lanes(&cut_off, |lanes| lanes == 32).await;
    breaker(&cut_off, BreakerState::Closed).await;
    // One request may have been written without an answer.
    eprintln!(
        "{} duplicates",
        verify(&committed, &read(&brokers, &topic).await)
    );
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
        until(&format!("a record of {topic}"), async || {
            (published(&relay, topic).await >= 1.0).then_some(())
        })
        .await;
    }
    brokers.signal(2, "STOP");
    insert_large(&database, &hangs, 1).await;
    insert_large(&database, &guarded, 30).await;
    wait_until_publishing(&relay, &other, 2_000.0).await;
    for topic in [&guarded, &hangs] {
        assert_eq!(published(&relay, topic).await, 1.0, "its replica hangs");
    }
    assert!(!relay.log().contains("breaker Open"), "others stood still");
    brokers.signal(2, "CONT");
    let committed = service.stop().await;
    wait_until_drained(&database).await;
    eprintln!(
        "{} repeated",
        verify(&committed, &read(&brokers, &other).await)
    );
    let numbers = first_occurrences(&read(&brokers, &guarded).await);
    assert_eq!(numbers.len(), 31);
    assert!(numbers.is_sorted(), "first occurrences: {numbers:?}");
}
