//! Random lives of a relay against a small model of PostgreSQL and of a gap-free producer: crashes,
//! lost answers, failed topics, late appends. Whatever happens, when all is healed no committed row
//! is missing (L) and each key's first occurrences are in order (O).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::*;
use crate::{
    kafka::{LimitsByTopic, TopicLimits},
    outbox::{
        Content, FetchFilter, FetchRequest, Fetched, Grant, Lane, Parked, ParkedKey, RowId,
        RowText, Snapshot,
    },
    relay::core::{backlog_change::FetchExtent, in_flight::SettleBatch},
    report::BreakerState,
    settings::{OnPoison, TopicSettings},
};

const KEYS: u64 = 5;
/// The lanes of the database.
const LANES: [Lane; 2] = [Lane::new(0), Lane::new(1)];
/// Rows of a lane that a filtering fetch looks at.
const SCAN_MAX: usize = 3;
/// Records of a batch.
const BATCH: usize = 3;

/// Whether Kafka rejects every record of this row, or the relay does because of its size.
fn is_poison(id: RowId) -> bool {
    id.get() % 13 == 0 || payload_bytes(id.get()) > 8 * TOPIC_BYTES
}

/// `max.message.bytes` of each topic.
const TOPIC_BYTES: usize = 1_200;

/// Size of a payload. Some are sent alone, and some are too large.
fn payload_bytes(id: i64) -> usize {
    match id {
        id if id % 31 == 0 => 10_000,
        id if id % 7 == 0 => 600,
        _ => 10,
    }
}

/// The row as a fetch returns it: without a large payload.
fn as_fetched(row: &OutboxRow) -> OutboxRow {
    let bytes = row.bytes();
    let content = match &row.content {
        Content::Whole(_) if bytes > 500 => Content::Unread(bytes),
        content => content.clone(),
    };
    OutboxRow {
        content,
        ..row.clone()
    }
}

fn topic_of(key: &str) -> TopicIndex {
    TopicIndex::new(key[1..].parse::<usize>().expect("k and a number") % 3)
}

/// Pseudo-random numbers; the same seed gives the same ones (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[derive(Default)]
struct Database {
    next_xid: u64,
    latest_completed: u64,
    next_id: i64,
    /// Open transactions: xid, and the rows that they would commit.
    open: BTreeMap<u64, Vec<OutboxRow>>,
    rows: BTreeMap<RowId, OutboxRow>,
    /// Every row ever committed, by key, in order.
    committed: BTreeMap<String, Vec<RowId>>,
    /// lane -> (epoch, mark, high_id)
    lanes: BTreeMap<Lane, (i64, RowId, RowId)>,
    /// (topic, key) -> the row that it is parked for
    parked: BTreeMap<(TopicIndex, String), OutboxRow>,
    dead: BTreeSet<RowId>,
}

impl Database {
    fn begin(&mut self) -> u64 {
        self.next_xid += 1;
        self.next_xid
    }

    fn complete(&mut self, xid: u64) {
        self.latest_completed = self.latest_completed.max(xid);
    }

    fn snapshot(&self) -> Snapshot {
        let xmax = self.latest_completed + 1;
        Snapshot::new(
            xmax,
            self.open
                .keys()
                .copied()
                .filter(|xid| *xid < xmax)
                .collect(),
        )
    }

    fn insert(&mut self, xid: u64, key: u64) {
        self.next_id += 1;
        let row = row(self.next_id, key);
        self.open.entry(xid).or_default().push(row);
    }

    fn commit(&mut self, xid: u64) {
        for row in self.open.remove(&xid).unwrap_or_default() {
            self.committed
                .entry(row.key().to_owned())
                .or_default()
                .push(row.id);
            self.rows.insert(row.id, row);
        }
        self.complete(xid);
    }

    fn fetch(&self, plan: &FetchRequest) -> Fetched {
        let (mut rows, mut scanned) = (Vec::new(), Vec::new());
        for read in &plan.lanes {
            let is_active = |row: &&OutboxRow| {
                let (topic, key) = (
                    row.topic().unwrap_or_default().to_owned(),
                    row.key().to_owned(),
                );
                let is_active = |filter: &FetchFilter| {
                    filter.topics.contains(&topic) && !filter.paused_keys.contains(&(topic, key))
                };
                plan.filter.as_ref().is_none_or(is_active)
            };
            let above = self
                .rows
                .range(read.low.next()..)
                .map(|(_, row)| row)
                .filter(|row| row.lane == read.lane);
            if plan.filter.is_none() {
                rows.extend(above.take(read.rows_max as usize).map(as_fetched));
                continue;
            }
            let page: Vec<&OutboxRow> = above.take(SCAN_MAX).collect();
            if page.len() == SCAN_MAX {
                scanned.push((read.lane, page[SCAN_MAX - 1].id));
            }
            rows.extend(
                page.into_iter()
                    .filter(is_active)
                    .take(read.rows_max as usize)
                    .map(as_fetched),
            );
        }
        Fetched {
            snapshot: self.snapshot(),
            rows,
            scanned,
            cut: vec![],
        }
    }

