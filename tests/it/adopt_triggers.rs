//! Triggers on an adopted table: which rows become events, and that a service notices nothing but
//! the time of publication.

use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, query, query_scalar};
use uuid::Uuid;

use crate::harness::{
    adopted::{
        Generation, OutboxRow, adopt, adopting, by_expressions, create_tables, event_outbox,
        events, expressions, with_event_outbox,
    },
    postgres::{Database, execute, refused, value, values},
    relay::until,
    server::Server,
};

/// Columns of [`row`].
const COLUMNS: &str = "id, aggregate_id, aggregate_type, event_type, event_data, event_key, topic";

/// Value that the trigger gives the time of publication.
const MARKED: &str = "now() + interval '1 microsecond'";

/// A row of `event_outbox` for `values`. Its aggregate has this name.
fn row(name: &str) -> String {
    format!(
        "(gen_random_uuid(), '{name}', 'file', 'Uploaded', '{{\"name\": \"{name}\"}}', null, \
         'files')"
    )
}

/// A statement that inserts a row for each of these names, separated by spaces.
fn insert(names: &str) -> String {
    let rows: Vec<String> = names.split(' ').map(row).collect();
    format!(
        "insert into event_outbox ({COLUMNS}) values {};",
        rows.join(", ")
    )
}

/// A statement that inserts a row with this time of publication.
fn insert_published(name: &str, published_at: &str) -> String {
    let row = row(name);
    let row = row.trim_end_matches(')');
    format!("insert into event_outbox ({COLUMNS}, published_at) values {row}, {published_at});")
}

/// Names of the aggregates of all events in their order, each put-aside row with `!` after it.
async fn added(connection: &mut PgConnection) -> String {
    let names = "select coalesce(string_agg(aggregate_id || case when headers ? \
        'outbox_adoption_fault' then '!' else '' end, ' ' order by id), '') from outbox.event";
    value(connection, names).await
}

/// A connection of the service, and one of the superuser.
async fn connect(database: &Database) -> (PgConnection, PgConnection) {
    let service = database.connect_as(&database.producer).await;
    (service, database.as_admin().await)
}

/// Adopts table `event_outbox` with column `topic`.
async fn begin(database: &Database) -> (PgConnection, PgConnection) {
    with_event_outbox(database, Generation::WithTopic).await;
    connect(database).await
}

async fn copy_in(connection: &mut PgConnection, names: &str) {
    let lines: String = names
        .split(' ')
        .map(|name| {
            format!(
                "{}\t{name}\tfile\tUploaded\t{{}}\t\\N\tfiles\n",
                Uuid::new_v4()
            )
        })
        .collect();
    let mut copy = connection
        .copy_in_raw(&format!("copy event_outbox ({COLUMNS}) from stdin"))
        .await
        .expect("the service may copy");
    copy.send(lines.as_bytes()).await.expect("sent");
    copy.finish().await.expect("copied");
}

on_oldest_and_newest_server! {
    async fn returning_shows_the_row_as_it_was_sent_but_for_the_time_of_publication(
        database: Database,
    ) {
        let tables = [
            Generation::WithTopic.table("event_outbox") + &Generation::WithTopic.table("as_today"),
            Generation::WithoutTopic.table("old_event_outbox")
                + &Generation::WithoutTopic.table("old_as_today"),
        ];
        create_tables(&database, &tables.concat()).await;
        let entries = ["event_outbox", "old_event_outbox"].map(|it| event_outbox("public", it));
        adopt(&database, entries).await;
        let (mut service, mut admin) = connect(&database).await;
        execute(&mut service, "begin").await;
        for (generation, adopted, today) in [
            (Generation::WithTopic, "event_outbox", "as_today"),
            (Generation::WithoutTopic, "old_event_outbox", "old_as_today"),
        ] {
            let row = OutboxRow::numbered(generation, 1);
            let returned = async |service: &mut PgConnection, table: &str, columns: &str| {
                let insert = row.insert_into(table);
                value::<String>(service, &format!("{insert} returning {columns}")).await
            };
            let all = format!("row_to_json({adopted})::text");
            let shown = returned(&mut service, adopted, &all).await;
            let all = format!("row_to_json({today})::text");
            let expected = returned(&mut service, today, &all).await;
            let marked = format!("select to_json({MARKED})::text");
            let marked = value::<String>(&mut service, &marked).await;
            assert_eq!(
                shown,
                expected.replace("\"published_at\":null", &format!("\"published_at\":{marked}"))
            );
        }
        execute(&mut service, "commit").await;
        assert_eq!(events(&mut admin).await.len(), 2);
    }
}

