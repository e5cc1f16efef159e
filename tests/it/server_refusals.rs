//! Managed and hardened servers: a question that the server refuses costs that one fact. What they
//! refuse is refused here by revoked rights and by functions that raise what those servers raise.

use outbox_relay::{
    report::{Problem, ProblemClass},
    settings::{OnPoison, TopicSettings},
};

use crate::harness::{
    kafka::{create_topic, topic_name},
    postgres::{Database, execute, value},
    relay::{Relay, until},
};

/// A relay publishes what is written, and reports no problem.
async fn check_publishing(database: &Database) {
    let name = topic_name("refusals");
    create_topic(&name).await;
    let topic = TopicSettings {
        name,
        event_types: vec!["E".to_owned()],
        aggregate_types: vec![],
        on_poison: OnPoison::default(),
    };
    let relay = Relay::start(database, &database.publishing(vec![topic])).await;
    let mut producer = database.connect_as(&database.producer).await;
    execute(&mut producer, "select outbox.enqueue('a', 'b', 'E', '{}')").await;
    let mut admin = database.as_admin().await;
    until("the outbox to be empty", async || {
        let rows = value::<i64>(&mut admin, "select count(*) from outbox.event").await;
        (rows == 0).then_some(())
    })
    .await;
    let report = relay.report().await.expect("a report");
    let of_the_database = |problem: &Problem| problem.class != ProblemClass::TopicUnderReplicated;
    assert!(!report.problems.iter().any(of_the_database), "{report:?}");
}

/// Takes rights on what a relay asks from everybody but superusers.
const HARDENED: &str = "
    revoke execute on function pg_control_system(), pg_walfile_name(pg_lsn), pg_current_wal_lsn(),
      pg_is_in_recovery(), pg_relation_filepath(regclass), pg_stat_get_dead_tuples(oid) from public;
    revoke select on pg_stat_activity, pg_prepared_xacts from public";

on_each_server! {
    async fn a_hardened_server_is_migrated_and_its_facts_are_unknown(database: Database) {
        let mut admin = database.as_admin().await;
        execute(&mut admin, HARDENED).await;
        let database = database.migrated().await;
        let place = "select format('%s|%s|%s', system_identifier, timeline, sequence_file) from outbox.origin";
        assert_eq!(value::<String>(&mut admin, place).await, "0||");
        let store = database.store();
        let before = store.sequence_state().await.expect("the sequence");
        assert!(before.incarnation.is_some());
        let mut producer = database.connect_as(&database.producer).await;
        execute(&mut producer, "select outbox.enqueue('a', 'b', 'E', '{}')").await;
        let table = store.table_wide().await.expect("numbers");
        assert_eq!((table.xmin_age_seconds, table.dead_tuples), (None, None));
        assert_eq!((table.parked_keys, table.dead_letters), (0, 0));

        // What is still known is still compared: a sequence that went back is moved on.
        execute(&mut admin, "select setval('outbox.event_id_seq', 1, false)").await;
        let (resumed, after) = store.resume_sequence(before.position).await.expect("resumed");
        assert!(resumed.resumed && after.position > before.position, "{resumed:?}");
        assert!(after.incarnation.is_some() && after.incarnation != before.incarnation);
        check_publishing(&database).await;
    }
}

on_oldest_and_newest_server! {
    async fn a_right_that_is_taken_or_given_later_is_no_other_database(database: Database) {
        let database = database.migrated().await;
        let store = database.store();
        let mut admin = database.as_admin().await;
        let known = store.sequence_state().await.expect("the sequence").incarnation;
        execute(&mut admin, HARDENED).await;
        let unknown = store.sequence_state().await.expect("the sequence").incarnation;
        assert!(known.is_some());
        assert_eq!(known, unknown);
        execute(&mut admin, &HARDENED.replace("revoke", "grant").replace("from public", "to public")).await;
        let again = store.sequence_state().await.expect("the sequence");
        assert_eq!(again.incarnation, known);
        // TRUNCATE shows in the file of the sequence.
        execute(&mut admin, "truncate outbox.event restart identity").await;
        assert_eq!(store.sequence_state().await.expect("the sequence").incarnation, None);
    }
}

/// Aurora has no position in the WAL unless logical replication is on.
const WITHOUT_WAL: &str = "
    create or replace function pg_catalog.pg_current_wal_lsn() returns pg_lsn language plpgsql as $$
    begin
      raise exception 'no position in the WAL' using errcode = '55000';
    end $$";

on_oldest_and_newest_server! {
    async fn a_server_without_a_position_in_the_wal_is_migrated_and_published_from(database: Database) {
        let mut admin = database.as_admin().await;
        execute(&mut admin, WITHOUT_WAL).await;
        let database = database.migrated().await;
        let store = database.store();
        let before = store.sequence_state().await.expect("the sequence");
        assert!(before.incarnation.is_some());
        // The rest still shows that ids may come again.
        execute(&mut admin, "truncate outbox.event restart identity").await;
        assert_eq!(store.sequence_state().await.expect("the sequence").incarnation, None);
        let (resumed, after) = store.resume_sequence(before.position).await.expect("resumed");
        assert!(resumed.elsewhere && after.incarnation.is_some(), "{resumed:?}");
        check_publishing(&database).await;
    }
}

/// A function of that name before the server's own one stands for the product.
#[tokio::test]
async fn other_products_are_refused_by_name() {
    let database = Database::create(15).await;
    let mut admin = database.as_admin().await;
    for (version, name) in [
        (
            "CockroachDB CCL v24.1.0 (x86_64-pc-linux-gnu)",
            "CockroachDB",
        ),
        (
            "PostgreSQL 15.2-YB-2.25.0.0-b1 on x86_64-pc-linux-gnu",
            "YugabyteDB",
        ),
    ] {
        let stand_in = format!(
            "create schema if not exists stand_in; grant usage on schema stand_in to public;
             create or replace function stand_in.version() returns text language sql as $$select '{version}'$$;
             alter role {0} set search_path = stand_in, pg_catalog; alter role {1} set search_path = stand_in, pg_catalog",
            database.owner, database.relay
        );
        execute(&mut admin, &stand_in).await;
        let report = database.migrate(&database.settings()).await;
        let message = report
            .problem
            .map(|problem| problem.message)
            .unwrap_or_default();
        assert!(
            message.contains(name) && message.contains("PostgreSQL 15"),
            "{message}"
        );
        let refused = outbox_relay::outbox::check_product(&database.relay_pool(&[])).await;
        assert!(refused.is_err_and(|product| product.to_string().contains(name)));
    }
}
