//! How far the migration is, and what comes next. Pure.
//!
//! ```text
//! (no Job) --> Start --> Running --> Succeeded     a Job that succeeded stays as the record of it
//!                ^          |  ^
//!                |          |  `--- Refused        no pod after 20 s; the Job controller retries
//!                |          v                       every 10 s where a person corrects the cause,
//!                |------- Failed                   else after 10 s to 5 min; or `reconcile-at`
//!                `------- Lost <-- Succeeded       relays find the schema missing or too old
//! ```
//!
//! The operator may read no Secret and connects to no database: only another attempt shows that a
//! person corrected one. An attempt that fails before it locks anything is cheap, so these follow
//! each other quickly, unless many migrations fail.
//!
//! A Job whose pod does not run starts again when its pods would differ from those of a new Job: a
//! change of the manifest may have removed the cause.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    api::MigrationStatus,
    operator::reconcile::{
        build::Desired,
        observe::{JobOutcome, MigrationJob, MigrationPod},
        validate::MigrationTarget,
    },
    report::{Problem, ProblemClass},
};

/// Time from the start of an attempt to the next one, where a person may correct the cause at any
/// moment.
const PROBE_INTERVAL: SignedDuration = SignedDuration::from_secs(10);
/// Shortest pause between the end of such an attempt and the next one.
const PROBE_PAUSE_MIN: SignedDuration = SignedDuration::from_secs(2);
/// Part of the interval that each migration that fails takes: all together start at most one
/// attempt in this time.
const PROBE_INTERVAL_OF_EACH: SignedDuration = SignedDuration::from_secs(1);
/// Pause after the first failed attempt; it doubles with each further one.
const BACKOFF_MIN: SignedDuration = SignedDuration::from_secs(10);
/// Longest pause between two attempts.
const BACKOFF_MAX: SignedDuration = SignedDuration::from_mins(5);
/// Shortest time between a migration that succeeded and one for a schema that was lost: until then,
/// reports of relays may be older than the migration.
const LOST_PAUSE_MIN: SignedDuration = SignedDuration::from_secs(30);
/// A migration that succeeded this long ago says nothing about the next one.
const ATTEMPTS_COUNT_FOR: SignedDuration = SignedDuration::from_mins(10);
/// Age of a Job at which a missing pod means that the cluster refuses it.
const POD_GRACE: SignedDuration = SignedDuration::from_secs(20);

/// State of the migration of the current target.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Migration {
    /// The operator does not touch this schema.
    Off,
    /// The relay waits for its upgrade: its schema is not touched.
    Queued,
    /// A Job is to be created; one of this name that failed, or cannot run, makes room.
    Start { attempt: u32 },
    /// A Job runs, or its pod is about to be created.
    Running {
        attempt: u32,
        waiting: Option<String>,
        until: Option<Timestamp>,
    },
    /// The cluster lets the Job create no pod.
    Refused { cause: String },
    /// The schema is ready for this version.
    Succeeded {
        at: Timestamp,
        schema_version: Option<i64>,
        notes: Vec<String>,
    },
    /// The last attempt failed; the next one starts at `again_at`.
    Failed {
        attempt: u32,
        cause: Failure,
        again_at: Timestamp,
        /// Time between two attempts, if it does not grow.
        every: Option<SignedDuration>,
    },
    /// The last attempt succeeded, but relays find the schema missing or too old by now: the
    /// database may have been created again. The next attempt starts at `again_at`.
    Lost {
        problem: Problem,
        again_at: Timestamp,
    },
}

/// What a failed migration left as an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The problem that the migration reported.
    Reported(Problem),
    /// What Kubernetes reports, because the migration left no report.
    Unexplained(String),
}

