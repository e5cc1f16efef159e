//! Tables and expressions that cannot be adopted: each is refused with a reason and a next step,
//! and nothing is changed.

use outbox_relay::{
    report::ProblemClass,
    settings::{AdoptExpressions, AdoptPreset, AdoptSettings, RelaySettings},
};
use sqlx::PgConnection;

use crate::harness::{
    adopted::{Generation, adopting, event_outbox},
    own_outbox::{ADOPTED, catalog, events, insert_notes, made, note, with_note},
    postgres::{Database, execute, value},
};

/// Runs a migration that must be refused. Returns the message.
async fn refusal(
    database: &Database,
    admin: &mut PgConnection,
    settings: &RelaySettings,
) -> String {
    let before = catalog(admin).await;
    let report = database.migrate(settings).await;
    assert_eq!(catalog(admin).await, before, "something changed");
    let problem = report.problem.expect("a refusal");
    assert_eq!(problem.class, ProblemClass::AdoptionRefused, "{problem:?}");
    problem.message
}

fn table(name: &str) -> AdoptSettings {
    AdoptSettings {
        table: name.to_owned(),
        ..note()
    }
}

/// Tables, views and triggers that cannot be adopted.
const OBSTACLES: &str = "
    create table lacking (id uuid primary key, aggregate_id text, published_at timestamptz);
    create table number_id (like event_outbox);
    alter table number_id drop column id, add column id int primary key;
    create view note_view as select * from note;
    create materialized view note_copy as select * from note;
    create sequence note_sequence;
    create table parts (like note, primary key (id, topic)) partition by list (topic);
    create table part partition of parts for values in ('files');
    create table parent (like note including indexes);
    create table child (like note including indexes) inherits (parent);
    create table keyless (like note);
    create table secured (like note including indexes);
    alter table secured enable row level security;
    create table dated (like note including indexes);
    alter table dated alter published_at type date;
    create table coarse (like note including indexes);
    alter table coarse alter published_at type timestamptz(3);
    create table marked (like note including indexes);
    alter table marked alter published_at set default now();
    create table triggered (like note including indexes);
    create function late() returns trigger language plpgsql as 'begin return new; end';
    create trigger zzz_z before insert on triggered for each row execute function late();
    create trigger zzz_a before insert on note for each row execute function late();
    create trigger zzz_z after insert on note for each row execute function late();";

#[tokio::test]
async fn a_table_that_cannot_be_adopted_is_refused_with_a_next_step() {
    let database = Database::create(15).await;
    let mut admin = database.as_admin().await;
    let mut owner = with_note(&database).await;
    execute(&mut owner, &Generation::WithTopic.table("event_outbox")).await;
    execute(&mut owner, OBSTACLES).await;
    execute(
        &mut admin,
        "create foreign data wrapper w; create server elsewhere foreign data wrapper w; \
         create foreign table remote (id bigint, published_at timestamptz) server elsewhere",
    )
    .await;
    let preset = |name: &str, preset| AdoptSettings {
        table: name.to_owned(),
        preset: Some(preset),
        ..event_outbox("public", "event_outbox")
    };
    let cases = [
        (
            table("absent"),
            "there is no such table: correct spec.migration.adopt",
        ),
        (
            preset("lacking", AdoptPreset::EventOutbox),
            "it has no column aggregate_type, event_type, event_data, event_key, created_at: \
             correct preset",
        ),
        (
            preset("number_id", AdoptPreset::EventOutbox),
            "correct the expression for ",
        ),
        (
            preset("note", AdoptPreset::EventOutbox),
            "it has no column aggregate_id",
        ),
        (
            preset("event_outbox", AdoptPreset::Debezium),
            "it has no column aggregatetype, aggregateid, type, payload: correct preset",
        ),
        (table("note_view"), "it is a view: adopt the table below it"),
        (table("note_copy"), "it is a view: adopt the table below it"),
        (table("note_sequence"), "it is no table: correct"),
        (
            table("remote"),
            "it is a foreign table: adopt it where it is stored",
        ),
        (
            table("part"),
            "it is a partition: adopt the partitioned table",
        ),
        (
            table("parent"),
            "it is the parent of tables by INHERITS, whose rows it would miss: adopt each of them",
        ),
        (table("keyless"), "it has no primary key: add one"),
        (
            table("secured"),
            "it has row-level security, which could hide rows: disable it",
        ),
        (
            table("dated"),
            "column published_at has type date: it must be timestamptz or timestamp",
        ),
        (
            table("coarse"),
            "column published_at has type timestamp(3) with time zone: it must be",
        ),
        (
            table("marked"),
            "column published_at has a default, so that no row waits: drop the default",
        ),
        (
            table("triggered"),
            "its trigger zzz_z would run after zzz_outbox_mark: give it a name that sorts before",
        ),
    ];
    for (adopt, expected) in cases {
        let name = format!("table {adopt} cannot be adopted: ");
        let message = refusal(&database, &mut admin, &adopting(&database, [adopt])).await;
        assert!(
            message.starts_with(&name) && message.contains(expected),
            "{message}"
        );
    }
    // The message of the first table that cannot be adopted; the good one before it is left alone.
    let settings = adopting(&database, [note(), table("keyless")]);
    let message = refusal(&database, &mut admin, &settings).await;
    assert!(message.contains("public.keyless"), "{message}");
    // Triggers that sort before ours, or run after the insert, are no obstacle.
    let report = database.migrate(&adopting(&database, [note()])).await;
    assert_eq!(report.problem, None);
}

