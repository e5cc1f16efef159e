//! The way back: a table that is taken out of the manifest gets its waiting rows back as
//! unpublished ones, and can be adopted again.

use outbox_relay::{
    outbox::migrate,
    report::ProblemClass,
    settings::{AdoptSettings, RelaySettings},
};
use sqlx::PgConnection;

use crate::harness::{
    adopted::adopting,
    own_outbox::{
        ADOPTED, catalog, events, insert_notes, made, note, numbers, unpublished, with_note,
    },
    postgres::{Database, execute, refused, value, values},
    relay::until,
};

/// Runs a migration that must succeed. Returns its notes on tables.
async fn apply(database: &Database, settings: &RelaySettings) -> Vec<String> {
    let report = database.migrate(settings).await;
    assert_eq!(report.problem, None);
    let mut notes = report.notes;
    notes.retain(|note| note.starts_with("table "));
    notes
}

/// Adopts the table, and puts rows 1 to 6 into it: 1 is settled, 2 a dead letter, 3 parks its key.
async fn with_rows(database: &Database) -> PgConnection {
    let mut owner = with_note(database).await;
    apply(database, &adopting(database, [note()])).await;
    insert_notes(&mut owner, 1, 6).await;
    execute(
        &mut owner,
        "delete from outbox.event where source_key ->> 'id' = '1';
         select outbox.bury(lane, id, event_id, 'files', 'RecordRejected', 1) from outbox.event \
         where source_key ->> 'id' = '2';
         select outbox.park_key('files', event_key, lane, id, event_id, 'RecordRejected') from \
         outbox.event where source_key ->> 'id' = '3'",
    )
    .await;
    owner
}

const WAITING: &str = "select body from note where published_at is null order by id";

#[tokio::test]
async fn a_released_table_gets_back_the_rows_that_wait_and_the_dead_letters() {
    let database = Database::create(15).await;
    let mut owner = with_rows(&database).await;
    execute(
        &mut owner,
        "select outbox.enqueue('a', '1', 'Uploaded', 'x')",
    )
    .await;
    assert_eq!(unpublished(&mut owner).await, 0);
    assert_eq!(
        apply(&database, &database.settings()).await,
        ["table public.note is released, 5 rows went back to it as unpublished"]
    );
    assert_eq!(values::<String>(&mut owner, WAITING).await, numbers(2, 6));
    assert_eq!(made(&mut owner).await, [""; 0]);
    // Only the row that enqueue() wrote is there.
    assert_eq!(events(&mut owner).await, ["x"]);
    let others = "select (select count(*) from outbox.parked_key) + (select count(*) from \
        outbox.dead_letter)";
    assert_eq!(value::<i64>(&mut owner, others).await, 0);
    insert_notes(&mut owner, 7, 7).await;
    assert_eq!(values::<String>(&mut owner, WAITING).await, numbers(2, 7));
    assert_eq!(apply(&database, &database.settings()).await, [""; 0]);

    assert_eq!(
        apply(&database, &adopting(&database, [note()])).await,
        ["table public.note is adopted, 6 waiting rows were moved"]
    );
    assert_eq!(made(&mut owner).await, ADOPTED);
    assert_eq!(unpublished(&mut owner).await, 0);
    let moved = "select convert_from(payload, 'UTF8') from outbox.event where source = 1 order by \
        id";
    assert_eq!(values::<String>(&mut owner, moved).await, numbers(2, 7));
}

#[tokio::test]
async fn a_row_whose_source_was_deleted_stays_and_is_published() {
    let database = Database::create(15).await;
    let mut owner = with_rows(&database).await;
    execute(&mut owner, "delete from note where id in (2, 3, 4)").await;
    assert_eq!(
        apply(&database, &database.settings()).await,
        ["table public.note is released, 2 rows went back to it as unpublished"]
    );
    assert_eq!(events(&mut owner).await, ["3", "4"]);
    let parked = "select count(*) from outbox.parked_key as p join outbox.event as e on e.id = \
        p.head_id";
    assert_eq!(value::<i64>(&mut owner, parked).await, 1);
    let letters = "select convert_from(payload, 'UTF8') from outbox.dead_letter";
    assert_eq!(values::<String>(&mut owner, letters).await, ["2"]);
    // They are rows of nobody's table when it is adopted again.
    assert_eq!(
        apply(&database, &adopting(&database, [note()])).await,
        ["table public.note is adopted, 2 waiting rows were moved"]
    );
    assert_eq!(events(&mut owner).await, ["3", "4", "5", "6"]);
}

