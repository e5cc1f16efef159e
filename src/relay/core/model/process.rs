//! One relay process: the real [`Core`], a producer of the strict profile, and what is under way.
//! As `session` drives them, step by step.

use std::{
    collections::BTreeSet,
    hash::{Hash, Hasher},
    time::{Duration, Instant},
};

use crate::{
    outbox::{FetchRequest, Fetched, RowId, RowIdentity},
    relay::core::{
        Core, Outcome, TopicPresence,
        ids::{Slot, TopicIndex},
        in_flight::{Budget, SettleBatch},
        model::{
            Bug, Scenario,
            database::{Database, Row},
        },
        routing::Routes,
        watermarks::XidTick,
    },
    report::ProblemClass,
    settings::{OnPoison, TopicSettings},
};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Life {
    Runs,
    /// SIGSTOP.
    Paused,
    /// The lease is lost: it waits for reports and settles what they acknowledge.
    Lost,
    /// kill -9.
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Sending {
    Open,
    /// The producer failed for good; the loop has not noticed.
    Broken,
    /// Thrown out; its last reports are awaited.
    Retiring,
}

/// State of the probe producer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum ProbeProducer {
    None,
    /// Topics whose brokers know it.
    Open(BTreeSet<u8>),
    /// A record of it was rejected.
    Broken,
}

/// A record that the producer has and Kafka has not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) slot: Slot,
    pub(super) row: Row,
}

impl Hash for Record {
    /// Without the slot, which is only a name.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.row.hash(state);
    }
}

#[derive(Clone, PartialEq)]
pub(super) struct Fetch {
    pub(super) plan: FetchRequest,
    /// With the incarnation that it saw.
    pub(super) answer: Option<(Option<u8>, Fetched)>,
}

impl Hash for Fetch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (plan, topics) = (
            &self.plan,
            self.plan.filter.as_ref().map(|filter| &filter.topics),
        );
        for read in &plan.lanes {
            (read.lane, read.low, read.rows_max).hash(state);
        }
        (plan.lanes.len(), topics, self.answer.is_some()).hash(state);
        if let Some((
            incarnation,
            Fetched {
                snapshot,
                rows,
                scanned,
            },
        )) = &self.answer
        {
            (incarnation, scanned, snapshot.xmax(), snapshot.running()).hash(state);
            rows.iter()
                .for_each(|row| (row.id, row.event_id).hash(state));
        }
    }
}

/// A settling statement under way.
#[derive(Clone, PartialEq)]
pub(super) struct Deletion {
    pub(super) settle: SettleBatch,
    /// Highest id seen before it began.
    pub(super) drawn: RowId,
    /// Set once its transaction has begun.
    pub(super) xid: Option<u64>,
    pub(super) done: bool,
}

impl Hash for Deletion {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.settle.rows, self.drawn, self.xid, self.done).hash(state);
    }
}

impl Hash for Core {
    /// What a step can depend on. Time stands still in the model, and the bounds do not change.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            routes: _,
            in_flight,
            topics,
            isolation,
            first_record_gate,
            probe_first_record_gate,
            ticks,
            lanes,
            ..
        } = self;
        let Self {
            highest_id,
            fetch,
            fetch_at,
            pause,
            ..
        } = self;
        (
            in_flight,
            topics,
            isolation,
            first_record_gate,
            probe_first_record_gate,
            ticks,
            lanes,
        )
            .hash(state);
        (highest_id, fetch, fetch_at, pause).hash(state);
    }
}

#[derive(Clone, Hash)]
pub(super) struct Process {
    pub(super) instance: u8,
    /// Incarnation of the outbox when the process began.
    pub(super) incarnation: u8,
    pub(super) life: Life,
    pub(super) core: Core,
    pub(super) sending: Sending,
    /// Records of the main producer, in the order in which they were sent.
    pub(super) queue: Vec<Record>,
    /// Topics of one partition each, whose brokers know the producer: they have something of it.
    pub(super) known: BTreeSet<u8>,
    /// Records of the probe producer.
    pub(super) probed: Vec<Record>,
    pub(super) probe_producer: ProbeProducer,
    pub(super) reports: Vec<(Record, Outcome)>,
    pub(super) fetch: Option<Fetch>,
    pub(super) deletions: Vec<Deletion>,
    /// The highest `drawn` of a tick: another one with no more would bring nothing.
    pub(super) ticked: RowId,
}

