//! How a session ends: drained and its lanes given back, or with the lease lost.

use std::time::{Duration, Instant};

use crate::{
    kafka::replaced_producers,
    outbox::{SequenceState, StoreError},
    relay::{
        core::{
            SettleWhen,
            sequence_check::{SequenceRegression, regression},
        },
        session::{Session, timers::POLL_EVERY},
        status::ProblemSource,
    },
    report::Problem,
};

/// Longest time for what is in flight after a stop. With all that follows it is less than the 45 s
/// after which Kubernetes kills the process.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// Longest time for what is in flight when the sequence has regressed. Less than the lease still
/// lasts, since it is not renewed then.
const DRAIN_REGRESSED_MAX: Duration = Duration::from_secs(5);
/// Longest time for the last statements of a session.
const LAST_STATEMENTS_MAX: Duration = Duration::from_secs(5);

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// The process stops.
    Stopped,
    /// Other relays may own its lanes.
    LeaseLost,
    /// Ids may have been drawn twice: its watermarks mean nothing any more.
    SequenceRegressed,
    /// Somebody changed the schema: a promise could be broken.
    SchemaChanged,
}

/// A session that takes no new rows: it finishes what is in flight.
pub(super) struct Shutdown {
    /// What is in flight then is left to the next owner of the lanes.
    pub(super) until: Instant,
    end: SessionEnd,
}

