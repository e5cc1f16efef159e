//! Contracts L, O and D of the relay on real servers: nothing is lost, keys stay in order,
//! duplicates come only from faults.

use std::time::{Duration, SystemTime};

use outbox_relay::settings::{OnPoison, RelaySettings, TopicSettings};

use crate::harness::{
    kafka::{Record, create_topic_with, read_all, topic_name},
    outbox::wait_until_drained,
    postgres::{Database, execute, value},
    relay::{Relay, until},
    writers::{Load, verify, write, write_during},
};

pub(crate) async fn begin(version: u32) -> (Database, RelaySettings, String) {
    begin_on(Database::create(version).await).await
}

pub(crate) async fn begin_on(database: Database) -> (Database, RelaySettings, String) {
    let database = database.migrated().await;
    let topic = topic_name("counted");
    // The broker's timestamps show how long a hand-over takes.
    create_topic_with(&topic, 6, &[("message.timestamp.type", "LogAppendTime")]).await;
    let settings = database.publishing(vec![TopicSettings {
        name: topic.clone(),
        event_types: vec![],
        aggregate_types: vec![],
        on_poison: OnPoison::default(),
    }]);
    (database, settings, topic)
}

pub(crate) fn load(topic: &str) -> Load {
    Load {
        topic: topic.to_owned(),
        writers: 8,
        keys: 100,
        during: Duration::from_secs(6),
        open_max: Duration::from_millis(500),
        pause_max: Duration::ZERO,
    }
}

pub(crate) async fn lanes(relay: &Relay, expected: impl Fn(u32) -> bool) {
    until("the lanes", async || {
        relay.report().await.filter(|report| expected(report.lanes))
    })
    .await;
}

pub(crate) async fn read(topic: String) -> Vec<Record> {
    tokio::task::spawn_blocking(move || read_all(&topic))
        .await
        .expect("read")
}

pub(crate) async fn wait_until_publishing(relay: &Relay) {
    until("rows to be published", async || {
        (relay.metric("outbox_publish_latency_seconds_count").await > 100.0).then_some(())
    })
    .await;
}

/// Kills one of two relays under load and starts it again: nothing is lost, keys stay in order.
pub(crate) async fn one_of_two_is_killed_and_comes_back(
    database: &Database,
    settings: &RelaySettings,
    topic: String,
) {
    let mut first = Relay::start(database, settings).await;
    let second = Relay::start(database, settings).await;
    lanes(&first, |lanes| lanes == 32).await;
    lanes(&second, |lanes| lanes == 32).await;
    let load = Load {
        during: Duration::from_secs(10),
        ..load(&topic)
    };
    let faults = async {
        wait_until_publishing(&first).await;
        first.kill();
        let third = Relay::start(database, settings).await;
        lanes(&third, |lanes| lanes > 0).await;
        third
    };
    let (committed, third) = write_during(database, &load, faults).await;
    wait_until_drained(database).await;
    verify(&committed, &read(topic).await);
    lanes(&third, |lanes| lanes == 32).await;
}

/// Stops one of two relays under load: it hands over without duplicates. Returns the other one.
pub(crate) async fn one_of_two_hands_over(
    database: &Database,
    settings: &RelaySettings,
    topic: String,
) -> Relay {
    let mut first = Relay::start(database, settings).await;
    let second = Relay::start(database, settings).await;
    lanes(&first, |lanes| lanes == 32).await;
    lanes(&second, |lanes| lanes == 32).await;
    let instance = first.report().await.expect("a report").instance;
    let moving = format!("select array_agg(lane) from outbox.lane where owner = '{instance}'");
    let moving: Vec<i16> = value(&mut database.as_admin().await, &moving).await;
    let hand_over = async {
        wait_until_publishing(&first).await;
        let requested_at = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970")
            .as_millis() as i64;
        first.stop().await;
        lanes(&second, |lanes| lanes == 64).await;
        requested_at
    };
    let load = load(&topic);
    let (committed, requested_at) = write_during(database, &load, hand_over).await;
    wait_until_drained(database).await;
    let records = read(topic).await;
    assert_eq!(verify(&committed, &records), 0, "duplicates by a hand-over");
    print_pause(database, &records, &moving, requested_at).await;
    second
}

