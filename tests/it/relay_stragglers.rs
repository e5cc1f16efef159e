//! Rows that become visible late and a pinned vacuum horizon: no other row waits for them, and none
//! is missed. Also the gap scan, which would find missed rows.

use std::time::Duration;

use outbox_relay::outbox::{GapScanPlan, Lane, LaneGapScan, RowId};
use uuid::Uuid;

use crate::{
    harness::{
        outbox::wait_until_drained,
        postgres::{Database, execute, value, values},
        relay::{Relay, until},
        writers::{Committed, Load, verify, write},
    },
    relay_order::{begin, lanes, load, read},
};

/// SQL that inserts `each` rows of each key in turn. Adds them to `committed`.
fn rows_of(keys: [&str; 3], each: usize, topic: &str, committed: &mut Committed) -> String {
    let mut rows = Vec::new();
    for _ in 0..each {
        for key in keys {
            let event_id = Uuid::new_v4();
            committed.entry(key.to_owned()).or_default().push(event_id);
            rows.push(format!(
                "('{event_id}', 'aggregate', '{key}', 'Counted', '{topic}', 'late')"
            ));
        }
    }
    let columns = "event_id, aggregate_type, aggregate_id, event_type, topic, payload";
    format!(
        "insert into outbox.event ({columns}) values {}",
        rows.join(", ")
    )
}

/// All visible rows are settled while the transaction is still open, so its ids delay no other row.
/// Its rows have ids far below those that were read later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_commit_late_are_published_in_order_and_delay_no_others() {
    let (database, settings, topic) = begin(17).await;
    let relay = Relay::start(&database, &settings).await;
    lanes(&relay, |lanes| lanes == 64).await;
    let (mut late, keys, mut of_late) = (
        database.connect_as(&database.producer).await,
        ["late-0", "late-1", "late-2"],
        Committed::new(),
    );
    execute(&mut late, "begin").await;
    execute(&mut late, &rows_of(keys, 100, &topic, &mut of_late)).await;

    let load = Load {
        during: Duration::from_secs(5),
        open_max: Duration::from_millis(100),
        ..load(&topic)
    };
    let mut committed = write(&database, &load).await;
    wait_until_drained(&database).await;
    assert_eq!(
        verify(&committed, &read(topic.clone()).await),
        0,
        "everything but the open transaction's rows"
    );

    execute(&mut late, "commit").await;
    let mut next = database.connect_as(&database.producer).await;
    execute(&mut next, &rows_of(keys, 10, &topic, &mut of_late)).await;
    wait_until_drained(&database).await;
    committed.append(&mut of_late);
    assert_eq!(
        verify(&committed, &read(topic).await),
        0,
        "duplicates without a fault"
    );
    assert_eq!(relay.metric("outbox_stragglers_found_total").await, 0.0);
}

/// Deleted rows cannot be vacuumed. A relay that takes over the lanes reads past all of them before
/// its first row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_horizon_is_reported_and_a_relay_that_takes_over_misses_no_row() {
    let (database, settings, topic) = begin(15).await;
    let mut admin = database.as_admin().await;
    execute(
        &mut admin,
        &format!("grant pg_read_all_stats to {}", database.relay),
    )
    .await;
    let mut pin = database.as_admin().await;
    execute(
        &mut pin,
        "begin isolation level repeatable read; select count(*) from outbox.event",
    )
    .await;
    let mut first = Relay::start(&database, &settings).await;
    lanes(&first, |lanes| lanes == 64).await;
    let take_over = async {
        until("rows to be published", async || {
            (first.metric("outbox_publish_latency_seconds_count").await > 100.0).then_some(())
        })
        .await;
        let second = Relay::start(&database, &settings).await;
        lanes(&second, |lanes| lanes == 32).await;
        first.stop().await;
        lanes(&second, |lanes| lanes == 64).await;
        second
    };
    let load = load(&topic);
    let (committed, second) = tokio::join!(write(&database, &load), take_over);
    wait_until_drained(&database).await;
    assert_eq!(
        verify(&committed, &read(topic).await),
        0,
        "duplicates without a fault"
    );
    for metric in ["outbox_xmin_age_seconds", "outbox_dead_tuples"] {
        until(metric, async || {
            (second.metric(metric).await > 1.0).then_some(())
        })
        .await;
    }
    assert_eq!(second.metric("outbox_stragglers_found_total").await, 0.0);
    execute(&mut pin, "commit").await;
}

fn rows_with_ids(topic: &str, ids: std::ops::RangeInclusive<i64>) -> String {
    format!(
        "insert into outbox.event (id, aggregate_type, aggregate_id, event_type, topic, payload) \
         overriding system value
         select n, 'a', 'k', 'E', '{topic}', 'again' from generate_series({}, {}) n",
        ids.start(),
        ids.end()
    )
}

#[tokio::test]
async fn a_gap_scan_reads_page_by_page_up_to_the_watermark() {
    let database = Database::create(15).await.migrated().await;
    let mut admin = database.as_admin().await;
    execute(&mut admin, &rows_with_ids("t", 1..=250)).await;
    let lane: i16 = value(&mut admin, "select distinct lane from outbox.event").await;
    let scan = |lane, above, watermark| LaneGapScan {
        lane: Lane::from_column(lane).expect("a lane"),
        above: RowId::new(above),
        watermark: RowId::new(watermark),
    };
    let (store, mut after, mut pages) = (database.store(), 0, Vec::new());
    for _ in 0..3 {
        let plan = GapScanPlan {
            lanes: vec![scan(lane, after, 240), scan((lane + 1) % 64, 0, 1000)],
            rows_max: 100,
        };
        let ids: Vec<i64> = store
            .gap_scan(&plan)
            .await
            .expect("an answer")
            .into_iter()
            .map(|row| row.id.get())
            .collect();
        after = *ids.last().expect("a row");
        pages.push((ids[0], after, ids.len()));
    }
    assert_eq!(pages, [(1, 100, 100), (101, 200, 100), (201, 240, 40)]);
}

/// There are more rows than a page of the scan holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_with_reused_ids_below_the_watermark_are_found_by_the_gap_scan() {
    let (database, settings, topic) = begin(18).await;
    let relay = Relay::start(&database, &settings).await;
    let mut admin = database.as_admin().await;
    let insert = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
         select 'a', 'k', 'E', '{topic}', 'once' from generate_series(1, 500) n"
    );
    execute(&mut admin, &insert).await;
    wait_until_drained(&database).await;
    until("the watermark in the database", async || {
        let marks: Vec<i64> =
            values(&mut admin, "select mark from outbox.lane where mark >= 400").await;
        (!marks.is_empty()).then_some(())
    })
    .await;
    execute(&mut admin, &rows_with_ids(&topic, 1..=250)).await;
    until("the gap scan", async || {
        (relay.metric("outbox_stragglers_found_total").await > 0.0).then_some(())
    })
    .await;
    wait_until_drained(&database).await;
    let rows_with_ids = read(topic)
        .await
        .iter()
        .filter(|record| record.value.as_deref() == Some(b"again"))
        .count();
    assert_eq!(rows_with_ids, 250);
}
