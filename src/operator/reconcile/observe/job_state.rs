//! Job, its pods and its Events -> how far a migration is. Pure.

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition},
        core::v1::{Event, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{Resource, ResourceExt};

use crate::operator::{
    identity::{ATTEMPT, Identity, RECONCILE_AT, REVISION_HASH, annotation},
    ownership::{Ownership, ownership},
    reconcile::observe::{
        ObjectKey,
        deployment_state::mounted_config_map,
        pod_state::{ContainerEnd, MigrationPod, cut, migration_pod},
    },
};

/// A migration Job as the API server has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MigrationJob {
    pub key: ObjectKey,
    /// Counted from 1.
    pub attempt: u32,
    /// Value of annotation `reconcile-at` when it was created.
    pub reconcile_at: Option<String>,
    /// Hash of what its pods are made from; absent if an older version wrote it.
    pub revision_hash: Option<String>,
    pub created_at: Timestamp,
    pub config_map: Option<String>,
    pub outcome: JobOutcome,
    pub pod: Option<MigrationPod>,
    /// Reason why no pod could be created, from the Job's Events.
    pub refusal: Option<String>,
}

impl MigrationJob {
    /// Returns whether its pod does not exist or cannot run: replacing the Job loses nothing.
    pub(crate) fn waits(&self) -> bool {
        self.outcome == JobOutcome::Unfinished
            && self.pod.as_ref().is_none_or(|pod| pod.waiting.is_some())
    }
}

/// How a Job ended; its exit code decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JobOutcome {
    Unfinished,
    Succeeded { at: Timestamp },
    Failed { at: Timestamp, cause: String },
}

/// Returns the Jobs of this relay, without those that are being deleted.
pub(super) fn migration_jobs(
    identity: &Identity,
    jobs: Vec<Job>,
    pods: &[Pod],
) -> Vec<MigrationJob> {
    let ours = |job: &Job| {
        ownership(job.meta(), identity) == Ownership::Ours
            && job.metadata.deletion_timestamp.is_none()
    };
    jobs.iter()
        .filter(|job| ours(job))
        .map(|job| migration_job(job, pods))
        .collect()
}

fn migration_job(job: &Job, pods: &[Pod]) -> MigrationJob {
    let key = ObjectKey::of(job);
    let pod = migration_pod(&key.uid, pods);
    let annotations = job.annotations();
    let attempt = annotations
        .get(ATTEMPT)
        .and_then(|count| count.parse().ok());
    MigrationJob {
        attempt: attempt.unwrap_or(1),
        reconcile_at: annotations.get(RECONCILE_AT).cloned(),
        revision_hash: annotation(annotations, REVISION_HASH),
        created_at: time_or_epoch(job.creation_timestamp().as_ref()),
        config_map: config_map(job),
        outcome: outcome(job, pod.as_ref()),
        pod,
        refusal: None,
        key,
    }
}

fn config_map(job: &Job) -> Option<String> {
    mounted_config_map(job.spec.as_ref()?.template.spec.as_ref()?)
}

fn time_or_epoch(time: Option<&Time>) -> Timestamp {
    time.map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// Returns how a Job ended. A container that somebody injects may run on after the migration: then
/// the Job has no end, and fails at its deadline.
fn outcome(job: &Job, pod: Option<&MigrationPod>) -> JobOutcome {
    match (
        end(job),
        pod.and_then(|pod| pod.ended_beside_others.as_ref()),
    ) {
        (Some(end), _) => ended(end),
        (None, Some(end)) => container_ended(end),
        (None, None) => JobOutcome::Unfinished,
    }
}

fn container_ended(&ContainerEnd { at, exit_code }: &ContainerEnd) -> JobOutcome {
    match exit_code {
        0 => JobOutcome::Succeeded { at },
        code => JobOutcome::Failed {
            at,
            cause: format!("the migration ended with exit code {code}"),
        },
    }
}

/// Returns the outcome of a Job that has this condition.
fn ended(end: &JobCondition) -> JobOutcome {
    let at = time_or_epoch(end.last_transition_time.as_ref());
    if end.type_ == "Complete" {
        JobOutcome::Succeeded { at }
    } else {
        let cause = failure_cause(end);
        JobOutcome::Failed { at, cause }
    }
}

fn failure_cause(end: &JobCondition) -> String {
    cut(end.message.as_deref().unwrap_or("the Job failed"))
}

/// Returns the condition that ends a Job.
fn end(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| is_end(condition))
}

/// Returns whether a condition ends its Job. `SuccessCriteriaMet` and `FailureTarget` come before
/// that, while pods still terminate.
fn is_end(condition: &JobCondition) -> bool {
    condition.status == "True" && matches!(condition.type_.as_str(), "Complete" | "Failed")
}

/// Returns the message of the latest Warning about creating pods.
pub(super) fn refusal(events: &[Event]) -> Option<String> {
    let warnings = events.iter().filter(|event| {
        event.type_.as_deref() == Some("Warning") && event.reason.as_deref() == Some("FailedCreate")
    });
    let latest = warnings.max_by_key(|event| event.last_timestamp.clone())?;
    latest.message.as_deref().map(cut)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(status: serde_json::Value) -> Job {
        serde_json::from_value(json!({"metadata": {"name": "j"}, "status": status})).expect("a Job")
    }

    #[test]
    fn only_a_final_condition_ends_a_job() {
        let with = |type_: &str| {
            let ended = json!({"conditions": [{"type": type_, "status": "True", "message": "m"}]});
            outcome(&job(ended), None)
        };
        assert_eq!(with("FailureTarget"), JobOutcome::Unfinished);
        assert_eq!(with("SuccessCriteriaMet"), JobOutcome::Unfinished);
        assert!(matches!(with("Complete"), JobOutcome::Succeeded { .. }));
        assert!(matches!(with("Failed"), JobOutcome::Failed { cause, .. } if cause == "m"));
    }

    #[test]
    fn a_refused_pod_is_explained_by_the_latest_event() {
        let event = |at: &str, message: &str| -> Event {
            serde_json::from_value(json!({
                "metadata": {},
                "involvedObject": {},
                "type": "Warning",
                "reason": "FailedCreate",
                "lastTimestamp": at,
                "message": message,
            }))
            .expect("an Event")
        };
        let events = [
            event("2026-01-01T00:00:02Z", "exceeded quota"),
            event("2026-01-01T00:00:01Z", "older"),
        ];
        assert_eq!(refusal(&events).as_deref(), Some("exceeded quota"));
        assert_eq!(refusal(&[]), None);
    }
}
