//! What relays and the database say when rows wait that should not: for whoever looks for the cause
//! when all servers are gone.

use std::fmt::Write;

use sqlx::{AssertSqlSafe, PgConnection, query_scalar};

use crate::{
    servers::{postgres, relays},
    world::World,
};

/// Each as JSON: rows that wait, who owns what, and what the backends do.
const QUESTIONS: [&str; 4] = [
    "select topic, lane, count(*), min(id), max(id), min(created_at) as oldest from outbox.event \
     group by topic, lane order by oldest",
    "select pod, instance, lease_until - clock_timestamp() as lease from outbox.relay order by pod",
    "select lane, owner, epoch, mark, high_id from outbox.lane order by lane",
    "select pid, client_addr, state, wait_event_type, wait_event, clock_timestamp() - xact_start as transaction,
         clock_timestamp() - query_start as since, left(query, 100) as query
         from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() order by xact_start nulls last",
];

/// What should have come to rest by now has not: a fact of the run, with all that is said in a
/// file.
pub(crate) async fn not_at_rest(world: &World, what: String) -> std::io::Result<()> {
    let count = world.note(|notes| {
        notes.unhealed.push(what.clone());
        notes.unhealed.len()
    });
    let file = format!("unhealed-{count}.txt");
    world.say(&format!("{what}: see {file}"));
    std::fs::write(world.folder.join(file), take(world).await)
}

/// As text; where nobody answers it says so.
async fn take(world: &World) -> String {
    let mut said = String::new();
    for number in world.relays.lock().await.running() {
        for path in ["/status", "/metrics"] {
            let answer = relays::get(number, path)
                .await
                .unwrap_or_else(|| "no answer".to_owned());
            let _ = writeln!(said, "relay {number}, {path}\n{answer}\n");
        }
    }
    match postgres::connect().await {
        Ok(mut connection) => {
            for question in QUESTIONS {
                let answer = ask(&mut connection, question)
                    .await
                    .unwrap_or_else(|error| error.to_string());
                let _ = writeln!(said, "{question}\n{answer}\n");
            }
        }
        Err(error) => said.push_str(&error.to_string()),
    }
    said
}

async fn ask(connection: &mut PgConnection, question: &str) -> sqlx::Result<String> {
    let as_text = format!(
        "select coalesce(string_agg(to_jsonb(it)::text, E'\\n'), 'nothing') from ({question}) as it"
    );
    query_scalar(AssertSqlSafe(as_text))
        .fetch_one(connection)
        .await
}
