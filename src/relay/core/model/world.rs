//! A database, relay processes and Kafka, and every step that one of them can make. A step that is
//! not possible changes nothing.

mod judge;
mod possible;
mod statements;
mod steps;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    outbox::RowId,
    relay::core::{
        Outcome, SettleWhen, TopicPresence,
        ids::TopicIndex,
        model::{
            Bug, Fault, Scenario,
            database::{Database, Key, Row},
            process::{Deletion, Fetch, Life, ProbeProducer, Process, Record, Sending},
            shared::Shared,
        },
    },
    report::ProblemClass,
};

/// Whether the answer to a statement arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Arrives,
    Lost,
}

/// One step. The first number is a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The next row of the script is committed.
    Write,
    /// A row into a transaction that stays open: `key` of the scenario.
    Insert(usize),
    Commit(usize),
    RollBack(usize),
    RestartIds,
    Plan(usize),
    Read(usize),
    Accept(usize),
    /// The oldest report reaches the core.
    Report(usize),
    /// Kafka writes the oldest record of a topic. A number above those of the processes is that of
    /// a producer that no longer exists.
    Append(usize, u8),
    /// Kafka writes the oldest record of a topic that another client has than the one of
    /// [`Self::Append`].
    AppendOther(usize, u8),
    Settle(usize),
    SettleBegins(usize),
    SettleRuns(usize),
    SettleAnswers(usize, Answer),
    Renew(usize),
    XidTick(usize),
    Claim(usize, Answer),
    GiveBack(usize),
    Release(usize, Answer),
    GapScan(usize),
    Kill(usize),
    Pause(usize),
    Wake(usize),
    /// The lease of an instance that does not run ends in the database.
    Expire(u8),
    LoseLease(usize),
    /// A new instance replaces one that has ended.
    Restart(usize),
    /// The oldest record of a topic fails, and Kafka takes no record of the topic for a moment.
    Refuse(usize, u8),
    /// Kafka rejects a batch of a topic because of its oldest record. The last number is the most
    /// records that the batch has.
    Reject(usize, u8, usize),
    /// Kafka rejects a batch of the probe producer.
    RejectProbe(usize, u8, usize),
    /// The producer is retired: because it failed for good, or because of a new password.
    Retire(usize),
    NewProducer(usize),
    AddClient(usize),
    RemoveClient(usize),
    /// Clients that were taken away and are not needed are destroyed.
    DestroyClients(usize),
    /// The pause of a topic is over.
    Resume(usize),
    /// Candidates, or the first row of a topic, are looked up or probed.
    Probe(usize),
    /// Kafka writes what the probe producer has, and reports it.
    AppendProbe(usize),
    /// The disposition of a rejected row is written.
    Dispose(usize),
    TopicSeen(usize, u8, bool),
    Wait(u8),
}

/// A promise that was broken: the letter of the contract, and what happened.
pub(super) type Violation = (char, String);

#[derive(Clone, Hash)]
pub(super) struct World {
    pub(super) database: Shared<Database>,
    pub(super) processes: Vec<Shared<Process>>,
    /// Records on their way from producers that no longer exist. They may still be written, in
    /// order.
    zombies: Vec<Vec<Record>>,
    published: Vec<u64>,
    /// Rows rejected for their own sake. Other rows of their batches do not count.
    refused: BTreeSet<u64>,
    /// Highest id that was written, by key. A consumer drops records that are not above it.
    highest: BTreeMap<Key, RowId>,
    /// Rows in flight at a fault.
    may_repeat: Vec<u64>,
    script_at: usize,
    pub(super) faults_left: u8,
    instances: u8,
    pub(super) now: Instant,
    scenario: Rc<Scenario>,
}

impl World {
    pub(super) fn new(scenario: Scenario, now: Instant) -> Self {
        let lanes = scenario
            .keys
            .iter()
            .map(|key| key.lane + 1)
            .max()
            .unwrap_or(1);
        let mut world = Self {
            database: Shared::new(Database::new(lanes.into())),
            processes: vec![],
            zombies: vec![],
            published: vec![],
            refused: BTreeSet::new(),
            highest: BTreeMap::new(),
            may_repeat: vec![],
            script_at: 0,
            faults_left: scenario.faults_max,
            instances: 0,
            now,
            scenario: Rc::new(scenario),
        };
        for at in 0..world.scenario.processes {
            let process = world.start().expect("a fresh database");
            world.processes.push(process);
            let lanes_max = usize::from(lanes).div_ceil(world.scenario.processes);
            world.claim(at, lanes_max);
        }
        for _ in 0..world.scenario.written_at_start {
            world.write();
        }
        world
    }

