//! Relays and the rows of adopted tables: records, rows with a fault, and the deletion of old rows.

use outbox_relay::{
    outbox::{migrate, schema::LEVEL},
    settings::{AdoptSettings, OnPoison, RelaySettings, TopicSettings},
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, raw_sql};

use crate::{
    cli::{stderr, with_settings},
    harness::{
        adopted::{Generation, adopting, event_outbox},
        kafka::{Record, create_topic, read_all, topic_name},
        own_outbox::{events, insert_notes, note, numbers, with_note},
        postgres::{Database, execute, refused, value, values},
        relay::{Relay, until},
    },
};

/// Settings that adopt a table and publish to a topic of the rig's broker.
fn publishing(
    database: &Database,
    adopt: AdoptSettings,
    topic: &str,
    on_poison: OnPoison,
) -> RelaySettings {
    let topic = TopicSettings {
        name: topic.to_owned(),
        event_types: vec![],
        aggregate_types: vec![],
        on_poison,
    };
    let mut settings = database.publishing(vec![topic]);
    settings.migration.adopt = vec![adopt];
    settings
}

async fn insert(connection: &mut PgConnection, topic: &str, rows: &[(i64, &str, &str)]) {
    for (id, key, body) in rows {
        let sql = format!(
            "insert into note (id, topic, key, body) values ({id}, '{topic}', '{key}', '{body}')"
        );
        execute(connection, &sql).await;
    }
}

async fn waiting(connection: &mut PgConnection, expected: i64) {
    until(&format!("{expected} rows"), async || {
        let rows = value::<i64>(connection, "select count(*) from outbox.event").await;
        (rows == expected).then_some(())
    })
    .await;
}

async fn read(topic: &str) -> Vec<Record> {
    let topic = topic.to_owned();
    tokio::task::spawn_blocking(move || read_all(&topic))
        .await
        .expect("read")
}

/// Values of a key's records as text.
fn values_of(records: &[Record], key: &str) -> Vec<String> {
    let of_key = records.iter().filter(|record| record.key == key);
    let value = |record: &Record| record.value.clone().expect("a value");
    of_key
        .map(|record| String::from_utf8(value(record)).expect("UTF-8"))
        .collect()
}

