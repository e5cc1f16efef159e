//! Findings -> conditions as Kubernetes keeps them: each with the generation it was found for, and
//! the time when its status last flipped. Pure.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use crate::operator::reason::Reason;

/// Longest message of a condition; the API server takes 32 KiB, people take less.
const MESSAGE_BYTES_MAX: usize = 1024;

/// What was found for one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub type_: &'static str,
    pub state: State,
    pub reason: String,
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
    pub(crate) fn of(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl Finding {
    pub(crate) fn new(
        type_: &'static str,
        state: State,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        Self {
            type_,
            state,
            reason: reason.name(),
            message,
        }
    }

    /// The same cause, said by another condition.
    pub(crate) fn as_type(&self, type_: &'static str, state: State) -> Self {
        Self {
            type_,
            state,
            ..self.clone()
        }
    }

    pub(crate) fn holds(&self) -> bool {
        self.state == State::True
    }
}

pub(crate) fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// What was said before, as it was said, if it was this.
pub(crate) fn repeat(
    conditions: &[Condition],
    type_: &'static str,
    state: State,
) -> Option<Finding> {
    let said = find(conditions, type_).filter(|condition| condition.status == state.text())?;
    Some(Finding {
        type_,
        state,
        reason: said.reason.clone(),
        message: said.message.clone(),
    })
}

/// New findings over old conditions; a condition that nothing was found for stays as it is.
pub(super) fn merge(
    previous: &[Condition],
    findings: Vec<Finding>,
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = previous.to_vec();
    for finding in findings {
        let old = all
            .iter()
            .position(|condition| condition.type_ == finding.type_);
        let unflipped = old
            .map(|at| all.remove(at))
            .filter(|condition| condition.status == finding.state.text());
        let condition = Condition {
            last_transition_time: unflipped
                .map_or(Time(now), |condition| condition.last_transition_time),
            message: finding.message,
            observed_generation: Some(generation),
            reason: finding.reason,
            status: finding.state.text().to_owned(),
            type_: finding.type_.to_owned(),
        };
        all.insert(old.unwrap_or(all.len()), condition);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::fixtures::{at, now};

    fn found(state: State, message: &str) -> Finding {
        Finding::new("Ready", state, Reason::Ready, message)
    }

    #[test]
    fn the_time_changes_only_when_the_status_flips() {
        let first = merge(&[], vec![found(State::False, "a")], 1, now());
        let second = merge(&first, vec![found(State::False, "b")], 2, at(5));
        assert_eq!(second[0].last_transition_time.0, now());
        assert_eq!(
            (second[0].message.as_str(), second[0].observed_generation),
            ("b", Some(2))
        );
        let third = merge(&second, vec![found(State::True, "c")], 2, at(9));
        assert_eq!(third[0].last_transition_time.0, at(9));
    }

    #[test]
    fn what_was_not_looked_at_keeps_its_generation() {
        let both = merge(
            &[],
            vec![
                found(State::True, "a"),
                Finding::new("Other", State::True, Reason::Ready, "o"),
            ],
            1,
            now(),
        );
        let next = merge(&both, vec![found(State::True, "a")], 2, at(1));
        assert_eq!(
            next.iter()
                .map(|one| (one.type_.as_str(), one.observed_generation))
                .collect::<Vec<_>>(),
            [("Ready", Some(2)), ("Other", Some(1))]
        );
    }

    #[test]
    fn a_long_message_is_cut() {
        assert!(found(State::True, &"ä".repeat(3000)).message.len() <= MESSAGE_BYTES_MAX);
    }
}
