//! Steps of services, of a process, and of Kafka's answers to it; those of statements are in
//! [`super::statements`]. Each returns whether it was possible.

use super::*;
use crate::kafka::ClientId;

impl World {
    /// Services write rows, and transactions end.
    pub(super) fn serve(&mut self, step: Step) -> bool {
        match step {
            Step::Write => self.script_at < self.scenario.script.len() && self.write(),
            Step::Insert(key) => {
                let key = self.scenario.keys[key % self.scenario.keys.len()];
                self.database.edit(|database| database.insert(key));
                true
            }
            Step::Commit(at) | Step::RollBack(at) => {
                let writers = self.database.get().writers();
                let Some(at) = at.checked_rem(writers.len()) else {
                    return false;
                };
                let end = if matches!(step, Step::Commit(_)) {
                    Database::commit
                } else {
                    Database::roll_back
                };
                self.database.edit(|database| end(database, writers[at]));
                true
            }
            _ => {
                let possible =
                    self.database.get().writers().is_empty() && self.spend(Fault::RestartIds);
                if possible {
                    self.database.edit(Database::restart_ids);
                }
                possible
            }
        }
    }

    pub(super) fn write(&mut self) -> bool {
        let key = self.scenario.keys[self.scenario.script[self.script_at]];
        self.script_at += 1;
        self.database.edit(|database| {
            let xid = database.insert(key);
            database.commit(xid);
        });
        true
    }

    /// A process ends, is paused, resumes, or starts again.
    pub(super) fn live(&mut self, at: usize, step: Step) -> bool {
        let life = self.process(at).life;
        match step {
            Step::Restart(_) => self.restart(at),
            Step::Kill(_) if life != Life::Gone && self.spend(Fault::Kill) => {
                self.remember_in_flight(at);
                let on_its_way = self.processes[at].edit(|process| {
                    (process.life, process.fetch, process.deletions) = (Life::Gone, None, vec![]);
                    process.reports.clear();
                    [
                        std::mem::take(&mut process.queue),
                        std::mem::take(&mut process.probed),
                    ]
                });
                self.zombies.extend(on_its_way);
                true
            }
            Step::Wake(_) if life == Life::Paused => {
                if self.database.get().leases.get(&self.process(at).instance) != Some(&true) {
                    self.lose_lease(at);
                } else {
                    self.processes[at].edit(|process| process.life = Life::Runs);
                }
                true
            }
            Step::Pause(_) if life == Life::Runs && self.spend(Fault::Pause) => {
                self.processes[at].edit(|process| process.life = Life::Paused);
                true
            }
            Step::LoseLease(_) if life == Life::Runs && self.spend(Fault::LoseLease) => {
                self.lose_lease(at);
                true
            }
            _ => false,
        }
    }

    /// A step of a fetch, or a gap scan.
    pub(super) fn read(&mut self, at: usize, step: Step) -> bool {
        let (now, bug, process) = (self.now, self.scenario.bug, self.process(at));
        let runs = process.life == Life::Runs;
        match (step, &process.fetch) {
            (Step::Plan(_), None) if runs && process.sending == Sending::Open => self.processes[at]
                .edit(|process| {
                    let at = process.core.next_fetch_at().map(|at| at.max(now));
                    let plan = at.and_then(|at| process.core.plan_fetch(at));
                    process.fetch = plan.map(|plan| {
                        let answer = (!self.scenario.fine).then(|| {
                            (
                                self.database.get().incarnation(),
                                self.database.get().fetch(&plan),
                            )
                        });
                        Fetch { plan, answer }
                    });
                    process.fetch.is_some()
                }),
            (Step::Read(_), Some(Fetch { plan, answer: None })) => {
                let answer = (
                    self.database.get().incarnation(),
                    self.database.get().fetch(plan),
                );
                self.processes[at].edit(|process| {
                    process
                        .fetch
                        .iter_mut()
                        .for_each(|fetch| fetch.answer = Some(answer.clone()));
                });
                true
            }
            (
                Step::Accept(_),
                Some(Fetch {
                    answer: Some((seen, _)),
                    ..
                }),
            ) if runs && *seen != Some(process.incarnation) && bug != Bug::SendRegressed => {
                self.lose_lease(at);
                true
            }
            (
                Step::Accept(_),
                Some(Fetch {
                    answer: Some(_), ..
                }),
            ) if runs => {
                let database = self.database.get();
                self.processes[at].edit(|process| process.accept(database, bug, now));
                true
            }
            (Step::GapScan(_), _) if runs => {
                let found = self.database.get().gap_scan(&process.core.watermarks());
                for row in &found {
                    self.processes[at].edit(|process| process.core.on_straggler(row.identity()));
                }
                !found.is_empty()
            }
            _ => false,
        }
    }

