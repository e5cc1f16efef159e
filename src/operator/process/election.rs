//! Who leads: what a candidate does about the Lease that it observed. Pure.
//!
//! The times written in a Lease are never compared, since the clocks of two machines differ. A
//! candidate measures by its own clock for how long the Lease has not changed; its holder measures
//! from before it requested the last renewal. So the holder stops first.

use std::time::{Duration, Instant};

/// A candidate takes a Lease that it observed unchanged for this time.
pub(crate) const LEASE_DURATION: Duration = Duration::from_secs(14);
/// The holder stops working when its last renewal is this old.
pub(crate) const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Age of the last renewal at which the API server gives up the holder's unfinished writes: each
/// carries the time that is left as its limit.
pub(crate) const WRITES_DEADLINE: Duration = Duration::from_secs(13);
/// Time from one renewal to the next.
pub(crate) const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// Longest time between two reads by a candidate that waits: the Lease may have been given back.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(1);

// The holder stops, then its writes end, and only then another one takes the Lease.
const _: () = assert!(
    RENEW_DEADLINE.as_secs() < WRITES_DEADLINE.as_secs()
        && WRITES_DEADLINE.as_secs() < LEASE_DURATION.as_secs()
);

/// A Lease as the API server returned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObservedLease {
    /// `resourceVersion`: it changes with every write.
    pub version: String,
    /// `None`: it was given back.
    pub holder: Option<String>,
    /// Time without a renewal after which its holder no longer writes.
    pub duration: Duration,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// No operator leads: write our name, in a request that fails if another one writes first.
    Take,
    /// This operator leads: renew the Lease.
    Renew,
    /// Another operator leads: read the Lease again after this pause.
    Wait(Duration),
    /// This operator led, and the Lease has another holder now.
    LeaseLost { holder: String },
}

/// An operator that leads, or would like to.
#[derive(Debug)]
pub(crate) struct LeaderElection {
    identity: String,
    /// The Lease as it was observed last, and since when it has been unchanged.
    observed: Option<(ObservedLease, Instant)>,
    leads: bool,
}

impl LeaderElection {
    pub(crate) fn new(identity: String) -> Self {
        Self {
            identity,
            observed: None,
            leads: false,
        }
    }

    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// Records a read of the Lease and decides what to do. `None` means that there is no Lease. One
    /// that was deleted may have a holder that has not noticed, so the last observation stays
    /// valid.
    pub(crate) fn observe(&mut self, lease: Option<ObservedLease>, now: Instant) -> Step {
        if let Some(lease) = lease {
            self.remember(lease, now);
        }
        let Some((lease, since)) = &self.observed else {
            return Step::Take;
        };
        match &lease.holder {
            None => Step::Take,
            Some(holder) if *holder == self.identity && self.leads => Step::Renew,
            // Ours from before a restart of this process.
            Some(holder) if *holder == self.identity => Step::Take,
            Some(holder) if self.leads => Step::LeaseLost {
                holder: holder.clone(),
            },
            Some(_) => wait_until(*since + lease.duration, now),
        }
    }

    /// Records that the API server wrote our name.
    pub(crate) fn record_write(&mut self, lease: ObservedLease, now: Instant) {
        self.leads = true;
        self.remember(lease, now);
    }

    fn remember(&mut self, lease: ObservedLease, now: Instant) {
        if self
            .observed
            .as_ref()
            .is_none_or(|(last, _)| *last != lease)
        {
            self.observed = Some((lease, now));
        }
    }
}

/// Waits for the end of another operator's Lease, but not longer than to the next read.
fn wait_until(end: Instant, now: Instant) -> Step {
    let left = end.saturating_duration_since(now);
    if left.is_zero() {
        return Step::Take;
    }
    Step::Wait(left.min(POLL_INTERVAL))
}

#[cfg(test)]
mod tests;