#[tokio::test]
async fn a_row_that_comes_with_a_time_of_publication_is_no_event_and_keeps_it() {
    let database = Database::create(15).await;
    let (mut service, mut admin) = begin(&database).await;
    let times = [
        "now()",
        "clock_timestamp()",
        "now() + interval '2 microseconds'",
        "now() - interval '1 microsecond'",
        "'2020-01-02 03:04:05Z'",
        "'infinity'",
        "'-infinity'",
    ];
    execute(&mut service, "begin").await;
    for time in times {
        execute(&mut service, &insert_published("f1", time)).await;
        let kept = format!(
            "select count(*) from event_outbox where published_at = {}",
            time.replace("clock_timestamp()", "published_at")
        );
        assert!(value::<i64>(&mut service, &kept).await > 0, "{time}");
    }
    execute(&mut service, "commit").await;
    assert_eq!(added(&mut admin).await, "");
}

#[tokio::test]
async fn a_copy_of_a_row_in_its_own_transaction_is_no_event() {
    let database = Database::create(15).await;
    let (mut service, mut admin) = begin(&database).await;
    let copy = format!(
        "begin; {} insert into event_outbox ({COLUMNS}, published_at)
           select gen_random_uuid(), 'copy', aggregate_type, event_type, event_data, event_key, \
           topic, published_at from event_outbox; commit",
        insert("f1")
    );
    execute(&mut service, &copy).await;
    assert_eq!(added(&mut admin).await, "f1");
}

on_oldest_and_newest_server! {
    async fn on_conflict_adds_an_event_for_each_real_insert_alone(database: Database) {
        let (mut service, mut admin) = begin(&database).await;
        execute(&mut service, &insert("first")).await;
        let id: Uuid = value(&mut service, "select id from event_outbox").await;
        let there = |name: &str| row(name).replace("gen_random_uuid()", &format!("'{id}'"));
        for (names, action) in [
            ("nothing", "do nothing"),
            ("update", "(id) do update set event_data = excluded.event_data"),
            ("marked", "(id) do update set published_at = excluded.published_at"),
            ("null", "(id) do update set published_at = null"),
        ] {
            let (there, new) = (there(names), row(&format!("new-{names}")));
            let inserted = format!(
                "insert into event_outbox ({COLUMNS}) values {there}, {new} on conflict {action}"
            );
            execute(&mut service, &inserted).await;
        }
        assert_eq!(
            added(&mut admin).await,
            "first new-nothing new-update new-marked new-null"
        );
        assert_eq!(value::<i64>(&mut service, "select count(*) from event_outbox").await, 5);
    }
}

#[tokio::test]
async fn each_row_of_one_insert_is_an_event_in_the_order_of_the_rows() {
    let database = Database::create(15).await;
    let (mut service, mut admin) = begin(&database).await;
    execute(&mut service, &insert("c a b")).await;
    let select = format!(
        "insert into event_outbox ({COLUMNS}) select gen_random_uuid(), 's' || i, 'file', \
         'Uploaded', '{{}}', null, 'files' from generate_series(1, 3) as i"
    );
    execute(&mut service, &select).await;
    let with = format!(
        "with inserted as (insert into event_outbox ({COLUMNS}) values {} returning id)
         select count(*) from inserted",
        row("w")
    );
    execute(&mut service, &with).await;
    assert_eq!(added(&mut admin).await, "c a b s1 s2 s3 w");
}

on_oldest_and_newest_server! {
    async fn copied_rows_become_events_and_those_of_a_savepoint_go_with_it(database: Database) {
        let (mut service, mut admin) = begin(&database).await;
        copy_in(&mut service, "a b c").await;
        execute(&mut service, "begin; savepoint one").await;
        copy_in(&mut service, "gone away").await;
        execute(&mut service, "rollback to savepoint one").await;
        copy_in(&mut service, "kept").await;
        execute(&mut service, "release savepoint one").await;
        execute(&mut service, "savepoint two").await;
        copy_in(&mut service, "too").await;
        execute(&mut service, "commit").await;
        assert_eq!(added(&mut admin).await, "a b c kept too");
    }
}

