//! A new version of the operator meets relays that run, on a real API server. Their pods stay
//! without a node: the test says that they are ready.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use outbox_relay::api::OutboxRelay;
use serde_json::{Value, json};

use crate::harness::kubernetes::Namespace;

const OLD: &str = "localhost/outbox-relay:none";
const NEW: &str = "localhost/outbox-relay:next";
const PLACES: usize = 5;
/// Annotations of hashes: names before the first release, and names since.
const FORMER_NAMES: [(&str, &str); 2] = [
    ("outboxrelay.dev/form", "outboxrelay.dev/revision-hash"),
    ("outboxrelay.dev/wishes", "outboxrelay.dev/spec-hash"),
];

fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("relay-{number:02}"))
        .collect()
}

/// One pass over each; those that fail are tried again by the next round.
async fn round(ns: &Namespace, names: &[String]) {
    for name in names {
        ns.reconcile_named(name).await.ok();
    }
}

/// Each relay with its image, whether all of its pods are new and available, and status and reason
/// of Ready.
async fn look(ns: &Namespace, names: &[String]) -> Vec<(String, bool, String)> {
    let mut found = Vec::new();
    for name in names {
        let deployment: Deployment = ns.get(&format!("{name}-relay")).await;
        let status = deployment.status.unwrap_or_default();
        let arrived = status.observed_generation >= deployment.metadata.generation
            && (
                status.updated_replicas,
                status.available_replicas,
                status.replicas,
            ) == (Some(1), Some(1), Some(1));
        let image = deployment.spec.template.spec.expect("a pod").containers[0]
            .image
            .clone()
            .expect("an image");
        let conditions = ns
            .get::<OutboxRelay>(name)
            .await
            .status
            .expect("a status")
            .conditions;
        let ready = conditions
            .iter()
            .find(|one| one.type_ == "Ready")
            .expect("it is said");
        found.push((image, arrived, format!("{} {}", ready.status, ready.reason)));
    }
    found
}

async fn running(count: usize) -> (Namespace, Vec<String>) {
    let (ns, names) = (Namespace::create().await, names(count));
    for name in &names {
        ns.create_relay(|relay| {
            relay["metadata"]["name"] = json!(name);
            relay["spec"]["replicas"] = json!(1);
        })
        .await;
    }
    until(&ns, &names, |found| {
        found.iter().all(|(_, _, ready)| ready == "True Ready")
    })
    .await;
    (ns, names)
}

async fn patch(ns: &Namespace, name: &str, change: Value) {
    let patch = Patch::Merge(change);
    ns.api::<OutboxRelay>()
        .patch(name, &PatchParams::default(), &patch)
        .await
        .expect("a valid change");
}

