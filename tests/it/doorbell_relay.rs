//! Relays that sleep, on servers where they may: what wakes them, and what happens to rows whose
//! relay is frozen, cut off, or handed its lanes over in its sleep.

use sqlx::PgConnection;

use crate::{
    harness::{
        gate::Gate,
        outbox::wait_until_drained,
        postgres::{Database, execute, value},
        relay::{Relay, until},
        server::Server,
        writers::{Load, verify, write, write_during},
    },
    relay_order::{begin_on, lanes, load, read},
};

/// What a relay logs when the clock found rows that no ring announced.
const NOT_RUNG: &str = "did not ring";

/// Lanes on which a relay sleeps, by the process of its session.
async fn sleepers(admin: &mut PgConnection) -> Vec<i64> {
    let held = "select array(select count(*) from pg_locks where locktype = 'advisory' and mode = \
        'ExclusiveLock' and granted and objsubid = 2 and classid = 'outbox.event'::regclass::oid \
        group by pid order by 1)";
    value(admin, held).await
}

async fn until_asleep(admin: &mut PgConnection, lanes: &[i64]) {
    let mut seen = Vec::new();
    until(
        &format!("sleep on {lanes:?} lanes, not {seen:?}"),
        async || {
            seen = sleepers(admin).await;
            (seen == lanes).then_some(())
        },
    )
    .await;
}

/// Enqueues an event of a key of its own.
fn event(key: &str, topic: &str) -> String {
    format!("select outbox.enqueue('t', '{key}', 'E', convert_to('{key}', 'UTF8'), '{topic}')")
}

async fn until_read(topic: &str, keys: &[&str]) {
    until(&format!("records of {keys:?}"), async || {
        let mut read: Vec<_> = read(topic.to_owned()).await;
        read.sort_by(|one, other| one.key.cmp(&other.key));
        let read: Vec<_> = read.iter().map(|record| record.key.as_str()).collect();
        (read == keys).then_some(())
    })
    .await;
}

