//! What arrives is byte for byte what was serialised: literals and parameters without a type, as
//! psql and many drivers send them. `tests/clients` has the drivers.

use sqlx::{PgConnection, query};

use crate::harness::postgres::{Database, execute, refused, value, values};

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

/// Each name that the functions use, with something else behind it.
const HIJACKED: &str = "
  create schema evil;
  create function evil.bad() returns int language plpgsql as $$ begin raise 'hijacked'; end $$;
  create function evil.ne(pg_catalog.text, pg_catalog.text) returns boolean language sql as
    'select evil.bad() is null';
  create operator evil.<> (leftarg = pg_catalog.text, rightarg = pg_catalog.text, function = evil.ne);
  create function evil.bits(bigint, int) returns bigint language sql as 'select evil.bad()::bigint';
  create operator evil.& (leftarg = bigint, rightarg = int, function = evil.bits);
  create function evil.hashtextextended(pg_catalog.text, bigint) returns bigint language sql as
    'select evil.bad()::bigint';
  create function evil.current_setting(pg_catalog.text, boolean) returns pg_catalog.text
    language sql as 'select evil.bad()::pg_catalog.text';
  create function evil.set_config(pg_catalog.text, pg_catalog.text, boolean)
    returns pg_catalog.text language sql as 'select evil.bad()::pg_catalog.text';
  create function evil.convert_to(pg_catalog.text, name) returns bytea language sql as
    'select evil.bad()::pg_catalog.text::bytea';
  create function evil.encode(bytea, pg_catalog.text) returns pg_catalog.text language sql as
    'select evil.bad()::pg_catalog.text';
  create function evil.int8send(bigint) returns bytea language sql as
    'select evil.bad()::pg_catalog.text::bytea';
  create function evil.gen_random_uuid() returns uuid language sql as
    'select evil.bad()::pg_catalog.text::uuid';
  create function evil.pg_advisory_xact_lock(bigint) returns void language sql as
    'select evil.bad()';
  create function evil.pg_advisory_xact_lock_shared(int, int) returns void language sql as
    'select evil.bad()';
  create function evil.lock_key(bigint) returns void language sql as 'select evil.bad()';
  create domain evil.text as int;
  create table evil.event (id int);
  grant usage on schema evil to public";

on_each_server! {
    // The functions run with the rights of their owner.
    async fn functions_that_add_an_event_use_no_name_of_the_callers_schemas(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        execute(&mut admin, HIJACKED).await;
        let mut producer = database.connect_as(&database.producer).await;
        execute(&mut producer, "
          create temp table event (id int);
          create temp table lock_key (id int);
          set search_path = pg_temp, evil, pg_catalog").await;
        for function in ["enqueue_text", "enqueue_json", "enqueue_bytes", "enqueue"] {
            // The second key of a transaction takes another way.
            execute(&mut producer, &format!("
              begin;
              select outbox.{function}('file', 'f1', 'Uploaded', '{{}}');
              select outbox.{function}('file', 'f2', 'Uploaded', '{{}}', event_id => null);
              commit")).await;
        }
        let added = "select count(*) from outbox.event where payload = '{}'";
        assert_eq!(value::<i64>(&mut admin, added).await, 8);
    }
}