#[tokio::test]
async fn merge_and_a_view_add_an_event_for_each_row_that_they_insert() {
    let database = Database::create(15).await;
    let tables = Generation::WithTopic.table("event_outbox")
        + "create view outbox_view as select * from event_outbox;";
    create_tables(&database, &tables).await;
    adopt(&database, [event_outbox("public", "event_outbox")]).await;
    let (mut service, mut admin) = connect(&database).await;
    execute(&mut service, &insert("there")).await;
    let merge = format!(
        "merge into event_outbox as t using (values {}, {}) as s ({COLUMNS}) on t.aggregate_id = \
         s.aggregate_id
         when matched then update set last_error = 'merged'
         when not matched then insert ({COLUMNS}) values (s.id, s.aggregate_id, \
         s.aggregate_type, s.event_type, s.event_data::json, s.event_key, s.topic)",
        row("there"),
        row("merged")
    );
    execute(&mut service, &merge).await;
    let view = insert("viewed").replace("into event_outbox", "into outbox_view");
    execute(&mut service, &view).await;
    assert_eq!(added(&mut admin).await, "there merged viewed");
}

on_oldest_and_newest_server! {
    async fn what_is_rolled_back_is_no_event(database: Database) {
        let (mut service, mut admin) = begin(&database).await;
        execute(&mut service, &format!("begin; {} rollback", insert("all"))).await;
        let parts = format!(
            "begin; {} savepoint one; {} savepoint two; {} rollback to savepoint one; {} commit",
            insert("a"),
            insert("b"),
            insert("c"),
            insert("d")
        );
        execute(&mut service, &parts).await;
        let caught = format!(
            "do $$ begin
               {}
               begin {} raise exception 'no'; exception when raise_exception then null; end;
               {}
             end $$",
            insert("e"),
            insert("f"),
            insert("g")
        );
        execute(&mut service, &caught).await;
        assert_eq!(
            refused(&mut service, &insert("h").replace("'file'", "null")).await,
            "23502"
        );
        assert_eq!(added(&mut admin).await, "a d e g");
    }
}

#[tokio::test]
async fn an_event_stays_as_inserted_when_its_row_is_changed_or_deleted() {
    let database = Database::create(15).await;
    let (mut service, mut admin) = begin(&database).await;
    let changed = format!(
        "begin; {}
         update event_outbox set event_data = '{{}}', topic = 'other', published_at = now() where \
         aggregate_id = 'updated';
         delete from event_outbox where aggregate_id = 'deleted'; commit",
        insert("updated deleted kept")
    );
    execute(&mut service, &changed).await;
    let events = events(&mut admin).await;
    let seen: Vec<_> = events
        .iter()
        .map(|event| {
            let payload = event.payload.as_deref().expect("one");
            assert!(payload.starts_with(&format!("{{\"name\": \"{}\"", event.aggregate_id)));
            (event.aggregate_id.as_str(), event.topic.as_deref())
        })
        .collect();
    let files = Some("files");
    assert_eq!(
        seen,
        [("updated", files), ("deleted", files), ("kept", files)]
    );
}

#[tokio::test]
async fn a_time_of_publication_set_back_to_null_is_no_new_event() {
    let database = Database::create(15).await;
    let (mut service, mut admin) = begin(&database).await;
    let back = "update event_outbox set published_at = null, retry_count = retry_count + 1;";
    execute(
        &mut service,
        &format!("begin; {} {back} commit", insert("f1")),
    )
    .await;
    execute(&mut service, back).await;
    assert_eq!(added(&mut admin).await, "f1");
    let waits = "select published_at is null and retry_count = 2 from event_outbox";
    assert!(value::<bool>(&mut service, waits).await);
}