    fn parked(&self) -> Parked {
        let key = |((topic, key), row): (&(TopicIndex, String), &OutboxRow)| ParkedKey {
            topic: format!("t{}", topic.index()),
            key: key.clone(),
            lane: row.lane,
            attempts: 1,
            head: Some((row.id, row.event_id)),
            class: ProblemClass::RecordRejected,
        };
        Parked {
            keys: self.parked.iter().map(key).collect(),
            topics: vec![],
        }
    }
}

fn row(id: i64, key: u64) -> OutboxRow {
    let (name, topic) = (format!("k{key}"), format!("t{}", key % 3));
    let texts = RowText {
        aggregate_id: &name,
        topic: Some(&topic),
        ..RowText::PLAIN
    };
    OutboxRow {
        content: Content::Whole(Some(vec![0; payload_bytes(id)].into())),
        ..OutboxRow::with((key % 2) as u8, id, texts)
    }
}

/// A gap-free producer: records are written in the order in which they were sent, or
/// not at all.
#[derive(Default)]
struct Producer {
    queue: std::collections::VecDeque<(Slot, String, RowId)>,
    reports: Vec<(Slot, Outcome)>,
    failed: bool,
}

impl Producer {
    /// Writes or rejects the batch at the head. A rejection ends the producer, and purges all its
    /// other records.
    fn append(
        &mut self,
        denied: &BTreeSet<TopicIndex>,
        sick: Option<TopicIndex>,
        log: &mut Vec<(String, RowId)>,
    ) -> bool {
        // Topics overtake each other, keys do not.
        let well = self
            .queue
            .iter()
            .position(|(_, key, _)| Some(topic_of(key)) != sick);
        let Some(head) = well.and_then(|well| self.queue.remove(well)) else {
            return false;
        };
        self.queue.push_front(head);
        let Some((_, head, _)) = self.queue.front() else {
            return false;
        };
        let topic = topic_of(head);
        let in_batch = |at: usize, key: &str| at < BATCH && topic_of(key) == topic;
        let batch: Vec<_> = self
            .queue
            .iter()
            .enumerate()
            .filter(|(at, (_, key, _))| in_batch(*at, key))
            .map(|(_, record)| record.clone())
            .collect();
        let refusal = if denied.contains(&topic) {
            Outcome::TopicFailed(ProblemClass::TopicNotAuthorized)
        } else if batch.iter().any(|(_, _, id)| is_poison(*id)) {
            Outcome::Rejected(ProblemClass::RecordRejected)
        } else {
            let (slot, key, id) = self.queue.pop_front().expect("not empty");
            log.push((key, id));
            self.reports.push((slot, Outcome::Published));
            return false;
        };
        self.failed = true;
        for (at, (slot, key, _)) in std::mem::take(&mut self.queue).into_iter().enumerate() {
            self.reports.push((
                slot,
                if in_batch(at, &key) {
                    refusal
                } else {
                    Outcome::Purged
                },
            ));
        }
        true
    }
}

