//! The gate before the relays, on a real API server. The tests play the Job controller and the
//! migration's pod.

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{Pod, ResourceQuota},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use outbox_relay::{api::OutboxRelay, operator::Requeue};
use serde_json::{Value, json};

use crate::harness::kubernetes::{NAME, Namespace};

const RELAY: &str = "file-service-relay";
const NOW: &str = "2026-01-01T12:00:00Z";

fn migrated(relay: &mut Value) {
    relay["spec"]["migration"] = json!({"policy": "Apply"});
}

async fn job(ns: &Namespace) -> Job {
    let migrations = ListParams::default().labels("outboxrelay.dev/migration=file-service");
    let mut jobs = ns
        .api::<Job>()
        .list(&migrations)
        .await
        .expect("a list")
        .items;
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    jobs.remove(0)
}

/// Puts a Job in the place of the operator's that no controller works on but the test.
async fn play_controller(ns: &Namespace) -> Job {
    let mut job = job(ns).await;
    let name = job.name_any();
    ns.api::<Job>()
        .delete(&name, &DeleteParams::background())
        .await
        .expect("deleted");
    job.metadata.uid = None;
    job.metadata.resource_version = None;
    job.status = None;
    let spec = job.spec.as_mut().expect("a spec");
    spec.managed_by = Some("outboxrelay.dev/test".to_owned());
    spec.selector = None;
    spec.template
        .metadata
        .as_mut()
        .expect("labels")
        .labels
        .as_mut()
        .expect("labels")
        .retain(|name, _| !name.contains("controller-uid"));
    ns.create_object(serde_json::to_value(job).expect("JSON"))
        .await
}

async fn end(ns: &Namespace, job: &Job, succeeded: bool) {
    let true_ = |type_: &str| json!({"type": type_, "status": "True", "lastTransitionTime": time(), "reason": "Test", "message": "played"});
    let status = if succeeded {
        json!({"startTime": NOW, "completionTime": time(), "succeeded": 1, "conditions": [true_("SuccessCriteriaMet"), true_("Complete")]})
    } else {
        json!({"startTime": NOW, "failed": 1, "conditions": [true_("FailureTarget"), true_("Failed")]})
    };
    let patch = Patch::Merge(json!({"status": status}));
    ns.api::<Job>()
        .patch_status(&job.name_any(), &PatchParams::default(), &patch)
        .await
        .expect("a valid status");
}

fn time() -> String {
    let now = k8s_openapi::jiff::Timestamp::now();
    k8s_openapi::jiff::Timestamp::from_second(now.as_second())
        .expect("now")
        .to_string()
}

