//! Rows that wait in a table when it is adopted: they move in their order, writers wait shortly, and
//! no row is lost, whatever runs beside it.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use outbox_relay::{
    outbox::migrate::{self, migrate},
    report::{MigrationReport, Problem, ProblemClass},
    settings::{ExhaustedRows, RelaySettings},
};
use sqlx::PgConnection;

use crate::harness::{
    adopted::{Generation, adopting, event_outbox},
    own_outbox::{
        ADOPTED, OLD_BATCH, events, insert_notes, kill, made, note, numbers, old_worker,
        owner_is_gone, somebody_waits, start, unpublished, with_note,
    },
    postgres::{Database, execute, value, values},
    relay::until,
};

async fn adopt(database: &Database, settings: &RelaySettings) {
    assert_eq!(database.migrate(settings).await.problem, None);
}

/// Moves all waiting rows of the first table. Returns how many each transaction moved.
async fn drain(database: &Database, settings: &RelaySettings) -> Result<Vec<i64>, Problem> {
    let mut batches = Vec::new();
    let table = &settings.migration.adopt[0];
    let secrets = database.secrets();
    migrate::drain(settings, &secrets, table, |rows| batches.push(rows)).await?;
    Ok(batches)
}

#[tokio::test]
async fn rows_that_wait_move_in_the_order_of_their_time_and_then_of_their_key() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    execute(
        &mut owner,
        "insert into note (id, topic, key, body, created_at) select 1000 - n, 'files', 'k', \
         n::text, timestamptz '2026-01-01' + n * interval '1 s' from generate_series(6, 200) n;
         insert into note (id, topic, key, body, created_at) select n, 'files', 'k', n::text, \
         timestamptz '2026-01-01' from generate_series(5, 1, -1) n;
         insert into note values (0, 'files', 'k', 'published', now(), now())",
    )
    .await;
    adopt(&database, &adopting(&database, [note()])).await;
    assert_eq!(events(&mut owner).await, numbers(1, 200));
    let created = "select bool_and(e.created_at = n.created_at) from outbox.event as e join note \
        as n on n.id = (e.source_key ->> 'id')::bigint";
    assert!(value::<bool>(&mut owner, created).await);
    assert_eq!(unpublished(&mut owner).await, 0);
}

#[tokio::test]
async fn a_row_committed_while_the_lock_is_awaited_moves_whatever_the_default_isolation_is() {
    for (level, scope) in [
        ("repeatable read", "role"),
        ("serializable", "role"),
        ("repeatable read", "database"),
        ("serializable", "database"),
    ] {
        let database = Database::create(15).await;
        let mut admin = database.as_admin().await;
        let mut writer = with_note(&database).await;
        let name = match scope {
            "role" => &database.owner,
            _ => &database.name,
        };
        let set = format!("alter {scope} {name} set default_transaction_isolation = '{level}'");
        execute(&mut admin, &set).await;
        insert_notes(&mut writer, 1, 3).await;
        execute(&mut writer, "begin isolation level read committed").await;
        insert_notes(&mut writer, 4, 4).await;
        let commit = async {
            somebody_waits(&mut admin).await;
            execute(&mut writer, "commit").await;
        };
        let settings = adopting(&database, [note()]);
        tokio::join!(adopt(&database, &settings), commit);
        assert_eq!(
            events(&mut admin).await,
            numbers(1, 4),
            "{level} of {scope}"
        );
        assert_eq!(unpublished(&mut admin).await, 0);
    }
}

async fn insert_one(connection: &mut PgConnection, id: i64) {
    let insert = "insert into note (id, topic, key, body) values ($1, 'files', 'k', $1::text) on \
        conflict do nothing";
    let inserted = sqlx::query(insert).bind(id).execute(connection).await;
    inserted.expect("a row");
}