impl Session<'_> {
    /// Whether the session takes no new rows any more.
    pub(super) fn is_shutting_down(&self) -> bool {
        self.shutdown.is_some()
    }

    /// Whether ids may have been drawn twice.
    pub(super) fn has_regressed(&self) -> bool {
        self.shutdown
            .as_ref()
            .is_some_and(|shutdown| shutdown.end == SessionEnd::SequenceRegressed)
    }

    /// Begins to shut down because the process is stopped.
    pub(super) fn on_stop(&mut self) {
        tracing::info!(
            rows = self.core.in_flight().rows(),
            "stopping: the relay finishes the rows in flight"
        );
        self.begin_shutdown(SessionEnd::Stopped, DRAIN_MAX);
    }

    /// Checks a fetch's sequence state. If ids may have been drawn twice, none of its rows may be
    /// sent, and the session shuts down. Rows that Kafka has may still be deleted: a settling
    /// statement names them by event_id, too.
    ///
    /// # Errors
    /// How the sequence has regressed.
    pub(super) fn check_sequence(
        &mut self,
        sequence: SequenceState,
    ) -> Result<(), SequenceRegression> {
        let incarnation = self.registration.incarnation;
        let highest_id = self.process.memory.highest_id;
        let Some(regression) = regression(incarnation, highest_id, sequence) else {
            return Ok(());
        };
        self.on_regression(regression);
        Err(regression)
    }

    /// Reports how the sequence has regressed, and begins to shut down unless that is under way for
    /// this reason.
    fn on_regression(&mut self, regression: SequenceRegression) {
        self.reporter
            .set_problems(ProblemSource::Sequence, vec![regression.problem()]);
        self.process.memory.on_reported(Instant::now());
        if !self.has_regressed() {
            self.begin_shutdown(SessionEnd::SequenceRegressed, DRAIN_REGRESSED_MAX);
        }
    }

    /// Reports that the schema was changed, and begins to shut down unless that is under way.
    pub(super) fn on_schema_changed(&mut self, problem: Problem) {
        self.reporter
            .set_problems(ProblemSource::Database, vec![problem]);
        if !self.is_shutting_down() {
            self.begin_shutdown(SessionEnd::SchemaChanged, DRAIN_MAX);
        }
    }

    /// Drains all lanes, within `drain_max`.
    fn begin_shutdown(&mut self, end: SessionEnd, drain_max: Duration) {
        let now = Instant::now();
        let until = now + drain_max;
        self.shutdown = Some(Shutdown { until, end });
        self.producers.make_no_more();
        self.core.drain(u32::MAX, now);
        // Acknowledged rows no longer wait for a full batch: none will come.
        self.timers.settle = Some(now);
    }

    /// How the session has to end now, if it has to.
    pub(super) fn end(&self, now: Instant) -> Option<SessionEnd> {
        // First, whatever else goes on: soon another relay may own our lanes and send their rows.
        if now >= self.timers.lease_deadline {
            return Some(SessionEnd::LeaseLost);
        }
        self.end_of_shutdown(now)
    }

    /// How the session ends, once its shutdown is over.
    fn end_of_shutdown(&self, now: Instant) -> Option<SessionEnd> {
        let shutdown = self.shutdown.as_ref()?;
        (now >= shutdown.until || self.is_drained(now)).then_some(shutdown.end)
    }

    /// Whether nothing is in flight, and nothing under way that could bring rows or lanes. A round
    /// of the lease gives the lanes back before, once the doorbell has unlocked them: to end the
    /// producers takes a while.
    fn is_drained(&self, now: Instant) -> bool {
        self.core.in_flight().rows() == 0
            && self.tasks.fetch.is_idle()
            && self.tasks.lease_round.is_idle()
            && (self.has_regressed() || !self.will_release(now))
    }

    /// Ends the session in this way.
    ///
    /// # Cancel safety
    /// If dropped midway, rows in flight are published again by the next owner of their lanes, once
    /// the lease has run out.
    pub(super) async fn shut_down(mut self, end: SessionEnd) -> SessionEnd {
        match end {
            SessionEnd::LeaseLost => self.abandon_lanes().await,
            SessionEnd::Stopped | SessionEnd::SequenceRegressed | SessionEnd::SchemaChanged => {
                self.give_lanes_back(end).await;
            }
        }
        end
    }

    /// Gives all lanes back, in this order: no record may be sent once another relay can own a
    /// lane.
    async fn give_lanes_back(&mut self, end: SessionEnd) {
        self.reporter.clear_lanes();
        self.end_producers().await;
        self.settle_acknowledged().await;
        self.silence_bell().await;
        let released = tokio::time::timeout(LAST_STATEMENTS_MAX, self.release_all()).await;
        match released {
            _ if end == SessionEnd::SequenceRegressed => {}
            Ok(Ok(())) => tracing::info!("stopped: all lanes are free"),
            _ => tracing::warn!(
                "stopped without giving the lanes back: they are free once the lease expires"
            ),
        }
    }

    async fn release_all(&self) -> Result<(), StoreError> {
        let (instance, incarnation) = (self.registration.instance, self.registration.incarnation);
        let watermarks = self.core.watermarks();
        self.store
            .release(instance, &watermarks, incarnation)
            .await?;
        self.store.unregister(instance).await
    }

    /// Ends without the lanes, which another relay may own by now. Nothing more is sent; rows that
    /// Kafka acknowledged are still settled.
    async fn abandon_lanes(&mut self) {
        self.reporter.set_not_ready();
        self.core.lose_lanes();
        self.lose_bell(Instant::now());
        self.reporter.clear_lanes();
        self.end_producers().await;
        self.settle_acknowledged().await;
        let unregister = self.store.unregister(self.registration.instance);
        let _ = tokio::time::timeout(LAST_STATEMENTS_MAX, unregister).await;
    }

    /// Purges the producers and waits for their last reports.
    async fn end_producers(&mut self) {
        // librdkafka reports every purged record, so the wait for the last reports ends.
        self.producers.purge();
        replaced_producers::purge();
        self.receive_last_reports().await;
        self.producers.destroy().await;
    }

    /// Receives reports until no record is with a producer.
    async fn receive_last_reports(&mut self) {
        while self.core.in_flight().sent() > 0 {
            self.receive_reports(Instant::now());
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Settles all rows that Kafka acknowledged, as far as time allows. A row that stays is sent
    /// again by the next owner of its lane: a duplicate, never a loss.
    async fn settle_acknowledged(&mut self) {
        let settle = async {
            self.finish_settles().await;
            self.settle_remaining().await;
        };
        let _ = tokio::time::timeout(LAST_STATEMENTS_MAX, settle).await;
    }

    /// Waits for the settling statements that are under way.
    async fn finish_settles(&mut self) {
        while let Some(settled) = self.tasks.next_settled().await {
            self.on_settled(settled);
        }
    }

    /// Settles the acknowledged rows batch by batch, until one fails.
    async fn settle_remaining(&mut self) {
        let rows_max = self.settle_rows_max();
        while let Some(batch) = self.core.next_settle(rows_max, SettleWhen::Now) {
            if self.store.settle(&batch.rows).await.is_err() {
                return;
            }
            self.core.on_settled(&batch.slots);
        }
    }
}
