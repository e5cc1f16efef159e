//! Records the state of the relays and of the database when rows are not published in time. It
//! helps to find the cause after the servers have been removed.

use std::fmt::Write;

use sqlx::{AssertSqlSafe, PgConnection, query_scalar};

use crate::{
    servers::{postgres, relays},
    testbed::Testbed,
};

/// Queries, each answered as JSON: rows that wait, instances, owners of lanes, backends.
const QUERIES: [&str; 4] = [
    "select topic, lane, count(*), min(id), max(id), min(created_at) as oldest from outbox.event \
     group by topic, lane order by oldest",
    "select pod, instance, lease_until - clock_timestamp() as lease from outbox.relay order by pod",
    "select lane, owner, epoch, mark, high_id from outbox.lane order by lane",
    "select pid, client_addr, state, wait_event_type, wait_event, \
     clock_timestamp() - xact_start as transaction, clock_timestamp() - query_start as since, \
     left(query, 100) as query from pg_stat_activity \
     where backend_type = 'client backend' and pid <> pg_backend_pid() \
     order by xact_start nulls last",
];

/// Records that the relays have not recovered, and writes the diagnostics to a file.
///
/// # Errors
///
/// If the file cannot be written.
pub(crate) async fn record_not_recovered(
    testbed: &Testbed,
    description: String,
) -> std::io::Result<()> {
    let count = testbed.update_facts(|facts| {
        facts.not_recovered.push(description.clone());
        facts.not_recovered.len()
    });
    let file = format!("not-recovered-{count}.txt");
    testbed.log(&format!("{description}: see {file}"));
    std::fs::write(testbed.folder.join(file), collect(testbed).await)
}

/// Collects the diagnostics as text. It notes which relay or query gave no answer.
async fn collect(testbed: &Testbed) -> String {
    let mut text = String::new();
    for number in testbed.relays.lock().await.running() {
        for path in ["/status", "/metrics"] {
            let answer = relays::get(number, path)
                .await
                .unwrap_or_else(|| "no answer".to_owned());
            let _ = writeln!(text, "relay {number}, {path}\n{answer}\n");
        }
    }
    match postgres::connect().await {
        Ok(mut connection) => {
            for sql in QUERIES {
                let answer = query_as_json(&mut connection, sql)
                    .await
                    .unwrap_or_else(|error| error.to_string());
                let _ = writeln!(text, "{sql}\n{answer}\n");
            }
        }
        Err(error) => text.push_str(&error.to_string()),
    }
    text
}

async fn query_as_json(connection: &mut PgConnection, sql: &str) -> sqlx::Result<String> {
    let as_text = format!(
        "select coalesce(string_agg(to_jsonb(it)::text, E'\\n'), 'nothing') from ({sql}) as it"
    );
    query_scalar(AssertSqlSafe(as_text))
        .fetch_one(connection)
        .await
}
