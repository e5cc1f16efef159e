//! `Publishing`: do rows reach Kafka? What the relays say, and no part of `Ready`: an outage of Kafka must not block the rollout of services
//! that only wait for their outbox. Pure.

use super::{
    Scene,
    available::none_wanted,
    conditions::{Finding, State},
    schema::{problems, sentence},
};
use crate::{
    operator::reason::{Reason, stops_publishing},
    report::{BreakerState, ProblemClass},
};

pub(super) fn publishing(scene: &Scene<'_>) -> Finding {
    let finding = |state, reason, message: String| Finding::new("Publishing", state, reason, message);
    if let Some((reason, why)) = none_wanted(scene) {
        return finding(State::False, reason, format!("{why}: rows wait."));
    }
    if scene.observed.reports.iter().all(|one| one.report.is_none()) {
        return finding(State::Unknown, Reason::NoReports, "No relay has reported.".to_owned());
    }
    let all: Vec<_> = problems(scene).collect();
    let worst = all.iter().find(|(_, problem)| stops_publishing(problem));
    if let Some(pod) = open_breaker(scene)
        && worst.is_none_or(|(_, problem)| is_an_outage(problem.class))
    {
        let why = worst.map_or_else(|| "it is tried again by itself.".to_owned(), |(_, problem)| sentence(&problem.message));
        return finding(State::False, Reason::BreakerOpen, format!("Pod '{pod}': Kafka acknowledges nothing and rows wait: {why}"));
    }
    let Some((pod, problem)) = worst.or(all.first()) else {
        return finding(State::True, Reason::Publishing, "Relays publish what is written.".to_owned());
    };
    let others = match all.len() - 1 {
        0 => String::new(),
        more => format!(" ({more} more reported.)"),
    };
    let message = format!("Pod '{pod}': {}{others}", sentence(&problem.message));
    finding(State::of(worst.is_none()), Reason::Problem(problem.class), message)
}

fn open_breaker<'a>(scene: &'a Scene<'_>) -> Option<&'a str> {
    let is_open = |breaker: &crate::report::Breaker| breaker.state == BreakerState::Open;
    let mut reports = scene.observed.reports.iter();
    reports.find(|one| one.report.as_ref().and_then(|report| report.breaker.as_ref()).is_some_and(is_open)).map(|one| one.pod.as_str())
}

/// What an open breaker says better; a refused login, say, is for a person to mend.
fn is_an_outage(class: ProblemClass) -> bool {
    matches!(class, ProblemClass::KafkaUnreachable | ProblemClass::KafkaError | ProblemClass::TopicStalled)
}
