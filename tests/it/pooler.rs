//! Units of work behind PgBouncer in transaction mode with two server connections for all clients.
//! Each client gets the answers to its own statements, nothing is left on the connections, and the
//! planner settings apply.

use std::{
    task::Poll,
    time::{Duration, Instant},
};

use outbox_relay::{
    outbox::{
        Connections, FetchFilter, FetchRequest, Lane, LaneRead, Pools, READER_OPTIONS, RowId,
        SettleRow, Statement, Store, WantedRow,
        connect::Connect,
        row_sql::TextReading,
        schema::{check_schema, row_statement},
    },
    report::ProblemClass,
    settings::RelaySettings,
};
use sqlx::{AssertSqlSafe, Row};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::harness::{
    pgbouncer::{PgBouncer, shared, through},
    postgres::{Database, execute, value},
    relay::until,
};

fn connections(database: &Database, settings: &RelaySettings, max: u32) -> Connections {
    Connections::new(
        &Connect::relay(&settings.database, &database.secrets()).expect("good secrets"),
        max,
        &[],
    )
}

/// A statement that only one client sends, with factor 2 for the first client and 3 for the second.
/// The texts differ, the types are equal.
fn times(factor: i64, number: i64) -> Statement<'static> {
    sqlx::query(AssertSqlSafe(format!("select $1::bigint * {factor}"))).bind(number)
}

/// Runs thousands of statements for each of six concurrent clients. Returns how many got another
/// client's answer.
async fn count_mixed_up<A>(
    calls: i64,
    query: impl Fn(i64, i64) -> A + Clone + Send + Sync + 'static,
) -> usize
where
    A: Future<Output = i64> + Send,
{
    let client = |number: i64| {
        let (query, factor) = (query.clone(), 2 + number % 2);
        tokio::spawn(async move {
            let mut wrong = 0;
            for call in 1..=calls {
                wrong += usize::from(query(factor, call).await != call * factor);
            }
            wrong
        })
    };
    let mut wrong = 0;
    for client in (0..6).map(client).collect::<Vec<_>>() {
        wrong += client.await.expect("a client");
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_belongs_to_its_question() {
    let database = Database::create(15).await;
    let connections = connections(&database, &through(database.settings(), shared()), 6);
    let query = move |factor, number| {
        let connections = connections.clone();
        async move {
            connections
                .row(times(factor, number))
                .await
                .expect("an answer")
                .get(0)
        }
    };
    assert_eq!(count_mixed_up(2000, query).await, 0);
}

/// Shows why units of work are needed: the statements of the test above fail if they are unnamed
/// and without a transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_transaction_clients_get_the_answers_of_others() {
    let database = Database::create(15).await;
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(shared())
        .extra_float_digits(None);
    let options = options
        .username(&database.relay)
        .password(database.password())
        .database(&database.name);
    let plain = sqlx::postgres::PgPoolOptions::new()
        .max_connections(6)
        .connect_lazy_with(options);
    let query = move |factor, number| {
        let plain = plain.clone();
        // The pooler also returns an error if no statement was prepared on the connection.
        async move {
            times(factor, number)
                .persistent(false)
                .fetch_one(&plain)
                .await
                .map_or(number * factor, |row| row.get(0))
        }
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while count_mixed_up(200, query.clone()).await == 0 {
        assert!(
            Instant::now() < deadline,
            "no client got another's answer within 60 s"
        );
    }
}

/// Polls a future until it was woken `wakes` times, and then drops it.
async fn cancelled_after<T>(work: impl Future<Output = T>, mut wakes: u32) -> Option<T> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        if wakes == 0 {
            return Poll::Ready(None);
        }
        wakes -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

/// Starts a proxy that delays all answers of the server at this port by a few milliseconds, so that
/// each answer arrives after its client started to wait.
async fn delayed_proxy(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let far = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", port))
                .await
                .expect("the server");
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(async move {
                let mut answer = [0; 8192];
                while let Ok(bytes @ 1..) = from_server.read(&mut answer).await {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    if to_client.write_all(&answer[..bytes]).await.is_err() {
                        break;
                    }
                }
            });
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        }
    });
    far
}