/// Prints the longest pause of the lanes that moved after `requested_at`: from the last record of
/// the old relay to the first record of the new one.
async fn print_pause(database: &Database, records: &[Record], moving: &[i16], requested_at: i64) {
    let of_lanes = "select coalesce(array_agg(key), '{}') from aggregate \
        where (hashtextextended(key collate \"C\", 0) & 63)::int2 = any ($1)";
    let keys: Vec<String> = sqlx::query_scalar(of_lanes)
        .bind(moving)
        .fetch_one(&mut database.as_admin().await)
        .await
        .expect("keys");
    let mut times: Vec<i64> = records
        .iter()
        .filter(|record| keys.contains(&record.key))
        .filter_map(|record| record.timestamp_ms)
        .collect();
    times.sort_unstable();
    let pause = times
        .windows(2)
        .filter(|pair| pair[1] > requested_at)
        .map(|pair| pair[1] - pair[0])
        .max();
    eprintln!(
        "hand-over of {} lanes: {} ms without a record of theirs",
        moving.len(),
        pause.expect("records after it")
    );
}

/// Tests the watermarks with transactions that stay open for seconds, ids that commit out of order,
/// and a pinned vacuum horizon. The gap scan would hide a mistake, so it must find nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_is_missed_while_transactions_stay_open_and_the_horizon_is_pinned() {
    let (database, settings, topic) = begin(15).await;
    let mut pin = database.as_admin().await;
    execute(
        &mut pin,
        "begin isolation level repeatable read; select pg_current_xact_id(), \
        count(*) from outbox.event",
    )
    .await;
    let relay = Relay::start(&database, &settings).await;
    lanes(&relay, |lanes| lanes == 64).await;
    let load = Load {
        writers: 16,
        keys: 300,
        during: Duration::from_secs(12),
        open_max: Duration::from_secs(5),
        ..load(&topic)
    };
    let committed = write(&database, &load).await;
    wait_until_drained(&database).await;
    assert_eq!(
        verify(&committed, &read(topic).await),
        0,
        "duplicates without a fault"
    );
    assert_eq!(relay.metric("outbox_stragglers_found_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_stay_in_order_while_one_of_two_relays_is_killed_and_comes_back() {
    let (database, settings, topic) = begin(15).await;
    one_of_two_is_killed_and_comes_back(&database, &settings, topic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_asked_to_stop_hands_over_without_a_duplicate() {
    let (database, settings, topic) = begin(17).await;
    one_of_two_hands_over(&database, &settings, topic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_cuts_cost_nothing_but_time() {
    let (database, settings, topic) = begin(18).await;
    let relay = Relay::start(&database, &settings).await;
    lanes(&relay, |lanes| lanes == 64).await;
    let cuts = async {
        let mut admin = database.as_admin().await;
        for _ in 0..5 {
            let before = relay.metric("outbox_publish_latency_seconds_count").await;
            let cut = format!(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{}'",
                database.relay
            );
            execute(&mut admin, &cut).await;
            until("rows to be published again", async || {
                (relay.metric("outbox_publish_latency_seconds_count").await > before + 20.0)
                    .then_some(())
            })
            .await;
        }
    };
    let load = Load {
        during: Duration::from_secs(12),
        ..load(&topic)
    };
    let (committed, ()) = Box::pin(write_during(&database, &load, cuts)).await;
    wait_until_drained(&database).await;
    assert_eq!(
        verify(&committed, &read(topic).await),
        0,
        "duplicates by lost connections"
    );
}

/// SIGSTOP for longer than a lease: another relay takes the lanes. The paused one must neither lose
/// a row nor break an order when it continues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_paused_for_longer_than_its_lease_does_no_harm_when_it_continues() {
    let (database, settings, topic) = begin(15).await;
    let first = Relay::start(&database, &settings).await;
    let second = Relay::start(&database, &settings).await;
    lanes(&second, |lanes| lanes == 32).await;
    let sleep = async {
        wait_until_publishing(&first).await;
        first.signal("STOP");
        lanes(&second, |lanes| lanes == 64).await;
        first.signal("CONT");
        lanes(&first, |lanes| lanes == 32).await;
    };
    let load = Load {
        during: Duration::from_secs(25),
        ..load(&topic)
    };
    let (committed, ()) = tokio::join!(write(&database, &load), sleep);
    wait_until_drained(&database).await;
    verify(&committed, &read(topic).await);
}