/// The migration's pod, which has left this as its termination message.
async fn leave_message(ns: &Namespace, job: &Job, message: Value) {
    let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": job.name_any(), "uid": job.uid(), "controller": true});
    let template = job.spec.as_ref().expect("a spec").template.clone();
    let metadata = json!({"generateName": "played-", "labels": template.metadata.expect("labels").labels, "ownerReferences": [owner]});
    let pod: Pod = ns
        .create_object(json!({"metadata": metadata, "spec": template.spec}))
        .await;
    let terminated = json!({"exitCode": 1, "reason": "Error", "message": message.to_string(), "startedAt": NOW, "finishedAt": NOW});
    let container = json!({"name": "migrate", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": terminated}});
    let patch =
        Patch::Merge(json!({"status": {"phase": "Failed", "containerStatuses": [container]}}));
    ns.api::<Pod>()
        .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
        .await
        .expect("a valid status");
}

#[tokio::test]
async fn relays_start_when_the_migration_has_succeeded() {
    let ns = Namespace::create().await;
    ns.create_relay(migrated).await;
    ns.reconcile().await;
    assert!(ns.get_opt::<Deployment>(RELAY).await.is_none());
    assert_eq!(ns.condition("SchemaReady").await, "False MigrationRunning");
    assert_eq!(ns.condition("Available").await, "False WaitingForSchema");

    let job = play_controller(&ns).await;
    leave_message(
        &ns,
        &job,
        json!({"schemaVersion": 1, "applied": [1], "notes": ["no lz4 here"]}),
    )
    .await;
    end(&ns, &job, true).await;
    ns.settle().await;
    ns.get::<Deployment>(RELAY).await;
    assert_eq!(ns.condition("SchemaReady").await, "True MigrationSucceeded");
    assert_eq!(ns.condition("SecretsResolved").await, "True SecretsRead");
    let relay: OutboxRelay = ns.get(NAME).await;
    let migration = relay
        .status
        .and_then(|status| status.migration)
        .expect("a migration");
    assert!(job.name_any().ends_with(&migration.hash));
    assert_eq!(migration.schema_version, Some(1));
}

#[tokio::test]
async fn running_relays_keep_their_form_while_a_new_target_is_not_migrated() {
    let ns = Namespace::create().await;
    ns.create_relay(migrated).await;
    ns.reconcile().await;
    end(&ns, &play_controller(&ns).await, true).await;
    ns.settle().await;
    let before: Deployment = ns.get(RELAY).await;

    ns.patch_relay(json!({"spec": {"database": {"host": "other.invalid"}, "replicas": 3}}))
        .await;
    ns.reconcile().await;
    ns.reconcile().await;
    let after: Deployment = ns.get(RELAY).await;
    assert_eq!(before.spec.template, after.spec.template);
    assert_eq!(after.spec.replicas, Some(3), "the count needs no migration");
    for type_ in ["SchemaReady", "Ready"] {
        let said = ns.condition(type_).await;
        assert!(
            ["False MigrationRunning", "False PodsPending"].contains(&said.as_str()),
            "{type_}: {said}"
        );
    }

    end(&ns, &play_controller(&ns).await, true).await;
    ns.settle().await;
    assert_ne!(
        ns.get::<Deployment>(RELAY).await.spec.template,
        before.spec.template
    );
}

#[tokio::test]
async fn a_failed_migration_says_why_and_a_nudge_tries_it_again() {
    let ns = Namespace::create().await;
    ns.create_relay(migrated).await;
    ns.reconcile().await;
    let failed = play_controller(&ns).await;
    leave_message(&ns, &failed, json!({"problem": {"class": "SecretMissing", "message": "file 'database/password' is missing"}})).await;
    end(&ns, &failed, false).await;
    ns.reconcile().await;
    for type_ in ["SchemaReady", "SecretsResolved", "Ready"] {
        assert_eq!(ns.condition(type_).await, "False SecretMissing");
    }
    assert_eq!(ns.condition("Reconciling").await, "True SecretMissing");
    assert_eq!(job(&ns).await.uid(), failed.uid(), "its back-off lasts");

    ns.patch_relay(json!({"metadata": {"annotations": {"outboxrelay.dev/reconcile-at": "now"}}}))
        .await;
    ns.reconcile().await;
    let again = job(&ns).await;
    assert_ne!(again.uid(), failed.uid());
    assert_eq!(again.annotations()["outboxrelay.dev/attempt"], "2");
    assert_eq!(
        ns.condition("SchemaReady").await,
        "False SecretMissing",
        "an attempt in progress does not unsay why the last one failed"
    );

    end(&ns, &play_controller(&ns).await, true).await;
    ns.settle().await;
    assert_eq!(ns.condition("SchemaReady").await, "True MigrationSucceeded");
    assert_eq!(ns.condition("SecretsResolved").await, "True SecretsRead");
}

#[tokio::test]
async fn a_failed_migration_is_tried_again_after_ten_seconds() {
    let ns = Namespace::create().await;
    ns.create_relay(migrated).await;
    ns.reconcile().await;
    let failed = play_controller(&ns).await;
    end(&ns, &failed, false).await;
    let Ok(Requeue::After(again)) = ns.reconcile_named(NAME).await else {
        panic!("it is not reconciled again");
    };
    assert!(again <= std::time::Duration::from_secs(11), "{again:?}");
    assert_eq!(ns.condition("SchemaReady").await, "False MigrationFailed");
    tokio::time::sleep(again).await;
    ns.reconcile().await;
    assert_eq!(job(&ns).await.annotations()["outboxrelay.dev/attempt"], "2");
}

#[tokio::test]
async fn what_only_a_person_can_end_is_stalled() {
    let ns = Namespace::create().await;
    ns.create_relay(migrated).await;
    ns.reconcile().await;
    let failed = play_controller(&ns).await;
    leave_message(
        &ns,
        &failed,
        json!({"problem": {"class": "SchemaClaimedByOther", "message": "owned by it/other/relay"}}),
    )
    .await;
    end(&ns, &failed, false).await;
    ns.reconcile().await;
    assert_eq!(ns.condition("Stalled").await, "True SchemaClaimedByOther");
    assert_eq!(ns.condition("Ready").await, "False SchemaClaimedByOther");
}

#[tokio::test]
async fn a_pod_that_the_cluster_refuses_is_told_with_its_reason() {
    let ns = Namespace::create().await;
    ns.create_object::<ResourceQuota>(
        json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}),
    )
    .await;
    ns.create_relay(migrated).await;
    ns.reconcile().await;
    assert_eq!(ns.condition("SchemaReady").await, "False MigrationRunning");
    // A pod has 20 s to appear before anybody is told that none does.
    ns.reconcile_until_condition(60, "SchemaReady", "False PodsRefused")
        .await;
    let relay: OutboxRelay = ns.get(NAME).await;
    let status = serde_json::to_string(&relay.status).expect("JSON");
    assert!(status.contains("exceeded quota"), "{status}");
}

