//! Statements of a relay, whose answers may be lost: settling, and everything about the lease.

use super::*;
use crate::outbox::{Lane, RowId};

impl World {
    pub(super) fn settle(&mut self, at: usize, step: Step) -> Result<bool, Violation> {
        let (bug, process) = (self.scenario.bug, self.process(at));
        let (paused, deletions) = (process.life == Life::Paused, &process.deletions);
        match step {
            Step::Settle(_)
                if !paused
                    && deletions.len() < self.scenario.deletions_max
                    && process.core.in_flight().acked() > 0 =>
            {
                self.processes[at].edit(|process| {
                    let drawn = process.core.highest_id();
                    let settle = process.core.next_settle(2, SettleWhen::Now);
                    process.deletions.extend(settle.map(|settle| Deletion {
                        settle,
                        drawn,
                        xid: None,
                        done: false,
                    }));
                });
                if self.scenario.fine {
                    Ok(true)
                } else {
                    self.settle(at, Step::SettleRuns(at))
                }
            }
            Step::SettleBegins(_) => {
                let Some(next) = deletions.iter().position(|deletion| deletion.xid.is_none())
                else {
                    return Ok(false);
                };
                let xid = self.database.edit(Database::begin);
                self.processes[at].edit(|process| process.deletions[next].xid = Some(xid));
                Ok(true)
            }
            Step::SettleRuns(_) => {
                let Some(next) = deletions.iter().position(|deletion| !deletion.done) else {
                    return Ok(false);
                };
                let key = |lane: Lane| Key {
                    name: 0,
                    lane: lane.index() as u8,
                    topic: 0,
                };
                let named: Vec<_> = deletions[next]
                    .settle
                    .rows
                    .iter()
                    .map(|settle| settle.row)
                    .map(|row| self.row_of(row.event_id, row.id, key(row.lane)))
                    .collect();
                let begun = deletions[next].xid;
                let (xid, deleted) = self.database.edit(|database| {
                    let xid = begun.unwrap_or_else(|| database.begin());
                    let deleted = database.settle(&named, bug);
                    database.commit(xid);
                    (xid, deleted)
                });
                self.processes[at].edit(|process| {
                    (process.deletions[next].xid, process.deletions[next].done) = (Some(xid), true);
                });
                self.judge_deleted(&named, &deleted)?;
                Ok(true)
            }
            Step::SettleAnswers(_, answer) if !paused => {
                let Some(first) = deletions
                    .iter()
                    .position(|deletion| deletion.done || answer == Answer::Lost)
                else {
                    return Ok(false);
                };
                if answer == Answer::Lost && !self.spend(Fault::AnswerLost) {
                    return Ok(false);
                }
                let begun = self.process(at).deletions[first]
                    .xid
                    .filter(|_| !self.process(at).deletions[first].done);
                begun
                    .into_iter()
                    .for_each(|xid| self.database.edit(|database| database.roll_back(xid)));
                self.processes[at].edit(|process| {
                    let deletion = process.deletions.remove(first);
                    match deletion.xid {
                        Some(xid) if answer == Answer::Arrives => {
                            process.tick(xid, deletion.drawn);
                            process.core.on_settled(&deletion.settle.slots);
                        }
                        _ => process.core.on_settle_failed(&deletion.settle.slots),
                    }
                    if bug == Bug::ForgetAtOnce {
                        process.core.in_flight.end_fetch();
                    }
                });
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// A row by its event, with the id that a relay has for it. A truncated row has no other
    /// content.
    pub(super) fn row_of(&self, event_id: Uuid, id: RowId, key: Key) -> Row {
        self.database.get().row(event_id).map_or(
            Row {
                id,
                event: event_id.as_u64_pair().1,
                key,
            },
            |row| Row { id, ..row },
        )
    }

    // --- leases

    pub(super) fn lease(&mut self, at: usize, step: Step) -> Result<bool, Violation> {
        let (bug, process) = (self.scenario.bug, self.process(at));
        let (instance, seen, has_new_ids) = (
            process.instance,
            process.core.highest_id(),
            process.core.highest_id() > process.ticked,
        );
        let writer = (instance, process.incarnation);
        match step {
            Step::Renew(_) => {
                let marks = process.core.watermarks();
                let before = self.database.get().lanes.clone();
                let ours = self
                    .database
                    .edit(|database| database.write_marks(writer, &marks, false, bug));
                self.judge_marks()?;
                if !self.process(at).core.owns_exactly(&ours) {
                    self.lose_lease(at);
                    return Ok(true);
                }
                Ok(before != self.database.get().lanes)
            }
            Step::XidTick(_) if has_new_ids => {
                let xid = self.database.edit(Database::tick);
                self.processes[at].edit(|process| process.tick(xid, seen));
                Ok(true)
            }
            Step::Claim(_, answer) => {
                if answer == Answer::Arrives {
                    return Ok(self.claim(at, usize::MAX));
                }
                let known = process.core.watermarks();
                let possible =
                    self.faults_left > 0 && self.scenario.faults.contains(&Fault::AnswerLost);
                let lost = possible
                    && !self
                        .database
                        .edit(|database| database.claim(instance, &known, usize::MAX))
                        .is_empty();
                Ok(lost && self.spend(Fault::AnswerLost))
            }
            Step::GiveBack(_) => {
                let possible = process.core.owned_lanes() > 0 && self.spend(Fault::GiveBack);
                if possible {
                    let now = self.now;
                    self.processes[at].edit(|process| process.core.drain(1, now));
                }
                Ok(possible)
            }
            Step::Release(_, answer) => {
                let drained = if bug == Bug::ReleaseUndrained && process.core.owned_lanes() == 0 {
                    process.core.watermarks()
                } else {
                    process.core.drained_lanes()
                };
                if drained.is_empty() || answer == Answer::Lost && !self.spend(Fault::AnswerLost) {
                    return Ok(false);
                }
                self.database
                    .edit(|database| database.write_marks(writer, &drained, true, bug));
                if answer == Answer::Arrives {
                    self.processes[at].edit(|process| process.core.on_released(&drained));
                }
                self.judge_marks()?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    pub(super) fn claim(&mut self, at: usize, lanes_max: usize) -> bool {
        let (instance, known, now) = (
            self.process(at).instance,
            self.process(at).core.watermarks(),
            self.now,
        );
        let grants = self
            .database
            .edit(|database| database.claim(instance, &known, lanes_max));
        if !grants.is_empty() {
            self.processes[at].edit(|process| process.core.on_granted(&grants, now));
        }
        !grants.is_empty()
    }

    pub(super) fn expire(&mut self, instance: u8) -> bool {
        let process = self
            .processes
            .iter()
            .position(|process| process.get().instance == instance);
        let life = process.map_or(Life::Gone, |at| self.process(at).life);
        if !matches!(life, Life::Paused | Life::Gone)
            || self.database.get().leases.get(&instance) != Some(&true)
        {
            return false;
        }
        process
            .into_iter()
            .for_each(|at| self.remember_in_flight(at));
        self.database
            .edit(|database| database.leases.insert(instance, false));
        true
    }

    pub(super) fn lose_lease(&mut self, at: usize) {
        self.remember_in_flight(at);
        let on_its_way = self.processes[at].edit(Process::lose_lease);
        self.zombies.push(on_its_way);
    }

    /// Starts a new instance after a kill, or once the old one has all its reports. Rows that the
    /// old one had not settled stay in the table. While another relay runs, that one takes over
    /// instead.
    pub(super) fn restart(&mut self, at: usize) -> bool {
        let process = self.process(at);
        let over = match process.life {
            Life::Gone => true,
            Life::Lost => process.core.in_flight().sent() == 0 && process.deletions.is_empty(),
            Life::Runs | Life::Paused => false,
        };
        if over {
            let (instance, says_goodbye) = (process.instance, process.life == Life::Lost);
            if says_goodbye {
                self.database
                    .edit(|database| database.leases.remove(&instance));
            }
            if self.scenario.restarts || (0..self.processes.len()).all(|other| !self.runs(other)) {
                let Some(process) = self.start() else {
                    return says_goodbye;
                };
                self.processes[at] = process;
            } else {
                self.processes[at].edit(|process| process.life = Life::Gone);
                return says_goodbye;
            }
        }
        over
    }
}
