//! Databases with adopted tables that are dumped and restored: no row becomes an event twice.

use sqlx::PgConnection;

use crate::harness::{
    adopted::{Event, Generation, OutboxRow, adopt, create_tables, event_outbox, events},
    dumps::{dump, restore},
    postgres::{Database, execute, value},
};

fn insert(number: u128) -> String {
    OutboxRow::numbered(Generation::WithTopic, number).insert_into("event_outbox")
}

/// An adopted table with five rows: Kafka has the first, the old worker has touched the second, and
/// four wait as events.
async fn with_rows() -> (Database, Vec<Event>) {
    let database = Database::create(15).await;
    create_tables(&database, &Generation::WithTopic.table("event_outbox")).await;
    adopt(&database, [event_outbox("public", "event_outbox")]).await;
    let mut service = database.connect_as(&database.producer).await;
    for number in 1..=5 {
        execute(&mut service, &insert(number)).await;
    }
    let mut admin = database.as_admin().await;
    let published = "delete from outbox.event where source_key ->> 'id' like '%0001'; \
        update event_outbox set published_at = '2020-01-01 00:00Z' where id::text like '%0002'";
    execute(&mut admin, published).await;
    let before = events(&mut admin).await;
    assert_eq!(before.len(), 4);
    (database, before)
}

async fn add_one(database: &Database) {
    let mut owner = database.connect_as(&database.owner).await;
    execute(&mut owner, &insert(6)).await;
}

async fn rows(admin: &mut PgConnection) -> i64 {
    value(admin, "select count(*) from event_outbox").await
}

#[tokio::test]
async fn a_whole_dump_restored_elsewhere_has_its_events_once_and_its_triggers() {
    for (program, format) in [("psql", "plain"), ("pg_restore", "custom")] {
        let (database, before) = with_rows().await;
        let dump = dump(&database, &["--format", format]);
        let other = Database::create(15).await;
        restore(&other, program, &dump);
        let mut admin = other.as_admin().await;
        assert_eq!(
            (events(&mut admin).await, rows(&mut admin).await),
            (before.clone(), 5),
            "{program}"
        );
        add_one(&other).await;
        assert_eq!(events(&mut admin).await.len(), before.len() + 1);
    }
}

/// The triggers are there when the rows come: those come with their time of publication.
#[tokio::test]
async fn rows_alone_restored_into_an_adopted_table_add_no_event() {
    let (database, _) = with_rows().await;
    let table = ["--data-only", "--table=public.event_outbox"];
    for (program, format, how) in [
        ("psql", "plain", "--no-comments"),
        ("psql", "plain", "--inserts"),
        ("pg_restore", "custom", "--no-comments"),
    ] {
        let dump = dump(
            &database,
            &[&table[..], &["--format", format, how]].concat(),
        );
        let other = Database::create(15).await;
        create_tables(&other, &Generation::WithTopic.table("event_outbox")).await;
        adopt(&other, [event_outbox("public", "event_outbox")]).await;
        restore(&other, program, &dump);
        let mut admin = other.as_admin().await;
        assert_eq!(
            (events(&mut admin).await, rows(&mut admin).await),
            (Vec::new(), 5),
            "{program} {how}"
        );
        add_one(&other).await;
        assert_eq!(events(&mut admin).await.len(), 1);
    }
}

#[tokio::test]
async fn all_rows_restored_over_the_same_database_are_events_once() {
    let (database, before) = with_rows().await;
    let rows_alone = dump(&database, &["--data-only"]);
    let empty = "truncate public.event_outbox; do $$ begin execute (select 'truncate ' || \
        string_agg(format('outbox.%I', tablename), ', ') from pg_tables where schemaname = \
        'outbox'); end $$;\n";
    restore(&database, "psql", &[empty.as_bytes(), &rows_alone].concat());
    let mut admin = database.as_admin().await;
    assert_eq!(
        (events(&mut admin).await, rows(&mut admin).await),
        (before.clone(), 5)
    );
    add_one(&database).await;
    assert_eq!(events(&mut admin).await.len(), before.len() + 1);
}

#[tokio::test]
async fn a_whole_dump_restored_over_the_same_database_has_its_events_once() {
    let (database, before) = with_rows().await;
    let whole = dump(&database, &["--clean", "--if-exists"]);
    restore(&database, "psql", &whole);
    let mut admin = database.as_admin().await;
    assert_eq!(
        (events(&mut admin).await, rows(&mut admin).await),
        (before.clone(), 5)
    );
    add_one(&database).await;
    assert_eq!(events(&mut admin).await.len(), before.len() + 1);
}
