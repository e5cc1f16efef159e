//! `Paused`: does the annotation keep the operator from acting? Pure.

use crate::operator::{
    identity::PAUSED,
    reason::Reason,
    reconcile::status::{
        StatusInputs,
        conditions::{ConditionType, Finding, State},
    },
};

/// Finds condition `Paused`.
pub(super) fn paused(context: &StatusInputs<'_>) -> Finding {
    if context.paused {
        let message = format!(
            "Nothing but this status is written, and relays that run go on, until the annotation \
             {PAUSED} is removed."
        );
        Finding::new(ConditionType::Paused, State::True, Reason::Paused, message)
    } else {
        Finding::new(
            ConditionType::Paused,
            State::False,
            Reason::NotPaused,
            "The operator carries out what the manifest says.",
        )
    }
}
