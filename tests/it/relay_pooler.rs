//! The relay behind PgBouncer in transaction mode with two connections for all replicas. All
//! contracts hold.

use outbox_relay::{
    report::ProblemClass,
    settings::{OnPoison, TlsMode, TlsSettings, TopicSettings},
};

use crate::{
    harness::{
        certificates::server,
        kafka::{create_topic_with, topic_name},
        outbox::wait_until_drained,
        pgbouncer::{PgBouncer, shared, through},
        postgres::{Database, execute, value},
        relay::{Relay, until},
        retrying_writers::Writers,
        rig::certificate,
        writers::verify,
    },
    relay_order::{
        begin, lanes, one_of_two_hands_over, one_of_two_is_killed_and_comes_back, read,
        wait_until_publishing,
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_stay_in_order_while_one_of_two_relays_is_killed_and_comes_back_behind_a_pooler() {
    let (database, settings, topic) = begin(15).await;
    one_of_two_is_killed_and_comes_back(&database, &through(settings, shared()), topic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_asked_to_stop_behind_a_pooler_hands_over_without_a_duplicate() {
    let (database, settings, topic) = begin(15).await;
    let second = one_of_two_hands_over(&database, &through(settings, shared()), topic).await;
    assert_eq!(second.metric("outbox_stragglers_found_total").await, 0.0);
    let mut admin = database.as_admin().await;
    let relays: i64 = value(&mut admin, "select count(*) from outbox.relay").await;
    assert_eq!(relays, 1, "the stopped relay has unregistered");
}

/// The rare statements also work through the pooler: fetching rows by id, parking, dead letters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_rows_are_parked_or_dead_lettered_behind_a_pooler() {
    let database = Database::create(15).await.migrated().await;
    let (block, bury) = (topic_name("block"), topic_name("bury"));
    let topics =
        [(&block, OnPoison::Block), (&bury, OnPoison::DeadLetter)].map(|(name, on_poison)| {
            TopicSettings {
                name: name.clone(),
                event_types: vec![],
                aggregate_types: vec![],
                on_poison,
            }
        });
    for topic in &topics {
        create_topic_with(&topic.name, 6, &[("max.message.bytes", "100000")]).await;
    }
    let mut admin = database.as_admin().await;
    // Each topic has ten keys with three rows each. The second row of one key is too large.
    let rows = "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
        select 'a', 'k' || n % 10, 'E', topic, case when n = 15
          then (select string_agg(sha256(int4send(g)), '') from generate_series(1, 9500) g) end
        from generate_series(0, 29) n, unnest(array['$block', '$bury']) topic order by n";
    execute(
        &mut admin,
        &rows.replace("$block", &block).replace("$bury", &bury),
    )
    .await;
    let relay = Relay::start(
        &database,
        &through(database.publishing(topics.to_vec()), shared()),
    )
    .await;
    until(
        "two waiting rows, one dead letter and one parked key",
        async || {
            let counts = "select concat_ws(' ', (select count(*) from outbox.event), (select \
            count(*) from outbox.dead_letter),
            (select count(*) from outbox.parked_key))";
            (value::<String>(&mut admin, counts).await == "2 1 1").then_some(())
        },
    )
    .await;
    until("the statistics of the table", async || {
        let report = relay.report().await?;
        (report.parked_keys == Some(1) && report.dead_letters == Some(1)).then_some(())
    })
    .await;
    assert_eq!((read(block).await.len(), read(bury).await.len()), (28, 29));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_cuts_behind_a_pooler_cost_nothing_but_time() {
    let (database, settings, topic) = begin(15).await;
    let mut relay = Relay::start(&database, &through(settings, shared())).await;
    lanes(&relay, |lanes| lanes == 64).await;
    let writers = Writers::start(&database, &topic).await;
    let mut admin = database.as_admin().await;
    for _ in 0..5 {
        let before = relay.metric("outbox_publish_latency_seconds_count").await;
        let cut = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{}'",
            database.relay
        );
        execute(&mut admin, &cut).await;
        until("rows to be published", async || {
            (relay.metric("outbox_publish_latency_seconds_count").await > before + 20.0)
                .then_some(())
        })
        .await;
    }
    let committed = writers.end(&database).await;
    wait_until_drained(&database).await;
    verify(&committed, &read(topic).await);
    relay.stop().await;
}

/// The pooler rejects plaintext connections. The relay checks the certificate chain and host name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_pass_a_pooler_that_requires_tls_once_its_authority_is_trusted() {
    let (database, settings, topic) = begin(15).await;
    let pooler = PgBouncer::start_with_tls(
        &database,
        &server(),
        "pool_mode = transaction\ndefault_pool_size = 2",
    )
    .await;
    let mut settings = through(settings, pooler.port);
    settings.database.tls = TlsSettings {
        mode: TlsMode::VerifyFull,
        ca: true,
        client_certificate: false,
    };
    database.write_secret("database/ca.crt", &certificate("rogue-ca.crt"));
    let mut relay = Relay::start(&database, &settings).await;
    until("the problem to be reported", async || {
        relay
            .report()
            .await?
            .problems
            .into_iter()
            .find(|problem| problem.class == ProblemClass::TlsFailed)
    })
    .await;
    database.write_secret("database/ca.crt", &certificate("ca.crt"));
    lanes(&relay, |lanes| lanes == 64).await;
    let writers = Writers::start(&database, &topic).await;
    wait_until_publishing(&relay).await;
    let committed = writers.end(&database).await;
    wait_until_drained(&database).await;
    assert_eq!(verify(&committed, &read(topic).await), 0, "duplicates");
    assert!(pooler.log().contains("tls=TLSv1.3"), "{}", pooler.log());
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_is_killed_under_load_costs_nothing_but_time() {
    let (database, settings, topic) = begin(15).await;
    let mut pooler =
        PgBouncer::start(&database, "pool_mode = transaction\ndefault_pool_size = 2").await;
    let settings = through(settings, pooler.port);
    let mut relay = Relay::start(&database, &settings).await;
    lanes(&relay, |lanes| lanes == 64).await;
    let writers = Writers::start(&database, &topic).await;
    for _ in 0..3 {
        let before = relay.metric("outbox_publish_latency_seconds_count").await;
        until("rows to be published", async || {
            (relay.metric("outbox_publish_latency_seconds_count").await > before + 100.0)
                .then_some(())
        })
        .await;
        pooler.kill();
        until("the problem to be reported", async || {
            relay
                .report()
                .await?
                .problems
                .into_iter()
                .find(|problem| problem.class == ProblemClass::Unreachable)
        })
        .await;
        pooler.up().await;
        until("the problem to be resolved", async || {
            relay
                .report()
                .await?
                .problems
                .iter()
                .all(|problem| problem.class != ProblemClass::Unreachable)
                .then_some(())
        })
        .await;
    }
    let committed = writers.end(&database).await;
    wait_until_drained(&database).await;
    verify(&committed, &read(topic).await);
    relay.stop().await;
}
