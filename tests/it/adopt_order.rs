//! Order of what adopted tables add: transaction ids before ids, and the lock of a key with
//! `ordered`.

use sqlx::{AssertSqlSafe, PgConnection, raw_sql};

use crate::harness::{
    adopted::{Generation, adopt, create_tables, event_outbox},
    postgres::{Database, execute, refused, value, values},
    relay::until,
};

/// Statement that inserts a row of this key.
fn insert(key: &str) -> String {
    format!(
        "insert into event_outbox (id, aggregate_id, aggregate_type, event_type, event_data, \
         event_key, topic) values (gen_random_uuid(), 'f1', 'file', 'Uploaded', '{{}}', '{key}', \
         'files');"
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    Locked,
    Free,
}

/// Adopts table `event_outbox` with column `topic`. Returns two connections of the service.
async fn begin(database: &Database, keys: Keys) -> [PgConnection; 2] {
    create_tables(database, &Generation::WithTopic.table("event_outbox")).await;
    let mut entry = event_outbox("public", "event_outbox");
    entry.ordered = keys == Keys::Locked;
    adopt(database, [entry]).await;
    [
        database.connect_as(&database.producer).await,
        database.connect_as(&database.producer).await,
    ]
}

async fn pid(connection: &mut PgConnection) -> i32 {
    value(connection, "select pg_backend_pid()").await
}

/// Waits until this session waits for a lock of this kind.
async fn wait_until_locked(admin: &mut PgConnection, pid: i32, kind: &str) {
    let waits = format!(
        "select count(*) from pg_stat_activity where pid = {pid} and wait_event_type = 'Lock' and \
         wait_event = '{kind}'"
    );
    until("the session to wait for a lock", async || {
        (value::<i64>(admin, &waits).await == 1).then_some(())
    })
    .await;
}

on_oldest_and_newest_server! {
    /// The sequence is locked, so that a session stops when it draws an id. The relay's reading
    /// position depends on this order.
    async fn a_transaction_has_its_xid_before_an_adopted_row_draws_an_id(database: Database) {
        let [mut other, _] = begin(&database, Keys::Free).await;
        let mut admin = database.as_admin().await;
        let with = format!("with a as ({} returning 1) table a", insert("k").trim_end_matches(';'));
        // Caches the functions, so that only the sequence is waited for.
        execute(&mut other, &insert("k")).await;
        let copy = "copy event_outbox (id, aggregate_id, aggregate_type, event_type, event_data, \
            topic) from program 'echo 11111111-1111-1111-1111-111111111111,f1,a,E,{},files' \
            (format csv)";
        for (name, statements) in [
            ("insert", insert("k")),
            ("transaction", format!("begin; {} commit", insert("k"))),
            ("copy", copy.to_owned()),
            ("savepoint", format!("begin; savepoint a; {} commit", insert("k"))),
            (
                "savepoints",
                format!(
                    "begin; savepoint a; savepoint b; {} release savepoint b; commit",
                    insert("k")
                ),
            ),
            (
                "after a savepoint",
                format!("begin; savepoint a; rollback to savepoint a; {} commit", insert("k")),
            ),
            ("with", with),
        ] {
            execute(&mut admin, "delete from outbox.event").await;
            let mut locker = database.as_admin().await;
            execute(&mut locker, "begin; alter sequence outbox.event_id_seq cache 1").await;
            let mut service = match name {
                // Only a superuser may copy from a program.
                "copy" => database.as_admin().await,
                _ => database.connect_as(&database.producer).await,
            };
            let pid = pid(&mut service).await;
            let writes = tokio::spawn(async move {
                raw_sql(AssertSqlSafe(statements)).execute(&mut service).await.map(drop)
            });
            wait_until_locked(&mut admin, pid, "relation").await;
            let xid = format!("select backend_xid::text from pg_stat_activity where pid = {pid}");
            let xid: Option<String> = value(&mut admin, &xid).await;
            execute(&mut locker, "rollback").await;
            writes.await.expect("joined").expect(name);
            let of_event = "select (xact::text::bigint & 4294967295)::text from outbox.event";
            let of_event = values::<String>(&mut admin, of_event).await;
            assert_eq!(xid.into_iter().collect::<Vec<_>>(), of_event, "{name}");
            assert_eq!(of_event.len(), 1);
        }
    }
}

/// The lock is that of `enqueue`, so both keep the order of a key.
#[tokio::test]
async fn with_ordered_a_second_transaction_of_a_key_waits_and_without_it_does_not() {
    for keys in [Keys::Locked, Keys::Free] {
        let database = Database::create(15).await;
        let [mut first, mut second] = begin(&database, keys).await;
        execute(&mut second, "set lock_timeout = '300ms'").await;
        for write in [
            insert("k"),
            "select outbox.enqueue('a', 'k', 'E', '{}', 'files');".to_owned(),
        ] {
            execute(&mut first, &format!("begin; {write}")).await;
            execute(&mut second, &insert("another")).await;
            match keys {
                Keys::Locked => {
                    assert_eq!(refused(&mut second, &insert("k")).await, "55P03", "{write}");
                }
                Keys::Free => execute(&mut second, &insert("k")).await,
            }
            execute(&mut first, "commit").await;
            execute(&mut second, &insert("k")).await;
        }
    }
}

#[tokio::test]
async fn with_ordered_ids_of_a_key_commit_in_their_order() {
    let database = Database::create(15).await;
    let [mut first, mut second] = begin(&database, Keys::Locked).await;
    let mut admin = database.as_admin().await;
    execute(&mut first, &format!("begin; {}", insert("k"))).await;
    let waiting = pid(&mut second).await;
    let writes = tokio::spawn(async move {
        execute(&mut second, &insert("k")).await;
    });
    wait_until_locked(&mut admin, waiting, "advisory").await;
    // The second has not drawn its id yet, so this one is lower.
    execute(&mut first, &format!("{} commit", insert("k"))).await;
    writes.await.expect("written");
    let transactions = "select string_agg(distinct_xact, ' ') from (select (dense_rank() over \
        (order by xact))::text as distinct_xact from outbox.event order by id) as e";
    let order: String = value(&mut admin, transactions).await;
    assert!(order == "1 1 2" || order == "2 2 1", "{order}");
}

/// Two transactions take the keys in opposite order.
async fn opposite(keys: Keys) -> Vec<Option<String>> {
    let database = Database::create(15).await;
    let [mut first, mut second] = begin(&database, keys).await;
    let mut admin = database.as_admin().await;
    execute(&mut first, &format!("begin; {}", insert("k1"))).await;
    execute(&mut second, &format!("begin; {}", insert("k2"))).await;
    let waiting = pid(&mut first).await;
    let code = |result: Result<_, sqlx::Error>| {
        let error = result.err()?;
        Some(error.as_database_error()?.code()?.into_owned())
    };
    let crossing = tokio::spawn(async move {
        let sql = format!("{} commit", insert("k2"));
        raw_sql(AssertSqlSafe(sql))
            .execute(&mut first)
            .await
            .map(drop)
    });
    if keys == Keys::Locked {
        wait_until_locked(&mut admin, waiting, "advisory").await;
    }
    let sql = format!("{} commit", insert("k1"));
    let second = raw_sql(AssertSqlSafe(sql))
        .execute(&mut second)
        .await
        .map(drop);
    let mut codes = vec![code(crossing.await.expect("joined")), code(second)];
    codes.sort();
    let events: i64 = value(&mut admin, "select count(*) from outbox.event").await;
    let committed = codes.iter().filter(|code| code.is_none()).count();
    assert_eq!(events, 2 * i64::try_from(committed).expect("few"));
    codes
}

#[tokio::test]
async fn keys_in_opposite_order_end_in_a_deadlock_with_ordered_alone() {
    let deadlock = Some("40P01".to_owned());
    assert_eq!(opposite(Keys::Free).await, [None, None]);
    assert_eq!(opposite(Keys::Locked).await, [None, deadlock]);
}
