//! Rights in the schema: each role has exactly what it needs, and attacks fail.

use crate::harness::postgres::{Database, execute, refused, value, values};

const DENIED: &str = "42501";
const ADD: &str = "insert into outbox.event (aggregate_type, aggregate_id, event_type, payload, \
    headers) values ('file', 'f1', 'Uploaded', '{}', '{}')";

on_each_server! {
    async fn a_producer_adds_events_and_reads_nothing(database: Database) {
        let database = database.migrated().await;
        let mut producer = database.connect_as(&database.producer).await;
        execute(&mut producer, ADD).await;
        assert_eq!(
            value::<i64>(
                &mut producer,
                "select outbox.enqueue('file', 'f1', 'Uploaded', \
            '{}')"
            )
            .await,
            2
        );
        let many = concat!(
            r#"select outbox.enqueue_many('[{"aggregate_type": "file", "aggregate_id": "#,
            r#""f1", "event_type": "Uploaded"}]')"#,
        );
        assert_eq!(value::<i64>(&mut producer, many).await, 1);
        for sql in [
            "select from outbox.event",
            "select from outbox.pending",
            "select from outbox.owner",
            "update outbox.event set topic = 'x'",
            "delete from outbox.event",
            "truncate outbox.event",
            "select outbox.settle('{}', '{}', '{}')",
            "select outbox.settle('{}', '{}', '{}', '{}')",
            "select outbox.text_or_null('')",
            "select from outbox.parked_key",
            "select from outbox.parked_topic",
            "select from outbox.dead_letter",
            "select outbox.key_digest('f1')",
            "select outbox.park_key('files', 'f1', 1::smallint, 1, gen_random_uuid(), \
             'RecordRejected')",
            "select outbox.bury(1::smallint, 1, gen_random_uuid(), 'files', 'RecordRejected', 1)",
            "select outbox.skip_parked('files', 'f1')",
            "select outbox.requeue(gen_random_uuid())",
            "select outbox.requeue_many('{}', '{}')",
            "select nextval('outbox.event_id_seq')",
            "select outbox.resume_sequence()",
            "select from outbox.sequence_state",
            "create table outbox.mine ()",
        ] {
            assert_eq!(refused(&mut producer, sql).await, DENIED, "{sql}");
        }
    }
}

on_each_server! {
    async fn a_producer_cannot_choose_id_lane_xact_or_time(database: Database) {
        let database = database.migrated().await;
        let mut producer = database.connect_as(&database.producer).await;
        for (column, value) in [
            ("id", "5"),
            ("lane", "5"),
            ("xact", "'5'"),
            ("created_at", "now()"),
        ] {
            for overriding in ["", "overriding system value"] {
                let sql = format!(
                    "insert into outbox.event (aggregate_type, aggregate_id, event_type, \
                     {column}) {overriding} values ('a', 'b', 'c', {value})"
                );
                let code = refused(&mut producer, &sql).await;
                // PostgreSQL rejects a generated column before it checks rights.
                assert!(code == DENIED || code == "428C9", "{sql}: {code}");
            }
        }
    }
}

on_each_server! {
    async fn a_relay_does_its_work_and_cannot_forge_events(database: Database) {
        let database = database.migrated().await;
        let mut producer = database.connect_as(&database.producer).await;
        execute(&mut producer, ADD).await;
        let mut relay = database.connect_as(&database.relay).await;
        for sql in [
            "select * from outbox.event",
            "select * from outbox.pending",
            "select * from outbox.owner, outbox.schema_migrations",
            "insert into outbox.relay (instance, pod, lease_until) values (gen_random_uuid(), \
             'p', now())",
            "update outbox.relay set lease_until = now()",
            "select * from outbox.relay for update",
            "update outbox.lane set owner = (select instance from outbox.relay), epoch = epoch + \
             1, mark = 1, high_id = 1",
            "select * from outbox.lane for update skip locked",
            "delete from outbox.relay",
            "select * from outbox.parked_key, outbox.parked_topic, outbox.dead_letter",
            "select outbox.park_key('files', 'f1', 1::smallint, 1, gen_random_uuid(), \
             'RecordRejected')",
            "select outbox.bury(1::smallint, 1, gen_random_uuid(), 'files', 'RecordRejected', 1)",
            "select incarnation, position from outbox.sequence_state",
            "select outbox.resume_sequence(0)",
        ] {
            execute(&mut relay, sql).await;
        }
        for sql in [
            ADD,
            "select outbox.enqueue('file', 'f1', 'Uploaded', '{}')",
            "select outbox.enqueue_many('[]')",
            "update outbox.event set payload = 'x'",
            "delete from outbox.event",
            "truncate outbox.event",
            "insert into outbox.lane (lane) values (64)",
            "update outbox.lane set lane = 64",
            "delete from outbox.lane",
            "update outbox.owner set name = 'x'",
            "update outbox.schema_migrations set version = 9",
            "insert into outbox.parked_key (topic, key, lane, class) values ('files', 'f1', 1, \
             'ParkedByHand')",
            "update outbox.parked_key set head_id = 1",
            "delete from outbox.parked_key",
            "insert into outbox.parked_topic (topic) values ('files')",
            "delete from outbox.parked_topic",
            "insert into outbox.dead_letter select id, lane, event_id, 'a', 'a', 'a', null, 'a', \
             null, null, '{}', now(), 'a', 1, now() from outbox.event",
            "update outbox.dead_letter set payload = 'x'",
            "delete from outbox.dead_letter",
            "select outbox.skip_parked('files', 'f1')",
            "select outbox.requeue(gen_random_uuid())",
            "select outbox.requeue_many('{}', '{}')",
            "select nextval('outbox.event_id_seq')",
            "update outbox.origin set since = now()",
        ] {
            assert_eq!(refused(&mut relay, sql).await, DENIED, "{sql}");
        }
        let settle = "select settled from outbox.event e, outbox.settle(array[e.lane], \
            array[e.id], array[e.event_id], array[e.ctid])";
        assert_eq!(value::<i64>(&mut relay, settle).await, 1);
        assert_eq!(
            value::<i64>(&mut relay, "select count(*) from outbox.event").await,
            0
        );
    }
}