/// Cancels a unit of work at each of its await points: no transaction stays open, and no answer
/// goes to the next statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_work_leaves_nothing_behind() {
    for behind_a_pooler in [true, false] {
        let database = Database::create(15).await;
        let port = if behind_a_pooler {
            shared()
        } else {
            database.address().port()
        };
        let mut settings = through(database.settings(), delayed_proxy(port).await);
        settings.database.pooler = behind_a_pooler;
        let connect =
            Connect::relay(&settings.database, &database.secrets()).expect("good secrets");
        // The server must not end forgotten transactions automatically.
        let connections =
            Connections::new(&connect, 1, &[("idle_in_transaction_session_timeout", "0")]);
        let mut admin = database.as_admin().await;
        let open = format!(
            "select count(*) from pg_stat_activity where usename = '{}' and xact_start is not null",
            database.relay
        );
        let (mut wakes, mut ended) = (0, None);
        while ended.is_none() {
            let work = async {
                let mut work = connections.begin().await?;
                work.rows(times(2, 1)).await?;
                work.rows(times(3, 1)).await?;
                work.commit().await
            };
            ended = cancelled_after(work, wakes).await;
            until("no transaction to be open", async || {
                (value::<i64>(&mut admin, &open).await == 0).then_some(())
            })
            .await;
            let answer: i64 = connections
                .row(times(5, i64::from(wakes)))
                .await
                .expect("an answer")
                .get(0);
            assert_eq!(answer, i64::from(wakes) * 5, "after {wakes} wakes");
            wakes += 1;
        }
        // One wake for each answer: begin, two per statement, commit.
        assert!(
            wakes > 6 && ended.is_some_and(|ended| ended.is_ok()),
            "it ended after {wakes} wakes"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_fails_costs_the_next_one_nothing() {
    let database = Database::create(15).await;
    let connections = connections(&database, &through(database.settings(), shared()), 1);
    for number in 0..50 {
        connections
            .rows(sqlx::query("select 1 / 0"))
            .await
            .expect_err("a division by zero");
        assert_eq!(
            connections
                .row(times(7, number))
                .await
                .expect("an answer")
                .get::<i64, _>(0),
            number * 7
        );
    }
}

/// Names of prepared statements on the user's server connections of the pooler.
async fn left_behind(connections: &Connections) -> Vec<String> {
    let mut names = Vec::new();
    // Two concurrent units use both connections.
    let (mut first, mut second) = (
        connections.begin().await.expect("work"),
        connections.begin().await.expect("work"),
    );
    for work in [&mut first, &mut second] {
        for row in work
            .rows(sqlx::query(
                "select name from pg_prepared_statements where name <> ''",
            ))
            .await
            .expect("names")
        {
            names.push(row.get(0));
        }
    }
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_goes_through_a_pooler_and_leaves_nothing_behind() {
    let database = Database::create(15).await;
    database.write_secrets(&database.owner, database.password());
    let mut settings = through(database.settings(), shared());
    settings.migration.database = None;
    let connections = connections(&database, &settings, 2);
    for _ in 0..3 {
        let report = database.migrate(&settings).await;
        assert_eq!(report.problem, None);
        assert_eq!(left_behind(&connections).await, Vec::<String>::new());
    }
    check_schema(&connections, &settings.database.schema, &settings.owner)
        .await
        .expect("a schema");
    settings.migration.policy = outbox_relay::settings::MigrationPolicy::Verify;
    assert_eq!(database.migrate(&settings).await.problem, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_migrations_run_one_after_another_behind_a_pooler() {
    let database = Database::create(15).await;
    database.write_secrets(&database.owner, database.password());
    let mut settings = through(database.settings(), shared());
    settings.migration.database = None;
    let reports = futures::future::join_all((0..2).map(|_| database.migrate(&settings))).await;
    assert!(
        reports.iter().all(|report| report.problem.is_none()),
        "{reports:#?}"
    );
    assert_eq!(
        reports
            .iter()
            .filter(|report| !report.applied.is_empty())
            .count(),
        1,
        "one applied it, the other found it: {reports:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_is_detected_without_the_setting_in_the_manifest() {
    let database = Database::create(15).await;
    let mut settings = through(database.settings(), shared());
    settings.database.pooler = false;
    let refused = Connect::relay(&settings.database, &database.secrets())
        .expect("good secrets")
        .open()
        .await;
    let problem = refused.expect_err("startup settings").problem();
    assert_eq!(problem.class, ProblemClass::InvalidSettings);
    assert!(
        problem.message.contains("spec.database.pooler"),
        "{problem:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_mode_works() {
    let database = Database::create(15).await;
    let session_mode = PgBouncer::start(&database, "pool_mode = session").await;
    let settings = through(database.settings(), session_mode.port);
    let answer = connections(&database, &settings, 1)
        .row(times(2, 21))
        .await
        .expect("an answer");
    assert_eq!(answer.get::<i64, _>(0), 42);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_a_pooler_have_a_class() {
    let database = Database::create(15).await;
    let statement_mode = PgBouncer::start(&database, "pool_mode = statement").await;
    let settings = through(database.settings(), statement_mode.port);
    let error = connections(&database, &settings, 1)
        .rows(times(2, 2))
        .await
        .expect_err("no transactions there");
    let fault = outbox_relay::outbox::error::classify(&error);
    assert_eq!(fault.class, ProblemClass::InvalidSettings, "{fault}");
    assert!(fault.to_string().contains("statement mode"), "{fault}");

    let settings = through(database.settings(), shared());
    database.write_secrets(&database.relay, "wrong");
    let error = connections(&database, &settings, 1)
        .rows(times(2, 2))
        .await
        .expect_err("a wrong password");
    assert_eq!(
        outbox_relay::outbox::error::classify(&error).class,
        ProblemClass::AuthenticationFailed,
        "{error}"
    );
}

/// If sqlx queries a type between the steps of a statement, the server drops that statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_read_and_settled_on_new_connections() {
    let database = Database::create(15).await.migrated().await;
    execute(
        &mut database.as_admin().await,
        "select outbox.enqueue('file', 'f1', 'Uploaded', '{}', topic => 'files')",
    )
    .await;
    let settings = through(database.settings(), shared());
    let store = || {
        let [reader, settler, lease] =
            std::array::from_fn(|_| connections(&database, &settings, 1));
        Store::new(
            Pools {
                reader,
                settler,
                lease,
            },
            &settings.database.schema,
        )
    };
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
    let files = || vec!["files".to_owned()];
    let filter = FetchFilter {
        topics: files(),
        declared: Some(files()),
        ..FetchFilter::default()
    };
    let small = FetchRequest {
        small: true,
        ..all.clone()
    };
    let filtered = FetchRequest {
        filter: Some(filter),
        scan_max: 9,
        ..all.clone()
    };
    for plan in [all, small, filtered] {
        let (_, fetched) = store().fetch(&plan).await.expect("an answer");
        assert_eq!(fetched.rows.len(), 1);
        let settle = SettleRow {
            row: fetched.rows[0].identity(),
            ctid: fetched.rows[0].ctid,
        };
        let found = store()
            .fetch_by_ids(&[WantedRow::like_a_fetch(settle.row)])
            .await;
        assert_eq!(found.expect("an answer")[0].ctid, settle.ctid);
        store().settle(&[settle]).await.expect("settled");
        let mut admin = database.as_admin().await;
        assert_eq!(
            value::<i64>(&mut admin, "select count(*) from outbox.event").await,
            0
        );
        execute(
            &mut admin,
            "select outbox.enqueue('file', 'f1', 'Uploaded', '{}', topic => 'files')",
        )
        .await;
    }
}

/// The lines of a plan. Its limit would make a planner without statistics prefer to scan and sort.
async fn plan_of(
    fetch: &'static str,
    more: impl FnOnce(Statement<'static>) -> Statement<'static>,
    connections: &Connections,
) -> String {
    let schema = "outbox".to_owned().try_into().expect("a name");
    let fetch = row_statement(fetch, TextReading::Plain, &schema);
    let explain = AssertSqlSafe(format!("explain {}", fetch.as_str()));
    let explain = sqlx::query(explain)
        .bind((0..64).collect::<Vec<i16>>())
        .bind(vec![0_i64; 64])
        .bind(vec![2048_i32; 64]);
    let rows = connections.rows(more(explain)).await.expect("a plan");
    rows.iter()
        .map(|row| row.get::<String, _>(0))
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetch_walks_the_primary_key_of_a_table_that_was_never_analysed() {
    let database = Database::create(15).await.migrated().await;
    let mut admin = database.as_admin().await;
    execute(
        &mut admin,
        "alter table outbox.event set (autovacuum_enabled = off);
         insert into outbox.event (aggregate_type, aggregate_id, event_type)
           select 'aggregate', 'key-' || g, 'Counted' from generate_series(1, 50000) g",
    )
    .await;
    for settings in [database.settings(), through(database.settings(), shared())] {
        let connect =
            Connect::relay(&settings.database, &database.secrets()).expect("good secrets");
        let reader = Connections::new(&connect, 1, READER_OPTIONS);
        let limited = |query: Statement<'static>| query.bind(vec![i64::MAX; 64]);
        let flowing = |query: Statement<'static>| {
            let declared = vec!["files".to_owned(), "other".to_owned()];
            limited(query)
                .bind(vec!["files".to_owned()])
                .bind("{}")
                .bind("{\"aggregate\": \"files\"}")
                .bind("{}")
                .bind(4096)
                .bind(declared)
        };
        for plan in [
            plan_of(
                include_str!("../../src/outbox/sql/fetch.sql"),
                limited,
                &reader,
            )
            .await,
            plan_of(
                include_str!("../../src/outbox/sql/fetch_small.sql"),
                |query| query,
                &reader,
            )
            .await,
            plan_of(
                include_str!("../../src/outbox/sql/fetch_filtered.sql"),
                flowing,
                &reader,
            )
            .await,
        ] {
            assert!(plan.contains("Index Scan using event_pkey"), "{plan}");
            // Tables with one row are scanned sequentially.
            assert!(
                ["Sort", "Bitmap", "Seq Scan on event e"]
                    .iter()
                    .all(|other| !plan.contains(other)),
                "{plan}"
            );
        }
        // The planner uses the index for this statement only with the settings.
        let walk = async |settings| {
            let explain = sqlx::query(
                "explain select id from outbox.event where lane = 1 and id > 0 order by id",
            );
            let rows = Connections::new(&connect, 1, settings)
                .rows(explain)
                .await
                .expect("a plan");
            rows[0].get::<String, _>(0)
        };
        assert!(
            walk(READER_OPTIONS).await.starts_with("Index"),
            "{}",
            walk(READER_OPTIONS).await
        );
        assert!(walk(&[]).await.starts_with("Sort"), "{}", walk(&[]).await);
    }
}
