//! A manifest that cannot work: what is said of it, and of the relays that run on or were stopped
//! all the same. Pure.

use super::{
    Invalid,
    available::{Wish, none_wanted, without_relays},
    conditions::{Finding, State},
    publishing, ready, reports, scaling,
};
use crate::operator::{apply::ApplyError, observe::Observed, reason::Reason, validate::Unworkable};

/// What is not found here stays as it was said of the manifest before.
pub(super) fn invalid(
    Invalid {
        why,
        wish,
        obstacle,
    }: &Invalid<'_>,
    observed: &Observed,
) -> Vec<Finding> {
    let reason = match why {
        Unworkable::Spec(_) => Reason::InvalidSpec,
        Unworkable::ImageNotAllowed(_) => Reason::ImageNotAllowed,
    };
    let (wish, left) = (wish.and_then(none_wanted), observed.relays());
    let mut findings = ready::stalled(reason, &format!("{why}. {}", relays(wish, left, *obstacle)));
    findings.push(wish.map_or_else(|| scaling::held(reason), scaling::off));
    findings.extend(available(reason, wish, left));
    if left == 0 {
        let (reason, why) = wish.unwrap_or((reason, "no relay runs"));
        findings.extend([publishing::stopped((reason, why)), reports::nobody(reason)]);
    }
    findings
}

fn relays(wish: Option<Wish>, left: usize, obstacle: Option<&ApplyError>) -> String {
    match (wish, obstacle) {
        (Some(_), Some(error)) => {
            format!("Relays could not be stopped: {}", ready::tried_again(error))
        }
        (Some(wish), None) => without_relays(wish, left).message,
        (None, _) if left == 0 => "No relay is started before that is mended.".to_owned(),
        (None, _) => "Relays that run go on with their old settings.".to_owned(),
    }
}

/// Relays that run on are as available as they were.
fn available(reason: Reason, wish: Option<Wish>, left: usize) -> Option<Finding> {
    let message = "No relay runs, and none is started before the manifest can work.";
    let none = (left == 0).then(|| Finding::new("Available", State::False, reason, message));
    wish.map(|wish| without_relays(wish, left)).or(none)
}
