//! What follows from the delivery report of a record. Pure.

use std::time::Instant;

use crate::{
    outbox::OutboxRow,
    relay::core::{
        Core, Outcome,
        ids::Slot,
        in_flight::{ReturnedRow, SentRow},
        partition_client::Delivery,
    },
    report::ProblemClass,
};

impl Core {
    /// Records the outcome of the row in a slot.
    pub fn on_report(&mut self, slot: Slot, outcome: Outcome, now: Instant) {
        let delivery = match outcome {
            Outcome::Published => Delivery::Acknowledged,
            _ => Delivery::Failed,
        };
        self.end_delivery(slot, delivery, now);
        if self.isolation.is_probed(slot) {
            return self.on_probe_report(slot, outcome, now);
        }
        if outcome == Outcome::Published {
            if let Some(topic) = self.in_flight.on_acknowledged(slot) {
                self.topics[topic].on_success();
            }
        } else if let Some(returned) = self.in_flight.on_failed(slot) {
            self.read_again(returned);
            self.on_returned(returned, outcome, now);
        }
    }

    /// Pauses the topic of a row that was not published, if the row or the topic is why.
    fn on_returned(&mut self, returned: ReturnedRow, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::TopicFailed(class) => self.on_topic_failed(returned, class, now),
            // Brokers judge whole batches: which row is at fault is not known yet.
            Outcome::Rejected(class) => self.add_candidate(returned, class),
            Outcome::Published | Outcome::Purged | Outcome::NotSent => {}
        }
    }

    /// Records that the producer rejected the row in a slot at once, without asking the brokers. No
    /// probe is needed to know which row it is.
    pub fn on_rejected_by_producer(
        &mut self,
        slot: Slot,
        row: &OutboxRow,
        class: ProblemClass,
        now: Instant,
    ) {
        self.end_delivery(slot, Delivery::Failed, now);
        if self.isolation.is_probed(slot) {
            return self.on_probe_report(slot, Outcome::Rejected(class), now);
        }
        if let Some(returned) = self.in_flight.on_failed(slot) {
            self.read_again(returned);
            self.reject(returned.topic, row, class, 1, now);
        }
    }

    /// Records that a producer has the row in a slot no longer.
    fn end_delivery(&mut self, slot: Slot, delivery: Delivery, now: Instant) {
        let took = self.gate_of(slot).on_ended(slot, delivery, now);
        took.into_iter()
            .for_each(|took| self.client_count.on_request_ended(took));
        if let Some(sent) = self.in_flight.sent_row(slot) {
            match delivery {
                Delivery::Acknowledged => self.on_delivered(&sent, now),
                Delivery::Failed => {
                    self.topics.on_ended(&sent);
                    self.send_window.on_ended(sent.bytes);
                }
            }
        }
        if delivery == Delivery::Acknowledged {
            self.breaker.on_acknowledged(now);
        }
    }

    /// Records that Kafka acknowledged a row.
    fn on_delivered(&mut self, sent: &SentRow, now: Instant) {
        self.send_window.on_acknowledged(sent.bytes, now);
        if let Some(sent_at) = self.topics.on_acknowledged(sent, now) {
            let delivery = now.saturating_duration_since(sent_at);
            if delivery < self.overdue_after {
                self.patience.on_delivery(delivery, now);
            }
        }
    }

    /// Reads the lane of a row that was not published again, from that row on.
    fn read_again(&mut self, returned: ReturnedRow) {
        if let Some(lane) = self.lanes[returned.row.lane.index()].as_mut() {
            lane.read_again_above(returned.row.id.before());
        }
    }
}
