//! Watches that bring nothing any more, by a proxy that swallows them: the operator notices, and
//! its liveness fails. A quiet cluster is none.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;

use crate::harness::{
    api_proxy::{Asked, Fault},
    kubernetes::Namespace,
    operator::OperatorProcess,
    relay::until,
};

/// A round of two seconds: silence of six is too long.
const ROUND: [&str; 2] = ["--watch-seconds", "2"];
const PATIENCE: Duration = Duration::from_secs(6);

async fn leading(ns: &Namespace, arguments: &[&str]) -> OperatorProcess {
    let operator =
        OperatorProcess::start_one(&ns.name, "one", &[ROUND.as_slice(), arguments].concat()).await;
    until("it to lead and to list", async || {
        (operator.leads().await && operator.is_fine("/readyz").await).then_some(())
    })
    .await;
    operator
}

async fn liveness_fails(operator: &OperatorProcess) -> String {
    until("liveness to fail", async || {
        operator
            .get("/healthz")
            .await
            .filter(|answer| answer != "ok\n")
    })
    .await
}

/// Without an object, and without a change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_cluster_is_healthy() {
    let ns = Namespace::create().await;
    let operator = leading(&ns, &[]).await;
    let start = Instant::now();
    until("some rounds of watches", async || {
        assert!(
            operator.is_fine("/healthz").await,
            "after {:?}: {:?}",
            start.elapsed(),
            operator.get("/healthz").await
        );
        let late = operator
            .proxy
            .asked()
            .into_iter()
            .filter(|asked| asked.is_watch() && asked.at > start + PATIENCE * 2)
            .count();
        (late > 4).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_stops_delivering_and_cannot_be_opened_again_fails_liveness() {
    let ns = Namespace::create().await;
    let operator = leading(&ns, &[]).await;
    let ill = Instant::now();
    operator.proxy.fall_ill(Fault::Silence, |asked| {
        asked.is_watch() && asked.path.contains("/deployments")
    });
    let why = liveness_fails(&operator).await;
    eprintln!("noticed after {:?}: {why}", ill.elapsed());
    assert!(why.contains("/deployments"), "{why}");
    assert!(operator.leads().await, "all else works");
    operator.proxy.recover();
    until(
        "it to heal by itself, if nobody starts it anew",
        async || operator.is_fine("/healthz").await.then_some(()),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_never_begin_fail_liveness() {
    let ns = Namespace::create().await;
    let mut operator = leading(&ns, &[]).await;
    operator.signal("KILL");
    operator.ended().await;
    operator.proxy.fall_ill(Fault::Silence, |asked| {
        !asked.is_of_lease() && asked.path.contains("/pods")
    });
    operator.start_again();
    let why = liveness_fails(&operator).await;
    assert!(why.contains("/pods"), "{why}");
}

/// The limit of concurrency, the Lease and the memory are one; the watches are forty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_namespaces_are_served_by_one_operator_and_one_silent_watch_of_forty_is_noticed() {
    let mut namespaces = Vec::new();
    for _ in 0..10 {
        let ns = Namespace::create().await;
        ns.create_relay(|_| ()).await;
        namespaces.push(ns);
    }
    let names = namespaces
        .iter()
        .map(|ns| ns.name.clone())
        .collect::<Vec<_>>();
    let arguments = [
        "--watch-namespaces",
        &names.join(","),
        "--cluster-name",
        "it",
    ];
    let operator = leading(&namespaces[0], &arguments).await;
    for ns in &namespaces {
        until("its relays", async || {
            ns.get_opt::<Deployment>("file-service-relay").await
        })
        .await;
    }
    let wide = |asked: &Asked| {
        !names
            .iter()
            .any(|name| asked.path.contains(&format!("/namespaces/{name}/")))
    };
    let wide: Vec<Asked> = operator.proxy.asked().into_iter().filter(wide).collect();
    assert!(
        wide.is_empty(),
        "asked for more than the namespaces: {wide:?}"
    );
    assert!(operator.is_fine("/healthz").await);

    let seventh = format!("/namespaces/{}/pods", names[7]);
    let (ill, silenced) = (Instant::now(), seventh.clone());
    operator.proxy.fall_ill(Fault::Silence, move |asked| {
        asked.is_watch() && asked.path.contains(&silenced)
    });
    let why = liveness_fails(&operator).await;
    eprintln!("one of forty was noticed after {:?}: {why}", ill.elapsed());
    assert!(why.contains(&seventh), "{why}");
}
