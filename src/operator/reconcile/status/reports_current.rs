//! `ReportsAvailable`: do all relays report their state? It does not change `Ready`: a relay that
//! cannot be reached may publish all the same. Pure.

use crate::operator::{
    reason::Reason,
    reconcile::{
        observe::Observed,
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
    match zero_cause_if_none_runs(inputs) {
        Some((reason, _)) => no_relay_runs(reason),
        None => while_relays_run(inputs.observed),
    }
}

fn while_relays_run(observed: &Observed) -> Finding {
    if load::total(&observed.reports).is_some() {
        let message = "Relays report for all lanes.";
        return finding(State::True, Reason::ReportsComplete, message);
    }
    reports_missing(observed)
}

fn reports_missing(observed: &Observed) -> Finding {
    if !observed.has_reports() {
        let message = "No relay has reported. If this persists, check whether a NetworkPolicy \
                       keeps the operator from port 9090 of the relays.";
        return finding(State::False, Reason::NoReports, message);
    }
    let message = "Some lanes have no relay that reports their backlog. The total is unknown, so \
                   scaling adds and removes no relay.";
    finding(State::False, Reason::ReportsIncomplete, message)
}

fn finding(state: State, reason: Reason, message: &str) -> Finding {
    Finding::new(ConditionType::ReportsAvailable, state, reason, message)
}

/// Finds `ReportsAvailable` where no relay runs.
pub(super) fn no_relay_runs(reason: Reason) -> Finding {
    let message = "No relay runs, so none reports.";
    finding(State::Unknown, reason, message)
}
