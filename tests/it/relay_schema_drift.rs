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
        named: "column event.headers has 'json' instead of 'jsonb'",
    },
    Change {
        made: "drop view outbox.pending; alter table outbox.event alter payload type text using \
            encode(payload, 'hex')",
        undone: "alter table outbox.event alter payload type bytea using decode(payload, 'hex')",
        named: "column event.payload has 'text' instead of 'bytea'",
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
            message.contains("undo the change") || message.contains("migrat"),
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
            "column event.note",
        ),
        (
            "create index by_time on outbox.event (created_at)",
            "index of event (created_at)",
        ),
        (
            "create function audit() returns trigger language plpgsql as 'begin return null; end';
             create trigger audit after insert on outbox.event for each row execute function \
             audit()",
            "trigger audit on event",
        ),
        (
            "create rule nothing as on update to outbox.event do also nothing",
            "rule nothing on event",
        ),
    ] {
        let (database, topic) = begin().await;
        execute(&mut database.as_admin().await, made).await;
        insert(&database).await;
        let relay = start(&database, &topic).await;
        let message = problem(&relay, |class| class == ProblemClass::TableChanged).await;
        assert!(
            message.contains(named)
                && (message.contains("undo the change") || message.contains("run 'drop ")),
            "{made}: {message}"
        );
        published(&database, &topic, 1).await;
        let report = database.migrate(&database.settings()).await;
        assert!(
            report.problem.is_none() && report.notes.iter().any(|note| note.contains(named)),
            "the migration notes it: {made}: {report:?}"
        );
    }
}

/// Values of a topic's records with their `outbox_seq`, as numbers.
async fn numbers(topic: &str) -> Vec<(i64, i64)> {
    let topic = topic.to_owned();
    let records = tokio::task::spawn_blocking(move || read_all(&topic))
        .await
        .expect("read");
    let number = |text: &str| text.parse().expect("a number");
    let of = |record: &crate::harness::kafka::Record| {
        let value = String::from_utf8(record.value.clone().expect("a value")).expect("text");
        (number(&value), number(&record.headers["outbox_seq"]))
    };
    records.iter().map(of).collect()
}

/// Writes numbers to one key, in turns on two connections, each with ids of its own if the sequence
/// gives them out in advance.
async fn write_in_turns(database: &Database, numbers: std::ops::Range<i64>) {
    let mut writers = [
        database.connect_as(&database.producer).await,
        database.connect_as(&database.producer).await,
    ];
    for number in numbers {
        let sql = format!("select outbox.enqueue('a', 'key', 'E', convert_to('{number}', 'UTF8'))");
        execute(&mut writers[usize::from(number % 2 == 0)], &sql).await;
    }
}

/// What people do to make a sequence faster, or by mistake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_that_was_changed_stops_publishing_and_its_rows_keep_their_order() {
    let (database, topic) = begin().await;
    let relay = start(&database, &topic).await;
    let mut admin = database.as_admin().await;
    let mut written = 0;
    for (change, named) in [
        ("cache 50", "'cache 50' instead of 'cache 1'"),
        ("increment by 5", "'increment 5' instead of 'increment 1'"),
        ("cycle", "'cycle' instead of 'no cycle'"),
        (
            "maxvalue 9000000000000000000",
            "'maximum 9000000000000000000' instead of",
        ),
    ] {
        execute(
            &mut admin,
            &format!("alter sequence outbox.event_id_seq {change}"),
        )
        .await;
        let message = problem(&relay, blocks_reading).await;
        assert!(
            message.contains(&format!("sequence event_id_seq has {named}"))
                && message.contains("outbox-relay migrate"),
            "{message}"
        );
        write_in_turns(&database, written..written + 20).await;
        written += 20;
        let waiting = value::<i64>(&mut admin, "select count(*) from outbox.event").await;
        assert_eq!(waiting, 20, "nothing is published meanwhile");
        let report = database.migrate(&database.settings()).await;
        assert_eq!(report.problem, None);
        assert!(
            report.notes.iter().any(|note| note.contains(named)),
            "{report:?}"
        );
        published(&database, &topic, usize::try_from(written).expect("few")).await;
    }
    let numbers = numbers(&topic).await;
    assert!(
        numbers.is_sorted(),
        "order and ids are those of the commits: {numbers:?}"
    );
    assert_eq!(numbers.len(), 80);
}

/// A change that no fetch can show is found by the comparison that a relay repeats, every 30 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_default_that_is_dropped_under_a_running_relay_stops_publishing() {
    let (database, topic) = begin().await;
    let relay = start(&database, &topic).await;
    insert(&database).await;
    published(&database, &topic, 1).await;
    let mut admin = database.as_admin().await;
    execute(
        &mut admin,
        "alter table outbox.event alter xact set default '7'",
    )
    .await;
    let message = problem(&relay, blocks_reading).await;
    assert!(message.contains("default of event.xact has"), "{message}");
    insert(&database).await;
    let report = database.migrate(&database.settings()).await;
    assert_eq!(report.problem, None);
    published(&database, &topic, 2).await;
}
