//! What arrives is byte for byte what was serialised: literals and parameters without a type, as
//! psql and many drivers send them. `tests/clients` has the drivers.

use sqlx::{PgConnection, query};

use crate::harness::postgres::{Database, execute, refused, values};

/// Payloads that are easy to change by accident, one in each line.
const PAYLOADS: &str = include_str!("../clients/payloads.jsonl");

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

async fn stored(admin: &mut PgConnection) -> Vec<Option<Vec<u8>>> {
    let stored = values(admin, "select payload from outbox.event order by id").await;
    execute(admin, "delete from outbox.event").await;
    stored
}

on_oldest_and_newest_server! {
    async fn literals_and_parameters_without_a_type_keep_their_bytes(database: Database) {
        let database = database.migrated().await;
        let mut producer = database.connect_as(&database.producer).await;
        let mut admin = database.as_admin().await;
        let serialised = [PAYLOADS.trim_end(), r#"{"path":"C:\\U","a":"\n\"\u00e9"}"#].join("\n");
        let expected: Vec<_> =
            serialised.lines().map(|line| Some(line.as_bytes().to_vec())).collect();
        for function in ["enqueue_text", "enqueue_json"] {
            for line in serialised.lines() {
                let call = format!(
                    "select outbox.{function}('f', '1', 'A', {})",
                    quoted(line)
                );
                execute(&mut producer, &call).await;
            }
            assert_eq!(stored(&mut admin).await, expected, "{function}: literals");
            let prepare =
                format!("prepare p as select outbox.{function}('f', '1', 'A', payload => $1)");
            execute(&mut producer, &prepare).await;
            for line in serialised.lines() {
                execute(&mut producer, &format!("execute p({})", quoted(line))).await;
            }
            execute(&mut producer, "deallocate p").await;
            assert_eq!(stored(&mut admin).await, expected, "{function}: parameters");
        }
        for line in serialised.lines() {
            query("select outbox.enqueue_bytes('f', '1', 'A', $1)")
                .bind(line.as_bytes())
                .execute(&mut producer)
                .await
                .expect("added");
        }
        assert_eq!(stored(&mut admin).await, expected, "bytes");
        for function in ["enqueue_text", "enqueue_json", "enqueue_bytes"] {
            execute(&mut producer, &format!("select outbox.{function}('f', '1', 'A', null)")).await;
        }
        assert_eq!(stored(&mut admin).await, [None, None, None], "tombstones");
    }
}

on_oldest_and_newest_server! {
    /// Types that would lose bytes. The call fails, so that the caller notices.
    async fn a_payload_of_another_type_is_refused(database: Database) {
        let database = database.migrated().await;
        let mut producer = database.connect_as(&database.producer).await;
        for (call, code) in [
            (r"enqueue_text('f', '1', 'A', '\x41'::bytea)", "42883"),
            ("enqueue_json('f', '1', 'A', '{}'::jsonb)", "42883"),
            ("enqueue_json('f', '1', 'A', 'no json')", "22P02"),
            ("enqueue_bytes('f', '1', 'A', '{}'::text)", "42883"),
            (
                r#"enqueue_many('[{"aggregate_type": "f", "aggregate_id": "1",
                "event_type": "A", "payload": "a", "payload_base64": "YQ=="}]')"#,
                "22023",
            ),
        ] {
            let code_of = refused(&mut producer, &format!("select outbox.{call}")).await;
            assert_eq!(code_of, code, "{call}");
        }
    }
}