/// Partitions by topic. That of `b` has its columns in another order, and one was dropped.
const PARTITIONED: &str = "
    create table event_outbox (
      id uuid, aggregate_id varchar(255) not null, aggregate_type varchar(100) not null,
      event_type varchar(255) not null, event_data json not null, event_key varchar(255),
      topic varchar(255) not null, created_at timestamptz not null default now(),
      published_at timestamptz, retry_count int not null default 0, primary key (id, topic)
    ) partition by list (topic);
    create table part_a partition of event_outbox for values in ('a');
    create table part_b (
      retry_count int not null default 0, topic varchar(255) not null, published_at timestamptz,
      dropped int, created_at timestamptz not null default now(), event_key varchar(255),
      event_data json not null, event_type varchar(255) not null,
      aggregate_type varchar(100) not null, aggregate_id varchar(255) not null, id uuid not null
    );
    alter table part_b drop column dropped;
    alter table event_outbox attach partition part_b for values in ('b');";

fn of_topic(insert: &str, topic: &str) -> String {
    insert.replace("'files'", &format!("'{topic}'"))
}

async fn begin_partitioned(database: &Database) -> (PgConnection, PgConnection) {
    create_tables(database, PARTITIONED).await;
    adopt(database, [event_outbox("public", "event_outbox")]).await;
    connect(database).await
}

on_oldest_and_newest_server! {
    async fn rows_of_partitions_become_events_however_they_are_inserted(database: Database) {
        let (mut service, mut admin) = begin_partitioned(&database).await;
        for topic in ["a", "b"] {
            let directly = |name: &str| {
                insert(name).replace("into event_outbox", &format!("into part_{topic}"))
            };
            execute(&mut service, &of_topic(&insert(&format!("root-{topic}")), topic)).await;
            let direct = format!("direct-{topic}");
            execute(&mut service, &of_topic(&directly(&direct), topic)).await;
        }
        let later = "create table part_c partition of event_outbox for values in ('c')";
        execute(&mut database.connect_as(&database.owner).await, later).await;
        execute(&mut service, &of_topic(&insert("root-c"), "c")).await;
        let seen: Vec<_> = events(&mut admin)
            .await
            .into_iter()
            .map(|event| {
                let payload: serde_json::Value =
                    serde_json::from_str(&event.payload.expect("one")).expect("JSON");
                assert_eq!(payload["name"], event.aggregate_id.as_str());
                let key: serde_json::Value =
                    serde_json::from_str(&event.source_key.expect("one")).expect("JSON");
                assert_eq!(key["topic"].as_str(), event.topic.as_deref());
                (event.aggregate_id, event.topic.expect("one"), event.event_type)
            })
            .collect();
        let expected = [
            ("root-a", "a"),
            ("direct-a", "a"),
            ("root-b", "b"),
            ("direct-b", "b"),
            ("root-c", "c"),
        ];
        let expected = expected
            .map(|(name, topic)| (name.to_owned(), topic.to_owned(), "Uploaded".to_owned()));
        assert_eq!(seen, expected);
    }
}

on_oldest_and_newest_server! {
    async fn a_row_that_an_update_moves_to_another_partition_is_one_event(database: Database) {
        let (mut service, mut admin) = begin_partitioned(&database).await;
        let moved = format!(
            "begin; {} update event_outbox set topic = 'b'; update event_outbox set topic = 'a'; \
             commit",
            of_topic(&insert("f1"), "a")
        );
        execute(&mut service, &moved).await;
        execute(&mut service, "update event_outbox set topic = 'b'").await;
        assert_eq!(added(&mut admin).await, "f1");
    }
}

on_oldest_and_newest_server! {
    async fn a_session_that_replays_changes_of_elsewhere_adds_no_event(database: Database) {
        let (_, mut admin) = begin(&database).await;
        let replayed = format!(
            "set session_replication_role = replica; {} set session_replication_role = origin; {}",
            insert("replayed"),
            insert("own")
        );
        execute(&mut admin, &replayed).await;
        assert_eq!(added(&mut admin).await, "own");
        let waits = "select published_at is null from event_outbox where aggregate_id = 'replayed'";
        assert!(value::<bool>(&mut admin, waits).await);
    }
}

