//! Bugs that a run must find. They are planted in the relay (`src/failpoints.rs`) or in the
//! database. A bug that a run does not find is a defect of the chaos test. Pure.

use std::time::Duration;

use crate::{
    checker::{
        CheckReport,
        Promise::{self, *},
    },
    schedule::{self, Fault, FaultKind},
};

/// A bug, by the place where it is planted.
#[derive(Clone, Copy)]
pub(crate) enum PlantedBug {
    /// Name of the bug in the relay: the value of `--planted-bug`.
    Relay(&'static str),
    /// SQL that runs after the migration.
    Database(&'static str),
}

/// Faults that provoke a bug.
#[derive(Clone, Copy)]
pub(crate) enum FaultPlan {
    /// Faults of these kinds, drawn from the seed.
    Drawn(&'static [FaultKind]),
    /// Fixed faults, for bugs that show only when one fault meets another.
    At(&'static [Fault]),
}

/// A fault that begins `at` and lasts for `duration`, both in milliseconds.
const fn fault(at: u64, kind: FaultKind, duration: u64, victim: u64) -> Fault {
    Fault {
        kind,
        at: Duration::from_millis(at),
        duration: Duration::from_millis(duration),
        victim,
    }
}

/// Kafka rejects batches twice. Relays restart in between, because a relay makes smaller batches
/// after one was rejected.
const REJECTED_BATCHES: FaultPlan = FaultPlan::At(&[
    fault(10_000, FaultKind::LimitBatches, 5_000, 0),
    fault(18_000, FaultKind::Scale, 9_000, 0),
    fault(30_000, FaultKind::LimitBatches, 5_000, 1),
]);

/// A bug, the faults that provoke it, and the promises that it may break.
#[derive(Clone, Copy)]
pub(crate) struct Control {
    pub(crate) name: &'static str,
    pub(crate) bug: PlantedBug,
    pub(crate) faults: FaultPlan,
    /// Length of the run in seconds, unless the bug is found earlier.
    pub(crate) seconds: u64,
    /// The bug is found if at least one of these promises is broken.
    pub(crate) violates: &'static [Promise],
}

impl Control {
    /// The faults of a run.
    pub(crate) fn schedule(&self, seed: u64) -> Vec<Fault> {
        match self.faults {
            FaultPlan::Drawn(kinds) => {
                schedule::draw(seed, Duration::from_secs(self.seconds), kinds)
            }
            FaultPlan::At(faults) => faults.to_vec(),
        }
    }

    /// Whether the promises that the bug breaks can be checked while writers write.
    pub(crate) fn is_found_while_writing(&self) -> bool {
        !self.violates.contains(&NothingWaits)
    }

    /// Whether a report shows the bug.
    pub(crate) fn is_found(&self, report: &CheckReport) -> bool {
        self.violates
            .iter()
            .any(|promise| report.violations.contains_key(promise))
    }
}

const OUT_OF_ORDER: &[Promise] = &[Order, SeqDeduplicates];

/// The lane of a key changes with every thousand rows, like a hash that changes while relays run.
const ANOTHER_LANE: &str = "do $$
    declare
      pending text := pg_get_viewdef('outbox.pending');
      ring text := pg_get_triggerdef(oid) from pg_trigger
        where tgrelid = 'outbox.event'::regclass and tgname = 'ring';
    begin
      drop view outbox.pending;
      drop trigger ring on outbox.event;
      alter table outbox.event drop constraint event_pkey, drop column lane;
      alter table outbox.event add column lane smallint not null generated always as
        ((hashtextextended(coalesce(event_key, aggregate_id) collate \"C\", id / 1000)
        & 63)::smallint) stored;
      alter table outbox.event add constraint event_pkey primary key (lane, id);
      execute 'create view outbox.pending as ' || pending;
      execute ring;
    end $$";

/// Settling deletes rows by lane and id, without comparing the event id.
const SETTLE_BY_ID: &str = "create or replace function outbox.settle
    (lanes smallint[], ids bigint[], event_ids uuid[], out tick xid8, out settled bigint)
    language plpgsql volatile security definer
    set search_path = outbox, pg_temp set enable_seqscan = off as $$
    begin
      tick := pg_current_xact_id();
      delete from event as e using unnest(lanes, ids) as u (lane, id)
        where e.lane = u.lane and e.id = u.id;
      get diagnostics settled = row_count;
    end $$";

/// Settling deletes rows by ctid, without checking which row has that ctid by now.
const SETTLE_BY_PLACE: &str = "create or replace function outbox.settle
    (lanes smallint[], ids bigint[], event_ids uuid[], places tid[],
    out tick xid8, out settled bigint)
    language plpgsql volatile security definer
    set search_path = outbox, pg_temp set enable_seqscan = off as $$
    begin
      tick := pg_current_xact_id();
      delete from event as e using unnest(places) as u (place) where e.ctid = u.place;
      get diagnostics settled = row_count;
    end $$";

pub(crate) const CONTROLS: &[Control] = &[
    Control {
        name: "gapless-off",
        bug: PlantedBug::Relay("gapless-off"),
        faults: REJECTED_BATCHES,
        seconds: 60,
        violates: OUT_OF_ORDER,
    },
    Control {
        name: "message-timeout",
        bug: PlantedBug::Relay("message-timeout"),
        faults: FaultPlan::Drawn(&[FaultKind::PauseBroker, FaultKind::KillBroker]),
        seconds: 60,
        violates: OUT_OF_ORDER,
    },
    Control {
        name: "order-by-xid",
        bug: PlantedBug::Relay("order-by-xid"),
        faults: FaultPlan::Drawn(&[FaultKind::KillRelay]),
        seconds: 45,
        violates: OUT_OF_ORDER,
    },
    Control {
        name: "forward-only",
        bug: PlantedBug::Relay("forward-only"),
        faults: FaultPlan::Drawn(&[]),
        seconds: 20,
        violates: &[NothingWaits],
    },
    Control {
        name: "ack-before-report",
        bug: PlantedBug::Relay("ack-before-report"),
        faults: FaultPlan::Drawn(&[FaultKind::PauseBroker, FaultKind::KillRelay]),
        seconds: 60,
        violates: &[NothingLost],
    },
    Control {
        name: "lane-hash-changed",
        bug: PlantedBug::Database(ANOTHER_LANE),
        faults: FaultPlan::Drawn(&[FaultKind::KillRelay, FaultKind::PauseRelay]),
        seconds: 60,
        violates: OUT_OF_ORDER,
    },
    Control {
        name: "no-in-flight-check",
        bug: PlantedBug::Relay("no-in-flight-check"),
        faults: FaultPlan::Drawn(&[]),
        seconds: 15,
        violates: &[DuplicatesAfterFaultsOnly],
    },
    Control {
        name: "forget-at-once",
        bug: PlantedBug::Relay("forget-at-once"),
        faults: FaultPlan::Drawn(&[]),
        seconds: 30,
        violates: &[DuplicatesAfterFaultsOnly],
    },
    Control {
        name: "settle-by-id",
        bug: PlantedBug::Database(SETTLE_BY_ID),
        // Rows in flight are acknowledged when their ids belong to other rows, and before relays
        // give them up.
        faults: FaultPlan::At(&[
            fault(10_000, FaultKind::PauseBroker, 3_000, 0),
            fault(11_500, FaultKind::SetBack, 100, 0),
            fault(22_000, FaultKind::PauseBroker, 3_000, 1),
            fault(23_500, FaultKind::SetBack, 100, 0),
            fault(34_000, FaultKind::PauseBroker, 3_000, 2),
            fault(35_500, FaultKind::SetBack, 100, 0),
            fault(46_000, FaultKind::PauseBroker, 3_000, 0),
            fault(47_500, FaultKind::SetBack, 100, 0),
            fault(58_000, FaultKind::PauseBroker, 3_000, 1),
            fault(59_500, FaultKind::SetBack, 100, 0),
            fault(70_000, FaultKind::PauseBroker, 3_000, 2),
            fault(71_500, FaultKind::SetBack, 100, 0),
        ]),
        seconds: 80,
        violates: &[NothingLost],
    },
    Control {
        name: "settle-by-place",
        bug: PlantedBug::Database(SETTLE_BY_PLACE),
        // Records wait for a broker while their rows are truncated. Rows that no relay has fetched
        // yet get their ctids.
        faults: FaultPlan::At(&[
            fault(10_000, FaultKind::Empty, 100, 0),
            fault(10_500, FaultKind::PauseBroker, 5_500, 0),
            fault(13_500, FaultKind::Empty, 100, 0),
            fault(24_000, FaultKind::Empty, 100, 0),
            fault(24_500, FaultKind::PauseBroker, 5_500, 1),
            fault(27_500, FaultKind::Empty, 100, 0),
            fault(38_000, FaultKind::Empty, 100, 0),
            fault(38_500, FaultKind::PauseBroker, 5_500, 2),
            fault(41_500, FaultKind::Empty, 100, 0),
        ]),
        seconds: 50,
        violates: &[NothingLost],
    },
    Control {
        name: "clock-unnoticed",
        bug: PlantedBug::Relay("clock-unnoticed"),
        // The relay requests topic metadata while there are no brokers and its clock is a day
        // ahead. Later it restarts and needs that metadata.
        faults: FaultPlan::At(&[
            fault(10_000, FaultKind::StepClock, 14_000, 3),
            fault(11_000, FaultKind::KillTwoBrokers, 6_000, 0),
            fault(30_000, FaultKind::PauseRelay, 25_000, 0),
        ]),
        seconds: 60,
        violates: &[NothingWaits],
    },
    Control {
        name: "move-with-records-out",
        bug: PlantedBug::Relay("move-with-records-out"),
        // Over a slow network a relay needs more than one client.
        faults: FaultPlan::At(&[
            fault(10_000, FaultKind::Latency, 15_000, 60 << 40),
            fault(30_000, FaultKind::Latency, 15_000, 90 << 40),
        ]),
        seconds: 60,
        violates: OUT_OF_ORDER,
    },
    Control {
        name: "second-record-early",
        bug: PlantedBug::Relay("second-record-early"),
        faults: REJECTED_BATCHES,
        seconds: 60,
        violates: OUT_OF_ORDER,
    },
    Control {
        name: "next-producer-early",
        bug: PlantedBug::Relay("next-producer-early"),
        faults: REJECTED_BATCHES,
        seconds: 60,
        violates: OUT_OF_ORDER,
    },
];

/// The control of a name.
pub(crate) fn by_name(name: &str) -> Option<&'static Control> {
    CONTROLS.iter().find(|control| control.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::FAULT_FREE_START;

    #[test]
    fn faults_of_a_control_begin_after_the_fault_free_start_and_end_before_the_run() {
        for control in CONTROLS {
            let end = Duration::from_secs(control.seconds);
            let is_outside =
                |fault: &Fault| fault.at < FAULT_FREE_START || fault.at + fault.duration > end;
            assert_eq!(
                control.schedule(7).into_iter().find(is_outside),
                None,
                "{}",
                control.name
            );
        }
    }
}
