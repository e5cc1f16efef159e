//! Several operators at a real API server: one leads, another takes over, and none writes when it
//! may lead no more.

use std::time::Instant;

use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::ServiceAccount};
use serde_json::json;

use crate::harness::{
    api_proxy::{Asked, Fault},
    kubernetes::{NAME, Namespace},
    operator::OperatorProcess,
    relay::until,
};

const RELAY: &str = "file-service-relay";

/// One that leads and one that stands by.
async fn two(ns: &Namespace) -> (OperatorProcess, OperatorProcess) {
    let leader = OperatorProcess::start_one(&ns.name, "first", &[]).await;
    until("the first to lead", async || {
        leader.leads().await.then_some(())
    })
    .await;
    let standby = OperatorProcess::start_one(&ns.name, "second", &[]).await;
    until("the second to stand by", async || {
        standby.is_fine("/readyz").await.then_some(())
    })
    .await;
    (leader, standby)
}

async fn replicas_become(ns: &Namespace, count: i32) {
    until(&format!("{count} replicas"), async || {
        let deployment = ns.get_opt::<Deployment>(RELAY).await?;
        (deployment.spec.replicas == Some(count)).then_some(())
    })
    .await;
}

async fn holder(ns: &Namespace) -> String {
    let lease: Lease = ns.get(&format!("{}-outbox-operator", ns.name)).await;
    lease
        .spec
        .and_then(|spec| spec.holder_identity)
        .unwrap_or_default()
}

/// When an operator first asked for something that only a leader asks for.
fn acted_at(operator: &OperatorProcess) -> Option<Instant> {
    operator
        .proxy
        .asked()
        .into_iter()
        .find(|asked| !asked.is_of_lease())
        .map(|asked| asked.at)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_stopped_gives_the_lease_back_and_the_other_acts_at_once() {
    let ns = Namespace::create().await;
    let (mut leader, standby) = two(&ns).await;
    assert_eq!(holder(&ns).await, "first");
    ns.create_relay(|_| ()).await;
    replicas_become(&ns, 2).await;
    assert!(standby.is_fine("/healthz").await && !standby.leads().await);
    assert_eq!(
        acted_at(&standby),
        None,
        "who stands by only looks at the Lease"
    );

    let stopped = Instant::now();
    leader.signal("TERM");
    ns.patch_relay(json!({"spec": {"replicas": 3}})).await;
    let ended = leader.ended().await;
    assert!(ended.success(), "{ended}");
    let acted = until("the other to act", async || acted_at(&standby)).await;
    eprintln!("SIGTERM: the other acted after {:?}", acted - stopped);
    replicas_become(&ns, 3).await;
    assert_eq!(holder(&ns).await, "second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_is_followed_when_its_lease_has_run_out() {
    let ns = Namespace::create().await;
    let (leader, standby) = two(&ns).await;
    ns.create_relay(|_| ()).await;
    replicas_become(&ns, 2).await;
    let killed = Instant::now();
    leader.signal("KILL");
    ns.patch_relay(json!({"spec": {"replicas": 3}})).await;
    let acted = until("the other to act", async || acted_at(&standby)).await;
    eprintln!("kill -9: the other acted after {:?}", acted - killed);
    replicas_become(&ns, 3).await;
}

/// The leader's container is restarted under the same name, so it does not wait for its own Lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_and_started_again_leads_on() {
    let ns = Namespace::create().await;
    let mut leader = OperatorProcess::start_one(&ns.name, "first", &[]).await;
    until("it to lead", async || leader.leads().await.then_some(())).await;
    let before = ns
        .get::<Lease>(&format!("{}-outbox-operator", ns.name))
        .await
        .spec
        .expect("a spec")
        .lease_transitions;
    leader.signal("KILL");
    leader.ended().await;
    leader.start_again();
    until("it to lead again", async || {
        leader.leads().await.then_some(())
    })
    .await;
    let after = ns
        .get::<Lease>(&format!("{}-outbox-operator", ns.name))
        .await
        .spec
        .expect("a spec")
        .lease_transitions;
    assert_eq!(before, after);
}

/// A machine that was paused in the middle of a pass: what was about to be written is stale by now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_frozen_writes_nothing_when_it_goes_on_and_ends() {
    let ns = Namespace::create().await;
    let (mut leader, standby) = two(&ns).await;
    // It has asked whether there is such a child, and will hear only when it has been followed.
    let is_look = |asked: &Asked| asked.method == "GET" && asked.path.contains("/serviceaccounts/");
    leader.proxy.fall_ill(Fault::Hold, is_look);
    ns.create_relay(|_| ()).await;
    until("it to look for a child", async || {
        leader
            .proxy
            .asked()
            .iter()
            .find(|asked| is_look(asked))
            .map(|_| ())
    })
    .await;
    leader.signal("STOP");
    until("the other to lead", async || {
        standby.leads().await.then_some(())
    })
    .await;
    until("the other to make the child", async || {
        ns.get_opt::<ServiceAccount>(RELAY).await
    })
    .await;

    let before = leader.proxy.asked().len();
    leader.proxy.recover();
    leader.signal("CONT");
    let ended = leader.ended().await;
    assert!(!ended.success(), "it lost the Lease: {ended}");
    let late: Vec<Asked> = leader
        .proxy
        .asked()
        .split_off(before)
        .into_iter()
        .filter(Asked::is_write)
        .collect();
    assert!(late.is_empty(), "{late:?}");
    assert!(standby.leads().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_cannot_renew_ends_before_it_is_followed() {
    let ns = Namespace::create().await;
    let (mut leader, standby) = two(&ns).await;
    leader.proxy.fall_ill(Fault::Silence, Asked::is_of_lease);
    let ended = leader.ended().await;
    let last = leader
        .proxy
        .asked()
        .into_iter()
        .rfind(|asked| !asked.is_of_lease())
        .expect("it led")
        .at;
    assert!(!ended.success(), "{ended}");
    let acted = until("the other to act", async || acted_at(&standby)).await;
    assert!(last < acted, "both acted");

    leader.proxy.recover();
    leader.start_again();
    until("it to stand by", async || {
        leader.is_fine("/readyz").await.then_some(())
    })
    .await;
    assert!(!leader.leads().await && standby.leads().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_meant_for_another_operator_is_left_alone_until_it_is_handed_over() {
    let ns = Namespace::create().await;
    let operator =
        OperatorProcess::start_one(&ns.name, "team", &["--operator-name", "team-a"]).await;
    ns.create_relay(|_| ()).await;
    let read = format!("/outboxrelays/{NAME}");
    let asked = || operator.requests();
    until("it to look", async || {
        asked()
            .iter()
            .find(|(_, path)| path.ends_with(&read))
            .map(|_| ())
    })
    .await;
    assert!(ns.get_opt::<ServiceAccount>(RELAY).await.is_none());
    assert_eq!(
        operator
            .proxy
            .asked()
            .iter()
            .filter(|asked| asked.is_write())
            .count(),
        0
    );
    ns.patch_relay(
        json!({"metadata": {"annotations": {"outboxrelay.dev/operator-name": "team-a"}}}),
    )
    .await;
    replicas_become(&ns, 2).await;
}

#[test]
fn a_namespaced_install_needs_the_name_of_the_cluster() {
    let arguments = ["run", "--relay-image", "a", "--watch-namespaces", "a,b"];
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_outbox-operator"))
        .args(arguments)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("--watch-namespaces needs --cluster-name"),
        "{said}"
    );
}