/// The publisher and the subscriber are databases of one server, so the slot is made by hand:
/// `create subscription` would wait for itself. The server is the test's own, because a slot waits
/// for all transactions of its server.
#[tokio::test]
async fn a_row_that_a_logical_replica_receives_is_no_event_there() {
    let mut server = Server::create().await;
    let mut admin = server.admin().connect().await.expect("the server");
    execute(&mut admin, "alter system set wal_level = logical").await;
    drop(admin);
    server.down("INT").await;
    server.up().await;
    let here = Database::create_on(server.admin()).await;
    let there = Database::create_on(server.admin()).await;
    let (mut service, mut admin) = begin(&here).await;
    let (_, mut replica) = begin(&there).await;
    execute(
        &mut admin,
        "create publication all_rows for table event_outbox",
    )
    .await;
    execute(
        &mut admin,
        "select pg_create_logical_replication_slot('all_rows', 'pgoutput')",
    )
    .await;
    let subscribe = format!(
        "create subscription all_rows connection 'host=127.0.0.1 port={} user=postgres dbname={}' \
         publication all_rows with (create_slot = false, copy_data = false)",
        server.port(),
        here.name
    );
    execute(&mut replica, &subscribe).await;
    execute(&mut service, &insert("f1")).await;
    until("the row to be replicated", async || {
        let published = "select count(published_at) from event_outbox";
        (value::<i64>(&mut replica, published).await == 1).then_some(())
    })
    .await;
    assert_eq!(added(&mut replica).await, "");
    assert_eq!(added(&mut admin).await, "f1");
    // Otherwise the database could not be dropped.
    execute(&mut replica, "drop subscription all_rows").await;
}

on_oldest_and_newest_server! {
    async fn a_time_of_publication_without_time_zone_has_that_of_the_session(database: Database) {
        let table = Generation::WithTopic
            .table("event_outbox")
            .replace("published_at timestamptz", "published_at timestamp");
        create_tables(&database, &table).await;
        adopt(&database, [event_outbox("public", "event_outbox")]).await;
        let (mut service, mut admin) = connect(&database).await;
        for zone in ["UTC", "Asia/Kathmandu", "America/St_Johns", "Europe/Berlin", "-13"] {
            let name = zone.replace(['/', '_'], "");
            execute(&mut service, &format!("set timezone = '{zone}'; begin; {}", insert(&name)))
                .await;
            let local = format!(
                "select published_at = ({MARKED})::timestamp from event_outbox where \
                 aggregate_id = '{name}'"
            );
            assert!(value::<bool>(&mut service, &local).await, "{zone}");
            execute(&mut service, "commit").await;
            execute(&mut service, &insert_published("no", "localtimestamp")).await;
        }
        assert_eq!(
            added(&mut admin).await,
            "UTC AsiaKathmandu AmericaStJohns EuropeBerlin -13"
        );
    }
}

#[tokio::test]
async fn the_triggers_of_the_service_come_first_and_ours_see_their_result() {
    let database = Database::create(15).await;
    let triggers = format!(
        "{}
         create function before_insert() returns trigger language plpgsql as $$
         begin
           case new.aggregate_id
             when 'published' then new.published_at := now();
             when 'changed' then new.event_data := '{{\"name\": \"by trigger\"}}';
             when 'null' then new.published_at := null;
             when 'skipped' then return null;
             else null;
           end case;
           return new;
         end $$;
         create trigger zz_service before insert on event_outbox for each row execute function \
         before_insert();",
        Generation::WithTopic.table("event_outbox")
    );
    create_tables(&database, &triggers).await;
    adopt(&database, [event_outbox("public", "event_outbox")]).await;
    let (mut service, mut admin) = connect(&database).await;
    execute(&mut service, &insert("published changed skipped plain")).await;
    execute(&mut service, &insert_published("null", "now()")).await;
    assert_eq!(added(&mut admin).await, "changed plain null");
    let payload = events(&mut admin).await[0].payload.clone();
    assert!(
        payload
            .as_deref()
            .is_some_and(|it| it.starts_with("{\"name\": \"by trigger\"")),
        "{payload:?}"
    );
}

