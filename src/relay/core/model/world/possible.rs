//! Which steps are possible in a state.

use super::*;

impl World {
    /// Every step that may be possible in this state; [`World::apply`] rejects the others. Once
    /// nothing is left to publish, only steps that end what is under way.
    pub(in super::super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let over =
            self.database.get().rows.is_empty() && self.script_at == self.scenario.script.len();
        if self.script_at < self.scenario.script.len() {
            steps.push(Step::Write);
        }
        steps.extend(
            self.database
                .get()
                .leases
                .keys()
                .map(|instance| Step::Expire(*instance)),
        );
        for at in 0..self.processes.len() {
            self.steps_of(at, over, &mut steps);
        }
        let producers = self.processes.len() + self.zombies.len();
        steps.extend((0..producers).flat_map(|from| {
            (0..self.scenario.topics())
                .flat_map(move |topic| [Step::Append(from, topic), Step::AppendOther(from, topic)])
        }));
        if self.faults_left > 0 && !over {
            steps.extend(
                self.scenario
                    .faults
                    .iter()
                    .flat_map(|fault| self.steps_of_fault(*fault)),
            );
        }
        steps
    }

    pub(super) fn steps_of(&self, at: usize, over: bool, steps: &mut Vec<Step>) {
        let process = self.process(at);
        steps.extend(process.deletions.iter().map(|_| Step::SettleRuns(at)));
        match process.life {
            _ if over => steps.extend(
                process
                    .fetch
                    .iter()
                    .flat_map(|_| [Step::Read(at), Step::Accept(at)]),
            ),
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
                if !process.leaving.is_empty() {
                    steps.push(Step::DestroyClients(at));
                }
                steps.extend([
                    Step::Resume(at),
                    Step::Probe(at),
                    Step::AppendProbe(at),
                    Step::Dispose(at),
                    Step::Claim(at, Answer::Arrives),
                    Step::Release(at, Answer::Arrives),
                    Step::GapScan(at),
                ]);
                // Marks matter to the next owner of a lane.
                if self.faults_left > 0 {
                    steps.push(Step::Renew(at));
                }
                steps.extend(
                    (0..self.scenario.topics()).map(|topic| Step::TopicSeen(at, topic, true)),
                );
            }
        }
        if matches!(process.life, Life::Runs | Life::Lost) {
            steps.extend(process.reports.iter().take(1).map(|_| Step::Report(at)));
            steps.extend([Step::Settle(at), Step::SettleAnswers(at, Answer::Arrives)]);
        }
    }

    pub(super) fn steps_of_fault(&self, fault: Fault) -> Vec<Step> {
        let topics = 0..self.scenario.topics();
        // The relays are interchangeable. Faults hit the first one, which owns more rows.
        let at = 0;
        match fault {
            Fault::Kill => vec![Step::Kill(at)],
            Fault::Pause => vec![Step::Pause(at)],
            Fault::LoseLease => vec![Step::LoseLease(at)],
            Fault::Refuse => topics.map(|topic| Step::Refuse(at, topic)).collect(),
            Fault::Reject => {
                let batches = |topic| {
                    [1, usize::MAX].map(|records| {
                        [
                            Step::Reject(at, topic, records),
                            Step::RejectProbe(at, topic, records),
                        ]
                    })
                };
                topics.flat_map(batches).flatten().collect()
            }
            Fault::Retire => vec![Step::Retire(at)],
            Fault::AnswerLost => {
                vec![
                    Step::SettleAnswers(at, Answer::Lost),
                    Step::Claim(at, Answer::Lost),
                    Step::Release(at, Answer::Lost),
                ]
            }
            Fault::GiveBack => vec![Step::GiveBack(at)],
            Fault::Resize => vec![Step::AddClient(at), Step::RemoveClient(at)],
            Fault::TopicMissing => topics
                .map(|topic| Step::TopicSeen(at, topic, false))
                .collect(),
            Fault::RestartIds => vec![Step::RestartIds],
        }
    }
}
