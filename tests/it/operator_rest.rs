//! An operator whose OutboxRelays are as they should be: it asks the API server for nothing, and
//! still notices what happens to them.

use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::harness::{
    api_proxy::{Asked, Fault},
    kubernetes::Namespace,
    operator::OperatorProcess,
    relay::until,
};

const RELAY: &str = "file-service-relay";
/// Looks at an OutboxRelay, of which each could have asked for something.
const LOOKS: u64 = 2;

/// An operator that has looked at its one OutboxRelay again and again without a request.
async fn at_rest() -> (Namespace, OperatorProcess) {
    let ns = Namespace::create().await;
    let operator = OperatorProcess::start_one(&ns.name, "one", &["--watch-seconds", "2"]).await;
    ns.create_relay(|relay| relay["spec"]["replicas"] = json!(0))
        .await;
    is_at_rest(&operator).await;
    (ns, operator)
}

async fn is_at_rest(operator: &OperatorProcess) {
    let mut quiet = (None, 0);
    until("looks without a request", async || {
        let (passes, last) = (
            passes(operator).await,
            requests(operator).last().map(|asked| asked.at),
        );
        if quiet.0 != last || last.is_none() {
            quiet = (last, passes);
        }
        (passes >= quiet.1 + LOOKS).then_some(())
    })
    .await;
}

fn requests(operator: &OperatorProcess) -> Vec<Asked> {
    operator
        .proxy
        .asked()
        .into_iter()
        .filter(|asked| !asked.is_watch() && !asked.is_of_lease())
        .collect()
}

async fn passes(operator: &OperatorProcess) -> u64 {
    let metrics = operator.get("/metrics").await.unwrap_or_default();
    let line = metrics.lines().find_map(|line| {
        line.strip_prefix("outbox_operator_reconciliations_total{outcome=\"ok\"} ")
    });
    line.and_then(|count| count.parse().ok())
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_to_a_relay_at_rest_is_noticed_at_once() {
    let (ns, operator) = at_rest().await;
    let foreign = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let (changed, generation) = (
        Instant::now(),
        ns.get::<Deployment>(RELAY).await.metadata.generation,
    );
    ns.api::<Deployment>()
        .patch_scale(RELAY, &PatchParams::default(), &foreign)
        .await
        .expect("scaled");
    until("the count to be set back", async || {
        let deployment: Deployment = ns.get(RELAY).await;
        (deployment.spec.replicas == Some(0) && deployment.metadata.generation > generation)
            .then_some(())
    })
    .await;
    eprintln!("set back after {:?}", changed.elapsed());

    is_at_rest(&operator).await;
    let deleted = Instant::now();
    ns.api::<Deployment>()
        .delete(RELAY, &DeleteParams::default())
        .await
        .expect("deleted");
    until("it to be there again", async || {
        ns.get_opt::<Deployment>(RELAY).await
    })
    .await;
    eprintln!("there again after {:?}", deleted.elapsed());
}

/// A watch that begins anew lists what there is, and says nothing of what there was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_went_between_two_watches_is_noticed_at_the_next_look() {
    let (ns, operator) = at_rest().await;
    let of_deployments = |asked: &Asked| asked.is_watch() && asked.path.contains("/deployments");
    operator.proxy.fall_ill(Fault::Silence, of_deployments);
    let deleted = Instant::now();
    ns.api::<Deployment>()
        .delete(RELAY, &DeleteParams::default())
        .await
        .expect("deleted");
    operator.proxy.fall_ill(Fault::Expired, of_deployments);
    until("it to be there again", async || {
        ns.get_opt::<Deployment>(RELAY).await
    })
    .await;
    eprintln!("there again after {:?}", deleted.elapsed());
}
