//! Adoption of a service's own outbox table by the migration: once, at any time, whole or not at
//! all.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use outbox_relay::{
    outbox::migrate::{self, LOCK_WAIT, migrate},
    report::ProblemClass,
    settings::{AdoptSettings, MigrationPolicy, RelaySettings},
};
use sqlx::PgConnection;

use crate::harness::{
    adopted::{Generation, adopting, event_outbox},
    own_outbox::{
        ADOPTED, catalog, events, insert_notes, kill, made, note, numbers, owner_is_gone,
        somebody_waits, start, unpublished, with_note,
    },
    postgres::{Database, execute, value, values},
};

fn verify(settings: &RelaySettings) -> RelaySettings {
    let mut verify = settings.clone();
    verify.migration.policy = MigrationPolicy::Verify;
    verify
}

/// Runs a migration that must succeed. Returns its notes on tables.
async fn notes(database: &Database, settings: &RelaySettings) -> Vec<String> {
    let report = database.migrate(settings).await;
    assert_eq!(report.problem, None);
    let mut notes = report.notes;
    notes.retain(|note| note.starts_with("table "));
    notes
}

const FOUR_WERE_MOVED: &str = "table public.note is adopted, 4 waiting rows were moved";

#[tokio::test]
async fn one_of_concurrent_migrations_adopts_a_table_and_the_others_do_nothing() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 1, 4).await;
    let settings = adopting(&database, [note()]);
    let reports = futures::future::join_all((0..4).map(|_| notes(&database, &settings))).await;
    assert_eq!(reports.concat(), [FOUR_WERE_MOVED]);
    insert_notes(&mut owner, 5, 6).await;
    assert_eq!(events(&mut owner).await, numbers(1, 6));
    assert_eq!(made(&mut owner).await, ADOPTED);
}

#[tokio::test]
async fn an_adoption_waits_for_a_migration_that_runs() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 1, 4).await;
    let mut other = database.as_admin().await;
    execute(
        &mut other,
        "begin; select pg_advisory_xact_lock(1868720754, hashtext('outbox'))",
    )
    .await;
    let settings = adopting(&database, [note()]);
    let soon = Duration::from_millis(300);
    let report = migrate(&settings, &database.secrets(), soon).await;
    assert_eq!(
        report.problem.expect("it waits").class,
        ProblemClass::LockTimeout
    );
    assert_eq!(made(&mut owner).await, [""; 0]);
    execute(&mut other, "rollback").await;
    assert_eq!(notes(&database, &settings).await, [FOUR_WERE_MOVED]);
}

#[tokio::test]
async fn each_of_two_tables_has_its_own_functions_and_its_rows_are_told_apart() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    execute(&mut owner, &Generation::WithTopic.table("event_outbox")).await;
    insert_notes(&mut owner, 1, 1).await;
    execute(
        &mut owner,
        "insert into event_outbox values (gen_random_uuid(), 'a', 'batch', 'E', '{\"n\": 1}', 'k', \
         'files')",
    )
    .await;
    let settings = adopting(&database, [note(), event_outbox("public", "event_outbox")]);
    assert_eq!(
        notes(&database, &settings).await,
        [
            "table public.note is adopted, 1 waiting rows were moved",
            "table public.event_outbox is adopted, 1 waiting rows were moved",
        ]
    );
    let functions = ["add_from_1", "add_from_2", "mark_1", "mark_2"];
    assert_eq!(made(&mut owner).await[..4], functions);
    let sources = "select format('%s %s', source, source_key ? 'id') from outbox.event order by \
        source";
    assert_eq!(values::<String>(&mut owner, sources).await, ["1 t", "2 t"]);
    assert_eq!(notes(&database, &settings).await, [""; 0]);
}

#[tokio::test]
async fn a_second_run_needs_no_lock_of_the_table() {
    let database = Database::create(15).await;
    let mut writer = with_note(&database).await;
    let settings = adopting(&database, [note()]);
    assert_eq!(notes(&database, &settings).await.len(), 1);
    execute(
        &mut writer,
        "begin; lock table note in share row exclusive mode; insert into note (id) values (1)",
    )
    .await;
    let soon = Duration::from_millis(1);
    let report = migrate(&settings, &database.secrets(), soon).await;
    assert_eq!(report.problem, None);
    // A table that cannot even be read is locked, and none that cannot be adopted.
    execute(&mut writer, "lock table note in access exclusive mode").await;
    let report = migrate(&settings, &database.secrets(), soon).await;
    let problem = report.problem.expect("a lock");
    assert_eq!(problem.class, ProblemClass::LockTimeout, "{problem:?}");
}

