//! `spec.scaling` with real relays on the rig's node: a backlog makes the Deployment grow, its end
//! makes it shrink again.

use k8s_openapi::api::{apps::v1::Deployment, events::v1::Event};
use kube::api::{ListParams, Patch, PatchParams};
use outbox_relay::api::OutboxRelay;
use serde_json::json;

use crate::harness::{
    kafka::{create_topic, delete_topic, topic_name},
    kubernetes::{NAME, Namespace},
    pods,
    postgres::{Database, execute, value},
};

const RELAY: &str = "file-service-relay";

async fn count(ns: &Namespace) -> i32 {
    ns.get::<Deployment>(RELAY)
        .await
        .spec
        .replicas
        .expect("a count")
}

#[tokio::test]
async fn a_backlog_makes_the_deployment_grow_and_shrink_again() {
    let (ns, database, topic) = (
        Namespace::create().await,
        Database::create(15).await,
        topic_name("scaling"),
    );
    create_topic(&topic).await;
    pods::good_credentials(&ns, &database).await;
    ns.create_relay(|relay| {
        pods::real(relay, &database, &topic);
        // As slow as on a node that is much smaller: else one of them is through before anybody has
        // looked.
        relay["spec"]["template"]["resources"] = json!({"limits": {"cpu": "150m"}});
        relay["spec"]["scaling"] = json!({"maxReplicas": 4, "targetBacklogPerReplica": 20000, "scaleDownStabilization": "20s"});
    })
    .await;
    ns.reconcile_until_condition(180, "Ready", "True Ready")
        .await;
    ns.reconcile_until_condition(60, "ScalingActive", "True WithinTargets")
        .await;
    assert_eq!(count(&ns).await, 1);

    let mut admin = database.as_admin().await;
    let rows = "insert into outbox.event (aggregate_type, aggregate_id, event_type, payload)
        select 'file', 'f' || n % 5000, 'Uploaded', '\\x7b7d' from generate_series(1, 200000) n";
    execute(&mut admin, rows).await;
    let grown = ns
        .reconcile_until(120, async |ns: &Namespace| match count(ns).await {
            1 => Err(format!(
                "one relay: {:?}",
                ns.get::<OutboxRelay>(NAME).await.status
            )),
            more => Ok(more),
        })
        .await;
    assert_eq!(grown, 2, "at most to the double");
    let mut most = grown;
    let shrunk = async |ns: &Namespace| {
        let status = ns.get::<OutboxRelay>(NAME).await.status.expect("a status");
        let scale = status.last_scale.clone().expect("a step");
        if count(ns).await == 1 {
            Ok(scale)
        } else {
            Err(format!("{status:?}"))
        }
    };
    let last = loop {
        ns.reconcile().await;
        most = most.max(count(&ns).await);
        if let Ok(scale) = shrunk(&ns).await {
            break scale;
        }
        if value::<bool>(&mut admin, "select not exists (select from outbox.event)").await {
            break ns.reconcile_until(180, shrunk).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    };
    assert_eq!((last.to, last.reason.as_str()), (1, "LoadLow"));
    assert_eq!(
        value::<i64>(&mut admin, "select count(*) from outbox.event").await,
        0
    );
    let events = ns
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .expect("a list")
        .items;
    let reasons: Vec<String> = events
        .iter()
        .filter_map(|event| event.reason.clone())
        .collect();
    eprintln!("200,000 rows: 1 -> {most} -> 1 relays; Events {reasons:?}");
    assert!(
        reasons
            .iter()
            .any(|reason| reason == "BacklogHigh" || reason == "OldestHigh"),
        "{reasons:?}"
    );
    assert!(
        reasons.iter().any(|reason| reason == "LoadLow"),
        "{reasons:?}"
    );

    let foreign = Patch::Merge(json!({"spec": {"replicas": 3}}));
    ns.api::<Deployment>()
        .patch_scale(RELAY, &PatchParams::default(), &foreign)
        .await
        .expect("scaled");
    ns.reconcile().await;
    assert_eq!(count(&ns).await, 1, "a count on the Deployment is set back");
    delete_topic(&topic).await;
}
