//! `enqueue` and `enqueue_many`: order of one key, many keys in one transaction, bad input.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::Connection;

use crate::harness::postgres::{Database, execute, refused, value, values};

const WRITERS: u32 = 8;
const ROUNDS: u32 = 40;

/// A writer that delays some commits and rolls back some transactions.
async fn write(mut connection: sqlx::PgConnection, writer: u32) {
    for round in 0..ROUNDS {
        execute(
            &mut connection,
            "begin; select outbox.enqueue('file', 'one key', 'Uploaded', '{}')",
        )
        .await;
        tokio::time::sleep(Duration::from_millis(u64::from(
            (writer * 7 + round * 5) % 4,
        )))
        .await;
        execute(
            &mut connection,
            if (writer + round).is_multiple_of(10) {
                "rollback"
            } else {
                "commit"
            },
        )
        .await;
    }
    connection.close().await.ok();
}

on_each_server! {
    async fn ids_of_one_key_appear_in_their_order_under_concurrent_writers(database: Database) {
        let database = database.migrated().await;
        let done = Arc::new(AtomicBool::new(false));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(database.connect_as(&database.producer).await, writer));
        }
        let mut reader = database.connect_as(&database.relay).await;
        let seen_by_reader = Arc::clone(&done);
        let reading = tokio::spawn(async move {
            let mut seen: Vec<i64> = Vec::new();
            while !seen_by_reader.load(Ordering::Relaxed) {
                let now =
                    values::<i64>(&mut reader, "select id from outbox.event order by id").await;
                // A later id never appears before an earlier one, so the last result is a prefix
                // of this one.
                assert!(now.starts_with(&seen), "{seen:?} then {now:?}");
                seen = now;
            }
        });
        while let Some(writer) = writers.join_next().await {
            writer.expect("a writer");
        }
        done.store(true, Ordering::Relaxed);
        reading.await.expect("a prefix at every read");
        let mut admin = database.as_admin().await;
        assert_eq!(
            value::<i64>(&mut admin, "select count(*) from outbox.event").await,
            i64::from(WRITERS * ROUNDS * 9 / 10)
        );
    }
}

on_each_server! {
    async fn twenty_thousand_keys_fit_into_one_transaction(database: Database) {
        let database = database.migrated().await;
        let mut producer = database.connect_as(&database.producer).await;
        let single = "select count(outbox.enqueue('file', 'f' || i, 'Uploaded', '{}')) \
            from generate_series(1, 20000) i";
        assert_eq!(value::<i64>(&mut producer, single).await, 20_000);
        let many = "select outbox.enqueue_many(jsonb_agg(jsonb_build_object('aggregate_type', \
            'file', 'aggregate_id', 'f' || i, 'event_type', 'Uploaded')))
          from generate_series(1, 20000) i";
        assert_eq!(value::<i64>(&mut producer, many).await, 20_000);
    }
}

/// Two keys, first the one with the lower lock bucket.
async fn keys_by_bucket(connection: &mut sqlx::PgConnection) -> Vec<String> {
    let keys = "select key from unnest(array['apple', 'pear']) key order by hashtextextended(key \
        collate \"C\", 0) & 4095";
    values(connection, keys).await
}

fn many(keys: &[&str]) -> String {
    let events = keys.iter().map(|key| {
        format!(
            r#"{{"aggregate_type": "file", "aggregate_id": "{key}", "event_type": "Uploaded"}}"#
        )
    });
    format!(
        "select outbox.enqueue_many('[{}]')",
        events.collect::<Vec<_>>().join(", ")
    )
}

fn lock(call: &str, key: &str) -> String {
    format!("select {call}(1868720753, (hashtextextended('{key}' collate \"C\", 0) & 4095)::int)")
}

