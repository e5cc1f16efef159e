//! One relay process: the real [`Core`], a gap-free producer, and what is under way. Steps call
//! the core in the order in which `session` calls it.

use std::{
    collections::BTreeSet,
    hash::{Hash, Hasher},
    time::{Duration, Instant},
};

use crate::{
    kafka::ClientId,
    outbox::{FetchRequest, Fetched, RowId, RowIdentity},
    relay::core::{
        Core, Destination, Outcome, TopicPresence,
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
    /// Stopped by SIGSTOP.
    Paused,
    /// The lease is lost: it waits for reports and settles what they acknowledge.
    Lost,
    /// Ended by kill -9.
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Sending {
    Open,
    /// The producer failed for good; the loop has not noticed.
    Broken,
    /// Purged; its last reports are still to come.
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
    /// The client that has it. Records of different clients are written in any order.
    pub(super) client: ClientId,
}

impl Hash for Record {
    /// Leaves the slot out: two states that differ only in slots are alike.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.row, self.client).hash(state);
    }
}

#[derive(Clone, PartialEq)]
pub(super) struct Fetch {
    pub(super) plan: FetchRequest,
    /// The incarnation that the fetch saw, and its rows.
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
                cut: _,
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
    /// Hashes what a step can depend on. Time does not pass in the model, and the bounds do not
    /// change.
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
            first_lane,
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
        (highest_id, first_lane, fetch, fetch_at, pause).hash(state);
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
    /// Clients, and topics of one partition each whose brokers know them: they have something of
    /// them.
    pub(super) known: BTreeSet<(ClientId, u8)>,
    /// The client that was added last.
    pub(super) newest: ClientId,
    /// Clients that were taken away, and are still needed.
    pub(super) leaving: Vec<ClientId>,
    /// Records of the probe producer.
    pub(super) probed: Vec<Record>,
    pub(super) probe_producer: ProbeProducer,
    pub(super) reports: Vec<(Record, Outcome)>,
    pub(super) fetch: Option<Fetch>,
    pub(super) deletions: Vec<Deletion>,
    /// The highest `drawn` of a tick: another one with the same value would change nothing.
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
            core.on_topic_metadata(TopicIndex::new(topic), TopicPresence::Present, now);
        });
        Self {
            instance,
            incarnation,
            life: Life::Runs,
            core,
            sending: Sending::Open,
            queue: vec![],
            known: BTreeSet::new(),
            newest: ClientId::FIRST,
            leaving: vec![],
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

    /// Takes the rows of a fetch and sends the new ones. Reports may come before or after.
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
            let destination = self.core.admit(&outgoing, now);
            let client = self.client_for(destination, bug);
            match (database.row(outgoing.row.event_id), client) {
                (Some(row), Some(client)) if self.sending == Sending::Open => {
                    let record = Record {
                        slot: outgoing.slot,
                        row,
                        client,
                    };
                    self.queue.push(record);
                    if bug == Bug::AckBeforeReport {
                        self.reports.push((record, Outcome::Published));
                    }
                }
                // The first-record gate keeps it back, the producer has failed, or the row was
                // truncated meanwhile.
                _ => self.core.on_report(outgoing.slot, Outcome::NotSent, now),
            }
        }
    }

    /// The client that gets a record; `None` if it may not be sent. Planted bugs choose another.
    fn client_for(&self, destination: Option<Destination>, bug: Bug) -> Option<ClientId> {
        let has_moved = self.newest != ClientId::FIRST;
        match (bug, destination) {
            (Bug::MoveWithRecordsOut, Some(_)) | (Bug::NoFirstRecordGate, None) => {
                Some(self.newest)
            }
            (Bug::MoveWithRecordsOut | Bug::NoFirstRecordGateAfterMove, None) if has_moved => {
                Some(self.newest)
            }
            (_, destination) => destination.map(|destination| destination.client),
        }
    }

    /// The main producer gets another client.
    pub(super) fn add_client(&mut self) {
        self.newest = self.newest.next();
        self.core.add_client(self.newest);
    }

    /// Takes the newest client away. Returns whether there was more than one.
    pub(super) fn remove_client(&mut self) -> bool {
        let removed = self.core.remove_client();
        self.leaving.extend(removed);
        removed.is_some()
    }

    /// Destroys clients that were taken away and that no partition needs. What they have gets no
    /// report.
    pub(super) fn destroy_left_clients(&mut self) -> bool {
        let before = self.leaving.len();
        let core = &self.core;
        let (free, needed): (Vec<_>, Vec<_>) =
            (self.leaving.iter().copied()).partition(|client| core.is_client_free(*client));
        self.leaving = needed;
        self.queue.retain(|record| !free.contains(&record.client));
        self.reports
            .retain(|(record, _)| !free.contains(&record.client));
        self.leaving.len() < before
    }

    /// A planted bug: takes rows again that are in flight.
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

    /// Carries out the next look-up or the next probe that the core asks for, one in a step.
    pub(super) fn probe_rows(&mut self, database: &Database, bug: Bug, now: Instant) -> bool {
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
            let may_send =
                self.core.admit(outgoing, now).is_some() || bug == Bug::NoProbeFirstRecordGate;
            match database.row(outgoing.row.event_id) {
                Some(row) if may_send => self.probed.push(Record {
                    slot: outgoing.slot,
                    row,
                    client: ClientId::FIRST,
                }),
                Some(_) => self.core.on_report(outgoing.slot, Outcome::NotSent, now),
                None => self.core.on_report(outgoing.slot, Outcome::Published, now),
            }
        }
        !probed.is_empty()
    }

    /// Removes a probe producer that rejected a record, or that has nothing to probe.
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

    /// Purges all records that are not acknowledged. Returns those that Kafka may still write,
    /// since they are on their way.
    pub(super) fn purge(&mut self) -> Vec<Record> {
        let queue = std::mem::take(&mut self.queue);
        self.reports
            .extend(queue.iter().map(|record| (*record, Outcome::Purged)));
        self.sending = Sending::Retiring;
        queue
    }

    /// Fails the first `records` of a topic for good; a gap-free producer fails with them. Returns
    /// records that are on their way: those of other topics, and those of this topic if its broker
    /// does not know the producer, and so does not notice the gap.
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
        on_its_way.retain(|record| {
            record.row.key.topic != topic || !self.known.contains(&(record.client, topic))
        });
        on_its_way
    }

    /// Rejects the first `records` of a topic that the probe producer has.
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

    /// Forgets which producer wrote to a topic that is created again. Not while records for it are
    /// on their way: they may reach the new topic first, and what was written to the old one is
    /// lost in any case.
    pub(super) fn forget_at_brokers(&mut self, topic: u8, exists: bool) {
        let is_on_its_way = self
            .queue
            .iter()
            .chain(&self.probed)
            .any(|record| record.row.key.topic == topic);
        if exists || is_on_its_way {
            return;
        }
        self.known.retain(|(_, known)| *known != topic);
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

/// Splits the first records of a topic from all others.
fn split_first(queue: Vec<Record>, topic: u8, records: usize) -> (Vec<Record>, Vec<Record>) {
    let mut left = records;
    queue.into_iter().partition(|record| {
        let first = record.row.key.topic == topic && left > 0;
        left -= usize::from(first);
        first
    })
}