impl Process {
    pub(super) fn new(instance: u8, incarnation: u8, scenario: &Scenario, now: Instant) -> Self {
        let topic = |at: u8| TopicSettings {
            name: format!("t{at}"),
            event_types: vec![],
            aggregate_types: vec![],
            on_poison: OnPoison::DeadLetter,
        };
        let topics: Vec<_> = (0..scenario.topics()).map(topic).collect();
        let budget = Budget {
            rows: scenario.in_flight,
            bytes: 1000,
            rows_per_lane: scenario.rows_per_lane,
        };
        let mut core = Core::new(Routes::new(&topics), budget, Duration::from_millis(5), now);
        (0..topics.len()).for_each(|topic| {
            core.on_topic_metadata(TopicIndex::new(topic), TopicPresence::Present, now)
        });
        Self {
            instance,
            incarnation,
            life: Life::Runs,
            core,
            sending: Sending::Open,
            queue: vec![],
            known: BTreeSet::new(),
            probed: vec![],
            probe_producer: ProbeProducer::None,
            reports: vec![],
            fetch: None,
            deletions: vec![],
            ticked: RowId::ZERO,
        }
    }

    /// Whether a row is in flight here.
    pub(super) fn holds(&self, row: &Row) -> bool {
        self.core.in_flight.holds(row.identity())
    }

    pub(super) fn tick(&mut self, xid: u64, drawn: RowId) {
        self.core.on_tick(XidTick { xid, drawn });
        self.ticked = self.ticked.max(drawn);
    }

    /// The rows of a fetch are in: the new ones go to the producer. Reports come whenever they
    /// come, before or after.
    pub(super) fn accept(&mut self, database: &Database, bug: Bug, now: Instant) {
        let Some(Fetch {
            plan,
            answer: Some((_, mut fetched)),
        }) = self.fetch.take()
        else {
            return;
        };
        if bug == Bug::NoInFlightCheck {
            self.disguise(&mut fetched);
        }
        if self.sending == Sending::Retiring {
            return self.core.on_fetch_failed(now);
        }
        for outgoing in self.core.accept(&plan, fetched, now) {
            let may_send = self.core.may_send(&outgoing, now) || bug == Bug::NoFirstRecordGate;
            match database.row(outgoing.row.event_id) {
                Some(row) if may_send && self.sending == Sending::Open => {
                    let record = Record {
                        slot: outgoing.slot,
                        row,
                    };
                    self.queue.push(record);
                    if bug == Bug::AckBeforeReport {
                        self.reports.push((record, Outcome::Published));
                    }
                }
                // The first-record gate keeps it back, or the producer is broken; or it was
                // truncated meanwhile, and is of no interest.
                _ => self.core.on_report(outgoing.slot, Outcome::NotSent, now),
            }
        }
    }

    /// A window that does not know what it holds: rows in flight look like others.
    fn disguise(&self, fetched: &mut Fetched) {
        for row in &mut fetched.rows {
            let name = row.event_id.as_u64_pair().1;
            let free = (0..)
                .map(|mask| uuid::Uuid::from_u64_pair(mask, name))
                .find(|id| {
                    let disguised = RowIdentity {
                        event_id: *id,
                        ..row.identity()
                    };
                    !self.core.in_flight.holds(disguised)
                });
            row.event_id = free.unwrap_or(row.event_id);
        }
    }

    /// Rows that the core wants to look up are read, and rows that it wants to try are sent. The
    /// first only, in one step.
    pub(super) fn try_rows(&mut self, database: &Database, bug: Bug, now: Instant) -> bool {
        if let Some(lookup) = self.core.next_lookup() {
            let named = |row: &&Row| lookup.rows.contains(&row.identity());
            let rows = database
                .rows
                .iter()
                .filter(named)
                .map(Row::as_read)
                .collect();
            self.core.on_looked_up(&lookup, rows, now);
            return true;
        }
        if !self.has_probe_producer() {
            return false;
        }
        let probed = self.core.next_probe(now).unwrap_or_default();
        for outgoing in &probed {
            let may_send = self.core.may_send(outgoing, now) || bug == Bug::NoProbeFirstRecordGate;
            match database.row(outgoing.row.event_id) {
                Some(row) if may_send => self.probed.push(Record {
                    slot: outgoing.slot,
                    row,
                }),
                Some(_) => self.core.on_report(outgoing.slot, Outcome::NotSent, now),
                None => self.core.on_report(outgoing.slot, Outcome::Published, now),
            }
        }
        !probed.is_empty()
    }

