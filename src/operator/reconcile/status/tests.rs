//! What is observed, planned and done, and the status and Events of it.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::SignedDuration};
use kube::core::Status;

use super::*;
use crate::{
    operator::{
        children::ChildKind,
        fixtures::{at, desired, desired_with, now},
        reconcile::{
            apply::ApplyError,
            build::Desired,
            observe::{PodReport, RelayDeployment, RelayPod},
            plan::{Decision, Failure, InvalidPlan, Load, Rollout, Scale, Scaling, ScalingMemory},
            upgrade_queue::Turn,
            validate::{DesiredReplicas, ValidationError},
        },
    },
    report::{Backlog, Breaker, BreakerState, Problem, ProblemClass, RelayReport},
};

/// A relay that runs as it should; each test breaks one thing.
struct Case {
    desired: Desired,
    observed: Observed,
    plan: RelayPlan<'static>,
    applied: Applied,
    paused: bool,
    previous: OutboxRelayStatus,
}

fn running() -> Case {
    let deployment = RelayDeployment {
        wanted: 2,
        observed: true,
        existing: 2,
        updated: 2,
        ready: 2,
        available: 2,
        ..RelayDeployment::default()
    };
    let plan = RelayPlan {
        // Replaced by the case's own before it is used.
        desired: Box::leak(Box::new(desired())),
        migration: Migration::Succeeded {
            at: now(),
            schema_version: Some(1),
            notes: Vec::new(),
        },
        rollout: Rollout::Go,
        turn: Turn::Go,
        replicas: 2,
        scale: Scale::Keep,
        scaling: None,
        unwanted: Vec::new(),
        outdated_jobs: Vec::new(),
        outdated_config_maps: Vec::new(),
        requeue_after: std::time::Duration::ZERO,
    };
    let observed = Observed {
        deployment: Some(deployment),
        reports: vec![report(None)],
        ..Observed::default()
    };
    Case {
        desired: desired(),
        observed,
        plan,
        applied: Applied {
            scaled: true,
            ..Applied::default()
        },
        paused: false,
        previous: OutboxRelayStatus::default(),
    }
}

fn report(problem: Option<ProblemClass>) -> PodReport {
    let report = RelayReport {
        instance: "i".to_owned(),
        version: "1".to_owned(),
        schema_version: Some(1),
        lanes: 64,
        backlog: Some(Backlog {
            rows: 0,
            capped: false,
            oldest_at: None,
            waiting_since: None,
            measured_at: None,
        }),
        parked_keys: None,
        parked_topics: None,
        dead_letters: None,
        published_per_second: 0.0,
        breaker: None,
        problems: problem
            .map(|class| Problem::new(class, "it is so; do this"))
            .into_iter()
            .collect(),
    };
    PodReport {
        pod: "p".to_owned(),
        report: Some(report),
    }
}

impl Case {
    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut case = running();
        change(&mut case);
        case
    }

    fn deployment(&mut self) -> &mut RelayDeployment {
        self.observed
            .deployment
            .as_mut()
            .expect("a running relay has one")
    }

    fn message(&self, type_: &str) -> String {
        let conditions = self.status().conditions;
        condition(&conditions, type_)
            .expect("there")
            .message
            .clone()
    }

    fn status(&self) -> OutboxRelayStatus {
        self.assess().0
    }

    fn pending_events(&self) -> Vec<PendingEvent> {
        self.assess().1
    }

    fn event_reasons(&self) -> Vec<String> {
        let events = self.pending_events();
        events.iter().map(|event| event.reason.name()).collect()
    }

    /// The status if the manifest were invalid.
    fn invalid(
        &self,
        error: &ValidationError,
        zero: Option<&DesiredReplicas>,
        applied: Applied,
    ) -> OutboxRelayStatus {
        let plan = Plan::Invalid(InvalidPlan {
            error,
            zero,
            scale: Scale::Keep,
        });
        self.assess_plan(&plan, &applied).0
    }

    fn assess(&self) -> (OutboxRelayStatus, Vec<PendingEvent>) {
        let plan = RelayPlan {
            desired: &self.desired,
            ..self.plan.clone()
        };
        let plan = if self.paused {
            Plan::Paused(plan)
        } else {
            Plan::CarryOut(plan)
        };
        self.assess_plan(&plan, &self.applied)
    }

    fn assess_plan(
        &self,
        plan: &Plan<'_>,
        applied: &Applied,
    ) -> (OutboxRelayStatus, Vec<PendingEvent>) {
        let context = StatusInputs {
            identity: &self.desired.relay.identity,
            previous: &self.previous,
            written_at: None,
            paused: self.paused,
            now: now(),
        };
        assess(&context, &self.observed, plan, applied)
    }

    /// Each as `"Ready=True Ready"`, in the order asked for.
    #[track_caller]
    fn has(&self, expected: &[&str]) {
        let conditions = self.status().conditions;
        for line in expected {
            let type_ = line.split('=').next().unwrap_or_default();
            let found: &Condition =
                condition(&conditions, type_).expect("every condition is there");
            assert_eq!(
                format!("{type_}={} {}", found.status, found.reason),
                **line,
                "{}",
                found.message
            );
        }
    }
}

fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn failed(cause: Failure) -> Migration {
    Migration::Failed {
        attempt: 2,
        cause,
        again_at: now(),
        every: None,
    }
}

fn reported(class: ProblemClass) -> Failure {
    Failure::Reported(Problem::new(class, "it is so; do this"))
}

fn waiting(case: &mut Case, migration: Migration) {
    case.plan.migration = migration;
    case.plan.rollout = Rollout::WaitForSchema;
}

#[test]
fn a_relay_that_runs_is_ready_and_settled() {
    running().has(&[
        "Ready=True Ready",
        "Reconciling=False Settled",
        "Stalled=False NotStalled",
        "SchemaReady=True MigrationSucceeded",
        "Available=True AllRelaysAvailable",
        "Publishing=True Publishing",
        "SecretsResolved=True SecretsRead",
    ]);
    let status = running().status();
    assert_eq!(
        (
            status.replicas,
            status.ready_replicas,
            status.observed_generation
        ),
        (Some(2), Some(2), 3)
    );
    assert_eq!(status.backlog.expect("all lanes report").rows, 0);
}

#[test]
fn an_outage_of_kafka_shows_but_does_not_make_a_relay_unready() {
    Case::with(|case| case.observed.reports = vec![report(Some(ProblemClass::KafkaUnreachable))])
        .has(&[
            "Ready=True KafkaUnreachable",
            "Publishing=False KafkaUnreachable",
            "Available=True AllRelaysAvailable",
            "Stalled=False NotStalled",
        ]);
}

fn open_breaker(problem: Option<ProblemClass>) -> PodReport {
    let mut report = report(problem);
    let breaker = Breaker {
        state: BreakerState::Open,
        since: "2026-01-01T00:00:00Z".to_owned(),
    };
    report.report.as_mut().expect("a report").breaker = Some(breaker);
    report
}

#[test]
fn an_open_breaker_is_the_reason_unless_a_person_must_fix_something() {
    for (problem, reason) in [
        (None, "BreakerOpen"),
        (Some(ProblemClass::KafkaUnreachable), "BreakerOpen"),
        (Some(ProblemClass::TopicUnderReplicated), "BreakerOpen"),
        (
            Some(ProblemClass::KafkaAuthenticationFailed),
            "KafkaAuthenticationFailed",
        ),
    ] {
        let case =
            Case::with(|case| case.observed.reports = vec![report(None), open_breaker(problem)]);
        case.has(&[
            &format!("Ready=True {reason}"),
            &format!("Publishing=False {reason}"),
            "Stalled=False NotStalled",
        ]);
        assert_eq!(
            case.status().breaker,
            Some(BreakerState::Open),
            "the worst of all"
        );
    }
    assert_eq!(running().status().breaker, None, "no relay reported one");
}

/// A problem that stops publishing, which has lasted for this number of seconds.
fn outage(seconds: i64) -> PodReport {
    let mut report = report(Some(ProblemClass::KafkaUnreachable));
    report.report.as_mut().expect("a report").problems[0].since = Some(at(-seconds).to_string());
    report
}

/// The status of a relay that has run for this number of seconds.
fn having_run(seconds: i64) -> OutboxRelayStatus {
    let mut status = running().status();
    status
        .conditions
        .iter_mut()
        .for_each(|condition| condition.last_transition_time = Time(at(-seconds)));
    status
}

#[test]
fn a_problem_of_less_than_half_a_minute_changes_no_condition() {
    let mut case = Case::with(|case| case.observed.reports = vec![outage(29)]);
    case.has(&["Publishing=False KafkaUnreachable"]); // of one that never published
    case.previous = having_run(30);
    case.has(&["Publishing=True Publishing", "Ready=True Ready"]);
    assert_eq!(
        (case.status().conditions, case.pending_events()),
        (case.previous.conditions.clone(), Vec::new())
    );
    case.observed.reports = vec![outage(30)];
    case.has(&[
        "Publishing=False KafkaUnreachable",
        "Ready=True KafkaUnreachable",
    ]);
    case.previous = case.status();
    case.observed.reports = vec![report(None)];
    case.has(&["Publishing=True Publishing"]);
}

#[test]
fn one_of_two_causes_that_lasts_is_enough_and_a_breaker_has_a_time_of_its_own() {
    let mut case = Case::with(|case| case.observed.reports = vec![outage(1), outage(31)]);
    case.previous = having_run(90);
    case.has(&["Publishing=False KafkaUnreachable"]);
    case.observed.reports = vec![open_breaker(None)];
    case.has(&["Publishing=False BreakerOpen"]);
    let breaker = case.observed.reports[0]
        .report
        .as_mut()
        .expect("a report")
        .breaker
        .as_mut()
        .expect("a breaker");
    breaker.since = at(-29).to_string();
    case.has(&["Publishing=True Publishing"]);
}

