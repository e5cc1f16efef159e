//! The seven services of `examples/services`: each one's table is adopted while the service goes on
//! writing, and every row becomes the record that its consumers expect. The settings come from the
//! examples, with the addresses of the rig.
//!
//! Topics have the services' own names. Several services, and all runs of these tests, share them:
//! a test looks only at records with its own keys, which are random.

mod library;
mod old_worker;
mod services;
mod writers;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    process::Command,
};

use outbox_relay::{kafka::partition_of, manifest, settings::RelaySettings};
use serde_json::Value;
use sqlx::Row as _;
use uuid::Uuid;

use self::{
    library::Row,
    old_worker::{BATCH, OldWorker},
    services::Service,
    writers::{Writer, Writers},
};
use crate::{
    cli::{stderr, with_settings},
    harness::{
        kafka::{Record, ensure_topic, partitions_of, read_all, topic_name},
        outbox::wait_until_drained,
        postgres::{Database, execute, refused, value},
        relay::Relay,
        rig::rig,
    },
};

/// Partitions of each topic, as in the examples.
const PARTITIONS: usize = 3;
/// Writers of a service.
const WRITERS: u32 = 4;
/// Changes of each writer before the adoption, and after it.
const CHANGES: u32 = 5;

fn folder(service: &Service) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("examples/services")
        .join(service.name)
}

/// A service with its database, its table and its topics, before its table is adopted.
struct Stage {
    service: &'static Service,
    database: Database,
    settings: RelaySettings,
}

impl Stage {
    async fn begin(service: &'static Service) -> Self {
        let database = Database::create(15).await;
        let mut admin = database.as_admin().await;
        let owned = format!(
            "alter database {} owner to {}",
            database.name, database.producer
        );
        execute(&mut admin, &owned).await;
        execute(&mut admin, &roles(service, &database)).await;
        let mut app = database.connect_as(&database.producer).await;
        execute(&mut app, &service.generation.create_table()).await;
        execute(&mut app, "create table business (changed timestamptz)").await;
        let file = folder(service).join("outboxrelay.yaml");
        let (example, _) = manifest::load(&file, None, "test").expect("an example");
        for topic in &example.topics {
            ensure_topic(&topic.name, PARTITIONS as i32).await;
        }
        let mut settings = database.publishing(example.topics);
        settings.migration.adopt = example.migration.adopt;
        Self {
            service,
            database,
            settings,
        }
    }

    async fn writer(&self) -> Writer {
        Writer {
            connection: self.database.connect_as(&self.database.producer).await,
            service: self.service,
            id: Uuid::new_v4(),
        }
    }

    /// Makes a change, and then what the old worker does with its rows.
    async fn rows_of_the_old_worker(&self, what: &str) -> Vec<Row> {
        let mut writer = self.writer().await;
        let rows = writer.change(0).await.expect("the service can write");
        let ids: Vec<String> = rows.iter().map(|row| format!("'{}'", row.id)).collect();
        let update = format!(
            "update event_outbox set {what} where id in ({})",
            ids.join(", ")
        );
        execute(&mut writer.connection, &update).await;
        rows
    }

    /// Result of `adopt --dry-run` for the table.
    fn dry_run(&self) -> Value {
        let output = with_settings(
            &self.database,
            &self.settings,
            "adopt --dry-run --output json",
        );
        assert!(output.status.success(), "{}", stderr(&output));
        let mut tables: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(tables.len(), 1, "{tables:?}");
        tables.remove(0)
    }

    async fn adopt(&self) {
        let report = self.database.migrate(&self.settings).await;
        assert_eq!(report.problem, None);
    }

    async fn wait_until_drained(&self) {
        wait_until_drained(&self.database).await;
        let mut admin = self.database.as_admin().await;
        let letters: i64 = value(&mut admin, "select count(*) from outbox.dead_letter").await;
        assert_eq!(letters, 0, "dead letters");
    }

    /// Sends what the service sends straight to Kafka through the outbox, since its topics are
    /// declared. Returns topics and keys.
    async fn enqueue_straight(&self) -> Vec<(String, String)> {
        let mut app = self.database.connect_as(&self.database.producer).await;
        let mut sent = Vec::new();
        for topic in self.service.straight {
            let key = Uuid::new_v4().to_string();
            let enqueue = format!(
                "select outbox.enqueue(aggregate_type => 'any', aggregate_id => '{key}', \
                 event_type => '{topic}', payload => '{{}}', topic => '{topic}')"
            );
            execute(&mut app, &enqueue).await;
            sent.push(((*topic).to_owned(), key));
        }
        sent
    }

