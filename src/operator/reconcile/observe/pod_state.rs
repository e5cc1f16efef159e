//! Pod -> what it waits for, what a migration reported, where a relay can be reached. Pure.

use std::net::IpAddr;

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition},
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    operator::{
        identity::{MIGRATION_CONTAINER, RELAY_CONTAINER},
        ownership::controller_uid,
    },
    report::{MigrationReport, Problem},
};

/// Number of notes of a migration that are kept.
const NOTES_MAX: usize = 8;

/// A pod of the relays' Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RelayPod {
    pub name: String,
    /// Address that its report is requested from; absent while it does not run, or if its address
    /// is that of the node.
    pub address: Option<IpAddr>,
    /// Reason why it does not run.
    pub waiting: Option<String>,
}

/// Latest pod of a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MigrationPod {
    pub name: String,
    /// Reason why it does not run.
    pub waiting: Option<String>,
    /// Report that it left as its termination message.
    pub report: Option<MigrationReport>,
    /// How it ended, as the kubelet reports it.
    pub end: Option<String>,
    /// How its container ended although the pod runs on: an injected container does not end.
    pub ended_beside_others: Option<ContainerEnd>,
}

/// End of the container that migrates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerEnd {
    pub at: Timestamp,
    pub exit_code: i32,
}

/// Returns the pods that our Deployment controls through its ReplicaSets. No other pod is asked for
/// a report.
pub(super) fn relay_pods(replica_sets: &[ReplicaSet], pods: Vec<Pod>) -> Vec<RelayPod> {
    let sets: Vec<String> = replica_sets.iter().filter_map(ResourceExt::uid).collect();
    let ours = |pod: &Pod| {
        controller_uid(&pod.metadata).is_some_and(|uid| sets.iter().any(|set| set == uid))
    };
    pods.iter().filter(|pod| ours(pod)).map(relay_pod).collect()
}

fn relay_pod(pod: &Pod) -> RelayPod {
    let status = pod.status.clone().unwrap_or_default();
    let on_the_node = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    let runs = status.phase.as_deref() == Some("Running") && !on_the_node;
    RelayPod {
        name: pod.name_any(),
        address: status
            .pod_ip
            .filter(|_| runs)
            .and_then(|address| address.parse().ok()),
        waiting: waiting(pod),
    }
}

/// Returns the youngest pod of a Job: older ones were evicted.
pub(super) fn migration_pod(job_uid: &str, pods: &[Pod]) -> Option<MigrationPod> {
    let of_this_job = pods
        .iter()
        .filter(|pod| controller_uid(&pod.metadata) == Some(job_uid));
    let pod = of_this_job.max_by_key(|pod| pod.creation_timestamp())?;
    let end = terminated(pod);
    let message = end.and_then(|end| end.message.as_deref());
    Some(MigrationPod {
        name: pod.name_any(),
        waiting: waiting(pod),
        report: message.and_then(read_report),
        end: end.map(end_text),
        ended_beside_others: end.filter(|_| runs_on(pod)).map(container_end),
    })
}

/// Returns how the container that migrates ended; others of the pod were injected.
fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let statuses = pod.status.iter();
    let mut containers = statuses.flat_map(|status| status.container_statuses.iter().flatten());
    let own = containers.find(|container| container.name == MIGRATION_CONTAINER)?;
    own.state.as_ref()?.terminated.as_ref()
}

/// Returns whether a pod goes on although one of its containers may have ended. One that is being
/// deleted, such as for an eviction, does not.
fn runs_on(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}

fn container_end(end: &ContainerStateTerminated) -> ContainerEnd {
    let at = end.finished_at.as_ref().map(|time| time.0);
    ContainerEnd {
        at: at.unwrap_or(Timestamp::UNIX_EPOCH),
        exit_code: end.exit_code,
    }
}

/// Returns all containers: those that come first, native sidecars included, before the others.
fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| {
        let first = status.init_container_statuses.iter().flatten();
        first.chain(status.container_statuses.iter().flatten())
    })
}

fn end_text(end: &ContainerStateTerminated) -> String {
    let reason = end.reason.as_deref().unwrap_or("ended");
    format!("{reason}, exit code {}", end.exit_code)
}

/// Parses a termination message. A pod may write anything there: a message that is no report is
/// ignored, and texts are cut.
fn read_report(message: &str) -> Option<MigrationReport> {
    serde_json::from_str(message.trim()).ok().map(bounded)
}

fn bounded(mut report: MigrationReport) -> MigrationReport {
    report.notes.truncate(NOTES_MAX);
    for note in &mut report.notes {
        *note = cut(note);
    }
    report.problem = report.problem.map(Problem::bounded);
    report
}