impl Migration {
    /// Returns whether relays may get the current revision.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Off | Self::Succeeded { .. })
    }

    /// Returns whether an attempt runs, or is about to, after another one.
    pub(crate) fn is_retry(&self) -> bool {
        matches!(
            self,
            Self::Start { attempt: 2.. } | Self::Running { attempt: 2.., .. }
        )
    }

    /// Returns whether the last attempt failed, or another one runs after it.
    pub(crate) fn is_failing(&self) -> bool {
        self.is_retry() || matches!(self, Self::Failed { .. })
    }

    /// Returns when something is due that no watch reports.
    pub(super) fn requeue_after(&self, now: Timestamp) -> Option<Duration> {
        let due_in = self.due_at()?.duration_since(now);
        // Whole seconds later: timestamps of the API server have no fractions.
        Some(Duration::try_from(due_in).unwrap_or_default() + Duration::from_secs(1))
    }

    fn due_at(&self) -> Option<Timestamp> {
        match self {
            Self::Failed { again_at, .. } | Self::Lost { again_at, .. } => Some(*again_at),
            Self::Running { until, .. } => *until,
            Self::Off
            | Self::Queued
            | Self::Start { .. }
            | Self::Refused { .. }
            | Self::Succeeded { .. } => None,
        }
    }
}

/// What decides about the next attempt, beside the Job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances<'a> {
    /// Problem of a relay that finds the schema missing or too old.
    pub lost: Option<&'a Problem>,
    /// Number of OutboxRelays whose migration fails, with this one.
    pub failing: usize,
    /// The last migration that succeeded, from the status.
    pub done: Option<&'a MigrationStatus>,
    pub now: Timestamp,
}

/// Decides what comes next, from the Job of the current target if there is one.
pub(super) fn decide(
    desired: &Desired,
    job: Option<&MigrationJob>,
    circumstances: Circumstances<'_>,
) -> Migration {
    let Circumstances {
        lost,
        failing,
        done,
        now,
    } = circumstances;
    let Some(target) = &desired.relay.migration else {
        return Migration::Off;
    };
    let Some(job) = job else {
        return Migration::Start { attempt: 1 };
    };
    match &known_outcome(target, job, done) {
        JobOutcome::Unfinished if is_replaced(desired, job) => Migration::Start {
            attempt: job.attempt,
        },
        JobOutcome::Unfinished => unfinished(job, now),
        JobOutcome::Succeeded { at } => match lost {
            Some(problem) => again_if_due(target, job, *at, problem, now),
            None => succeeded(job, *at),
        },
        JobOutcome::Failed { at, cause } => {
            let end = Failed {
                at: *at,
                cause: explanation(job.pod.as_ref(), cause),
            };
            failed(target, job, end, failing, now)
        }
    }
}

/// Returns how a Job ended. One with an injected container fails at its deadline, after the
/// migration has succeeded: by then only the status shows that it did.
fn known_outcome(
    target: &MigrationTarget,
    job: &MigrationJob,
    done: Option<&MigrationStatus>,
) -> JobOutcome {
    let done_at = done
        .filter(|done| done.hash == target.hash)
        .and_then(|done| done.completed_at.as_ref());
    match (&job.outcome, done_at) {
        (JobOutcome::Failed { .. }, Some(at)) if at.0 >= job.created_at => {
            JobOutcome::Succeeded { at: at.0 }
        }
        (outcome, _) => outcome.clone(),
    }
}

/// Returns whether a Job whose pod does not run would have other pods now. A Job cannot be changed:
/// the API server refuses another pod template, so a new Job takes its place.
fn is_replaced(desired: &Desired, job: &MigrationJob) -> bool {
    job.waits() && job.revision_hash != desired.hashes.migration_job
}

fn unfinished(job: &MigrationJob, now: Timestamp) -> Migration {
    match &job.pod {
        Some(pod) => running(job, pod.waiting.clone(), None),
        None => without_pod(job, now),
    }
}

fn without_pod(job: &MigrationJob, now: Timestamp) -> Migration {
    // The Job controller creates the pod some time after the Job; until then nothing is wrong.
    if now.duration_since(job.created_at) < POD_GRACE {
        return running(job, None, job.created_at.checked_add(POD_GRACE).ok());
    }
    refused(job)
}