struct World {
    dice: Dice,
    now: Instant,
    database: Database,
    core: Core,
    producer: Producer,
    probe: Producer,
    /// Topics of which every record fails.
    denied: BTreeSet<TopicIndex>,
    lookup: Option<Lookup>,
    disposition: Option<RejectedRow>,
    /// Killed incarnations: what they had sent may still be written, in order.
    zombies: Vec<Producer>,
    log: Vec<(String, RowId)>,
    fetch: Option<(FetchRequest, Option<Fetched>)>,
    settle: Option<(u64, RowId, SettleBatch)>,
    /// What was parked when that was read last.
    known_parked: Option<Parked>,
    faults: u32,
    /// The cluster acknowledges nothing.
    away: bool,
    /// This topic acknowledges nothing.
    sick: Option<TopicIndex>,
    /// Steps with an open breaker, and with a stalled topic.
    open: u32,
    stalled: u32,
    /// No row of the lanes that the fetch reads was in the table.
    nothing_waited: bool,
    /// Fetches that showed that no row waits.
    emptied: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let mut world = Self {
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            now,
            database: Database::default(),
            core: core(now),
            producer: Producer::default(),
            probe: Producer::default(),
            denied: BTreeSet::new(),
            lookup: None,
            disposition: None,
            zombies: vec![],
            log: vec![],
            fetch: None,
            settle: None,
            known_parked: None,
            faults: 0,
            away: false,
            sick: None,
            open: 0,
            stalled: 0,
            nothing_waited: false,
            emptied: 0,
        };
        world.claim();
        world
    }

    fn claim(&mut self) {
        for lane in LANES {
            let (epoch, mark, high_id) = self.database.lanes.entry(lane).or_default();
            *epoch += 1;
            self.core.on_granted(
                &[Grant {
                    lane,
                    epoch: *epoch,
                    watermark: *mark,
                    high_id: *high_id,
                }],
                self.now,
            );
        }
        self.read_parked_keys();
        for topic in 0..3 {
            self.core
                .on_topic_metadata(TopicIndex::new(topic), TopicPresence::Present, self.now);
        }
    }

    fn read_parked_keys(&mut self) {
        let parked = self.database.parked();
        if self.known_parked.as_ref() == Some(&parked) && self.core.knows_parked() {
            return self.assert_parked_as_known(&parked);
        }
        self.core.set_parked(&parked, &LANES, self.now, self.now);
        self.known_parked = Some(parked);
    }

    /// A list that was set and has not changed would change nothing: a relay does not read it.
    fn assert_parked_as_known(&self, parked: &Parked) {
        let mut core = self.core.clone();
        core.set_parked(parked, &LANES, self.now, self.now);
        assert!(core.knows_parked());
        assert_eq!(core.parked_keys(), self.core.parked_keys());
        assert_eq!(core.watermarks(), self.core.watermarks());
    }

    fn step(&mut self, faulty: bool) {
        self.now += Duration::from_millis(self.dice.below(40));
        self.core.resume_due(self.now);
        self.check_cluster();
        match self.dice.below(24) {
            20 => self.advance_lookup(faulty),
            21 => self.advance_disposition(faulty),
            22 => self.send_probe(),
            23 if faulty && self.dice.below(4) == 0 => self.decide_as_a_person(),
            23 => self.read_parked_keys(),
            0..=3 => self.write(),
            4..=6 => self.end_a_transaction(),
            7..=9 => self.advance_fetch(),
            10..=12 => self.append(),
            13..=14 => self.report(),
            15..=16 => self.advance_settle(faulty),
            17 => self.persist_marks(),
            18 if faulty && self.dice.below(12) == 0 => self.kill(),
            19 if faulty && self.dice.below(8) == 0 => self.fail_a_topic(),
            19 if faulty => self.lose_sight_of_a_topic(),
            _ => self.tick(),
        }
    }

    /// Begins and ends outages. They do not excuse a duplicate.
    fn check_cluster(&mut self) {
        match self.dice.below(300) {
            0 | 1 => self.away = !self.away,
            2 | 3 => {
                // Drawn in any case, so that a seed stands for one life whatever is sick.
                let topic = TopicIndex::new(self.dice.below(3) as usize);
                self.sick = self.sick.is_none().then_some(topic);
            }
            _ => {}
        }
        let cluster_error = if self.away && self.dice.below(3) == 0 {
            ClusterError::Reported
        } else {
            ClusterError::None
        };
        self.core.check_acknowledgements(cluster_error, self.now);
        if !self.away && self.dice.below(50) == 0 {
            self.core.on_brokers_answered(self.now);
        }
        self.open += u32::from(self.core.breaker().state() == BreakerState::Open);
        self.stalled += u32::from(self.core.stalled_topics().next().is_some());
    }

    /// A key has one writer at a time: it inserts into its open transaction, or begins one.
    fn write(&mut self) {
        let key = self.dice.below(KEYS);
        let name = format!("k{key}");
        let holder = self
            .database
            .open
            .iter()
            .find(|(_, rows)| rows.iter().any(|row| row.key() == name))
            .map(|(xid, _)| *xid);
        let xid = holder.unwrap_or_else(|| self.database.begin());
        self.database.insert(xid, key);
    }

    fn end_a_transaction(&mut self) {
        let open = self.database.open.len() as u64;
        if open > 0 {
            let at = self.dice.below(open) as usize;
            let xid = *self.database.open.keys().nth(at).expect("below the length");
            if self.dice.below(6) == 0 {
                self.database.open.remove(&xid);
                self.database.complete(xid);
            } else {
                self.database.commit(xid);
            }
        }
    }

    fn advance_fetch(&mut self) {
        match self.fetch.take() {
            None => {
                if !self.producer.failed {
                    self.fetch = self.core.plan_fetch(self.now).map(|plan| (plan, None));
                }
            }
            Some((plan, None)) => {
                let fetched = self.database.fetch(&plan);
                let is_read = |lane| plan.lanes.iter().any(|read| read.lane == lane);
                let mut rows = self.database.rows.values();
                self.nothing_waited = !rows.any(|row| is_read(row.lane));
                self.fetch = Some((plan, Some(fetched)));
            }
            Some((_, Some(_))) if self.producer.failed => self.core.on_fetch_failed(self.now),
            Some((plan, Some(fetched))) => {
                if self.core.fetch_extent(&plan, fetched.rows.len()) == FetchExtent::NothingWaits {
                    assert!(self.nothing_waited, "a row waits that was not fetched");
                    self.emptied += 1;
                }
                for outgoing in self.core.accept(&plan, fetched, self.now) {
                    self.producer.queue.push_back((
                        outgoing.slot,
                        outgoing.row.key().to_owned(),
                        outgoing.row.id,
                    ));
                }
            }
        }
    }

    fn append(&mut self) {
        let producers = self.zombies.len() as u64 + 1;
        let at = self.dice.below(producers) as usize;
        let producer = if at > 0 {
            &mut self.zombies[at - 1]
        } else if self.dice.below(2) == 0 {
            &mut self.probe
        } else {
            &mut self.producer
        };
        if !self.away {
            self.faults += u32::from(producer.append(&self.denied, self.sick, &mut self.log));
        }
    }

    fn send_probe(&mut self) {
        if !self.core.has_probe_under_way() {
            self.probe = Producer::default();
        } else if self.probe.failed {
            return;
        }
        for outgoing in self.core.next_probe(self.now).unwrap_or_default() {
            self.probe.queue.push_back((
                outgoing.slot,
                outgoing.row.key().to_owned(),
                outgoing.row.id,
            ));
        }
    }

    fn advance_lookup(&mut self, faulty: bool) {
        match self.lookup.take() {
            None => self.lookup = self.core.next_lookup(),
            Some(lookup) if faulty && self.dice.below(5) == 0 => self.core.on_lookup_failed(lookup),
            Some(lookup) => {
                let found = lookup
                    .rows
                    .iter()
                    .filter_map(|name| self.database.rows.get(&name.id))
                    .cloned()
                    .collect();
                self.core.on_looked_up(&lookup, found, self.now);
            }
        }
    }

    fn advance_disposition(&mut self, faulty: bool) {
        match self.disposition.take() {
            None => self.disposition = self.core.next_disposition(),
            Some(disposition) if faulty && self.dice.below(5) == 0 => {
                self.core.on_disposition_failed(disposition);
            }
            Some(disposition) => {
                if let Some(row) = self.database.rows.get(&disposition.row.id).cloned() {
                    assert!(is_poison(row.id), "a row was rejected that is not poison");
                    if disposition.disposition == Disposition::ParkKey {
                        self.database
                            .parked
                            .insert((disposition.topic, disposition.key.to_string()), row);
                    } else {
                        self.database.rows.remove(&row.id);
                        self.database.dead.insert(row.id);
                    }
                }
                self.core.on_disposition_done(&disposition, self.now);
            }
        }
    }

    /// Retries or skips the first parked key.
    fn decide_as_a_person(&mut self) {
        if let Some((_, row)) = self.database.parked.pop_first()
            && self.dice.below(2) == 0
        {
            self.database.rows.remove(&row.id);
            self.database.dead.insert(row.id);
        }
    }

    fn report(&mut self) {
        for (slot, outcome) in std::mem::take(&mut self.producer.reports) {
            self.core.on_report(slot, outcome, self.now);
        }
        for (slot, outcome) in std::mem::take(&mut self.probe.reports) {
            self.core.on_report(slot, outcome, self.now);
        }
        if self.producer.failed && self.core.sent_on_main() == 0 {
            self.producer.failed = false;
        }
    }

    fn advance_settle(&mut self, faulty: bool) {
        match self.settle.take() {
            None => {
                let seen = self.core.highest_id();
                if let Some(settle) = self.core.next_settle(4, SettleWhen::Now) {
                    self.settle = Some((self.database.begin(), seen, settle));
                }
            }
            Some((xid, drawn, settle)) => {
                // The statement ran or not, and its answer arrived or not.
                let lost = faulty && self.dice.below(10) == 0;
                if !lost || self.dice.below(2) == 0 {
                    for settle in &settle.rows {
                        self.database.rows.remove(&settle.row.id);
                    }
                }
                self.database.complete(xid);
                if lost {
                    self.core.on_settle_failed(&settle.slots);
                } else {
                    self.core.on_tick(XidTick { xid, drawn });
                    self.core.on_settled(&settle.slots);
                }
            }
        }
    }

    fn tick(&mut self) {
        let (drawn, xid) = (self.core.highest_id(), self.database.begin());
        self.database.complete(xid);
        self.core.on_tick(XidTick { xid, drawn });
    }

    fn persist_marks(&mut self) {
        let marks = self.core.watermarks();
        for of in marks {
            let state = self.database.lanes.get_mut(&of.lane).expect("claimed");
            if state.0 == of.epoch {
                *state = (state.0, state.1.max(of.watermark), state.2.max(of.high_id));
            }
        }
    }

    /// kill -9: the next incarnation starts from the database's marks; what the old one had sent
    /// may still be written.
    fn kill(&mut self) {
        self.faults += 1;
        self.zombies.push(std::mem::take(&mut self.producer));
        self.zombies.push(std::mem::take(&mut self.probe));
        (self.fetch, self.settle, self.lookup, self.disposition) = (None, None, None, None);
        self.core = core(self.now);
        self.known_parked = None;
        self.claim();
    }

    /// Fails the record at the head for good: the producer purges all others.
    fn fail_a_topic(&mut self) {
        if let Some((slot, _, _)) = self.producer.queue.pop_front() {
            self.faults += 1;
            self.producer.failed = true;
            self.producer
                .reports
                .push((slot, Outcome::TopicFailed(ProblemClass::TopicNotAuthorized)));
            let purged = std::mem::take(&mut self.producer.queue);
            self.producer.reports.extend(
                purged
                    .into_iter()
                    .map(|(slot, _, _)| (slot, Outcome::Purged)),
            );
        }
    }

    /// Metadata shows that a topic is missing, or listed again.
    fn lose_sight_of_a_topic(&mut self) {
        let (topic, there) = (
            TopicIndex::new(self.dice.below(3) as usize),
            self.dice.below(2) == 0,
        );
        let presence = if there {
            TopicPresence::Present
        } else {
            TopicPresence::Missing
        };
        match self.dice.below(2) {
            0 => self.core.on_topic_metadata(topic, presence, self.now),
            _ if there => drop(self.denied.remove(&topic)),
            _ => drop(self.denied.insert(topic)),
        }
    }

    /// Ends all faults, and gives the relay all the time that it needs.
    fn heal(&mut self) {
        while let Some(xid) = self.database.open.keys().next().copied() {
            self.database.commit(xid);
        }
        self.denied.clear();
        (self.away, self.sick) = (false, None);
        for topic in 0..3 {
            self.core
                .on_topic_metadata(TopicIndex::new(topic), TopicPresence::Present, self.now);
        }
        for _ in 0..20_000 {
            self.now += Duration::from_millis(50);
            self.core.resume_due(self.now);
            self.core
                .check_acknowledgements(ClusterError::None, self.now);
            self.tick();
            self.advance_fetch();
            self.append();
            self.report();
            self.advance_settle(false);
            self.advance_lookup(false);
            self.advance_disposition(false);
            self.send_probe();
            self.read_parked_keys();
            if self.database.rows.values().all(|row| self.is_parked(row))
                && self.core.in_flight().rows() == 0
                && self.core.is_probing_done()
            {
                return;
            }
        }
    }

    fn is_parked(&self, row: &OutboxRow) -> bool {
        let key = (topic_of(row.key()), row.key().to_owned());
        self.database
            .parked
            .get(&key)
            .is_some_and(|head| head.id <= row.id)
    }

    fn verify(&self, seed: u64) {
        for (key, committed) in &self.database.committed {
            let head = self
                .database
                .parked
                .get(&(topic_of(key), key.clone()))
                .map_or(RowId::MAX, |row| row.id);
            let committed: Vec<RowId> = committed
                .iter()
                .copied()
                .filter(|id| *id < head && !self.database.dead.contains(id))
                .collect();
            let mut firsts: Vec<RowId> = Vec::new();
            for (_, id) in self.log.iter().filter(|(of, _)| of == key) {
                if !firsts.contains(id) {
                    firsts.push(*id);
                }
            }
            assert_eq!(
                firsts, committed,
                "seed {seed}: first occurrences of {key} against what was committed"
            );
        }
        let unique: std::collections::BTreeSet<_> = self.log.iter().collect();
        assert!(
            self.faults > 0 || unique.len() == self.log.len(),
            "seed {seed}: a duplicate without a fault"
        );
        let left = self
            .database
            .rows
            .values()
            .filter(|row| !self.is_parked(row))
            .count();
        assert_eq!(
            (left, self.core.in_flight().rows()),
            (0, 0),
            "seed {seed}: something is left"
        );
    }
}

