//! Who leads: what a candidate does about the Lease as it finds it. Pure.
//!
//! The times written in a Lease are never compared, since the clocks of two machines differ. A
//! candidate measures by its own clock for how long the Lease has not changed; its holder measures
//! from before it asked for the last renewal. So the holder stops first.

use std::time::{Duration, Instant};

/// A candidate takes a Lease that it saw unchanged for so long.
pub(crate) const DURATION: Duration = Duration::from_secs(14);
/// The holder stops working when its last renewal is so old.
pub(crate) const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// The API server is told to give up what the holder still has with it before this age of the last
/// renewal.
pub(crate) const WRITES_END: Duration = Duration::from_secs(13);
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(2);
/// A candidate looks so often whether the Lease was given back.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

const _: () = assert!(
    RENEW_DEADLINE.as_secs() < WRITES_END.as_secs() && WRITES_END.as_secs() < DURATION.as_secs()
);

/// A Lease as the API server showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// `resourceVersion`: another one means that somebody wrote.
    pub version: String,
    /// Nobody: it was given back.
    pub holder: Option<String>,
    /// What its holder promised to be quiet after.
    pub duration: Duration,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nobody leads: write our name, in a request that fails when somebody else writes first.
    Take,
    Renew,
    /// Somebody else leads.
    Wait(Duration),
    /// We led, and it has another holder now.
    Lost {
        holder: String,
    },
}

/// One who leads or would like to.
#[derive(Debug)]
pub(crate) struct Candidate {
    me: String,
    /// The Lease as it was seen last, and since when it has been so.
    seen: Option<(Found, Instant)>,
    leads: bool,
}

impl Candidate {
    pub(crate) fn new(me: String) -> Self {
        Self {
            me,
            seen: None,
            leads: false,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.me
    }

    /// The Lease was read; `None`: there is none. One that somebody deleted may have a holder that
    /// does not know yet, so what was seen counts on.
    pub(crate) fn see(&mut self, found: Option<Found>, now: Instant) -> Step {
        if let Some(found) = found {
            self.remember(found, now);
        }
        let Some((lease, since)) = &self.seen else {
            return Step::Take;
        };
        match &lease.holder {
            None => Step::Take,
            Some(holder) if *holder == self.me => {
                if self.leads {
                    Step::Renew
                } else {
                    Step::Take
                }
            }
            Some(holder) if self.leads => Step::Lost {
                holder: holder.clone(),
            },
            Some(_) => {
                let rest = (*since + lease.duration).saturating_duration_since(now);
                if rest.is_zero() {
                    Step::Take
                } else {
                    Step::Wait(rest.min(LOOK_EVERY))
                }
            }
        }
    }

    /// The API server wrote our name.
    pub(crate) fn wrote(&mut self, found: Found, now: Instant) {
        self.leads = true;
        self.remember(found, now);
    }

    fn remember(&mut self, found: Found, now: Instant) {
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != found) {
            self.seen = Some((found, now));
        }
    }
}

#[cfg(test)]
mod tests;
