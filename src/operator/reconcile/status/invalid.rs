//! Conditions of an invalid manifest, and of its relays, which keep running or were stopped. Pure.

use crate::operator::{
    reason::Reason,
    reconcile::{
        apply::{Applied, ApplyError},
        observe::Observed,
        plan::InvalidPlan,
        status::{
            available::{ZeroCause, without_relays, zero_cause},
            conditions::{ConditionType, Finding, State},
            publishing, ready, reports_current, scaling,
        },
        validate::ValidationError,
    },
};

/// Returns findings; other conditions stay as they were found for the manifest before.
pub(super) fn invalid(
    plan: &InvalidPlan<'_>,
    applied: &Applied,
    observed: &Observed,
) -> Vec<Finding> {
    let reason = reason(plan.error);
    let (zero, left) = (plan.zero.and_then(zero_cause), observed.relays());
    let relays = relays(zero, left, applied.error.as_ref());
    let mut findings = ready::stalled(reason, &format!("{}. {relays}", plan.error));
    findings.push(zero.map_or_else(|| scaling::held(reason), scaling::off));
    findings.extend(available(reason, zero, left));
    if left == 0 {
        findings.extend(without_relays_left(
            zero.unwrap_or((reason, "no relay runs")),
        ));
    }
    findings
}

fn reason(error: &ValidationError) -> Reason {
    match error {
        ValidationError::Spec(_) => Reason::InvalidSpec,
        ValidationError::ImageNotAllowed(_) => Reason::ImageNotAllowed,
    }
}

fn without_relays_left(zero: ZeroCause) -> [Finding; 2] {
    let (reason, _) = zero;
    [
        publishing::stopped(zero),
        reports_current::no_relay_runs(reason),
    ]
}

fn relays(zero: Option<ZeroCause>, left: usize, error: Option<&ApplyError>) -> String {
    match (zero, error) {
        (Some(_), Some(error)) => {
            format!(
                "Relays could not be stopped: {}",
                ready::retry_message(error)
            )
        }
        (Some(zero), None) => without_relays(zero, left).message,
        (None, _) if left == 0 => "No relay is started until this is corrected.".to_owned(),
        (None, _) => "Running relays keep their old settings.".to_owned(),
    }
}

/// Finds `Available` if no relay runs or is requested. Relays that keep running are as available as
/// they were.
fn available(reason: Reason, zero: Option<ZeroCause>, left: usize) -> Option<Finding> {
    let message = "No relay runs, and none is started until the manifest is corrected.";
    let none =
        (left == 0).then(|| Finding::new(ConditionType::Available, State::False, reason, message));
    zero.map(|zero| without_relays(zero, left)).or(none)
}
