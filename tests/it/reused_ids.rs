//! Contract R on real servers: reused ids are never confused with rows that were published before.
//! The sequence is advanced automatically, no waiting row is lost, keys stay in order, and the
//! problem is reported.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use outbox_relay::{report::ProblemClass, settings::RelaySettings};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    harness::{
        dumps,
        kafka::Record,
        outbox::wait_until_drained,
        pgbouncer::{PgBouncer, shared, through},
        postgres::{Database, execute, value, values},
        relay::{Relay, until},
        server::Server,
        writers::{Committed, Load, verify, write, write_during},
    },
    relay_order::{begin, begin_on, lanes, load, read, wait_until_publishing},
};

/// The size of each jump of the sequence.
const JUMP: i64 = 1 << 32;

/// The event ids by key that a consumer keeps if it drops each `outbox_seq` lower than or equal to
/// the last one of its key.
fn consumed(records: &[Record]) -> Committed {
    let (mut last, mut taken) = (BTreeMap::<&str, i64>::new(), Committed::new());
    for record in records {
        let (seq, last) = (seq(record), last.entry(&record.key).or_default());
        if seq > *last {
            *last = seq;
            taken
                .entry(record.key.clone())
                .or_default()
                .push(record.event_id());
        }
    }
    taken
}

fn seq(record: &Record) -> i64 {
    record.headers["outbox_seq"].parse().expect("a number")
}

async fn wait_for_problem(relay: &Relay, class: ProblemClass) -> String {
    until(&format!("problem {class}"), async || {
        let problems = relay.report().await?.problems;
        problems
            .into_iter()
            .find(|problem| problem.class == class)
            .map(|problem| problem.message)
    })
    .await
}

/// Waits until the sequence has jumped.
async fn wait_until_jumped(admin: &mut PgConnection) {
    until("the sequence to be advanced", async || {
        (value::<i64>(admin, "select position from outbox.sequence_state").await > JUMP)
            .then_some(())
    })
    .await;
}

/// Writes one row of each of these keys, separated by spaces.
async fn add(connection: &mut PgConnection, topic: &str, keys: &str) {
    for key in keys.split(' ') {
        execute(
            connection,
            &format!("select outbox.enqueue('a', '{key}', 'E', null, '{topic}')"),
        )
        .await;
    }
}

/// The keys of all records, sorted by `outbox_seq` and without duplicates.
fn in_order(records: &[Record]) -> String {
    let by_seq: BTreeMap<i64, &str> = records
        .iter()
        .map(|record| (seq(record), record.key.as_str()))
        .collect();
    by_seq.into_values().collect::<Vec<_>>().join(" ")
}