const A_LEASE: &str = "insert into outbox.relay values (gen_random_uuid(), 'p', now() + interval '1 \
    hour')";

#[tokio::test]
async fn a_release_is_refused_while_relays_may_send_its_rows() {
    let database = Database::create(15).await;
    let mut owner = with_rows(&database).await;
    execute(&mut owner, A_LEASE).await;
    let before = catalog(&mut owner).await;
    let problem = database.migrate(&database.settings()).await.problem;
    let problem = problem.expect("a relay is active");
    assert_eq!(
        (problem.class, &*problem.message),
        (
            ProblemClass::AdoptionRefused,
            "4 rows of table public.note still wait in the outbox: suspend the relays or let them \
             publish the rows, then the table is released"
        )
    );
    let script = migrate::script(&database.settings(), &database.secrets()).await;
    assert_eq!(script.expect_err("refused, too"), problem);
    assert_eq!(catalog(&mut owner).await, before);
    assert_eq!(made(&mut owner).await, ADOPTED);
    insert_notes(&mut owner, 7, 7).await;
    assert_eq!(events(&mut owner).await, numbers(3, 7));

    execute(&mut owner, "update outbox.relay set lease_until = now()").await;
    assert_eq!(
        apply(&database, &database.settings()).await,
        ["table public.note is released, 6 rows went back to it as unpublished"]
    );
}

#[tokio::test]
async fn a_release_with_an_active_relay_works_when_all_rows_are_published() {
    let database = Database::create(15).await;
    let mut owner = with_rows(&database).await;
    execute(&mut owner, "delete from outbox.event").await;
    execute(&mut owner, A_LEASE).await;
    assert_eq!(
        apply(&database, &database.settings()).await,
        ["table public.note is released, 1 rows went back to it as unpublished"]
    );
    assert_eq!(values::<String>(&mut owner, WAITING).await, ["2"]);
}

/// A relay that starts while rows go back would send them, and the old worker would, too.
#[tokio::test]
async fn a_relay_that_starts_during_a_release_waits_for_it() {
    let database = Database::create(15).await;
    let mut owner = with_rows(&database).await;
    execute(
        &mut owner,
        "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(2); \
         return new; end';
         create trigger slow before update on note for each row when (new.id = 4) execute \
         function slow()",
    )
    .await;
    let mut relay = database.connect_as(&database.relay).await;
    let mut admin = database.as_admin().await;
    let starts = async {
        let sleeps = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and \
            datname = current_database()";
        until("rows that go back", async || {
            (value::<i64>(&mut admin, sleeps).await == 1).then_some(())
        })
        .await;
        execute(&mut relay, "set lock_timeout = '100ms'").await;
        assert_eq!(refused(&mut relay, A_LEASE).await, "55P03");
        execute(&mut relay, "set lock_timeout = 0").await;
        execute(&mut relay, A_LEASE).await;
    };
    let settings = database.settings();
    let (notes, ()) = tokio::join!(apply(&database, &settings), starts);
    assert_eq!(
        notes,
        ["table public.note is released, 5 rows went back to it as unpublished"]
    );
    assert_eq!(events(&mut relay).await, [""; 0]);
}

#[tokio::test]
async fn the_script_of_a_release_is_refused_when_a_relay_has_started_since() {
    let database = Database::create(15).await;
    let mut owner = with_rows(&database).await;
    let script = migrate::script(&database.settings(), &database.secrets())
        .await
        .expect("a script");
    execute(&mut owner, A_LEASE).await;
    assert_eq!(refused(&mut owner, &script).await, "P0001");
    execute(&mut owner, "rollback").await;
    assert_eq!(made(&mut owner).await, ADOPTED);
    execute(&mut owner, "update outbox.relay set lease_until = now()").await;
    execute(&mut owner, &script).await;
    assert_eq!(values::<String>(&mut owner, WAITING).await, numbers(2, 6));
}

