//! Bugs that a run must find: planted in the relay (`src/planted.rs`) or in the database. One that it does not find is a defect of this harness.

use crate::{
    checker::Promise::{self, *},
    schedule::Kind,
};

/// Where the bug is.
#[derive(Clone, Copy)]
pub(crate) enum Plant {
    /// In the relay: its name there.
    Relay(&'static str),
    /// In the database, after the migration.
    Database(&'static str),
}

/// A bug, how it is provoked, and which promises it may break: any of them will do.
#[derive(Clone, Copy)]
pub(crate) struct Control {
    pub(crate) name: &'static str,
    pub(crate) plant: Plant,
    pub(crate) faults: &'static [Kind],
    pub(crate) seconds: u64,
    pub(crate) breaks: &'static [Promise],
}

const OUT_OF_ORDER: &[Promise] = &[Order, SeqIsEnough];

/// The lane of a key changes with every thousand rows, as if somebody changed the hash while relays run.
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

pub(crate) const CONTROLS: &[Control] = &[
    Control {
        name: "gapless-off",
        plant: Plant::Relay("gapless-off"),
        faults: &[Kind::LimitBatches, Kind::KillRelay],
        seconds: 60,
        breaks: OUT_OF_ORDER,
    },
    Control {
        name: "message-timeout",
        plant: Plant::Relay("message-timeout"),
        faults: &[Kind::PauseBroker, Kind::KillBroker],
        seconds: 60,
        breaks: OUT_OF_ORDER,
    },
    Control { name: "order-by-xid", plant: Plant::Relay("order-by-xid"), faults: &[Kind::KillRelay], seconds: 45, breaks: OUT_OF_ORDER },
    Control { name: "forward-only", plant: Plant::Relay("forward-only"), faults: &[], seconds: 20, breaks: &[NothingWaits] },
    Control {
        name: "ack-before-report",
        plant: Plant::Relay("ack-before-report"),
        faults: &[Kind::PauseBroker, Kind::KillRelay],
        seconds: 60,
        breaks: &[NothingLost],
    },
    Control {
        name: "lane-hash-changed",
        plant: Plant::Database(ANOTHER_LANE),
        faults: &[Kind::KillRelay, Kind::PauseRelay],
        seconds: 60,
        breaks: OUT_OF_ORDER,
    },
    Control {
        name: "no-in-flight-check",
        plant: Plant::Relay("no-in-flight-check"),
        faults: &[],
        seconds: 15,
        breaks: &[DuplicatesAfterFaultsOnly],
    },
    Control {
        name: "forget-at-once",
        plant: Plant::Relay("forget-at-once"),
        faults: &[],
        seconds: 30,
        breaks: &[DuplicatesAfterFaultsOnly],
    },
    Control {
        name: "settle-by-id",
        plant: Plant::Database(SETTLE_BY_ID),
        faults: &[Kind::KillTwoBrokers, Kind::SetBack],
        seconds: 90,
        breaks: &[NothingLost],
    },
    Control {
        name: "next-producer-early",
        plant: Plant::Relay("next-producer-early"),
        faults: &[Kind::LimitBatches, Kind::KillRelay],
        seconds: 60,
        breaks: OUT_OF_ORDER,
    },
];

pub(crate) fn named(name: &str) -> Option<&'static Control> {
    CONTROLS.iter().find(|control| control.name == name)
}