#[tokio::test]
async fn a_table_of_another_role_is_refused_with_the_grant_and_adopted_after_it() {
    let database = Database::create(15).await;
    let mut admin = database.as_admin().await;
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 1, 2).await;
    execute(
        &mut admin,
        &format!("alter table note owner to {}", database.producer),
    )
    .await;
    let settings = adopting(&database, [note()]);
    let message = refusal(&database, &mut admin, &settings).await;
    let (producer, role) = (&database.producer, &database.owner);
    let grant = format!("grant \"{producer}\" to \"{role}\"");
    let expected =
        format!("its owner is \"{producer}\", and the migration runs as \"{role}\": {grant}");
    assert!(message.ends_with(&expected), "{message}");
    execute(&mut admin, &grant).await;
    assert_eq!(database.migrate(&settings).await.problem, None);
    let mut service = database.connect_as(&database.producer).await;
    insert_notes(&mut service, 3, 3).await;
    assert_eq!(events(&mut admin).await, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_table_that_another_outbox_has_adopted_is_refused() {
    let database = Database::create(15).await;
    let mut admin = database.as_admin().await;
    with_note(&database).await;
    let settings = adopting(&database, [note()]);
    assert_eq!(database.migrate(&settings).await.problem, None);
    let mut other = settings.clone();
    other.owner.name = "essay-service".to_owned();
    other.database.schema = "outbox_2".to_owned().try_into().expect("a name");
    let message = refusal(&database, &mut admin, &other).await;
    assert!(
        message.contains("the outbox in schema outbox has adopted it: remove it from"),
        "{message}"
    );
    assert_eq!(made(&mut admin).await, ADOPTED);
    let mut without = settings.clone();
    without.migration.adopt.clear();
    assert_eq!(database.migrate(&without).await.problem, None);
    assert_eq!(database.migrate(&other).await.problem, None);
}

/// Texts that are no expression over a row, with what the message has about each.
const NO_EXPRESSIONS: [(&str, &str); 24] = [
    ("body ||", "syntax error"),
    ("", "syntax error"),
    ("no_such_column", "no_such_column"),
    ("public.no_such_function(body)", "no_such_function"),
    ("body, kind", "syntax error"),
    ("body, key", "syntax error"),
    ("a) from note where (true", "syntax error"),
    ("body) from note as r where (true", "syntax error"),
    ("1), (2", "syntax error"),
    ("body as x", "syntax error"),
    ("body union select body", "syntax error"),
    ("select body union select key", "syntax error"),
    ("body end, case when true then key", "syntax error"),
    ("body; drop table note", "syntax error"),
    ("$1", "parameter"),
    ("$1::text", "parameter"),
    ("regexp_split_to_table(body, '')", "set-returning functions"),
    ("$adopt$x$adopt$", "it contains $adopt$"),
    ("max(body)", "aggregate functions"),
    ("lag(body) over ()", "window functions"),
    ("ctid::text", "ctid"),
    ("new.body", "new"),
    ("a_topic", "a_topic"),
    ("body /* open", "unterminated"),
];

#[tokio::test]
async fn a_text_that_is_no_expression_over_a_row_is_refused_with_the_reason() {
    let database = Database::create(15).await;
    let mut admin = database.as_admin().await;
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 1, 1).await;
    let with = |expressions| {
        adopting(
            &database,
            [AdoptSettings {
                expressions,
                ..note()
            }],
        )
    };
    for (text, expected) in NO_EXPRESSIONS {
        let payload = with(AdoptExpressions {
            payload: Some(text.to_owned()),
            ..note().expressions
        });
        let topic = with(AdoptExpressions {
            topic: Some(text.to_owned()),
            ..note().expressions
        });
        for (settings, column) in [(payload, "payload"), (topic, "topic")] {
            let message = refusal(&database, &mut admin, &settings).await;
            let start = format!(
                "table public.note cannot be adopted: correct the expression for {column}: "
            );
            assert!(
                message.starts_with(&start) && message.contains(expected),
                "{text}: {message}"
            );
        }
    }
    let wrong_type = with(AdoptExpressions {
        event_id: Some("id".to_owned()),
        ..note().expressions
    });
    let message = refusal(&database, &mut admin, &wrong_type).await;
    assert!(
        message.contains("event_id: cannot cast type bigint to uuid"),
        "{message}"
    );
    assert_eq!(
        value::<i64>(&mut admin, "select count(*) from note").await,
        1
    );
}

/// Texts that look dangerous and are one expression each, with the payload of row 1.
const EXPRESSIONS: [(&str, &str); 6] = [
    ("body -- the text", "1"),
    ("(body) /* 'as it is */", "1"),
    ("(select max(n.body) from public.note as n)", "1"),
    (
        "r.body || '); drop table note; --'",
        "1); drop table note; --",
    ),
    ("$x$@row@ @schema@ $x$ || body", "@row@ @schema@ 1"),
    ("row_to_json(r) ->> 'body'", "1"),
];

#[tokio::test]
async fn comments_quotes_and_subqueries_are_part_of_an_expression() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 1, 1).await;
    for (text, expected) in EXPRESSIONS {
        let mut adopt = note();
        adopt.expressions.payload = Some(text.to_owned());
        let report = database.migrate(&adopting(&database, [adopt])).await;
        assert_eq!(report.problem, None, "{text}");
        execute(
            &mut owner,
            "delete from note; delete from outbox.event; delete from outbox.dead_letter",
        )
        .await;
        insert_notes(&mut owner, 1, 1).await;
        // The subquery sees the row before it is there in no trigger: AFTER INSERT sees it.
        assert_eq!(events(&mut owner).await, [expected], "{text}");
    }
}