#[test]
fn a_problem_shows_at_once_for_an_older_or_new_relay_a_new_manifest_and_suspend() {
    let mut case = running();
    case.previous = having_run(90);
    case.observed.reports = vec![report(Some(ProblemClass::KafkaUnreachable))]; // no `since`
    case.has(&["Publishing=False KafkaUnreachable"]);
    case.observed.reports = vec![outage(1)];
    case.has(&["Publishing=True Publishing"]);
    case.previous = having_run(29);
    case.has(&["Publishing=False KafkaUnreachable"]);
    case.previous = having_run(90);
    case.desired.relay.identity.generation += 1;
    case.has(&["Publishing=False KafkaUnreachable"]);
    case.desired.relay.replicas = DesiredReplicas::Suspended;
    case.has(&["Publishing=False KafkaUnreachable"]);
    case.deployment().existing = 0;
    case.has(&["Publishing=False Suspended"]);
}

/// The clock by which `since` was written may be a day ahead.
#[test]
fn a_problem_whose_time_has_not_come_yet_shows_at_once() {
    for (seconds, expected) in [(86_400, "False KafkaUnreachable"), (20, "True Publishing")] {
        let mut case = running();
        case.previous = having_run(90);
        case.observed.reports = vec![outage(-seconds)];
        case.has(&[&format!("Publishing={expected}")]);
    }
}

#[test]
fn advice_shows_without_stopping_anything() {
    for class in [
        ProblemClass::TopicUnderReplicated,
        ProblemClass::KafkaThrottled,
    ] {
        Case::with(|case| case.observed.reports = vec![report(Some(class))])
            .has(&["Ready=True Ready", &format!("Publishing=True {class}")]);
    }
}

/// A clock that is wrong stops nothing; brokers that reject the time stop their topic.
#[test]
fn a_problem_that_is_advice_stops_nothing_whatever_its_class() {
    for (advice, publishing) in [(true, "True"), (false, "False")] {
        Case::with(|case| {
            let mut report = report(Some(ProblemClass::ClockSkew));
            report.report.as_mut().expect("a report").problems[0].advice = advice;
            case.observed.reports = vec![report];
        })
        .has(&[&format!("Publishing={publishing} ClockSkew")]);
    }
}

#[test]
fn a_refused_new_secret_shows_while_rows_are_published_with_the_last_good_one() {
    for class in [
        ProblemClass::AuthenticationFailed,
        ProblemClass::KafkaAuthenticationFailed,
        ProblemClass::SecretMissing,
    ] {
        Case::with(|case| {
            let mut report = report(Some(class));
            report.report.as_mut().expect("a report").problems[0].last_good_used = true;
            case.observed.reports = vec![report];
        })
        .has(&[
            &format!("Ready=True {class}"),
            "Stalled=False NotStalled",
            &format!("Publishing=True {class}"),
            &format!("SecretsResolved=False {class}"),
        ]);
    }
}

#[test]
fn a_relay_that_cannot_reach_its_database_is_unavailable_with_that_reason() {
    Case::with(|case| {
        case.deployment().available = 0;
        case.observed.reports = vec![report(Some(ProblemClass::AuthenticationFailed))];
    })
    .has(&[
        "Ready=False AuthenticationFailed",
        "Available=False AuthenticationFailed",
        "Reconciling=True AuthenticationFailed",
    ]);
}

#[test]
fn pods_that_cannot_run_are_explained_by_what_is_known() {
    let none = |change: &dyn Fn(&mut Case)| {
        Case::with(|case| {
            case.deployment().available = 0;
            case.observed.reports.clear();
            change(case);
        })
    };
    none(&|_| ()).has(&[
        "Available=False NoRelayAvailable",
        "Publishing=Unknown NoReports",
    ]);
    none(&|case| case.deployment().rolling = true).has(&["Available=False RollingOut"]);
    none(&|case| case.deployment().refusal = Some("exceeded quota".to_owned()))
        .has(&["Available=False PodsRefused"]);
    let pending = RelayPod {
        name: "p".to_owned(),
        address: None,
        waiting: Some("ImagePullBackOff: no".to_owned()),
    };
    none(&|case| case.observed.pods = vec![pending.clone()]).has(&["Ready=False PodsPending"]);
}

#[test]
fn one_relay_of_two_is_enough_to_be_ready() {
    Case::with(|case| case.deployment().available = 1).has(&[
        "Ready=True SomeRelaysAvailable",
        "Available=True SomeRelaysAvailable",
        "Reconciling=True SomeRelaysAvailable",
    ]);
}

