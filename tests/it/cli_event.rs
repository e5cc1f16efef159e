//! One event, followed: `outbox-relay event`, and the log lines of relay and commands about it.

use outbox_relay::settings::{OnPoison, TopicSettings};
use serde_json::Value;

use crate::{
    cli::{Cli, stderr, with_settings},
    harness::{
        kafka::{create_topic_with, delete_topic, topic_name},
        postgres::{Database, value},
        relay::{Relay, until},
    },
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Writes an event whose key, payload and one header are secret. Returns its event_id.
async fn write(database: &Database, topic: &str, payload: &str) -> String {
    let mut owner = database.connect_as(&database.owner).await;
    let sql = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload, headers)
         values ('file', 'secret-key', E'Uploaded\\nERROR', '{topic}', convert_to({payload}, 'UTF8'),
           '{{\"correlation_id\": \"6f1c\", \"token\": \"secret-header\",
             \"traceparent\": \"00-{TRACE}-00f067aa0ba902b7-01\"}}')
         returning event_id::text"
    );
    value(&mut owner, &sql).await
}

/// The fields of the log line about an event, which has nothing secret.
fn line(log: &str, event_id: &str) -> Option<Value> {
    let line = log.lines().find(|line| line.contains(event_id))?;
    assert!(!line.contains("secret"), "{line}");
    Some(serde_json::from_str(line).expect("JSON"))
}

fn assert_ids(line: &Value, topic: &str) {
    let ids = ["topic", "event_type", "correlation_id", "trace_id"];
    let found = ids.map(|field| line[field].as_str().unwrap_or("absent"));
    assert_eq!(found, [topic, "Uploaded\\nERROR", "6f1c", TRACE], "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_event_can_be_followed_by_its_ids() {
    let (database, topic) = (
        Database::create(15).await.migrated().await,
        topic_name("event"),
    );
    create_topic_with(&topic, 1, &[("max.message.bytes", "1000")]).await;
    let settings = database.publishing(vec![TopicSettings {
        name: topic.clone(),
        event_types: vec![],
        aggregate_types: vec![],
        on_poison: OnPoison::default(),
    }]);
    let event_id = write(
        &database,
        &topic,
        "(select string_agg(gen_random_uuid()::text, '') from generate_series(1, 200))",
    )
    .await;
    let relay = Relay::start(&database, &settings).await;
    let parked = until("the line of the relay", async || {
        line(&relay.log(), &event_id)
    })
    .await;
    assert_ids(&parked, &topic);
    assert_eq!(
        (parked["level"].as_str(), parked["class"].as_str()),
        (Some("ERROR"), Some("RecordTooLarge"))
    );

    let event = |event_id: &str| {
        let command = format!("event {event_id} --output json");
        let output = with_settings(&database, &settings, &command);
        let reports: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (
            output.status.code().expect("an exit code"),
            reports[0].clone(),
        )
    };
    let state = |event_id: &str| event(event_id).1;
    let report = state(&event_id);
    assert_eq!(report["state"], "parked", "{report}");
    let behind = write(&database, &topic, "'{}'").await;
    let report = state(&behind);
    assert_eq!(report["state"], "parked", "{report}");
    let why = report["why"].as_str().expect("a reason");
    assert!(
        why.contains(&event_id) && why.contains("RecordTooLarge"),
        "{why}"
    );

    let owner = Cli::new(&database);
    let skipped = owner.run("parked skip --all --yes");
    assert_ids(&line(&stderr(&skipped), &event_id).expect("a line"), &topic);
    assert_eq!(state(&event_id)["state"], "dead");
    until("the other row to go", async || {
        (event(&behind).0 == 3).then_some(())
    })
    .await;
    let discarded = owner.run("dead-letters discard --all --yes");
    let discarded = line(&stderr(&discarded), &event_id).expect("a line");
    assert_ids(&discarded, &topic);
    assert_eq!(discarded["message"], "discarded");
    assert_eq!(state(&event_id)["state"], "gone");
    delete_topic(&topic).await;
}
