//! Contract B on real servers: an outage of Kafka, of a partition or of one relay's connection to
//! Kafka costs nothing but time, and only the affected rows wait.

use std::time::{Duration, Instant};

use outbox_relay::{
    report::{BreakerState, ProblemClass, RelayReport},
    settings::{OnPoison, RelaySettings, TopicSettings},
};
use rdkafka::admin::{NewTopic, TopicReplication};

use crate::harness::{
    brokers::Brokers,
    kafka::{Record, create_topic_at, read_all_at, topic_name},
    postgres::{Database, execute, value},
    relay::{Relay, until},
    writers::{Load, Steady, verify, write},
};

fn declared(name: &str) -> TopicSettings {
    TopicSettings {
        name: name.to_owned(),
        event_types: vec![],
        aggregate_types: vec![],
        on_poison: OnPoison::Block,
    }
}

async fn lanes(relay: &Relay, wanted: impl Fn(u32) -> bool) {
    until("the lanes", async || {
        relay.report().await.filter(|report| wanted(report.lanes))
    })
    .await;
}

async fn breaker(relay: &Relay, wanted: BreakerState) -> RelayReport {
    let is = |report: &RelayReport| {
        report
            .breaker
            .as_ref()
            .is_some_and(|breaker| breaker.state == wanted)
    };
    let report = until(&format!("breaker {wanted:?}"), async || {
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
            metric == f64::from(u8::from(state == wanted)),
            "{state:?} is {metric} while the report says {wanted:?}"
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

async fn flows(relay: &Relay, topic: &str, rows: f64) {
    let before = published(relay, topic).await;
    until(
        &format!("{rows} rows of {topic} more than {before}"),
        async || (published(relay, topic).await > before + rows).then_some(()),
    )
    .await;
}

async fn drained(database: &Database) {
    let mut admin = database.as_admin().await;
    until("the outbox to be empty", async || {
        let rows: i64 = value(&mut admin, "select count(*) from outbox.event").await;
        (rows == 0).then_some(())
    })
    .await;
}

async fn read(brokers: &Brokers, topic: &str) -> Vec<Record> {
    let (servers, topic) = (brokers.servers(), topic.to_owned());
    tokio::task::spawn_blocking(move || read_all_at(&servers, &topic))
        .await
        .expect("read")
}

fn settings(database: &Database, servers: &str, topics: &[&str]) -> RelaySettings {
    let mut settings = database.publishing(topics.iter().map(|topic| declared(topic)).collect());
    settings.kafka.bootstrap_servers = servers.split(',').map(str::to_owned).collect();
    settings
}

/// Waits until the outage has lasted for this time.
async fn lasts(since: Instant, long: Duration) {
    until("the outage to have lasted", async || {
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
        flows(&relay, &topic, 100.0).await;
        let before = breaker(&relay, BreakerState::Closed).await;
        brokers.kill(1);
        let killed = Instant::now();
        let open = breaker(&relay, BreakerState::Open).await;
        eprintln!("Open {:?} after the kill", killed.elapsed());
        lasts(killed, Duration::from_secs(20)).await;
        assert_eq!(
            relay.report().await.expect("it answers").breaker,
            open.breaker,
            "it stays Open: no flapping"
        );
        brokers.launch(1);
        brokers.wait_until_up().await;
        let launched = Instant::now();
        let after = breaker(&relay, BreakerState::Closed).await;
        eprintln!(
            "Closed {:?} after the broker answered again",
            launched.elapsed()
        );
        flows(&relay, &topic, 1000.0).await;
        assert_eq!(before.instance, after.instance, "it has not started again");
    };
    let load = Load {
        topic: topic.clone(),
        writers: 8,
        keys: 100,
        during: Duration::from_secs(40),
        open_max: Duration::from_millis(200),
    };
    let (committed, ()) = tokio::join!(write(&database, &load), outage);
    drained(&database).await;
    assert_eq!(
        verify(&committed, &read(&brokers, &topic).await),
        0,
        "the producer that went through the outage repeats nothing"
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
    flows(&relay, &topic, 1000.0).await;
    let before = breaker(&relay, BreakerState::Closed).await;
    brokers.signal(1, "STOP");
    let stopped = Instant::now();
    let open = breaker(&relay, BreakerState::Open).await;
    eprintln!("Open {:?} after SIGSTOP", stopped.elapsed());
    lasts(stopped, Duration::from_secs(20)).await;
    assert_eq!(
        relay.report().await.expect("it answers").breaker,
        open.breaker,
        "it stays Open: no flapping"
    );
    brokers.signal(1, "CONT");
    let goes_on = Instant::now();
    let after = breaker(&relay, BreakerState::Closed).await;
    eprintln!("Closed {:?} after SIGCONT", goes_on.elapsed());
    flows(&relay, &topic, 1000.0).await;
    assert_eq!(before.instance, after.instance, "it has not started again");
    let committed = service.stop().await;
    drained(&database).await;
    eprintln!("drained {:?} after SIGCONT", goes_on.elapsed());
    assert_eq!(
        verify(&committed, &read(&brokers, &topic).await),
        0,
        "the producer that went through the outage repeats nothing"
    );
}

/// A topic with one working partition and one whose only replica is on the second node. It has more
/// rows than the relay has in flight.
struct StalledTopic {
    brokers: Brokers,
    database: Database,
    sick: String,
    well: String,
    settings: RelaySettings,
}

async fn sick() -> StalledTopic {
    let brokers = Brokers::start(2).await;
    let (sick, well) = (topic_name("sick"), topic_name("well"));
    for (topic, replicas) in [(&sick, [&[1][..], &[2]]), (&well, [&[1][..], &[1]])] {
        let topic = NewTopic::new(topic, 2, TopicReplication::Variable(&replicas))
            .set("max.message.bytes", "100000");
        create_topic_at(&brokers.servers(), &topic).await;
    }
    let database = Database::create(15).await.migrated().await;
    let settings = settings(&database, &brokers.servers(), &[&sick, &well]);
    StalledTopic {
        brokers,
        database,
        sick,
        well,
        settings,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_without_a_leader_pauses_its_topic_alone() {
    let StalledTopic {
        mut brokers,
        database,
        sick,
        well,
        settings,
    } = sick().await;
    let relay = Relay::start(&database, &settings).await;
    let (to_sick, to_well) = (
        Steady::start(&database, &sick, 100),
        Steady::start(&database, &well, 20),
    );
    flows(&relay, &sick, 100.0).await;
    flows(&relay, &well, 100.0).await;
    brokers.kill(2);
    let killed = Instant::now();
    problem(&relay, ProblemClass::TopicStalled).await;
    eprintln!("told {:?} after the kill", killed.elapsed());
    lasts(killed, Duration::from_secs(15)).await;
    to_sick.wait_until_written(20_000).await;
    let stuck = published(&relay, &sick).await;
    flows(&relay, &well, 500.0).await;
    assert!(
        published(&relay, &sick).await == stuck,
        "what a stalled topic has written does not go out of order"
    );
    let in_flight = relay.metric("outbox_in_flight_rows").await;
    assert!(
        in_flight < 8192.0,
        "{in_flight} rows of 16,384 are in flight"
    );
    breaker(&relay, BreakerState::Closed).await;
    brokers.launch(2);
    flows(&relay, &sick, 1000.0).await;
    let (sick_rows, well_rows) = (to_sick.stop().await, to_well.stop().await);
    drained(&database).await;
    assert_eq!(
        verify(&well_rows, &read(&brokers, &well).await),
        0,
        "duplicates of a topic that was well"
    );
    assert_eq!(
        verify(&sick_rows, &read(&brokers, &sick).await),
        0,
        "duplicates of the sick topic"
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
        "it gave its lanes back"
    );
    second
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_topic_keeps_no_relay_from_stopping_or_from_sharing_its_lanes() {
    let StalledTopic {
        mut brokers,
        database,
        sick,
        well,
        settings,
    } = sick().await;
    let mut first = Relay::start(&database, &settings).await;
    let (to_sick, to_well) = (
        Steady::start(&database, &sick, 20),
        Steady::start(&database, &well, 20),
    );
    flows(&first, &sick, 100.0).await;
    flows(&first, &well, 100.0).await;
    brokers.kill(2);
    problem(&first, ProblemClass::TopicStalled).await;
    let second = shares_and_stops(&mut first, &database, &settings).await;
    lanes(&second, |lanes| lanes == 64).await;
    flows(&second, &well, 100.0).await;
    brokers.launch(2);
    flows(&second, &sick, 100.0).await;
    let (sick_rows, well_rows) = (to_sick.stop().await, to_well.stop().await);
    drained(&database).await;
    // The producer was replaced twice. Each time at most one request per broker may be written
    // twice.
    eprintln!(
        "{} duplicates",
        verify(&well_rows, &read(&brokers, &well).await)
            + verify(&sick_rows, &read(&brokers, &sick).await)
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
        sick,
        well,
        settings,
    } = sick().await;
    let mut first = Relay::start(&database, &settings).await;
    let (to_sick, to_well) = (
        Steady::start(&database, &sick, 20),
        Steady::start(&database, &well, 20),
    );
    flows(&first, &sick, 100.0).await;
    flows(&first, &well, 100.0).await;
    refused(&database, &sick).await;
    brokers.kill(2);
    let killed = Instant::now();
    problem(&first, ProblemClass::TopicStalled).await;
    eprintln!("told {:?} after the kill", killed.elapsed());
    let began = Instant::now();
    refused(&database, &well).await;
    eprintln!(
        "a refused row of the other topic is judged after {:?}",
        began.elapsed()
    );
    flows(&first, &well, 100.0).await;
    let second = shares_and_stops(&mut first, &database, &settings).await;
    brokers.launch(2);
    flows(&second, &sick, 100.0).await;
    let (sick_rows, well_rows) = (to_sick.stop().await, to_well.stop().await);
    for topic in [&sick, &well] {
        execute(
            &mut database.as_admin().await,
            &format!("select outbox.skip_parked('{topic}', 'large')"),
        )
        .await;
    }
    drained(&database).await;
    eprintln!(
        "{} duplicates",
        verify(&well_rows, &read(&brokers, &well).await)
            + verify(&sick_rows, &read(&brokers, &sick).await)
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
    flows(&cut_off, &topic, 100.0).await;
    flows(&other, &topic, 100.0).await;
    brokers.gate.set_open(false);
    let cut = Instant::now();
    breaker(&cut_off, BreakerState::Open).await;
    eprintln!("Open {:?} after the cut", cut.elapsed());
    lanes(&other, |lanes| lanes == 64).await;
    eprintln!("the other one has all lanes after {:?}", cut.elapsed());
    breaker(&other, BreakerState::Closed).await;
    let committed = service.stop().await;
    drained(&database).await;
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
