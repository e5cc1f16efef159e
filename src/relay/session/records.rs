//! Rows to records, reports to outcomes, and the producer that carries both.

use super::*;
use crate::failpoints::{self, Bug};

/// While records are handed over, reports are looked at after so many: to look costs about a tenth
/// of what a record does.
const REPORTS_AFTER: usize = 16;
/// Of brokers, to what a producer had sent when it failed for good.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(1);
/// Longest wait for what is in flight when the producer is replaced; what is left then may come
/// twice.
const FLUSH_MAX: Duration = Duration::from_secs(5);

impl Session<'_> {
    pub(super) fn fetched(&mut self, plan: &FetchRequest, began: Instant, fetched: FetchResult) {
        let now = Instant::now();
        self.drain_reports(now);
        if fetched.is_ok() {
            self.works(ProblemSource::ReadDecision);
        }
        match fetched {
            Ok((sequence, _)) if self.breaks(sequence) => self.core.on_fetch_failed(now),
            Ok((_, fetched)) if matches!(self.sending, Sending::Open(_)) => {
                self.status
                    .metrics
                    .fetch
                    .observe((now - began).as_secs_f64());
                let outgoing = self.core.accept(plan, fetched, now);
                self.memory.on_id(self.core.highest_id());
                self.send(outgoing, Which::Main, now);
            }
            Ok(_) => self.core.on_fetch_failed(now),
            Err(error) => {
                self.core.on_fetch_failed(now);
                self.database_failed(ProblemSource::ReadDecision, &error, now);
            }
        }
    }

    pub(super) fn send(&mut self, outgoing: Vec<Outgoing>, which: Which, now: Instant) {
        let now_ms = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64);
        let mut handed_over = 0;
        for (sent, outgoing) in outgoing.into_iter().enumerate() {
            // After a failure nothing more of its topic is to follow; a producer that failed takes
            // nothing anyway.
            if sent.is_multiple_of(REPORTS_AFTER) {
                self.drain_reports(now);
            }
            let may_send = self.core.may_send(&outgoing, now);
            handed_over += u64::from(may_send);
            let Outgoing { slot, topic, row } = outgoing;
            let producer = match (which, &self.sending, &self.trial) {
                (Which::Main, Sending::Open(producer), _) if may_send => producer,
                (Which::Trial, _, Some(producer)) if may_send => producer,
                _ => {
                    self.core.on_report(slot, Outcome::NotSent, now);
                    continue;
                }
            };
            let mut replaced = 0;
            let name = self.core.routes().name(topic);
            let sent = kafka::headers(
                &row,
                self.options.settings.record_headers,
                &self.source,
                &mut replaced,
            )
            .map_err(|_| DeliveryError::Record(ProblemClass::RecordRejected))
            .and_then(|headers| {
                let timestamp = kafka::timestamp_ms(row.created_at_us, now_ms);
                producer.send(
                    name,
                    row.key(),
                    row.payload.as_deref(),
                    headers,
                    timestamp,
                    slot.index(),
                )
            });
            (
                self.created_at_us[slot.index()],
                self.taken_at[slot.index()],
            ) = (row.created_at_us, now);
            self.status.metrics.replaced_headers.inc_by(replaced);
            match sent {
                Ok(()) if failpoints::has(Bug::AckBeforeReport) => {
                    self.core.on_report(slot, Outcome::Published, now)
                }
                Ok(()) => {}
                Err(DeliveryError::Record(class)) => {
                    if class == ProblemClass::RecordTooLarge {
                        self.watch.ask_now(); // a topic may take it by now
                    }
                    self.count_failure(topic, class);
                    self.core.on_rejected_by_producer(slot, &row, class, now);
                }
                Err(fault) => self.failed(slot, topic, fault, now),
            }
        }
        self.status.metrics.added.inc_by(handed_over);
    }

    /// What became of records since: nobody else asks for it.
    pub(super) fn drain_reports(&mut self, now: Instant) {
        self.timers.reports = now + REPORTS_EVERY;
        let mut reports = std::mem::take(&mut self.reports);
        for producer in self.sending.producer().into_iter().chain(&self.trial) {
            producer.poll(&mut reports);
        }
        let published = reports
            .iter()
            .filter(|report| report.outcome.is_ok())
            .count();
        for report in reports.drain(..).chain(failpoints::late_reports(now)) {
            self.reported(report, now);
        }
        self.reports = reports;
        if published > 0 {
            self.cluster_error.clear();
            self.status.published(published as u64, now);
        }
    }

    fn reported(&mut self, report: Report, now: Instant) {
        let slot = Slot::new(report.slot);
        let Some(topic) = self.core.in_flight().topic_of(slot) else {
            return;
        };
        match report.outcome {
            Ok(()) => {
                let latency_us = outage::now_us()
                    .saturating_sub(self.created_at_us[report.slot])
                    .max(0);
                self.status
                    .metrics
                    .publish_latency
                    .observe(latency_us as f64 / 1e6);
                self.status
                    .metrics
                    .published
                    .with_label_values(&[self.core.routes().name(topic)])
                    .inc();
                self.core.on_report(slot, Outcome::Published, now);
            }
            Err(fault) => {
                self.rebuild.cause_found |=
                    matches!(fault, DeliveryError::Topic(_) | DeliveryError::Record(_))
                        && !self.core.is_probed(slot);
                self.failed(slot, topic, fault, now);
            }
        }
    }

    pub(super) fn failed(
        &mut self,
        slot: Slot,
        topic: TopicIndex,
        fault: DeliveryError,
        now: Instant,
    ) {
        let outcome = match fault {
            DeliveryError::Purged => Outcome::Purged,
            DeliveryError::Record(class) => Outcome::Rejected(class),
            DeliveryError::Cluster(class) | DeliveryError::Topic(class) => {
                Outcome::TopicFailed(class)
            }
        };
        if let Outcome::TopicFailed(class) | Outcome::Rejected(class) = outcome {
            self.count_failure(topic, class);
            if class == ProblemClass::TopicMissing {
                self.watch.ask_now();
            }
        }
        self.core.on_report(slot, outcome, now);
    }

    fn count_failure(&self, topic: TopicIndex, class: ProblemClass) {
        self.status
            .metrics
            .failed
            .with_label_values(&[self.core.routes().name(topic), &class.to_string()])
            .inc();
    }

    pub(super) fn on_topic_metadata(&mut self, news: &TopicMetadata) {
        let now = Instant::now();
        for (topic, usable) in news {
            let presence = if *usable {
                TopicPresence::Present
            } else {
                TopicPresence::Missing
            };
            self.core
                .on_topic_metadata(TopicIndex::new(*topic), presence, now);
        }
        if self.core.in_flight().sent() == 0 {
            // Such as idle connections that were closed: it says nothing of what is sent from now
            // on.
            self.cluster_error.clear();
        }
        if let (Sending::Open(producer), Some(wanted)) = (&self.sending, self.watch.sizes())
            && !producer.sizes().fit(wanted)
        {
            self.replace_politely(
                "topics take larger records, or smaller batches, than it was made for",
            );
        }
        for (topic, partitions) in news.partitions() {
            self.core
                .on_partition_count(TopicIndex::new(topic), partitions);
        }
        self.core.on_brokers_answered(now);
        let waiting: Vec<_> = self
            .core
            .overdue_topics(now)
            .filter(|topic| news.is_led(topic.index()))
            .collect();
        if self.stale_leaders.check(waiting, now) {
            tracing::warn!(
                "the producers are replaced: records wait although the brokers name leaders; was \
                 a topic deleted and made again?"
            );
            self.replace_producers(now);
        }
    }

    /// Nothing is wrong with them: what is in flight ends well first.
    pub(super) fn replace_politely(&mut self, why: &str) {
        let by = Instant::now() + FLUSH_MAX;
        self.trial_by = self.trial.as_ref().map(|_| by);
        tracing::info!(
            in_flight = self.core.in_flight().sent(),
            "the producer is replaced, once what is in flight is acknowledged: {why}"
        );
        self.flush_producer(by);
    }

    pub(super) fn replace_producers(&mut self, now: Instant) {
        let by = now + LAST_ANSWERS_MAX;
        self.trial_by = self.trial.as_ref().map(|_| by);
        self.flush_producer(by);
    }

    /// Retires a producer that failed for good, and makes a new one once the last report of the old
    /// one is in.
    pub(super) async fn keep_producer(&mut self, now: Instant) {
        self.give_up_with_producer(now);
        if let Some(bytes) = self.core.take_oversized_batch() {
            self.batch_bytes_max = (bytes / 2).max(kafka::BATCH_BYTES_MIN);
            self.retire_producer(
                "its batches are larger than a topic takes; a new one makes smaller ones",
            );
        }
        let sending = std::mem::replace(&mut self.sending, Sending::None { retry_at: now });
        self.sending = match sending {
            Sending::Flushing(producer, _) | Sending::Retiring(producer)
                if failpoints::has(Bug::NextProducerEarly) =>
            {
                failpoints::replaced(producer);
                Sending::None { retry_at: now }
            }
            Sending::Flushing(producer, _) | Sending::Retiring(producer)
                if self.core.sent_on_main() == 0 =>
            {
                destroy(producer).await;
                Sending::None {
                    retry_at: now + self.rebuild_pause(now),
                }
            }
            Sending::Flushing(producer, by) if now >= by || self.cluster_error.get().is_some() => {
                producer.purge();
                Sending::Retiring(producer)
            }
            Sending::None { retry_at } if retry_at <= now && self.stop_by.is_none() => {
                self.open_producer(now)
            }
            other => other,
        };
    }

    /// A producer that failed for good sends nothing more; what the brokers have of it may still be
    /// acknowledged, else it would come twice.
    fn give_up_with_producer(&mut self, now: Instant) {
        let by = now + LAST_ANSWERS_MAX;
        if matches!(&self.sending, Sending::Open(producer) if producer.is_fatal()) {
            self.rebuild.fatal = true;
            self.cluster_error.clear();
            tracing::warn!(
                "the producer is replaced: it gave up so as not to leave a gap; a new one starts \
                 at the lowest unsettled rows"
            );
            self.flush_producer(by);
        }
        if let Sending::Flushing(producer, until) = &mut self.sending
            && producer.is_fatal()
            && *until >= by
        {
            *until = by;
            producer.purge_queue();
        }
    }

    /// None when it is known what was wrong.
    fn rebuild_pause(&mut self, now: Instant) -> Duration {
        let Rebuild { fatal, cause_found } = std::mem::take(&mut self.rebuild);
        if fatal && !cause_found {
            self.core.on_producer_rebuilt(now)
        } else {
            Duration::ZERO
        }
    }

    /// Nothing is sent any more; until then what is in flight may end well, unless no broker takes
    /// anything.
    pub(super) fn flush_producer(&mut self, by: Instant) {
        let sending = std::mem::replace(
            &mut self.sending,
            Sending::None {
                retry_at: Instant::now(),
            },
        );
        self.sending = match sending {
            Sending::Open(producer) => Sending::Flushing(producer, by),
            other => other,
        };
    }

    pub(super) fn retire_producer(&mut self, why: &str) {
        let sending = std::mem::replace(
            &mut self.sending,
            Sending::None {
                retry_at: Instant::now(),
            },
        );
        self.sending = match sending {
            Sending::Open(producer) => {
                tracing::warn!("the producer is thrown out: {why}");
                self.cluster_error.clear();
                producer.purge();
                Sending::Retiring(producer)
            }
            other => other,
        };
    }

    pub(super) fn open_producer(&mut self, now: Instant) -> Sending {
        // Until the brokers have named a topic nothing is sent anyway; with it they say how large
        // batches may be.
        if self.watch.sizes().is_none() {
            return Sending::None {
                retry_at: now + FIRST_NEWS,
            };
        }
        let Ok(producer) = self.new_producer() else {
            return Sending::None {
                retry_at: now + Duration::from_secs(1),
            };
        };
        // What the one before met, such as a refused login, says nothing of this one.
        self.cluster_error.clear();
        self.core.on_new_producer();
        Sending::Open(producer)
    }

    /// A producer for the secrets as they are now.
    pub(super) fn new_producer(&self) -> Result<Producer, kafka::ConfigError> {
        let (options, secrets) = (self.options, self.credentials.kafka.borrow().clone());
        let known = self.watch.sizes().unwrap_or_default();
        let sizes = Sizes {
            batch_bytes: known.batch_bytes.min(self.batch_bytes_max),
            ..known
        };
        let made = Producer::new(
            &options.settings.kafka,
            &secrets,
            &options.pod,
            sizes,
            self.cluster_error.clone(),
        );
        self.status.set_problems(
            ProblemSource::Producer,
            made.as_ref()
                .err()
                .map(kafka::ConfigError::problem)
                .into_iter()
                .collect(),
        );
        made
    }
}