#[tokio::test]
async fn a_changed_expression_replaces_functions_and_triggers() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    let settings = adopting(&database, [note()]);
    notes(&database, &settings).await;
    insert_notes(&mut owner, 1, 1).await;
    let mut changed = settings.clone();
    changed.migration.adopt[0].expressions.payload = Some("'new ' || body".to_owned());
    assert_eq!(
        notes(&database, &changed).await,
        ["table public.note is adopted, 0 waiting rows were moved"]
    );
    insert_notes(&mut owner, 2, 2).await;
    assert_eq!(events(&mut owner).await, ["1", "new 2"]);
    assert_eq!(made(&mut owner).await, ADOPTED);
    // Without a column there is one trigger, and rows that wait are none of ours.
    changed.migration.adopt[0].published_column = None;
    notes(&database, &changed).await;
    insert_notes(&mut owner, 3, 3).await;
    assert_eq!(events(&mut owner).await, ["1", "new 2", "new 3"]);
    assert_eq!(made(&mut owner).await, ["add_from_1", "zzz_outbox_add"]);
    assert_eq!(unpublished(&mut owner).await, 1);
}

#[tokio::test]
async fn a_trigger_that_was_disabled_or_dropped_by_hand_is_made_again() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    let settings = adopting(&database, [note()]);
    notes(&database, &settings).await;
    let by_hand = [
        "alter table note disable trigger zzz_outbox_add",
        "alter table note enable replica trigger zzz_outbox_mark",
        "drop trigger zzz_outbox_mark on note",
    ];
    for (by_hand, number) in by_hand.into_iter().zip(1..) {
        execute(&mut owner, by_hand).await;
        insert_notes(&mut owner, number, number).await;
        let problem = database.migrate(&verify(&settings)).await.problem;
        assert_eq!(
            problem.expect("it differs").class,
            ProblemClass::AdoptionRefused
        );
        assert_eq!(notes(&database, &settings).await.len(), 1, "{by_hand}");
        assert_eq!(database.migrate(&verify(&settings)).await.problem, None);
    }
    // The first row was marked, so nothing shows that it is not published.
    assert_eq!(events(&mut owner).await, numbers(2, 3));
}

#[tokio::test]
async fn verify_reports_a_missing_adoption_and_changes_nothing() {
    let database = Database::create(15).await.migrated().await;
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 1, 4).await;
    let settings = adopting(&database, [note()]);
    let before = catalog(&mut owner).await;
    let problem = database.migrate(&verify(&settings)).await.problem;
    let problem = problem.expect("it is not adopted");
    assert_eq!(
        (problem.class, &*problem.message),
        (
            ProblemClass::AdoptionRefused,
            "table public.note is not adopted as the manifest says: set spec.migration.policy to \
             Apply"
        )
    );
    assert_eq!(catalog(&mut owner).await, before);
    assert_eq!(unpublished(&mut owner).await, 4);
    notes(&database, &settings).await;
    assert_eq!(database.migrate(&verify(&settings)).await.problem, None);
    // One that the manifest does not list any more differs, too.
    let problem = database
        .migrate(&verify(&database.settings()))
        .await
        .problem;
    assert!(
        problem
            .expect("it is adopted")
            .message
            .starts_with("table public.note is not adopted as the manifest says")
    );
}

/// Runs a script with psql as the owner. Returns what it printed as errors, if it failed.
async fn psql(database: &Database, script: &str) -> Result<(), String> {
    database.write_secret("script.sql", script);
    let url = format!(
        "postgres://{}:{}@{}/{}",
        database.owner,
        database.password(),
        database.address(),
        database.name
    );
    let file = database.secrets_folder().join("script.sql");
    let run = move || {
        Command::new("psql")
            .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"])
            .args(["--dbname", &url, "--file"])
            .arg(file)
            .output()
    };
    let output = tokio::task::spawn_blocking(run)
        .await
        .expect("not cancelled")
        .expect("psql");
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn script(database: &Database, settings: &RelaySettings) -> String {
    migrate::script(settings, &database.secrets())
        .await
        .expect("a script")
}

#[tokio::test]
async fn psql_adopts_and_releases_with_the_script_of_a_dry_run() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    execute(&mut owner, &Generation::WithTopic.table("event_outbox")).await;
    insert_notes(&mut owner, 1, 4).await;
    let of_note = AdoptSettings {
        retain_ms: Some(3_600_000),
        ..note()
    };
    let settings = adopting(&database, [of_note, event_outbox("public", "event_outbox")]);
    let before = catalog(&mut owner).await;
    let text = script(&database, &settings).await;
    assert_eq!(catalog(&mut owner).await, before);
    assert_eq!(psql(&database, &text).await, Ok(()));
    assert_eq!(database.migrate(&verify(&settings)).await.problem, None);
    assert_eq!(notes(&database, &settings).await, [""; 0]);
    assert_eq!(events(&mut owner).await, numbers(1, 4));
    insert_notes(&mut owner, 5, 5).await;
    assert_eq!(events(&mut owner).await, numbers(1, 5));
    assert!(!script(&database, &settings).await.contains("trigger"));

    let without = database.settings();
    let text = script(&database, &without).await;
    assert_eq!(psql(&database, &text).await, Ok(()));
    assert_eq!(database.migrate(&verify(&without)).await.problem, None);
    assert_eq!(made(&mut owner).await, [""; 0]);
    assert_eq!(unpublished(&mut owner).await, 5);
    assert_eq!(events(&mut owner).await, [""; 0]);
}

