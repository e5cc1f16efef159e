//! What waits for what: writers with few and with many keys, writers of the level before, readers
//! and `TRUNCATE`.

use outbox_relay::outbox::{FetchFilter, FetchRequest, Lane, LaneRead, RowId};
use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};

use crate::harness::{
    postgres::{Database, execute, refused, value},
    relay::until,
    server::Server,
};

/// A connection of the producer that gives up waiting for a lock.
async fn producer(database: &Database, lock_timeout: &str) -> PgConnection {
    let mut connection = database.connect_as(&database.producer).await;
    execute(
        &mut connection,
        &format!("set lock_timeout = '{lock_timeout}'"),
    )
    .await;
    connection
}

/// Four keys of one bucket.
async fn keys_of_one_bucket(connection: &mut PgConnection) -> [String; 4] {
    let keys = "select (array_agg(key))[:4] from (select 'k' || i as key, \
        hashtextextended(('k' || i) collate \"C\", 0) & 4095 as bucket \
        from generate_series(1, 20000) i) keys group by bucket having count(*) > 3 limit 1";
    let keys = value::<Vec<String>>(connection, keys).await;
    keys.try_into().expect("four keys")
}

fn enqueue(key: &str) -> String {
    format!("select outbox.enqueue_text('f', '{key}', 'E', 'x')")
}

/// Locks this key and others with one call. `count` is the number of all.
fn lock_keys(key: &str, others: &str, count: u32) -> String {
    format!(
        "select outbox.lock_keys(array_agg('{others}' || i) || '{key}'::text) \
         from generate_series(2, {count}) i"
    )
}

/// Adds an event of each of so many keys, one by one.
fn one_by_one(others: &str, count: u32) -> String {
    format!(
        "select count(outbox.enqueue_text('f', '{others}' || i, 'E', 'x')) \
         from generate_series(1, {count}) i"
    )
}

/// Adds an event of each of so many keys with one call.
fn at_once(others: &str, count: u32, ordered: &str) -> String {
    format!(
        "select outbox.enqueue_many(jsonb_agg(jsonb_build_object('aggregate_type', 'f', \
         'aggregate_id', '{others}' || i, 'event_type', 'E')){ordered}) \
         from generate_series(1, {count}) i"
    )
}

/// Ways to lock a key, each as statements that end with the key locked. `others` begins the names
/// of other keys.
fn ways(key: &str, others: &str) -> Vec<(&'static str, String)> {
    let bucket = |key: &str| format!("hashtextextended({key} collate \"C\", 0) & 4095");
    let call = |function: &str| format!("select outbox.{function}('f', '{key}', 'E', '1')");
    vec![
        ("text", call("enqueue_text")),
        ("json", call("enqueue_json")),
        ("bytes", call("enqueue_bytes")),
        ("enqueue", call("enqueue")),
        (
            "event_key",
            format!("select outbox.enqueue_text('f', 'a', 'E', '1', event_key => '{key}')"),
        ),
        (
            "many",
            at_once("", 1, "").replace("'' || i", &format!("'{key}'")),
        ),
        (
            "lock_keys",
            format!("select outbox.lock_keys(array['{key}', null])"),
        ),
        ("lock_keys of many", lock_keys(key, others, 70)),
        (
            "one after many",
            format!(
                "{} where {} <> {}; {}",
                one_by_one(others, 70),
                bucket(&format!("('{others}' || i)")),
                bucket(&format!("'{key}'")),
                enqueue(key)
            ),
        ),
        (
            "the level before",
            format!(
                "select pg_advisory_xact_lock(1868720753, ({})::int)",
                bucket(&format!("'{key}'"))
            ),
        ),
    ]
}

on_oldest_and_newest_server! {
    async fn writers_of_one_key_exclude_each_other_however_each_locks_it(database: Database) {
        let database = database.migrated().await;
        let mut holder = producer(&database, "30s").await;
        let mut other = producer(&database, "20ms").await;
        for (held, lock) in ways("the key", "a") {
            for (wanted, second) in ways("the key", "b") {
                execute(&mut holder, &format!("begin; {lock}")).await;
                execute(&mut other, "begin").await;
                let code = refused(&mut other, &second).await;
                assert_eq!(code, "55P03", "{wanted} beside {held}");
                execute(&mut other, "rollback").await;
                execute(&mut holder, "commit").await;
            }
        }
        for (_, lock) in ways("the key", "b") {
            execute(&mut other, &format!("begin; {lock}; commit")).await;
        }
    }
}

