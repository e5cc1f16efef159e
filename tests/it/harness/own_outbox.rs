//! Outbox tables that a service has before they are adopted, their rows, and their old worker.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use outbox_relay::settings::{AdoptSettings, RelaySettings};
use sqlx::{AssertSqlSafe, PgConnection};

use super::{
    adopted::{by_expressions, expressions},
    postgres::{Database, execute, value, values},
    relay::until,
};

/// A table that is adopted by expressions.
pub(crate) const NOTE: &str = "create table public.note (id bigint primary key, topic text, key \
    text, body text, created_at timestamptz not null default clock_timestamp(), published_at \
    timestamptz)";

/// Adopts [`NOTE`]. A row whose body begins with `fault` and is no number cannot be converted.
pub(crate) fn note() -> AdoptSettings {
    let expressions = expressions(&[
        (
            "payload",
            "case when body like 'fault%' then body::int::text else body end",
        ),
        ("topic", "topic"),
        ("eventKey", "key"),
        ("eventType", "'Uploaded'"),
        ("aggregateType", "'note'"),
        ("aggregateId", "id::text"),
        ("createdAt", "created_at"),
    ]);
    AdoptSettings {
        published_column: Some("published_at".to_owned()),
        ..by_expressions("public", "note", expressions)
    }
}

/// Creates [`NOTE`] as the owner. Returns the connection.
pub(crate) async fn with_note(database: &Database) -> PgConnection {
    let mut owner = database.connect_as(&database.owner).await;
    execute(&mut owner, NOTE).await;
    owner
}

/// Inserts the rows `from` to `to` into [`NOTE`]: row n has key `k<n % 10>` and its number as body,
/// and was created at second n of a day.
pub(crate) async fn insert_notes(connection: &mut PgConnection, from: u32, to: u32) {
    let sql = format!(
        "insert into note (id, topic, key, body, created_at) select n, 'files', 'k' || n % 10, \
         n::text, timestamptz '2026-01-01' + n * interval '1 s' from generate_series({from}, {to}) \
         as s (n) order by s.n"
    );
    execute(connection, &sql).await;
}

/// Payloads of the waiting events as text, in the order of their ids.
pub(crate) async fn events(connection: &mut PgConnection) -> Vec<String> {
    values(
        connection,
        "select convert_from(payload, 'UTF8') from outbox.event order by id",
    )
    .await
}

/// The numbers `from` to `to` as text.
pub(crate) fn numbers(from: u32, to: u32) -> Vec<String> {
    (from..=to).map(|number| number.to_string()).collect()
}

/// Number of rows of [`NOTE`] that are not published.
pub(crate) async fn unpublished(connection: &mut PgConnection) -> i64 {
    value(
        connection,
        "select count(*) from note where published_at is null",
    )
    .await
}

/// Numbers of schemas, relations, triggers and functions of the database.
pub(crate) async fn catalog(connection: &mut PgConnection) -> String {
    value(
        connection,
        "select format('%s schemas, %s relations, %s triggers, %s functions',
           (select count(*) from pg_namespace where nspname not like 'pg_%temp%'),
           (select count(*) from pg_class), (select count(*) from pg_trigger),
           (select count(*) from pg_proc))",
    )
    .await
}

/// Names of all triggers and functions that adoptions have made.
pub(crate) async fn made(connection: &mut PgConnection) -> Vec<String> {
    values(
        connection,
        "select tgname::text from pg_trigger where tgname like 'zzz%' and tgparentid = 0
         union all
         select proname::text from pg_proc where proname ~ '^(add|mark|move|check)_(from_)?[0-9]+$'
         order by 1",
    )
    .await
}

/// What [`made`] returns when the first table is adopted.
pub(crate) const ADOPTED: [&str; 4] = ["add_from_1", "mark_1", "zzz_outbox_add", "zzz_outbox_mark"];

/// Starts the program with a command, as in a pod.
pub(crate) fn start(database: &Database, settings: &RelaySettings, command: &str) -> Child {
    database.write_secret(
        "settings.yaml",
        &serde_yaml::to_string(settings).expect("plain data"),
    );
    let folder = database.secrets_folder();
    Command::new(env!("CARGO_BIN_EXE_outbox-relay"))
        .args(command.split(' '))
        .arg("--settings")
        .arg(folder.join("settings.yaml"))
        .arg("--secrets")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program")
}

/// Kills a program with SIGKILL.
pub(crate) fn kill(mut program: Child) {
    program.kill().expect("it can be killed");
    program.wait().expect("it ended");
}

/// Waits until the server has ended the owner's transactions.
pub(crate) async fn owner_is_gone(database: &Database, admin: &mut PgConnection) {
    let count = format!(
        "select count(*) from pg_stat_activity where usename = '{}'",
        database.owner
    );
    until("the owner's connections to end", async || {
        (value::<i64>(admin, &count).await == 0).then_some(())
    })
    .await;
}

/// Waits until a transaction waits for a lock on a table or on one of its rows.
pub(crate) async fn somebody_waits(admin: &mut PgConnection) {
    let count = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname \
        = current_database()";
    until("a transaction that waits for a lock", async || {
        (value::<i64>(admin, count).await > 0).then_some(())
    })
    .await;
}

/// Rows that an old worker reads at once.
pub(crate) const OLD_BATCH: usize = 100;

/// A worker as services have it: it reads rows by age without a lock, sends each and updates it.
/// Ends when `stop` is set and no row waits. Returns the bodies that it sent.
pub(crate) async fn old_worker(
    mut connection: PgConnection,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> Vec<String> {
    let read = format!(
        "select id, body from note where published_at is null order by created_at limit {OLD_BATCH}"
    );
    let mut sent = Vec::new();
    loop {
        // Whether writers had ended before the read, not after it.
        let is_last = stop.load(std::sync::atomic::Ordering::SeqCst);
        let rows: Vec<(i64, String)> = sqlx::query_as(AssertSqlSafe(read.clone()))
            .fetch_all(&mut connection)
            .await
            .expect("rows");
        if rows.is_empty() && is_last {
            return sent;
        }
        for (id, body) in rows {
            sent.push(body);
            sqlx::query("update note set published_at = now() where id = $1")
                .bind(id)
                .execute(&mut connection)
                .await
                .expect("updated");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