on_each_server! {
    async fn many_events_lock_their_keys_in_one_order(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        let keys = keys_by_bucket(&mut admin).await;
        let (low, high) = (keys[0].as_str(), keys[1].as_str());
        // Both callers wait for the low bucket, which is locked. Neither may hold the high one
        // meanwhile.
        execute(
            &mut admin,
            &format!("begin; {}", lock("pg_advisory_xact_lock", low)),
        )
        .await;
        let calls = [many(&[low, high]), many(&[high, low])];
        let mut callers = tokio::task::JoinSet::new();
        for call in calls {
            let mut caller = database.connect_as(&database.producer).await;
            callers.spawn(async move { value::<i64>(&mut caller, &call).await });
        }
        let mut observer = database.as_admin().await;
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted \
            and database = (select oid from pg_database where datname = current_database())";
        for _ in 0..500 {
            if value::<i64>(&mut observer, waiting).await == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(
            value::<i64>(&mut observer, waiting).await,
            2,
            "both callers wait"
        );
        assert!(
            value::<bool>(&mut observer, &lock("pg_try_advisory_xact_lock", high)).await,
            "no caller holds the high bucket"
        );
        execute(&mut admin, "commit").await;
        while let Some(added) = callers.join_next().await {
            assert_eq!(added.expect("no deadlock"), 2);
        }
    }
}

on_each_server! {
    async fn many_events_keep_the_order_of_their_array(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        execute(&mut admin, "select outbox.enqueue_many(jsonb_agg(jsonb_build_object(
          'aggregate_type', 'file', 'aggregate_id', 'f1', 'event_type', 'E' || i) order by i)) \
          from generate_series(1, 1000) i").await;
        let types = values::<String>(
            &mut admin,
            "select event_type from outbox.event order by id",
        )
        .await;
        assert!(
            types
                .iter()
                .enumerate()
                .all(|(index, name)| *name == format!("E{}", index + 1)),
            "{:?}",
            &types[..10]
        );
    }
}

on_each_server! {
    async fn many_events_take_text_json_bytes_and_nothing_as_payload(database: Database) {
        let database = database.migrated().await;
        let mut producer = database.connect_as(&database.producer).await;
        execute(&mut producer, r#"select outbox.enqueue_many('[
          {"aggregate_type": "file", "aggregate_id": "f1", "event_type": "A", "payload": "text"},
          {"aggregate_type": "file", "aggregate_id": "f1", "event_type": "A", "payload": {"a": 1}},
          {"aggregate_type": "file", "aggregate_id": "f1", "event_type": "A", "payload_base64":
            "AP8="},
          {"aggregate_type": "file", "aggregate_id": "f1", "event_type": "A", "payload": null,
            "headers": null, "topic": "files",
           "event_key": "k", "event_id": "7f1c2b52-6d3f-4c1c-8d3c-0123456789ab"}]')"#).await;
        let mut admin = database.as_admin().await;
        let payloads = values::<Option<Vec<u8>>>(
            &mut admin,
            "select payload from outbox.event \
            order by id",
        )
        .await;
        assert_eq!(
            payloads,
            [
                Some(b"text".to_vec()),
                Some(b"{\"a\": 1}".to_vec()),
                Some(vec![0, 255]),
                None
            ]
        );
        let last = "select format('%s %s %s %s', topic, event_key, headers, event_id) \
            from outbox.event order by id desc limit 1";
        assert_eq!(
            value::<String>(&mut admin, last).await,
            "files k {} 7f1c2b52-6d3f-4c1c-8d3c-0123456789ab"
        );
    }
}

on_each_server! {
    async fn bad_input_is_refused_with_a_code(database: Database) {
        let database = database.migrated().await;
        let mut producer = database.connect_as(&database.producer).await;
        for (sql, code) in [
            (
                "select outbox.enqueue('file', null, 'Uploaded', '{}')",
                "23502",
            ),
            (
                "select outbox.enqueue('file', 'f1', 'Uploaded', '{}', topic => 'no topic')",
                "23514",
            ),
            (
                "select outbox.enqueue('file', 'f1', 'Uploaded', '{}', headers => '[]')",
                "23514",
            ),
            (
                concat!(
                    r#"select outbox.enqueue_many('[{"aggregate_type": "a", "aggregateId": "b", "#,
                    r#""event_type": "c"}]')"#,
                ),
                "22023",
            ),
            (
                r#"select outbox.enqueue_many('[{"aggregate_type": "a", "event_type": "c"}]')"#,
                "23502",
            ),
            ("select outbox.enqueue_many('{}')", "22023"),
        ] {
            assert_eq!(refused(&mut producer, sql).await, code, "{sql}");
        }
        assert_eq!(
            value::<i64>(&mut producer, "select outbox.enqueue_many('[]')").await,
            0
        );
    }
}

on_each_server! {
    async fn a_topic_has_a_name_that_kafka_accepts(database: Database) {
        let database = database.migrated().await;
        let mut producer = database.connect_as(&database.producer).await;
        let (longest, too_long) = ("x".repeat(249), "x".repeat(250));
        let enqueue = |topic: &str| {
            format!("select outbox.enqueue('file', 'f1', 'Uploaded', '{{}}', topic => '{topic}')")
        };
        for good in ["a", "...", "A-z_0.9", &longest] {
            execute(&mut producer, &enqueue(good)).await;
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\n", "\na", &too_long] {
            assert_eq!(refused(&mut producer, &enqueue(bad)).await, "23514", "{bad:?}");
        }
    }
}
