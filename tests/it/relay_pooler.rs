//! The relay behind PgBouncer in transaction mode with two connections for all replicas: the contracts are the same as without.

use std::time::Duration;

use outbox_relay::{
    report::ProblemClass,
    settings::{OnPoison, RelaySettings, TopicSettings},
};

use crate::{
    harness::{
        kafka::{create_topic, topic_name},
        pgbouncer::{PgBouncer, shared, through},
        postgres::{Database, execute, value},
        relay::{Relay, until},
        stubborn_writers::Writers,
        writers::{Load, judge, write},
    },
    relay_order::{drained, lanes, load, read},
};

async fn begin() -> (Database, RelaySettings, String) {
    let database = Database::create(15).await.migrated().await;
    let topic = topic_name("pooled");
    create_topic(&topic).await;
    let settings = database.publishing(vec![TopicSettings {
        name: topic.clone(),
        event_types: vec![],
        aggregate_types: vec![],
        on_poison: OnPoison::Block,
    }]);
    (database, settings, topic)
}

async fn flow(relay: &Relay) {
    until("rows to flow", async || (relay.metric("outbox_publish_latency_seconds_count").await > 100.0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_stay_in_order_while_one_of_two_relays_is_killed_and_comes_back_behind_a_pooler() {
    let (database, settings, topic) = begin().await;
    let settings = through(settings, shared());
    let mut first = Relay::start(&database, &settings).await;
    let second = Relay::start(&database, &settings).await;
    lanes(&first, |lanes| lanes == 32).await;
    lanes(&second, |lanes| lanes == 32).await;
    let load = Load { during: Duration::from_secs(10), ..load(&topic) };
    let faults = async {
        flow(&first).await;
        first.kill();
        let third = Relay::start(&database, &settings).await;
        lanes(&third, |lanes| lanes > 0).await;
        third
    };
    let (committed, third) = tokio::join!(write(&database, &load), faults);
    drained(&database).await;
    judge(&committed, &read(topic).await);
    lanes(&third, |lanes| lanes == 32).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_asked_to_stop_behind_a_pooler_hands_over_without_a_duplicate() {
    let (database, settings, topic) = begin().await;
    let settings = through(settings, shared());
    let mut first = Relay::start(&database, &settings).await;
    let second = Relay::start(&database, &settings).await;
    lanes(&second, |lanes| lanes == 32).await;
    let hand_over = async {
        flow(&first).await;
        first.stop().await;
        lanes(&second, |lanes| lanes == 64).await;
    };
    let load = load(&topic);
    let (committed, ()) = tokio::join!(write(&database, &load), hand_over);
    drained(&database).await;
    assert_eq!(judge(&committed, &read(topic).await), 0, "duplicates by a hand-over");
    assert_eq!(second.metric("outbox_stragglers_found_total").await, 0.0);
    let mut admin = database.as_admin().await;
    let relays: i64 = value(&mut admin, "select count(*) from outbox.relay").await;
    assert_eq!(relays, 1, "the one that stopped has signed off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_cuts_behind_a_pooler_cost_nothing_but_time() {
    let (database, settings, topic) = begin().await;
    let mut relay = Relay::start(&database, &through(settings, shared())).await;
    lanes(&relay, |lanes| lanes == 64).await;
    let writers = Writers::start(&database, &topic).await;
    let mut admin = database.as_admin().await;
    for _ in 0..5 {
        let before = relay.metric("outbox_publish_latency_seconds_count").await;
        let cut = format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{}'", database.relay);
        execute(&mut admin, &cut).await;
        until("rows to flow", async || (relay.metric("outbox_publish_latency_seconds_count").await > before + 20.0).then_some(())).await;
    }
    let committed = writers.end(&database).await;
    drained(&database).await;
    judge(&committed, &read(topic).await);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_is_killed_under_load_costs_nothing_but_time() {
    let (database, settings, topic) = begin().await;
    let mut pooler = PgBouncer::start(&database, "default_pool_size = 2").await;
    let settings = through(settings, pooler.port);
    let mut relay = Relay::start(&database, &settings).await;
    lanes(&relay, |lanes| lanes == 64).await;
    let writers = Writers::start(&database, &topic).await;
    for _ in 0..3 {
        let before = relay.metric("outbox_publish_latency_seconds_count").await;
        until("rows to flow", async || (relay.metric("outbox_publish_latency_seconds_count").await > before + 100.0).then_some(())).await;
        pooler.kill();
        until("the problem to show", async || {
            relay.report().await?.problems.into_iter().find(|problem| problem.class == ProblemClass::Unreachable)
        })
        .await;
        pooler.up().await;
        until("the problem to be gone", async || {
            relay.report().await?.problems.iter().all(|problem| problem.class != ProblemClass::Unreachable).then_some(())
        })
        .await;
    }
    let committed = writers.end(&database).await;
    drained(&database).await;
    judge(&committed, &read(topic).await);
    relay.stop().await;
}