/// Rows of a table that was only drained stay in the outbox: the manifest need not list the table.
#[tokio::test]
async fn a_table_that_was_drained_and_never_adopted_is_not_released() {
    let database = Database::create(15).await.migrated().await;
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 1, 3).await;
    let settings = adopting(&database, [note()]);
    let secrets = database.secrets();
    migrate::drain(&settings, &secrets, &note(), |_| {})
        .await
        .expect("drained");
    assert_eq!(apply(&database, &database.settings()).await, [""; 0]);
    assert_eq!(events(&mut owner).await, numbers(1, 3));
    assert_eq!(unpublished(&mut owner).await, 0);
    // Adopted and released, it gets all rows back that wait.
    apply(&database, &settings).await;
    assert_eq!(
        apply(&database, &database.settings()).await,
        ["table public.note is released, 3 rows went back to it as unpublished"]
    );
    assert_eq!(values::<String>(&mut owner, WAITING).await, numbers(1, 3));
}

#[tokio::test]
async fn a_table_that_was_dropped_is_released_and_its_rows_are_published() {
    let database = Database::create(15).await;
    let mut owner = with_rows(&database).await;
    execute(&mut owner, "drop table note").await;
    execute(&mut owner, A_LEASE).await;
    assert_eq!(
        apply(&database, &database.settings()).await,
        ["table public.note is released, 0 rows went back to it as unpublished"]
    );
    assert_eq!(events(&mut owner).await, numbers(3, 6));
    assert_eq!(made(&mut owner).await, [""; 0]);
}

#[tokio::test]
async fn a_renamed_table_is_adopted_under_its_new_name() {
    let database = Database::create(15).await;
    let mut owner = with_rows(&database).await;
    execute(&mut owner, "alter table note rename to remark").await;
    let renamed = AdoptSettings {
        table: "remark".to_owned(),
        ..note()
    };
    let notes = apply(&database, &adopting(&database, [renamed])).await;
    assert_eq!(notes.len(), 2, "{notes:?}");
    execute(
        &mut owner,
        "insert into remark (id, topic, key, body) values (7, 'files', 'k', '7')",
    )
    .await;
    assert_eq!(events(&mut owner).await, numbers(3, 7));
    assert_eq!(
        made(&mut owner).await,
        ["add_from_2", "mark_2", "zzz_outbox_add", "zzz_outbox_mark"]
    );
}

#[tokio::test]
async fn rows_without_a_published_column_stay_in_the_outbox() {
    let database = Database::create(15).await;
    let mut owner = with_note(&database).await;
    insert_notes(&mut owner, 1, 1).await;
    let without = AdoptSettings {
        published_column: None,
        ..note()
    };
    apply(&database, &adopting(&database, [without])).await;
    insert_notes(&mut owner, 2, 3).await;
    assert_eq!(
        apply(&database, &database.settings()).await,
        ["table public.note is released, 0 rows went back to it as unpublished"]
    );
    assert_eq!(events(&mut owner).await, ["2", "3"]);
    assert_eq!(made(&mut owner).await, [""; 0]);
}

/// Keys of several columns and types, with characters that JSON escapes.
#[tokio::test]
async fn rows_are_found_by_keys_of_any_type() {
    let database = Database::create(15).await;
    let mut owner = database.connect_as(&database.owner).await;
    execute(
        &mut owner,
        r#"create table "Odd name" (
            "the ""key""" varchar(40), at timestamptz, u uuid, b bytea, number numeric(20, 10),
            body text, published_at timestamp, primary key ("the ""key""", at, u, b, number));
        set timezone = 'Asia/Kolkata'"#,
    )
    .await;
    let mut odd = AdoptSettings {
        table: "Odd name".to_owned(),
        ..note()
    };
    odd.expressions.topic = None;
    odd.expressions.created_at = None;
    odd.expressions.payload = Some("body".to_owned());
    odd.expressions.event_key = None;
    odd.expressions.aggregate_id = Some("u::text".to_owned());
    let insert = r#"insert into "Odd name" select e'a\\"''\n\t$ü😀' || n,
        '2026-03-29 01:59:59.123456+01'::timestamptz + n * interval '1 us', gen_random_uuid(),
        '\x00ff', 1234567890.0123456789 + n, n::text from generate_series("#;
    execute(&mut owner, &format!("{insert}1, 2) n")).await;
    apply(&database, &adopting(&database, [odd])).await;
    execute(&mut owner, &format!("{insert}3, 4) n")).await;
    assert_eq!(events(&mut owner).await, numbers(1, 4));
    let notes = apply(&database, &database.settings()).await;
    assert_eq!(
        notes,
        ["table public.Odd name is released, 4 rows went back to it as unpublished"]
    );
    assert_eq!(events(&mut owner).await, [""; 0]);
}