fn core(now: Instant) -> Core {
    let topic = |name: &str, on_poison| TopicSettings {
        name: name.to_owned(),
        event_types: vec![],
        aggregate_types: vec![],
        on_poison,
    };
    let routes = Routes::new(&[
        topic("t0", OnPoison::Block),
        topic("t1", OnPoison::DeadLetter),
        topic("t2", OnPoison::Block),
    ]);
    let quick = BreakerSettings {
        slow_after_ms: 150,
        open_after_ms: 500,
        max_backoff_ms: 800,
    };
    let topic_limits = TopicLimits {
        max_message_bytes: Some(TOPIC_BYTES),
        ..TopicLimits::default()
    };
    let mut core = Core::new(
        routes,
        Budget {
            rows: 8,
            bytes: 1000,
            rows_per_lane: 6,
        },
        Duration::from_millis(50),
        now,
    )
    .with_breaker(quick, 7, now);
    core.on_topic_limits(&LimitsByTopic(vec![topic_limits; 3]));
    core
}

/// Rows published; asserts that outages took place.
fn live(seeds: std::ops::Range<u64>, faulty: bool) -> usize {
    let (mut published, mut open, mut stalled, mut emptied) = (0, 0, 0, 0);
    for seed in seeds {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step(faulty);
        }
        world.heal();
        world.verify(seed);
        published += world.log.len();
        open += world.open;
        stalled += world.stalled;
        emptied += world.emptied;
    }
    assert!(emptied > 100, "{emptied} fetches showed that nothing waits");
    assert!(
        open > 1000 && stalled > 1000,
        "{open} steps with an open breaker, {stalled} with a stalled topic"
    );
    published
}