/// Truncates the table under load with two relays. Waiting rows that were truncated are lost, as
/// the administrator intended. All other rows arrive.
async fn truncated_under_load(database: &Database, settings: &RelaySettings, topic: String) {
    let first = Relay::start(database, settings).await;
    let second = Relay::start(database, settings).await;
    lanes(&second, |lanes| lanes == 32).await;
    let mut admin = database.as_admin().await;
    let truncate = async {
        wait_until_publishing(&first).await;
        execute(
            &mut admin,
            "begin; lock table outbox.event in access exclusive mode; create table truncated \
             as select event_id from outbox.event;
             truncate outbox.event restart identity; commit",
        )
        .await;
        wait_until_jumped(&mut admin).await;
    };
    let load = Load {
        during: Duration::from_secs(10),
        ..load(&topic)
    };
    let (mut committed, ()) = write_during(database, &load, truncate).await;
    wait_until_drained(database).await;
    let records = read(topic).await;
    let arrived: BTreeSet<Uuid> = records.iter().map(Record::event_id).collect();
    let truncated: BTreeSet<Uuid> = values(&mut admin, "select event_id from truncated")
        .await
        .into_iter()
        .collect();
    committed
        .values_mut()
        .for_each(|ids| ids.retain(|id| arrived.contains(id) || !truncated.contains(id)));
    committed.retain(|_, ids| !ids.is_empty());
    verify(&committed, &records);
    assert_eq!(
        consumed(&records),
        committed,
        "records that a consumer keeps if it uses outbox_seq"
    );
    assert!(
        seq(records
            .iter()
            .max_by_key(|record| seq(record))
            .expect("some"))
            > JUMP
    );
    let reports_it = async |relay: &Relay| {
        relay
            .report()
            .await
            .expect("a report")
            .problems
            .iter()
            .any(|problem| problem.class == ProblemClass::SequenceWentBack)
    };
    assert!(
        reports_it(&first).await || reports_it(&second).await,
        "no relay reports it"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_that_restarts_ids_under_load_confuses_nothing() {
    let (database, settings, topic) = begin(17).await;
    truncated_under_load(&database, &settings, topic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_that_restarts_ids_under_load_confuses_nothing_behind_a_pooler() {
    let (database, settings, topic) = begin(15).await;
    truncated_under_load(&database, &through(settings, shared()), topic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_that_is_set_back_under_load_is_advanced_and_nothing_is_lost() {
    let (database, settings, topic) = begin(18).await;
    let mut admin = database.as_admin().await;
    // So far back that writers reach neither the old position nor the id of a waiting row before a
    // relay checks the sequence. Otherwise the regression could not be detected.
    execute(&mut admin, "select setval('outbox.event_id_seq', 1000000)").await;
    let relay = Relay::start(&database, &settings).await;
    let set_back = async {
        wait_until_publishing(&relay).await;
        execute(&mut admin, "select setval('outbox.event_id_seq', 1)").await;
        wait_until_jumped(&mut admin).await;
        wait_for_problem(&relay, ProblemClass::SequenceWentBack).await
    };
    let load = load(&topic);
    let (committed, message) = write_during(&database, &load, set_back).await;
    assert!(message.contains("docs/restore.md"), "{message}");
    wait_until_drained(&database).await;
    let records = read(topic).await;
    verify(&committed, &records);
    assert_eq!(
        consumed(&records),
        committed,
        "records that a consumer keeps if it uses outbox_seq"
    );
}

/// The only evidence is what relays wrote with their lanes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_starts_after_the_sequence_was_set_back_notices() {
    let (database, settings, topic) = begin(17).await;
    let mut admin = database.as_admin().await;
    let mut before = Relay::start(&database, &settings).await;
    add(&mut admin, &topic, "a b c a b c").await;
    wait_until_drained(&database).await;
    before.stop().await;

    execute(&mut admin, "select setval('outbox.event_id_seq', 1, false)").await;
    add(&mut admin, &topic, "d e").await;
    let relay = Relay::start(&database, &settings).await;
    let message = wait_for_problem(&relay, ProblemClass::SequenceWentBack).await;
    assert!(
        message.contains("the sequence was at 2") && message.contains("2 waiting rows"),
        "{message}"
    );
    wait_until_drained(&database).await;
    let records = read(topic).await;
    assert_eq!(in_order(&records), "a b c a b c d e");
    assert_eq!(
        records.iter().filter(|record| seq(record) > JUMP).count(),
        2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_pause_until_the_right_to_advance_the_sequence_is_granted() {
    let (database, settings, topic) = begin(15).await;
    let mut admin = database.as_admin().await;
    execute(
        &mut admin,
        &format!(
            "revoke execute on function outbox.resume_sequence from {}",
            database.relay
        ),
    )
    .await;
    execute(&mut admin, "update outbox.origin set system_identifier = 1").await;
    add(&mut admin, &topic, "a").await;
    let relay = Relay::start(&database, &settings).await;
    let message = wait_for_problem(&relay, ProblemClass::InsufficientPrivilege).await;
    assert!(
        message.contains("advance the id sequence") && message.contains("run the migration again"),
        "{message}"
    );
    wait_for_problem(&relay, ProblemClass::SequenceWentBack).await;
    assert_eq!(relay.report().await.expect("a report").lanes, 0);
    assert_eq!(
        value::<i64>(&mut admin, "select count(*) from outbox.event").await,
        1
    );

    assert_eq!(database.migrate(&settings).await.problem, None);
    wait_until_drained(&database).await;
    assert_eq!(read(topic).await.len(), 1);
}

/// Publishes rows, makes a dump while two rows wait, and publishes more rows. The relay keeps
/// running.
async fn dump_and_continue(
    database: &Database,
    settings: &RelaySettings,
    topic: &str,
    dumping: &[&str],
) -> (Vec<u8>, Relay) {
    let mut relay = Relay::start(database, settings).await;
    let mut admin = database.as_admin().await;
    add(&mut admin, topic, "a b c").await;
    wait_until_drained(database).await;
    relay.stop().await;
    add(&mut admin, topic, "a wait").await;
    let dumped = dump(database, dumping);
    let relay = Relay::start(database, settings).await;
    add(&mut admin, topic, "a b c a b c").await;
    wait_until_drained(database).await;
    (dumped, relay)
}

/// The records with an `outbox_seq` above all earlier ones.
fn above(published: &[Record], records: &[Record]) -> Vec<Record> {
    let highest = published.iter().map(seq).max().expect("some");
    records
        .iter()
        .filter(|record| seq(record) > highest)
        .cloned()
        .collect()
}

fn assert_complete(records: &[Record]) {
    let all: BTreeSet<Uuid> = records.iter().map(Record::event_id).collect();
    let taken: BTreeSet<Uuid> = consumed(records).into_values().flatten().collect();
    assert_eq!(taken, all, "a consumer that uses outbox_seq misses nothing");
}

/// A dump of the outbox is restored into another cluster of a newer version while the first one
/// continues to publish.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_restored_into_another_cluster_continues_above_everything_published() {
    let (old, settings, topic) = begin(15).await;
    let (dump, mut relay) = dump_and_continue(&old, &settings, &topic, &[]).await;
    relay.stop().await;
    let published = read(topic.clone()).await;
    assert_eq!(in_order(&published), "a b c a wait a b c a b c");

    let new = Database::create(17).await;
    dumps::restore(&new, "psql", &dump);
    let settings = new.publishing(settings.topics.clone());
    assert_eq!(new.migrate(&settings).await.problem, None);
    let mut admin = new.as_admin().await;
    add(&mut admin, &topic, "a b c wait").await;
    let relay = Relay::start(&new, &settings).await;
    wait_for_problem(&relay, ProblemClass::SequenceWentBack).await;
    wait_until_drained(&new).await;
    let records = read(topic).await;
    let after = above(&published, &records);
    assert_eq!(
        in_order(&after),
        "a wait a b c wait",
        "waiting rows of the dump are published again before new ones"
    );
    assert!(after.iter().all(|record| seq(record) > JUMP));
    assert_complete(&records);
}

/// Restores an older backup over the current data: rows that were published since wait again, and
/// ids are reused from that time on.
async fn restored_over_itself(kind: &str, empty: &str, runs: bool) {
    let (database, settings, topic) = begin(15).await;
    let (dump, mut relay) = dump_and_continue(&database, &settings, &topic, &[kind]).await;
    let mut admin = database.as_admin().await;
    let published = read(topic.clone()).await;
    if !runs {
        relay.stop().await;
    }
    dumps::restore(&database, "psql", &[empty.as_bytes(), &dump].concat());
    assert_eq!(database.migrate(&settings).await.problem, None);
    add(&mut admin, &topic, "a b c wait").await;
    if !runs {
        relay = Relay::start(&database, &settings).await;
    }
    wait_for_problem(&relay, ProblemClass::SequenceWentBack).await;
    wait_until_drained(&database).await;
    let records = read(topic).await;
    let after = above(&published, &records);
    assert_eq!(
        in_order(&after),
        "a wait a b c wait",
        "waiting rows of the dump are published again before new ones"
    );
    assert_complete(&records);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_restored_over_the_same_database_confuses_nothing() {
    restored_over_itself("--clean", "", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_restored_over_the_same_database_under_a_running_relay_confuses_nothing() {
    restored_over_itself("--clean", "", true).await;
}

/// The database shows no sign of the restore, because the sequence is unchanged. Only the relay's
/// memory shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_alone_restored_over_the_same_database_under_a_running_relay_confuse_nothing() {
    let empty = "do $$ begin execute (select 'truncate ' || string_agg(format('outbox.%I', \
        tablename), ', ') from pg_tables where schemaname = 'outbox'); end $$;\n";
    restored_over_itself("--data-only", empty, true).await;
}

/// Dumps the schema of the outbox.
fn dump(database: &Database, arguments: &[&str]) -> Vec<u8> {
    dumps::dump(database, &[&["--schema=outbox"], arguments].concat())
}

/// Nothing is lost, but a relay cannot know that. The sequence jumps, waiting rows get new ids
/// once, and publishing continues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_that_loses_nothing_under_a_running_relay_costs_only_ids() {
    let mut server = Server::create().await;
    let (database, settings, topic) = begin_on(Database::create_on(server.admin()).await).await;
    let relay = Relay::start(&database, &settings).await;
    let before = write(&database, &load(&topic)).await;
    server.down("INT").await;
    server.switch_over().await;

    let mut admin = database.as_admin().await;
    execute(&mut admin, "drop table aggregate").await;
    let promoted = Instant::now();
    add(&mut admin, &topic, "first").await;
    until("the first row to be published", async || {
        (value::<i64>(
            &mut admin,
            "select count(*) from outbox.event where aggregate_id = 'first'",
        )
        .await
            == 0)
            .then_some(())
    })
    .await;
    eprintln!(
        "published again {:?} after the promotion",
        promoted.elapsed()
    );
    let origin = "select incarnation::text from outbox.origin";
    let moved_on: String = value(&mut admin, origin).await;
    let after = write(&database, &load(&topic)).await;
    wait_until_drained(&database).await;
    assert_eq!(
        value::<String>(&mut admin, origin).await,
        moved_on,
        "it is advanced once"
    );
    wait_for_problem(&relay, ProblemClass::SequenceWentBack).await;
    let (first, records): (Vec<_>, Vec<_>) = read(topic)
        .await
        .into_iter()
        .partition(|record| record.key == "first");
    assert_eq!(first.len(), 1);
    verify_after_a_loss(before, Committed::new(), after, &records);
}

/// A pooler switches to another server between two transactions while the old server continues, as
/// after a failover without fencing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_switches_to_a_promoted_standby_under_a_running_relay_confuses_nothing() {
    let server = Server::create().await;
    let (database, settings, topic) = begin_on(Database::create_on(server.admin()).await).await;
    let pooler = PgBouncer::start(&database, "pool_mode = transaction").await;
    let relay = Relay::start(&database, &through(settings, pooler.port)).await;
    let before = write(&database, &load(&topic)).await;
    server.start_standby();
    let mut admin = database.as_admin().await;
    execute(&mut admin, "drop table aggregate").await;
    let other = server.split().await;
    let published = async || relay.metric("outbox_publish_latency_seconds_count").await;
    let leads_away = async {
        let enough = published().await + 100.0;
        until("rows to be published", async || {
            (published().await > enough).then_some(())
        })
        .await;
        pooler.switch_to(&database.name, other.port());
    };
    let (mut lost, ()) = write_during(&database, &load(&topic), leads_away).await;
    let database = database.moved_to(other.admin());

    let mut admin = database.as_admin().await;
    execute(&mut admin, "drop table aggregate").await;
    let after = write(&database, &load(&topic)).await;
    wait_for_problem(&relay, ProblemClass::SequenceWentBack).await;
    wait_until_drained(&database).await;
    let records = read(topic).await;
    // Unpublished rows that only the old server has are lost.
    let arrived: BTreeSet<Uuid> = records.iter().map(Record::event_id).collect();
    lost.values_mut()
        .for_each(|ids| ids.retain(|id| arrived.contains(id)));
    verify_after_a_loss(before, lost, after, &records);
}

/// Rows that were committed and published before the failover are lost, and other rows get their
/// ids.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_lost_commits_under_a_running_relay_confuses_nothing() {
    let mut server = Server::create().await;
    let (database, settings, topic) = begin_on(Database::create_on(server.admin()).await).await;
    let relay = Relay::start(&database, &settings).await;
    let before = write(&database, &load(&topic)).await;
    server.start_standby();
    let mut admin = database.as_admin().await;
    execute(&mut admin, "drop table aggregate").await;
    let lost = write(
        &database,
        &Load {
            during: Duration::from_secs(3),
            ..load(&topic)
        },
    )
    .await;
    wait_until_drained(&database).await;
    server.down("QUIT").await;
    server.fail_over().await;

    let mut admin = database.as_admin().await;
    execute(&mut admin, "drop table aggregate").await;
    let after = write(&database, &load(&topic)).await;
    wait_for_problem(&relay, ProblemClass::SequenceWentBack).await;
    wait_until_drained(&database).await;
    verify_after_a_loss(before, lost, after, &read(topic).await);
}

/// Verifies the records after a failover that lost commits. Rows whose settling the standby had not
/// received may be published again behind the jump.
fn verify_after_a_loss(before: Committed, lost: Committed, after: Committed, records: &[Record]) {
    let mut committed = before;
    for rows in [lost, after.clone()] {
        rows.into_iter()
            .for_each(|(key, mut ids)| committed.entry(key).or_default().append(&mut ids));
    }
    let without_seq: Vec<Record> = records
        .iter()
        .cloned()
        .map(|mut record| {
            record.headers.remove("outbox_seq");
            record
        })
        .collect();
    eprintln!("{} duplicates", verify(&committed, &without_seq));
    let taken = consumed(records);
    for (key, ids) in after {
        let taken: Vec<Uuid> = taken[&key]
            .iter()
            .filter(|id| ids.contains(id))
            .copied()
            .collect();
        assert_eq!(
            taken, ids,
            "{key}: records that a consumer keeps if it uses outbox_seq"
        );
    }
}

/// A key waits for its rejected row, which gets another id meanwhile. A retry finds the row, and
/// the key's other rows stay behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_key_is_retried_under_the_new_ids() {
    let (database, settings, topic) = begin(18).await;
    let mut admin = database.as_admin().await;
    add(&mut admin, &topic, "k k k").await;
    execute(
        &mut admin,
        &format!(
            "select outbox.park_key('{topic}', 'k', lane, id, event_id, 'RecordRejected') \
            from outbox.event where id = 1"
        ),
    )
    .await;
    let relay = Relay::start(&database, &settings).await;
    wait_for_problem(&relay, ProblemClass::RecordRejected).await;
    add(&mut admin, &topic, "other").await;
    until("the other key to be published", async || {
        (value::<i64>(&mut admin, "select count(*) from outbox.event").await == 3).then_some(())
    })
    .await;
    execute(&mut admin, "select setval('outbox.event_id_seq', 1, false)").await;
    wait_until_jumped(&mut admin).await;
    let head = "select count(*) from outbox.parked_key as p join outbox.event as e on (e.lane, \
        e.id, e.event_id) = (p.lane, p.head_id, p.head_event_id)
        where e.id = (select min(id) from outbox.event)";
    assert_eq!(value::<i64>(&mut admin, head).await, 1);
    add(&mut admin, &topic, "k").await;
    execute(&mut admin, "delete from outbox.parked_key").await;
    wait_until_drained(&database).await;
    let written: Vec<Uuid> = read(topic)
        .await
        .iter()
        .filter(|record| record.key == "k")
        .map(Record::event_id)
        .collect();
    assert_eq!(written.len(), 4, "each once");
}
