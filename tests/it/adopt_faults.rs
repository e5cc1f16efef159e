//! A row of an adopted table that cannot be converted is put aside, and the service's transaction
//! commits. What is not the row's fault ends the transaction as usual.

use std::collections::BTreeMap;

use outbox_relay::settings::AdoptSettings;
use sqlx::PgConnection;

use crate::harness::{
    adopted::{
        Event, Generation, adopt, adopting, by_expressions, create_tables, dead_letters,
        event_outbox, events, expressions, with_event_outbox,
    },
    postgres::{Database, execute, refused, value, values},
};

/// A table whose rows say which expression fails and with which SQLSTATE, and the function of the
/// service that the expressions call. The text of the error holds data of the row.
const TABLE: &str = "
    create table box (
      id bigint generated always as identity primary key, fails text, code text,
      key text default 'k1', secret text default 'hush'
    );
    create function checked(fails text, here text, code text, value text, secret text)
    returns text language plpgsql as $$
    begin
      if fails = here and code = '57014' then
        perform pg_sleep(60);
      elsif fails = here then
        raise exception 'not %', secret using errcode = code, detail = secret, hint = secret;
      end if;
      return value;
    end $$;";

/// Expressions in the order of evaluation with their values, and their names in a manifest.
const EXPRESSIONS: [(&str, &str, &str); 9] = [
    ("payload", "payload", "'body'"),
    ("headers", "headers", "'{\"a\": \"b\"}'"),
    ("topic", "topic", "'files'"),
    ("event_key", "eventKey", "key"),
    (
        "event_id",
        "eventId",
        "'00000000-0000-0000-0000-000000000001'",
    ),
    ("aggregate_type", "aggregateType", "'file'"),
    ("aggregate_id", "aggregateId", "'f1'"),
    ("event_type", "eventType", "'Uploaded'"),
    ("created_at", "createdAt", "'2026-01-02 03:04:05Z'"),
];

fn checked_box() -> AdoptSettings {
    let texts = EXPRESSIONS.map(|(column, _, value)| {
        format!("public.checked(fails, '{column}', code, {value}, secret)")
    });
    let named: Vec<(&str, &str)> = EXPRESSIONS
        .iter()
        .zip(&texts)
        .map(|((_, name, _), text)| (*name, text.as_str()))
        .collect();
    by_expressions("public", "box", expressions(&named))
}

/// Adopts [`TABLE`]. Returns a connection of the service, and one of the superuser.
async fn begin(database: &Database) -> (PgConnection, PgConnection) {
    create_tables(database, TABLE).await;
    adopt(database, [checked_box()]).await;
    let service = database.connect_as(&database.producer).await;
    (service, database.as_admin().await)
}

/// What became of the rows of [`TABLE`] by their ids.
fn by_id(events: Vec<Event>) -> BTreeMap<i64, Event> {
    let id = |event: &Event| {
        let key = event.source_key.as_deref().expect("its key");
        serde_json::from_str::<serde_json::Value>(key).expect("JSON")["id"]
            .as_i64()
            .expect("a number")
    };
    events
        .into_iter()
        .map(|event| (id(&event), event))
        .collect()
}

on_oldest_and_newest_server! {
    /// A row takes its place in its key if topic and key can be had, so that it parks the key
    /// there.
    async fn each_expression_that_fails_puts_its_row_aside_and_the_transaction_commits(
        database: Database,
    ) {
        let (mut service, mut admin) = begin(&database).await;
        let codes = ["22012", "22P02", "23514", "23502", "42501", "42P01", "P0001", "P0002"];
        let mut expected = BTreeMap::new();
        execute(&mut service, "begin").await;
        for (column, _, _) in EXPRESSIONS {
            for code in codes {
                let insert = format!(
                    "insert into box (fails, code) values ('{column}', '{code}') returning id"
                );
                let id: i64 = value(&mut service, &insert).await;
                expected.insert(id, (column, code));
            }
        }
        execute(&mut service, "insert into box default values; commit").await;

        let (mut waiting, letters) = (
            by_id(events(&mut admin).await),
            by_id(dead_letters(&mut admin).await),
        );
        for (id, (column, code)) in &expected {
            let is_letter = ["topic", "event_key"].contains(column);
            let (there, not_there) = match is_letter {
                true => (letters.get(id), waiting.remove(id)),
                false => (waiting.get(id), letters.get(id).cloned()),
            };
            assert_eq!(not_there, None, "{column} {code}");
            let row = there.unwrap_or_else(|| panic!("{column} {code} is lost"));
            let reason = format!("SQLSTATE {code} in expression {column}");
            assert_eq!(row.fault(), Some(reason.as_str()));
            assert_eq!(row.headers.len(), 1, "{row:?}");
            let or = |name: &str, value: &str, without: &str| {
                if *column == name { without.to_owned() } else { value.to_owned() }
            };
            let or_none = |name: &str, value: &str| (*column != name).then(|| value.to_owned());
            assert_eq!(
                (
                    &row.topic,
                    &row.event_key,
                    &row.aggregate_type,
                    &row.aggregate_id,
                    &row.event_type,
                ),
                (
                    &or_none("topic", "files"),
                    &or_none("event_key", "k1"),
                    &or("aggregate_type", "file", "unknown"),
                    &or("aggregate_id", "f1", "k1"),
                    &or("event_type", "Uploaded", "unknown"),
                )
            );
        }
        let proper: Vec<&Event> = waiting.values().filter(|row| row.fault().is_none()).collect();
        assert_eq!(proper.len(), 1);
        assert_eq!(
            (proper[0].payload.as_deref(), proper[0].event_key.as_deref()),
            (Some("body"), Some("k1"))
        );
        let classes = "select distinct class || attempts from outbox.dead_letter";
        assert_eq!(values::<String>(&mut admin, classes).await, ["AdoptionFailed1"]);
    }
}