/// A mapper flushes the row with all columns as parameters, null included, reads back what the
/// server has set, changes the object, and flushes again.
#[tokio::test]
async fn a_mapper_that_flushes_and_reads_back_finds_what_it_wrote() {
    let database = Database::create(15).await;
    let (mut service, mut admin) = begin(&database).await;
    execute(&mut service, "begin").await;
    let flush = format!(
        "insert into event_outbox ({COLUMNS}, published_at, retry_count, last_error)
         values ($1, $2, $3, $4, $5::json, $6, $7, $8::timestamptz, $9, $10)
         returning created_at::text"
    );
    for number in 1..=2_u128 {
        let created_at: String = query_scalar(AssertSqlSafe(flush.clone()))
            .bind(Uuid::from_u128(number))
            .bind("f1")
            .bind("file")
            .bind("Uploaded")
            .bind(r#"{"n": 1.10}"#)
            .bind(None::<String>)
            .bind("files")
            .bind(None::<String>)
            .bind(0_i32)
            .bind(None::<String>)
            .fetch_one(&mut service)
            .await
            .expect("flushed");
        let refreshed: (String, String, Option<String>, bool) = sqlx::query_as(
            "select created_at::text, event_data::text, event_key, published_at > created_at \
             from event_outbox where id = $1",
        )
        .bind(Uuid::from_u128(number))
        .fetch_one(&mut service)
        .await
        .expect("it is there");
        assert_eq!(
            refreshed,
            (created_at, r#"{"n": 1.10}"#.to_owned(), None, true)
        );
        let changed = query("update event_outbox set last_error = $2 where id = $1")
            .bind(Uuid::from_u128(number))
            .bind("later")
            .execute(&mut service)
            .await
            .expect("flushed again");
        assert_eq!(changed.rows_affected(), 1);
    }
    execute(&mut service, "commit").await;
    assert_eq!(added(&mut admin).await, "f1 f1");
}

#[tokio::test]
async fn a_service_needs_no_right_in_the_schema_of_the_outbox() {
    let database = Database::create(15).await;
    create_tables(&database, &Generation::WithTopic.table("event_outbox")).await;
    let mut settings = adopting(&database, [event_outbox("public", "event_outbox")]);
    settings.migration.producers.clear();
    assert_eq!(database.migrate(&settings).await.problem, None);
    let (mut service, mut admin) = connect(&database).await;
    assert_eq!(
        refused(&mut service, "select * from outbox.event").await,
        "42501"
    );
    execute(&mut service, &insert("f1")).await;
    copy_in(&mut service, "f2").await;
    assert_eq!(added(&mut admin).await, "f1 f2");
}

/// Tests of services freeze the time by a function `now` in a schema of their own.
#[tokio::test]
async fn a_session_with_another_function_of_the_name_now_loses_no_event() {
    let database = Database::create(15).await;
    let frozen = "create schema frozen;
        create function frozen.now() returns timestamptz language sql
          as $$ select timestamptz '2000-01-01 00:00Z' $$;
        create function frozen.add(timestamptz, interval) returns timestamptz language sql
          as $$ select timestamptz '2000-01-01 00:00Z' $$;
        create operator frozen.+ (function = frozen.add, leftarg = timestamptz, rightarg = \
        interval);";
    let tables = Generation::WithTopic.table("event_outbox") + frozen;
    create_tables(&database, &tables).await;
    adopt(&database, [event_outbox("public", "event_outbox")]).await;
    let (mut service, mut admin) = connect(&database).await;
    let insert = format!(
        "set search_path = frozen, public, pg_catalog; {} {}",
        insert("f1"),
        insert_published("no", "now()")
    );
    execute(&mut service, &insert).await;
    assert_eq!(added(&mut admin).await, "f1");
}

/// Name of the adopted table in its quotes, and the outbox's schema.
const ODD_SCHEMA: &str = "Übung \"1\"";
const ODD_TABLE: &str = "Event'Outbox\"; --%I @id@";

on_oldest_and_newest_server! {
    async fn names_that_need_quotes_and_another_schema_of_the_outbox_work(database: Database) {
        let (schema, table) = (r#""Übung ""1""""#, r#""Event'Outbox""; --%I @id@""#);
        let tables = format!(
            "create schema {schema};
             create type {schema}.\"Kind\" as enum ('Ä', 'B');
             create table {schema}.{table} (
               \"Id\" bigint generated always as identity, \"the \"\"Key\" text, \
             \"select\" text, payload text, fault {schema}.\"Kind\", \"Published At\" timestamptz,
               primary key (\"the \"\"Key\", \"Id\")
             );"
        );
        create_tables(&database, &tables).await;
        let named = [
            ("payload", "payload"),
            ("eventType", "fault"),
            ("aggregateType", r#"r."select""#),
            ("aggregateId", r#""the ""Key""#),
            ("topic", "'files'::text"),
            ("headers", r#"jsonb_build_object('Id', "Id", 'text', $$it's; -- $$)"#),
        ];
        let mut entry = by_expressions(ODD_SCHEMA, ODD_TABLE, expressions(&named));
        entry.published_column = Some("Published At".to_owned());
        let mut settings = adopting(&database, [entry]);
        settings.database.schema = "box_2".to_owned().try_into().expect("a name");
        assert_eq!(database.migrate(&settings).await.problem, None);
        let (mut service, mut admin) = connect(&database).await;
        let insert = format!(
            "insert into {schema}.{table} (\"the \"\"Key\", \"select\", payload, fault)
             values ('k \"1\"', 'kind', 'body', 'Ä'), ('it''s', 'kind', null, 'B')"
        );
        execute(&mut service, &insert).await;
        let shown = "select concat_ws('|', event_type, aggregate_type, aggregate_id, topic, \
            convert_from(payload, 'UTF8'), headers, source_key) from box_2.event order by id";
        assert_eq!(
            values::<String>(&mut admin, shown).await,
            [
                concat!(
                    r#"Ä|kind|k "1"|files|body|{"Id": 1, "text": "it's; -- "}|"#,
                    r#"{"Id": 1, "the \"Key": "k \"1\""}"#,
                ),
                concat!(
                    r#"B|kind|it's|files|{"Id": 2, "text": "it's; -- "}|"#,
                    r#"{"Id": 2, "the \"Key": "it's"}"#,
                ),
            ]
        );
        let report = database.migrate(&settings).await;
        let adopts = report.notes.iter().any(|note| note.contains("adopted"));
        assert_eq!((report.problem, adopts), (None, false), "{:?}", report.notes);
    }
}

on_oldest_and_newest_server! {
    /// A session has cached the plans of our functions when a migration of the service changes a
    /// type.
    async fn a_table_that_is_altered_under_an_open_session_gives_events_as_before(
        database: Database,
    ) {
        let tables = Generation::WithTopic.table("event_outbox")
            + "create table counted (id int generated always as identity primary key, key \
               varchar(10), body text);";
        create_tables(&database, &tables).await;
        let named = [
            ("payload", "body"),
            ("eventType", "'Counted'"),
            ("aggregateType", "'file'"),
            ("aggregateId", "key"),
            ("topic", "'files'"),
        ];
        let entries = [
            event_outbox("public", "event_outbox"),
            by_expressions("public", "counted", expressions(&named)),
        ];
        adopt(&database, entries).await;
        let (mut service, mut admin) = connect(&database).await;
        let mut owner = database.connect_as(&database.owner).await;
        for alter in [
            "select",
            "alter table event_outbox alter event_key type text, alter id set default \
             gen_random_uuid()",
            "alter table event_outbox add more text default 'x', alter retry_count type bigint",
            "alter table event_outbox alter event_data type jsonb, alter topic type text",
            "alter table event_outbox drop more, drop last_error",
            "alter table counted alter id type bigint",
            "alter table counted alter key type text, add more int",
        ] {
            execute(&mut owner, alter).await;
            execute(&mut admin, "truncate outbox.event").await;
            execute(&mut service, &insert("f1")).await;
            let count = "insert into counted (key, body) values ('k1', 'body') returning id::int";
            let id: i32 = value(&mut service, count).await;
            let events = events(&mut admin).await;
            let [envelope, counted] = &events[..] else {
                panic!("{alter}: {events:?}");
            };
            assert_eq!(envelope.headers["content_type"], "application/json", "{alter}");
            assert_eq!(envelope.headers["event_id"], envelope.event_id.to_string());
            let expected = format!("{{\"name\": \"f1\", \"event_id\": \"{}\"}}", envelope.event_id);
            assert_eq!(envelope.payload.as_ref(), Some(&expected), "{alter}");
            assert_eq!(
                (counted.payload.as_deref(), counted.aggregate_id.as_str(), counted.fault()),
                (Some("body"), "k1", None),
                "{alter}"
            );
            assert_eq!(counted.source_key, Some(format!("{{\"id\": {id}}}")), "{alter}");
        }
    }
}