on_each_server! {
    async fn other_roles_have_no_rights(database: Database) {
        let mut settings = database.settings();
        settings.migration.producers.clear();
        assert_eq!(database.migrate(&settings).await.problem, None);
        let mut producer = database.connect_as(&database.producer).await;
        assert_eq!(refused(&mut producer, ADD).await, DENIED);
        let mut admin = database.as_admin().await;
        let open = "select proname::text from pg_proc where pronamespace = 'outbox'::regnamespace \
            and has_function_privilege('public', oid, 'execute')";
        assert_eq!(
            values::<String>(&mut admin, open).await,
            Vec::<String>::new()
        );
    }
}

on_each_server! {
    async fn a_role_taken_out_of_the_manifest_loses_its_rights_and_no_other_does(
        database: Database,
    ) {
        let mut settings = database.settings();
        settings.migration.relays.push(database.producer.clone());
        assert_eq!(database.migrate(&settings).await.problem, None);
        let mut producer = database.connect_as(&database.producer).await;
        execute(&mut producer, ADD).await;
        execute(&mut producer, "select from outbox.event").await;

        settings.migration.relays.clear();
        assert_eq!(database.migrate(&settings).await.problem, None);
        execute(&mut producer, ADD).await;
        assert_eq!(
            refused(&mut producer, "select from outbox.event").await,
            DENIED
        );

        // A grant by hand to a role that was never in the manifest.
        let mut admin = database.as_admin().await;
        execute(
            &mut admin,
            &format!(
                "grant usage on schema outbox to {0}; grant delete on \
            outbox.event to {0}",
                database.relay
            ),
        )
        .await;
        settings.migration.producers.clear();
        assert_eq!(database.migrate(&settings).await.problem, None);
        assert_eq!(refused(&mut producer, ADD).await, DENIED);
        let mut relay = database.connect_as(&database.relay).await;
        execute(&mut relay, "delete from outbox.event").await;
    }
}

on_each_server! {
    async fn one_user_for_everything_keeps_its_rights(database: Database) {
        let mut settings = database.settings();
        settings.migration.database = None;
        settings.migration.producers = vec![database.owner.clone()];
        database.write_secrets(&database.owner, "not-secret");
        assert_eq!(database.migrate(&settings).await.problem, None);
        settings.migration.producers.clear();
        assert_eq!(database.migrate(&settings).await.problem, None);
        let mut owner = database.connect_as(&database.owner).await;
        execute(
            &mut owner,
            "select outbox.enqueue('file', 'f1', 'Uploaded', '{}')",
        )
        .await;
    }
}

on_each_server! {
    async fn a_role_that_the_tables_were_given_to_keeps_its_rights(database: Database) {
        let mut settings = database.settings();
        assert_eq!(database.migrate(&settings).await.problem, None);
        let mut admin = database.as_admin().await;
        execute(
            &mut admin,
            &format!(
                "reassign owned by {} to {}",
                database.owner, database.producer
            ),
        )
        .await;
        settings.migration.database = None;
        settings.migration.producers.clear();
        database.write_secrets(&database.producer, "not-secret");
        assert_eq!(database.migrate(&settings).await.problem, None);
        let mut owner = database.connect_as(&database.producer).await;
        execute(&mut owner, ADD).await;
        execute(&mut owner, "select from outbox.event").await;
    }
}

/// Functions that run with the owner's rights.
const DEFINERS: [&str; 14] = [
    "bury",
    "enqueue",
    "enqueue_bytes",
    "enqueue_json",
    "enqueue_many",
    "enqueue_text",
    "park_key",
    "purge_adopted",
    "requeue",
    "requeue_many",
    "resume_sequence",
    "server_place",
    "settle",
    "skip_parked",
];