#[tokio::test]
async fn a_row_without_key_or_topic_is_a_dead_letter() {
    let database = Database::create(15).await;
    let (mut service, mut admin) = begin(&database).await;
    let insert = "insert into box (fails, code, key) values ('aggregate_id', '22012', null), \
        ('aggregate_id', '22012', 'k1'), ('payload', '22012', null), ('topic', '22012', 'k1')";
    execute(&mut service, insert).await;
    let (waiting, letters) = (
        by_id(events(&mut admin).await),
        by_id(dead_letters(&mut admin).await),
    );
    let ids = |rows: &BTreeMap<i64, Event>| rows.keys().copied().collect::<Vec<_>>();
    assert_eq!((ids(&waiting), ids(&letters)), (vec![2, 3], vec![1, 4]));
    assert_eq!(waiting[&3].event_key, None, "its key is the aggregate's id");
    assert_eq!(letters[&1].aggregate_id, "unknown");
    let destinations = "select string_agg(destination, ',' order by source_key) from \
        outbox.dead_letter";
    assert_eq!(value::<String>(&mut admin, destinations).await, "files,");
}

on_oldest_and_newest_server! {
    async fn what_is_not_the_fault_of_the_row_ends_the_transaction(database: Database) {
        let (mut service, mut admin) = begin(&database).await;
        execute(&mut service, "set statement_timeout = '300ms'").await;
        for (column, _, _) in EXPRESSIONS {
            // Serialization failure, lock not available, out of memory, statement timeout.
            for code in ["40001", "55P03", "53200", "57014"] {
                if code == "57014" && column != "payload" {
                    continue;
                }
                let insert = format!("insert into box (fails, code) values ('{column}', '{code}')");
                assert_eq!(refused(&mut service, &insert).await, code, "{column}");
            }
        }
        let kept = "select (select count(*) from box) + (select count(*) from outbox.event) + \
            (select count(*) from outbox.dead_letter)";
        assert_eq!(value::<i64>(&mut admin, kept).await, 0);
    }
}

/// A table whose columns are the values.
const VALUES: &str = "
    create domain short as text check (length(value) < 5);
    create table box (
      id bigint generated always as identity primary key, topic text default 'files',
      key text default 'k1', kind text default 'file', aggregate text default 'f1',
      type text default 'Uploaded', body text default 'body', headers jsonb, event_id text
    );";

fn valued_box(more: &[(&'static str, &'static str)]) -> AdoptSettings {
    let mut named = vec![
        ("payload", "body"),
        ("topic", "topic"),
        ("eventKey", "key"),
        ("aggregateType", "kind"),
        ("aggregateId", "aggregate"),
        ("eventType", "r.type"),
        ("headers", "headers"),
        ("eventId", "event_id::uuid"),
    ];
    named.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
    named.extend(more);
    by_expressions("public", "box", expressions(&named))
}

