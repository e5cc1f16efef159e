//! Records as consumers read them: headers, timestamps, tombstones. docs/records.md describes them
//! for users.

use std::time::SystemTime;

use outbox_relay::settings::{OnPoison, RecordHeaders, RelaySettings, TopicSettings};

use crate::harness::{
    kafka::{KafkaVersion, topic_name},
    outbox::wait_until_drained,
    postgres::{Database, execute, value},
    relay::{Relay, until},
    rig::rig,
};

/// Starts a relay with a topic of one partition, so that records have the order of their rows.
async fn begin(
    kafka: KafkaVersion,
    style: RecordHeaders,
    properties: &[(&str, &str)],
) -> (Database, RelaySettings, String) {
    let database = Database::create(15).await.migrated().await;
    let topic = topic_name("records");
    kafka.create_topic_with(&topic, 1, properties).await;
    let mut settings = database.publishing_to(
        kafka,
        vec![TopicSettings {
            name: topic.clone(),
            event_types: vec![],
            aggregate_types: vec![],
            on_poison: OnPoison::Block,
        }],
    );
    settings.record_headers = style;
    (database, settings, topic)
}

/// Writes rows of one key. Each has the values of the columns after `aggregate_id`.
async fn insert(database: &Database, topic: &str, rows: &[&str]) {
    for row in rows {
        let sql = format!(
            "insert into outbox.event (topic, event_type, event_key, aggregate_type, event_id, \
             aggregate_id, payload, headers, created_at)
             values ('{topic}', 'Uploaded', 'key', 'file', {row})"
        );
        execute(&mut database.as_admin().await, &sql).await;
    }
}

fn id(last: u8) -> String {
    format!("'00000000-0000-0000-0000-0000000000{last:02}'")
}

/// Reads the records with the CloudEvents SDK for Java. Returns a line for each.
async fn as_cloud_events(topic: &str) -> Vec<String> {
    let mut read = std::process::Command::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/cloudevents/read"
    ));
    read.args([&rig("RIG_KAFKA"), topic]);
    let output = tokio::task::spawn_blocking(move || read.output())
        .await
        .expect("joined")
        .expect("the script");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cloud_events_sdk_reads_every_record_of_that_style() {
    let (database, settings, topic) =
        begin(KafkaVersion::V4_3, RecordHeaders::CloudEvents, &[]).await;
    let forged = concat!(
        r#"{"content-type": "application/cloudevents+json", "CE_ID": "forged", "#,
        r#""ce_source": "forged"}"#,
    );
    let rows = [
        format!(
            concat!(
                r#"{}, 'f1', '{{}}', '{{"content-type": "application/json", "ce_attempt": 2, "#,
                r#""trace": "t"}}', '2026-01-02 03:04:05.678901+00'"#,
            ),
            id(1)
        ),
        format!("{}, 'f1', null, '{{}}', '2026-01-02 03:04:05+00'", id(2)),
        format!("{}, '', 'text', '{forged}', '-infinity'", id(3)),
        format!("{}, 'ä', '', '{{}}', 'infinity'", id(4)),
    ];
    insert(&database, &topic, &rows.each_ref().map(String::as_str)).await;
    let _relay = Relay::start(&database, &settings).await;
    wait_until_drained(&database).await;
    let line = |last: u8, rest: &str, time: &str, data: &str| {
        let id = id(last);
        let id = id.trim_matches('\'');
        rest.replace(
            "ID",
            &format!("id={id} source=/outbox/essays/file-service specversion=1.0"),
        )
        .replace("TIME", &format!("time={time} type=Uploaded"))
            + &format!("data={data}")
    };
    let expected = [
        line(
            1,
            "datacontenttype=application/json ID subject=f1 TIME attempt=2 ",
            "2026-01-02T03:04:05.678901Z",
            "{}",
        ),
        line(2, "ID subject=f1 TIME ", "2026-01-02T03:04:05Z", "none"),
        line(3, "ID TIME ", "0001-01-01T00:00Z", "text"),
        line(
            4,
            "ID subject=ä TIME ",
            "9999-12-31T23:59:59.999999Z",
            "none",
        ),
    ];
    assert_eq!(as_cloud_events(&topic).await, expected);
    // The SDK does not distinguish an empty value from none. Kafka does.
    let values: Vec<_> = KafkaVersion::V4_3
        .read(&topic)
        .await
        .into_iter()
        .map(|record| record.value.map(|value| value.len()))
        .collect();
    assert_eq!(values, [Some(2), None, Some(4), Some(0)]);
}

on_each_kafka!(a_tombstone_has_no_value_and_all_headers_in_each_style);
async fn a_tombstone_has_no_value_and_all_headers_in_each_style(kafka: KafkaVersion) {
    for (style, expected) in [
        (RecordHeaders::Standard, "event_id"),
        (RecordHeaders::Debezium, "id"),
        (RecordHeaders::CloudEvents, "ce_id"),
    ] {
        let (database, settings, topic) = begin(kafka, style, &[]).await;
        insert(
            &database,
            &topic,
            &[&format!(
                r#"{}, 'f1', null, '{{"why": "gone"}}', now()"#,
                id(1)
            )],
        )
        .await;
        let _relay = Relay::start(&database, &settings).await;
        wait_until_drained(&database).await;
        let records = kafka.read(&topic).await;
        assert_eq!(
            (records.len(), &records[0].value, records[0].key.as_str()),
            (1, &None, "key"),
            "{style:?}"
        );
        let headers = &records[0].headers;
        assert_eq!(
            (
                headers["why"].as_str(),
                headers[expected].as_str(),
                headers["outbox_seq"].as_str()
            ),
            ("gone", id(1).trim_matches('\''), "1")
        );
    }
}

