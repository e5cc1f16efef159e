//! The contract, judged when Kafka writes, when a row is deleted, when a mark is written, and when
//! all has healed.

use super::*;

impl World {
    pub(super) fn remember_in_flight(&mut self, at: usize) {
        let held = self
            .database
            .get()
            .committed
            .iter()
            .filter(|row| self.processes[at].get().holds(row))
            .map(|row| row.event);
        self.may_repeat.extend(held);
        self.may_repeat.sort_unstable();
        self.may_repeat.dedup();
    }

    pub(super) fn is_published(&self, row: &Row) -> bool {
        self.published.binary_search(&row.event).is_ok()
    }

    pub(super) fn judge_appended(&mut self, row: Row) -> Result<(), Violation> {
        let database = self.database.get();
        if self.is_published(&row) {
            let excused = self.may_repeat.binary_search(&row.event).is_ok();
            return if excused {
                Ok(())
            } else {
                Err(('D', format!("{row:?} was published twice without a fault")))
            };
        }
        // The contract says nothing about rows that were truncated while they were sent.
        let known = database
            .committed
            .iter()
            .any(|other| other.event == row.event);
        let of_key = || {
            database
                .committed
                .iter()
                .filter(|other| other.key == row.key)
        };
        let earlier = of_key()
            .take_while(|other| other.event != row.event)
            .find(|other| !self.is_published(other));
        if let Some(earlier) = earlier.filter(|_| known) {
            return Err(('O', format!("{row:?} went out before {earlier:?}")));
        }
        let highest = self.highest.entry(row.key).or_default();
        if known && row.id <= *highest {
            return Err((
                'R',
                format!("{row:?} is taken for an old one: {highest} was written before"),
            ));
        }
        *highest = row.id.max(*highest);
        if let Some(at) = self.published.binary_search(&row.event).err() {
            self.published.insert(at, row.event);
        }
        Ok(())
    }

    pub(super) fn judge_deleted(&self, named: &[Row], deleted: &[Row]) -> Result<(), Violation> {
        if let Some(row) = deleted.iter().find(|row| !named.contains(row)) {
            return Err((
                'R',
                format!("{row:?} was deleted in place of another row with its id"),
            ));
        }
        match deleted.iter().find(|row| !self.is_published(row)) {
            Some(row) => Err(('L', format!("{row:?} was deleted and is not published"))),
            None => Ok(()),
        }
    }

    /// Carries out a disposition: its row is moved to dead_letter.
    pub(super) fn judge_dead_letter(&mut self, at: usize) -> Result<bool, Violation> {
        let Some(disposition) = self.processes[at].edit(|process| process.core.next_disposition())
        else {
            return Ok(false);
        };
        let (now, event) = (self.now, disposition.row.event_id.as_u64_pair().1);
        self.database.edit(|database| database.bury(event));
        self.processes[at].edit(|process| process.core.on_disposition_done(&disposition, now));
        match self.refused.contains(&event) {
            true => Ok(true),
            false => Err((
                'L',
                format!(
                    "{:?} is a dead letter and was never refused",
                    disposition.row
                ),
            )),
        }
    }

    pub(super) fn judge_marks(&self) -> Result<(), Violation> {
        match self.database.get().below_mark() {
            Some(row) => Err((
                'L',
                format!("{row:?} is below the mark of its lane: no relay reads it"),
            )),
            None => Ok(()),
        }
    }

    /// Whether nothing is under way.
    pub(in super::super) fn is_quiet(&self) -> bool {
        self.processes.iter().map(Shared::get).all(|process| {
            let idle = process.queue.is_empty()
                && process.reports.is_empty()
                && process.deletions.is_empty();
            idle && process.probed.is_empty()
                && process.fetch.is_none()
                && process.life != Life::Paused
        })
    }

    /// Ends every fault and gives the relays all the time that they need. Then no row may be left.
    pub(in super::super) fn heal(&mut self) -> Result<(), Violation> {
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
            let alive = self
                .processes
                .iter()
                .map(Shared::get)
                .filter(|process| process.life != Life::Gone);
            let in_flight: usize = alive.map(|process| process.core.in_flight().rows()).sum();
            if in_flight == 0 && self.database.get().rows.is_empty() {
                return Ok(());
            }
        }
        Err((
            'L',
            format!(
                "after all has healed these are still waiting: {:?}",
                self.database.get().rows
            ),
        ))
    }

    pub(super) fn turn(&mut self, at: usize) -> Result<(), Violation> {
        for step in [Step::Wake(at), Step::Retire(at)] {
            self.apply(step)?;
        }
        while self.apply(Step::Report(at))? {}
        for step in [
            Step::NewProducer(at),
            Step::Restart(at),
            Step::Resume(at),
            Step::Release(at, Answer::Arrives),
            Step::Renew(at),
        ] {
            self.apply(step)?;
        }
        let (claim, tick) = (Step::Claim(at, Answer::Arrives), Step::XidTick(at));
        for step in [
            claim,
            tick,
            Step::GapScan(at),
            Step::Plan(at),
            Step::Read(at),
            Step::Accept(at),
        ] {
            self.apply(step)?;
        }
        for topic in 0..self.scenario.topics() {
            self.apply(Step::TopicSeen(at, topic, true))?;
            while self.apply(Step::Append(at, topic))? {}
            self.apply(Step::DestroyClients(at))?;
        }
        // Rows that are being probed come first.
        while self.apply(Step::AppendProbe(at))?
            || self.apply(Step::Dispose(at))?
            || self.apply(Step::Probe(at))?
        {}
        while self.apply(Step::Report(at))? {}
        for step in [
            Step::Settle(at),
            Step::SettleRuns(at),
            Step::SettleAnswers(at, Answer::Arrives),
        ] {
            self.apply(step)?;
        }
        Ok(())
    }
}
