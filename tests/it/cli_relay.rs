//! Administration commands while a relay runs: rows that are parked and published again.

use std::process::Output;

use outbox_relay::settings::{OnPoison, RelaySettings, TopicSettings};
use serde_json::Value;
use sqlx::PgConnection;

use crate::{
    cli::{stderr, with_settings},
    harness::{
        kafka::{alter_topic, create_topic, create_topic_with, read_all, topic_name},
        postgres::{Database, execute, value},
        relay::{Relay, until},
    },
};

/// Runs the program with these settings. Returns its output.
fn run_command(database: &Database, settings: &RelaySettings, command: &str) -> String {
    let output: Output = with_settings(database, settings, command);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{command}: {}",
        stderr(&output)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn blocking(name: &str) -> TopicSettings {
    TopicSettings {
        name: name.to_owned(),
        event_types: vec![],
        aggregate_types: vec![],
        on_poison: OnPoison::Block,
    }
}

/// Writes rows 1 to 50 of this topic, row n with key `k<n % 5>`. Row number `large` has 300 kB that
/// do not compress.
async fn insert(admin: &mut PgConnection, topic: &str, large: u32) {
    let sql = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
         select 'a', 'k' || n % 5, 'E', '{topic}', case when n = {large}
           then (select string_agg(sha256(int4send(g)), '') from generate_series(1, 9500) g) \
           else convert_to(n::text, 'UTF8') end
         from generate_series(1, 50) n order by n"
    );
    execute(admin, &sql).await;
}

async fn waiting(admin: &mut PgConnection, expected: i64) {
    until(&format!("{expected} rows"), async || {
        let rows = value::<i64>(admin, "select count(*) from outbox.event").await;
        (rows == expected).then_some(())
    })
    .await;
}

/// The numbers of a key's records, only first occurrences. The large one is 0.
async fn numbers(topic: &str, key: &str) -> Vec<u32> {
    let name = topic.to_owned();
    let records = tokio::task::spawn_blocking(move || read_all(&name))
        .await
        .expect("read");
    let mut numbers = Vec::new();
    for record in records.iter().filter(|record| record.key == key) {
        let number = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default())
            .parse()
            .unwrap_or(0);
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_row_is_retried_skipped_and_requeued_while_a_relay_runs() {
    let database = Database::create(17).await.migrated().await;
    let name = topic_name("oncall");
    create_topic_with(&name, 3, &[("max.message.bytes", "100000")]).await;
    let settings = database.publishing(vec![blocking(&name)]);
    let mut admin = database.as_admin().await;
    insert(&mut admin, &name, 12).await;
    let _relay = Relay::start(&database, &settings).await;
    let parked = async || {
        until("the key to be parked", async || {
            let list: Value =
                serde_json::from_str(&run_command(&database, &settings, "parked list -o json"))
                    .expect("JSON");
            list[0]["key"]
                .as_str()
                .map(|key| format!("{key} {}", list[0]["class"].as_str().unwrap_or_default()))
        })
        .await
    };
    assert_eq!(parked().await, "k2 RecordTooLarge");
    // 12, 17, ... 47.
    waiting(&mut admin, 8).await;
    assert!(run_command(&database, &settings, "status").contains("1 parked key"));

    assert_eq!(
        run_command(&database, &settings, "parked retry --key k2 --yes"),
        "unparked 1 topic or key\n"
    );
    assert_eq!(parked().await, "k2 RecordTooLarge");
    waiting(&mut admin, 8).await;
    assert_eq!(
        run_command(&database, &settings, "parked skip --key k2 --yes"),
        "skipped 1 rejected row\n"
    );
    waiting(&mut admin, 0).await;
    assert_eq!(
        numbers(&name, "k2").await,
        [2, 7, 17, 22, 27, 32, 37, 42, 47]
    );

    alter_topic(&name, "max.message.bytes", "1000000").await;
    assert_eq!(
        run_command(
            &database,
            &settings,
            "dead-letters requeue --class RecordTooLarge --yes"
        ),
        "requeued 1 dead letter\n"
    );
    waiting(&mut admin, 0).await;
    assert_eq!(
        numbers(&name, "k2").await,
        [2, 7, 17, 22, 27, 32, 37, 42, 47, 0]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_parked_by_hand_wait_until_they_are_retried() {
    let database = Database::create(18).await.migrated().await;
    let (flowing, parked) = (topic_name("flows"), topic_name("rests"));
    create_topic(&flowing).await;
    create_topic(&parked).await;
    let settings = database.publishing(vec![blocking(&flowing), blocking(&parked)]);
    run_command(
        &database,
        &settings,
        &format!("parked add --topic {parked} --yes"),
    );
    run_command(
        &database,
        &settings,
        &format!("parked add --topic {flowing} --key k3 --yes"),
    );
    let mut admin = database.as_admin().await;
    insert(&mut admin, &flowing, 0).await;
    insert(&mut admin, &parked, 0).await;
    let relay = Relay::start(&database, &settings).await;
    waiting(&mut admin, 60).await;
    run_command(
        &database,
        &settings,
        &format!("parked retry --topic {flowing} --yes"),
    );
    waiting(&mut admin, 50).await;
    until("the parked topic in the report", async || {
        let is_reported = relay.report().await?.problems.iter().any(|problem| {
            problem
                .message
                .contains(&format!("parked retry --topic {parked}`"))
        });
        (is_reported
            && relay
                .get("/metrics")
                .await?
                .contains("\noutbox_parked_topics 1\n"))
        .then_some(())
    })
    .await;
    assert_eq!(
        numbers(&flowing, "k3").await,
        [3, 8, 13, 18, 23, 28, 33, 38, 43, 48]
    );
    assert_eq!(numbers(&parked, "k3").await, Vec::<u32>::new());
    run_command(&database, &settings, "parked retry --all --yes");
    waiting(&mut admin, 0).await;
    assert_eq!(
        numbers(&parked, "k3").await,
        [3, 8, 13, 18, 23, 28, 33, 38, 43, 48]
    );
}
