//! Each problem is in the status report with its class, rows stay in the table, and the relay
//! recovers automatically.

use std::collections::BTreeMap;

use outbox_relay::{
    report::{ProblemClass, RelayReport},
    settings::{
        RecordHeaders, RelaySettings, SaslMechanism, SaslSettings, TlsMode, TlsSettings,
        TopicSettings,
    },
};

use crate::harness::{
    kafka::{KafkaVersion, Record, create_topic, read_all, topic_name},
    outbox::{topic, until_rows},
    postgres::{Database, execute},
    relay::{Relay, until},
    rig::{certificate, rig},
};

const ROW: &str = "insert into outbox.event (event_id, aggregate_type, aggregate_id, event_type, \
    topic, payload, headers) values";

async fn problem(relay: &Relay, class: ProblemClass) -> String {
    until(&format!("problem {class}"), async || {
        let problems = relay.report().await?.problems;
        problems
            .into_iter()
            .find(|problem| problem.class == class)
            .map(|problem| problem.message)
    })
    .await
}

async fn wait_until_resolved(relay: &Relay, class: ProblemClass) -> RelayReport {
    let gone = |report: &RelayReport| {
        report.lanes == 64 && report.problems.iter().all(|problem| problem.class != class)
    };
    until(&format!("problem {class} to be resolved"), async || {
        relay.report().await.filter(gone)
    })
    .await
}

async fn read(topic: &str) -> Vec<Record> {
    let topic = topic.to_owned();
    tokio::task::spawn_blocking(move || read_all(&topic))
        .await
        .expect("read")
}

async fn insert(database: &Database, values: &str) {
    execute(&mut database.as_admin().await, &format!("{ROW} {values}")).await;
}

fn uuid(last: u8) -> String {
    format!("00000000-0000-0000-0000-0000000000{last:02}")
}

