//! Contract B for topics that reject all records: forbidden, deleted, or with a limit below the
//! size of batches. Only their rows wait, and they stay in order.

use std::process::Command;

use outbox_relay::{
    report::ProblemClass,
    settings::{RelaySettings, SaslMechanism, SaslSettings, TlsMode, TlsSettings},
};

use crate::harness::{
    kafka::{KafkaVersion, Record, create_topic, create_topic_with, read_all, topic_name},
    outbox::{topic, wait_until_drained},
    postgres::{Database, execute, value},
    relay::{Relay, until},
    rig::{certificate, rig},
    writers::{Steady, verify},
};

async fn acls(arguments: &[&str]) {
    let user = format!("User:{}", rig("RIG_KAFKA_USER"));
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rig/kafka/tool"));
    command.arg("acls").args(arguments.iter().map(|argument| {
        if *argument == "USER" {
            user.as_str()
        } else {
            argument
        }
    }));
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("joined")
        .expect("the tool");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Settings of a relay whose user is restricted by ACLs.
fn bound_by_acls(database: &Database, topics: &[&String]) -> RelaySettings {
    let mut settings = database.publishing(topics.iter().map(|name| topic(name)).collect());
    database.write_secret("kafka/ca.crt", &certificate("ca.crt"));
    database.write_secret("kafka/password", &rig("RIG_KAFKA_PASSWORD"));
    settings.kafka.bootstrap_servers = vec![rig("RIG_KAFKA_SASL_SSL")];
    settings.kafka.tls = TlsSettings {
        mode: TlsMode::VerifyFull,
        ca: true,
        client_certificate: false,
    };
    settings.kafka.sasl = Some(SaslSettings {
        mechanism: SaslMechanism::ScramSha512,
        username: rig("RIG_KAFKA_USER"),
    });
    settings
}

async fn problem(relay: &Relay, class: ProblemClass) {
    until(&format!("problem {class}"), async || {
        relay
            .report()
            .await?
            .problems
            .iter()
            .any(|problem| problem.class == class)
            .then_some(())
    })
    .await;
}

async fn read(topic: &str) -> Vec<Record> {
    let topic = topic.to_owned();
    tokio::task::spawn_blocking(move || read_all(&topic))
        .await
        .expect("read")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_forbidden_under_load_is_paused_alone_and_continues_in_order() {
    let database = Database::create(15).await.migrated().await;
    let (forbidden, allowed) = (topic_name("forbidden"), topic_name("allowed"));
    create_topic(&forbidden).await;
    create_topic(&allowed).await;
    for topic in [&forbidden, &allowed] {
        acls(&[
            "--add",
            "--allow-principal",
            "USER",
            "--operation",
            "Write",
            "--operation",
            "Describe",
            "--topic",
            topic,
        ])
        .await;
    }
    let relay = Relay::start(
        &database,
        &bound_by_acls(&database, &[&forbidden, &allowed]),
    )
    .await;
    let (to_forbidden, to_allowed) = (
        Steady::start(&database, &forbidden, 10),
        Steady::start(&database, &allowed, 10),
    );
    let published = |topic: &str| format!("outbox_events_published_total{{topic=\"{topic}\"}}");
    let reaches = async |topic: &str, expected: f64| {
        until(&format!("{expected} records"), async || {
            (relay.metric(&published(topic)).await >= expected).then_some(())
        })
        .await;
    };
    reaches(&forbidden, 100.0).await;

    acls(&[
        "--add",
        "--deny-principal",
        "USER",
        "--operation",
        "Write",
        "--topic",
        &forbidden,
    ])
    .await;
    problem(&relay, ProblemClass::TopicNotAuthorized).await;
    let before = relay.metric(&published(&allowed)).await;
    reaches(&allowed, before + 1000.0).await;

    acls(&[
        "--remove",
        "--force",
        "--deny-principal",
        "USER",
        "--operation",
        "Write",
        "--topic",
        &forbidden,
    ])
    .await;
    let (forbidden_rows, allowed_rows) = (to_forbidden.stop().await, to_allowed.stop().await);
    wait_until_drained(&database).await;
    let duplicates = verify(&forbidden_rows, &read(&forbidden).await)
        + verify(&allowed_rows, &read(&allowed).await);
    eprintln!("{duplicates} duplicates");
    assert_eq!(
        value::<i64>(
            &mut database.as_admin().await,
            "select count(*) from outbox.parked_key"
        )
        .await,
        0,
        "no row is rejected"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_an_unknown_limit_rejects_become_smaller_and_no_row_is_blamed() {
    let database = Database::create(15).await.migrated().await;
    let hidden = topic_name("hidden");
    create_topic_with(&hidden, 1, &[("max.message.bytes", "30000")]).await;
    acls(&[
        "--add",
        "--allow-principal",
        "USER",
        "--operation",
        "Write",
        "--operation",
        "Describe",
        "--topic",
        &hidden,
    ])
    .await;
    let rows = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
         select 'a', 'k' || n % 100, 'E', '{hidden}', (select string_agg(sha256(int4send(n * 10 \
         + g)), '') from generate_series(1, 10) g)
         from generate_series(1, 5000) n order by n"
    );
    execute(&mut database.as_admin().await, &rows).await;
    let _relay = Relay::start(&database, &bound_by_acls(&database, &[&hidden])).await;
    wait_until_drained(&database).await;
    let mut events: Vec<_> = read(&hidden).await.iter().map(Record::event_id).collect();
    events.sort_unstable();
    events.dedup();
    assert_eq!(events.len(), 5000);
    assert_eq!(
        value::<i64>(
            &mut database.as_admin().await,
            "select count(*) from outbox.dead_letter"
        )
        .await,
        0
    );
    assert_eq!(
        value::<i64>(
            &mut database.as_admin().await,
            "select count(*) from outbox.parked_key"
        )
        .await,
        0
    );
}

on_each_kafka!(a_topic_deleted_and_recreated_under_load_gets_its_rows_in_order);
async fn a_topic_deleted_and_recreated_under_load_gets_its_rows_in_order(kafka: KafkaVersion) {
    let database = Database::create(15).await.migrated().await;
    let (recreated, allowed) = (topic_name("recreated"), topic_name("other"));
    kafka.create_topic(&recreated).await;
    kafka.create_topic(&allowed).await;
    let relay = Relay::start(
        &database,
        &database.publishing_to(kafka, vec![topic(&recreated), topic(&allowed)]),
    )
    .await;
    let (to_recreated, to_allowed) = (
        Steady::start(&database, &recreated, 10),
        Steady::start(&database, &allowed, 10),
    );
    to_recreated.wait_until_written(500).await;
    kafka.delete_topic(&recreated).await;
    problem(&relay, ProblemClass::TopicMissing).await;
    kafka.create_topic(&recreated).await;
    to_recreated.wait_until_written(2000).await;
    let (recreated_rows, allowed_rows) = (to_recreated.stop().await, to_allowed.stop().await);
    wait_until_drained(&database).await;
    verify(&allowed_rows, &kafka.read(&allowed).await);
    // Records that were acknowledged earlier are deleted with the topic. The remaining rows of each
    // key arrived in order and without a gap.
    let records = kafka.read(&recreated).await;
    for (key, committed) in recreated_rows {
        let mut firsts = Vec::new();
        for record in records.iter().filter(|record| record.key == key) {
            if !firsts.contains(&record.event_id()) {
                firsts.push(record.event_id());
            }
        }
        assert!(
            committed.ends_with(&firsts) && firsts.len() >= 10,
            "key {key}: {} of {}",
            firsts.len(),
            committed.len()
        );
    }
}
