//! A database, relay processes and Kafka, and every step that one of them can make. A step that is not possible changes nothing.

mod judge;
mod possible;
mod statements;

use std::{
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    Bug, Fault, Scenario,
    database::{Database, Key, Row},
    process::{Deletion, Fetch, Life, Process, Record, Sending},
    shared::Shared,
};
use crate::relay::core::Outcome;

/// How the answer to a statement goes.
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
    /// Kafka writes the oldest record of a topic: of a process, or, above those, of a producer that is gone.
    Append(usize, u8),
    Settle(usize),
    SettleBegins(usize),
    SettleRuns(usize),
    SettleAnswers(usize, Answer),
    Renew(usize),
    Tick(usize),
    Claim(usize, Answer),
    GiveBack(usize),
    Release(usize, Answer),
    Sweep(usize),
    Kill(usize),
    Pause(usize),
    Wake(usize),
    /// The lease of an instance that does not run ends in the database.
    Expire(u8),
    LoseLease(usize),
    /// A new instance instead of one that is gone.
    Restart(usize),
    /// Kafka refuses the oldest record of a topic for good.
    Refuse(usize, u8),
    /// The producer is thrown out: because it is broken, or because of a new password.
    Retire(usize),
    NewProducer(usize),
    /// The pause of a topic is over.
    Resume(usize),
    /// Suspects, or the first row of a topic, are looked up or tried.
    Try(usize),
    /// Kafka writes what is on trial, and says so.
    AppendTrial(usize),
    TopicSeen(usize, u8, bool),
    Wait(u8),
}

/// What was promised and not kept: the letter of the contract, and what happened.
pub(super) type Violation = (char, String);