    /// `created_at` of all rows, as the header has it.
    async fn created(&self) -> HashMap<Uuid, String> {
        let all = "select id, to_char(created_at at time zone 'utc', \
            'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from event_outbox";
        let rows = sqlx::query(all)
            .fetch_all(&mut self.database.as_admin().await)
            .await;
        let rows = rows.expect("the table");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    async fn unpublished(&self) -> i64 {
        let count = "select count(*) from event_outbox where published_at is null";
        value(&mut self.database.as_admin().await, count).await
    }
}

/// The service's `roles.sql` for the roles of a test, which exist already.
fn roles(service: &Service, database: &Database) -> String {
    let sql = std::fs::read_to_string(folder(service).join("roles.sql")).expect("roles.sql");
    let sql = sql
        .replace(service.database, &database.name)
        .replace(&format!("{}_app", service.roles), &database.producer)
        .replace(&format!("{}_outbox", service.roles), &database.owner)
        .replace(&format!("{}_relay", service.roles), &database.relay);
    let (made, granted): (Vec<&str>, Vec<&str>) = sql
        .lines()
        .partition(|line| line.starts_with("create role"));
    assert_eq!(made.len(), 2, "{sql}");
    granted.join("\n")
}

/// All records of the topics, by topic.
async fn read(topics: Vec<String>) -> BTreeMap<String, Vec<Record>> {
    let read = move || {
        topics
            .into_iter()
            .map(|topic| (topic.clone(), read_all(&topic)))
            .collect()
    };
    tokio::task::spawn_blocking(read).await.expect("read")
}

/// Rows in the order in which they were committed, by topic and key.
fn by_place(rows: &[Row]) -> BTreeMap<(String, String), Vec<&Row>> {
    let mut places: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        places.entry(row.place()).or_default().push(row);
    }
    places
}

/// Compares a row with its record: everything that a consumer sees.
fn compare(row: &Row, record: &Record, created_at: &str) {
    let value = record.value.as_deref().unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(value), row.value());
    let mut headers = record.headers.clone();
    headers.remove("outbox_seq").expect("the header");
    assert_eq!(
        headers.remove("outbox_created_at").as_deref(),
        Some(created_at)
    );
    assert_eq!(headers, row.headers(), "headers of {:?}", row.place());
}

fn compare_all(
    rows: &[Row],
    records: &BTreeMap<String, Vec<Record>>,
    created: &HashMap<Uuid, String>,
) {
    for ((topic, key), rows) in by_place(rows) {
        let found: Vec<&Record> = records[&topic]
            .iter()
            .filter(|record| record.key == key)
            .collect();
        assert_eq!(found.len(), rows.len(), "records of {key} in {topic}");
        for (row, record) in rows.iter().zip(&found) {
            compare(row, record, &created[&row.id]);
            let partition = partition_of(key.as_bytes(), PARTITIONS);
            assert_eq!(record.partition as usize, partition, "{key} in {topic}");
        }
        let numbers = found
            .iter()
            .map(|record| record.headers["outbox_seq"].parse::<i64>());
        let numbers: Vec<i64> = numbers.collect::<Result<_, _>>().expect("numbers");
        assert!(numbers.is_sorted(), "{key} in {topic}: {numbers:?}");
    }
}

/// Adopts the table of a service under load, compares all records, and goes back.
async fn moves(service: &'static Service) {
    moves_on(Stage::begin(service).await).await;
}