on_each_kafka!(a_time_far_from_now_stays_in_the_header_and_is_the_nearest_one_on_the_record);
async fn a_time_far_from_now_stays_in_the_header_and_is_the_nearest_one_on_the_record(
    kafka: KafkaVersion,
) {
    let (database, settings, topic) = begin(kafka, RecordHeaders::Standard, &[]).await;
    let hours = |shift: &str| {
        format!("gen_random_uuid(), 'f1', 'x', '{{}}', date_trunc('second', now()) {shift}")
    };
    let rows = [
        hours("+ interval '2 hours'"),
        hours("- interval '1 year'"),
        hours("- interval '20 minutes'"),
    ];
    insert(&database, &topic, &rows.each_ref().map(String::as_str)).await;
    let mut admin = database.as_admin().await;
    let shown = "to_char(created_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let times = crate::harness::postgres::values::<String>(
        &mut admin,
        &format!("select {shown} from outbox.event order by id"),
    )
    .await;
    let _relay = Relay::start(&database, &settings).await;
    wait_until_drained(&database).await;
    let records = kafka.read(&topic).await;
    let headers: Vec<_> = records
        .iter()
        .map(|record| record.headers["outbox_created_at"].clone())
        .collect();
    assert_eq!(headers, times);
    let now_ms = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as i64;
    let ages_min: Vec<_> = records
        .iter()
        .map(|record| (now_ms - record.timestamp_ms.expect("a time")) / 60_000)
        .collect();
    assert!(
        ages_min[0] < 10 && (30..40).contains(&ages_min[1]) && (20..30).contains(&ages_min[2]),
        "{ages_min:?}"
    );
}

on_each_kafka!(headers_of_each_kind_of_json_arrive);
async fn headers_of_each_kind_of_json_arrive(kafka: KafkaVersion) {
    let (database, settings, topic) = begin(kafka, RecordHeaders::Standard, &[]).await;
    let headers = concat!(
        r#"{"": "no name", "n": 1.10, "b": true, "z": null, "a": [1, "x"], "o": "#,
        r#"{"k": {"l": []}}, "Outbox_Seq": "forged", "event_id": 7, "Ö": "ö"}"#,
    );
    insert(
        &database,
        &topic,
        &[&format!("{}, 'f1', 'x', '{headers}', now()", id(1))],
    )
    .await;
    let relay = Relay::start(&database, &settings).await;
    wait_until_drained(&database).await;
    let records = kafka.read(&topic).await;
    let mut found = records[0].headers.clone();
    assert!(
        ["event_id", "outbox_created_at", "outbox_seq"]
            .iter()
            .all(|ours| found.remove(*ours).is_some())
    );
    let expected = [
        ("", "no name"),
        ("a", r#"[1, "x"]"#),
        ("aggregate_id", "f1"),
        ("aggregate_type", "file"),
        ("b", "true"),
        ("event_type", "Uploaded"),
        ("n", "1.10"),
        ("o", r#"{"k": {"l": []}}"#),
        ("z", ""),
        ("Ö", "ö"),
    ];
    assert_eq!(
        found,
        expected
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    );
    assert_eq!(relay.metric("outbox_replaced_headers_total").await, 2.0);
}

on_each_kafka!(a_megabyte_of_headers_and_a_long_key_are_published_if_the_topic_accepts_them);
/// 1 MB of headers makes a record of 1 MB with any payload.
async fn a_megabyte_of_headers_and_a_long_key_are_published_if_the_topic_accepts_them(
    kafka: KafkaVersion,
) {
    let large = "gen_random_uuid(), repeat('k', 100000), 'x', jsonb_build_object('large', \
        repeat('h', 1100000)), now()";
    let (database, mut settings, topic) = begin(
        kafka,
        RecordHeaders::Standard,
        &[("max.message.bytes", "5000000")],
    )
    .await;
    let strict = topic_name("strict");
    kafka
        .create_topic_with(&strict, 1, &[("max.message.bytes", "20000")])
        .await;
    settings.topics.push(TopicSettings {
        name: strict,
        event_types: vec![],
        aggregate_types: vec![],
        on_poison: OnPoison::Block,
    });
    insert(&database, &topic, &[large]).await;
    let _relay = Relay::start(&database, &settings).await;
    wait_until_drained(&database).await;
    let records = kafka.read(&topic).await;
    assert_eq!(
        (
            records.len(),
            records[0].headers["large"].len(),
            records[0].headers["aggregate_id"].len()
        ),
        (1, 1_100_000, 100_000)
    );
}

on_each_kafka!(a_record_whose_headers_no_topic_accepts_parks_its_key_and_is_never_quoted);
async fn a_record_whose_headers_no_topic_accepts_parks_its_key_and_is_never_quoted(
    kafka: KafkaVersion,
) {
    let (database, settings, topic) = begin(kafka, RecordHeaders::Standard, &[]).await;
    insert(
        &database,
        &topic,
        &[
            "gen_random_uuid(), 'f1', 'x', jsonb_build_object('secret', (select \
        string_agg(md5(n::text), '') from generate_series(1, 70000) n)), now()",
        ],
    )
    .await;
    let relay = Relay::start(&database, &settings).await;
    let mut admin = database.as_admin().await;
    until("the key to be parked", async || {
        (value::<i64>(&mut admin, "select count(*) from outbox.parked_key").await == 1)
            .then_some(())
    })
    .await;
    let report = relay.report().await.expect("a report");
    assert!(!format!("{report:?}").contains("secret"), "{report:?}");
    assert!(!relay.log().contains("secret"), "{}", relay.log());
    assert_eq!(
        value::<i64>(
            &mut database.as_admin().await,
            "select count(*) from outbox.event"
        )
        .await,
        1
    );
    assert_eq!(kafka.read(&topic).await.len(), 0);
}