on_each_kafka!(rows_of_a_missing_topic_wait_and_are_published_once_it_exists);
async fn rows_of_a_missing_topic_wait_and_are_published_once_it_exists(kafka: KafkaVersion) {
    let database = Database::create(15).await.migrated().await;
    let (missing, there) = (topic_name("missing"), topic_name("there"));
    kafka.create_topic(&there).await;
    let relay = Relay::start(
        &database,
        &database.publishing_to(kafka, vec![topic(&missing), topic(&there)]),
    )
    .await;
    let message = problem(&relay, ProblemClass::TopicMissing).await;
    assert!(
        message.contains(&missing) && message.contains("create it"),
        "{message}"
    );
    insert(
        &database,
        &format!(
            "('{}', 'a', 'k', 'E', '{missing}', 'm', '{{}}'), ('{}', 'a', 'k', 'E', \
            '{there}', 't', '{{}}')",
            uuid(1),
            uuid(2)
        ),
    )
    .await;
    until_rows(&database, 1).await;
    assert_eq!(
        kafka.read(&there).await.len(),
        1,
        "rows of the other topic to be published"
    );
    kafka.create_topic(&missing).await;
    until_rows(&database, 0).await;
    assert_eq!(kafka.read(&missing).await.len(), 1);
    wait_until_resolved(&relay, ProblemClass::TopicMissing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_no_declared_topic_takes_wait_until_the_manifest_declares_it() {
    let database = Database::create(15).await.migrated().await;
    let (declared, later) = (topic_name("declared"), topic_name("later"));
    create_topic(&declared).await;
    create_topic(&later).await;
    let mut relay = Relay::start(&database, &database.publishing(vec![topic(&declared)])).await;
    insert(
        &database,
        &format!(
            "('{}', 'a', 'k', 'E', '{later}', 'l', '{{}}'), ('{}', 'a', 'k', 'E', \
            '{declared}', 'd', '{{}}')",
            uuid(1),
            uuid(2)
        ),
    )
    .await;
    problem(&relay, ProblemClass::TopicNotDeclared).await;
    until_rows(&database, 1).await;
    assert_eq!(read(&declared).await.len(), 1);
    relay.stop().await;
    let _relay = Relay::start(
        &database,
        &database.publishing(vec![topic(&declared), topic(&later)]),
    )
    .await;
    until_rows(&database, 0).await;
    assert_eq!(read(&later).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_database_password_is_reported_until_the_secret_is_right() {
    let database = Database::create(15).await.migrated().await;
    let name = topic_name("password");
    create_topic(&name).await;
    let right = database.password().to_owned();
    database.write_secrets(&database.relay, "wrong");
    let relay = Relay::start(&database, &database.publishing(vec![topic(&name)])).await;
    let message = problem(&relay, ProblemClass::AuthenticationFailed).await;
    assert!(!message.contains("wrong\""), "{message}");
    database.write_secrets(&database.relay, &right);
    wait_until_resolved(&relay, ProblemClass::AuthenticationFailed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_waits_for_its_schema() {
    let database = Database::create(15).await;
    let name = topic_name("late");
    create_topic(&name).await;
    let settings = database.publishing(vec![topic(&name)]);
    let relay = Relay::start(&database, &settings).await;
    problem(&relay, ProblemClass::SchemaNotReady).await;
    assert_eq!(database.migrate(&settings).await.problem, None);
    wait_until_resolved(&relay, ProblemClass::SchemaNotReady).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_cannot_be_reached_cost_nothing_but_time() {
    let database = Database::create(15).await.migrated().await;
    let name = topic_name("unreachable");
    let mut settings = database.publishing(vec![topic(&name)]);
    settings.kafka.bootstrap_servers = vec!["127.0.0.1:1".to_owned()];
    let relay = Relay::start(&database, &settings).await;
    insert(
        &database,
        &format!("('{}', 'a', 'k', 'E', '{name}', 'x', '{{}}')", uuid(1)),
    )
    .await;
    let message = problem(&relay, ProblemClass::KafkaUnreachable).await;
    assert!(message.contains("127.0.0.1:1"), "{message}");
    until_rows(&database, 1).await;
}

fn encrypted(settings: &mut RelaySettings, database: &Database, password: &str) {
    database.write_secret("kafka/ca.crt", &certificate("ca.crt"));
    database.write_secret("kafka/password", password);
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_kafka_password_is_reported_until_the_secret_is_right() {
    let database = Database::create(15).await.migrated().await;
    let name = topic_name("scram");
    create_topic(&name).await;
    let mut settings = database.publishing(vec![topic(&name)]);
    encrypted(&mut settings, &database, "wrong");
    let relay = Relay::start(&database, &settings).await;
    insert(
        &database,
        &format!("('{}', 'a', 'k', 'E', '{name}', 'x', '{{}}')", uuid(1)),
    )
    .await;
    problem(&relay, ProblemClass::KafkaAuthenticationFailed).await;
    until_rows(&database, 1).await;
    database.write_secret("kafka/password", &rig("RIG_KAFKA_PASSWORD"));
    until_rows(&database, 0).await;
    wait_until_resolved(&relay, ProblemClass::KafkaAuthenticationFailed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_a_login_and_a_foreign_authority_is_refused() {
    let database = Database::create(15).await.migrated().await;
    let name = topic_name("mtls");
    create_topic(&name).await;
    let mut settings = database.publishing(vec![topic(&name)]);
    settings.kafka.bootstrap_servers = vec![rig("RIG_KAFKA_MTLS")];
    settings.kafka.tls = TlsSettings {
        mode: TlsMode::VerifyFull,
        ca: true,
        client_certificate: true,
    };
    database.write_secret("kafka/ca.crt", &certificate("rogue-ca.crt"));
    database.write_secret("kafka/tls.crt", &certificate("client.crt"));
    database.write_secret("kafka/tls.key", &certificate("client.key"));
    let relay = Relay::start(&database, &settings).await;
    insert(
        &database,
        &format!("('{}', 'a', 'k', 'E', '{name}', 'x', '{{}}')", uuid(1)),
    )
    .await;
    problem(&relay, ProblemClass::KafkaTlsFailed).await;
    database.write_secret("kafka/ca.crt", &certificate("ca.crt"));
    until_rows(&database, 0).await;
    wait_until_resolved(&relay, ProblemClass::KafkaTlsFailed).await;
}

on_each_kafka!(a_record_carries_key_value_and_headers_of_its_row_in_each_style);
async fn a_record_carries_key_value_and_headers_of_its_row_in_each_style(kafka: KafkaVersion) {
    for style in [
        RecordHeaders::Standard,
        RecordHeaders::Debezium,
        RecordHeaders::CloudEvents,
    ] {
        let database = Database::create(15).await.migrated().await;
        let name = topic_name("headers");
        kafka.create_topic(&name).await;
        let mut settings = database.publishing_to(
            kafka,
            vec![TopicSettings {
                event_types: vec!["E".to_owned()],
                ..topic(&name)
            }],
        );
        settings.record_headers = style;
        let _relay = Relay::start(&database, &settings).await;
        insert(
            &database,
            &format!(
                "('{}', 'essay', 'k', 'E', null, '\\x00ff', \
                '{{\"correlation_id\": \"c\", \"outbox_seq\": \"9\"}}')",
                uuid(1)
            ),
        )
        .await;
        insert(
            &database,
            &format!("('{}', 'essay', 'k', 'E', null, null, '{{}}')", uuid(2)),
        )
        .await;
        until_rows(&database, 0).await;
        let records = kafka.read(&name).await;
        assert_eq!(records.len(), 2);
        assert_eq!(
            (
                records[0].key.as_str(),
                records[0].value.as_deref(),
                &records[1].value
            ),
            ("k", Some(&b"\x00\xff"[..]), &None)
        );
        let mut headers: BTreeMap<&str, &str> = records[0]
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            (
                headers.remove("correlation_id"),
                headers.remove("outbox_seq")
            ),
            (Some("c"), Some("1"))
        );
        for time in ["outbox_created_at", "ce_time"] {
            assert!(headers.remove(time).is_none_or(|time| time.ends_with('Z')));
        }
        let id = uuid(1);
        let expected: BTreeMap<&str, &str> = match style {
            RecordHeaders::Standard => [
                ("event_id", id.as_str()),
                ("event_type", "E"),
                ("aggregate_type", "essay"),
                ("aggregate_id", "k"),
            ]
            .into(),
            RecordHeaders::Debezium => [("id", id.as_str()), ("eventType", "E")].into(),
            RecordHeaders::CloudEvents => {
                let source = "/outbox/essays/file-service";
                [
                    ("ce_specversion", "1.0"),
                    ("ce_id", id.as_str()),
                    ("ce_type", "E"),
                    ("ce_source", source),
                    ("ce_subject", "k"),
                ]
                .into()
            }
        };
        assert_eq!(headers, expected);
    }
}

/// A relay that says 0 while rows wait tells a scaler that there is nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_that_was_not_counted_yet_is_unknown_and_not_0() {
    const ROWS: u64 = 30_000;
    let database = Database::create(15).await.migrated().await;
    let sql = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic)
         select 'a', i::text, 'E', 'absent' from generate_series(1, {ROWS}) as i"
    );
    execute(&mut database.as_admin().await, &sql).await;
    // Its topic does not exist, so the rows wait.
    let relay = Relay::start(&database, &database.publishing(vec![topic("absent")])).await;
    let known = until("the backlog", async || {
        let metrics = relay.metrics().await;
        let report = relay.report().await?;
        let is_known = report.backlog.is_some();
        // The report came later: if it knows nothing, the metrics before it knew nothing.
        assert!(
            is_known
                || !metrics.contains("\noutbox_queue_depth")
                    && !metrics.contains("\noutbox_event_age"),
            "{metrics}"
        );
        report.backlog
    })
    .await;
    assert_eq!(
        (known.rows, known.capped),
        (ROWS, false),
        "the first known number is the right one"
    );
    let report = relay.report().await.expect("a report");
    assert_eq!(report.lanes, 64);
    let metrics = relay.metrics().await;
    assert!(
        metrics.contains(&format!("\noutbox_queue_depth {ROWS}\n")),
        "{metrics}"
    );
}
