//! An API server that is away, slow, busy or silent, by a proxy of the test's own before it: the
//! operator asks little meanwhile, breaks nothing, and goes on soon afterwards. Times are printed;
//! waits have a cap.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use crate::harness::{
    api_proxy::{Asked, Fault},
    kubernetes::Namespace,
    operator::OperatorProcess,
    relay::until,
};

const RELAY: &str = "file-service-relay";

/// An operator that has brought one OutboxRelay to rest.
async fn at_rest(arguments: &[&str]) -> (Namespace, OperatorProcess) {
    let ns = Namespace::create().await;
    let operator = OperatorProcess::start_one(&ns.name, "one", arguments).await;
    ns.create_relay(|_| ()).await;
    replicas_become(&ns, 2).await;
    (ns, operator)
}

async fn replicas_become(ns: &Namespace, count: i32) {
    until(&format!("{count} replicas"), async || {
        let deployment = ns.get_opt::<Deployment>(RELAY).await?;
        (deployment.spec.replicas == Some(count)).then_some(())
    })
    .await;
}

/// What was asked since, once the last of it came so much later.
async fn asked_for(operator: &OperatorProcess, since: Instant, window: Duration) -> Vec<Asked> {
    let all = until("the operator to ask for long enough", async || {
        let all = operator.proxy.asked();
        all.last()
            .is_some_and(|last| last.at > since + window)
            .then_some(all)
    })
    .await;
    all.into_iter()
        .filter(|asked| asked.at > since && asked.at < since + window && !asked.is_of_lease())
        .collect()
}

/// Nothing but the count that was wished for has changed.
async fn recovers(ns: &Namespace, operator: &OperatorProcess, before: &Deployment, back: Instant) {
    replicas_become(ns, 3).await;
    eprintln!(
        "the wish was fulfilled {:?} after the API server was back",
        back.elapsed()
    );
    let after: Deployment = ns.get(RELAY).await;
    assert_eq!(
        (&after.metadata.uid, &after.spec.template),
        (&before.metadata.uid, &before.spec.template)
    );
    let deleted: Vec<Asked> = operator
        .proxy
        .asked()
        .into_iter()
        .filter(|asked| asked.method == "DELETE")
        .collect();
    assert!(deleted.is_empty(), "{deleted:?}");
    let scaled = operator
        .proxy
        .asked()
        .iter()
        .filter(|asked| asked.is_write() && asked.path.contains("/scale"))
        .count();
    assert!(
        scaled <= 1 + usize::from(scaled > 1),
        "scaled {scaled} times"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_started_again_costs_a_moment() {
    let (ns, mut operator) = at_rest(&[]).await;
    let before: Deployment = ns.get(RELAY).await;
    let down = Instant::now();
    operator.proxy.set_up(false);
    ns.patch_relay(json!({"spec": {"replicas": 3}})).await;
    until("the operator to notice", async || {
        operator
            .log()
            .contains("the Lease was not renewed")
            .then_some(())
    })
    .await;
    operator.proxy.set_up(true);
    eprintln!("down for {:?}", down.elapsed());
    recovers(&ns, &operator, &before, Instant::now()).await;
    assert!(!operator.has_ended() && operator.leads().await);
}

/// Longer than a Lease: the leader ends, and as kubelet does it is started again while there is
/// nobody to speak to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_away_for_long_is_waited_for() {
    let (ns, mut operator) = at_rest(&[]).await;
    let before: Deployment = ns.get(RELAY).await;
    operator.proxy.set_up(false);
    ns.patch_relay(json!({"spec": {"replicas": 3}})).await;
    assert!(!operator.ended().await.success());
    operator.start_again();
    until("it to try", async || {
        operator
            .log()
            .contains("failed to read or write the Lease")
            .then_some(())
    })
    .await;
    assert!(
        operator.is_fine("/healthz").await
            && !operator.is_fine("/readyz").await
            && !operator.has_ended()
    );
    operator.proxy.set_up(true);
    recovers(&ns, &operator, &before, Instant::now()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_refuses_is_asked_rarely() {
    let (ns, operator) = at_rest(&["--watch-seconds", "2"]).await;
    let before: Deployment = ns.get(RELAY).await;
    for (code, count) in [(429, 4), (500, 5), (409, 3)] {
        let ill = Instant::now();
        operator
            .proxy
            .fall_ill(Fault::Answer(code), |asked| !asked.is_of_lease());
        ns.patch_relay(json!({"spec": {"replicas": count}})).await;
        let asked = asked_for(&operator, ill, Duration::from_secs(12)).await;
        eprintln!("{code}: {} requests in 12 s", asked.len());
        assert!((1..100).contains(&asked.len()), "{code}: {asked:#?}");
        let back = Instant::now();
        operator.proxy.recover();
        replicas_become(&ns, count).await;
        eprintln!(
            "{code}: the wish was fulfilled {:?} after the API server was back",
            back.elapsed()
        );
    }
    let after: Deployment = ns.get(RELAY).await;
    assert_eq!(
        (after.metadata.uid, after.spec.template),
        (before.metadata.uid, before.spec.template)
    );
    assert!(
        operator
            .proxy
            .asked()
            .iter()
            .all(|asked| asked.method != "DELETE")
    );
    assert!(operator.leads().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_takes_a_second_for_each_answer_is_worked_with() {
    let ns = Namespace::create().await;
    let mut operator = OperatorProcess::start_one(&ns.name, "one", &[]).await;
    operator
        .proxy
        .fall_ill(Fault::Delay(Duration::from_secs(1)), |_| true);
    let start = Instant::now();
    ns.create_relay(|_| ()).await;
    replicas_become(&ns, 2).await;
    eprintln!("slow by 1 s: there after {:?}", start.elapsed());
    ns.patch_relay(json!({"spec": {"replicas": 3}})).await;
    replicas_become(&ns, 3).await;
    assert!(!operator.has_ended() && operator.leads().await && operator.is_fine("/healthz").await);
}
