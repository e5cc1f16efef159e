//! Rows on trial, and what their trials show. Pure.

use super::*;

impl Core {
    /// The next rows to try, on a producer of their own, in this order.
    pub fn next_trial(&mut self, now: Instant) -> Option<Vec<Outgoing>> {
        let mut group = self
            .poison
            .trials
            .next_group(|topic| !self.stops.is_parked(topic))?;
        let mut taken = [0; LANES];
        let fits = |row: &&OutboxRow| {
            taken[usize::from(row.lane)] += 1;
            taken[usize::from(row.lane)] <= self.window.lane_room(row.lane)
                && taken.iter().sum::<usize>() <= self.window.room_rows()
        };
        let rest = group
            .rows
            .split_off(group.rows.iter().take_while(fits).count());
        if !rest.is_empty() {
            self.poison.trials.postpone(group.with(rest));
        }
        if group.rows.is_empty() {
            return None;
        }
        let topic = group.topic;
        let outgoing: Vec<Outgoing> = group
            .rows
            .iter()
            .filter_map(|row| {
                self.window.take(row, topic).map(|slot| Outgoing {
                    slot,
                    topic,
                    row: row.clone(),
                })
            })
            .collect();
        for Outgoing { slot, row, .. } in &outgoing {
            self.outstanding
                .sent(*slot, topic, row.lane, row.bytes(), now);
        }
        let slots: Vec<Slot> = outgoing.iter().map(|outgoing| outgoing.slot).collect();
        self.poison.trials.began(group, &slots);
        self.trial_openers.begin_round();
        Some(outgoing)
    }

    /// Whether nothing is on trial, or waits to be.
    #[must_use]
    pub fn trials_are_over(&self) -> bool {
        self.poison.trials.is_empty()
    }

    /// Whether reports of a trial are still to come.
    #[must_use]
    pub fn has_trial_under_way(&self) -> bool {
        self.poison.trials.is_under_way()
    }

    pub(in crate::relay::core) fn trial_reported(
        &mut self,
        slot: Slot,
        outcome: Outcome,
        now: Instant,
    ) {
        let end = match outcome {
            Outcome::Published => Ended::Published,
            Outcome::Refused(class) => Ended::Refused(class),
            Outcome::TopicFailed(_) => Ended::TopicFailed,
            Outcome::Purged => Ended::Purged,
        };
        if outcome == Outcome::Published {
            self.window.acknowledged(slot);
        } else if let Some(given_back) = self.window.failed(slot)
            && let Outcome::TopicFailed(class) = outcome
        {
            self.topic_failed(given_back, class, now);
        }
        // Until its last report is in, a trial ends nobody's rest.
        let Some(findings) = self.poison.trials.ended(slot, end) else {
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
                self.stops.refused(topic, now);
                self.judge(topic, &row, class, attempts, now);
            }
            Finding::BatchTooLarge { topic, bytes } => {
                self.poison.too_large = Some(bytes);
                self.stops.acquit(topic);
            }
            Finding::TopicWorks(topic) => self.topic_works(topic, now),
        }
    }

    pub(super) fn topic_works(&mut self, topic: TopicIndex, now: Instant) {
        if self.stops.works(topic) {
            self.topic_flows_again(topic, now);
        }
    }

    /// Keys flow again of which nothing is on trial any more.
    pub(super) fn end_trials(&mut self, now: Instant) {
        let flowing = self.poison.end_trials();
        self.flow_again(&flowing, now);
    }

    /// A batch of so many bytes was refused though none of its rows is: batches must be smaller.
    pub fn take_too_large(&mut self) -> Option<usize> {
        self.poison.too_large.take()
    }
}