#[tokio::test]
async fn a_value_that_an_event_cannot_have_puts_the_row_aside() {
    let database = Database::create(15).await;
    create_tables(&database, VALUES).await;
    adopt(&database, [valued_box(&[])]).await;
    let mut service = database.connect_as(&database.producer).await;
    for (columns, row, expected) in [
        ("kind", "null", "event: aggregate_type is null"),
        ("aggregate", "null", "event: aggregate_id is null"),
        (
            "aggregate, key",
            "null, null",
            "letter: aggregate_id is null",
        ),
        ("type", "null", "event: event_type is null"),
        (
            "topic",
            "'no topic'",
            "letter: topic is not the name of a Kafka topic",
        ),
        (
            "topic",
            "''",
            "letter: topic is not the name of a Kafka topic",
        ),
        (
            "topic",
            "'..'",
            "letter: topic is not the name of a Kafka topic",
        ),
        (
            "topic",
            "repeat('t', 250)",
            "letter: topic is not the name of a Kafka topic",
        ),
        ("headers", "'[1]'", "event: headers is not an object"),
        ("headers", "'null'", "event: headers is not an object"),
        (
            "event_id",
            "'f1'",
            "event: SQLSTATE 22P02 in expression event_id",
        ),
        // These are no faults: null is the default, and a null payload is a tombstone.
        ("topic", "null", "event: none"),
        ("key", "null", "event: none"),
        ("body", "null", "event: none"),
        ("event_id", "null", "event: none"),
        ("topic", "repeat('t', 249)", "event: none"),
    ] {
        execute(
            &mut service,
            &format!("insert into box ({columns}) values ({row})"),
        )
        .await;
        let mut admin = database.as_admin().await;
        let found = "select 'event: ' || coalesce(headers ->> 'outbox_adoption_fault', 'none') \
            from outbox.event union all select 'letter: ' || (headers ->> \
            'outbox_adoption_fault') from outbox.dead_letter";
        assert_eq!(
            values::<String>(&mut admin, found).await,
            [expected],
            "{columns} {row}"
        );
        execute(
            &mut admin,
            "truncate outbox.event; truncate outbox.dead_letter",
        )
        .await;
    }
}

/// Objects of the service go away after the adoption.
#[tokio::test]
async fn an_expression_whose_function_or_column_is_gone_puts_each_row_aside() {
    let database = Database::create(15).await;
    let function = "create function body_of(text) returns text language sql as 'select $1';
        create function closed(text) returns text language sql as 'select $1';";
    create_tables(&database, &(VALUES.to_owned() + function)).await;
    let more = [
        ("payload", "public.body_of(body)"),
        ("headers", "jsonb_build_object('short', body::public.short)"),
        ("eventType", "public.closed(r.type)"),
    ];
    adopt(&database, [valued_box(&more)]).await;
    let mut service = database.connect_as(&database.producer).await;
    let mut admin = database.as_admin().await;
    let owner = &database.owner;
    for (change, expected) in [
        ("".to_owned(), "none"),
        (
            "alter table box alter column body set default 'too long'".to_owned(),
            "SQLSTATE 23514 in expression headers",
        ),
        (
            "drop function body_of".to_owned(),
            "SQLSTATE 42883 in expression payload",
        ),
        (
            format!(
                "create function body_of(text) returns text language sql as 'select $1';
                 alter table box alter column body set default 'body'; alter function closed \
                 owner to postgres; revoke all on function closed from public, {owner}"
            ),
            "SQLSTATE 42501 in expression event_type",
        ),
        (
            "grant execute on function closed to public; alter table box drop column kind"
                .to_owned(),
            "SQLSTATE 42703 in expression aggregate_type",
        ),
    ] {
        execute(&mut admin, &change).await;
        execute(&mut service, "insert into box default values").await;
        let fault = "select coalesce(headers ->> 'outbox_adoption_fault', 'none') from \
            outbox.event order by id desc limit 1";
        assert_eq!(
            value::<String>(&mut admin, fault).await,
            expected,
            "{change}"
        );
    }
    assert_eq!(dead_letters(&mut admin).await, []);
}