    /// One that refused something is used up, and so is one with nothing to try.
    fn has_probe_producer(&mut self) -> bool {
        let is_over = self.core.is_probing_done();
        if (is_over || self.probe_producer == ProbeProducer::Broken)
            && !self.core.has_probe_under_way()
        {
            self.probe_producer = ProbeProducer::None;
        }
        if self.probe_producer == ProbeProducer::None && !is_over {
            self.core.on_new_probe_producer();
            self.probe_producer = ProbeProducer::Open(BTreeSet::new());
        }
        matches!(self.probe_producer, ProbeProducer::Open(_))
    }

    /// Everything that is not acknowledged is thrown out. Returns what may be written all the same,
    /// since it is on its way.
    pub(super) fn purge(&mut self) -> Vec<Record> {
        let queue = std::mem::take(&mut self.queue);
        self.reports
            .extend(queue.iter().map(|record| (*record, Outcome::Purged)));
        self.sending = Sending::Retiring;
        queue
    }

    /// The first `records` of a topic are refused for good: gapless takes everything else with it.
    /// Returns what is on its way all the same: of other topics, and of this one if its broker does
    /// not know the producer, and so does not notice that something is missing.
    pub(super) fn refuse(
        &mut self,
        topic: u8,
        records: usize,
        outcome: Outcome,
        bug: Bug,
    ) -> Vec<Record> {
        let (refused, rest) = split_first(std::mem::take(&mut self.queue), topic, records);
        self.queue = rest;
        self.reports
            .extend(refused.into_iter().map(|record| (record, outcome)));
        if bug == Bug::GapfulProducer {
            return vec![];
        }
        let mut on_its_way = self.purge();
        self.sending = Sending::Broken;
        on_its_way.retain(|record| record.row.key.topic != topic || !self.known.contains(&topic));
        on_its_way
    }

    /// The first `records` of a topic are rejected for good while the probe producer has them.
    pub(super) fn reject_probe(&mut self, topic: u8, records: usize, now: Instant) -> Vec<Record> {
        let (refused, mut on_its_way) =
            split_first(std::mem::take(&mut self.probed), topic, records);
        let known =
            matches!(&self.probe_producer, ProbeProducer::Open(known) if known.contains(&topic));
        self.probe_producer = ProbeProducer::Broken;
        for record in refused {
            self.core.on_report(
                record.slot,
                Outcome::Rejected(ProblemClass::RecordRejected),
                now,
            );
        }
        for record in &on_its_way {
            self.core.on_report(record.slot, Outcome::Purged, now);
        }
        on_its_way.retain(|record| record.row.key.topic != topic || !known);
        on_its_way
    }

    /// A topic that is made again does not know who wrote to the one before. Not so while records
    /// for it are on their way: they may find that it is another one before anybody knows, and
    /// everything written there is lost anyway.
    pub(super) fn forget_at_brokers(&mut self, topic: u8, exists: bool) {
        let is_on_its_way = self
            .queue
            .iter()
            .chain(&self.probed)
            .any(|record| record.row.key.topic == topic);
        if exists || is_on_its_way {
            return;
        }
        self.known.remove(&topic);
        if let ProbeProducer::Open(known) = &mut self.probe_producer {
            known.remove(&topic);
        }
    }

    pub(super) fn lose_lease(&mut self) -> Vec<Record> {
        self.core.lose_lanes();
        (self.life, self.fetch) = (Life::Lost, None);
        self.queue.append(&mut self.probed);
        self.purge()
    }
}

/// The first records of a topic, and all others.
fn split_first(queue: Vec<Record>, topic: u8, records: usize) -> (Vec<Record>, Vec<Record>) {
    let mut left = records;
    queue.into_iter().partition(|record| {
        let first = record.row.key.topic == topic && left > 0;
        left -= usize::from(first);
        first
    })
}
