//! `outbox-relay adopt` against real servers: what it prints, what it changes, and its exit codes.

use serde_json::json;
use sqlx::PgConnection;

use crate::{
    cli::{Cli, stderr},
    harness::{
        adopted::{Generation, create_tables},
        own_outbox::{catalog, events, insert_notes, made, numbers, unpublished, with_note},
        postgres::{Database, execute, value},
    },
};

const NOTE: &str = "{ table: public.note, publishedColumn: published_at, expressions: { payload: \
    \"case when body like 'fault%' then body::int::text else body end\", topic: topic, eventKey: \
    key, eventType: \"'Uploaded'\", aggregateType: \"'note'\", aggregateId: 'id::text', createdAt: \
    created_at } }";
const EVENT_OUTBOX: &str = "{ table: public.event_outbox, preset: EventOutbox }";

/// The program with a manifest that adopts these tables.
fn adopting(database: &Database, entries: &[&str]) -> Cli {
    let cli = Cli::new(database);
    let path = database.secrets_folder().join("manifest.yaml");
    let manifest = std::fs::read_to_string(&path).expect("a manifest");
    let adopt = format!("migration:\n    adopt: [ {} ]", entries.join(", "));
    let manifest = manifest.replacen("migration:", &adopt, 1);
    std::fs::write(path, manifest).expect("written");
    cli
}

/// Number of open transactions' locks and catalog entries, and the rows: what a dry run keeps.
async fn state(admin: &mut PgConnection) -> (String, i64) {
    (catalog(admin).await, unpublished(admin).await)
}

#[tokio::test]
async fn a_dry_run_counts_what_would_move_and_what_cannot_and_changes_nothing() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 1, 7).await;
    execute(
        &mut owner,
        "update note set topic = 'other' where id in (2, 3);
         update note set topic = null where id = 4;
         update note set topic = 'no topic' where id = 5;
         update note set body = 'fault' where id in (6, 7);
         insert into note values (8, 'files', 'k', 'published', now(), now());
         create unique index once on note (key, body) where published_at is null",
    )
    .await;
    let cli = adopting(&database, &[NOTE]);
    let before = state(&mut owner).await;
    assert_eq!(
        cli.ends(0, "adopt --dry-run"),
        "public.note: 7 waiting rows would be moved\n  \
         2 to other: spec.topics does not declare it, these rows would wait\n  \
         1 to files\n  \
         1 to (routed by types)\n  \
         2 cannot be converted: SQLSTATE 22P02 in expression payload\n  \
         1 cannot be converted: topic is not the name of a Kafka topic\n  \
         unique index public.once: if its condition is that a row waits, it guards nothing after the \
         adoption\n"
    );
    assert_eq!(
        cli.json("adopt --dry-run"),
        json!([{
            "table": "public.note",
            "isAdopted": false,
            "waiting": 7,
            "exhausted": 0,
            "isSmall": true,
            "topics": [
                {"topic": "other", "rows": 2, "isDeclared": false},
                {"topic": "files", "rows": 1, "isDeclared": true},
                {"topic": null, "rows": 1, "isDeclared": true},
            ],
            "faults": [
                {"fault": "SQLSTATE 22P02 in expression payload", "rows": 2},
                {"fault": "topic is not the name of a Kafka topic", "rows": 1},
            ],
            "partialUniqueIndexes": ["public.once"],
        }])
    );
    assert_eq!(state(&mut owner).await, before);
    let schemas = "select count(*) from pg_namespace where nspname = 'outbox'";
    assert_eq!(value::<i64>(&mut owner, schemas).await, 0);

    cli.ends(0, "migrate");
    let text = cli.ends(0, "adopt --dry-run");
    assert!(text.starts_with("public.note: is adopted\n"), "{text}");
    // What the dry run has counted has come.
    let moved = "select format('%s events, %s with a fault, %s dead letters', count(*), count(*) \
        filter (where headers ? 'outbox_adoption_fault'), (select count(*) from \
        outbox.dead_letter)) from outbox.event";
    assert_eq!(
        value::<String>(&mut owner, moved).await,
        "6 events, 2 with a fault, 1 dead letters"
    );
}

#[tokio::test]
async fn a_dry_run_lists_rows_that_the_old_worker_has_given_up() {
    let database = Database::create(15).await;
    create_tables(&database, &Generation::WithoutTopic.table("event_outbox")).await;
    let mut owner = database.connect_as(&database.owner).await;
    execute(
        &mut owner,
        "insert into event_outbox select gen_random_uuid(), 'a', 'batch', 'E', '{\"topic\": \
         \"files\"}', 'k', now(), null, n from generate_series(4, 6) n",
    )
    .await;
    let cli = adopting(&database, &[EVENT_OUTBOX]);
    assert_eq!(
        cli.ends(0, "adopt --dry-run"),
        "public.event_outbox: 3 waiting rows would be moved\n  \
         2 rows the old worker has given up: see migration.adopt.exhausted\n  \
         3 to files\n"
    );
    let leaving = EVENT_OUTBOX.replace(" }", ", exhausted: Leave }");
    let cli = adopting(&database, &[&leaving]);
    let result = cli.json("adopt --dry-run");
    assert_eq!(
        (&result[0]["waiting"], &result[0]["exhausted"]),
        (&json!(1), &json!(2))
    );
}