#[tokio::test]
async fn what_is_put_aside_is_the_whole_row_and_the_reason_holds_no_data_of_it() {
    let database = Database::create(15).await;
    create_tables(&database, TABLE).await;
    let more = "alter table box add j json default '{\"a\" : 1e2, \"\\u00e9\":\"\\u0000\"}', \
        add b bytea default '\\x00ff', add n numeric default 1.10, add f float8 default 'NaN', \
        add t timestamptz default 'infinity', add \"Ö\"\"x\" text[] default '{ä,\"b c\",null}', \
        add x text default E'line\\nquote\" back\\\\slash \u{1f600}'";
    execute(&mut database.connect_as(&database.owner).await, more).await;
    adopt(&database, [checked_box()]).await;
    let mut service = database.connect_as(&database.producer).await;
    let insert = "insert into box (fails, code) values ('payload', '22012'), ('topic', 'P0001')";
    execute(&mut service, insert).await;
    let rows = "select row_to_json(whole)::text from box as whole order by id";
    let rows = values::<String>(&mut service, rows).await;
    assert!(
        rows[0].contains(r#"{"a" : 1e2, "\u00e9":"\u0000"}"#),
        "{}",
        rows[0]
    );
    let mut admin = database.as_admin().await;
    let copies = [events(&mut admin).await, dead_letters(&mut admin).await].concat();
    for (row, copy) in rows.iter().zip(&copies) {
        assert_eq!(Some(row), copy.payload.as_ref());
        let headers = serde_json::to_string(&copy.headers).expect("JSON");
        assert!(!headers.contains("hush"), "{headers}");
    }
    assert_eq!(copies.len(), 2);
}

on_oldest_and_newest_server! {
    async fn old_rows_without_a_readable_envelope_are_dead_letters_and_keep_key_and_types(
        database: Database,
    ) {
        with_event_outbox(&database, Generation::WithoutTopic).await;
        let mut service = database.connect_as(&database.producer).await;
        let insert = "insert into event_outbox (id, aggregate_id, aggregate_type, event_type, \
            event_data, event_key) select gen_random_uuid(), 'f1', 'file', 'Uploaded', d::json, \
            'k1' from unnest(array['{\"a\": \"\\u0000\", \"topic\": \"files\"}', \
            '{\"a\": \"\\ud800\", \"topic\": \"files\"}', '[1]', '1', 'null', '\"files\"', \
            '{\"event_type\": \"Other\"}', '{\"topic\": \"no topic\"}']) as d";
        execute(&mut service, insert).await;
        let mut admin = database.as_admin().await;
        let letters = dead_letters(&mut admin).await;
        let seen: Vec<_> = letters
            .iter()
            .map(|row| {
                assert_eq!(
                    (row.event_key.as_deref(), &*row.aggregate_id, &*row.aggregate_type),
                    (Some("k1"), "f1", "file")
                );
                row.fault().expect("a reason")
            })
            .collect();
        let unreadable = "SQLSTATE 22P05 in expression payload";
        let no_object = "SQLSTATE 22023 in expression payload";
        assert_eq!(
            seen,
            [
                unreadable,
                "SQLSTATE 22P02 in expression payload",
                no_object,
                no_object,
                no_object,
                no_object,
                "topic is not the name of a Kafka topic",
            ]
        );
        // Without a topic, a row is routed by its types.
        let routed = events(&mut admin).await;
        assert_eq!(routed.len(), 1);
        assert_eq!((&routed[0].topic, routed[0].event_type.as_str()), (&None, "Other"));
    }
}

/// Transaction ids are the server's, and other tests draw them too: the smallest number counts.
async fn fewest_ids(service: &mut PgConnection, other: &mut PgConnection, sql: &str) -> i64 {
    let mut fewest = i64::MAX;
    for _ in 0..50 {
        let id = "select pg_current_xact_id()::text::bigint";
        let before: i64 = value(other, id).await;
        execute(service, &format!("begin; {sql}; commit")).await;
        let after: i64 = value(other, id).await;
        // One of them is the id of the second query.
        fewest = fewest.min(after - before - 1);
        if fewest <= 2 {
            break;
        }
    }
    fewest
}

on_oldest_and_newest_server! {
    async fn rows_draw_no_transaction_ids_of_their_own_faulty_ones_neither(database: Database) {
        let (mut service, mut admin) = begin(&database).await;
        for fails in ["null", "'payload'", "'topic'", "'event_id'"] {
            let statements: String = (0..200)
                .map(|_| format!("insert into box (fails, code) values ({fails}, '22012');"))
                .collect();
            let ids = fewest_ids(&mut service, &mut admin, statements.trim_end_matches(';')).await;
            assert!(ids <= 2, "{ids} ids for 200 rows whose expression {fails} fails");
        }
        // A subtransaction that writes has an id, which its rows bear.
        let more = "select count(*) from (
              select xact from outbox.event where xmin::text <> (xact::text::bigint & \
            4294967295)::text
            ) as of_subtransactions";
        assert_eq!(value::<i64>(&mut admin, more).await, 0);
        let letters = "select count(*) >= 200 and count(distinct xmin::text) * 200 = count(*) \
            from outbox.dead_letter";
        assert!(value::<bool>(&mut admin, letters).await);
    }
}

