//! `Publishing`: do rows reach Kafka? It comes from the reports of the relays and does not change
//! `Ready`: an outage of Kafka must not block the rollout of services. Pure.

use std::collections::BTreeSet;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    operator::{
        reason::{Reason, stops_publishing},
        reconcile::status::{
            ConditionInputs,
            available::{ZeroCause, zero_cause_if_none_runs},
            conditions::{ConditionType, Finding, State},
            schema::{problems, sentence},
        },
    },
    report::{Breaker, BreakerState, Problem, ProblemClass},
};

/// Time for which a problem must last before a relay that published gets `Publishing=False`: most
/// problems pass automatically, and a condition should not flap.
const REPORTED_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// Finds condition `Publishing`.
pub(super) fn publishing(inputs: &ConditionInputs<'_>) -> Finding {
    if let Some(zero) = zero_cause_if_none_runs(inputs) {
        return stopped(zero);
    }
    without_flapping(inputs)
}

/// Finds `Publishing` from the reports. A problem that has not lasted does not change it.
fn without_flapping(inputs: &ConditionInputs<'_>) -> Finding {
    let found = reported(inputs);
    if found.state == State::False && !lasts(inputs) && !waits_for_a_person(found.reason) {
        previously_true(inputs).unwrap_or(found)
    } else {
        found
    }
}

/// Finds `Publishing` where no relay runs.
pub(super) fn stopped((reason, cause): ZeroCause) -> Finding {
    finding(State::False, reason, format!("{cause}: rows wait."))
}

fn finding(state: State, reason: Reason, message: String) -> Finding {
    Finding::new(ConditionType::Publishing, state, reason, message)
}

/// Returns the previous finding if it was `True` for this generation, and relays have run for a
/// while: a problem that a new manifest causes is reported at once.
fn previously_true(inputs: &ConditionInputs<'_>) -> Option<Finding> {
    let applies = inputs.is_current(ConditionType::Publishing) && have_run(inputs);
    inputs
        .repeat(ConditionType::Publishing, State::True)
        .filter(|_| applies)
}

/// Returns whether relays have been available for a while.
fn have_run(inputs: &ConditionInputs<'_>) -> bool {
    let available = inputs.previous(ConditionType::Available);
    available.is_some_and(|it| it.state == State::True && is_lasting(inputs, it.since))
}

/// Returns whether a problem does not pass: rows wait until a person decides about them.
fn waits_for_a_person(reason: Reason) -> bool {
    use ProblemClass::{KeysParked, RecordTooLarge, RowUnreadable};
    matches!(
        reason,
        Reason::Problem(KeysParked | RecordTooLarge | RowUnreadable)
    )
}

fn is_lasting(inputs: &ConditionInputs<'_>, since: Timestamp) -> bool {
    inputs.context.now.duration_since(since) >= REPORTED_AFTER
}

/// Returns whether a problem has lasted, by the clocks of the relays. Older relays do not report
/// since when a problem exists; then it has.
fn lasts(inputs: &ConditionInputs<'_>) -> bool {
    let breaker = open_breaker(inputs).map(|(_, breaker)| Some(breaker.since.as_str()));
    let stopping = problems(inputs).filter(|(_, problem)| stops_publishing(problem));
    let mut begins = breaker
        .into_iter()
        .chain(stopping.map(|(_, problem)| problem.since.as_deref()));
    begins.any(|since| {
        let since = since.and_then(|since| since.parse().ok());
        // A clock that is far ahead must not hide a problem until its time has come.
        let begins_later =
            |since: Timestamp| since.duration_since(inputs.context.now) >= REPORTED_AFTER;
        since.is_none_or(|since| is_lasting(inputs, since) || begins_later(since))
    })
}

fn reported(inputs: &ConditionInputs<'_>) -> Finding {
    if !inputs.observed.has_reports() {
        let message = "No relay has reported.".to_owned();
        return finding(State::Unknown, Reason::NoReports, message);
    }
    let all: Vec<_> = problems(inputs).collect();
    let worst = all.iter().find(|(_, problem)| stops_publishing(problem));
    if let Some(outage) = outage(inputs, worst.map(|(_, problem)| *problem)) {
        return outage;
    }
    match (worst, all.first()) {
        (Some(worst), _) => one_of(&all, worst, State::False),
        (None, Some(first)) => one_of(&all, first, State::True),
        (None, None) => {
            let message = "Relays publish rows as they are committed.".to_owned();
            finding(State::True, Reason::Publishing, message)
        }
    }
}

/// Finds `Publishing` from an open breaker, unless `worst` is the better reason.
fn outage(inputs: &ConditionInputs<'_>, worst: Option<&Problem>) -> Option<Finding> {
    let (pod, _) = open_breaker(inputs)?;
    let is_better = worst.is_some_and(|problem| !is_an_outage(problem.class));
    (!is_better).then(|| breaker_open(pod, worst))
}

/// Finds `Publishing` from one of the reported problems.
fn one_of(all: &[(&str, &Problem)], (pod, problem): &(&str, &Problem), state: State) -> Finding {
    let others = other_classes(all, problem.class);
    let message = format!("Pod '{pod}': {}{others}", sentence(&problem.message));
    finding(state, Reason::Problem(problem.class), message)
}

/// Lists the classes of the other problems, each once.
fn other_classes(all: &[(&str, &Problem)], shown: ProblemClass) -> String {
    let classes = all.iter().map(|(_, problem)| problem.class);
    let others: BTreeSet<String> = classes
        .filter(|class| *class != shown)
        .map(|class| class.to_string())
        .collect();
    if others.is_empty() {
        return String::new();
    }
    let others: Vec<String> = others.into_iter().collect();
    format!(" Also reported: {}.", others.join(", "))
}

fn breaker_open(pod: &str, problem: Option<&Problem>) -> Finding {
    let cause = match problem {
        Some(problem) => sentence(&problem.message),
        None => "The relay retries automatically.".to_owned(),
    };
    let message = format!("Pod '{pod}': Kafka acknowledges no records, so rows wait. {cause}");
    finding(State::False, Reason::BreakerOpen, message)
}

fn open_breaker<'a>(inputs: &'a ConditionInputs<'_>) -> Option<(&'a str, &'a Breaker)> {
    let mut breakers = inputs
        .observed
        .reports
        .iter()
        .filter_map(|one| Some((one.pod.as_str(), one.report.as_ref()?.breaker.as_ref()?)));
    breakers.find(|(_, breaker)| breaker.state == BreakerState::Open)
}

/// Returns whether an open breaker is the better reason. It is not for a refused login, for
/// example, which a person must fix.
fn is_an_outage(class: ProblemClass) -> bool {
    matches!(
        class,
        ProblemClass::KafkaUnreachable | ProblemClass::KafkaError | ProblemClass::TopicStalled
    )
}