/// Returns at most 256 bytes of a foreign text.
pub(crate) fn cut(text: &str) -> String {
    Problem::new(crate::report::ProblemClass::Other, text).message
}

/// Returns why a pod does not run: not scheduled, no image, crashing. States that pass within
/// seconds are no reason.
fn waiting(pod: &Pod) -> Option<String> {
    let unscheduled = unscheduled(pod).map(scheduling_problem);
    unscheduled
        .or_else(|| waiting_container(pod))
        .or_else(|| killed_for_memory(pod))
}

/// Returns the condition that reports a pod without a node.
fn unscheduled(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|one| one.type_ == "PodScheduled" && one.status == "False")
}

fn scheduling_problem(unscheduled: &PodCondition) -> String {
    let reason = unscheduled.reason.as_deref().unwrap_or("Unschedulable");
    with_message(reason, unscheduled.message.as_deref())
}

/// Returns a reason with the message that explains it.
fn with_message(reason: &str, message: Option<&str>) -> String {
    cut(&format!("{reason}: {}", message.unwrap_or_default()))
}

/// Returns why the first container that waits does so; nothing if it waits for something that every
/// container waits for.
fn waiting_container(pod: &Pod) -> Option<String> {
    containers(pod).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref()?;
        if matches!(reason, "ContainerCreating" | "PodInitializing") {
            return None;
        }
        let text = with_message(reason, waiting.message.as_deref());
        let text = match last_end(container) {
            // First: a long message of the kubelet must not cut it off.
            Some(end) => format!("last end: {end}; {text}"),
            None => text,
        };
        Some(cut(&format!("{}{text}", injected_name(container))))
    })
}

/// Returns the name of a container that is not ours; nothing for ours.
fn injected_name(container: &ContainerStatus) -> String {
    match container.name.as_str() {
        RELAY_CONTAINER | MIGRATION_CONTAINER => String::new(),
        other => format!("container '{other}': "),
    }
}

/// Returns how the kubelet killed a container for its memory that runs again and is not ready yet.
fn killed_for_memory(pod: &Pod) -> Option<String> {
    let killed = containers(pod).find(|container| {
        let last = container.last_state.as_ref();
        let end = last.and_then(|state| state.terminated.as_ref());
        !container.ready && end.and_then(|end| end.reason.as_deref()) == Some("OOMKilled")
    })?;
    let (name, end) = (injected_name(killed), last_end(killed)?);
    let restarts = killed.restart_count;
    Some(format!(
        "{name}last end: {end}; it has been restarted, restarts so far: {restarts}"
    ))
}