fn running(job: &MigrationJob, waiting: Option<String>, until: Option<Timestamp>) -> Migration {
    Migration::Running {
        attempt: job.attempt,
        waiting,
        until,
    }
}

fn refused(job: &MigrationJob) -> Migration {
    let no_reason = || "the Events of the Job give no reason".to_owned();
    Migration::Refused {
        cause: job.refusal.clone().unwrap_or_else(no_reason),
    }
}

fn succeeded(job: &MigrationJob, at: Timestamp) -> Migration {
    let report = job.pod.as_ref().and_then(|pod| pod.report.as_ref());
    Migration::Succeeded {
        at,
        schema_version: report.and_then(|report| report.schema_version),
        notes: report
            .map(|report| report.notes.clone())
            .unwrap_or_default(),
    }
}

/// Decides about a schema that was lost after its migration succeeded `at` that time.
fn again_if_due(
    target: &MigrationTarget,
    job: &MigrationJob,
    at: Timestamp,
    problem: &Problem,
    now: Timestamp,
) -> Migration {
    let age = now.duration_since(at);
    if age < LOST_PAUSE_MIN && !is_requested(target, job) {
        return succeeded(job, at);
    }
    let again_at = after(at, pause(job.attempt).max(LOST_PAUSE_MIN));
    if now < again_at && !is_requested(target, job) {
        return Migration::Lost {
            problem: problem.clone(),
            again_at,
        };
    }
    let attempts = if age < ATTEMPTS_COUNT_FOR {
        job.attempt
    } else {
        0
    };
    Migration::Start {
        attempt: attempts.saturating_add(1),
    }
}

/// Returns whether a person asked for another attempt since the Job was created.
fn is_requested(target: &MigrationTarget, job: &MigrationJob) -> bool {
    target.reconcile_at.is_some() && target.reconcile_at != job.reconcile_at
}

fn after(at: Timestamp, pause: SignedDuration) -> Timestamp {
    at.checked_add(pause).unwrap_or(Timestamp::MAX)
}

/// How an attempt ended.
struct Failed {
    at: Timestamp,
    cause: Failure,
}

fn failed(
    target: &MigrationTarget,
    job: &MigrationJob,
    end: Failed,
    failing: usize,
    now: Timestamp,
) -> Migration {
    let every = is_corrected_outside(&end.cause).then(|| probe_interval(failing));
    let again_at = match every {
        Some(every) => after(job.created_at, every).max(after(end.at, PROBE_PAUSE_MIN)),
        None => after(end.at, pause(job.attempt)),
    };
    if is_requested(target, job) || now >= again_at {
        return Migration::Start {
            attempt: job.attempt.saturating_add(1),
        };
    }
    Migration::Failed {
        attempt: job.attempt,
        cause: end.cause,
        again_at,
        every,
    }
}

/// Returns whether a person corrects the cause in a place that the operator does not see: a Secret,
/// a server, its roles. Attempts that end with these problems end early and hold no lock for long.
fn is_corrected_outside(cause: &Failure) -> bool {
    use ProblemClass::{
        AuthenticationFailed, DatabaseMissing, DatabaseReadOnly, InsufficientPrivilege,
        InvalidSettings, RoleMissing, SchemaClaimedByOther, SecretInvalid, SecretMissing,
        TlsFailed, Unreachable,
    };
    matches!(
        cause,
        Failure::Reported(problem) if matches!(
            problem.class,
            AuthenticationFailed
                | DatabaseMissing
                | DatabaseReadOnly
                | InsufficientPrivilege
                | InvalidSettings
                | RoleMissing
                | SchemaClaimedByOther
                | SecretInvalid
                | SecretMissing
                | TlsFailed
                | Unreachable
        )
    )
}

/// Returns the time from the start of an attempt to the next one, for `failing` migrations.
fn probe_interval(failing: usize) -> SignedDuration {
    let failing = i32::try_from(failing).unwrap_or(i32::MAX);
    PROBE_INTERVAL_OF_EACH
        .saturating_mul(failing)
        .clamp(PROBE_INTERVAL, BACKOFF_MAX)
}

