//! Metadata of topics: the limit of their batches, and the number of their partitions.

use outbox_relay::{
    kafka::{LimitsByTopic, TopicLimits, request_topic_limits},
    report::ProblemClass,
    secrets::Secrets,
    settings::{RelaySettings, SaslMechanism, SaslSettings, TlsMode, TlsSettings},
};

use crate::harness::{
    kafka::{KafkaVersion, alter_topic, create_topic, create_topic_with, topic_name},
    outbox::{topic, wait_until_drained},
    postgres::{Database, execute, value},
    relay::{Relay, until},
    rig::{certificate, rig},
};

/// Writes rows of 300 bytes that do not compress.
async fn insert(database: &Database, topic: &str, rows: u32) {
    let sql = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
         select 'a', 'key-' || n % 50, 'E', '{topic}', (select string_agg(sha256(convert_to(n || \
         '-' || part, 'UTF8')), '') from generate_series(1, 9) part)
         from generate_series(1, {rows}) n"
    );
    execute(&mut database.as_admin().await, &sql).await;
}

/// Writes such rows that are 75 s old.
async fn insert_old(database: &Database, topic: &str, rows: u32) {
    let sql = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload, created_at)
         select 'a', 'key-' || n % 50, 'E', '{topic}', '', clock_timestamp() - interval '75 s'
         from generate_series(1, {rows}) n"
    );
    execute(&mut database.as_admin().await, &sql).await;
}

async fn count(kafka: KafkaVersion, topic: &str) -> usize {
    kafka.read(topic).await.len()
}

on_each_kafka!(limits_are_known_of_topics_that_exist);
async fn limits_are_known_of_topics_that_exist(kafka: KafkaVersion) {
    let (strict, usual, missing) = (
        topic_name("strict"),
        topic_name("usual"),
        topic_name("missing"),
    );
    kafka
        .create_topic_with(
            &strict,
            1,
            &[
                ("max.message.bytes", "20000"),
                ("min.insync.replicas", "2"),
                ("retention.ms", "-1"),
                ("message.timestamp.before.max.ms", "60000"),
            ],
        )
        .await;
    kafka.create_topic(&usual).await;
    // Kafka 4 removed it.
    let differences = (kafka == KafkaVersion::V3_8).then_some(i64::MAX as u64);
    let database = Database::create(15).await;
    let mut settings = database.publishing_to(kafka, vec![]).kafka;
    let names = [strict.as_str(), missing.as_str(), usual.as_str()];
    let found = request_topic_limits(&settings, &Secrets::folder("/nowhere"), "it", &names).await;
    assert_eq!(
        found,
        Some(LimitsByTopic(vec![
            TopicLimits {
                max_message_bytes: Some(20_000),
                min_insync_replicas: Some(2),
                retention_ms: None,
                timestamp_before_max_ms: Some(60_000),
                timestamp_difference_max_ms: differences,
            },
            TopicLimits::default(),
            TopicLimits {
                max_message_bytes: Some(1_048_588),
                min_insync_replicas: Some(1),
                retention_ms: Some(604_800_000),
                timestamp_before_max_ms: Some(i64::MAX as u64),
                timestamp_difference_max_ms: differences,
            }
        ]))
    );
    settings.bootstrap_servers = vec!["127.0.0.1:1".to_owned()];
    assert_eq!(
        request_topic_limits(&settings, &Secrets::folder("/nowhere"), "it", &names).await,
        None
    );
}