    /// Starts a process. Before anything else, it moves the sequence forward if that is due.
    fn start(&mut self) -> Option<Shared<Process>> {
        let incarnation = self.database.edit(|database| {
            database.resume_sequence();
            database.incarnation()
        })?;
        let instance = self.instances;
        self.instances += 1;
        self.database
            .edit(|database| database.leases.insert(instance, true));
        Some(Shared::new(Process::new(
            instance,
            incarnation,
            &self.scenario,
            self.now,
        )))
    }

    pub(super) fn process(&self, at: usize) -> &Process {
        self.processes[at].get()
    }

    fn runs(&self, at: usize) -> bool {
        self.process(at).life == Life::Runs
    }

    /// Carries out a step if it is possible. Returns whether it was.
    pub(super) fn apply(&mut self, step: Step) -> Result<bool, Violation> {
        match step {
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms.into());
                Ok(true)
            }
            Step::Write
            | Step::Insert(_)
            | Step::Commit(_)
            | Step::RollBack(_)
            | Step::RestartIds => Ok(self.serve(step)),
            Step::Kill(at)
            | Step::Restart(at)
            | Step::Wake(at)
            | Step::Pause(at)
            | Step::LoseLease(at) => Ok(self.live(at, step)),
            Step::Expire(instance) => Ok(self.expire(instance)),
            Step::Plan(at) | Step::Read(at) | Step::Accept(at) | Step::GapScan(at) => {
                Ok(self.read(at, step))
            }
            Step::Append(..) | Step::AppendOther(..) => self.append(step),
            Step::Report(at)
            | Step::Refuse(at, _)
            | Step::Reject(at, ..)
            | Step::Retire(at)
            | Step::NewProducer(at) => Ok(self.produce(at, step)),
            Step::AddClient(at) | Step::RemoveClient(at) | Step::DestroyClients(at) => {
                Ok(self.resize(at, step))
            }
            Step::Probe(at)
            | Step::AppendProbe(at)
            | Step::RejectProbe(at, ..)
            | Step::Dispose(at)
            | Step::Resume(at)
            | Step::TopicSeen(at, ..) => {
                if self.runs(at) {
                    self.pause_or_probe(at, step)
                } else {
                    Ok(false)
                }
            }
            Step::Settle(at)
            | Step::SettleBegins(at)
            | Step::SettleRuns(at)
            | Step::SettleAnswers(at, _) => self.settle(at, step),
            Step::Renew(at)
            | Step::XidTick(at)
            | Step::Claim(at, _)
            | Step::GiveBack(at)
            | Step::Release(at, _) => {
                if self.runs(at) {
                    self.lease(at, step)
                } else {
                    Ok(false)
                }
            }
        }
    }

    fn spend(&mut self, fault: Fault) -> bool {
        let possible = self.faults_left > 0 && self.scenario.faults.contains(&fault);
        self.faults_left -= u8::from(possible);
        possible
    }

    // --- Kafka

    fn append(&mut self, step: Step) -> Result<bool, Violation> {
        let (Step::Append(from, topic) | Step::AppendOther(from, topic)) = step else {
            return Ok(false);
        };
        let own = from < self.processes.len();
        let queue = match own {
            true => &self.process(from).queue,
            false => match self.zombies.get(from - self.processes.len()) {
                Some(zombie) => zombie,
                None => return Ok(false),
            },
        };
        let is_late = !own && self.scenario.bug == Bug::LateRequestsUnordered;
        let Some(first) = next_written(queue, step, topic, is_late) else {
            return Ok(false);
        };
        let row = queue[first].row;
        if own {
            self.processes[from].edit(|process| {
                let record = process.queue.remove(first);
                process.known.insert((record.client, topic));
                match self.scenario.bug {
                    Bug::AckBeforeReport => {}
                    _ if self.scenario.fine || process.life == Life::Paused => {
                        process.reports.push((record, Outcome::Published));
                    }
                    _ => process
                        .core
                        .on_report(record.slot, Outcome::Published, self.now),
                }
            });
        } else {
            let zombie = from - self.processes.len();
            self.zombies[zombie].remove(first);
            self.zombies.retain(|zombie| !zombie.is_empty());
        }
        self.judge_appended(row)?;
        Ok(true)
    }
}

/// Index of the record that is written next: the oldest of the topic, or the oldest that another
/// client has.
fn next_written(queue: &[Record], step: Step, topic: u8, unordered: bool) -> Option<usize> {
    let of_topic = |record: &Record| record.row.key.topic == topic;
    let first = queue.iter().position(of_topic)?;
    match step {
        Step::AppendOther(..) => queue
            .iter()
            .position(|record| of_topic(record) && record.client != queue[first].client),
        _ if unordered => queue.iter().rposition(of_topic),
        _ => Some(first),
    }
}