#[test]
fn a_new_spec_is_ready_when_it_has_arrived_everywhere_and_an_upgrade_stays_ready() {
    let mut case = Case::with(|case| case.deployment().updated = 1);
    case.has(&["Ready=False RollingOut", "Reconciling=True RollingOut"]);
    case.previous = running().status();
    case.has(&["Ready=True RollingOut", "Reconciling=True RollingOut"]);
}

#[test]
fn zero_relays_are_available_but_publish_nothing() {
    Case::with(|case| {
        case.desired.relay.replicas = DesiredReplicas::Fixed(0);
        case.plan.replicas = 0;
        case.observed.deployment = Some(RelayDeployment {
            observed: true,
            ..RelayDeployment::default()
        });
        case.observed.reports.clear();
    })
    .has(&[
        "Ready=True ScaledToZero",
        "Available=True ScaledToZero",
        "Publishing=False ScaledToZero",
    ]);
}

#[test]
fn a_suspended_relay_is_ready_and_publishes_nothing() {
    Case::with(|case| {
        case.desired.relay.replicas = DesiredReplicas::Suspended;
        case.plan.replicas = 0;
        case.observed.deployment = Some(RelayDeployment {
            observed: true,
            ..RelayDeployment::default()
        });
        case.observed.reports.clear();
    })
    .has(&[
        "Ready=True Suspended",
        "Available=True Suspended",
        "Publishing=False Suspended",
        "ReportsAvailable=Unknown Suspended",
    ]);
}

#[test]
fn no_relay_runs_only_when_the_last_one_has_gone() {
    let mut case = Case::with(|case| {
        case.desired.relay.replicas = DesiredReplicas::Suspended;
        case.plan.replicas = 0;
    });
    let available = |case: &Case| {
        condition(&case.status().conditions, "Available")
            .expect("there")
            .message
            .clone()
    };
    case.has(&[
        "Ready=True Suspended",
        "Reconciling=True Suspended",
        "Publishing=True Publishing",
        "ReportsAvailable=True ReportsComplete",
    ]);
    assert!(
        available(&case).contains("until then: 2."),
        "{}",
        available(&case)
    );
    // The Deployment does not count relays that drain.
    *case.deployment() = RelayDeployment {
        observed: true,
        ..RelayDeployment::default()
    };
    case.observed.pods = vec![RelayPod {
        name: "p".to_owned(),
        address: "10.0.0.1".parse().ok(),
        waiting: None,
    }];
    case.has(&["Reconciling=True Suspended", "Publishing=True Publishing"]);
    assert!(
        available(&case).contains("until then: 1."),
        "{}",
        available(&case)
    );
    case.observed.pods[0].address = None;
    case.has(&[
        "Ready=True Suspended",
        "Reconciling=False Settled",
        "Publishing=False Suspended",
    ]);
    assert!(
        available(&case).contains("no relay runs"),
        "{}",
        available(&case)
    );
}

#[test]
fn a_paused_relay_has_condition_paused_and_keeps_the_generation_that_was_carried_out() {
    let mut case = running();
    case.has(&["Paused=False NotPaused"]);
    case.previous = case.status();
    case.paused = true;
    case.desired.relay.identity.generation = 4;
    case.has(&["Paused=True Paused", "Ready=True Ready"]);
    let status = case.status();
    let generation = |type_| {
        condition(&status.conditions, type_)
            .expect("there")
            .observed_generation
    };
    assert_eq!(
        (
            status.observed_generation,
            generation("Ready"),
            generation("Paused")
        ),
        (3, Some(3), Some(4))
    );
    waiting(&mut case, Migration::Start { attempt: 1 });
    case.has(&["SchemaReady=False Paused"]);
}

#[test]
fn reports_that_are_missing_or_leave_out_lanes_do_not_make_a_relay_unready() {
    let with = |reports| Case::with(|case| case.observed.reports = reports);
    with(Vec::new()).has(&["ReportsAvailable=False NoReports", "Ready=True Ready"]);
    let mut half = report(None);
    half.report.as_mut().expect("a report").lanes = 32;
    with(vec![half]).has(&[
        "ReportsAvailable=False ReportsIncomplete",
        "Ready=True Ready",
    ]);
    running().has(&["ReportsAvailable=True ReportsComplete"]);
}

#[test]
fn a_cluster_without_pod_monitors_leaves_relays_ready_and_is_reported_once() {
    let mut case = Case::with(|case| case.applied.no_pod_monitors = true);
    case.has(&[
        "Ready=True PodMonitorUnavailable",
        "Reconciling=False Settled",
    ]);
    assert_eq!(case.event_reasons(), ["PodMonitorUnavailable"]);
    case.previous = case.status();
    assert_eq!(case.pending_events(), []);
}

fn scaled(decision: Decision) -> Case {
    let load = Load {
        rows: 41_200,
        oldest_age: SignedDuration::from_secs(12),
        published_per_second: 512.4,
        breaker_open: false,
    };
    Case::with(|case| {
        case.desired = desired_with(|relay| relay.spec.scaling = serde_yaml::from_str("{}").ok());
        case.plan.scaling = Some(Scaling {
            decision,
            load: Some(load),
            next_memory: ScalingMemory::default(),
        });
        case.plan.scale = if decision.from == decision.to {
            Scale::Keep
        } else {
            Scale::Step(decision)
        };
    })
}

