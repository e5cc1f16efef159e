//! How records end, and what is deleted then. Pure.

use super::*;

impl Core {
    /// A record ended.
    pub fn reported(&mut self, slot: Slot, outcome: Outcome, now: Instant) {
        self.openers_of(slot)
            .ended(slot, outcome == Outcome::Published, now);
        if outcome == Outcome::Published {
            self.outstanding.acknowledged(slot, now);
            self.breaker.acknowledged(now);
        } else {
            self.outstanding.ended(slot);
        }
        if self.poison.is_on_trial(slot) {
            return self.trial_reported(slot, outcome, now);
        }
        if outcome == Outcome::Published {
            if let Some(topic) = self.window.acknowledged(slot) {
                self.stops.succeeded(topic);
            }
            return;
        }
        let Some(given_back) = self.window.failed(slot) else {
            return;
        };
        self.read_again(given_back);
        match outcome {
            Outcome::TopicFailed(class) => self.topic_failed(given_back, class, now),
            Outcome::Refused(class) => self.suspect(given_back, class),
            Outcome::Published | Outcome::Purged => {}
        }
    }

    /// Whether a row may be sent now: since it was taken its topic or its key may have come to
    /// rest, and the first record to a partition goes alone. One that may not is [`Self::reported`]
    /// as purged: it is read again.
    pub fn may_send(&mut self, outgoing: &Outgoing, now: Instant) -> bool {
        let Outgoing { slot, topic, row } = outgoing;
        let flows =
            || self.stops.flows(*topic) && self.poison.resting_key(*topic, row.key()).is_none();
        (self.poison.is_on_trial(*slot) || flows())
            && self
                .openers_of(*slot)
                .may_send(*topic, row.key(), *slot, now)
    }

    pub(super) fn openers_of(&mut self, slot: Slot) -> &mut Openers {
        if self.poison.is_on_trial(slot) {
            &mut self.trial_openers
        } else {
            &mut self.openers
        }
    }

    /// A new producer begins: no broker knows it.
    pub fn has_new_producer(&mut self) {
        self.openers.forget();
    }

    /// The same, of the producer for trials.
    pub fn has_new_trial_producer(&mut self) {
        self.trial_openers.forget();
    }

    /// The brokers name so many partitions of a topic.
    pub fn partitions_seen(&mut self, topic: TopicIndex, partitions: usize) {
        self.openers.partitions(topic, partitions);
        self.trial_openers.partitions(topic, partitions);
    }

    pub(super) fn read_again(&mut self, given_back: GivenBack) {
        if let Some(lane) = self.lanes[usize::from(given_back.row.lane)].as_mut() {
            lane.marks.rewind(given_back.row.id - 1);
            lane.hungry = true;
        }
    }

    /// The next rows to delete: as soon as a batch is full, or whatever there is when `flush`.
    pub fn next_settle(&mut self, batch_size: usize, flush: bool) -> Option<Settle> {
        if self.window.acked() < batch_size && !flush {
            None
        } else {
            self.window.next_settle(batch_size)
        }
    }

    pub fn settled(&mut self, slots: &[Slot]) {
        self.window.settled(slots, self.fetch_under_way);
    }

    pub fn settle_failed(&mut self, slots: &[Slot]) {
        self.window.settle_failed(slots);
    }

    /// A sweep found a row at or below the mark: it is read again. Returns whether it was a
    /// straggler indeed.
    pub fn straggler(&mut self, lane: u8, id: i64, event_id: uuid::Uuid) -> bool {
        if self.window.holds(lane, id, event_id) {
            return false;
        }
        let Some(state) = self.lanes[usize::from(lane)].as_mut() else {
            return false;
        };
        state.marks.rewind(id - 1);
        state.hungry = true;
        true
    }
}