async fn moves_on(stage: Stage) {
    // Of a service that passes its session, these rows have the same `created_at`.
    let first = stage.writer().await.changes(0..10).await;
    let first = first.expect("the service can write");
    let published = stage.rows_of_the_old_worker("published_at = now()").await;
    let given_up = "retry_count = 5, last_error = 'KafkaTimeoutError'";
    let given_up = stage.rows_of_the_old_worker(given_up).await;
    let writers = Writers::start(&stage.database, stage.service, WRITERS).await;
    writers.wait_for_changes(CHANGES).await;
    check_dry_run(&stage, given_up.len());

    let before = writers.changes();
    stage.adopt().await;
    let during = writers.changes() - before;
    assert!(during > 0, "no row came during the adoption");
    let mut relay = Relay::start(&stage.database, &stage.settings).await;
    writers.wait_for_changes(CHANGES).await;
    let mut rows = writers.stop().await;
    rows.extend(given_up.into_iter().chain(first));
    let straight = stage.enqueue_straight().await;
    stage.wait_until_drained().await;

    assert_eq!(stage.unpublished().await, 0);
    let topics = stage.settings.topics.iter();
    let records = read(topics.map(|topic| topic.name.clone()).collect()).await;
    let is_seen =
        |(topic, key): &(String, String)| records[topic].iter().any(|record| record.key == *key);
    compare_all(&rows, &records, &stage.created().await);
    let mut of_old_worker = published.iter().map(Row::place);
    assert!(
        !of_old_worker.any(|place| is_seen(&place)),
        "published twice"
    );
    assert!(straight.iter().all(is_seen), "{straight:?}");
    assert_eq!(relay.metric("outbox_replaced_headers_total").await, 0.0);
    relay.stop().await;
    goes_back(stage).await;
}

fn check_dry_run(stage: &Stage, given_up: usize) {
    let found = stage.dry_run();
    assert_eq!(found["exhausted"], given_up, "{found}");
    assert_eq!(found["faults"].as_array().map(Vec::len), Some(0), "{found}");
    let topics = found["topics"].as_array().expect("a list");
    for topic in stage.service.topics() {
        let count = topics.iter().find(|count| count["topic"] == topic);
        let count = count.unwrap_or_else(|| panic!("{topic}: {found}"));
        assert_eq!(count["isDeclared"], true, "{topic}");
    }
    assert_eq!(topics.len(), stage.service.topics().count(), "{found}");
}

/// Takes the table out of the manifest: rows that wait are unpublished rows of the table again.
async fn goes_back(mut stage: Stage) {
    let mut writer = stage.writer().await;
    let rows = writer.change(0).await.expect("the service can write");
    assert_eq!(stage.unpublished().await, 0);
    stage.settings.migration.adopt.clear();
    stage.adopt().await;
    assert_eq!(stage.unpublished().await, rows.len() as i64);
    let later = writer.change(1).await.expect("the service can write");
    let waiting = (rows.len() + later.len()) as i64;
    assert_eq!(stage.unpublished().await, waiting);
}

/// Adopts the table of a service whose old worker goes on, as in a rollout. Nothing is lost, and at
/// most what the worker had in flight at that moment is published twice.
async fn runs_beside_its_old_worker(service: &'static Service) {
    let stage = Stage::begin(service).await;
    let worker = OldWorker::start(&stage.database, service.generation).await;
    let writers = Writers::start(&stage.database, service, WRITERS).await;
    writers.wait_for_changes(2 * CHANGES).await;
    stage.adopt().await;
    let _relay = Relay::start(&stage.database, &stage.settings).await;
    writers.wait_for_changes(CHANGES).await;
    let rows = writers.stop().await;
    stage.wait_until_drained().await;
    let sent = worker.stop().await;
    let records = read(service.topics().map(str::to_owned).collect()).await;
    let created = stage.created().await;
    let mut twice = 0;
    for ((topic, key), rows) in by_place(&rows) {
        let records = records[&topic].iter().filter(|record| record.key == key);
        twice += compare_with_two_senders(&rows, &records.collect::<Vec<_>>(), &sent, &created);
    }
    eprintln!(
        "old worker: {}, of all {} rows: {twice} twice",
        sent.len(),
        rows.len()
    );
    assert!(!sent.is_empty() && sent.len() < rows.len());
    assert!(twice <= BATCH, "{twice} rows were published twice");
}