#[test]
fn a_step_gets_an_event_with_its_numbers_and_is_kept_in_status() {
    let mut case = scaled(Decision {
        from: 2,
        to: 4,
        reason: Reason::BacklogHigh,
    });
    case.has(&["ScalingActive=True BacklogHigh"]);
    let last = case.status().last_scale.expect("a step");
    assert_eq!(
        (last.from, last.to, last.reason.as_str(), last.time.0),
        (2, 4, "BacklogHigh", now())
    );
    let note = "Scaled from 2 to 4 relays. 41200 rows wait, the oldest for 12 s; 512 are \
                published per second.";
    assert_eq!(
        case.pending_events()
            .iter()
            .map(|one| one.note.as_str())
            .collect::<Vec<_>>(),
        [note]
    );
    case.previous = case.status();
    case.plan.scale = Scale::Keep;
    assert_eq!(
        case.status().last_scale,
        case.previous.last_scale,
        "the step before stays"
    );
    case.plan.scale = Scale::Step(Decision {
        from: 4,
        to: 8,
        reason: Reason::BacklogHigh,
    });
    case.applied = Applied {
        error: Some(refused(422)),
        ..Applied::default()
    };
    assert_eq!(
        case.status().last_scale,
        case.previous.last_scale,
        "it was not taken"
    );
    assert!(
        case.pending_events()
            .iter()
            .all(|event| event.reason != Reason::BacklogHigh),
        "{:?}",
        case.pending_events()
    );
    case.has(&["ScalingActive=False ApiRequestFailed"]);
    case.applied.scaled = true;
    assert_eq!(
        case.status().last_scale.expect("a step").to,
        8,
        "what else is refused does not matter"
    );
    case.has(&["ScalingActive=True BacklogHigh", "Ready=False ChildRefused"]);
}

fn refused(code: u16) -> ApplyError {
    let source = CallError::Refused(Box::new(Status {
        code,
        message: "spec.x: Invalid value".to_owned(),
        ..Status::default()
    }));
    ApplyError::Apply {
        kind: ChildKind::Deployment,
        name: "d".to_owned(),
        source,
    }
}

#[test]
fn scaling_that_cannot_help_is_reported_once_and_without_numbers() {
    let mut case = scaled(Decision {
        from: 4,
        to: 4,
        reason: Reason::ThroughputFlat,
    });
    case.has(&["ScalingActive=False ThroughputFlat"]);
    assert_eq!(case.event_reasons(), ["ThroughputFlat"]);
    case.previous = case.status();
    case.plan
        .scaling
        .as_mut()
        .expect("scaled")
        .load
        .as_mut()
        .expect("known")
        .rows += 1;
    assert_eq!(case.status().conditions, case.previous.conditions);
}

#[test]
fn without_scaling_the_manifest_sets_the_replicas() {
    running().has(&["ScalingActive=False ScalingOff"]);
    assert_eq!(running().pending_events(), []);
}

#[test]
fn a_relay_that_waits_for_its_upgrade_is_ready_as_it_was() {
    let mut case = running();
    case.previous = case.status();
    (case.plan.migration, case.plan.turn) = (Migration::Queued, Turn::Waiting);
    case.plan.rollout = Rollout::WaitForSchema;
    case.has(&[
        "Ready=True UpgradeQueued",
        "SchemaReady=True MigrationSucceeded",
        "Reconciling=False Settled",
    ]);
    assert_eq!(case.pending_events(), []);
    assert_eq!(case.status().migration, case.previous.migration);
    case.plan.turn = Turn::Stopped;
    case.has(&["Ready=True UpgradesStopped"]);
    assert_eq!(case.event_reasons(), ["UpgradesStopped"]);
}

#[test]
fn an_invalid_manifest_stalls_with_its_reason() {
    let case = running();
    let reason = |error: ValidationError| {
        let status = case.invalid(&error, None, Applied::default());
        let stalled = condition(&status.conditions, "Stalled")
            .expect("there")
            .clone();
        (
            stalled.status,
            stalled.reason,
            stalled.message.contains("other.test/relay:1"),
        )
    };
    let image = ValidationError::ImageNotAllowed("other.test/relay:1".to_owned());
    assert_eq!(
        reason(image),
        ("True".to_owned(), "ImageNotAllowed".to_owned(), true)
    );
    let spec = ValidationError::Spec(crate::settings::InvalidSpec::TopicCount);
    assert_eq!(
        reason(spec),
        ("True".to_owned(), "InvalidSpec".to_owned(), false)
    );
}

