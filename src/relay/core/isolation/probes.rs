//! Rows on trial, and what their trials show. Pure.

use super::*;

impl Core {
    /// The next rows to try, on a producer of their own, in this order.
    pub fn next_probe(&mut self, now: Instant) -> Option<Vec<Outgoing>> {
        let mut group = self
            .isolation
            .trials
            .next_group(|topic| !self.topic_states.is_parked(topic))?;
        let mut taken = [0; LANES];
        let fits = |row: &&OutboxRow| {
            taken[usize::from(row.lane)] += 1;
            taken[usize::from(row.lane)] <= self.in_flight.lane_room(row.lane)
                && taken.iter().sum::<usize>() <= self.in_flight.room_rows()
        };
        let rest = group
            .rows
            .split_off(group.rows.iter().take_while(fits).count());
        if !rest.is_empty() {
            self.isolation.trials.postpone(group.with(rest));
        }
        if group.rows.is_empty() {
            return None;
        }
        let topic = group.topic;
        let outgoing: Vec<Outgoing> = group
            .rows
            .iter()
            .filter_map(|row| {
                self.in_flight.take(row, topic).map(|slot| Outgoing {
                    slot,
                    topic,
                    row: row.clone(),
                })
            })
            .collect();
        for Outgoing { slot, row, .. } in &outgoing {
            self.unacknowledged
                .sent(*slot, topic, row.lane, row.bytes(), now);
        }
        let slots: Vec<Slot> = outgoing.iter().map(|outgoing| outgoing.slot).collect();
        self.isolation.trials.began(group, &slots);
        self.probe_first_record_gate.begin_round();
        Some(outgoing)
    }

    /// Whether nothing is on trial, or waits to be.
    #[must_use]
    pub fn is_probing_done(&self) -> bool {
        self.isolation.trials.is_empty()
    }

    /// Whether reports of a trial are still to come.
    #[must_use]
    pub fn has_probe_under_way(&self) -> bool {
        self.isolation.trials.is_under_way()
    }

    pub(in crate::relay::core) fn trial_reported(
        &mut self,
        slot: Slot,
        outcome: Outcome,
        now: Instant,
    ) {
        let end = match outcome {
            Outcome::Published => Ended::Published,
            Outcome::Rejected(class) => Ended::Refused(class),
            Outcome::TopicFailed(_) => Ended::TopicFailed,
            Outcome::Purged | Outcome::NotSent => Ended::Purged,
        };
        if outcome == Outcome::Published {
            self.in_flight.acknowledged(slot);
        } else if let Some(returned) = self.in_flight.failed(slot)
            && let Outcome::TopicFailed(class) = outcome
        {
            self.topic_failed(returned, class, now);
        }
        // Until its last report is in, a trial ends nobody's rest.
        let Some(findings) = self.isolation.trials.ended(slot, end) else {
            return;
        };
        for finding in findings {
            self.found(finding, now);
        }
        self.drop_trials_of_leaving_lanes(now);
        self.end_trials(now);
    }

    fn found(&mut self, finding: Finding, now: Instant) {
        match finding {
            Finding::Culprit {
                topic,
                row,
                class,
                attempts,
            } => {
                self.topic_states.refused(topic, now);
                self.judge(topic, &row, class, attempts, now);
            }
            Finding::BatchTooLarge { topic, bytes } => {
                self.isolation.too_large = Some(bytes);
                self.topic_states.acquit(topic);
            }
            Finding::TopicWorks(topic) => self.topic_works(topic, now),
        }
    }

    pub(super) fn topic_works(&mut self, topic: TopicIndex, now: Instant) {
        if self.topic_states.works(topic) {
            self.topic_flows_again(topic, now);
        }
    }

    /// Keys flow again of which nothing is on trial any more.
    pub(super) fn end_trials(&mut self, now: Instant) {
        let flowing = self.isolation.end_trials();
        self.flow_again(&flowing, now);
    }

    /// A batch of so many bytes was refused though none of its rows is: batches must be smaller.
    pub fn take_oversized_batch(&mut self) -> Option<usize> {
        self.isolation.too_large.take()
    }
}