/// Writes rows until a migration ends. Returns its report, and how long the slowest row took.
async fn write_beside(
    database: &Database,
    settings: &RelaySettings,
    lock_wait: Duration,
) -> (MigrationReport, Duration) {
    let mut writer = database.connect_as(&database.owner).await;
    let secrets = database.secrets();
    let mut migration = pin!(migrate(settings, &secrets, lock_wait));
    let (mut slowest, mut written) = (Duration::ZERO, 0);
    loop {
        let began = Instant::now();
        tokio::select! {
            report = &mut migration => {
                // A row that is being written has waited, too.
                slowest = slowest.max(began.elapsed());
                eprintln!("{written} rows were written, the slowest took {slowest:?}");
                return (report, slowest);
            }
            () = insert_one(&mut writer, 10 + written % 1_000) => {
                slowest = slowest.max(began.elapsed());
                written += 1;
            }
        }
    }
}

/// Checks that no row was lost, once the table is adopted.
async fn all_rows_are_events(admin: &mut PgConnection) {
    let counts = "select (select count(*) from note) - (select count(*) from outbox.event)";
    assert_eq!(value::<i64>(admin, counts).await, 0);
    assert_eq!(unpublished(admin).await, 0);
}

#[tokio::test]
async fn a_long_transaction_delays_the_adoption_and_other_writers_wait_less_than_a_second() {
    let database = Database::create(15).await.migrated().await;
    let mut long = with_note(&database).await;
    let mut admin = database.as_admin().await;
    execute(&mut long, "begin; insert into note (id) values (-1)").await;
    let settings = adopting(&database, [note()]);
    let lock_wait = Duration::from_secs(3);
    let (report, slowest) = write_beside(&database, &settings, lock_wait).await;
    let problem = report.problem.expect("the table is in use");
    assert_eq!(problem.class, ProblemClass::LockTimeout);
    let message = &problem.message;
    assert!(
        message.contains("note") && message.contains("in use by long transactions"),
        "{message}"
    );
    // A writer that waits does so for most of a try of 200 ms.
    let range = Duration::from_millis(50)..Duration::from_secs(1);
    assert!(range.contains(&slowest), "{slowest:?}");
    assert_eq!(made(&mut admin).await, [""; 0]);
    assert_eq!(events(&mut admin).await, [""; 0]);

    execute(&mut long, "rollback").await;
    adopt(&database, &settings).await;
    all_rows_are_events(&mut admin).await;
}

/// An old worker can hold rows while it sends them: `select ... for update skip locked`.
#[tokio::test]
async fn a_row_that_an_old_worker_holds_delays_the_adoption_and_writers_wait_less_than_a_second() {
    let database = Database::create(15).await.migrated().await;
    let mut worker = with_note(&database).await;
    let mut admin = database.as_admin().await;
    insert_notes(&mut worker, 1, 3).await;
    execute(
        &mut worker,
        "begin; select from note where id = 2 for update",
    )
    .await;
    let settings = adopting(&database, [note()]);
    let lock_wait = Duration::from_secs(3);
    let (report, slowest) = write_beside(&database, &settings, lock_wait).await;
    let problem = report.problem.expect("a row is in use");
    assert_eq!(problem.class, ProblemClass::LockTimeout);
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert_eq!(made(&mut admin).await, [""; 0]);
    assert_eq!(events(&mut admin).await, [""; 0]);

    execute(&mut worker, "rollback").await;
    adopt(&database, &settings).await;
    all_rows_are_events(&mut admin).await;
}

#[tokio::test]
async fn more_rows_than_writers_can_wait_for_are_refused_and_drained_first() {
    let database = Database::create(15).await.migrated().await;
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 1, 5_001).await;
    let settings = adopting(&database, [note()]);
    let problem = database.migrate(&settings).await.problem;
    let problem = problem.expect("too many rows");
    assert_eq!(problem.class, ProblemClass::AdoptionRefused);
    assert!(
        problem
            .message
            .starts_with("table public.note has more than 5000 waiting rows")
            && problem.message.contains("`outbox-relay adopt --drain`"),
        "{problem:?}"
    );
    assert_eq!(unpublished(&mut owner).await, 5_001);
    assert_eq!(made(&mut owner).await, [""; 0]);

    let batches = drain(&database, &settings).await.expect("drained");
    assert_eq!(batches, [1_000, 1_000, 1_000, 1_000, 1_000, 1]);
    assert_eq!(events(&mut owner).await, numbers(1, 5_001));
    assert_eq!(made(&mut owner).await, [""; 0]);
    // Rows that come between the drain and the migration move with it.
    insert_notes(&mut owner, 5_002, 5_002).await;
    adopt(&database, &settings).await;
    assert_eq!(events(&mut owner).await, numbers(1, 5_002));
    assert_eq!(made(&mut owner).await, ADOPTED);
    // An adopted table has nothing to drain.
    assert_eq!(drain(&database, &settings).await, Ok(vec![]));
}

