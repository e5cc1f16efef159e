//! A table that was changed by hand, or a schema that is too new: it is reported by name, no row is
//! lost, and the relay recovers when the change is undone.

use outbox_relay::{
    report::ProblemClass,
    settings::{OnPoison, TopicSettings},
};

use crate::harness::{
    kafka::{create_topic, read_all, topic_name},
    postgres::{Database, execute, value},
    relay::{Relay, until},
};

/// A change of the table, and the SQL to undo it.
struct Change {
    made: &'static str,
    undone: &'static str,
    /// Text that the message must contain.
    named: &'static str,
}

/// Changes with which a relay must not read the table.
const UNREADABLE: &[Change] = &[
    Change {
        made: "alter table outbox.event rename column event_type to kind",
        undone: "alter table outbox.event rename column kind to event_type",
        named: "event_type",
    },
    Change {
        made: "drop view outbox.pending; alter table outbox.event drop constraint \
            headers_are_an_object, alter headers drop default, alter headers type json",
        undone: "alter table outbox.event alter headers type jsonb, alter headers set default '{}',
                 add constraint headers_are_an_object check (jsonb_typeof(headers) = 'object')",
        named: "'column headers json not null' instead of 'column headers jsonb not null",
    },
    Change {
        made: "drop view outbox.pending; alter table outbox.event alter payload type text using \
            encode(payload, 'hex')",
        undone: "alter table outbox.event alter payload type bytea using decode(payload, 'hex')",
        named: "'column payload text null' instead of 'column payload bytea null'",
    },
    Change {
        made: "alter table outbox.event enable row level security",
        undone: "alter table outbox.event disable row level security",
        named: "row security",
    },
    Change {
        made: "update outbox.schema_migrations set compatible_from = 99",
        undone: "update outbox.schema_migrations set compatible_from = 1",
        named: "99",
    },
];

async fn begin() -> (Database, String) {
    let database = Database::create(15).await.migrated().await;
    let topic = topic_name("altered");
    create_topic(&topic).await;
    (database, topic)
}

async fn start(database: &Database, name: &str) -> Relay {
    let topic = TopicSettings {
        name: name.to_owned(),
        event_types: vec!["E".to_owned()],
        aggregate_types: vec![],
        on_poison: OnPoison::Block,
    };
    Relay::start(database, &database.publishing(vec![topic])).await
}

/// Writes a row with only the required columns.
async fn insert(database: &Database) {
    execute(
        &mut database.as_admin().await,
        "select outbox.enqueue('a', 'key', 'E', 'x')",
    )
    .await;
}

async fn problem(relay: &Relay, expected: impl Fn(ProblemClass) -> bool) -> String {
    until("the problem", async || {
        let problems = relay.report().await?.problems;
        problems
            .into_iter()
            .find(|problem| expected(problem.class))
            .map(|problem| problem.message)
    })
    .await
}

async fn published(database: &Database, topic: &str, rows: usize) {
    let mut admin = database.as_admin().await;
    until("the outbox to be empty", async || {
        (value::<i64>(&mut admin, "select count(*) from outbox.event").await == 0).then_some(())
    })
    .await;
    let topic = topic.to_owned();
    assert_eq!(
        tokio::task::spawn_blocking(move || read_all(&topic).len())
            .await
            .expect("read"),
        rows
    );
}

fn blocks_reading(class: ProblemClass) -> bool {
    matches!(
        class,
        ProblemClass::SchemaNotReady | ProblemClass::NewerSchema
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_starts_on_a_changed_table_names_the_change_and_publishes_once_it_is_undone() {
    for change in UNREADABLE {
        let (database, topic) = begin().await;
        insert(&database).await;
        execute(&mut database.as_admin().await, change.made).await;
        let relay = start(&database, &topic).await;
        let message = problem(&relay, blocks_reading).await;
        assert!(message.contains(change.named), "{}: {message}", change.made);
        assert_eq!(
            value::<i64>(
                &mut database.as_admin().await,
                "select count(*) from outbox.event"
            )
            .await,
            1
        );
        execute(&mut database.as_admin().await, change.undone).await;
        published(&database, &topic, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_changed_under_a_running_relay_loses_no_row_and_recovery_is_automatic() {
    for change in &UNREADABLE[..3] {
        let (database, topic) = begin().await;
        let relay = start(&database, &topic).await;
        insert(&database).await;
        published(&database, &topic, 1).await;
        execute(&mut database.as_admin().await, change.made).await;
        let message = problem(&relay, blocks_reading).await;
        assert!(
            message.contains("undo the change") || message.contains("migration"),
            "{}: {message}",
            change.made
        );
        execute(&mut database.as_admin().await, change.undone).await;
        insert(&database).await;
        published(&database, &topic, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn additions_to_the_table_are_reported_and_rows_are_published() {
    for (made, named) in [
        (
            "alter table outbox.event add note text",
            "'column note text null'",
        ),
        (
            "create index by_time on outbox.event (created_at)",
            "'index using btree (created_at) \
            not unique'",
        ),
        (
            "create function audit() returns trigger language plpgsql as 'begin return null; end';
             create trigger audit after insert on outbox.event for each row execute function \
             audit()",
            "'trigger audit'",
        ),
        (
            "create rule nothing as on update to outbox.event do also nothing",
            "'rule nothing'",
        ),
        ("alter table outbox.event set unlogged", "'unlogged'"),
    ] {
        let (database, topic) = begin().await;
        execute(&mut database.as_admin().await, made).await;
        insert(&database).await;
        let relay = start(&database, &topic).await;
        let message = problem(&relay, |class| class == ProblemClass::TableChanged).await;
        assert!(
            message.contains(named) && message.contains("undo the change"),
            "{made}: {message}"
        );
        published(&database, &topic, 1).await;
        let report = database.migrate(&database.settings()).await;
        assert!(
            report
                .problem
                .is_some_and(|problem| problem.message.contains(named)),
            "the migration also rejects it: {made}"
        );
    }
}
