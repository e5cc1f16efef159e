//! `ReportsAvailable`: do all relays report their state? It does not change `Ready`: a relay that
//! cannot be reached may publish all the same. Pure.

use crate::operator::{
    reason::Reason,
    reconcile::{
        plan::load,
        status::{
            ConditionInputs,
            available::zero_cause_if_none_runs,
            conditions::{ConditionType, Finding, State},
        },
    },
};

/// Finds condition `ReportsAvailable`.
pub(super) fn reports_available(inputs: &ConditionInputs<'_>) -> Finding {
    let finding = |state, reason, message: &str| {
        Finding::new(ConditionType::ReportsAvailable, state, reason, message)
    };
    if let Some((reason, _)) = zero_cause_if_none_runs(inputs) {
        return no_relay_runs(reason);
    }
    let reports = &inputs.observed.reports;
    if load::total(reports).is_some() {
        return finding(
            State::True,
            Reason::ReportsComplete,
            "Relays report for all lanes.",
        );
    }
    if reports.iter().all(|one| one.report.is_none()) {
        let next = "If this persists, check whether a NetworkPolicy keeps the operator from port \
            9090 of the relays.";
        return finding(
            State::False,
            Reason::NoReports,
            &format!("No relay has reported. {next}"),
        );
    }
    let message = "Some lanes have no relay that reports their backlog. The total is unknown, so \
                   scaling adds and removes no relay.";
    finding(State::False, Reason::ReportsIncomplete, message)
}

/// Finds `ReportsAvailable` where no relay runs.
pub(super) fn no_relay_runs(reason: Reason) -> Finding {
    Finding::new(
        ConditionType::ReportsAvailable,
        State::Unknown,
        reason,
        "No relay runs, so none reports.",
    )
}