/// Wakes and falls asleep as rows come, and misses none: each is found because it rang.
async fn rows_wake(server: Server) {
    let database = Database::create_on(server.admin()).await;
    let (database, settings, topic) = begin_on(database).await;
    let mut relay = Relay::start(&database, &settings).await;
    let mut admin = database.as_admin().await;
    let mut writer = database.connect_as(&database.producer).await;
    let mut keys = Vec::new();
    for number in 0..5 {
        until_asleep(&mut admin, &[64]).await;
        let key = format!("key-{number}");
        execute(&mut writer, &event(&key, &topic)).await;
        keys.push(key);
        wait_until_drained(&database).await;
    }
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    until_read(&topic, &keys).await;
    assert!(!relay.log().contains(NOT_RUNG), "{}", relay.log());
    relay.stop().await;
    assert_eq!(sleepers(&mut admin).await, [0; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_wakes_a_relay_on_15() {
    rows_wake(Server::create().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_wakes_a_relay_on_18() {
    rows_wake(Server::create_18().await).await;
}

/// Rows of 20 writers with pauses of up to half a second: between them, the relays sleep.
async fn no_row_is_left_to_the_clock(server: Server) {
    let database = Database::create_on(server.admin()).await;
    let (database, settings, topic) = begin_on(database).await;
    let relays = [
        Relay::start(&database, &settings).await,
        Relay::start(&database, &settings).await,
    ];
    let mut admin = database.as_admin().await;
    until_asleep(&mut admin, &[32, 32]).await;
    let load = Load {
        writers: 20,
        pause_max: std::time::Duration::from_millis(500),
        ..load(&topic)
    };
    let committed = write(&database, &load).await;
    wait_until_drained(&database).await;
    verify(&committed, &read(topic).await);
    until_asleep(&mut admin, &[32, 32]).await;
    for relay in relays {
        assert!(!relay.log().contains(NOT_RUNG), "{}", relay.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_of_twenty_writers_is_left_to_the_clock_on_15() {
    no_row_is_left_to_the_clock(Server::create().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_of_twenty_writers_is_left_to_the_clock_on_18() {
    no_row_is_left_to_the_clock(Server::create_18().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_do_not_ring_are_found_by_the_clock_and_keep_the_relay_awake() {
    let server = Server::create().await;
    let database = Database::create_on(server.admin()).await;
    let (database, settings, topic) = begin_on(database).await;
    let relay = Relay::start(&database, &settings).await;
    let mut admin = database.as_admin().await;
    until_asleep(&mut admin, &[64]).await;
    execute(&mut admin, "alter table outbox.event disable trigger ring").await;
    execute(&mut admin, &event("silent", &topic)).await;
    wait_until_drained(&database).await;
    until("the relay to notice", async || {
        relay.log().contains(NOT_RUNG).then_some(())
    })
    .await;
    assert_eq!(sleepers(&mut admin).await, [0; 0]);
}

/// The server ends the session of a relay that is frozen, so its lanes wake; another relay gets
/// them when the lease is over. No writer waits.
async fn a_frozen_sleeper_is_replaced(server: Server) {
    let database = Database::create_on(server.admin()).await;
    let (database, settings, topic) = begin_on(database).await;
    let frozen = Relay::start(&database, &settings).await;
    let mut admin = database.as_admin().await;
    until_asleep(&mut admin, &[64]).await;
    frozen.signal("STOP");
    let mut writer = database.connect_as(&database.producer).await;
    execute(&mut writer, "set lock_timeout = '1s'").await;
    execute(&mut writer, &event("frozen", &topic)).await;
    until_asleep(&mut admin, &[]).await;
    execute(&mut writer, &event("later", &topic)).await;
    let other = Relay::start(&database, &settings).await;
    wait_until_drained(&database).await;
    until_read(&topic, &["frozen", "later"]).await;
    until_asleep(&mut admin, &[64]).await;
    frozen.signal("CONT");
    until_asleep(&mut admin, &[32, 32]).await;
    execute(&mut writer, &event("thawed", &topic)).await;
    until_read(&topic, &["frozen", "later", "thawed"]).await;
    drop(other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_sleeper_is_replaced_on_15() {
    a_frozen_sleeper_is_replaced(Server::create().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_sleeper_is_replaced_on_18() {
    a_frozen_sleeper_is_replaced(Server::create_18().await).await;
}

/// A frozen relay that reads no rings: they fill its connection, and the server ends it all the
/// same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rings_that_nobody_reads_do_not_keep_a_frozen_relay_asleep() {
    let server = Server::create().await;
    let database = Database::create_on(server.admin()).await;
    let (database, settings, topic) = begin_on(database).await;
    let frozen = Relay::start(&database, &settings).await;
    let mut admin = database.as_admin().await;
    until_asleep(&mut admin, &[64]).await;
    frozen.signal("STOP");
    let mut writer = database.connect_as(&database.producer).await;
    // Each ring of a transaction of its own is sent; of one transaction, equal ones are not.
    let rings = format!(
        "do $$ begin for n in 1 .. 500000 loop perform pg_notify('outbox_' || \
         'outbox.event'::regclass::oid, n::text); end loop; {}; end $$",
        event("frozen", &topic).replace("select", "perform")
    );
    execute(&mut admin, &rings).await;
    until("the connection to be full", async || {
        let full = "select count(*) from pg_stat_activity where wait_event = 'ClientWrite'";
        (value::<i64>(&mut admin, full).await == 1).then_some(())
    })
    .await;
    until_asleep(&mut admin, &[]).await;
    execute(&mut writer, &event("later", &topic)).await;
    frozen.signal("CONT");
    until_read(&topic, &["frozen", "later"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeper_that_is_cut_off_wakes_when_the_network_is_back() {
    let server = Server::create().await;
    let database = Database::create_on(server.admin()).await;
    let (database, mut settings, topic) = begin_on(database).await;
    let gate = Gate::open(database.address()).await;
    settings.database.endpoint = database.endpoint_at(gate.port());
    let relay = Relay::start(&database, &settings).await;
    let mut admin = database.as_admin().await;
    until_asleep(&mut admin, &[64]).await;
    gate.set_open(false);
    execute(&mut admin, &event("cut", &topic)).await;
    until_asleep(&mut admin, &[]).await;
    gate.set_open(true);
    wait_until_drained(&database).await;
    until_asleep(&mut admin, &[64]).await;
    execute(&mut admin, &event("healed", &topic)).await;
    until_read(&topic, &["cut", "healed"]).await;
    drop(relay);
}

/// Only the bell's connection is lost: the others still work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bell_whose_session_ends_wakes_the_relay_and_comes_back() {
    let server = Server::create().await;
    let database = Database::create_on(server.admin()).await;
    let (database, settings, topic) = begin_on(database).await;
    let relay = Relay::start(&database, &settings).await;
    let mut admin = database.as_admin().await;
    for key in ["1", "2", "3"] {
        until_asleep(&mut admin, &[64]).await;
        let cut = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and \
            mode = 'ExclusiveLock' and objid = 0 and objsubid = 2";
        execute(&mut admin, &format!("{cut}; {}", event(key, &topic))).await;
        wait_until_drained(&database).await;
    }
    until_read(&topic, &["1", "2", "3"]).await;
    lanes(&relay, |lanes| lanes == 64).await;
    assert!(!relay.log().contains(NOT_RUNG), "{}", relay.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeper_works_on_after_a_restart_and_a_failover() {
    let mut server = Server::create().await;
    let database = Database::create_on(server.admin()).await;
    let (database, settings, topic) = begin_on(database).await;
    let relay = Relay::start(&database, &settings).await;
    let mut admin = database.as_admin().await;
    until_asleep(&mut admin, &[64]).await;
    server.down("INT").await;
    server.up().await;
    let mut admin = database.as_admin().await;
    execute(&mut admin, &event("1 restarted", &topic)).await;
    wait_until_drained(&database).await;
    until_asleep(&mut admin, &[64]).await;
    server.start_standby();
    server.down("QUIT").await;
    server.fail_over().await;
    let mut admin = database.as_admin().await;
    until("the standby to be promoted", async || {
        let is_standby: bool = value(&mut admin, "select pg_is_in_recovery()").await;
        (!is_standby).then_some(())
    })
    .await;
    execute(&mut admin, &event("2 failed over", &topic)).await;
    wait_until_drained(&database).await;
    until_asleep(&mut admin, &[64]).await;
    execute(&mut admin, &event("3 asleep", &topic)).await;
    until_read(&topic, &["1 restarted", "2 failed over", "3 asleep"]).await;
    drop(relay);
}

/// A second relay takes half of the lanes from one that sleeps, and gives them back when it stops.
async fn lanes_move_while_relays_sleep(server: Server) {
    let database = Database::create_on(server.admin()).await;
    let (database, settings, topic) = begin_on(database).await;
    let first = Relay::start(&database, &settings).await;
    let mut admin = database.as_admin().await;
    until_asleep(&mut admin, &[64]).await;
    let moves = async {
        let mut second = Relay::start(&database, &settings).await;
        lanes(&second, |lanes| lanes == 32).await;
        second.stop().await;
        lanes(&first, |lanes| lanes == 64).await;
        second
    };
    let load = Load {
        writers: 4,
        pause_max: std::time::Duration::from_millis(500),
        ..load(&topic)
    };
    let (committed, second) = write_during(&database, &load, moves).await;
    wait_until_drained(&database).await;
    assert_eq!(verify(&committed, &read(topic).await), 0, "no duplicate");
    until_asleep(&mut admin, &[64]).await;
    for relay in [first, second] {
        assert!(!relay.log().contains(NOT_RUNG), "{}", relay.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_move_while_relays_sleep_on_15() {
    lanes_move_while_relays_sleep(Server::create().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_move_while_relays_sleep_on_18() {
    lanes_move_while_relays_sleep(Server::create_18().await).await;
}

/// Where a transaction can be prepared, no relay sleeps. The rig's servers allow it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_polls_where_transactions_can_be_prepared() {
    let (database, settings, topic) = begin_on(Database::create(18).await).await;
    let relay = Relay::start(&database, &settings).await;
    lanes(&relay, |lanes| lanes == 64).await;
    let mut writer = database.connect_as(&database.producer).await;
    let prepare = format!(
        "begin; {}; prepare transaction '{}'",
        event("prepared", &topic),
        database.name
    );
    execute(&mut writer, &prepare).await;
    execute(&mut writer, &format!("commit prepared '{}'", database.name)).await;
    wait_until_drained(&database).await;
    let mut admin = database.as_admin().await;
    assert_eq!(sleepers(&mut admin).await, [0; 0]);
    until_read(&topic, &["prepared"]).await;
}

/// Counts what the server counts while a relay sleeps, from another database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_relay_makes_three_transactions_a_second_at_most() {
    let server = Server::create_18().await;
    let database = Database::create_on(server.admin()).await;
    let (database, settings, _) = begin_on(database).await;
    let _relay = Relay::start(&database, &settings).await;
    let mut elsewhere = server.connect().await;
    let locks = format!(
        "select count(*) from pg_locks as l join pg_database as d on d.oid = l.database where \
         l.locktype = 'advisory' and l.mode = 'ExclusiveLock' and d.datname = '{}'",
        database.name
    );
    until("the relay to sleep", async || {
        (value::<i64>(&mut elsewhere, &locks).await == 64).then_some(())
    })
    .await;
    let made = transactions_in(&mut elsewhere, &database, 5).await;
    eprintln!("{made} transactions in the first 5 s");
    let made = transactions_in(&mut elsewhere, &database, 20).await;
    assert!(made <= 3 * 20, "{made} transactions in 20 s");
}

/// Transactions that ended in a database in this number of seconds.
async fn transactions_in(elsewhere: &mut PgConnection, database: &Database, seconds: u32) -> i64 {
    let count = format!(
        "select xact_commit + xact_rollback from pg_stat_database where datname = '{}'",
        database.name
    );
    let before: i64 = value(elsewhere, &count).await;
    execute(elsewhere, &format!("select pg_sleep({seconds})")).await;
    value::<i64>(elsewhere, &count).await - before
}