on_each_kafka!(a_topic_that_accepts_only_small_batches_gets_many_small_rows_without_a_rejection);
async fn a_topic_that_accepts_only_small_batches_gets_many_small_rows_without_a_rejection(
    kafka: KafkaVersion,
) {
    let database = Database::create(15).await.migrated().await;
    let (strict, usual) = (topic_name("strict"), topic_name("usual"));
    kafka
        .create_topic_with(&strict, 1, &[("max.message.bytes", "20000")])
        .await;
    kafka.create_topic(&usual).await;
    insert(&database, &strict, 5000).await;
    insert(&database, &usual, 1000).await;
    let relay = Relay::start(
        &database,
        &database.publishing_to(kafka, vec![topic(&usual), topic(&strict)]),
    )
    .await;
    wait_until_drained(&database).await;
    assert_eq!(
        (count(kafka, &strict).await, count(kafka, &usual).await),
        (5000, 1000),
        "each once: nothing was rejected and sent again"
    );
    assert!(!relay.log().contains("a record failed"), "{}", relay.log());
}

/// Writes a row of 2 MB with this key, which does not compress.
async fn insert_large(database: &Database, topic: &str, key: &str) {
    let sql = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
         select 'a', '{key}', 'E', '{topic}', string_agg(sha256(int4send(n)), '') \
         from generate_series(1, 65000) n"
    );
    execute(&mut database.as_admin().await, &sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_relay_sends_larger_records_as_soon_as_a_topic_accepts_them() {
    let database = Database::create(15).await.migrated().await;
    let name = topic_name("grown");
    create_topic(&name).await;
    let relay = Relay::start(&database, &database.publishing(vec![topic(&name)])).await;
    insert(&database, &name, 10).await;
    wait_until_drained(&database).await;
    alter_topic(&name, "max.message.bytes", "3000000").await;
    insert_large(&database, &name, "taken").await;
    wait_until_drained(&database).await;
    assert_eq!(count(KafkaVersion::V4_3, &name).await, 11);
    assert_eq!(relay.log().matches("rejected").count(), 0);
}

/// Together the rows exceed the relay's memory budget, which earlier rows do not predict.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_suddenly_large_are_fetched_in_pieces() {
    let database = Database::create(15).await.migrated().await;
    let usual = topic_name("usual");
    create_topic(&usual).await;
    let relay = Relay::start(&database, &database.publishing(vec![topic(&usual)])).await;
    insert(&database, &usual, 1000).await;
    wait_until_drained(&database).await;
    let large = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
         select 'a', 'key-' || n % 50, 'E', '{usual}', convert_to(repeat('a', 60000), 'UTF8') \
         from generate_series(1, 1000) n"
    );
    execute(&mut database.as_admin().await, &large).await;
    wait_until_drained(&database).await;
    assert_eq!(count(KafkaVersion::V4_3, &usual).await, 2000, "each once");
    assert!(relay.log().contains("larger than"), "{}", relay.log());
}

on_each_kafka!(partitions_added_under_load_are_counted_and_reported);
async fn partitions_added_under_load_are_counted_and_reported(kafka: KafkaVersion) {
    let database = Database::create(15).await.migrated().await;
    let (grows, stays) = (topic_name("grows"), topic_name("stays"));
    kafka.create_topic_with(&grows, 2, &[]).await;
    kafka.create_topic(&stays).await;
    let relay = Relay::start(
        &database,
        &database.publishing_to(kafka, vec![topic(&grows), topic(&stays)]),
    )
    .await;
    insert(&database, &grows, 1000).await;
    wait_until_drained(&database).await;
    kafka.grow_topic(&grows, 5).await;
    insert(&database, &grows, 1000).await;
    let message = until("the problem PartitionsAdded", async || {
        let problems = relay.report().await?.problems;
        problems
            .into_iter()
            .find(|problem| problem.class == ProblemClass::PartitionsAdded)
            .map(|problem| problem.message)
    })
    .await;
    assert!(
        message.contains(&grows) && message.contains("from 2 to 5"),
        "{message}"
    );
    let added = |topic: &str| format!("outbox_topic_partitions_added_total{{topic=\"{topic}\"}}");
    assert_eq!(
        (
            relay.metric(&added(&grows)).await,
            relay.metric(&added(&stays)).await
        ),
        (3.0, 0.0)
    );
    wait_until_drained(&database).await;
    assert_eq!(count(kafka, &grows).await, 2000);
}