on_oldest_and_newest_server! {
    async fn keys_that_share_a_bucket_wait_only_for_a_transaction_with_many_keys(
        database: Database,
    ) {
        let database = database.migrated().await;
        let mut holder = producer(&database, "30s").await;
        let mut other = producer(&database, "20ms").await;
        let [one, mate, ..] = keys_of_one_bucket(&mut holder).await;
        let mate = enqueue(&mate);
        let few = [
            enqueue(&one),
            lock_keys(&one, "a", 64),
            // A key that comes again is one key.
            format!("{} from generate_series(1, 100)", enqueue(&one)),
            // What a savepoint locked is not locked after it was rolled back, and counts no more.
            format!("savepoint a; {}; rollback to a; {}", lock_keys(&one, "a", 1000), enqueue(&one)),
            one_by_one("k", 20000).replace("'x'", "'x', ordered => false"),
            at_once("k", 20000, ", ordered => false"),
        ];
        for locks in few {
            execute(&mut holder, &format!("begin; {locks}")).await;
            execute(&mut other, &mate).await;
            execute(&mut holder, "rollback").await;
        }
        let many =
            [lock_keys(&one, "a", 65), format!("{}; {}", one_by_one("a", 64), enqueue(&one))];
        for locks in many {
            execute(&mut holder, &format!("begin; {locks}")).await;
            assert_eq!(refused(&mut other, &mate).await, "55P03", "{locks}");
            execute(&mut holder, "rollback").await;
        }
    }
}

on_oldest_and_newest_server! {
    /// With a lock for each bucket alone this was a deadlock: the buckets are taken crosswise.
    async fn sorted_keys_of_two_writers_whose_buckets_cross_do_not_deadlock(database: Database) {
        let database = database.migrated().await;
        let mut first = producer(&database, "30s").await;
        let mut second = producer(&database, "30s").await;
        let crossing = "with keys as (select 'k' || i as key, hashtextextended(('k' || i) collate \
            \"C\", 0) & 4095 as bucket from generate_series(1, 1000) i)
          select array[a.key, b.key, c.key, d.key]
          from keys a join keys d on a.bucket = d.bucket and a.key <> d.key,
            keys b join keys c on b.bucket = c.bucket and b.key <> c.key
          where a.key < b.key and c.key < d.key and a.bucket <> b.bucket limit 1";
        let keys = value::<Vec<String>>(&mut first, crossing).await;
        for connection in [&mut first, &mut second] {
            execute(connection, "begin").await;
        }
        execute(&mut first, &enqueue(&keys[0])).await;
        execute(&mut second, &enqueue(&keys[2])).await;
        execute(&mut first, &enqueue(&keys[1])).await;
        execute(&mut second, &enqueue(&keys[3])).await;
        execute(&mut first, "commit").await;
        execute(&mut second, "commit").await;
    }
}

/// Runs a statement. Returns its SQLSTATE if it failed.
async fn outcome(connection: &mut PgConnection, sql: &str) -> Option<String> {
    let error = raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .err()?;
    let error = error.into_database_error().expect("an error of the server");
    error.code().map(|code| code.into_owned())
}

on_oldest_and_newest_server! {
    async fn writers_with_thirty_sorted_keys_each_and_none_in_common_never_deadlock(
        database: Database,
    ) {
        let database = database.migrated().await;
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..6 {
            let mut connection = producer(&database, "30s").await;
            writers.spawn(async move {
                let mut failed = Vec::new();
                for round in 0..40 {
                    let write = format!(
                        "begin; select outbox.enqueue_text('f', key, 'E', 'x') from (select \
                         format('%s-%s', lpad((i * 7919 + {round} * 31 % 1000)::text, 8, '0'), {writer}) \
                         as key from generate_series(1, 30) i order by 1) keys; commit"
                    );
                    failed.extend(outcome(&mut connection, &write).await);
                    execute(&mut connection, "rollback").await;
                }
                failed
            });
        }
        while let Some(failed) = writers.join_next().await {
            assert_eq!(failed.expect("a writer"), Vec::<String>::new());
        }
    }
}

/// Waits until so many sessions of the database wait for an advisory lock.
async fn wait_until_waiting(admin: &mut PgConnection, count: i64) {
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted \
        and database = (select oid from pg_database where datname = current_database())";
    until("sessions to wait for a lock", async || {
        (value::<i64>(admin, waiting).await == count).then_some(())
    })
    .await;
}

/// A transaction of 65 keys, of which `keys` are two: the first part adds 64 events, the second one
/// more and commits.
fn sixty_five(keys: [&str; 2], others: &str, lock_first: bool) -> [String; 2] {
    let lock = lock_keys(keys[1], others, 65);
    let lock = if lock_first {
        format!("{lock}; ")
    } else {
        String::new()
    };
    [
        format!(
            "begin; {lock}{}; {}",
            enqueue(keys[0]),
            one_by_one(others, 63)
        ),
        format!("{}; commit", enqueue(keys[1])),
    ]
}

