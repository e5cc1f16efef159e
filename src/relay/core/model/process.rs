//! One relay process: the real [`Core`], a producer of the strict profile, and what is under way. As `session` drives them, step by step.

use std::{
    hash::{Hash, Hasher},
    time::{Duration, Instant},
};

use super::{
    Bug, Scenario,
    database::{Database, Row},
};
use crate::{
    outbox::{FetchPlan, Fetched},
    relay::{
        core::{Core, Outcome, Outgoing},
        marks::Tick,
        routes::Routes,
        window::{Budget, Settle, Slot},
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
    pub(super) plan: FetchPlan,
    /// With the incarnation that it saw.
    pub(super) answer: Option<(Option<u8>, Fetched)>,
}

impl Hash for Fetch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (plan, topics) = (&self.plan, self.plan.flowing.as_ref().map(|flowing| &flowing.topics));
        (&plan.lanes, &plan.lows, &plan.rows_max, topics, self.answer.is_some()).hash(state);
        if let Some((incarnation, Fetched { snapshot, rows, scanned })) = &self.answer {
            (incarnation, scanned, snapshot.xmax(), snapshot.running()).hash(state);
            rows.iter().for_each(|row| (row.id, row.event_id).hash(state));
        }
    }
}

/// A settling statement under way.
#[derive(Clone, PartialEq)]
pub(super) struct Deletion {
    pub(super) settle: Settle,
    /// Highest id seen before it began.
    pub(super) drawn: i64,
    /// Set once its transaction has begun.
    pub(super) xid: Option<u64>,
    pub(super) done: bool,
}

impl Hash for Deletion {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.settle.plan.event_ids, self.drawn, self.xid, self.done).hash(state);
    }
}

impl Hash for Core {
    /// What a step can depend on. Time stands still in the model, and the bounds do not change.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { routes: _, window, stops, poison, ticks, lanes, seen, fetch_under_way, fetch_is_stale, fetch_at, pause, .. } = self;
        (window, stops, poison, ticks, lanes).hash(state);
        (seen, fetch_under_way, fetch_is_stale, fetch_at, pause).hash(state);
    }
}

#[derive(Clone, Hash)]
pub(super) struct Process {
    pub(super) instance: u8,
    /// Of the outbox, when this began.
    pub(super) incarnation: u8,
    pub(super) life: Life,
    pub(super) core: Core,
    pub(super) sending: Sending,
    /// In the order in which they were sent.
    pub(super) queue: Vec<Record>,
    /// With the producer for trials.
    pub(super) trial: Vec<Record>,
    pub(super) reports: Vec<(Record, Outcome)>,
    pub(super) fetch: Option<Fetch>,
    pub(super) deletions: Vec<Deletion>,
    /// The highest `drawn` of a tick: another one with no more would bring nothing.
    pub(super) ticked: i64,
}

impl Process {
    pub(super) fn new(instance: u8, incarnation: u8, scenario: &Scenario, now: Instant) -> Self {
        let topic =
            |at: u8| TopicSettings { name: format!("t{at}"), event_types: vec![], aggregate_types: vec![], on_poison: OnPoison::Block };
        let topics: Vec<_> = (0..scenario.topics()).map(topic).collect();
        let budget = Budget { rows: scenario.window, bytes: 1000, rows_per_lane: scenario.window_of_lane };
        let mut core = Core::new(Routes::new(&topics), budget, Duration::from_millis(5), now);
        (0..topics.len()).for_each(|topic| core.topic_seen(topic, true, now));
        Self {
            instance,
            incarnation,
            life: Life::Runs,
            core,
            sending: Sending::Open,
            queue: vec![],
            trial: vec![],
            reports: vec![],
            fetch: None,
            deletions: vec![],
            ticked: 0,
        }
    }

    /// Whether a row is in flight here.
    pub(super) fn holds(&self, row: &Row) -> bool {
        self.core.window.holds(row.key.lane, row.id, row.event_id())
    }

    pub(super) fn tick(&mut self, xid: u64, drawn: i64) {
        self.core.tick(Tick { xid, drawn });
        self.ticked = self.ticked.max(drawn);
    }

    /// The rows of a fetch are in: the new ones go to the producer. Reports come whenever they come, before or after.
    pub(super) fn accept(&mut self, database: &Database, bug: Bug, now: Instant) {
        let Some(Fetch { plan, answer: Some((_, mut fetched)) }) = self.fetch.take() else { return };
        if bug == Bug::NoInFlightCheck {
            self.disguise(&mut fetched);
        }
        if self.sending == Sending::Retiring {
            return self.core.fetch_failed(now);
        }
        for outgoing in self.core.accept(&plan, fetched, now) {
            match database.row(outgoing.row.event_id) {
                Some(row) if self.sending == Sending::Open => {
                    let record = Record { slot: outgoing.slot, row };
                    self.queue.push(record);
                    if bug == Bug::AckBeforeReport {
                        self.reports.push((record, Outcome::Published));
                    }
                }
                // Refused by a broken producer; or truncated meanwhile, and of no interest.
                _ => self.core.reported(outgoing.slot, Outcome::Purged, now),
            }
        }
    }

    /// A window that does not know what it holds: rows in flight look like others.
    fn disguise(&self, fetched: &mut Fetched) {
        for row in &mut fetched.rows {
            let name = row.event_id.as_u64_pair().1;
            let free = (0..).map(|mask| uuid::Uuid::from_u64_pair(mask, name)).find(|id| !self.core.window.holds(row.lane, row.id, *id));
            row.event_id = free.unwrap_or(row.event_id);
        }
    }

    /// Rows that the core wants to look up are read, and rows that it wants to try are sent. The first only, in one step.
    pub(super) fn try_rows(&mut self, database: &Database, now: Instant) -> bool {
        if let Some(lookup) = self.core.next_lookup() {
            let named =
                |row: &&Row| lookup.rows.iter().any(|name| (name.lane, name.id, name.event_id) == (row.key.lane, row.id, row.event_id()));
            let rows = database.rows.iter().filter(named).map(Row::as_read).collect();
            self.core.looked_up(&lookup, rows, now);
            return true;
        }
        let trial = self.core.next_trial(now).unwrap_or_default();
        let record = |outgoing: &Outgoing| Some(Record { slot: outgoing.slot, row: database.row(outgoing.row.event_id)? });
        self.trial.extend(trial.iter().filter_map(record));
        !trial.is_empty()
    }

    /// Everything that is not acknowledged is thrown out. Returns what may be written all the same, since it is on its way.
    pub(super) fn purge(&mut self) -> Vec<Record> {
        let queue = std::mem::take(&mut self.queue);
        self.reports.extend(queue.iter().map(|record| (*record, Outcome::Purged)));
        self.sending = Sending::Retiring;
        queue
    }

    /// A record is refused for good: gapless takes everything else with it. Returns what of other topics is on its way.
    pub(super) fn refuse(&mut self, at: usize, bug: Bug) -> Vec<Record> {
        let refused = self.queue.remove(at);
        self.reports.push((refused, Outcome::TopicFailed(ProblemClass::TopicNotAuthorized)));
        if bug == Bug::GapfulProducer {
            return vec![];
        }
        let mut on_its_way = self.purge();
        self.sending = Sending::Broken;
        on_its_way.retain(|record| record.row.key.topic != refused.row.key.topic);
        on_its_way
    }

    pub(super) fn lose_lease(&mut self) -> Vec<Record> {
        self.core.lose_lanes();
        (self.life, self.fetch) = (Life::Lost, None);
        self.queue.append(&mut self.trial);
        self.purge()
    }
}