#[tokio::test]
async fn a_dry_run_does_not_disturb_writers() {
    let database = Database::create(15).await;
    let mut writer = with_note(&database).await;
    let cli = adopting(&database, &[NOTE]);
    execute(
        &mut writer,
        "begin; lock table note in share row exclusive mode; insert into note values (1, 'files', \
         'k', '1')",
    )
    .await;
    assert_eq!(
        cli.ends(0, "adopt --dry-run"),
        "public.note: 0 waiting rows would be moved\n"
    );
    execute(&mut writer, "commit").await;
}

#[tokio::test]
async fn many_rows_are_drained_by_command_and_then_the_migration_adopts_the_table() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 1, 5_001).await;
    let cli = adopting(&database, &[NOTE]);
    let text = cli.ends(0, "adopt --dry-run");
    assert!(
        text.starts_with(
            "public.note: 5,001 waiting rows are too many for the migration: stop the old worker \
             and run `outbox-relay adopt --drain`\n"
        ),
        "{text}"
    );
    // The schema does not exist yet.
    let output = cli.run("adopt --drain --table public.note --yes");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("SchemaNotReady"), "{output:?}");
    Cli::new(&database).ends(0, "migrate");

    let cli = adopting(&database, &[NOTE]);
    // Without a terminal it does not ask.
    cli.ends(4, "adopt --drain --table public.note");
    assert_eq!(unpublished(&mut owner).await, 5_001);
    assert_eq!(
        cli.ends(0, "adopt --drain --table public.note --yes"),
        "moved 5,001 rows of public.note\n"
    );
    assert_eq!(
        cli.json("adopt --drain --table public.note --yes"),
        json!({"table": "public.note", "moved": 0})
    );
    cli.ends(0, "migrate");
    assert_eq!(events(&mut owner).await, numbers(1, 5_001));
    assert_eq!(made(&mut owner).await.len(), 4);
}

#[tokio::test]
async fn commands_that_cannot_be_meant_are_refused() {
    let database = Database::create(15).await;
    with_note(&database).await;
    let cli = Cli::new(&database);
    assert!(stderr(&cli.run("adopt --dry-run")).contains("has no spec.migration.adopt"));
    cli.ends(3, "adopt --dry-run");
    let cli = adopting(&database, &[NOTE]);
    for command in [
        "adopt",
        "adopt --drain --yes",
        "adopt --dry-run --drain --table public.note",
    ] {
        let output = cli.run(command);
        assert_eq!(output.status.code(), Some(2), "{command}: {output:?}");
    }
    let output = cli.run("adopt --dry-run --table public.absent");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("spec.migration.adopt has no table 'public.absent'"),
        "{output:?}"
    );
}

#[tokio::test]
async fn a_manifest_with_entries_that_cannot_work_is_refused() {
    let database = Database::create(15).await;
    let cases = [
        (
            vec![NOTE, NOTE],
            "spec.migration.adopt, table 'public.note': it is listed twice; remove one entry",
        ),
        (
            vec!["{ table: note, preset: EventOutbox }"],
            "spec.migration.adopt, table 'note': write it as schema.table",
        ),
        (
            vec!["{ table: public.note, expressions: { payload: body } }"],
            "table 'public.note': without a preset, set expressions for payload, eventType, \
             aggregateType and aggregateId",
        ),
        (
            vec!["{ table: public.event_outbox, preset: EventOutbox, retain: 59m }"],
            "retain must be between 1h and 87600h",
        ),
        (
            vec!["{ table: public.o, preset: Debezium, retain: 48h }"],
            "retain needs publishedColumn, the column with the time of publication",
        ),
        (
            vec!["{ table: public.o, preset: Debezum }"],
            "unknown variant `Debezum`",
        ),
        (
            vec!["{ table: public.o, preset: Debezium, expresions: {} }"],
            "spec.migration.adopt[0].expresions: is not a field; use one of: exhausted, expressions",
        ),
    ];
    for (entries, expected) in cases {
        let cli = adopting(&database, &entries);
        let output = cli.run("migrate");
        assert_eq!(output.status.code(), Some(1), "{entries:?}: {output:?}");
        assert!(
            stderr(&output).contains(expected),
            "{entries:?}: {output:?}"
        );
    }
    let mut admin = database.as_admin().await;
    let schemas = "select count(*) from pg_namespace where nspname = 'outbox'";
    assert_eq!(value::<i64>(&mut admin, schemas).await, 0);
}
