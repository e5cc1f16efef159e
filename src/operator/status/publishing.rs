//! `Publishing`: do rows reach Kafka? What the relays say, and no part of `Ready`: an outage of
//! Kafka must not block the rollout of services that only wait for their outbox. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{
    Scene,
    available::{Wish, none_runs},
    conditions::{Finding, State, find, repeat},
    schema::{problems, sentence},
};
use crate::{
    operator::reason::{Reason, stops_publishing},
    report::{Breaker, BreakerState, ProblemClass},
};

/// What stops the rows of a relay that published is told when it has lasted so long: most of it
/// passes by itself, and a condition that flaps helps nobody.
const LASTING: SignedDuration = SignedDuration::from_secs(30);

pub(super) fn publishing(scene: &Scene<'_>) -> Finding {
    if let Some(wish) = none_runs(scene) {
        return stopped(wish);
    }
    let found = reported(scene);
    let passes_by = found.state == State::False && !lasts(scene);
    said_true(scene).filter(|_| passes_by).unwrap_or(found)
}

pub(super) fn stopped((reason, why): Wish) -> Finding {
    finding(State::False, reason, format!("{why}: rows wait."))
}

fn finding(state: State, reason: Reason, message: String) -> Finding {
    Finding::new("Publishing", state, reason, message)
}

/// Of this very manifest, whose relays have run for a while: what it brings itself is told at once.
fn said_true(scene: &Scene<'_>) -> Option<Finding> {
    let said = &scene.facts.previous.conditions;
    find(said, "Publishing")
        .filter(|it| it.observed_generation == Some(scene.facts.identity.generation))?;
    find(said, "Available").filter(|it| {
        it.status == State::True.text() && is_lasting(scene, it.last_transition_time.0)
    })?;
    repeat(said, "Publishing", State::True)
}

fn is_lasting(scene: &Scene<'_>, since: Timestamp) -> bool {
    scene.facts.now.duration_since(since) >= LASTING
}

/// By the relays' clocks. An older relay does not say since when.
fn lasts(scene: &Scene<'_>) -> bool {
    let lasting = |since: Option<&str>| {
        since
            .and_then(|since| since.parse().ok())
            .is_none_or(|since| is_lasting(scene, since))
    };
    open_breaker(scene).is_some_and(|(_, breaker)| lasting(Some(&breaker.since)))
        || problems(scene)
            .any(|(_, problem)| stops_publishing(problem) && lasting(problem.since.as_deref()))
}

fn reported(scene: &Scene<'_>) -> Finding {
    if scene
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
    let all: Vec<_> = problems(scene).collect();
    let worst = all.iter().find(|(_, problem)| stops_publishing(problem));
    if let Some((pod, _)) = open_breaker(scene)
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

fn open_breaker<'a>(scene: &'a Scene<'_>) -> Option<(&'a str, &'a Breaker)> {
    let mut breakers = scene
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