/// The manifest's own expressions hold for a row that goes out whole, too.
#[tokio::test]
async fn expressions_on_top_of_a_preset_hold_for_rows_that_go_out_whole() {
    let database = Database::create(15).await;
    let tables = ["by_row", "by_envelope"].map(|name| Generation::WithTopic.table(name));
    create_tables(&database, &tables.concat()).await;
    let with = |table: &str, named: &[(&str, &str)]| {
        let mut entry = event_outbox("public", table);
        entry.expressions = expressions(named);
        entry
    };
    let entries = [
        with(
            "by_row",
            &[
                ("topic", "'prefix.' || r.topic"),
                ("eventKey", "upper(event_key)"),
            ],
        ),
        with("by_envelope", &[("topic", "envelope ->> 'to'")]),
    ];
    adopt(&database, entries).await;
    let mut service = database.connect_as(&database.producer).await;
    for table in ["by_row", "by_envelope"] {
        let insert = format!(
            "insert into {table} (id, aggregate_id, aggregate_type, event_type, event_data, \
             event_key, topic) select gen_random_uuid(), 'f1', 'file', 'Uploaded', d::json, 'k', \
             'files' from unnest(array['{{\"to\": \"there\"}}', '{{\"to\": \"\\u0000\"}}']) as d"
        );
        execute(&mut service, &insert).await;
    }
    let mut admin = database.as_admin().await;
    let topics: Vec<_> = events(&mut admin)
        .await
        .into_iter()
        .map(|row| (row.topic, row.event_key))
        .collect();
    let expected = |topic: &str, key: &str| (Some(topic.to_owned()), Some(key.to_owned()));
    assert_eq!(
        topics,
        [
            expected("prefix.files", "K"),
            expected("prefix.files", "K"),
            expected("there", "k"),
        ]
    );
    let letters = dead_letters(&mut admin).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].event_key.as_deref(), Some("k"));
}

/// What would fail for each row, or never make an event, is refused before anything changes.
#[tokio::test]
async fn what_cannot_work_for_any_row_is_refused_at_the_adoption() {
    let database = Database::create(15).await;
    let column = "alter table box add published_at timestamptz default now();";
    create_tables(&database, &(VALUES.to_owned() + column)).await;
    let with_column = AdoptSettings {
        published_column: Some("published_at".to_owned()),
        ..valued_box(&[])
    };
    for (entry, expected) in [
        (
            valued_box(&[("payload", "string_agg(body, ',')")]),
            "aggregate functions are not allowed",
        ),
        (
            valued_box(&[("payload", "row_number() over ()")]),
            "window functions are not allowed",
        ),
        (
            valued_box(&[("payload", "regexp_split_to_table(body, ',')")]),
            "set-returning functions are not allowed",
        ),
        (with_column, "column published_at has a default"),
    ] {
        let report = database.migrate(&adopting(&database, [entry])).await;
        let problem = report.problem.expect(expected);
        assert!(problem.message.contains(expected), "{}", problem.message);
    }
}

#[tokio::test]
async fn an_expression_can_call_a_function_that_takes_the_row() {
    let database = Database::create(15).await;
    let function = "alter table box drop headers, add headers jsonb; create function \
        of_row(public.box) returns text language sql as 'select $1.body || $1.id';";
    create_tables(&database, &(VALUES.to_owned() + function)).await;
    adopt(&database, [valued_box(&[("payload", "public.of_row(r)")])]).await;
    let mut service = database.connect_as(&database.producer).await;
    execute(&mut service, "insert into box default values").await;
    let events = events(&mut database.as_admin().await).await;
    assert_eq!(
        (events[0].payload.as_deref(), events[0].fault()),
        (Some("body1"), None)
    );
}

/// Only servers from version 18 have such columns. They are null in triggers.
#[tokio::test]
async fn an_expression_with_a_virtual_generated_column_is_refused() {
    let database = Database::create(18).await;
    let columns = "alter table box add stored text generated always as (upper(body)) stored, add \
        virtual text generated always as (upper(body)) virtual;";
    create_tables(&database, &(VALUES.to_owned() + columns)).await;
    let entry = |payload| adopting(&database, [valued_box(&[("payload", payload)])]);
    let problem = database.migrate(&entry("virtual")).await.problem;
    let message = problem.expect("refused").message;
    assert!(message.contains("\"virtual\" does not exist"), "{message}");
    assert_eq!(database.migrate(&entry("stored")).await.problem, None);
    let mut service = database.connect_as(&database.producer).await;
    execute(&mut service, "insert into box default values").await;
    let events = events(&mut database.as_admin().await).await;
    assert_eq!(events[0].payload.as_deref(), Some("BODY"));
}
