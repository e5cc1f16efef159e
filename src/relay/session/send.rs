//! Rows become records, and delivery reports become outcomes.

use std::time::{Duration, Instant};

use crate::{
    failpoints::{self, Bug},
    kafka::{self, Acknowledged, DeliveryError, DeliveryReport, HeaderError},
    relay::{
        core::{
            Destination, Outcome, Outgoing,
            ids::{Slot, TopicIndex},
        },
        session::{
            Session,
            producers::{ProducerRole, Sender},
        },
    },
    report::ProblemClass,
};

/// While records are handed over, reports are polled after this many: a poll costs about a tenth of
/// what a record does.
const RECORDS_PER_POLL: usize = 16;

impl Session<'_> {
    /// Hands rows over to a producer, in their order.
    pub(super) fn send(&mut self, outgoing: Vec<Outgoing>, role: ProducerRole, now: Instant) {
        let mut admitted = 0;
        for (index, outgoing) in outgoing.into_iter().enumerate() {
            // A failure pauses its topic: no later record of it may follow. A producer that failed
            // takes nothing anyway.
            if index.is_multiple_of(RECORDS_PER_POLL) {
                self.receive_reports(now);
            }
            if let Some(destination) = self.core.admit(&outgoing, now) {
                admitted += 1;
                self.send_record(&outgoing, role, destination, now);
            } else {
                self.core.on_report(outgoing.slot, Outcome::NotSent, now);
            }
        }
        self.reporter.record_admitted(admitted);
    }

    fn send_record(
        &mut self,
        outgoing: &Outgoing,
        role: ProducerRole,
        destination: Destination,
        now: Instant,
    ) {
        let (slot, topic) = (outgoing.slot, outgoing.topic);
        match self.hand_over(outgoing, role, destination, now) {
            None => self.core.on_report(slot, Outcome::NotSent, now),
            Some(Ok(())) if failpoints::has(Bug::AckBeforeReport) => {
                self.core.on_report(slot, Outcome::Published, now);
            }
            Some(Ok(())) => {}
            Some(Err(DeliveryError::Record(class))) => {
                self.on_rejected_by_producer(outgoing, class, now);
            }
            Some(Err(error)) => self.on_delivery_error(slot, topic, error, now),
        }
    }

    /// Hands one row over. `None` when no producer takes records of this role.
    fn hand_over(
        &mut self,
        outgoing: &Outgoing,
        role: ProducerRole,
        destination: Destination,
        now: Instant,
    ) -> Option<Result<(), DeliveryError>> {
        let sender = self.producers.sender(role)?;
        let mut replaced_headers = 0;
        let handed_over = self.produce(sender, outgoing, destination, &mut replaced_headers, now);
        let (slot, created_at_us) = (outgoing.slot, outgoing.row.created_at_us);
        self.reporter
            .record_sent(slot, created_at_us, replaced_headers, now);
        Some(handed_over)
    }

    /// Makes the record of a row and gives it to `sender`. Counts headers of the row that the
    /// relay's own ones replaced.
    fn produce(
        &self,
        sender: Sender<'_>,
        outgoing: &Outgoing,
        destination: Destination,
        replaced_headers: &mut u64,
        now: Instant,
    ) -> Result<(), DeliveryError> {
        let Outgoing { slot, topic, row } = outgoing;
        // Only rows that were read get here. Any other would be read again.
        let payload = row.value().ok_or(DeliveryError::Purged)?;
        let which = self.process.options.settings.record_headers;
        let headers = kafka::headers(row, which, &self.record_source, replaced_headers)
            .map_err(|error| DeliveryError::Record(class_of(error)))?;
        let record = kafka::Record {
            topic: self.core.routes().name(*topic),
            key: row.key(),
            partition: Some(destination.partition),
            payload,
            headers,
            timestamp_ms: self.timestamp_ms(*topic, row.created_at_us, now),
        };
        sender.send(destination.client, record, *slot)
    }

    /// Timestamp of a record, in ms since 1970. The node's clock has no part in it.
    fn timestamp_ms(&self, topic: TopicIndex, created_at_us: i64, now: Instant) -> i64 {
        let age_max = if self.core.topics()[topic].needs_present_time(now) {
            Duration::ZERO
        } else {
            self.process.metadata.timestamp_age_max(topic)
        };
        kafka::timestamp_ms(created_at_us, self.clocks.database_us(now), age_max)
    }

    fn on_rejected_by_producer(&mut self, outgoing: &Outgoing, class: ProblemClass, now: Instant) {
        if class == ProblemClass::RecordTooLarge {
            // The topic's limit may have been raised since it was read.
            self.process.metadata.request_now();
        }
        self.record_failure(outgoing.topic, class);
        self.core
            .on_rejected_by_producer(outgoing.slot, &outgoing.row, class, now);
    }

    /// Receives the delivery reports that are in. Nothing else polls the producers.
    pub(super) fn receive_reports(&mut self, now: Instant) {
        self.timers.reports_polled(now);
        // The buffer is taken out, since each report needs the whole session, and reused.
        let mut reports = self.producers.poll();
        let acknowledged = reports
            .iter()
            .filter(|report| report.outcome.is_ok())
            .count();
        // Late reports are those of a planted bug: none in a release.
        let late = kafka::replaced_producers::late_reports(now);
        for report in reports.drain(..).chain(late) {
            self.on_report(report, now);
        }
        self.producers.reuse(reports);
        if acknowledged > 0 {
            self.producers.clear_cluster_error();
            self.reporter.record_published(acknowledged as u64, now);
        }
    }

    /// Takes one report. A row that is not in flight any more had a report before.
    fn on_report(&mut self, report: DeliveryReport, now: Instant) {
        // The slot travelled through librdkafka as the record's opaque pointer.
        let slot = Slot::new(report.slot);
        let Some(topic) = self.core.in_flight().topic_of(slot) else {
            return;
        };
        match report.outcome {
            Ok(acknowledged) => {
                self.record_acknowledged(slot, topic, acknowledged, now);
                self.core.on_report(slot, Outcome::Published, now);
            }
            Err(error) => {
                // A rejection on the probe producer does not explain why the main one failed.
                if !self.core.is_probed(slot) {
                    self.producers.on_delivery_error(error);
                }
                self.on_delivery_error(slot, topic, error, now);
            }
        }
    }

    /// Measures an acknowledged record, and the clock of the broker that reports it.
    fn record_acknowledged(
        &mut self,
        slot: Slot,
        topic: TopicIndex,
        acknowledged: Acknowledged,
        now: Instant,
    ) {
        if let Some(broker_ms) = acknowledged.appended_at_ms {
            let sent_at = self.reporter.sent_at(slot);
            self.clocks.on_appended(broker_ms, sent_at, now);
        }
        let topic = self.core.routes().name(topic);
        self.reporter.record_acknowledged(slot, topic, now);
    }

    fn on_delivery_error(
        &mut self,
        slot: Slot,
        topic: TopicIndex,
        error: DeliveryError,
        now: Instant,
    ) {
        let outcome = Outcome::from(error);
        if let Outcome::TopicFailed(class) | Outcome::Rejected(class) = outcome {
            self.record_failure(topic, class);
            if matches!(class, ProblemClass::TopicMissing | ProblemClass::ClockSkew) {
                // For the latter, the topic's limits may have changed since they were read.
                self.process.metadata.request_now();
            }
        }
        self.core.on_report(slot, outcome, now);
    }

    pub(super) fn record_failure(&self, topic: TopicIndex, class: ProblemClass) {
        self.reporter
            .record_failure(self.core.routes().name(topic), class);
    }
}

/// Class of a row whose headers no record can carry.
fn class_of(error: HeaderError) -> ProblemClass {
    match error {
        HeaderError::NotAnObject { .. } | HeaderError::Character => ProblemClass::RecordRejected,
        HeaderError::AdoptionFault => ProblemClass::AdoptionFailed,
    }
}

impl From<DeliveryError> for Outcome {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::Purged => Self::Purged,
            DeliveryError::Record(class) => Self::Rejected(class),
            // A failure of the cluster pauses the topic, too: records behind it must not be sent.
            DeliveryError::Cluster(class) | DeliveryError::Topic(class) => Self::TopicFailed(class),
        }
    }
}