#[test]
fn bytes_are_counted_unless_recent_rows_are_small() {
    let now = Instant::now();
    let mut core = core(now);
    core.on_granted(
        &[Grant {
            lane: Lane::FIRST,
            epoch: 1,
            watermark: RowId::ZERO,
            high_id: RowId::ZERO,
        }],
        now,
    );
    core.on_topic_metadata(TopicIndex::new(0), TopicPresence::Present, now);
    let short = RowText {
        aggregate_type: "",
        aggregate_id: "e",
        event_type: "",
        headers: "",
        ..RowText::PLAIN
    };
    let mut fetch_one_of = |bytes: usize| {
        let plan = core
            .plan_fetch(core.next_fetch_at().expect("room"))
            .expect("a plan");
        let rows = vec![OutboxRow {
            content: Content::Whole(Some(vec![0; bytes].into())),
            ..OutboxRow::with(0, 1, short)
        }];
        core.accept(
            &plan,
            Fetched {
                snapshot: Snapshot::new(1, vec![]),
                rows,
                scanned: vec![],
                cut: vec![],
            },
            now,
        );
        plan.small
    };
    assert!(!fetch_one_of(5), "nothing is known yet");
    assert!(fetch_one_of(1000));
    assert!(!fetch_one_of(5));
    assert!(!fetch_one_of(5), "a large one is not forgotten at once");
    assert!((0..100).any(|_| fetch_one_of(5)), "but in time");
}

#[test]
fn without_faults_every_row_is_published_once_and_in_order() {
    assert!(live(0..300, false) > 10_000);
}

#[test]
fn whatever_happens_no_row_is_lost_and_no_key_out_of_order() {
    assert!(live(0..600, true) > 20_000);
}
