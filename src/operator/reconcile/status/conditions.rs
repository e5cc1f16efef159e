//! Findings -> conditions as Kubernetes keeps them: each with the generation it was found for, and
//! the time when its status last changed. Types and reasons become text here. Pure.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use crate::{api::OutboxRelayStatus, operator::reason::Reason};

/// Longest message of a condition, in bytes. The API server takes 32 KiB; people read less.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Conditions of an OutboxRelay; docs/status.md describes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConditionType {
    Ready,
    Reconciling,
    Stalled,
    SchemaReady,
    Available,
    Publishing,
    SecretsResolved,
    ReportsAvailable,
    ScalingActive,
    Paused,
}

impl ConditionType {
    /// Returns the type as the API has it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::SchemaReady => "SchemaReady",
            Self::Available => "Available",
            Self::Publishing => "Publishing",
            Self::SecretsResolved => "SecretsResolved",
            Self::ReportsAvailable => "ReportsAvailable",
            Self::ScalingActive => "ScalingActive",
            Self::Paused => "Paused",
        }
    }
}

/// What was found for one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub type_: ConditionType,
    pub state: State,
    pub reason: Reason,
    /// A sentence: what, why, and the next step.
    pub message: String,
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    True,
    False,
    Unknown,
}

impl State {
    /// Returns the status as the API has it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        }
    }
}

impl Finding {
    /// Returns a finding; a long message is cut.
    pub(crate) fn new(
        type_: ConditionType,
        state: State,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        Self {
            type_,
            state,
            reason,
            message: truncated(message, MESSAGE_BYTES_MAX),
        }
    }

    /// Returns a finding for another condition that has the same cause.
    pub(crate) fn as_type(&self, type_: ConditionType, state: State) -> Self {
        Self {
            type_,
            state,
            ..self.clone()
        }
    }

    /// Returns whether the condition is `True`.
    pub(crate) fn holds(&self) -> bool {
        self.state == State::True
    }
}

/// Returns the beginning of a text, whole characters of at most `bytes_max` bytes.
pub(super) fn truncated(text: impl Into<String>, bytes_max: usize) -> String {
    let mut text = text.into();
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

/// A condition of an earlier status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Previous<'a> {
    pub state: State,
    /// Absent if this version does not know the reason.
    pub reason: Option<Reason>,
    pub message: &'a str,
    pub generation: Option<i64>,
    /// When `state` last changed.
    pub since: Timestamp,
}

/// Returns the condition of this type, if the status has it.
pub(crate) fn find(conditions: &[Condition], type_: ConditionType) -> Option<Previous<'_>> {
    let found = conditions.iter().find(|one| one.type_ == type_.text())?;
    Some(Previous {
        state: State::parse(&found.status),
        reason: Reason::parse(&found.reason),
        message: &found.message,
        generation: found.observed_generation,
        since: found.last_transition_time.0,
    })
}

/// Returns the earlier condition as a finding, if it had this state. One with a reason that this
/// version does not know cannot be repeated.
pub(crate) fn repeat(
    conditions: &[Condition],
    type_: ConditionType,
    state: State,
) -> Option<Finding> {
    let previous = find(conditions, type_).filter(|previous| previous.state == state)?;
    Some(Finding {
        type_,
        state,
        reason: previous.reason?,
        message: previous.message.to_owned(),
    })
}

/// Returns the generation that was carried out last; nothing if something was left undone.
pub(crate) fn carried_out_generation(status: &OutboxRelayStatus) -> Option<i64> {
    let ready = find(&status.conditions, ConditionType::Ready);
    let undone = ready
        .and_then(|ready| ready.reason)
        .is_some_and(Reason::leaves_undone);
    (!undone).then_some(status.observed_generation)
}

/// Merges new findings into earlier conditions. A condition without a finding stays as it is.
pub(super) fn merge(
    previous: &[Condition],
    findings: &[Finding],
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = previous.to_vec();
    for finding in findings {
        let old = all
            .iter_mut()
            .find(|condition| condition.type_ == finding.type_.text());
        let condition = condition(finding, old.as_deref(), generation, now);
        match old {
            Some(old) => *old = condition,
            None => all.push(condition),
        }
    }
    all
}

/// Returns the condition of a finding. Its transition time changes only with its status, as the
/// API conventions of Kubernetes require: a new reason or message is no transition.
fn condition(
    finding: &Finding,
    old: Option<&Condition>,
    generation: i64,
    now: Timestamp,
) -> Condition {
    let status = finding.state.text();
    let since = match old {
        Some(old) if old.status == status => old.last_transition_time.clone(),
        _ => Time(now),
    };
    Condition {
        last_transition_time: since,
        message: finding.message.clone(),
        observed_generation: Some(generation),
        reason: finding.reason.name(),
        status: status.to_owned(),
        type_: finding.type_.text().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::fixtures::{at, now};

    fn found(state: State, message: &str) -> Finding {
        Finding::new(ConditionType::Ready, state, Reason::Ready, message)
    }

    #[test]
    fn the_time_changes_only_when_the_status_flips() {
        let first = merge(&[], &[found(State::False, "a")], 1, now());
        let second = merge(&first, &[found(State::False, "b")], 2, at(5));
        assert_eq!(second[0].last_transition_time.0, now());
        assert_eq!(
            (second[0].message.as_str(), second[0].observed_generation),
            ("b", Some(2))
        );
        let third = merge(&second, &[found(State::True, "c")], 2, at(9));
        assert_eq!(third[0].last_transition_time.0, at(9));
    }

    #[test]
    fn a_condition_without_a_finding_keeps_its_generation() {
        let both = merge(
            &[],
            &[
                found(State::True, "a"),
                Finding::new(ConditionType::Available, State::True, Reason::Ready, "o"),
            ],
            1,
            now(),
        );
        let next = merge(&both, &[found(State::True, "a")], 2, at(1));
        assert_eq!(
            next.iter()
                .map(|one| (one.type_.as_str(), one.observed_generation))
                .collect::<Vec<_>>(),
            [("Ready", Some(2)), ("Available", Some(1))]
        );
    }

    #[test]
    fn a_long_message_is_cut() {
        assert!(found(State::True, &"ä".repeat(3000)).message.len() <= MESSAGE_BYTES_MAX);
    }
}