/// Compares the rows of a key with their records: the first ones are the old worker's, the last
/// ones the relay's. Returns how many rows have two records.
fn compare_with_two_senders(
    rows: &[&Row],
    records: &[&Record],
    sent: &HashSet<Uuid>,
    created: &HashMap<Uuid, String>,
) -> usize {
    let is_relays = |record: &&&Record| record.headers.contains_key("outbox_seq");
    let (of_relay, of_worker): (Vec<&Record>, Vec<&Record>) = records.iter().partition(is_relays);
    let by_worker = rows.partition_point(|row| sent.contains(&row.id));
    assert_eq!(of_worker.len(), by_worker, "records of the old worker");
    assert!(of_relay.len() + by_worker >= rows.len(), "rows are lost");
    let first_of_relay = rows.len() - of_relay.len();
    for (row, record) in rows[first_of_relay..].iter().zip(&of_relay) {
        compare(row, record, &created[&row.id]);
    }
    by_worker - first_of_relay
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_service_runs_beside_its_old_worker() {
    runs_beside_its_old_worker(&services::FILE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn essay_lifecycle_service_runs_beside_its_old_worker() {
    runs_beside_its_old_worker(&services::ESSAY_LIFECYCLE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_service_moves() {
    moves(&services::FILE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn essay_lifecycle_service_moves() {
    moves(&services::ESSAY_LIFECYCLE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_orchestrator_service_moves() {
    moves(&services::BATCH_ORCHESTRATOR).await;
}

/// The index that `cj-assessment-service` has beside those of the others.
const COMPLETION_INDEX: &str = "create unique index uq_event_outbox_waiting on event_outbox \
    (aggregate_id, event_type) where published_at is null";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cj_assessment_service_moves() {
    let stage = Stage::begin(&services::CJ_ASSESSMENT).await;
    let mut app = stage.database.connect_as(&stage.database.producer).await;
    execute(&mut app, COMPLETION_INDEX).await;
    moves_on(stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn result_aggregator_service_moves() {
    moves(&services::RESULT_AGGREGATOR).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spellchecker_service_moves() {
    moves(&services::SPELLCHECKER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn class_management_service_moves() {
    moves(&services::CLASS_MANAGEMENT).await;
}

/// A completion event of one aggregate.
fn completion(event_type: &str) -> String {
    format!(
        "insert into event_outbox (aggregate_id, aggregate_type, event_type, event_data, topic) \
         values ('cj-1', 'cj_batch', '{event_type}', '{{}}', 'huleedu.cj_assessment.completed.v1')"
    )
}

#[tokio::test]
async fn the_index_of_the_example_refuses_double_completions_after_the_adoption() {
    let stage = Stage::begin(&services::CJ_ASSESSMENT).await;
    let mut app = stage.database.connect_as(&stage.database.producer).await;
    execute(&mut app, COMPLETION_INDEX).await;
    let completed = completion("huleedu.cj_assessment.completed.v1");
    execute(&mut app, &completed).await;
    assert_eq!(refused(&mut app, &completed).await, "23505");
    let indexes = &stage.dry_run()["partialUniqueIndexes"];
    assert_eq!(indexes.as_array().map(Vec::len), Some(1), "{indexes}");
    let name = indexes[0].as_str().expect("a name");
    assert!(name.ends_with("uq_event_outbox_waiting"), "{name}");

    let script = folder(stage.service).join("completion-index.sql");
    let script = std::fs::read_to_string(script).expect("the script");
    // A text with several statements is one transaction, and the index is made outside of one.
    for statement in script.split(";\n") {
        execute(&mut app, statement).await;
    }
    stage.adopt().await;
    assert_eq!(refused(&mut app, &completed).await, "23505");
    // The old index guards nothing any more, and the new one leaves other types alone.
    let published = completion("assessment.result.published");
    execute(&mut app, &published).await;
    execute(&mut app, &published).await;
}

/// Runs `topics.sh` with names that no other test uses.
#[tokio::test]
async fn the_script_of_an_example_creates_its_topics() {
    let script = folder(&services::SPELLCHECKER).join("topics.sh");
    let prefix = topic_name("script.");
    let script = std::fs::read_to_string(script)
        .expect("topics.sh")
        .replace("\thuleedu.", &format!("\t{prefix}"));
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rig/kafka/tool");
    let script = format!("kafka_topics() {{ '{tool}' topics \"$@\"; }}\n{script}");
    let mut run = Command::new("bash");
    run.args(["-c", &script])
        .env("RIG", rig("RIG"))
        .env("KAFKA", rig("RIG_KAFKA"))
        .env("KAFKA_TOPICS", "kafka_topics");
    let output = tokio::task::spawn_blocking(move || run.output())
        .await
        .expect("joined")
        .expect("bash");
    assert!(output.status.success(), "{}", stderr(&output));
    for topic in services::SPELLCHECKER.topics() {
        let topic = topic.replace("huleedu.", &prefix);
        assert_eq!(partitions_of(&topic), PARTITIONS, "{topic}");
    }
}