#[test]
fn relays_of_an_invalid_manifest_run_on_unless_none_is_requested() {
    let invalid = ValidationError::Spec(crate::settings::InvalidSpec::TopicCount);
    let mut case = scaled(Decision {
        from: 2,
        to: 2,
        reason: Reason::WithinTargets,
    });
    case.previous = case.status();
    let found = |case: &Case, zero: Option<&DesiredReplicas>, error: Option<ApplyError>| {
        let applied = Applied {
            error,
            ..Applied::default()
        };
        let conditions = case.invalid(&invalid, zero, applied).conditions;
        let text = |type_| {
            condition(&conditions, type_)
                .map(|it| format!("{} {}", it.status, it.reason))
                .expect("there")
        };
        let message = condition(&conditions, "Stalled")
            .expect("there")
            .message
            .clone();
        (
            ["Available", "Publishing", "ScalingActive"].map(text),
            message,
        )
    };
    let suspended = Some(&DesiredReplicas::Suspended);

    let (three, message) = found(&case, None, None);
    assert_eq!(
        three,
        [
            "True AllRelaysAvailable",
            "True Publishing",
            "False InvalidSpec"
        ]
    );
    assert!(message.ends_with("keep their old settings."), "{message}");
    let (three, message) = found(&case, suspended, None);
    assert_eq!(
        three,
        ["True Suspended", "True Publishing", "False Suspended"]
    );
    assert!(message.contains("until then: 2."), "{message}");
    let (_, message) = found(&case, suspended, Some(refused(403)));
    assert!(
        message.contains("could not be stopped: failed to apply"),
        "{message}"
    );
    case.deployment().existing = 0;
    let (three, message) = found(&case, suspended, None);
    assert_eq!(
        three,
        ["True Suspended", "False Suspended", "False Suspended"]
    );
    assert!(message.contains("no relay runs"), "{message}");
    let (three, message) = found(&case, None, None);
    assert_eq!(
        three,
        [
            "False InvalidSpec",
            "False InvalidSpec",
            "False InvalidSpec"
        ]
    );
    assert!(message.contains("No relay is started"), "{message}");
}

#[test]
fn an_unreadable_manifest_stalls_and_gets_an_event() {
    let plan = Plan::Unreadable {
        error: "spec.batchSize: invalid type",
    };
    let case = running();
    let (status, events) = case.assess_plan(&plan, &Applied::default());
    let [event] = &events[..] else {
        panic!("{events:?}")
    };
    let stalled = condition(&status.conditions, "Stalled").expect("there");
    assert_eq!(
        (
            stalled.status.as_str(),
            stalled.reason.as_str(),
            status.observed_generation
        ),
        ("True", "NotUnderstood", 3)
    );
    assert!(
        stalled.message.contains("spec.batchSize"),
        "{}",
        stalled.message
    );
    assert_eq!(
        (event.severity, event.reason, &event.note),
        (Severity::Warning, Reason::NotUnderstood, &stalled.message)
    );
}

#[test]
fn a_failed_migration_is_explained_and_retried() {
    Case::with(|case| waiting(case, failed(reported(ProblemClass::LockTimeout)))).has(&[
        "Ready=False LockTimeout",
        "SchemaReady=False LockTimeout",
        "Reconciling=True LockTimeout",
        "Stalled=False NotStalled",
    ]);
    Case::with(|case| waiting(case, failed(Failure::Unexplained("OOMKilled".to_owned())))).has(&[
        "SchemaReady=False MigrationFailed",
        "Available=True AllRelaysAvailable",
    ]);
}

#[test]
fn what_only_a_person_can_end_is_stalled() {
    for class in [
        ProblemClass::NewerSchema,
        ProblemClass::SchemaClaimedByOther,
    ] {
        Case::with(|case| waiting(case, failed(reported(class)))).has(&[
            &format!("Stalled=True {class}"),
            &format!("Ready=False {class}"),
            &format!("Reconciling=False {class}"),
        ]);
    }
}

#[test]
fn an_attempt_in_progress_keeps_the_reason_of_the_last_failure() {
    let mut case = Case::with(|case| waiting(case, failed(reported(ProblemClass::SecretMissing))));
    case.previous = case.status();
    case.observed.reports.clear();
    for migration in [
        Migration::Start { attempt: 3 },
        Migration::Running {
            attempt: 3,
            waiting: None,
            until: None,
        },
    ] {
        waiting(&mut case, migration);
        case.has(&[
            "SchemaReady=False SecretMissing",
            "SecretsResolved=False SecretMissing",
        ]);
        assert_eq!(case.pending_events(), []);
    }
}

#[test]
fn a_schema_that_vanished_after_its_migration_is_not_ready() {
    Case::with(|case| case.observed.reports = vec![report(Some(ProblemClass::SchemaNotReady))])
        .has(&[
            "SchemaReady=False SchemaNotReady",
            "Ready=False SchemaNotReady",
        ]);
}