/// Grants the user only the rights to write to and describe a topic, which a relay needs.
fn only_write(topic: &str) {
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rig/kafka/tool");
    let user = format!("User:{}", rig("RIG_KAFKA_USER"));
    let arguments = [
        "acls",
        "--add",
        "--allow-principal",
        &user,
        "--operation",
        "Write",
        "--operation",
        "Describe",
        "--topic",
        topic,
    ];
    let output = std::process::Command::new(tool)
        .args(arguments)
        .output()
        .expect("the tool");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Settings of a relay that may not read the configuration of the topic `hidden`.
async fn settings_without_the_limits_of(
    hidden: &str,
    others: &[&str],
    database: &Database,
) -> RelaySettings {
    let name = hidden.to_owned();
    tokio::task::spawn_blocking(move || only_write(&name))
        .await
        .expect("joined");
    let mut topics = vec![topic(hidden)];
    topics.extend(others.iter().map(|name| topic(name)));
    let mut settings = database.publishing(topics);
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

/// The relay cannot know that the topic rejects times which are older than 10 s. The rejected rows
/// are sent again with the present time, and so are those that come later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_waited_longer_than_a_hidden_limit_of_timestamps_are_published() {
    let database = Database::create(15).await.migrated().await;
    let (hidden, shown) = (topic_name("hidden"), topic_name("shown"));
    create_topic_with(&hidden, 2, &[("message.timestamp.before.max.ms", "10000")]).await;
    create_topic_with(&shown, 1, &[]).await;
    let settings = settings_without_the_limits_of(&hidden, &[&shown], &database).await;
    for topic in [&hidden, &shown] {
        insert_old(&database, topic, 200).await;
    }
    let relay = Relay::start(&database, &settings).await;
    wait_until_drained(&database).await;
    let rejected = format!("outbox_events_failed_total{{class=\"ClockSkew\",topic=\"{hidden}\"}}");
    let rejections = async || relay.metric(&rejected).await;
    let first = rejections().await;
    assert!(first > 0.0, "{}", relay.metrics().await);
    insert_old(&database, &hidden, 200).await;
    wait_until_drained(&database).await;
    assert_eq!(rejections().await, first, "later rows are not rejected");
    let count = |topic| count(KafkaVersion::V4_3, topic);
    assert_eq!((count(&hidden).await, count(&shown).await), (400, 200));
    let blamed = "select (select count(*) from outbox.parked_key) + (select count(*) from outbox.dead_letter)";
    assert_eq!(
        value::<i64>(&mut database.as_admin().await, blamed).await,
        0
    );
    let problems = relay.report().await.expect("a report").problems;
    assert!(
        problems
            .iter()
            .all(|problem| problem.class != ProblemClass::ClockSkew),
        "{problems:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_a_hidden_configuration_has_unknown_limits_and_gets_its_rows() {
    let database = Database::create(15).await.migrated().await;
    let (hidden, shown) = (topic_name("hidden"), topic_name("shown"));
    create_topic_with(&hidden, 1, &[("max.message.bytes", "30000")]).await;
    create_topic_with(&shown, 1, &[("max.message.bytes", "20000")]).await;
    let settings = settings_without_the_limits_of(&hidden, &[&shown], &database).await;
    let found = until("the limits", async || {
        request_topic_limits(
            &settings.kafka,
            &database.secrets(),
            "it",
            &[&hidden, &shown],
        )
        .await
        .filter(|found| found.0[0] == TopicLimits::default())
    })
    .await;
    assert_eq!(
        (found.0[0], found.0[1].max_message_bytes),
        (TopicLimits::default(), Some(20_000))
    );
    let _relay = Relay::start(&database, &settings).await;
    insert(&database, &hidden, 1000).await;
    wait_until_drained(&database).await;
    assert_eq!(count(KafkaVersion::V4_3, &hidden).await, 1000);
}