#[tokio::test]
async fn a_pod_that_no_node_takes_is_told_with_its_reason_and_replaced_by_the_corrected_one() {
    let ns = Namespace::create().await;
    ns.create_relay(migrated).await;
    ns.reconcile_until_condition(30, "SchemaReady", "False PodsPending")
        .await;
    let waits = job(&ns).await;
    ns.reconcile().await;
    assert_eq!(job(&ns).await.uid(), waits.uid(), "nothing was corrected");

    ns.patch_relay(
        json!({"spec": {"template": {"nodeSelector": {"outboxrelay.dev/nowhere": "else"}}}}),
    )
    .await;
    ns.reconcile().await;
    let corrected = job(&ns).await;
    assert_eq!(corrected.name_any(), waits.name_any());
    assert_ne!(corrected.uid(), waits.uid());
    assert_eq!(
        corrected.annotations()["outboxrelay.dev/attempt"],
        "1",
        "none was made"
    );
    let selector = corrected
        .spec
        .and_then(|spec| spec.template.spec)
        .and_then(|pod| pod.node_selector)
        .expect("a selector");
    assert_eq!(selector["outboxrelay.dev/nowhere"], "else");
    ns.reconcile_until_condition(30, "SchemaReady", "False PodsPending")
        .await;
}

#[tokio::test]
async fn a_job_whose_pod_is_refused_is_replaced_by_the_corrected_one() {
    let ns = Namespace::create().await;
    let hard = json!({"limits.cpu": "1"});
    ns.create_object::<ResourceQuota>(
        json!({"metadata": {"name": "limited"}, "spec": {"hard": hard}}),
    )
    .await;
    ns.create_relay(migrated).await;
    ns.reconcile().await;
    let refused = job(&ns).await;
    ns.patch_relay(json!({"spec": {"template": {"resources": {"limits": {"cpu": "100m"}}}}}))
        .await;
    ns.reconcile().await;
    assert_ne!(job(&ns).await.uid(), refused.uid());
    ns.reconcile_until_condition(30, "SchemaReady", "False PodsPending")
        .await;
}

#[tokio::test]
async fn a_job_with_the_former_annotation_is_neither_replaced_nor_run_again() {
    let mut ns = Namespace::create().await;
    ns.create_relay(migrated).await;
    ns.reconcile().await;
    let waiting = play_controller(&ns).await;
    let hash = &waiting.annotations()["outboxrelay.dev/revision-hash"];
    let former = json!({"outboxrelay.dev/revision-hash": null, "outboxrelay.dev/form": hash});
    ns.api::<Job>()
        .patch(
            &waiting.name_any(),
            &PatchParams::default(),
            &Patch::Merge(json!({"metadata": {"annotations": former}})),
        )
        .await
        .expect("a valid change");

    // It has no pod, so another hash would replace it.
    ns.replace_operator(&|_| ());
    ns.reconcile().await;
    assert_eq!(job(&ns).await.uid(), waiting.uid());
    assert_eq!(ns.condition("SchemaReady").await, "False MigrationRunning");

    end(&ns, &waiting, true).await;
    ns.replace_operator(&|_| ());
    ns.settle().await;
    assert_eq!(job(&ns).await.uid(), waiting.uid());
    assert_eq!(ns.condition("SchemaReady").await, "True MigrationSucceeded");
    ns.get::<Deployment>(RELAY).await;
}