#[test]
fn secrets_are_unknown_before_a_pod_has_read_them() {
    Case::with(|case| {
        waiting(case, Migration::Start { attempt: 1 });
        case.observed = Observed::default();
    })
    .has(&[
        "SecretsResolved=Unknown NotChecked",
        "SchemaReady=False MigrationRunning",
        "Available=False WaitingForSchema",
    ]);
}

#[test]
fn a_taken_name_and_a_refused_child_stall_and_a_failed_request_does_not() {
    let after = |error| Case::with(|case| case.applied.error = Some(error));
    after(ApplyError::NameConflict("Service 's'".to_owned()))
        .has(&["Stalled=True NameConflict", "Ready=False NameConflict"]);
    after(ApplyError::FormerChildren("Service 's'".to_owned())).has(&[
        "Stalled=False NotStalled",
        "Reconciling=True FormerChildren",
    ]);
    after(refused(422)).has(&["Stalled=True ChildRefused", "Ready=False ChildRefused"]);
    after(refused(500)).has(&[
        "Stalled=False NotStalled",
        "Reconciling=True ApiRequestFailed",
    ]);
}

#[test]
fn the_level_of_the_schema_outlives_the_pod_that_reported_it() {
    let mut case = running();
    case.previous = case.status();
    case.plan.migration = Migration::Succeeded {
        at: now(),
        schema_version: None,
        notes: Vec::new(),
    };
    assert_eq!(
        case.status().migration.expect("a migration").schema_version,
        Some(1)
    );
}

#[test]
fn the_same_inputs_give_the_same_status() {
    let mut case = running();
    case.previous = case.status();
    assert_eq!(case.status(), case.previous);
    assert_eq!(case.pending_events(), []);
}

#[test]
fn each_problem_gets_one_event_and_so_does_its_end() {
    let mut case = running();
    case.previous = case.status();
    case.observed.reports = vec![report(Some(ProblemClass::TopicMissing))];
    assert_eq!(case.event_reasons(), ["TopicMissing"]);
    case.previous = case.status();
    case.observed.reports = vec![report(None)];
    assert_eq!(case.event_reasons(), ["Publishing"]);
}

#[test]
fn a_reconciliation_that_left_something_undone_carried_out_no_generation() {
    let carried_out = |previous: OutboxRelayStatus| carried_out_generation(&previous);
    assert_eq!(carried_out(running().status()), Some(3));
    assert_eq!(
        carried_out(Case::with(|case| case.applied.error = Some(refused(422))).status()),
        None
    );
    assert_eq!(
        carried_out(Case::with(|case| case.applied.error = Some(refused(500))).status()),
        None
    );
    let error = ValidationError::ImageNotAllowed("other.test/relay:1".to_owned());
    assert_eq!(
        carried_out(running().invalid(&error, None, Applied::default())),
        None
    );
}

#[test]
fn plaintext_gets_an_event_with_each_new_spec_and_reset_replicas_each_time() {
    let mut case = Case::with(|case| {
        case.desired.relay.plaintext = vec!["spec.database", "spec.kafka"];
        case.plan.scale = Scale::SetBack { from: 5, to: 2 };
    });
    let reasons = Case::event_reasons;
    case.applied.scaled = false;
    assert_eq!(reasons(&case), ["PlaintextTraffic"], "it was not set back");
    case.applied.scaled = true;
    assert_eq!(reasons(&case), ["ReplicasReset", "PlaintextTraffic"]);
    case.previous = case.status();
    assert_eq!(reasons(&case), ["ReplicasReset"]);
}

#[test]
fn a_server_that_is_not_verified_gets_an_event() {
    let case = Case::with(|case| case.desired.relay.unverified = vec!["spec.kafka"]);
    assert!(
        case.event_reasons()
            .contains(&"ServerUnverified".to_owned())
    );
}

#[test]
fn when_nothing_can_be_read_the_previous_conditions_stay() {
    let previous = running().status();
    let identity = Identity {
        generation: 4,
        ..running().desired.relay.identity
    };
    let status = not_observed(&identity, &previous, "failed to list Pods", now());
    assert_eq!(status.observed_generation, 3);
    let ready = condition(&status.conditions, "Ready").expect("there");
    assert_eq!(
        (ready.status.as_str(), ready.observed_generation),
        ("True", Some(3))
    );
    assert_eq!(
        condition(&status.conditions, "Reconciling")
            .expect("there")
            .reason,
        "ApiRequestFailed"
    );
}

#[test]
fn a_rollout_names_what_keeps_its_pods_from_running_whether_or_not_old_relays_run() {
    let mut case = running();
    case.previous = having_run(90);
    case.deployment().updated = 0;
    case.deployment().rolling = true;
    case.has(&["Ready=True RollingOut", "Available=True AllRelaysAvailable"]);
    case.observed.pods = vec![RelayPod {
        name: "p".to_owned(),
        address: None,
        waiting: Some("ImagePullBackOff: no such image".to_owned()),
    }];
    case.has(&["Ready=True PodsPending", "Reconciling=True PodsPending"]);
    let conditions = case.status().conditions;
    let message = &condition(&conditions, "Ready").expect("there").message;
    assert!(
        message.contains("the old ones run") && message.contains("no such image"),
        "{message}"
    );
    case.deployment().refusal = Some("maximum cpu is 1".to_owned());
    case.has(&["Ready=True PodsRefused", "Reconciling=True PodsRefused"]);
}

