//! `Publishing`: do rows reach Kafka? What the relays say, and no part of `Ready`: an outage of
//! Kafka must not block the rollout of services that only wait for their outbox. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    operator::{
        reason::{Reason, stops_publishing},
        reconcile::status::{
            ConditionInputs,
            available::{ZeroCause, zero_cause_if_none_runs},
            conditions::{ConditionType, Finding, State, find, repeat},
            schema::{problems, sentence},
        },
    },
    report::{Breaker, BreakerState, ProblemClass},
};

/// What stops the rows of a relay that published is told when it has lasted so long: most of it
/// passes by itself, and a condition that flaps helps nobody.
const REPORTED_AFTER: SignedDuration = SignedDuration::from_secs(30);

pub(super) fn publishing(inputs: &ConditionInputs<'_>) -> Finding {
    if let Some(wish) = zero_cause_if_none_runs(inputs) {
        return stopped(wish);
    }
    let found = reported(inputs);
    let passes_by = found.state == State::False && !lasts(inputs);
    previously_true(inputs)
        .filter(|_| passes_by)
        .unwrap_or(found)
}

pub(super) fn stopped((reason, why): ZeroCause) -> Finding {
    finding(State::False, reason, format!("{why}: rows wait."))
}

fn finding(state: State, reason: Reason, message: String) -> Finding {
    Finding::new(ConditionType::Publishing, state, reason, message)
}

/// Of this very manifest, whose relays have run for a while: what it brings itself is told at once.
fn previously_true(inputs: &ConditionInputs<'_>) -> Option<Finding> {
    let said = &inputs.context.previous.conditions;
    find(said, ConditionType::Publishing)
        .filter(|it| it.generation == Some(inputs.context.identity.generation))?;
    find(said, ConditionType::Available)
        .filter(|it| it.state == State::True && is_lasting(inputs, it.since))?;
    repeat(said, ConditionType::Publishing, State::True)
}

fn is_lasting(inputs: &ConditionInputs<'_>, since: Timestamp) -> bool {
    inputs.context.now.duration_since(since) >= REPORTED_AFTER
}

/// By the relays' clocks. An older relay does not say since when.
fn lasts(inputs: &ConditionInputs<'_>) -> bool {
    let lasting = |since: Option<&str>| {
        since
            .and_then(|since| since.parse().ok())
            .is_none_or(|since| is_lasting(inputs, since))
    };
    open_breaker(inputs).is_some_and(|(_, breaker)| lasting(Some(&breaker.since)))
        || problems(inputs)
            .any(|(_, problem)| stops_publishing(problem) && lasting(problem.since.as_deref()))
}

fn reported(inputs: &ConditionInputs<'_>) -> Finding {
    if inputs
        .observed
        .reports
        .iter()
        .all(|one| one.report.is_none())
    {
        return finding(
            State::Unknown,
            Reason::NoReports,
            "No relay has reported.".to_owned(),
        );
    }
    let all: Vec<_> = problems(inputs).collect();
    let worst = all.iter().find(|(_, problem)| stops_publishing(problem));
    if let Some((pod, _)) = open_breaker(inputs)
        && worst.is_none_or(|(_, problem)| is_an_outage(problem.class))
    {
        let why = worst.map_or_else(
            || "it is tried again by itself.".to_owned(),
            |(_, problem)| sentence(&problem.message),
        );
        return finding(
            State::False,
            Reason::BreakerOpen,
            format!("Pod '{pod}': Kafka acknowledges nothing and rows wait: {why}"),
        );
    }
    let Some((pod, problem)) = worst.or(all.first()) else {
        return finding(
            State::True,
            Reason::Publishing,
            "Relays publish what is written.".to_owned(),
        );
    };
    let others = match all.len() - 1 {
        0 => String::new(),
        more => format!(" ({more} more reported.)"),
    };
    let message = format!("Pod '{pod}': {}{others}", sentence(&problem.message));
    finding(
        State::of(worst.is_none()),
        Reason::Problem(problem.class),
        message,
    )
}

fn open_breaker<'a>(inputs: &'a ConditionInputs<'_>) -> Option<(&'a str, &'a Breaker)> {
    let mut breakers = inputs
        .observed
        .reports
        .iter()
        .filter_map(|one| Some((one.pod.as_str(), one.report.as_ref()?.breaker.as_ref()?)));
    breakers.find(|(_, breaker)| breaker.state == BreakerState::Open)
}

/// What an open breaker says better; a refused login, say, is for a person to mend.
fn is_an_outage(class: ProblemClass) -> bool {
    matches!(
        class,
        ProblemClass::KafkaUnreachable | ProblemClass::KafkaError | ProblemClass::TopicStalled
    )
}
