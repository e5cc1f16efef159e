//! `Publishing`: do rows reach Kafka? What the relays say, and no part of `Ready`: an outage of Kafka must not block the rollout of services
//! that only wait for their outbox. Pure.

use super::{
    Scene,
    conditions::{Finding, State},
    schema::{problems, sentence},
};
use crate::operator::reason::{Reason, stops_publishing};

pub(super) fn publishing(scene: &Scene<'_>) -> Finding {
    let finding = |state, reason, message: String| Finding::new("Publishing", state, reason, message);
    if scene.relay.replicas == 0 {
        return finding(State::False, Reason::ScaledToZero, "spec.replicas is 0: rows wait.".to_owned());
    }
    if scene.observed.reports.iter().all(|one| one.report.is_none()) {
        return finding(State::Unknown, Reason::NoReports, "No relay has reported.".to_owned());
    }
    let all: Vec<_> = problems(scene).collect();
    let worst = all.iter().find(|(_, problem)| stops_publishing(problem.class));
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