#[tokio::test]
async fn as_many_rows_as_writers_can_wait_for_move_with_the_migration() {
    let database = Database::create(15).await.migrated().await;
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 1, 5_000).await;
    let began = Instant::now();
    adopt(&database, &adopting(&database, [note()])).await;
    eprintln!("5,000 rows were moved in {:?}", began.elapsed());
    assert_eq!(events(&mut owner).await, numbers(1, 5_000));
}

#[tokio::test]
async fn a_drain_that_is_killed_goes_on_where_it_was() {
    let database = Database::create(15).await.migrated().await;
    let mut owner = with_note(&database).await;
    let mut admin = database.as_admin().await;
    insert_notes(&mut owner, 1, 2_500).await;
    drop(owner);
    let settings = adopting(&database, [note()]);
    let mut holder = database.as_admin().await;
    execute(
        &mut holder,
        "begin; select from note where id = 1500 for update",
    )
    .await;
    let program = start(
        &database,
        &settings,
        "adopt --drain --table public.note --yes",
    );
    until("the first batch", async || {
        (events(&mut admin).await.len() == 1_000).then_some(())
    })
    .await;
    somebody_waits(&mut admin).await;
    kill(program);
    execute(&mut holder, "rollback").await;
    owner_is_gone(&database, &mut admin).await;
    assert_eq!(events(&mut admin).await, numbers(1, 1_000));
    let batches = drain(&database, &settings).await.expect("drained");
    assert_eq!(batches, [1_000, 500]);
    assert_eq!(events(&mut admin).await, numbers(1, 2_500));
    adopt(&database, &settings).await;
}

#[tokio::test]
async fn a_drain_needs_the_schema_and_a_table_that_can_be_adopted() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 1, 1).await;
    let settings = adopting(&database, [note()]);
    let problem = drain(&database, &settings).await.expect_err("no schema");
    assert_eq!(problem.class, ProblemClass::SchemaNotReady);
    let database = database.migrated().await;
    let mut wrong = settings.clone();
    wrong.migration.adopt[0].expressions.topic = Some("no_such".to_owned());
    let problem = drain(&database, &wrong).await.expect_err("no such column");
    assert_eq!(problem.class, ProblemClass::AdoptionRefused);
    assert_eq!(unpublished(&mut owner).await, 1);
}

#[tokio::test]
async fn rows_of_one_transaction_with_random_keys_move_in_the_order_of_their_insertion() {
    let database = Database::create(15).await.migrated().await;
    let mut owner = database.connect_as(&database.owner).await;
    execute(&mut owner, &Generation::WithTopic.table("event_outbox")).await;
    let rows = "insert into event_outbox select gen_random_uuid(), n::text, 'batch', 'E', '{}', \
        'k', 'files' from generate_series(FROM, TO) as s (n) order by s.n";
    let insert = |from: &str, to: &str| rows.replace("FROM", from).replace("TO", to);
    execute(&mut owner, &insert("1", "50")).await;
    let settings = adopting(&database, [event_outbox("public", "event_outbox")]);
    assert_eq!(drain(&database, &settings).await, Ok(vec![50]));
    execute(&mut owner, &insert("51", "100")).await;
    adopt(&database, &settings).await;
    let moved = "select aggregate_id from outbox.event order by id";
    assert_eq!(values::<String>(&mut owner, moved).await, numbers(1, 100));
}

/// A waiting row of the essay platform's table.
fn platform_row(retry_count: u32, data: &str) -> String {
    format!(
        "insert into event_outbox values (gen_random_uuid(), 'a{retry_count}', 'batch', 'E', \
         '{data}', 'k', 'files', now(), null, {retry_count});"
    )
}