#[test]
fn relays_that_are_added_are_not_called_replaced_and_those_that_run_stay_ready() {
    let mut case = Case::with(|case| {
        case.deployment().wanted = 3;
        case.deployment().rolling = true;
    });
    // Also for a new generation: every pod that exists has the spec, but for the number.
    case.has(&["Ready=True RollingOut", "Reconciling=True RollingOut"]);
    assert!(case.message("Ready").contains("being added"));
    case.deployment().refusal = Some("exceeded quota".to_owned());
    case.has(&["Ready=True PodsRefused", "Reconciling=True PodsRefused"]);
    assert!(case.message("Ready").contains("Exceeded quota"));
    case.deployment().updated = 1;
    case.has(&["Ready=False PodsRefused"]);
    assert!(case.message("Ready").contains("being replaced"));
}

#[test]
fn rows_that_wait_for_a_person_show_at_once() {
    for class in [
        ProblemClass::RecordTooLarge,
        ProblemClass::RowUnreadable,
        ProblemClass::KeysParked,
    ] {
        let mut case = Case::with(|case| {
            let mut report = report(Some(class));
            report.report.as_mut().expect("a report").problems[0].since = Some(at(0).to_string());
            case.observed.reports = vec![report];
        });
        case.previous = having_run(90);
        case.has(&[
            &format!("Publishing=False {class}"),
            &format!("Ready=True {class}"),
        ]);
    }
}

#[test]
fn the_classes_of_other_problems_are_listed() {
    let mut case = running();
    let mut report = report(Some(ProblemClass::TopicMissing));
    let problems = &mut report.report.as_mut().expect("a report").problems;
    for class in [
        ProblemClass::TopicMissing,
        ProblemClass::RecordTooLarge,
        ProblemClass::ClockSkew,
    ] {
        problems.push(Problem::new(class, "it is so"));
    }
    case.observed.reports = vec![report];
    let message = case.message("Publishing");
    assert!(
        message.ends_with("do this. Also reported: ClockSkew, RecordTooLarge."),
        "{message}"
    );
}

#[test]
fn a_migration_that_is_tried_often_does_not_change_its_message_with_each_attempt() {
    let message = |attempt, again_at| {
        let case = Case::with(|case| {
            let cause = reported(ProblemClass::Unreachable);
            let every = Some(SignedDuration::from_secs(10));
            waiting(
                case,
                Migration::Failed {
                    attempt,
                    cause,
                    again_at,
                    every,
                },
            );
        });
        case.message("SchemaReady")
    };
    assert_eq!(message(2, at(10)), message(3, at(20)));
    assert!(message(2, at(10)).contains("tried again every 10 s"));
}

#[test]
fn what_a_retry_of_the_migration_interrupts_keeps_its_state_and_its_time() {
    let refused = failed(reported(ProblemClass::SchemaClaimedByOther));
    let mut case = Case::with(|case| {
        case.observed.reports.clear();
        waiting(case, refused);
    });
    let lines = [
        "Ready=False SchemaClaimedByOther",
        "Stalled=True SchemaClaimedByOther",
        "SchemaReady=False SchemaClaimedByOther",
        "SecretsResolved=True SecretsRead",
    ];
    case.has(&lines);
    let mut before = case.status();
    for condition in &mut before.conditions {
        condition.last_transition_time = Time(at(-90));
    }
    case.previous = before.clone();
    for retry in [
        Migration::Start { attempt: 3 },
        Migration::Running {
            attempt: 3,
            waiting: None,
            until: None,
        },
    ] {
        waiting(&mut case, retry);
        case.has(&lines);
        assert_eq!(case.status().conditions, before.conditions);
    }
    case.desired.relay.identity.generation += 1;
    waiting(&mut case, Migration::Start { attempt: 3 });
    case.has(&["Stalled=False NotStalled"]);
}

#[test]
fn a_lost_schema_is_told_with_the_time_of_the_next_migration() {
    let case = Case::with(|case| {
        let problem = Problem::new(ProblemClass::SchemaNotReady, "level 0");
        case.observed.reports = vec![report(Some(ProblemClass::SchemaNotReady))];
        let again_at = at(30);
        waiting(case, Migration::Lost { problem, again_at });
    });
    case.has(&[
        "Ready=False SchemaNotReady",
        "SchemaReady=False SchemaNotReady",
    ]);
    let conditions = case.status().conditions;
    let message = &condition(&conditions, "SchemaReady")
        .expect("there")
        .message;
    assert!(message.contains(&at(30).to_string()), "{message}");
}