#[tokio::test]
async fn the_script_moves_rows_that_are_committed_while_it_waits_for_the_table() {
    let database = Database::create(15).await;
    let mut writer = with_note(&database).await;
    let mut admin = database.as_admin().await;
    execute(
        &mut admin,
        &format!(
            "alter database {} set default_transaction_isolation = 'repeatable read'",
            database.name
        ),
    )
    .await;
    let settings = adopting(&database, [note()]);
    let text = script(&database, &settings).await;
    execute(&mut writer, "begin").await;
    insert_notes(&mut writer, 1, 4).await;
    let commit = async {
        somebody_waits(&mut admin).await;
        execute(&mut writer, "commit").await;
    };
    let (done, ()) = tokio::join!(psql(&database, &text), commit);
    assert_eq!(done, Ok(()));
    assert_eq!(events(&mut admin).await, numbers(1, 4));
    assert_eq!(unpublished(&mut admin).await, 0);
}

#[tokio::test]
async fn the_script_changes_nothing_when_too_many_rows_have_come_since() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    let text = script(&database, &adopting(&database, [note()])).await;
    insert_notes(&mut owner, 1, 5_001).await;
    let before = catalog(&mut owner).await;
    let error = psql(&database, &text).await.expect_err("too many");
    assert!(error.contains("outbox-relay adopt --drain"), "{error}");
    assert_eq!(catalog(&mut owner).await, before);
    assert_eq!(unpublished(&mut owner).await, 5_001);
}

/// Checks that a migration that was killed left nothing behind, or everything. Returns which.
async fn nothing_or_all(admin: &mut PgConnection, rows: u32) -> bool {
    let objects = made(admin).await;
    let waiting = unpublished(admin).await;
    if objects.is_empty() {
        assert_eq!(waiting, i64::from(rows));
        let schemas = "select count(*) from pg_namespace where nspname = 'outbox'";
        assert_eq!(value::<i64>(admin, schemas).await, 0);
        return false;
    }
    assert_eq!(objects, ADOPTED);
    assert_eq!(waiting, 0);
    assert_eq!(events(admin).await, numbers(1, rows));
    let state = "select string_agg(state, ',') from outbox.adopted";
    assert_eq!(value::<String>(admin, state).await, "Adopted");
    true
}

#[tokio::test]
async fn a_migration_that_is_killed_at_any_moment_leaves_nothing_or_all() {
    const ROWS: u32 = 2_000;
    const KILLS: u32 = 16;
    let database = Database::create(15).await;
    let mut admin = database.as_admin().await;
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 1, ROWS).await;
    drop(owner);
    let settings = adopting(&database, [note()]);
    let reset = "drop schema if exists outbox cascade; update note set published_at = null";

    let began = Instant::now();
    assert_eq!(notes(&database, &settings).await.len(), 1);
    let whole = began.elapsed() * 2;
    execute(&mut admin, reset).await;

    let mut outcomes = Vec::new();
    for number in 0..KILLS {
        let program = start(&database, &settings, "migrate");
        tokio::time::sleep(whole * number / KILLS).await;
        kill(program);
        owner_is_gone(&database, &mut admin).await;
        outcomes.push(nothing_or_all(&mut admin, ROWS).await);
        execute(&mut admin, reset).await;
    }
    eprintln!("killed within {whole:?}, was it done: {outcomes:?}");
    assert!(!outcomes[0], "it was killed at its start");
}

/// Locks that stop a migration at a known moment: before it makes anything, when triggers and
/// functions are made and before it moves a certain row, and before it records what it did.
const STOPS: [&str; 3] = [
    "lock table note in row exclusive mode",
    "select from note where id = 3 for update",
    "lock table outbox.adopted in exclusive mode",
];

#[tokio::test]
async fn a_migration_that_is_killed_at_a_known_moment_leaves_nothing() {
    let database = Database::create(15).await.migrated().await;
    let mut admin = database.as_admin().await;
    let mut writer = with_note(&database).await;
    insert_notes(&mut writer, 1, 4).await;
    drop(writer);
    let settings = adopting(&database, [note()]);
    let before = catalog(&mut admin).await;
    for stop in STOPS {
        let mut holder = database.as_admin().await;
        execute(&mut holder, &format!("begin; {stop}")).await;
        let program = start(&database, &settings, "migrate");
        somebody_waits(&mut admin).await;
        kill(program);
        execute(&mut holder, "rollback").await;
        owner_is_gone(&database, &mut admin).await;
        assert_eq!(catalog(&mut admin).await, before, "{stop}");
        assert_eq!(unpublished(&mut admin).await, 4);
        assert_eq!(events(&mut admin).await, [""; 0]);
        let adopted = "select count(*) from outbox.adopted";
        assert_eq!(value::<i64>(&mut admin, adopted).await, 0);
    }
    let report = migrate(&settings, &database.secrets(), LOCK_WAIT).await;
    assert_eq!(report.problem, None);
    assert_eq!(events(&mut admin).await, numbers(1, 4));
}