on_oldest_and_newest_server! {
    /// Two transactions that share a bucket and then both want it alone wait for each other. Locking
    /// all keys first avoids that.
    async fn with_a_65th_key_transactions_can_deadlock_unless_they_lock_all_keys_first(
        database: Database,
    ) {
        let database = database.migrated().await;
        let mut admin = database.as_admin().await;
        let keys = keys_of_one_bucket(&mut admin).await;
        let [a, b, c, d] = keys.each_ref().map(String::as_str);
        for lock_first in [false, true] {
            let mut first = producer(&database, "30s").await;
            let mut second = producer(&database, "30s").await;
            let [begin, end] = sixty_five([a, b], "a", lock_first);
            execute(&mut first, &begin).await;
            let [begin, rest] = sixty_five([c, d], "b", lock_first);
            if !lock_first {
                execute(&mut second, &begin).await;
            }
            let rest = if lock_first { format!("{begin}; {rest}") } else { rest };
            let second = tokio::spawn(async move { outcome(&mut second, &rest).await });
            wait_until_waiting(&mut admin, 1).await;
            let mut failed: Vec<_> = outcome(&mut first, &end).await.into_iter().collect();
            execute(&mut first, "rollback").await;
            failed.extend(second.await.expect("joined"));
            let expected = if lock_first { vec![] } else { vec!["40P01"] };
            assert_eq!(failed, expected, "all keys first: {lock_first}");
        }
    }
}

/// A server with 20 connections, and an outbox on it.
async fn small_server() -> (Server, Database) {
    let mut server = Server::create().await;
    let mut admin = server.connect().await;
    execute(&mut admin, "alter system set max_connections = 20").await;
    admin.close().await.expect("closed");
    server.down("INT").await;
    server.up().await;
    let database = Database::create_on(server.admin()).await.migrated().await;
    (server, database)
}

/// Transactions of 100,000 keys, of 64 and of 1,000. It can take 30 s: it adds 200,000 events.
#[tokio::test]
async fn a_small_server_has_room_for_the_locks_of_many_keys() {
    let (_server, database) = small_server().await;
    let mut writer = producer(&database, "30s").await;
    for many in [
        one_by_one("k", 100_000),
        at_once("k", 100_000, ""),
        lock_keys("k1", "k", 100_000),
    ] {
        execute(&mut writer, &format!("begin; {many}; commit")).await;
    }
    let mut open = vec![writer];
    while open.len() < 14 {
        open.push(producer(&database, "30s").await);
    }
    // All with the largest number of keys that have locks of their own.
    for (writer, connection) in open.iter_mut().enumerate() {
        let most = one_by_one(&format!("{writer}-"), 64);
        execute(connection, &format!("begin; {most}")).await;
    }
    for connection in &mut open {
        execute(connection, "commit").await;
    }
    let mut writers = tokio::task::JoinSet::new();
    for (writer, mut connection) in open.into_iter().enumerate() {
        writers.spawn(async move {
            let thousand = at_once(&format!("{writer}-"), 1000, "");
            outcome(&mut connection, &thousand).await
        });
    }
    while let Some(failed) = writers.join_next().await {
        assert_eq!(failed.expect("a writer"), None);
    }
}

/// The statements of a fetch: of all rows, of small ones, and of some topics.
fn fetches() -> [FetchRequest; 3] {
    let read = |lane| LaneRead {
        lane,
        low: RowId::ZERO,
        rows_max: 9,
        bytes_max: 99,
    };
    let all = FetchRequest {
        lanes: Lane::all().map(read).collect(),
        ..FetchRequest::default()
    };
    let small = FetchRequest {
        small: true,
        ..all.clone()
    };
    let filtered = FetchRequest {
        filter: Some(FetchFilter::default()),
        scan_max: 9,
        ..all.clone()
    };
    [all, small, filtered]
}

on_oldest_and_newest_server! {
    /// `TRUNCATE .. RESTART IDENTITY` locks the table, then the sequence. A fetch that locked the
    /// sequence first could deadlock with it.
    async fn a_fetch_that_waits_for_the_table_holds_no_lock_of_the_sequence(database: Database) {
        let database = database.migrated().await;
        for (name, request) in ["all", "small", "filtered"].into_iter().zip(fetches()) {
            let store = database.store();
            // The server makes a plan of its own for each of the first calls.
            for _ in 0..7 {
                store.fetch(&request).await.expect("fetched");
            }
            let mut admin = database.as_admin().await;
            execute(&mut admin, "begin; lock table outbox.event in access exclusive mode").await;
            let fetch = tokio::spawn(async move { store.fetch(&request).await.map(drop) });
            let waits = "select count(*) from pg_locks where not granted and relation = \
                'outbox.event'::regclass";
            until("the fetch to wait", async || {
                (value::<i64>(&mut admin, waits).await == 1).then_some(())
            })
            .await;
            let held = "select count(*) from pg_locks where granted and relation = \
                'outbox.event_id_seq'::regclass";
            assert_eq!(value::<i64>(&mut admin, held).await, 0, "{name}");
            execute(&mut admin, "commit").await;
            fetch.await.expect("joined").expect("fetched");
        }
    }
}