    /// A step of the main producer and its records.
    pub(super) fn produce(&mut self, at: usize, step: Step) -> bool {
        let (now, bug, process) = (self.now, self.scenario.bug, self.process(at));
        let (runs, sending) = (process.life == Life::Runs, process.sending);
        let reported = process.core.sent_on_main() == 0 || bug == Bug::NextProducerEarly;
        match step {
            Step::Report(_)
                if !process.reports.is_empty()
                    && matches!(process.life, Life::Runs | Life::Lost) =>
            {
                self.processes[at].edit(|process| {
                    let (record, outcome) = process.reports.remove(0);
                    process.core.on_report(record.slot, outcome, now);
                });
                true
            }
            Step::Refuse(_, topic) => {
                let Some(_) = first_of(&process.queue, topic)
                    .filter(|_| sending == Sending::Open && self.spend(Fault::Refuse))
                else {
                    return false;
                };
                self.refuse(
                    at,
                    topic,
                    1,
                    Outcome::TopicFailed(ProblemClass::TopicNotAuthorized),
                )
            }
            Step::Reject(_, topic, records) => {
                let first = first_of(&process.queue, topic)
                    .filter(|_| sending == Sending::Open && self.spend(Fault::Reject));
                let Some(first) = first else { return false };
                self.refused.insert(first.event);
                self.refuse(
                    at,
                    topic,
                    records,
                    Outcome::Rejected(ProblemClass::RecordRejected),
                )
            }
            Step::Retire(_)
                if runs
                    && (sending == Sending::Broken
                        || sending == Sending::Open && self.spend(Fault::Retire)) =>
            {
                self.remember_in_flight(at);
                let on_its_way = self.processes[at].edit(Process::purge);
                self.zombies.push(on_its_way);
                true
            }
            Step::NewProducer(_) if runs && sending == Sending::Retiring && reported => {
                self.processes[at].edit(|process| {
                    process.sending = Sending::Open;
                    process.known.clear();
                    process.newest = ClientId::FIRST;
                    process.leaving.clear();
                    process.core.on_new_producer();
                });
                true
            }
            _ => false,
        }
    }

    /// The main producer gets a client, or loses one.
    pub(super) fn resize(&mut self, at: usize, step: Step) -> bool {
        let process = self.process(at);
        if process.life != Life::Runs || process.sending != Sending::Open {
            return false;
        }
        let has_several = process.newest != ClientId::FIRST;
        let is_one_leaving = !process.leaving.is_empty();
        match step {
            Step::AddClient(_) if self.spend(Fault::Resize) => {
                self.processes[at].edit(Process::add_client);
                true
            }
            Step::RemoveClient(_) if has_several => {
                self.spend(Fault::Resize) && self.processes[at].edit(Process::remove_client)
            }
            Step::DestroyClients(_) if is_one_leaving => {
                self.processes[at].edit(Process::destroy_left_clients)
            }
            _ => false,
        }
    }

    fn refuse(&mut self, at: usize, topic: u8, records: usize, outcome: Outcome) -> bool {
        let bug = self.scenario.bug;
        self.remember_in_flight(at);
        let on_its_way =
            self.processes[at].edit(|process| process.refuse(topic, records, outcome, bug));
        self.zombies.push(on_its_way);
        true
    }

    /// A step of paused topics and keys: a look-up, a probe, a disposition, or the end of a pause.
    pub(super) fn pause_or_probe(&mut self, at: usize, step: Step) -> Result<bool, Violation> {
        let (now, bug, process) = (self.now, self.scenario.bug, self.process(at));
        match step {
            Step::Probe(_) => {
                let database = self.database.get();
                Ok(self.processes[at].edit(|process| process.probe_rows(database, bug, now)))
            }
            Step::AppendProbe(_) if !process.probed.is_empty() => {
                let record = self.processes[at].edit(|process| {
                    let record = process.probed.remove(0);
                    if let ProbeProducer::Open(known) = &mut process.probe_producer {
                        known.insert(record.row.key.topic);
                    }
                    record
                });
                self.judge_appended(record.row)?;
                self.processes[at]
                    .edit(|process| process.core.on_report(record.slot, Outcome::Published, now));
                Ok(true)
            }
            Step::RejectProbe(_, topic, records) => {
                let Some(first) =
                    first_of(&process.probed, topic).filter(|_| self.spend(Fault::Reject))
                else {
                    return Ok(false);
                };
                self.refused.insert(first.event);
                self.remember_in_flight(at);
                let on_its_way =
                    self.processes[at].edit(|process| process.reject_probe(topic, records, now));
                self.zombies.push(on_its_way);
                Ok(true)
            }
            Step::Dispose(_) => self.judge_dead_letter(at),
            Step::Resume(_) => {
                let due = process.core.next_resume_at(now);
                due.into_iter().for_each(|due| {
                    self.processes[at].edit(|process| process.core.resume_due(due.max(now)));
                });
                Ok(due.is_some())
            }
            Step::TopicSeen(_, topic, exists) => {
                let known = process.core.topics()[TopicIndex::new(topic.into())].is_active();
                let possible = known != exists && (exists || self.spend(Fault::TopicMissing));
                if possible {
                    self.processes[at].edit(|process| {
                        let presence = if exists {
                            TopicPresence::Present
                        } else {
                            TopicPresence::Missing
                        };
                        process.core.on_topic_metadata(
                            TopicIndex::new(topic.into()),
                            presence,
                            now,
                        );
                        process.forget_at_brokers(topic, exists);
                    });
                }
                Ok(possible)
            }
            _ => Ok(false),
        }
    }
}

fn first_of(queue: &[Record], topic: u8) -> Option<Row> {
    queue
        .iter()
        .map(|record| record.row)
        .find(|row| row.key.topic == topic)
}