#[tokio::test]
async fn rows_that_the_old_worker_has_given_up_move_or_stay_by_choice() {
    let database = Database::create(15).await;
    let mut owner = database.connect_as(&database.owner).await;
    execute(&mut owner, &Generation::WithTopic.table("event_outbox")).await;
    let rows: String = [4, 5, 6].map(|n| platform_row(n, "{}")).concat();
    execute(&mut owner, &rows).await;
    let mut settings = adopting(&database, [event_outbox("public", "event_outbox")]);
    settings.migration.adopt[0].exhausted = ExhaustedRows::Leave;
    adopt(&database, &settings).await;
    let moved = "select aggregate_id from outbox.event order by id";
    assert_eq!(values::<String>(&mut owner, moved).await, ["a4"]);
    let left = "select retry_count from event_outbox where published_at is null order by 1";
    assert_eq!(values::<i32>(&mut owner, left).await, [5, 6]);
    // A new row is an event whatever its count is.
    execute(&mut owner, &platform_row(7, "{}")).await;
    assert_eq!(values::<String>(&mut owner, moved).await, ["a4", "a7"]);

    settings.migration.adopt[0].exhausted = ExhaustedRows::Move;
    adopt(&database, &settings).await;
    assert_eq!(
        values::<String>(&mut owner, moved).await,
        ["a4", "a7", "a5", "a6"]
    );
    assert_eq!(values::<i32>(&mut owner, left).await, [0; 0]);
}

#[tokio::test]
async fn rows_with_a_fault_are_put_aside_and_the_others_move() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 1, 3).await;
    execute(
        &mut owner,
        "update note set body = 'fault' where id in (1, 2); update note set topic = null where id \
         = 2",
    )
    .await;
    adopt(&database, &adopting(&database, [note()])).await;
    assert_eq!(unpublished(&mut owner).await, 0);
    let events = "select format('%s %s %s', source_key ->> 'id', headers ->> \
        'outbox_adoption_fault', convert_from(payload, 'UTF8')::json ->> 'body') from outbox.event \
        order by id";
    assert_eq!(
        values::<String>(&mut owner, events).await,
        ["1 SQLSTATE 22P02 in expression payload fault", "3  "]
    );
    let letters = "select format('%s %s %s', source_key ->> 'id', class, headers ->> \
        'outbox_adoption_fault') from outbox.dead_letter";
    assert_eq!(
        values::<String>(&mut owner, letters).await,
        ["2 AdoptionFailed SQLSTATE 22P02 in expression payload"]
    );
}

/// Service and old worker run on while the table is adopted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_an_old_worker_nothing_is_lost_and_at_most_its_batch_comes_twice() {
    const ROWS: i64 = 2_000;
    let database = Database::create(15).await.migrated().await;
    let mut admin = database.as_admin().await;
    with_note(&database).await;
    let (mut service, worker) = (
        database.connect_as(&database.owner).await,
        database.connect_as(&database.owner).await,
    );
    let service_ended = Arc::new(AtomicBool::new(false));
    let worker = tokio::spawn(old_worker(worker, Arc::clone(&service_ended)));
    let service = tokio::spawn(async move {
        for id in 1..=ROWS {
            insert_one(&mut service, id).await;
        }
    });
    until("the old worker to be busy", async || {
        let published = "select count(*) from note where published_at is not null";
        (value::<i64>(&mut admin, published).await > 100).then_some(())
    })
    .await;
    adopt(&database, &adopting(&database, [note()])).await;
    service.await.expect("all rows");
    service_ended.store(true, Ordering::SeqCst);
    let by_worker = worker.await.expect("what it sent");
    let by_outbox = events(&mut admin).await;

    let twice = by_outbox
        .iter()
        .filter(|row| by_worker.contains(row))
        .count();
    eprintln!(
        "the old worker sent {}, the outbox has {}, {twice} are in both",
        by_worker.len(),
        by_outbox.len()
    );
    assert!(!by_worker.is_empty() && by_outbox.len() > 100);
    assert!(twice <= OLD_BATCH, "{twice}");
    let mut all: Vec<i64> = by_worker
        .iter()
        .chain(&by_outbox)
        .map(|body| body.parse().expect("a number"))
        .collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (1..=ROWS).collect::<Vec<_>>());
    assert_eq!(unpublished(&mut admin).await, 0);
}
