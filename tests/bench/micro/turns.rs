//! The work of a relay for its rows, without servers: the calls of `relay::session` in their order.
//! As many rows as possible are in flight, on one topic of twelve partitions, and all records are
//! acknowledged.

use std::{
    collections::VecDeque,
    hint::black_box,
    time::{Duration, Instant},
};

use outbox_relay::{
    kafka,
    outbox::{Grant, Lane, RowId, Snapshot},
    relay::core::{
        Core, Outcome, Outgoing, SettleWhen, TopicPresence,
        ids::{Slot, TopicIndex},
        in_flight::Budget,
        routing::Routes,
        watermarks::XidTick,
    },
    settings::{OnPoison, RecordHeaders, TopicSettings},
};

use super::table::{TOPIC, Table};

/// Rows of one turn: a relay under load fetches when there is room for this many rows.
pub(crate) const ROWS: usize = 8192;
const PARTITIONS: usize = 12;
/// Rows of one DELETE.
const SETTLE_ROWS: usize = 400;
pub(crate) const SOURCE: &str = "/outbox/essays/file-service";

/// Parts of a turn, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Handles the delivery reports of the rows that were sent first.
    Report,
    /// Selects the rows to delete, and forgets deleted ones.
    Settle,
    /// Plans a fetch.
    Plan,
    /// Accepts the fetched rows that are new.
    Accept,
    /// Decides for each row whether it may be sent.
    Admit,
    /// Makes the headers and the timestamp of each record.
    Encode,
}

impl Step {
    pub(crate) const ALL: [Self; 6] = [
        Self::Report,
        Self::Settle,
        Self::Plan,
        Self::Accept,
        Self::Admit,
        Self::Encode,
    ];
}

/// Limit for the turns that fill the window.
const TURNS_TO_FILL_MAX: usize = 500;

/// A relay, its table and its producer.
pub(crate) struct Relay {
    core: Core,
    table: Table,
    /// Rows whose reports are still to come, the oldest first.
    sent: VecDeque<Slot>,
    /// Id of the last transaction.
    xid: u64,
}

impl Relay {
    /// A relay with as many rows in flight as possible.
    pub(crate) fn under_load() -> Self {
        let topic = TopicSettings {
            name: TOPIC.to_owned(),
            event_types: vec![],
            aggregate_types: vec![],
            on_poison: OnPoison::Block,
        };
        let now = Instant::now();
        let mut core = Core::new(
            Routes::new(&[topic]),
            Budget::default(),
            Duration::from_millis(100),
            now,
        );
        let grants: Vec<Grant> = Lane::all()
            .map(|lane| Grant {
                lane,
                epoch: 1,
                watermark: RowId::ZERO,
                high_id: RowId::ZERO,
            })
            .collect();
        core.on_granted(&grants, now);
        core.on_partition_count(TopicIndex::new(0), PARTITIONS);
        core.on_topic_metadata(TopicIndex::new(0), TopicPresence::Present, now);
        let mut relay = Self {
            core,
            table: Table::new(),
            sent: VecDeque::new(),
            xid: 1,
        };
        // The first record to each partition goes alone.
        assert_eq!(relay.turn(|_, work| work()), PARTITIONS);
        relay.fill_window();
        relay
    }

    /// Turns until as many rows are sent as may ever be: the window begins small, and grows while
    /// half of it is used. The room is divided among the lanes, so less than a row for each of them
    /// may stay.
    fn fill_window(&mut self) {
        for _ in 0..TURNS_TO_FILL_MAX {
            let sent = self.core.in_flight().sent();
            if sent + Lane::all().count() > Budget::default().rows {
                return;
            }
            self.report(sent.div_ceil(2).max(PARTITIONS), &mut |_, work| work());
            self.settle(&mut |_, work| work());
            self.fetch(&mut |_, work| work());
        }
        panic!("the window is not full: {}", self.core.in_flight().sent());
    }

    /// Reports, settles, fetches and sends; `meter` runs each step. Returns how many rows were
    /// sent.
    pub(crate) fn turn(&mut self, mut meter: impl FnMut(Step, &mut dyn FnMut())) -> usize {
        self.report(ROWS, &mut meter);
        self.settle(&mut meter);
        self.fetch(&mut meter)
    }

    fn report(&mut self, rows: usize, meter: &mut impl FnMut(Step, &mut dyn FnMut())) {
        let now = Instant::now();
        let reports: Vec<Slot> = self.sent.drain(..rows.min(self.sent.len())).collect();
        meter(Step::Report, &mut || {
            reports
                .iter()
                .for_each(|slot| self.core.on_report(*slot, Outcome::Published, now));
        });
    }

    fn settle(&mut self, meter: &mut impl FnMut(Step, &mut dyn FnMut())) {
        let mut settle = None;
        loop {
            meter(Step::Settle, &mut || {
                settle = self.core.next_settle(SETTLE_ROWS, SettleWhen::Now);
            });
            let Some(settle) = settle.take() else { return };
            self.xid += 1;
            self.core.on_tick(XidTick {
                xid: self.xid,
                drawn: self.core.highest_id(),
            });
            self.table.delete(&settle.rows);
            meter(Step::Settle, &mut || self.core.on_settled(&settle.slots));
        }
    }

    fn fetch(&mut self, meter: &mut impl FnMut(Step, &mut dyn FnMut())) -> usize {
        let now = Instant::now();
        let (mut plan, mut outgoing, mut admitted) = (None, Vec::new(), Vec::new());
        meter(Step::Plan, &mut || plan = self.core.plan_fetch(now));
        let plan = plan.expect("there is room");
        let mut fetched = Some(self.table.fetch(&plan, Snapshot::new(self.xid + 1, vec![])));
        meter(Step::Accept, &mut || {
            outgoing = fetched
                .take()
                .map(|fetched| self.core.accept(&plan, fetched, now))
                .unwrap_or_default();
        });
        meter(Step::Admit, &mut || {
            admitted = outgoing
                .iter()
                .map(|outgoing| self.core.admit(outgoing, now).is_some())
                .collect();
        });
        for (outgoing, admitted) in outgoing.iter().zip(&admitted) {
            if *admitted {
                self.sent.push_back(outgoing.slot);
            } else {
                self.core.on_report(outgoing.slot, Outcome::Purged, now);
            }
        }
        let sent = admitted.iter().filter(|admitted| **admitted).count();
        meter(Step::Encode, &mut || outgoing.drain(..).for_each(encode));
        sent
    }
}

/// Makes a record of a row and drops the row.
fn encode(outgoing: Outgoing) {
    let row = outgoing.row;
    let mut replaced = 0;
    let headers = kafka::headers(&row, RecordHeaders::Standard, SOURCE, &mut replaced);
    let timestamp = kafka::timestamp_ms(row.created_at_us, row.created_at_us, Duration::ZERO);
    black_box((row.key(), headers.expect("an object"), timestamp));
}
