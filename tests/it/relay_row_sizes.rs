//! Rows that are large, too large, or not UTF-8: none of them stops another one.

use std::collections::{BTreeMap, BTreeSet};

use outbox_relay::report::ProblemClass;

use crate::harness::{
    kafka::{KafkaVersion, Record, topic_name},
    outbox::{topic, until_parked, until_rows},
    postgres::{Database, execute, values},
    relay::{Relay, until},
};

const KAFKA: KafkaVersion = KafkaVersion::V4_3;

/// Writes a row for each number `n`: key, payload and headers are SQL expressions of it.
pub(crate) async fn insert(
    database: &Database,
    topic: &str,
    rows: u32,
    [key, payload, headers]: [&str; 3],
) {
    let sql = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload, headers)
         select 'a', {key}, 'E', '{topic}', {payload}, {headers}
         from generate_series(1, {rows}) n order by n"
    );
    execute(&mut database.as_admin().await, &sql).await;
}

/// An expression for bytes that do not compress.
fn noise(bytes: usize) -> String {
    noise_up_to(bytes, &bytes.to_string())
}

/// An expression for bytes that do not compress: as many as this SQL expression says, up to `most`.
pub(crate) fn noise_up_to(most: usize, bytes: &str) -> String {
    let parts = most.div_ceil(32);
    format!(
        "(select substr(string_agg(sha256(convert_to(n || '-' || part, 'UTF8')), ''), 1, {bytes}) \
         from generate_series(1, {parts}) part)"
    )
}

/// Sizes of the values by key.
fn sizes(records: &[Record]) -> BTreeMap<&str, Vec<usize>> {
    let mut sizes: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for record in records {
        let size = record.value.as_ref().map_or(0, Vec::len);
        sizes.entry(&*record.key).or_default().push(size);
    }
    sizes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_all_sizes_are_published_in_the_order_of_their_keys() {
    let database = Database::create(15).await.migrated().await;
    let name = topic_name("sizes");
    KAFKA
        .create_topic_with(&name, 3, &[("max.message.bytes", "400000")])
        .await;
    // 100 bytes, then at most 64 KiB, then read by name, then too large unless it is compressed.
    let all = [100, 60_000, 200_000, 300, 390_000, 70_000];
    let mut rows = Vec::new();
    for (at, bytes) in all.iter().enumerate() {
        rows.push(format!("when {at} then {}", noise(*bytes)));
    }
    let payload = format!(
        "case n % 7 {} else convert_to(repeat('x', 2000000), 'UTF8') end",
        rows.join(" ")
    );
    let headers =
        "case when n % 10 = 3 then jsonb_build_object('h', repeat('y', 300000)) else '{}' end";
    insert(&database, &name, 140, ["'k' || n % 10", &payload, headers]).await;
    let _relay = Relay::start(&database, &database.publishing(vec![topic(&name)])).await;
    until_rows(&database, 0).await;
    let records = KAFKA.read(&name).await;
    let expected = |key: usize| {
        let rows = (1..=140_usize).filter(|n| n % 10 == key);
        rows.map(|n| all.get(n % 7).copied().unwrap_or(2_000_000))
            .collect::<Vec<_>>()
    };
    let sizes = sizes(&records);
    for key in 0..10 {
        assert_eq!(sizes[&*format!("k{key}")], expected(key), "key k{key}");
    }
    let headers = records.iter().filter(|record| record.key == "k3");
    assert!(
        headers
            .into_iter()
            .all(|record| record.headers["h"].len() == 300_000)
    );
}

/// Each row is in the way of a lane: 400 are rejected by their size alone, and none is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_too_large_by_their_size_are_parked_without_being_sent() {
    let database = Database::create(15).await.migrated().await;
    let (small, other) = (topic_name("small"), topic_name("other"));
    KAFKA
        .create_topic_with(&small, 3, &[("max.message.bytes", "10000")])
        .await;
    KAFKA.create_topic(&other).await;
    insert(
        &database,
        &small,
        400,
        [
            "'large' || n",
            "convert_to(repeat('x', 80001), 'UTF8')",
            "'{}'",
        ],
    )
    .await;
    insert(&database, &small, 400, ["'small' || n", "'x'", "'{}'"]).await;
    insert(&database, &other, 400, ["'other' || n", "'x'", "'{}'"]).await;
    let relay = Relay::start(
        &database,
        &database.publishing(vec![topic(&small), topic(&other)]),
    )
    .await;
    until_parked(&database, 400).await;
    until_rows(&database, 400).await;
    let mut admin = database.as_admin().await;
    let classes: Vec<String> =
        values(&mut admin, "select distinct class from outbox.parked_key").await;
    assert_eq!(classes, ["RecordTooLarge"]);
    assert_eq!(KAFKA.read(&small).await.len(), 400);
    assert_eq!(KAFKA.read(&other).await.len(), 400);
    let log = relay.log();
    assert!(!log.contains("Kafka did not accept a record"), "{log}");
}

/// A payload of 100 MB is never read: the relay would need several times its size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_row_is_parked_and_the_relay_stays_small() {
    let database = Database::create(15).await.migrated().await;
    let name = topic_name("huge");
    KAFKA.create_topic(&name).await;
    insert(
        &database,
        &name,
        1,
        [
            "'huge'",
            "convert_to(repeat('x', 100000000), 'UTF8')",
            "'{}'",
        ],
    )
    .await;
    insert(&database, &name, 100, ["'small' || n", "'x'", "'{}'"]).await;
    let relay = Relay::start(&database, &database.publishing(vec![topic(&name)])).await;
    until_parked(&database, 1).await;
    until_rows(&database, 1).await;
    assert!(
        relay.peak_memory() < 96 << 20,
        "{} bytes",
        relay.peak_memory()
    );
}