fn explanation(pod: Option<&MigrationPod>, cause: &str) -> Failure {
    let Some(pod) = pod else {
        return Failure::Unexplained(cause.to_owned());
    };
    let problem = pod
        .report
        .as_ref()
        .and_then(|report| report.problem.as_ref());
    if let Some(problem) = problem {
        return Failure::Reported(problem.clone());
    }
    let name = &pod.name;
    Failure::Unexplained(match (&pod.end, &pod.waiting) {
        (Some(end), _) => format!("pod '{name}': {end}"),
        (None, Some(waiting)) => format!("pod '{name}' did not start: {waiting}"),
        (None, None) => cause.to_owned(),
    })
}

/// Returns the pause after an attempt: 10 s, 20 s, 40 s, ... 5 min.
fn pause(attempt: u32) -> SignedDuration {
    let doublings = attempt.saturating_sub(1).min(10);
    (BACKOFF_MIN * 2_i32.pow(doublings)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::MigrationPolicy,
        operator::{
            fixtures::{at, desired, desired_with, now, validated},
            reconcile::observe::ObjectKey,
        },
        report::{MigrationReport, ProblemClass},
    };

    fn decide(
        desired: &Desired,
        job: Option<&MigrationJob>,
        lost: Option<&Problem>,
        now: Timestamp,
    ) -> Migration {
        let circumstances = Circumstances {
            lost,
            failing: 1,
            done: None,
            now,
        };
        super::decide(desired, job, circumstances)
    }

    fn target() -> MigrationTarget {
        validated().migration.expect("policy Apply")
    }

    fn job(outcome: JobOutcome) -> MigrationJob {
        MigrationJob {
            key: ObjectKey {
                name: target().job,
                uid: "u".to_owned(),
            },
            attempt: 3,
            reconcile_at: None,
            revision_hash: desired().hashes.migration_job,
            created_at: now(),
            config_map: None,
            outcome,
            pod: None,
            refusal: Some("exceeded quota".to_owned()),
        }
    }

    fn failed_job() -> MigrationJob {
        job(JobOutcome::Failed {
            at: now(),
            cause: "deadline".to_owned(),
        })
    }

    fn pod(problem: Option<Problem>) -> MigrationPod {
        let report = MigrationReport {
            schema_version: Some(1),
            applied: Vec::new(),
            notes: vec!["note".to_owned()],
            problem,
        };
        MigrationPod {
            name: "p".to_owned(),
            waiting: None,
            report: Some(report),
            end: Some("Error, exit code 1".to_owned()),
            ended_beside_others: None,
        }
    }

    #[test]
    fn without_a_job_one_is_started() {
        assert_eq!(
            decide(&desired(), None, None, now()),
            Migration::Start { attempt: 1 }
        );
        let never = desired_with(|relay| relay.spec.migration.policy = MigrationPolicy::Never);
        assert_eq!(decide(&never, None, None, now()), Migration::Off);
    }

    #[test]
    fn a_job_without_a_pod_has_twenty_seconds() {
        let job = job(JobOutcome::Unfinished);
        assert!(matches!(
            decide(&desired(), Some(&job), None, at(19)),
            Migration::Running { .. }
        ));
        assert_eq!(
            decide(&desired(), Some(&job), None, at(20)),
            Migration::Refused {
                cause: "exceeded quota".to_owned()
            }
        );
    }

    #[test]
    fn a_job_that_cannot_run_starts_again_when_its_pods_would_be_other_ones() {
        let corrected = desired_with(|relay| {
            relay.spec.template.image = Some("registry.test/relay:2".to_owned());
        });
        let again = |job: &MigrationJob| {
            decide(&corrected, Some(job), None, now()) == Migration::Start { attempt: 3 }
        };
        let with = |waiting: Option<&str>| {
            let pod = MigrationPod {
                name: "p".to_owned(),
                waiting: waiting.map(str::to_owned),
                report: None,
                end: None,
                ended_beside_others: None,
            };
            MigrationJob {
                pod: Some(pod),
                ..job(JobOutcome::Unfinished)
            }
        };
        assert!(again(&job(JobOutcome::Unfinished)), "no pod was let in");
        assert!(again(&with(Some("ImagePullBackOff: m"))));
        assert!(!again(&with(None)), "a migration may be under way");
        assert!(!again(&failed_job()), "its back-off lasts");
        assert!(
            !again(&job(JobOutcome::Succeeded { at: now() })),
            "it is the memory"
        );
        let same = decide(
            &desired(),
            Some(&with(Some("ImagePullBackOff: m"))),
            None,
            now(),
        );
        assert!(matches!(same, Migration::Running { .. }), "{same:?}");
        let of_an_older_version = MigrationJob {
            revision_hash: None,
            ..with(Some("ImagePullBackOff: m"))
        };
        assert!(again(&of_an_older_version));
    }

    #[test]
    fn the_exit_code_decides_and_the_report_explains() {
        let mut job = job(JobOutcome::Succeeded { at: now() });
        job.pod = Some(pod(None));
        let expected = Migration::Succeeded {
            at: now(),
            schema_version: Some(1),
            notes: vec!["note".to_owned()],
        };
        assert_eq!(decide(&desired(), Some(&job), None, now()), expected);
        job.pod = None;
        assert!(decide(&desired(), Some(&job), None, now()).is_done());
    }

    #[test]
    fn a_failure_is_explained_by_the_best_source_there_is() {
        let problem = Problem::new(ProblemClass::Unreachable, "no route");
        let cause = |pod: Option<MigrationPod>| match decide(
            &desired(),
            Some(&MigrationJob {
                pod,
                ..failed_job()
            }),
            None,
            now(),
        ) {
            Migration::Failed { cause, .. } => cause,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            cause(Some(pod(Some(problem.clone())))),
            Failure::Reported(problem)
        );
        assert_eq!(
            cause(Some(pod(None))),
            Failure::Unexplained("pod 'p': Error, exit code 1".to_owned())
        );
        assert_eq!(cause(None), Failure::Unexplained("deadline".to_owned()));
    }

    #[test]
    fn a_failed_job_is_tried_again_after_its_back_off() {
        let job = failed_job();
        let early = decide(&desired(), Some(&job), None, at(39));
        assert!(
            matches!(early, Migration::Failed { attempt: 3, again_at, .. } if again_at == at(40)),
            "{early:?}"
        );
        assert_eq!(early.requeue_after(at(39)), Some(Duration::from_secs(2)));
        assert_eq!(
            decide(&desired(), Some(&job), None, at(40)),
            Migration::Start { attempt: 4 }
        );
    }

    #[test]
    fn a_new_value_of_reconcile_at_ends_the_back_off_once() {
        let mut job = failed_job();
        let mut requested = desired();
        requested
            .relay
            .migration
            .as_mut()
            .expect("policy Apply")
            .reconcile_at = Some("now".to_owned());
        assert_eq!(
            decide(&requested, Some(&job), None, now()),
            Migration::Start { attempt: 4 }
        );
        job.reconcile_at = Some("now".to_owned());
        assert!(matches!(
            decide(&requested, Some(&job), None, now()),
            Migration::Failed { .. }
        ));
    }

    #[test]
    fn what_a_person_corrects_elsewhere_is_tried_every_ten_seconds_whatever_the_attempt() {
        let started = |class, failing, seconds| {
            let job = MigrationJob {
                attempt: 30,
                created_at: at(-9),
                pod: Some(pod(Some(Problem::new(class, "why")))),
                ..failed_job()
            };
            let circumstances = Circumstances {
                lost: None,
                failing,
                done: None,
                now: at(seconds),
            };
            super::decide(&desired(), Some(&job), circumstances) == Migration::Start { attempt: 31 }
        };
        for class in [
            ProblemClass::SecretMissing,
            ProblemClass::SecretInvalid,
            ProblemClass::AuthenticationFailed,
            ProblemClass::Unreachable,
            ProblemClass::TlsFailed,
            ProblemClass::DatabaseMissing,
            ProblemClass::DatabaseReadOnly,
            ProblemClass::RoleMissing,
            ProblemClass::InsufficientPrivilege,
            ProblemClass::SchemaClaimedByOther,
        ] {
            assert!(!started(class, 1, 1), "{class}: the pause after its end");
            assert!(started(class, 1, 2), "{class}");
            assert!(started(class, 10, 2), "{class}");
            assert!(!started(class, 60, 50), "{class}: each has its share");
            assert!(started(class, 60, 51), "{class}");
            assert!(started(class, usize::MAX, 291), "{class}");
        }
        for class in [
            ProblemClass::LockTimeout,
            ProblemClass::DatabaseFull,
            ProblemClass::AdoptionRefused,
            ProblemClass::DatabaseError,
        ] {
            assert!(!started(class, 1, 299), "{class} would disturb writers");
            assert!(started(class, 1, 300), "{class}");
        }
    }

    #[test]
    fn a_job_that_failed_after_its_migration_had_succeeded_is_a_success() {
        let done = |hash: &str, at: Timestamp| MigrationStatus {
            hash: hash.to_owned(),
            schema_version: Some(1),
            completed_at: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at)),
        };
        let job = failed_job();
        let decided = |done: &MigrationStatus| {
            let circumstances = Circumstances {
                lost: None,
                failing: 1,
                done: Some(done),
                now: at(1),
            };
            super::decide(&desired(), Some(&job), circumstances).is_done()
        };
        assert!(decided(&done(&target().hash, job.created_at)));
        assert!(!decided(&done(&target().hash, at(-1))), "an earlier Job's");
        assert!(!decided(&done("another", job.created_at)), "another target");
    }

    #[test]
    fn the_back_off_doubles_up_to_five_minutes() {
        let seconds: Vec<i64> = [1, 2, 5, 6, 1000, u32::MAX]
            .into_iter()
            .map(|attempt| pause(attempt).as_secs())
            .collect();
        assert_eq!(seconds, [10, 20, 160, 300, 300, 300]);
    }

    #[test]
    fn a_schema_that_was_lost_is_migrated_again() {
        let missing = Problem::new(ProblemClass::SchemaNotReady, "level 0");
        let first = MigrationJob {
            attempt: 1,
            ..job(JobOutcome::Succeeded { at: now() })
        };
        let after = |job: &MigrationJob, seconds| {
            decide(&desired(), Some(job), Some(&missing), at(seconds))
        };
        assert!(after(&first, 29).is_done(), "the report may be older");
        assert_eq!(after(&first, 30), Migration::Start { attempt: 2 });
        let third = job(JobOutcome::Succeeded { at: now() });
        let fifth = MigrationJob {
            attempt: 5,
            ..third
        };
        assert_eq!(
            after(&fifth, 159),
            Migration::Lost {
                problem: missing.clone(),
                again_at: at(160)
            }
        );
        assert_eq!(after(&fifth, 160), Migration::Start { attempt: 6 });
        assert_eq!(after(&fifth, 600), Migration::Start { attempt: 1 });
    }

    #[test]
    fn a_new_value_of_reconcile_at_migrates_a_lost_schema_at_once_and_leaves_a_good_one() {
        let missing = Problem::new(ProblemClass::SchemaNotReady, "level 0");
        let job = job(JobOutcome::Succeeded { at: now() });
        let mut requested = desired();
        let target = requested.relay.migration.as_mut().expect("policy Apply");
        target.reconcile_at = Some("now".to_owned());
        assert_eq!(
            decide(&requested, Some(&job), Some(&missing), now()),
            Migration::Start { attempt: 4 }
        );
        assert!(decide(&requested, Some(&job), None, now()).is_done());
    }
}
