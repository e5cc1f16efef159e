//! How records end, and what is deleted then. Pure.

use super::*;

impl Core {
    /// A record ended.
    pub fn on_report(&mut self, slot: Slot, outcome: Outcome, now: Instant) {
        self.first_record_gate_of(slot)
            .ended(slot, outcome == Outcome::Published, now);
        if outcome == Outcome::Published {
            self.unacknowledged.acknowledged(slot, now);
            self.breaker.on_acknowledged(now);
        } else {
            self.unacknowledged.ended(slot);
        }
        if self.isolation.is_on_trial(slot) {
            return self.trial_reported(slot, outcome, now);
        }
        if outcome == Outcome::Published {
            if let Some(topic) = self.in_flight.acknowledged(slot) {
                self.topic_states.succeeded(topic);
            }
            return;
        }
        let Some(returned) = self.in_flight.failed(slot) else {
            return;
        };
        self.read_again(returned);
        match outcome {
            Outcome::TopicFailed(class) => self.topic_failed(returned, class, now),
            Outcome::Rejected(class) => self.suspect(returned, class),
            Outcome::Published | Outcome::Purged | Outcome::NotSent => {}
        }
    }

    /// Whether a row may be sent now: since it was taken its topic or its key may have come to
    /// rest, and the first record to a partition goes alone. One that may not is reported
    /// ([`Self::on_report`]) as [`Outcome::NotSent`]: it is read again.
    pub fn may_send(&mut self, outgoing: &Outgoing, now: Instant) -> bool {
        let Outgoing { slot, topic, row } = outgoing;
        let is_active = || {
            self.topic_states.is_active(*topic)
                && self.isolation.resting_key(*topic, row.key()).is_none()
        };
        (self.isolation.is_on_trial(*slot) || is_active())
            && self
                .first_record_gate_of(*slot)
                .may_send(*topic, row.key(), *slot, now)
    }

    pub(super) fn first_record_gate_of(&mut self, slot: Slot) -> &mut FirstRecordGate {
        if self.isolation.is_on_trial(slot) {
            &mut self.probe_first_record_gate
        } else {
            &mut self.first_record_gate
        }
    }

    /// A new producer begins: no broker knows it.
    pub fn on_new_producer(&mut self) {
        self.first_record_gate.forget();
    }

    /// The same, of the producer for trials.
    pub fn on_new_probe_producer(&mut self) {
        self.probe_first_record_gate.forget();
    }

    /// The brokers name so many partitions of a topic.
    pub fn on_partition_count(&mut self, topic: TopicIndex, partitions: usize) {
        self.first_record_gate.partitions(topic, partitions);
        self.probe_first_record_gate.partitions(topic, partitions);
    }

    pub(super) fn read_again(&mut self, returned: ReturnedRow) {
        if let Some(lane) = self.lanes[usize::from(returned.row.lane)].as_mut() {
            lane.marks.rewind(returned.row.id - 1);
            lane.has_more = true;
        }
    }

    /// The next rows to delete, at most `batch_size`; `None` if there is nothing to delete yet.
    pub fn next_settle(&mut self, batch_size: usize, when: SettleWhen) -> Option<SettleBatch> {
        if when == SettleWhen::BatchIsFull && self.in_flight.acked() < batch_size {
            None
        } else {
            self.in_flight.next_settle(batch_size)
        }
    }

    pub fn on_settled(&mut self, slots: &[Slot]) {
        self.in_flight.settled(slots, self.fetch_under_way);
    }

    pub fn on_settle_failed(&mut self, slots: &[Slot]) {
        self.in_flight.settle_failed(slots);
    }

    /// A sweep found a row at or below the mark: it is read again. Returns whether it was a
    /// straggler indeed.
    pub fn on_straggler(&mut self, lane: u8, id: i64, event_id: uuid::Uuid) -> bool {
        if self.in_flight.holds(lane, id, event_id) {
            return false;
        }
        let Some(state) = self.lanes[usize::from(lane)].as_mut() else {
            return false;
        };
        state.marks.rewind(id - 1);
        state.has_more = true;
        true
    }
}
