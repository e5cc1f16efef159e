//! Bugs that a run must find: planted in the relay (`src/planted.rs`) or in the database. One that
//! it does not find is a defect of this harness.

use std::time::Duration;

use crate::{
    checker::{
        Promise::{self, *},
        Verdict,
    },
    schedule::{self, Fault, Kind},
};

/// Where the bug is.
#[derive(Clone, Copy)]
pub(crate) enum Plant {
    /// In the relay: its name there.
    Relay(&'static str),
    /// In the database, after the migration.
    Database(&'static str),
}

/// Faults that provoke a bug.
#[derive(Clone, Copy)]
pub(crate) enum Faults {
    /// Any of these, by lot.
    Drawn(&'static [Kind]),
    /// For bugs that show only when one fault meets another.
    At(&'static [Fault]),
}

/// This, after so many milliseconds, for so many.
const fn fault(at: u64, kind: Kind, during: u64, victim: u64) -> Fault {
    Fault {
        kind,
        at: Duration::from_millis(at),
        during: Duration::from_millis(during),
        victim,
    }
}

/// Batches are refused twice: in between relays start anew, for one that was refused a batch makes
/// smaller ones.
const REFUSALS: Faults = Faults::At(&[
    fault(10_000, Kind::LimitBatches, 5_000, 0),
    fault(18_000, Kind::Scale, 9_000, 0),
    fault(30_000, Kind::LimitBatches, 5_000, 1),
]);

/// A bug, how it is provoked, and which promises it may break: any of them will do.
#[derive(Clone, Copy)]
pub(crate) struct Control {
    pub(crate) name: &'static str,
    pub(crate) plant: Plant,
    pub(crate) faults: Faults,
    /// Unless it is found before.
    pub(crate) seconds: u64,
    pub(crate) breaks: &'static [Promise],
}

impl Control {
    pub(crate) fn schedule(&self, seed: u64) -> Vec<Fault> {
        match self.faults {
            Faults::Drawn(kinds) => schedule::draw(seed, Duration::from_secs(self.seconds), kinds),
            Faults::At(faults) => faults.to_vec(),
        }
    }

    /// Whether the promises that it breaks can be judged while writers write.
    pub(crate) fn shows_early(&self) -> bool {
        !self.breaks.contains(&NothingWaits)
    }

    /// Whether a verdict shows the bug.
    pub(crate) fn is_found(&self, verdict: &Verdict) -> bool {
        self.breaks
            .iter()
            .any(|promise| verdict.broken.contains_key(promise))
    }
}

const OUT_OF_ORDER: &[Promise] = &[Order, SeqIsEnough];

/// The lane of a key changes with every thousand rows, as if somebody changed the hash while relays
/// run.
const ANOTHER_LANE: &str = "do $$
    declare
      pending text := pg_get_viewdef('outbox.pending');
    begin
      drop view outbox.pending;
      alter table outbox.event drop constraint event_pkey, drop column lane;
      alter table outbox.event add column lane smallint not null generated always as
        ((hashtextextended(coalesce(event_key, aggregate_id) collate \"C\", id / 1000) & 63)::smallint) stored;
      alter table outbox.event add constraint event_pkey primary key (lane, id);
      execute 'create view outbox.pending as ' || pending;
    end $$";

/// Rows are deleted by lane and id, whatever event they are.
const SETTLE_BY_ID: &str = "create or replace function outbox.settle
    (lanes smallint[], ids bigint[], event_ids uuid[], out tick xid8, out settled bigint)
    language plpgsql volatile security definer set search_path = outbox, pg_temp set enable_seqscan = off as $$
    begin
      tick := pg_current_xact_id();
      delete from event as e using unnest(lanes, ids) as u (lane, id) where e.lane = u.lane and e.id = u.id;
      get diagnostics settled = row_count;
    end $$";

/// Rows are deleted by place, whatever row lies there by now.
const SETTLE_BY_PLACE: &str = "create or replace function outbox.settle
    (lanes smallint[], ids bigint[], event_ids uuid[], places tid[], out tick xid8, out settled bigint)
    language plpgsql volatile security definer set search_path = outbox, pg_temp set enable_seqscan = off as $$
    begin
      tick := pg_current_xact_id();
      delete from event as e using unnest(places) as u (place) where e.ctid = u.place;
      get diagnostics settled = row_count;
    end $$";

pub(crate) const CONTROLS: &[Control] = &[
    Control {
        name: "gapless-off",
        plant: Plant::Relay("gapless-off"),
        faults: REFUSALS,
        seconds: 60,
        breaks: OUT_OF_ORDER,
    },
    Control {
        name: "message-timeout",
        plant: Plant::Relay("message-timeout"),
        faults: Faults::Drawn(&[Kind::PauseBroker, Kind::KillBroker]),
        seconds: 60,
        breaks: OUT_OF_ORDER,
    },
    Control {
        name: "order-by-xid",
        plant: Plant::Relay("order-by-xid"),
        faults: Faults::Drawn(&[Kind::KillRelay]),
        seconds: 45,
        breaks: OUT_OF_ORDER,
    },
    Control {
        name: "forward-only",
        plant: Plant::Relay("forward-only"),
        faults: Faults::Drawn(&[]),
        seconds: 20,
        breaks: &[NothingWaits],
    },
    Control {
        name: "ack-before-report",
        plant: Plant::Relay("ack-before-report"),
        faults: Faults::Drawn(&[Kind::PauseBroker, Kind::KillRelay]),
        seconds: 60,
        breaks: &[NothingLost],
    },
    Control {
        name: "lane-hash-changed",
        plant: Plant::Database(ANOTHER_LANE),
        faults: Faults::Drawn(&[Kind::KillRelay, Kind::PauseRelay]),
        seconds: 60,
        breaks: OUT_OF_ORDER,
    },
    Control {
        name: "no-in-flight-check",
        plant: Plant::Relay("no-in-flight-check"),
        faults: Faults::Drawn(&[]),
        seconds: 15,
        breaks: &[DuplicatesAfterFaultsOnly],
    },
    Control {
        name: "forget-at-once",
        plant: Plant::Relay("forget-at-once"),
        faults: Faults::Drawn(&[]),
        seconds: 30,
        breaks: &[DuplicatesAfterFaultsOnly],
    },
    Control {
        name: "settle-by-id",
        plant: Plant::Database(SETTLE_BY_ID),
        // What is in flight is acknowledged when its ids are those of other rows, and before relays
        // give it up.
        faults: Faults::At(&[
            fault(10_000, Kind::PauseBroker, 3_000, 0),
            fault(11_500, Kind::SetBack, 100, 0),
            fault(22_000, Kind::PauseBroker, 3_000, 1),
            fault(23_500, Kind::SetBack, 100, 0),
            fault(34_000, Kind::PauseBroker, 3_000, 2),
            fault(35_500, Kind::SetBack, 100, 0),
            fault(46_000, Kind::PauseBroker, 3_000, 0),
            fault(47_500, Kind::SetBack, 100, 0),
            fault(58_000, Kind::PauseBroker, 3_000, 1),
            fault(59_500, Kind::SetBack, 100, 0),
            fault(70_000, Kind::PauseBroker, 3_000, 2),
            fault(71_500, Kind::SetBack, 100, 0),
        ]),
        seconds: 80,
        breaks: &[NothingLost],
    },
    Control {
        name: "settle-by-place",
        plant: Plant::Database(SETTLE_BY_PLACE),
        // Records wait for a broker, their topics stand, their rows go, and others that nobody has
        // read yet take their places.
        faults: Faults::At(&[
            fault(10_000, Kind::Empty, 100, 0),
            fault(10_500, Kind::PauseBroker, 5_500, 0),
            fault(13_500, Kind::Empty, 100, 0),
            fault(24_000, Kind::Empty, 100, 0),
            fault(24_500, Kind::PauseBroker, 5_500, 1),
            fault(27_500, Kind::Empty, 100, 0),
            fault(38_000, Kind::Empty, 100, 0),
            fault(38_500, Kind::PauseBroker, 5_500, 2),
            fault(41_500, Kind::Empty, 100, 0),
        ]),
        seconds: 50,
        breaks: &[NothingLost],
    },
    Control {
        name: "clock-unnoticed",
        plant: Plant::Relay("clock-unnoticed"),
        // The relay asks about topics while there are no brokers and its clock is a day ahead;
        // later it begins anew, and needs to know of them.
        faults: Faults::At(&[
            fault(10_000, Kind::StepClock, 14_000, 3),
            fault(11_000, Kind::KillTwoBrokers, 6_000, 0),
            fault(30_000, Kind::PauseRelay, 25_000, 0),
        ]),
        seconds: 60,
        breaks: &[NothingWaits],
    },
    Control {
        name: "next-producer-early",
        plant: Plant::Relay("next-producer-early"),
        faults: REFUSALS,
        seconds: 60,
        breaks: OUT_OF_ORDER,
    },
];

pub(crate) fn named(name: &str) -> Option<&'static Control> {
    CONTROLS.iter().find(|control| control.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::CALM;

    #[test]
    fn faults_of_a_control_begin_after_the_calm_and_are_over_before_its_end() {
        for control in CONTROLS {
            let end = Duration::from_secs(control.seconds);
            let misfit = |fault: &Fault| fault.at < CALM || fault.at + fault.during > end;
            assert_eq!(
                control.schedule(7).into_iter().find(misfit),
                None,
                "{}",
                control.name
            );
        }
    }
}