/// Rounds of operator and kubelet until it is so.
async fn until(
    ns: &Namespace,
    names: &[String],
    is_so: impl Fn(&[(String, bool, String)]) -> bool,
) {
    let mut found = Vec::new();
    for _ in 0..60 {
        round(ns, names).await;
        ns.kubelet(usize::MAX).await;
        found = look(ns, names).await;
        if is_so(&found) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("after 60 rounds: {found:#?}");
}

#[tokio::test]
async fn an_upgrade_meets_five_relays_at_a_time_and_a_changed_manifest_does_not_wait() {
    let (mut ns, names) = running(20).await;
    ns.replace_operator(&|installation| installation.relay_image = NEW.to_owned());
    for _ in 0..2 {
        round(&ns, &names).await;
    }
    let found = look(&ns, &names).await;
    assert_eq!(
        found.iter().filter(|(image, ..)| image == NEW).count(),
        PLACES,
        "{found:#?}"
    );
    let waiting = found
        .iter()
        .filter(|(image, _, ready)| image == OLD && ready == "True UpgradeQueued");
    assert_eq!(waiting.count(), names.len() - PLACES, "{found:#?}");

    let (edited, counted) = (&names[18], &names[19]);
    patch(&ns, edited, json!({"spec": {"batchSize": 7}})).await;
    patch(&ns, counted, json!({"spec": {"replicas": 2}})).await;
    patch(&ns, counted, json!({"spec": {"replicas": 1}})).await;
    round(&ns, &names).await;
    let found = look(&ns, &names).await;
    assert_eq!(
        (found[18].0.as_str(), found[19].0.as_str()),
        (NEW, OLD),
        "{found:#?}"
    );

    let mut rounds = 0;
    loop {
        let found = look(&ns, &names).await;
        let queued = names.iter().zip(&found).filter(|(name, _)| *name != edited);
        let under_way = queued
            .filter(|(_, (image, arrived, _))| image == NEW && !arrived)
            .count();
        assert!(under_way <= PLACES, "{found:#?}");
        if found
            .iter()
            .all(|(image, _, ready)| image == NEW && ready == "True Ready")
        {
            break;
        }
        assert!(rounds < 100, "{found:#?}");
        rounds += 1;
        // One at a time becomes ready, so that a place that is given too early is seen.
        ns.kubelet(1).await;
        round(&ns, &names).await;
    }
}

/// Gives the annotations of a Deployment their former names, as an operator of that time wrote them.
async fn write_former_names(ns: &Namespace, name: &str) {
    let mut deployment: Deployment = ns.get(name).await;
    let metadata = &mut deployment.metadata;
    for (former, new) in FORMER_NAMES {
        let annotations = metadata.annotations.as_mut().expect("annotations");
        let value = annotations.remove(new).expect("a hash");
        annotations.insert(former.to_owned(), value);
    }
    (metadata.managed_fields, metadata.resource_version) = (None, None);
    (deployment.status, deployment.spec.replicas) = (None, None);
    let manager = PatchParams::apply("outbox-operator").force();
    ns.api::<Deployment>()
        .patch(name, &manager, &Patch::Apply(deployment))
        .await
        .expect("applied");
}

/// Returns the hashes of a Deployment under their new names, and its former annotations.
async fn hashes(ns: &Namespace, name: &str) -> (Vec<String>, Vec<String>) {
    let deployment: Deployment = ns.get(name).await;
    let annotations = deployment.metadata.annotations.expect("annotations");
    let values = |names: [&str; 2]| {
        let values = names.iter().filter_map(|name| annotations.get(*name));
        values.cloned().collect()
    };
    (
        values(FORMER_NAMES.map(|(_, new)| new)),
        values(FORMER_NAMES.map(|(former, _)| former)),
    )
}

#[tokio::test]
async fn a_deployment_with_former_annotations_is_written_once_and_rolled_out_once_by_an_upgrade() {
    let (mut ns, names) = running(1).await;
    let child = format!("{}-relay", names[0]);
    let (new, _) = hashes(&ns, &child).await;
    write_former_names(&ns, &child).await;
    assert_eq!(hashes(&ns, &child).await, (Vec::new(), new.clone()));
    let before: Deployment = ns.get(&child).await;

    // The same version with an empty cache writes the new names, and no pod is replaced.
    ns.replace_operator(&|_| ());
    let writes = ns.writes().len();
    until(&ns, &names, |found| {
        found
            .iter()
            .all(|(_, arrived, ready)| *arrived && ready == "True Ready")
    })
    .await;
    round(&ns, &names).await;
    let patched = |from: usize| {
        let writes = ns.writes().into_iter().skip(from);
        writes
            .filter(|write| write.contains("/deployments/"))
            .count()
    };
    assert_eq!(patched(writes), 1, "{:?}", ns.writes());
    assert_eq!(hashes(&ns, &child).await, (new, Vec::new()));
    let after: Deployment = ns.get(&child).await;
    assert_eq!(after.spec, before.spec);

    // Another version replaces the pods once.
    write_former_names(&ns, &child).await;
    ns.replace_operator(&|installation| installation.relay_image = NEW.to_owned());
    until(&ns, &names, |found| {
        found
            .iter()
            .all(|(image, arrived, ready)| image == NEW && *arrived && ready == "True Ready")
    })
    .await;
    let upgraded: Deployment = ns.get(&child).await;
    let revision = |deployment: &Deployment| {
        let annotations = deployment.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get("deployment.kubernetes.io/revision").cloned())
    };
    assert_eq!(
        (revision(&after).as_deref(), revision(&upgraded).as_deref()),
        (Some("1"), Some("2"))
    );
}

#[tokio::test]
async fn who_is_paused_or_cannot_work_leaves_its_place_to_the_next() {
    let (mut ns, names) = running(3).await;
    ns.replace_operator(&|installation| {
        (installation.relay_image, installation.upgrades_max) = (NEW.to_owned(), 1);
    });
    let upgraded = async || {
        round(&ns, &names).await;
        look(&ns, &names)
            .await
            .into_iter()
            .map(|(image, ..)| image == NEW)
            .collect::<Vec<_>>()
    };
    assert_eq!(upgraded().await, [true, false, false]);
    assert_eq!(
        upgraded().await,
        [true, false, false],
        "no pod becomes ready here"
    );
    patch(
        &ns,
        &names[0],
        json!({"metadata": {"annotations": {"outboxrelay.dev/paused": "true"}}}),
    )
    .await;
    assert_eq!(upgraded().await, [true, true, false]);
    patch(
        &ns,
        &names[1],
        json!({"spec": {"template": {"image": "localhost/other/relay:1"}}}),
    )
    .await;
    assert_eq!(upgraded().await, [true, true, true]);
}

#[tokio::test]
async fn three_upgrades_that_fail_keep_the_others_as_they_are_until_a_better_version_comes() {
    let (mut ns, names) = running(6).await;
    // No pod can be of it: the API server refuses the Deployment.
    ns.replace_operator(&|installation| installation.relay_image = String::new());
    for _ in 0..3 {
        round(&ns, &names).await;
    }
    let found = look(&ns, &names).await;
    let saying = |text: &str| {
        found
            .iter()
            .filter(|(image, _, ready)| image == OLD && ready == text)
            .count()
    };
    assert_eq!(
        (saying("False ChildRefused"), saying("True UpgradesStopped")),
        (3, 3),
        "{found:#?}"
    );

    ns.replace_operator(&|installation| installation.relay_image = NEW.to_owned());
    until(&ns, &names, |found| {
        found
            .iter()
            .all(|(image, _, ready)| image == NEW && ready == "True Ready")
    })
    .await;
}
