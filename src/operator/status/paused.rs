//! `Paused`: does the annotation keep the operator from acting? Pure.

use super::{
    Facts,
    conditions::{Finding, State},
};
use crate::operator::{identity::PAUSED, reason::Reason};

pub(super) fn paused(facts: &Facts<'_>) -> Finding {
    if facts.paused {
        let message = format!(
            "Nothing but this status is written, and relays that run go on, until the annotation \
             {PAUSED} is removed."
        );
        Finding::new("Paused", State::True, Reason::Paused, message)
    } else {
        Finding::new(
            "Paused",
            State::False,
            Reason::NotPaused,
            "The operator carries out what the manifest says.",
        )
    }
}
