//! Rows that the probe producer sends, and what follows from their reports. Pure.

use std::time::Instant;

use crate::{
    outbox::OutboxRow,
    relay::core::{
        Core, Outcome, Outgoing,
        ids::{Slot, TopicIndex},
        isolation::bisect::{ProbeGroup, ProbeKind, ProbeOutcome, ProbeResult},
        lane_share::LANES,
    },
};

impl From<Outcome> for ProbeOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Published => Self::Published,
            Outcome::Rejected(class) => Self::Rejected(class),
            Outcome::TopicFailed(_) => Self::TopicFailed,
            Outcome::Purged | Outcome::NotSent => Self::NotTried,
        }
    }
}

impl Core {
    /// The next rows for one producer that stands for both, in the order in which they must be
    /// sent.
    pub fn next_probe(&mut self, now: Instant) -> Option<Vec<Outgoing>> {
        let candidates = self.next_probe_of(ProbeKind::Candidates, now);
        candidates.or_else(|| self.next_probe_of(ProbeKind::Alone, now))
    }

    /// The next rows for the producer of this kind, in the order in which they must be sent.
    pub fn next_probe_of(&mut self, kind: ProbeKind, now: Instant) -> Option<Vec<Outgoing>> {
        let group = self.next_fitting_group(kind)?;
        let outgoing = self.put_group_in_flight(&group, now);
        let slots: Vec<Slot> = outgoing.iter().map(|outgoing| outgoing.slot).collect();
        self.isolation.bisect.on_sent(group, &slots);
        self.probe_first_record_gate.begin_round();
        self.single_gate.begin_round();
        Some(outgoing)
    }

    /// The next rows to probe for which there is room. The others are postponed.
    fn next_fitting_group(&mut self, kind: ProbeKind) -> Option<ProbeGroup> {
        let topics = &self.topics;
        let mut group = self
            .isolation
            .bisect
            .next_group(|topic, of| of == kind && !topics[topic].is_parked())?;
        let later = group.rows.split_off(self.fitting_probes(&group.rows));
        if !later.is_empty() {
            self.isolation.bisect.postpone(group.with(later));
        }
        (!group.rows.is_empty()).then_some(group)
    }

    fn put_group_in_flight(&mut self, group: &ProbeGroup, now: Instant) -> Vec<Outgoing> {
        let topic = group.topic;
        let mut outgoing = Vec::with_capacity(group.rows.len());
        for row in &group.rows {
            let bytes = match group.kind() {
                ProbeKind::Candidates => row.bytes(),
                ProbeKind::Alone => 0,
            };
            if let Some(slot) = self.put_counted_in_flight(row, bytes, topic, now) {
                let row = row.clone();
                outgoing.push(Outgoing { slot, topic, row });
            }
        }
        outgoing
    }

    /// How many rows, from the first on, there is room for.
    fn fitting_probes(&self, rows: &[OutboxRow]) -> usize {
        let mut by_lane = [0; LANES];
        for (at, row) in rows.iter().enumerate() {
            let of_lane = &mut by_lane[row.lane.index()];
            *of_lane += 1;
            if *of_lane > self.in_flight.lane_room(row.lane) || at >= self.in_flight.room_rows() {
                return at;
            }
        }
        rows.len()
    }

    /// Whether no row is probed or waits for it.
    #[must_use]
    pub fn is_probing_done(&self) -> bool {
        self.isolation.bisect.is_empty()
    }

    /// Whether a row of this kind is probed or waits for it.
    #[must_use]
    pub fn has_probes(&self, kind: ProbeKind) -> bool {
        self.isolation.bisect.has_groups(kind)
    }

    /// Whether delivery reports of rows that the producer of this kind has are still to come.
    #[must_use]
    pub fn has_sent_probes(&self, kind: ProbeKind) -> bool {
        self.isolation.bisect.has_sent(kind)
    }

    /// Whether delivery reports of probed rows are still to come.
    #[must_use]
    pub fn has_probe_under_way(&self) -> bool {
        self.isolation.bisect.has_probe_under_way()
    }

    /// Records the outcome of a probed row.
    pub(in crate::relay::core) fn on_probe_report(
        &mut self,
        slot: Slot,
        outcome: Outcome,
        now: Instant,
    ) {
        self.end_probed_row(slot, outcome, now);
        // Before its last report is in, a probe ends no pause.
        if let Some(results) = self.isolation.bisect.on_report(slot, outcome.into()) {
            self.on_probe_end(results, now);
        }
    }

    /// Records that the probe producer has a row no longer.
    fn end_probed_row(&mut self, slot: Slot, outcome: Outcome, now: Instant) {
        if outcome == Outcome::Published {
            self.in_flight.on_acknowledged(slot);
        } else if let Some(returned) = self.in_flight.on_failed(slot)
            && let Outcome::TopicFailed(class) = outcome
        {
            self.on_topic_failed(returned, class, now);
        }
    }

    /// Carries out what a complete probe showed.
    fn on_probe_end(&mut self, results: Vec<ProbeResult>, now: Instant) {
        for result in results {
            self.on_probe_result(result, now);
        }
        // Rows that were halved are queued again, also those of a lane that began to leave
        // meanwhile.
        self.drop_probes_of_leaving_lanes(now);
        self.end_probed_keys(now);
    }

    fn on_probe_result(&mut self, result: ProbeResult, now: Instant) {
        match result {
            ProbeResult::RowRejected {
                topic,
                row,
                class,
                attempts,
            } => {
                // A row that is sent alone anyway says nothing about others.
                if self.special(&row).is_none() {
                    self.topics[topic].on_probe_rejected(now);
                }
                self.reject(topic, &row, class, attempts, now);
            }
            ProbeResult::BatchTooLarge { topic, bytes } => {
                self.isolation.oversized_batch = Some(bytes);
                self.topics[topic].end_slow_time();
            }
            ProbeResult::TopicAccepted(topic) => self.on_topic_accepted(topic, now),
        }
    }

    /// Records that a topic takes records again, or that its probe is given up: the next rows that
    /// are sent to it show whether it does.
    pub(super) fn on_topic_accepted(&mut self, topic: TopicIndex, now: Instant) {
        if self.topics[topic].on_probe_accepted() {
            self.resume_topic(topic, now);
        }
    }

    /// Resumes keys of which no row is probed any more.
    pub(super) fn end_probed_keys(&mut self, now: Instant) {
        let resumed = self.isolation.end_probed_keys();
        self.resume(&resumed, now);
    }

    /// Bytes of a batch that was rejected although none of its rows is: batches must be smaller.
    /// Returned once.
    pub fn take_oversized_batch(&mut self) -> Option<usize> {
        self.isolation.oversized_batch.take()
    }
}