#[derive(Clone, Hash)]
pub(super) struct World {
    pub(super) database: Shared<Database>,
    pub(super) processes: Vec<Shared<Process>>,
    /// What producers that are gone had on its way: it may still be written, in order.
    zombies: Vec<Vec<Record>>,
    published: Vec<u64>,
    /// Highest id that was written, by key: a consumer drops what is not above it.
    highest: BTreeMap<Key, i64>,
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
        let lanes = scenario.keys.iter().map(|key| key.lane + 1).max().unwrap_or(1);
        let mut world = Self {
            database: Shared::new(Database::new(lanes.into())),
            processes: vec![],
            zombies: vec![],
            published: vec![],
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

    /// Before anything else it moves the sequence on, if that is due.
    fn start(&mut self) -> Option<Shared<Process>> {
        let incarnation = self.database.edit(|database| {
            database.resume_sequence();
            database.incarnation()
        })?;
        let instance = self.instances;
        self.instances += 1;
        self.database.edit(|database| database.leases.insert(instance, true));
        Some(Shared::new(Process::new(instance, incarnation, &self.scenario, self.now)))
    }

    pub(super) fn process(&self, at: usize) -> &Process {
        self.processes[at].get()
    }

    fn runs(&self, at: usize) -> bool {
        self.process(at).life == Life::Runs
    }

    /// Whether a step is possible; if so it is made.
    pub(super) fn apply(&mut self, step: Step) -> Result<bool, Violation> {
        let (now, bug) = (self.now, self.scenario.bug);
        match step {
            Step::Write => return Ok(self.script_at < self.scenario.script.len() && self.write()),
            Step::Insert(key) => {
                let key = self.scenario.keys[key % self.scenario.keys.len()];
                self.database.edit(|database| database.insert(key));
            }
            Step::Commit(at) | Step::RollBack(at) => {
                let writers = self.database.get().writers();
                if writers.is_empty() {
                    return Ok(false);
                }
                let xid = writers[at % writers.len()];
                self.database.edit(|database| if matches!(step, Step::Commit(_)) { database.commit(xid) } else { database.roll_back(xid) });
            }
            Step::RestartIds => {
                let possible = self.database.get().writers().is_empty() && self.spend(Fault::RestartIds);
                if possible {
                    self.database.edit(Database::restart_ids);
                }
                return Ok(possible);
            }
            Step::Wait(ms) => self.now += Duration::from_millis(ms.into()),
            Step::Append(from, topic) => return self.append(from, topic),
            Step::Expire(instance) => return Ok(self.expire(instance)),
            Step::Kill(at) => {
                let possible = self.process(at).life != Life::Gone && self.spend(Fault::Kill);
                if possible {
                    self.remember_in_flight(at);
                    let on_its_way = self.processes[at].edit(|process| {
                        (process.life, process.fetch, process.deletions) = (Life::Gone, None, vec![]);
                        process.reports.clear();
                        [std::mem::take(&mut process.queue), std::mem::take(&mut process.trial)]
                    });
                    self.zombies.extend(on_its_way);
                }
                return Ok(possible);
            }
            Step::Restart(at) => return Ok(self.restart(at)),
            Step::Wake(at) => {
                if self.process(at).life != Life::Paused {
                    return Ok(false);
                }
                if self.database.get().leases.get(&self.process(at).instance) != Some(&true) {
                    self.lose_lease(at);
                } else {
                    self.processes[at].edit(|process| process.life = Life::Runs);
                }
            }
            Step::Report(at) => {
                let process = self.process(at);
                if process.reports.is_empty() || !matches!(process.life, Life::Runs | Life::Lost) {
                    return Ok(false);
                }
                self.processes[at].edit(|process| {
                    let (record, outcome) = process.reports.remove(0);
                    process.core.reported(record.slot, outcome, now);
                });
            }
            Step::Settle(at) | Step::SettleBegins(at) | Step::SettleRuns(at) | Step::SettleAnswers(at, _) => {
                return self.settle(at, step);
            }
            Step::Plan(at) if self.runs(at) && self.process(at).fetch.is_none() && self.process(at).sending == Sending::Open => {
                return Ok(self.processes[at].edit(|process| {
                    let at = process.core.fetch_at().map(|at| at.max(now));
                    let plan = at.and_then(|at| process.core.plan_fetch(at));
                    process.fetch = plan.map(|plan| {
                        let answer = (!self.scenario.fine).then(|| (self.database.get().incarnation(), self.database.get().fetch(&plan)));
                        Fetch { plan, answer }
                    });
                    process.fetch.is_some()
                }));
            }
            Step::Read(at) => {
                let Some(Fetch { plan, answer: None }) = &self.process(at).fetch else { return Ok(false) };
                let answer = (self.database.get().incarnation(), self.database.get().fetch(plan));
                self.processes[at].edit(|process| process.fetch.iter_mut().for_each(|fetch| fetch.answer = Some(answer.clone())));
            }
            Step::Accept(at) if self.runs(at) && self.process(at).fetch.as_ref().is_some_and(|fetch| fetch.answer.is_some()) => {
                let process = self.process(at);
                let seen = process.fetch.as_ref().and_then(|fetch| fetch.answer.as_ref()).and_then(|(incarnation, _)| *incarnation);
                if seen != Some(process.incarnation) && bug != Bug::SendAstray {
                    self.lose_lease(at);
                    return Ok(true);
                }
                let database = self.database.get();
                self.processes[at].edit(|process| process.accept(database, bug, now));
            }
            Step::Renew(at) | Step::Tick(at) | Step::Claim(at, _) | Step::GiveBack(at) | Step::Release(at, _) if self.runs(at) => {
                return self.lease(at, step);
            }
            Step::Sweep(at) if self.runs(at) => {
                let found = self.database.get().sweep(&self.process(at).core.marks());
                for row in &found {
                    self.processes[at].edit(|process| process.core.straggler(row.key.lane, row.id, row.event_id()));
                }
                return Ok(!found.is_empty());
            }
            Step::Pause(at) => {
                let possible = self.runs(at) && self.spend(Fault::Pause);
                if possible {
                    self.processes[at].edit(|process| process.life = Life::Paused);
                }
                return Ok(possible);
            }
            Step::LoseLease(at) => {
                let possible = self.runs(at) && self.spend(Fault::LoseLease);
                if possible {
                    self.lose_lease(at);
                }
                return Ok(possible);
            }
            Step::Refuse(at, topic) => {
                let first = self.process(at).queue.iter().position(|record| record.row.key.topic == topic);
                let open = self.process(at).sending == Sending::Open;
                let Some(first) = first.filter(|_| open && self.spend(Fault::Refuse)) else { return Ok(false) };
                self.remember_in_flight(at);
                let on_its_way = self.processes[at].edit(|process| process.refuse(first, bug));
                self.zombies.push(on_its_way);
            }
            Step::Retire(at) => {
                let process = self.process(at);
                let broken = process.sending == Sending::Broken;
                let possible = process.life == Life::Runs && (broken || process.sending == Sending::Open && self.spend(Fault::Retire));
                if possible {
                    self.remember_in_flight(at);
                    let on_its_way = self.processes[at].edit(Process::purge);
                    self.zombies.push(on_its_way);
                }
                return Ok(possible);
            }
            Step::NewProducer(at) => {
                let process = self.process(at);
                let reported = process.core.window().sent() == 0 || bug == Bug::NextProducerEarly;
                let possible = process.life == Life::Runs && process.sending == Sending::Retiring && reported;
                if possible {
                    self.processes[at].edit(|process| process.sending = Sending::Open);
                }
                return Ok(possible);
            }
            Step::Try(at) if self.runs(at) => {
                let database = self.database.get();
                return Ok(self.processes[at].edit(|process| process.try_rows(database, now)));
            }
            Step::AppendTrial(at) if self.runs(at) && !self.process(at).trial.is_empty() => {
                let record = self.processes[at].edit(|process| process.trial.remove(0));
                self.judge_appended(record.row)?;
                self.processes[at].edit(|process| process.core.reported(record.slot, Outcome::Published, now));
            }
            Step::Resume(at) if self.runs(at) && self.process(at).core.resume_at(now).is_some() => {
                self.processes[at].edit(|process| {
                    let due = process.core.resume_at(now).map_or(now, |due| due.max(now));
                    process.core.resume(due);
                });
            }
            Step::TopicSeen(at, topic, exists) => {
                let known = self.process(at).core.stops().flows(topic.into());
                let possible = self.runs(at) && known != exists && (exists || self.spend(Fault::TopicMissing));
                if possible {
                    self.processes[at].edit(|process| process.core.topic_seen(topic.into(), exists, now));
                }
                return Ok(possible);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn write(&mut self) -> bool {
        let key = self.scenario.keys[self.scenario.script[self.script_at]];
        self.script_at += 1;
        self.database.edit(|database| {
            let xid = database.insert(key);
            database.commit(xid);
        });
        true
    }

    fn spend(&mut self, fault: Fault) -> bool {
        let possible = self.faults_left > 0 && self.scenario.faults.contains(&fault);
        self.faults_left -= u8::from(possible);
        possible
    }

    // --- Kafka

    fn append(&mut self, from: usize, topic: u8) -> Result<bool, Violation> {
        let own = from < self.processes.len();
        let queue = match own {
            true => &self.process(from).queue,
            false => match self.zombies.get(from - self.processes.len()) {
                Some(zombie) => zombie,
                None => return Ok(false),
            },
        };
        let Some(first) = queue.iter().position(|record| record.row.key.topic == topic) else { return Ok(false) };
        let row = queue[first].row;
        if own {
            self.processes[from].edit(|process| {
                let record = process.queue.remove(first);
                match self.scenario.bug {
                    Bug::AckBeforeReport => {}
                    _ if self.scenario.fine || process.life == Life::Paused => process.reports.push((record, Outcome::Published)),
                    _ => process.core.reported(record.slot, Outcome::Published, self.now),
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
