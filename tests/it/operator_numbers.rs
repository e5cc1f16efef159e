//! Numbers in the status of an OutboxRelay whose relay runs on the rig's node: they show a backlog,
//! and its end.

use std::time::Instant;

use outbox_relay::api::{OutboxRelay, OutboxRelayStatus};

use crate::harness::{
    kafka::{create_topic, delete_topic, topic_name},
    kubernetes::{NAME, Namespace},
    pods,
    postgres::{Database, execute, value},
    relay::until,
};

/// Longest time until a backlog shows, or its end. Numbers alone used to be written every 30 s.
const SHOWN_SECONDS: u64 = 25;

async fn shown(ns: &Namespace, rows: i64) -> OutboxRelayStatus {
    let is_shown = async |ns: &Namespace| {
        let status = ns.get::<OutboxRelay>(NAME).await.status.expect("a status");
        let backlog = status.backlog.clone();
        let found = backlog.map(|backlog| (backlog.rows, backlog.oldest_at.is_some()));
        if found == Some((rows, rows > 0)) {
            Ok(status)
        } else {
            Err(format!("{found:?}"))
        }
    };
    let began = Instant::now();
    let status = ns.reconcile_until(SHOWN_SECONDS, is_shown).await;
    eprintln!("{rows} rows show after {:?}", began.elapsed());
    status
}

/// Takes more than 20 s: a pod migrates, another one starts, and a row must wait.
#[tokio::test]
async fn a_backlog_shows_and_is_gone_with_its_last_row() {
    let (ns, database, topic) = (
        Namespace::create().await,
        Database::create(15).await,
        topic_name("numbers"),
    );
    pods::good_credentials(&ns, &database).await;
    ns.create_relay(|relay| pods::real(relay, &database, &topic))
        .await;
    ns.reconcile_until_condition(180, "Available", "True AllRelaysAvailable")
        .await;
    shown(&ns, 0).await;

    let mut admin = database.as_admin().await;
    let rows = "insert into outbox.event (aggregate_type, aggregate_id, event_type, payload)
        select 'file', 'f' || n, 'Uploaded', '\\x7b7d' from generate_series(1, 3) n";
    execute(&mut admin, rows).await;
    // The topic does not exist, so the rows wait.
    shown(&ns, 3).await;

    create_topic(&topic).await;
    until("the rows to go", async || {
        let empty = "select not exists (select from outbox.event)";
        value::<bool>(&mut admin, empty).await.then_some(())
    })
    .await;
    let status = shown(&ns, 0).await;
    assert!(status.published_per_second.is_some(), "{status:?}");
    delete_topic(&topic).await;
}
