//! The lease: its rounds, and the lanes that they bring and take.

use std::time::Instant;

use crate::outbox::WantedParked;
use crate::relay::{
    core::lane_share::{LaneMoves, survey_pause},
    lease::{Claims, HeldLease, LeaseOutcome, LeaseRound, ParkedLanes, Renewed, run_round},
    session::{Session, shutdown::SessionEnd, tasks::LeaseRoundEnd},
    status::ProblemSource,
};

impl Session<'_> {
    /// Starts a round if it is time. Rounds go on while the session shuts down: they give its lanes
    /// back as these are drained.
    pub(super) fn start_lease_round(&mut self, now: Instant) {
        if self.is_lease_round_due(now) {
            let round = run_round(self.store.clone(), self.lease_round(now));
            self.tasks.lease_round.start(round);
        }
    }

    fn is_lease_round_due(&self, now: Instant) -> bool {
        // With a regressed sequence the watermarks mean nothing any more, and must not be written.
        !self.has_regressed()
            && self.tasks.lease_round.is_idle()
            && (now >= self.timers.lease_round || self.may_release(now))
    }

    /// Whether lanes can be given back now. Their keys wait until another relay claims them.
    fn may_release(&self, now: Instant) -> bool {
        now >= self.timers.database && self.core.has_drained_lanes()
    }

    /// Whether lanes can be given back now, or once the doorbell has unlocked them.
    pub(super) fn will_release(&self, now: Instant) -> bool {
        self.may_release(now) || self.core.may_hold_bell_locks()
    }

    /// What a round that begins now needs to know.
    fn lease_round(&self, now: Instant) -> LeaseRound {
        let watermarks = self.core.watermarks();
        LeaseRound {
            instance: self.registration.instance,
            incarnation: self.registration.incarnation,
            known: watermarks.iter().map(|owned| owned.lane).collect(),
            renew: (now >= self.timers.renewal).then_some(watermarks),
            release: self.core.drained_lanes(),
            owned: self.core.owned_lanes(),
            seen: self.core.highest_id(),
            breaker: self.core.breaker().state(),
            health: self.core.breaker().health(now),
            claims: self.claims(),
            parked: self.wanted_parked(now),
        }
    }

    fn wanted_parked(&self, now: Instant) -> WantedParked {
        if now >= self.timers.parked {
            WantedParked::Unless(self.known_parked.filter(|_| self.core.knows_parked()))
        } else {
            WantedParked::No
        }
    }

    fn claims(&self) -> Claims {
        if self.is_shutting_down() {
            Claims::Stopped
        } else {
            Claims::Allowed
        }
    }

    /// Takes the lanes that a round brought and drops those that it took. Returns the session's end
    /// if the lease is lost.
    pub(super) fn on_lease_round(&mut self, result: LeaseRoundEnd) -> Option<SessionEnd> {
        let now = Instant::now();
        let pause = survey_pause(lane_moves(&result), self.timers.traffic(now));
        self.timers.lease_round_ended(now, pause);
        if self.has_regressed() {
            return None;
        }
        match result {
            Ok(LeaseOutcome::Held(held)) => self.on_lease_held(held, now),
            Ok(LeaseOutcome::Lost) => Some(SessionEnd::LeaseLost),
            Err(error) => {
                self.on_database_error(ProblemSource::Database, &error, now);
                None
            }
        }
    }

    /// Carries out a round that found the lease valid.
    fn on_lease_held(&mut self, held: HeldLease, now: Instant) -> Option<SessionEnd> {
        // Another relay may have claimed lanes if this process was paused beyond its lease: then
        // the renewal does not cover exactly the lanes that we own here.
        if let Some(renewed) = held.renewed
            && !self.on_renewed(&renewed)
        {
            return Some(SessionEnd::LeaseLost);
        }
        // Lanes that were released first: one of them may have been granted again.
        self.core.on_released(&held.released);
        self.core.on_granted(&held.granted, now);
        if !held.granted.is_empty() {
            self.on_lanes_uncounted(now);
        }
        if let Some(parked) = held.parked {
            self.on_parked_read(parked, now);
        }
        self.core.drain(held.give_back, now);
        self.reporter.work_succeeded(ProblemSource::Database);
        self.reporter.set_owned_lanes(self.core.owned_lanes());
        None
    }

    /// Takes what is parked in our lanes, unless that is known already.
    fn on_parked_read(&mut self, parked: ParkedLanes, now: Instant) {
        let ParkedLanes {
            reading,
            lanes,
            read_at,
        } = parked;
        self.timers.parked_read(reading.listed, now);
        if let Some(parked) = reading.changed {
            self.core.set_parked(&parked, &lanes, read_at, now);
            self.known_parked = Some(reading.digest);
        }
    }

    /// Extends the time for which the lease is trusted. Returns whether exactly our lanes were
    /// renewed.
    fn on_renewed(&mut self, renewed: &Renewed) -> bool {
        self.timers.lease_renewed(renewed.sent);
        self.core.on_tick(renewed.tick);
        self.core.owns_exactly(&renewed.ours)
    }
}

/// Whether a round found lanes on their way from one relay to another. A round that failed found
/// nothing.
fn lane_moves(round: &LeaseRoundEnd) -> LaneMoves {
    match round {
        Ok(LeaseOutcome::Held(held)) => held.lane_moves,
        _ => LaneMoves::None,
    }
}