/// Returns how a container ended that is to be started again: the kubelet kills one that exceeds
/// its memory limit with reason OOMKilled, and reports only a back-off later.
fn last_end(container: &ContainerStatus) -> Option<String> {
    let end = container.last_state.as_ref()?.terminated.as_ref()?;
    Some(end_text(end))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::ProblemClass;

    fn pod(status: serde_json::Value) -> Pod {
        let owner = json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": "s",
            "uid": "set",
            "controller": true,
        });
        let meta = json!({"name": "p", "ownerReferences": [owner]});
        serde_json::from_value(
            json!({"metadata": meta, "spec": {"containers": []}, "status": status}),
        )
        .expect("a pod")
    }

    fn set(uid: &str) -> Vec<ReplicaSet> {
        vec![
            serde_json::from_value(json!({"metadata": {"name": "s", "uid": uid}}))
                .expect("a ReplicaSet"),
        ]
    }

    fn container(state: serde_json::Value) -> Pod {
        let status = json!({
            "name": "migrate",
            "image": "",
            "imageID": "",
            "ready": false,
            "restartCount": 0,
            "state": state,
        });
        pod(json!({"containerStatuses": [status]}))
    }

    fn ended(message: &str) -> Pod {
        let terminated = json!({"exitCode": 1, "reason": "Error", "message": message});
        container(json!({"terminated": terminated}))
    }

    #[test]
    fn only_pods_of_our_replica_sets_are_asked() {
        let running = || vec![pod(json!({"phase": "Running", "podIP": "10.0.0.1"}))];
        let asked = |uid| {
            relay_pods(&set(uid), running())
                .iter()
                .filter_map(|pod| pod.address)
                .count()
        };
        assert_eq!(asked("set"), 1);
        assert_eq!(asked("another"), 0);
    }

    #[test]
    fn a_pod_on_the_nodes_network_is_not_asked() {
        let mut own = pod(json!({"phase": "Running", "podIP": "10.0.0.1"}));
        own.spec.as_mut().expect("a spec").host_network = Some(true);
        assert_eq!(relay_pods(&set("set"), vec![own])[0].address, None);
    }

    #[test]
    fn the_termination_message_is_read_and_cut() {
        let long = "x".repeat(3000);
        let message =
            json!({"problem": {"class": "AuthenticationFailed", "message": long}}).to_string();
        let found = migration_pod("set", &[ended(&message)]).expect("a pod");
        let problem = found.report.expect("a report").problem.expect("a problem");
        assert_eq!(problem.class, ProblemClass::AuthenticationFailed);
        assert!(problem.message.len() <= 256);
    }

    #[test]
    fn a_termination_message_that_is_no_report_is_none() {
        let found = migration_pod("set", &[ended("panicked at")]).expect("a pod");
        assert_eq!(found.report, None);
        assert_eq!(found.end.as_deref(), Some("Error, exit code 1"));
    }

    #[test]
    fn a_container_that_waits_for_its_restart_says_how_it_ended() {
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}});
        let mut crashed = container(waiting);
        let statuses = &mut crashed
            .status
            .as_mut()
            .expect("a status")
            .container_statuses;
        statuses.as_mut().expect("one")[0].last_state =
            serde_json::from_value(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}))
                .expect("a state");
        assert_eq!(
            super::waiting(&crashed).as_deref(),
            Some("last end: OOMKilled, exit code 137; CrashLoopBackOff: back-off 40s")
        );
    }

    /// A pod whose own container has this state, beside an injected one that runs.
    fn beside_a_sidecar(state: &serde_json::Value, phase: &str) -> Pod {
        let status = |name: &str, state: &serde_json::Value| {
            json!({"name": name, "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": state})
        };
        let sidecar = status("a-proxy", &json!({"running": {}}));
        pod(json!({"phase": phase, "containerStatuses": [sidecar, status("migrate", state)]}))
    }

    #[test]
    fn a_migration_ends_with_its_own_container_whatever_was_injected() {
        let report = r#"{"problem": {"class": "Unreachable", "message": "m"}}"#;
        let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": report,
            "finishedAt": "2026-01-01T12:00:00Z"}});
        let of = |pod: Pod| migration_pod("set", &[pod]).expect("a pod");
        let found = of(beside_a_sidecar(&ended, "Running"));
        let end = found.ended_beside_others.expect("it ended");
        assert_eq!(
            (end.exit_code, end.at.to_string()),
            (1, "2026-01-01T12:00:00Z".to_owned())
        );
        assert!(found.report.is_some_and(|report| report.problem.is_some()));
        let with_its_pod = of(beside_a_sidecar(&ended, "Failed"));
        assert_eq!(with_its_pod.ended_beside_others, None, "the Job decides");
        let mut evicted = beside_a_sidecar(&ended, "Running");
        evicted.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T12:00:00Z")).ok();
        assert_eq!(
            of(evicted).ended_beside_others,
            None,
            "the Job makes another pod"
        );
        let running = of(beside_a_sidecar(&json!({"running": {}}), "Running"));
        assert_eq!((running.end, running.ended_beside_others), (None, None));
    }

    #[test]
    fn an_injected_container_that_keeps_a_pod_from_running_is_named() {
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "m"}});
        let status = json!({"name": "a-proxy", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": waiting});
        let own = json!({"name": "relay", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}});
        let found = pod(json!({"initContainerStatuses": [status], "containerStatuses": [own]}));
        assert_eq!(
            super::waiting(&found).as_deref(),
            Some("container 'a-proxy': ImagePullBackOff: m")
        );
    }

    #[test]
    fn a_container_that_was_killed_for_its_memory_says_so_until_it_is_ready() {
        let status = |ready: bool, reason: &str| {
            pod(
                json!({"containerStatuses": [{"name": "relay", "image": "", "imageID": "",
                "ready": ready, "restartCount": 2, "state": {"running": {}},
                "lastState": {"terminated": {"exitCode": 137, "reason": reason}}}]}),
            )
        };
        assert_eq!(
            super::waiting(&status(false, "OOMKilled")).as_deref(),
            Some("last end: OOMKilled, exit code 137; it has been restarted, restarts so far: 2")
        );
        assert_eq!(super::waiting(&status(true, "OOMKilled")), None);
        assert_eq!(super::waiting(&status(false, "Error")), None);
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_a_reason_to_wait_and_a_starting_container_is_none() {
        let with = |reason: &str| container(json!({"waiting": {"reason": reason, "message": "m"}}));
        assert_eq!(
            waiting(&with("ImagePullBackOff")).as_deref(),
            Some("ImagePullBackOff: m")
        );
        assert_eq!(waiting(&with("ContainerCreating")), None);
    }
}
