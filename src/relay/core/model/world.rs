//! A database, relay processes and Kafka, and every step that one of them can make. A step that is not possible changes nothing.

use std::{
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
            may_repeat: vec![],
            script_at: 0,
            faults_left: scenario.faults_max,
            instances: 0,
            now,
            scenario: Rc::new(scenario),
        };
        for at in 0..world.scenario.processes {
            let process = world.start();
            world.processes.push(process);
            let lanes_max = usize::from(lanes).div_ceil(world.scenario.processes);
            world.claim(at, lanes_max);
        }
        for _ in 0..world.scenario.written_at_start {
            world.write();
        }
        world
    }

    fn start(&mut self) -> Shared<Process> {
        let instance = self.instances;
        self.instances += 1;
        self.database.edit(|database| database.leases.insert(instance, true));
        Shared::new(Process::new(instance, &self.scenario, self.now))
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
                        let answer = (!self.scenario.fine).then(|| self.database.get().fetch(&plan));
                        Fetch { plan, answer }
                    });
                    process.fetch.is_some()
                }));
            }
            Step::Read(at) => {
                let Some(Fetch { plan, answer: None }) = &self.process(at).fetch else { return Ok(false) };
                let answer = self.database.get().fetch(plan);
                self.processes[at].edit(|process| process.fetch.iter_mut().for_each(|fetch| fetch.answer = Some(answer.clone())));
            }
            Step::Accept(at) if self.runs(at) && self.process(at).fetch.as_ref().is_some_and(|fetch| fetch.answer.is_some()) => {
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

    // --- settling

    fn settle(&mut self, at: usize, step: Step) -> Result<bool, Violation> {
        let (bug, process) = (self.scenario.bug, self.process(at));
        let (paused, deletions) = (process.life == Life::Paused, &process.deletions);
        match step {
            Step::Settle(_) if !paused && deletions.len() < self.scenario.deletions_max && process.core.window().acked() > 0 => {
                Ok(self.processes[at].edit(|process| {
                    let drawn = process.core.seen();
                    let settle = process.core.next_settle(2, true);
                    process.deletions.extend(settle.map(|settle| Deletion { settle, drawn, xid: None, done: false }));
                    true
                }))
            }
            Step::SettleBegins(_) => {
                let Some(next) = deletions.iter().position(|deletion| deletion.xid.is_none()) else { return Ok(false) };
                let xid = self.database.edit(Database::begin);
                self.processes[at].edit(|process| process.deletions[next].xid = Some(xid));
                Ok(true)
            }
            Step::SettleRuns(_) => {
                let Some(next) = deletions.iter().position(|deletion| !deletion.done) else { return Ok(false) };
                let names = deletions[next].settle.plan.event_ids.clone();
                let plan = &deletions[next].settle.plan;
                let key = |lane: i16| Key { name: 0, lane: lane as u8, topic: 0 };
                let named: Vec<_> = (0..names.len()).map(|at| self.row_of(names[at], plan.ids[at], key(plan.lanes[at]))).collect();
                let begun = deletions[next].xid;
                let (xid, deleted) = self.database.edit(|database| {
                    let xid = begun.unwrap_or_else(|| database.begin());
                    let deleted = database.settle(&named, bug);
                    database.commit(xid);
                    (xid, deleted)
                });
                self.processes[at].edit(|process| (process.deletions[next].xid, process.deletions[next].done) = (Some(xid), true));
                self.judge_deleted(&named, &deleted)?;
                Ok(true)
            }
            Step::SettleAnswers(_, answer) if !paused => {
                let Some(first) = deletions.iter().position(|deletion| deletion.done || answer == Answer::Lost) else { return Ok(false) };
                if answer == Answer::Lost && !self.spend(Fault::AnswerLost) {
                    return Ok(false);
                }
                let begun = self.process(at).deletions[first].xid.filter(|_| !self.process(at).deletions[first].done);
                begun.into_iter().for_each(|xid| self.database.edit(|database| database.roll_back(xid)));
                self.processes[at].edit(|process| {
                    let deletion = process.deletions.remove(first);
                    match deletion.xid {
                        Some(xid) if answer == Answer::Arrives => {
                            process.tick(xid, deletion.drawn);
                            process.core.settled(&deletion.settle.slots);
                        }
                        _ => process.core.settle_failed(&deletion.settle.slots),
                    }
                    if bug == Bug::ForgetAtOnce {
                        process.core.window.fetch_is_in();
                    }
                });
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// A row by its event; one that was truncated is only a name.
    fn row_of(&self, event_id: Uuid, id: i64, key: Key) -> Row {
        self.database.get().row(event_id).unwrap_or(Row { id, event: event_id.as_u64_pair().1, key })
    }

    // --- leases

    fn lease(&mut self, at: usize, step: Step) -> Result<bool, Violation> {
        let (bug, process) = (self.scenario.bug, self.process(at));
        let (instance, seen, news) = (process.instance, process.core.seen(), process.core.seen() > process.ticked);
        match step {
            Step::Renew(_) => {
                let marks = process.core.marks();
                let before = self.database.get().lanes.clone();
                let ours = self.database.edit(|database| database.write_marks(instance, &marks, false, bug));
                self.judge_marks()?;
                if !self.process(at).core.owns_exactly(&ours) {
                    self.lose_lease(at);
                    return Ok(true);
                }
                Ok(before != self.database.get().lanes)
            }
            Step::Tick(_) if news => {
                let xid = self.database.edit(Database::tick);
                self.processes[at].edit(|process| process.tick(xid, seen));
                Ok(true)
            }
            Step::Claim(_, answer) => {
                if answer == Answer::Arrives {
                    return Ok(self.claim(at, usize::MAX));
                }
                let known = process.core.marks();
                let possible = self.faults_left > 0 && self.scenario.faults.contains(&Fault::AnswerLost);
                let lost = possible && !self.database.edit(|database| database.claim(instance, &known, usize::MAX)).is_empty();
                Ok(lost && self.spend(Fault::AnswerLost))
            }
            Step::GiveBack(_) => {
                let possible = process.core.owned() > 0 && self.spend(Fault::GiveBack);
                if possible {
                    self.processes[at].edit(|process| process.core.drain(1));
                }
                Ok(possible)
            }
            Step::Release(_, answer) => {
                let drained =
                    if bug == Bug::ReleaseUndrained && process.core.owned() == 0 { process.core.marks() } else { process.core.drained() };
                if drained.lanes.is_empty() || answer == Answer::Lost && !self.spend(Fault::AnswerLost) {
                    return Ok(false);
                }
                self.database.edit(|database| database.write_marks(instance, &drained, true, bug));
                if answer == Answer::Arrives {
                    self.processes[at].edit(|process| process.core.released(&drained));
                }
                self.judge_marks()?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn claim(&mut self, at: usize, lanes_max: usize) -> bool {
        let (instance, known, now) = (self.process(at).instance, self.process(at).core.marks(), self.now);
        let grants = self.database.edit(|database| database.claim(instance, &known, lanes_max));
        if !grants.is_empty() {
            self.processes[at].edit(|process| process.core.granted(&grants, now));
        }
        !grants.is_empty()
    }

    fn expire(&mut self, instance: u8) -> bool {
        let process = self.processes.iter().position(|process| process.get().instance == instance);
        let life = process.map_or(Life::Gone, |at| self.process(at).life);
        if !matches!(life, Life::Paused | Life::Gone) || self.database.get().leases.get(&instance) != Some(&true) {
            return false;
        }
        process.into_iter().for_each(|at| self.remember_in_flight(at));
        self.database.edit(|database| database.leases.insert(instance, false));
        true
    }

    fn lose_lease(&mut self, at: usize) {
        self.remember_in_flight(at);
        let on_its_way = self.processes[at].edit(Process::lose_lease);
        self.zombies.push(on_its_way);
    }

    /// A new instance begins: after a kill, or once the old one has all reports. What it had not settled yet stays. While another relay runs
    /// that one takes over.
    fn restart(&mut self, at: usize) -> bool {
        let process = self.process(at);
        let over = match process.life {
            Life::Gone => true,
            Life::Lost => process.core.window().sent() == 0 && process.deletions.is_empty(),
            Life::Runs | Life::Paused => false,
        };
        if over {
            let (instance, says_goodbye) = (process.instance, process.life == Life::Lost);
            if says_goodbye {
                self.database.edit(|database| database.leases.remove(&instance));
            }
            if self.scenario.restarts || (0..self.processes.len()).all(|other| !self.runs(other)) {
                self.processes[at] = self.start();
            } else {
                self.processes[at].edit(|process| process.life = Life::Gone);
                return says_goodbye;
            }
        }
        over
    }

    // --- Kafka, and the judge

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

    fn remember_in_flight(&mut self, at: usize) {
        let held = self.database.get().committed.iter().filter(|row| self.processes[at].get().holds(row)).map(|row| row.event);
        self.may_repeat.extend(held);
        self.may_repeat.sort_unstable();
        self.may_repeat.dedup();
    }

    fn is_published(&self, row: &Row) -> bool {
        self.published.binary_search(&row.event).is_ok()
    }

    fn judge_appended(&mut self, row: Row) -> Result<(), Violation> {
        let database = self.database.get();
        if self.is_published(&row) {
            let excused = self.may_repeat.binary_search(&row.event).is_ok();
            return if excused { Ok(()) } else { Err(('D', format!("{row:?} was published twice without a fault"))) };
        }
        let of_key = || database.committed.iter().filter(|other| other.key == row.key);
        let earlier = of_key().take_while(|other| other.event != row.event).find(|other| !self.is_published(other));
        if let Some(earlier) = earlier.filter(|_| !database.ids_came_again) {
            return Err(('O', format!("{row:?} went out before {earlier:?}")));
        }
        if let Some(at) = self.published.binary_search(&row.event).err() {
            self.published.insert(at, row.event);
        }
        Ok(())
    }

    fn judge_deleted(&self, named: &[Row], deleted: &[Row]) -> Result<(), Violation> {
        if let Some(row) = deleted.iter().find(|row| !named.contains(row)) {
            return Err(('R', format!("{row:?} was deleted in place of another row with its id")));
        }
        match deleted.iter().find(|row| !self.is_published(row)) {
            Some(row) => Err(('L', format!("{row:?} was deleted and is not published"))),
            None => Ok(()),
        }
    }

    fn judge_marks(&self) -> Result<(), Violation> {
        match self.database.get().below_mark().filter(|_| !self.database.get().ids_came_again) {
            Some(row) => Err(('L', format!("{row:?} is below the mark of its lane: nobody reads it"))),
            None => Ok(()),
        }
    }

    // --- the end

    /// Nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.processes.iter().map(Shared::get).all(|process| {
            let idle = process.queue.is_empty() && process.reports.is_empty() && process.deletions.is_empty();
            idle && process.trial.is_empty() && process.fetch.is_none() && process.life != Life::Paused
        })
    }

    /// Every fault ends, and the relays get all the time that they need: then nothing may be left.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.faults_left = 0;
        while self.apply(Step::Commit(0))? {}
        for _ in 0..100 {
            self.now += Duration::from_millis(50);
            for instance in 0..self.instances {
                self.apply(Step::Expire(instance))?;
            }
            for at in 0..self.processes.len() {
                self.turn(at)?;
            }
            let alive = self.processes.iter().map(Shared::get).filter(|process| process.life != Life::Gone);
            let in_flight: usize = alive.map(|process| process.core.window().rows()).sum();
            if in_flight == 0 && self.database.get().rows.is_empty() {
                return Ok(());
            }
        }
        Err(('L', format!("after all has healed these are still waiting: {:?}", self.database.get().rows)))
    }

    fn turn(&mut self, at: usize) -> Result<(), Violation> {
        for step in [Step::Wake(at), Step::Retire(at)] {
            self.apply(step)?;
        }
        while self.apply(Step::Report(at))? {}
        for step in [Step::NewProducer(at), Step::Restart(at), Step::Resume(at), Step::Release(at, Answer::Arrives), Step::Renew(at)] {
            self.apply(step)?;
        }
        let (claim, tick) = (Step::Claim(at, Answer::Arrives), Step::Tick(at));
        for step in [claim, tick, Step::Sweep(at), Step::Plan(at), Step::Read(at), Step::Accept(at)] {
            self.apply(step)?;
        }
        for topic in 0..self.scenario.topics() {
            self.apply(Step::TopicSeen(at, topic, true))?;
            while self.apply(Step::Append(at, topic))? {}
        }
        while self.apply(Step::Try(at))? {
            while self.apply(Step::AppendTrial(at))? {}
        }
        while self.apply(Step::Report(at))? {}
        for step in [Step::Settle(at), Step::SettleRuns(at), Step::SettleAnswers(at, Answer::Arrives)] {
            self.apply(step)?;
        }
        Ok(())
    }

    /// Every step that is possible here; a few of them may not be after all. Once nothing is left to publish, only what is under way ends.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let over = self.database.get().rows.is_empty() && self.script_at == self.scenario.script.len();
        if self.script_at < self.scenario.script.len() {
            steps.push(Step::Write);
        }
        steps.extend(self.database.get().leases.keys().map(|instance| Step::Expire(*instance)));
        for at in 0..self.processes.len() {
            self.steps_of(at, over, &mut steps);
        }
        let producers = self.processes.len() + self.zombies.len();
        steps.extend((0..producers).flat_map(|from| (0..self.scenario.topics()).map(move |topic| Step::Append(from, topic))));
        if self.faults_left > 0 && !over {
            steps.extend(self.scenario.faults.iter().flat_map(|fault| self.steps_of_fault(*fault)));
        }
        steps
    }

    fn steps_of(&self, at: usize, over: bool, steps: &mut Vec<Step>) {
        let process = self.process(at);
        steps.extend(process.deletions.iter().map(|_| Step::SettleRuns(at)));
        match process.life {
            _ if over => {
                steps.extend(process.fetch.iter().map(|fetch| if fetch.answer.is_some() { Step::Accept(at) } else { Step::Read(at) }))
            }
            Life::Gone => steps.push(Step::Restart(at)),
            Life::Paused => steps.push(Step::Wake(at)),
            Life::Lost => steps.push(Step::Restart(at)),
            Life::Runs => {
                steps.push(match &process.fetch {
                    None => Step::Plan(at),
                    Some(Fetch { answer: None, .. }) => Step::Read(at),
                    Some(_) => Step::Accept(at),
                });
                if process.sending != Sending::Open {
                    steps.extend([Step::Retire(at), Step::NewProducer(at), Step::Resume(at)]);
                }
                steps.extend([
                    Step::Resume(at),
                    Step::Try(at),
                    Step::AppendTrial(at),
                    Step::Claim(at, Answer::Arrives),
                    Step::Release(at, Answer::Arrives),
                    Step::Sweep(at),
                ]);
                // Marks matter to the next owner of a lane.
                if self.faults_left > 0 {
                    steps.push(Step::Renew(at));
                }
                steps.extend((0..self.scenario.topics()).map(|topic| Step::TopicSeen(at, topic, true)));
            }
        }
        if matches!(process.life, Life::Runs | Life::Lost) {
            steps.extend(process.reports.iter().take(1).map(|_| Step::Report(at)));
            steps.extend([Step::Settle(at), Step::SettleAnswers(at, Answer::Arrives)]);
        }
    }

    fn steps_of_fault(&self, fault: Fault) -> Vec<Step> {
        let topics = 0..self.scenario.topics();
        // The relays are alike: faults hit the first, which has more to lose.
        let at = 0;
        match fault {
            Fault::Kill => vec![Step::Kill(at)],
            Fault::Pause => vec![Step::Pause(at)],
            Fault::LoseLease => vec![Step::LoseLease(at)],
            Fault::Refuse => topics.map(|topic| Step::Refuse(at, topic)).collect(),
            Fault::Retire => vec![Step::Retire(at)],
            Fault::AnswerLost => {
                vec![Step::SettleAnswers(at, Answer::Lost), Step::Claim(at, Answer::Lost), Step::Release(at, Answer::Lost)]
            }
            Fault::GiveBack => vec![Step::GiveBack(at)],
            Fault::TopicMissing => topics.map(|topic| Step::TopicSeen(at, topic, false)).collect(),
            Fault::RestartIds => vec![Step::RestartIds],
        }
    }
}