/// Runs a command. Returns its JSON.
fn json(database: &Database, settings: &RelaySettings, command: &str) -> Value {
    let output = with_settings(database, settings, &format!("{command} --output json"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Hint that the server gives with an error.
async fn hint_of(connection: &mut PgConnection, sql: &str) -> String {
    let error = raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .expect_err("an error");
    let error = error.into_database_error().expect("of the server");
    let error = error.downcast::<sqlx::postgres::PgDatabaseError>();
    error.hint().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_with_a_fault_parks_its_key_and_other_keys_go_on() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    let topic = topic_name("adopted");
    create_topic(&topic).await;
    let settings = publishing(&database, note(), &topic, OnPoison::Block);
    assert_eq!(database.migrate(&settings).await.problem, None);
    let rows = [
        (1, "a", "a1"),
        (2, "a", "fault"),
        (3, "a", "a3"),
        (4, "b", "b4"),
    ];
    insert(&mut owner, &topic, &rows).await;
    let _relay = Relay::start(&database, &settings).await;
    waiting(&mut owner, 2).await;
    let parked = until("the parked key", async || {
        let parked = json(&database, &settings, "parked list");
        (!parked.as_array()?.is_empty()).then_some(parked)
    })
    .await;
    assert_eq!(
        (&parked[0]["key"], &parked[0]["class"]),
        (&"a".into(), &"AdoptionFailed".into())
    );
    insert(&mut owner, &topic, &[(5, "a", "a5"), (6, "b", "b6")]).await;
    waiting(&mut owner, 3).await;
    let records = read(&topic).await;
    assert_eq!(values_of(&records, "a"), ["a1"]);
    assert_eq!(values_of(&records, "b"), ["b4", "b6"]);

    // The way on: the row becomes a dead letter, later rows of the key are published.
    let skip = with_settings(&database, &settings, "parked skip --key a --yes");
    assert_eq!(skip.status.code(), Some(0), "{}", stderr(&skip));
    waiting(&mut owner, 0).await;
    assert_eq!(values_of(&read(&topic).await, "a"), ["a1", "a3", "a5"]);
    let letters = json(&database, &settings, "dead-letters list");
    assert_eq!(letters[0]["class"], "AdoptionFailed");
    let source = "select source_key ->> 'id' from outbox.dead_letter";
    assert_eq!(value::<String>(&mut owner, source).await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_with_a_fault_is_dead_lettered_where_on_poison_says_so_and_is_not_requeued() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    let topic = topic_name("adopted");
    create_topic(&topic).await;
    let settings = publishing(&database, note(), &topic, OnPoison::DeadLetter);
    // Rows that wait when the table is adopted are treated like new ones.
    let rows = [
        (1, "a", "a1"),
        (2, "a", "fault"),
        (3, "a", "a3"),
        (4, "b", "b4"),
    ];
    insert(&mut owner, &topic, &rows).await;
    assert_eq!(database.migrate(&settings).await.problem, None);
    let _relay = Relay::start(&database, &settings).await;
    waiting(&mut owner, 0).await;
    let records = read(&topic).await;
    assert_eq!(values_of(&records, "a"), ["a1", "a3"]);
    assert_eq!(values_of(&records, "b"), ["b4"]);
    assert_eq!(
        json(&database, &settings, "parked list"),
        Value::Array(vec![])
    );
    let letters = json(&database, &settings, "dead-letters show --show-payload");
    let letters = letters.as_array().expect("a list");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["class"], "AdoptionFailed");
    let text = letters[0].to_string();
    assert!(
        text.contains("SQLSTATE 22P02 in expression payload") && text.contains("fault"),
        "{text}"
    );

    // It holds no event, so it cannot be requeued, neither alone nor with others.
    let requeue = "select outbox.requeue(event_id) from outbox.dead_letter";
    assert_eq!(refused(&mut owner, requeue).await, "55000");
    assert_eq!(
        hint_of(&mut owner, requeue).await,
        "Correct migration.adopt, insert the row into its table again, then discard the dead \
         letter."
    );
    let output = with_settings(&database, &settings, "dead-letters requeue --all --yes");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = stderr(&output);
    assert!(
        text.starts_with("error: AdoptionFailed: ") && text.contains("correct migration.adopt"),
        "{text}"
    );
    assert_eq!(
        json(&database, &settings, "dead-letters list")[0]["key"],
        "a"
    );
    let output = with_settings(&database, &settings, "dead-letters discard --all --yes");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adopted_row_becomes_a_record_with_its_topic_key_and_headers() {
    let database = Database::create(15).await;
    let mut owner = database.connect_as(&database.owner).await;
    let topic = topic_name("adopted");
    create_topic(&topic).await;
    let table = Generation::WithTopic.table("event_outbox");
    execute(&mut owner, &table).await;
    let adopt = event_outbox("public", "event_outbox");
    let settings = publishing(&database, adopt, &topic, OnPoison::Block);
    assert_eq!(database.migrate(&settings).await.problem, None);
    execute(
        &mut owner,
        &format!(
            r#"insert into event_outbox values ('11111111-2222-4333-8444-555555555555', 'batch-1',
            'batch', '{topic}', '{{"event_id": "66666666-7777-4888-9999-aaaaaaaaaaaa",
            "event_type": "Done", "event_timestamp": "2026-01-01T00:00:00Z", "source_service": "s",
            "schema_version": 1, "correlation_id": "c-1", "data": {{"n": 1e2}},
            "topic": "{topic}", "headers": {{"x": "ü"}}}}', 'key-ü', '{topic}')"#
        ),
    )
    .await;
    let _relay = Relay::start(&database, &settings).await;
    waiting(&mut owner, 0).await;
    let records = read(&topic).await;
    let [record] = records.as_slice() else {
        panic!("{records:?}");
    };
    assert_eq!(record.key, "key-ü");
    let value = String::from_utf8(record.value.clone().expect("a value")).expect("UTF-8");
    assert_eq!(
        value,
        r#"{"event_id": "66666666-7777-4888-9999-aaaaaaaaaaaa", "event_type": "Done", "event_timestamp": "2026-01-01T00:00:00Z", "source_service": "s", "schema_version": 1, "correlation_id": "c-1", "data": {"n": 1e2}}"#
    );
    for (name, expected) in [
        ("event_id", "66666666-7777-4888-9999-aaaaaaaaaaaa"),
        ("event_type", "Done"),
        ("trace_id", "c-1"),
        ("schema_version", "1"),
        ("occurred_at", "2026-01-01T00:00:00Z"),
        ("content_type", "application/json"),
        ("source_service", "s"),
        ("x", "ü"),
    ] {
        assert_eq!(record.headers[name], expected, "{name}");
    }
}

/// Fills the table with rows of 1 kB: `old` ones were published two hours ago, then three now.
async fn with_published(database: &Database, old: u32) -> PgConnection {
    let mut owner = with_note(database).await;
    let sql = format!(
        "insert into note (id, topic, key, body, published_at) select n, 'files', 'k', repeat('x', \
         1000), case when n <= {old} then now() - interval '2 hours' else now() end from \
         generate_series(1, {old} + 3) n"
    );
    execute(&mut owner, &sql).await;
    owner
}

fn retaining(hours: u64) -> AdoptSettings {
    AdoptSettings {
        retain_ms: Some(hours * 3_600_000),
        ..note()
    }
}

const PURGE: &str = "select outbox.purge_adopted()";

#[tokio::test]
async fn old_rows_are_deleted_a_few_blocks_at_a_time_and_again_from_the_start() {
    /// Blocks of a call, with at most 8 rows each.
    const ROWS_OF_A_CALL_MAX: i64 = 256 * 8;
    let database = Database::create(15).await;
    let mut owner = with_published(&database, 6_000).await;
    let settings = adopting(&database, [retaining(1)]);
    assert_eq!(database.migrate(&settings).await.problem, None);
    let mut relay = database.connect_as(&database.relay).await;

    execute(&mut relay, "begin").await;
    let first: i64 = value(&mut relay, PURGE).await;
    assert!((1..=ROWS_OF_A_CALL_MAX).contains(&first), "{first}");
    let scans = "select format('%s scans', seq_scan) from pg_stat_xact_user_tables where relname = \
        'note'";
    assert_eq!(value::<String>(&mut relay, scans).await, "0 scans");
    let read = "select seq_tup_read from pg_stat_xact_user_tables where relname = 'note'";
    let read: i64 = value(&mut relay, read).await;
    assert!(read <= ROWS_OF_A_CALL_MAX, "{read}");
    execute(&mut relay, "commit").await;

    let mut deleted = first;
    for _ in 0..4 {
        deleted += value::<i64>(&mut relay, PURGE).await;
    }
    assert_eq!(deleted, 6_000);
    let left = "select count(*) from note";
    assert_eq!(value::<i64>(&mut owner, left).await, 3);
    // Rows that have become old since are found in the next round.
    execute(
        &mut owner,
        "update note set published_at = now() - interval '2 hours' where id = 6001",
    )
    .await;
    let mut deleted = 0;
    for _ in 0..8 {
        deleted += value::<i64>(&mut relay, PURGE).await;
    }
    assert_eq!(deleted, 1);
}

#[tokio::test]
async fn old_rows_of_all_partitions_are_deleted() {
    let database = Database::create(15).await;
    let mut owner = database.connect_as(&database.owner).await;
    execute(
        &mut owner,
        "create table note (id bigint, topic text, key text, body text, created_at timestamptz \
         not null default clock_timestamp(), published_at timestamp, primary key (id, topic)) \
         partition by list (topic);
         create table note_1 partition of note for values in ('files');
         create table note_2 partition of note default;
         insert into note select n, case when n % 100 = 0 then 'files' else 'other' end, 'k', \
         repeat('x', 1000), now(), now() - interval '2 hours' from generate_series(1, 3000) as s \
         (n)",
    )
    .await;
    let settings = adopting(&database, [retaining(1)]);
    assert_eq!(database.migrate(&settings).await.problem, None);
    let mut relay = database.connect_as(&database.relay).await;
    let mut deleted = Vec::new();
    for _ in 0..2 {
        deleted.push(value::<i64>(&mut relay, PURGE).await);
    }
    assert!(deleted[0] < 2_100, "{deleted:?}");
    assert_eq!(deleted.iter().sum::<i64>(), 3_000, "{deleted:?}");
    let block = "select purge_block from outbox.adopted";
    assert_eq!(value::<i64>(&mut owner, block).await, 0);
}

#[tokio::test]
async fn sources_of_dead_letters_and_rows_after_the_oldest_waiting_one_are_kept() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    let settings = adopting(&database, [retaining(1)]);
    assert_eq!(database.migrate(&settings).await.problem, None);
    // Rows 1 and 2 have faults: one in its key, one without a topic.
    execute(
        &mut owner,
        "insert into note (id, topic, key, body, created_at) values
           (1, 'files', 'k', 'fault', now() - interval '3 hours'),
           (2, null, 'k', 'fault', now()), (3, 'files', 'k', 'x', now() - interval '5 hours')",
    )
    .await;
    execute(
        &mut owner,
        "select outbox.bury(lane, id, event_id, 'files', 'AdoptionFailed', 1) from outbox.event \
         where source_key ->> 'id' = '1';
         update note set published_at = now() - interval '4 hours' where id = 3;
         update note set published_at = now() - interval '9 hours' where id < 3;
         insert into note values (4, 'files', 'k', 'x', now(), now() - interval '7 hours'),
           (5, 'files', 'k', 'x', now(), now() - interval '5.5 hours')",
    )
    .await;
    let mut relay = database.connect_as(&database.relay).await;
    // Row 3 waits since 5 hours, with an hour to spare: only row 4 is older.
    assert_eq!(value::<i64>(&mut relay, PURGE).await, 1);
    let left = "select id from note order by id";
    assert_eq!(values::<i64>(&mut owner, left).await, [1, 2, 3, 5]);
    execute(&mut owner, "delete from outbox.event").await;
    assert_eq!(value::<i64>(&mut relay, PURGE).await, 2);
    assert_eq!(values::<i64>(&mut owner, left).await, [1, 2]);
    execute(&mut owner, "delete from outbox.dead_letter").await;
    assert_eq!(value::<i64>(&mut relay, PURGE).await, 2);
}

#[tokio::test]
async fn without_retain_or_after_a_release_nothing_is_deleted() {
    let database = Database::create(15).await;
    let mut owner = with_published(&database, 10).await;
    let count = "select count(*) from note";
    for settings in [
        adopting(&database, [note()]),
        adopting(&database, [retaining(3)]),
        database.settings(),
    ] {
        assert_eq!(database.migrate(&settings).await.problem, None);
        let mut relay = database.connect_as(&database.relay).await;
        assert_eq!(value::<i64>(&mut relay, PURGE).await, 0);
        // The function is its only way to the table.
        assert_eq!(refused(&mut relay, "delete from note").await, "42501");
    }
    assert_eq!(value::<i64>(&mut owner, count).await, 13);
    let mut producer = database.connect_as(&database.producer).await;
    assert_eq!(refused(&mut producer, PURGE).await, "42501");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_deletes_old_rows() {
    let database = Database::create(15).await;
    let mut owner = with_published(&database, 6_000).await;
    let topic = topic_name("adopted");
    create_topic(&topic).await;
    let settings = publishing(&database, retaining(1), &topic, OnPoison::Block);
    assert_eq!(database.migrate(&settings).await.problem, None);
    let _relay = Relay::start(&database, &settings).await;
    until("the old rows to be deleted", async || {
        let rows = value::<i64>(&mut owner, "select count(*) from note").await;
        (rows == 3).then_some(())
    })
    .await;
}

/// Schema of level 6: what the script of an empty database does before migration 7.
async fn at_level_6(database: &Database) -> PgConnection {
    let script = migrate::script(&database.settings(), &database.secrets())
        .await
        .expect("a script");
    let (before, after) = script.split_once("\n-- Migration 7.").expect("level 7");
    let owner = after.find("\n-- Owner of the schema").expect("the owner");
    let (owner, grants) = after[owner..]
        .split_once("\n-- Privileges.")
        .expect("the privileges");
    // These functions and this table came later.
    let later = ["purge_adopted", "adopted", "lock_keys"];
    let grants: String = grants
        .split_inclusive(";\n")
        .filter(|statement| !later.iter().any(|name| statement.contains(name)))
        .collect();
    let mut connection = database.connect_as(&database.owner).await;
    execute(&mut connection, &format!("{before}{owner}{grants}")).await;
    connection
}

#[tokio::test]
async fn an_upgrade_with_the_first_adoption_keeps_waiting_rows_and_dead_letters() {
    let database = Database::create(15).await;
    let mut owner = at_level_6(&database).await;
    let level = "select max(version) from outbox.schema_migrations";
    assert_eq!(value::<i64>(&mut owner, level).await, 6);
    execute(
        &mut owner,
        "select outbox.enqueue('file', 'f' || n, 'Uploaded', convert_to(n::text, 'UTF8')) from \
         generate_series(1, 5) n;
         select outbox.bury(lane, id, event_id, 'files', 'RecordRejected', 1) from outbox.event \
         where id <= 2",
    )
    .await;
    drop(owner);
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 6, 7).await;
    let report = database.migrate(&adopting(&database, [note()])).await;
    assert_eq!(
        (report.problem, report.applied),
        (None, (7..=LEVEL).collect())
    );
    assert_eq!(events(&mut owner).await, numbers(3, 7));
    let sources = "select coalesce(source::text, '-') from outbox.event order by id";
    assert_eq!(
        values::<String>(&mut owner, sources).await,
        ["-", "-", "-", "1", "1"]
    );
    execute(
        &mut owner,
        "select outbox.requeue(event_id) from outbox.dead_letter order by id",
    )
    .await;
    assert_eq!(
        events(&mut owner).await,
        ["3", "4", "5", "6", "7", "1", "2"]
    );
}