on_each_server! {
    async fn functions_of_the_owner_search_temporary_schemas_last(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        let definers = "select distinct proname::text from pg_proc where pronamespace = \
            'outbox'::regnamespace and prosecdef order by 1";
        assert_eq!(values::<String>(&mut admin, definers).await, DEFINERS);
        let unsafe_paths =
            "select proname::text from pg_proc where pronamespace = 'outbox'::regnamespace
          and not coalesce(proconfig, '{}') && array['search_path=outbox, pg_temp']";
        assert_eq!(
            values::<String>(&mut admin, unsafe_paths).await,
            Vec::<String>::new()
        );
    }
}

/// Creates a temporary table in place of `event`, with a trigger that would run with the rights of
/// the inserting role.
const ATTACK: &str = "
  create temporary table event (like outbox_shape including defaults);
  create temporary table caught (who text);
  grant all on caught, event to public;
  create function pg_temp.catch() returns trigger language plpgsql as
    $$ begin insert into pg_temp.caught values (current_user); new.id := 1; return new; end $$;
  create trigger catch before insert on event for each row execute function pg_temp.catch();";

on_each_server! {
    async fn a_temporary_table_cannot_stand_in_for_the_outbox(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        // The attacker may not read the real table's columns, which are no secret.
        execute(
            &mut admin,
            "create table public.outbox_shape as select * from outbox.event; \
            grant select on public.outbox_shape to public",
        )
        .await;
        let mut producer = database.connect_as(&database.producer).await;
        execute(&mut producer, ATTACK).await;
        execute(
            &mut producer,
            "select outbox.enqueue('file', 'f1', 'Uploaded', '{}')",
        )
        .await;
        let many = concat!(
            r#"select outbox.enqueue_many('[{"aggregate_type": "file", "aggregate_id": "#,
            r#""f1", "event_type": "Uploaded"}]')"#,
        );
        execute(&mut producer, many).await;
        assert_eq!(
            values::<String>(&mut producer, "select who from pg_temp.caught").await,
            Vec::<String>::new()
        );
        assert_eq!(
            value::<i64>(&mut admin, "select count(*) from outbox.event").await,
            2
        );
    }
}

on_each_server! {
    async fn the_attack_works_on_a_path_without_pg_temp(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        execute(
            &mut admin,
            "create table public.outbox_shape as select * from outbox.event; \
            grant select on public.outbox_shape to public",
        )
        .await;
        let open = "select format('alter function %s set search_path = outbox', \
            oid::regprocedure) from pg_proc
          where pronamespace = 'outbox'::regnamespace and proname = 'enqueue'";
        let open = value::<String>(&mut admin, open).await;
        execute(&mut admin, &open).await;
        let mut producer = database.connect_as(&database.producer).await;
        execute(&mut producer, ATTACK).await;
        execute(
            &mut producer,
            "select outbox.enqueue('file', 'f1', 'Uploaded', '{}')",
        )
        .await;
        assert_eq!(
            values::<String>(&mut producer, "select who from pg_temp.caught").await,
            [database.owner.as_str()]
        );
        assert_eq!(
            value::<i64>(&mut admin, "select count(*) from outbox.event").await,
            0
        );
    }
}

/// Creates temporary tables with a forged row that a relay would park or move to the dead letters.
const ATTACK_ON_MOVED_ROWS: &str = "
  create temporary table event (like outbox_shape including defaults);
  create temporary table dead_letter (like letter_shape including defaults);
  create temporary table parked_key (like parked_shape including defaults);
  grant all on event, dead_letter, parked_key to public;
  insert into pg_temp.event (xact, id, lane, event_id, aggregate_type, aggregate_id, event_type, \
  headers, created_at)
    values ('1', 99, 1, '00000000-0000-0000-0000-000000000099', 'a', 'forged', 'c', '{}', now());";

on_each_server! {
    async fn temporary_tables_cannot_stand_in_for_what_a_relay_moves(database: Database) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        execute(
            &mut admin,
            "
          create table public.outbox_shape as select * from outbox.event;
          create table public.letter_shape as select * from outbox.dead_letter;
          create table public.parked_shape as select * from outbox.parked_key;
          grant select on all tables in schema public to public",
        )
        .await;
        let mut relay = database.connect_as(&database.relay).await;
        execute(&mut relay, ATTACK_ON_MOVED_ROWS).await;
        let forged = "1::smallint, 99, '00000000-0000-0000-0000-000000000099'";
        execute(
            &mut relay,
            &format!(
                "select outbox.park_key('files', 'forged', {forged}, \
            'RecordRejected')"
            ),
        )
        .await;
        assert!(
            !value::<bool>(
                &mut relay,
                &format!(
                    "select outbox.bury({forged}, 'files', \
            'RecordRejected', 1)"
                )
            )
            .await
        );
        assert_eq!(
            value::<i64>(&mut relay, "select count(*) from pg_temp.event").await,
            1
        );
        let moved = "select (select count(*) from outbox.dead_letter) + (select count(*) \
            from outbox.parked_key)";
        assert_eq!(value::<i64>(&mut admin, moved).await, 0);
    }
}
