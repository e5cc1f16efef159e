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
            "The operator writes only this status until the annotation {PAUSED} is removed. \
             Running relays continue."
        );
        Finding::new(ConditionType::Paused, State::True, Reason::Paused, message)
    } else {
        Finding::new(
            ConditionType::Paused,
            State::False,
            Reason::NotPaused,
            "The operator carries out changes of the manifest.",
        )
    }
}
