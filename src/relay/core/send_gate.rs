//! Whether a row that was taken may still be sent, and where: its topic and its key must be active,
//! and the first record of a producer to a partition goes alone. Pure.

use std::time::Instant;

use crate::{
    kafka::ClientId,
    relay::core::{
        Core, Outgoing,
        first_record_gate::{Destination, FirstRecordGate},
        ids::{Slot, TopicIndex},
        isolation::ProbeKind,
    },
};

impl Core {
    /// Where a row goes; `None` if it may not be sent now. Since it was taken, its topic or its key
    /// may have been paused. A row that may not must be reported ([`Self::on_report`]) as
    /// [`Outcome::NotSent`](crate::relay::core::Outcome::NotSent): it is read again.
    pub fn admit(&mut self, outgoing: &Outgoing, now: Instant) -> Option<Destination> {
        let Outgoing { slot, topic, row } = outgoing;
        let is_active = self.topics[*topic].is_active()
            && self.isolation.paused_key(*topic, row.key()).is_none();
        // A probed row goes out although its key is paused: it is what the key waits for.
        if !is_active && !self.isolation.is_probed(*slot) {
            return None;
        }
        self.gate_of(*slot).admit(*topic, row.key(), *slot, now)
    }

    /// The gate of the producer that has the row in a slot.
    pub(super) fn gate_of(&mut self, slot: Slot) -> &mut FirstRecordGate {
        match self.isolation.probe_kind(slot) {
            Some(ProbeKind::Candidates) => &mut self.probe_first_record_gate,
            Some(ProbeKind::Alone) => &mut self.single_gate,
            None => &mut self.first_record_gate,
        }
    }

    /// Records that a new main producer begins, which no broker knows. It has one client.
    pub fn on_new_producer(&mut self) {
        self.first_record_gate.forget();
    }

    /// Number of clients that the main producer should have now. Called once a turn.
    pub fn clients_wanted(&mut self, now: Instant) -> usize {
        let partitions = self.first_record_gate.partitions();
        self.client_count.wanted(partitions, now)
    }

    /// Records that the main producer has another client. Partitions move to it one by one.
    pub fn add_client(&mut self, client: ClientId) {
        self.first_record_gate.add_client(client);
    }

    /// Takes the newest of several clients away, and returns it. It must be kept while
    /// [`Self::is_client_free`] is false.
    pub fn remove_client(&mut self) -> Option<ClientId> {
        self.first_record_gate.remove_client()
    }

    /// Whether nothing of a client that was taken away is out.
    #[must_use]
    pub fn is_client_free(&self, client: ClientId) -> bool {
        self.first_record_gate.is_client_free(client)
    }

    /// Records that a new probe producer begins, which no broker knows.
    pub fn on_new_probe_producer(&mut self) {
        self.probe_first_record_gate.forget();
    }

    /// Records that a new single producer begins.
    pub fn on_new_single_producer(&mut self) {
        self.single_gate.forget();
    }

    /// Records how many partitions the brokers list for a topic. Returns whether keys have moved
    /// that the main producer sent records of: it must be replaced.
    pub fn on_partition_count(&mut self, topic: TopicIndex, partitions: usize) -> bool {
        self.single_gate.on_partition_count(topic, partitions);
        self.probe_first_record_gate
            .on_partition_count(topic, partitions);
        self.first_record_gate.on_partition_count(topic, partitions)
    }
}
