//! Whether a row that was taken may still be sent: its topic and its key must be active, and the
//! first record of a producer to a partition goes alone. Pure.

use std::time::Instant;

use crate::relay::core::{
    Core, Outgoing,
    first_record_gate::FirstRecordGate,
    ids::{Slot, TopicIndex},
};

impl Core {
    /// Whether a row may be sent now. Since it was taken, its topic or its key may have been
    /// paused. A row that may not must be reported ([`Self::on_report`]) as
    /// [`Outcome::NotSent`](crate::relay::core::Outcome::NotSent): it is read again.
    pub fn may_send(&mut self, outgoing: &Outgoing, now: Instant) -> bool {
        let Outgoing { slot, topic, row } = outgoing;
        let is_active = self.topics[*topic].is_active()
            && self.isolation.paused_key(*topic, row.key()).is_none();
        // A probed row goes out although its key is paused: it is what the key waits for.
        if !is_active && !self.isolation.is_probed(*slot) {
            return false;
        }
        self.gate_of(*slot).may_send(*topic, row.key(), *slot, now)
    }

    /// The gate of the producer that has the row in a slot.
    pub(super) fn gate_of(&mut self, slot: Slot) -> &mut FirstRecordGate {
        if self.isolation.is_probed(slot) {
            &mut self.probe_first_record_gate
        } else {
            &mut self.first_record_gate
        }
    }

    /// Records that a new main producer begins, which no broker knows.
    pub fn on_new_producer(&mut self) {
        self.first_record_gate.forget();
    }

    /// Records that a new probe producer begins, which no broker knows.
    pub fn on_new_probe_producer(&mut self) {
        self.probe_first_record_gate.forget();
    }

    /// Records how many partitions the brokers list for a topic.
    pub fn on_partition_count(&mut self, topic: TopicIndex, partitions: usize) {
        self.first_record_gate.on_partition_count(topic, partitions);
        self.probe_first_record_gate
            .on_partition_count(topic, partitions);
    }
}