/// A key, and a column that is not part of the record's key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_that_are_too_long_are_rejected_without_being_read() {
    let database = Database::create(15).await.migrated().await;
    let name = topic_name("texts");
    KAFKA.create_topic(&name).await;
    insert(
        &database,
        &name,
        1,
        ["repeat('k', 20000000)", "'x'", "'{}'"],
    )
    .await;
    let long_type = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
         values ('a', 'type', repeat('t', 20000000), '{name}', 'x')"
    );
    execute(&mut database.as_admin().await, &long_type).await;
    insert(
        &database,
        &name,
        1,
        [
            "'headers'",
            "'x'",
            "jsonb_build_object('h', repeat('h', 20000000))",
        ],
    )
    .await;
    insert(&database, &name, 100, ["'small' || n", "'x'", "'{}'"]).await;
    let relay = Relay::start(&database, &database.publishing(vec![topic(&name)])).await;
    until_parked(&database, 3).await;
    until_rows(&database, 3).await;
    let mut admin = database.as_admin().await;
    let keys = "select left(key, 9) from outbox.parked_key order by 1";
    let keys: Vec<String> = values(&mut admin, keys).await;
    assert_eq!(keys, ["headers", "too-long:", "type"]);
    assert!(
        relay.peak_memory() < 96 << 20,
        "{} bytes",
        relay.peak_memory()
    );
    execute(
        &mut admin,
        "select outbox.skip_parked(topic, key) from outbox.parked_key",
    )
    .await;
    until_rows(&database, 0).await;
}

/// Rows with these columns that are not UTF-8, one each, beside ten ordinary rows.
async fn not_utf8(encoding: &str, byte: &str) {
    let database = Database::create_in(15, encoding).await.migrated().await;
    let name = topic_name("text");
    KAFKA.create_topic(&name).await;
    let mut admin = database.as_admin().await;
    let bad = format!("E'caf\\x{byte}'");
    let rows = [
        ("aggregate_id", format!("'a', {bad}, 'E', null, '{{}}'")),
        ("event_key", format!("'a', 'a1', 'E', {bad} || 'b', '{{}}'")),
        ("event_type", format!("'a', 'a2', {bad}, null, '{{}}'")),
        ("aggregate_type", format!("{bad}, 'a3', 'E', null, '{{}}'")),
        (
            "headers",
            format!("'a', 'a4', 'E', null, jsonb_build_object('h', {bad})"),
        ),
    ];
    for (_, values) in &rows {
        let sql = format!(
            "insert into outbox.event (topic, payload, aggregate_type, aggregate_id, event_type, \
             event_key, headers) values ('{name}', 'x', {values})"
        );
        // Two of each: the later one waits for the earlier one.
        execute(&mut admin, &sql).await;
        execute(&mut admin, &sql).await;
    }
    insert(&database, &name, 10, ["'ordinary' || n", "'x'", "'{}'"]).await;
    let relay = Relay::start(&database, &database.publishing(vec![topic(&name)])).await;
    until_parked(&database, 5).await;
    until_rows(&database, 10).await;
    assert_eq!(KAFKA.read(&name).await.len(), 10);
    let first = "select min(event_id::text) filter (where id = head_id) from outbox.event, \
        outbox.parked_key group by key order by key";
    let heads: Vec<Option<String>> = values(&mut admin, first).await;
    let problems = until("a problem for each row", async || {
        let problems = relay.report().await?.problems;
        let unreadable = problems
            .into_iter()
            .filter(|problem| problem.class == ProblemClass::RowUnreadable);
        let messages = unreadable.map(|problem| problem.message);
        // Another one counts the keys.
        let of_rows = messages.filter(|message| message.starts_with("the row with event_id"));
        Some(of_rows.collect::<Vec<_>>()).filter(|of| of.len() == 5)
    })
    .await;
    let all = problems.join("\n");
    for head in heads.into_iter().flatten() {
        assert!(all.contains(&head), "{head} is not in {all}");
    }
    for (column, _) in &rows {
        assert!(
            all.contains(&format!("column {column} ")),
            "{column} is not in {all}"
        );
    }
    // What comes later is published, too, and a skipped row lets its key go on.
    insert(&database, &name, 10, ["'later' || n", "'x'", "'{}'"]).await;
    until_rows(&database, 10).await;
    execute(
        &mut admin,
        "select outbox.skip_parked(topic, key) from outbox.parked_key",
    )
    .await;
    until("the second rows parked", async || {
        let keys: Vec<i64> = values(&mut admin, "select head_id from outbox.parked_key").await;
        let waiting: Vec<i64> = values(&mut admin, "select id from outbox.event").await;
        let same = keys.iter().collect::<BTreeSet<_>>() == waiting.iter().collect::<BTreeSet<_>>();
        (same && waiting.len() == 5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_is_not_utf8_parks_its_key_alone_in_sql_ascii() {
    not_utf8("SQL_ASCII", "e9").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_is_no_character_parks_its_key_alone_in_win1252() {
    not_utf8("WIN1252", "81").await;
}
