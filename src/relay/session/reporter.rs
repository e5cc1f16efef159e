//! What a session reports: problems of its work, the breaker, and measurements of each row.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    kafka,
    outbox::{DatabaseClock, Depth, RowIdentity, TableWide},
    relay::{
        connect::Connected,
        core::{RejectedRow, backlog_change::ReportedBacklog, ids::Slot, in_flight::InFlight},
        status::{ProblemSource, Status},
    },
    report::{Backlog, BreakerState, Problem, ProblemClass},
};

/// Reports to the [`Status`], and remembers what was reported and when rows were sent.
pub(super) struct Reporter<'a> {
    status: &'a Status,
    clock: DatabaseClock,
    /// Kinds of work whose failure is reported.
    failing: BTreeSet<ProblemSource>,
    /// State that was reported last.
    breaker: BreakerState,
    /// The last purge of adopted tables failed.
    purge_fails: bool,
    /// Backlog that was reported last.
    backlog: ReportedBacklog,
    /// `created_at` of each slot's row, microseconds since 1970.
    created_at_us: Vec<i64>,
    /// When each slot's row was handed over.
    sent_at: Vec<Instant>,
}

impl<'a> Reporter<'a> {
    /// Begins a report with the instance of this session, and ends the problems of the session
    /// before: what that one could not do is not left to this one. `slots` is the largest number of
    /// rows in flight.
    pub(super) fn new(status: &'a Status, connected: &Connected, slots: usize) -> Self {
        begin_report(status, connected);
        end_problems_of_work(status);
        Self {
            status,
            clock: connected.clock,
            failing: BTreeSet::new(),
            breaker: BreakerState::Closed,
            purge_fails: false,
            backlog: ReportedBacklog::default(),
            created_at_us: vec![0; slots],
            sent_at: vec![connected.leased_at; slots],
        }
    }

    /// Records that the loop turned, for `/healthz`.
    pub(super) fn record_turn(&self, now: Instant) {
        self.status.record_turn(now);
    }

    // --- clocks

    /// Sets the database's clock, by which ages and latencies are measured.
    pub(super) fn set_clock(&mut self, clock: DatabaseClock) {
        self.clock = clock;
        self.status.set_clock(clock);
    }

    /// When the row of a slot was handed over.
    pub(super) fn sent_at(&self, slot: Slot) -> Instant {
        self.sent_at[slot.index()]
    }

    /// Seconds since a time of the database, in microseconds since 1970. Zero for one that is
    /// ahead, as of a row that was created on purpose in the future.
    fn seconds_since(&self, time_us: i64, now: Instant) -> f64 {
        self.clock.at(now).saturating_sub(time_us).max(0) as f64 / 1e6
    }

    // --- problems

    /// Replaces the problems of one source.
    pub(super) fn set_problems(&self, source: ProblemSource, problems: Vec<Problem>) {
        self.status.set_problems(source, problems);
    }

    /// Reports the failure of a kind of work.
    pub(super) fn work_failed(&mut self, work: ProblemSource, problem: Problem) {
        self.failing.insert(work);
        self.status.set_problems(work, vec![problem]);
    }

    /// Ends the problem of a kind of work. Cheap without one: work succeeds thousands of times a
    /// second.
    pub(super) fn work_succeeded(&mut self, work: ProblemSource) {
        if self.failing.remove(&work) {
            self.status.set_problems(work, vec![]);
        }
    }

    /// Reports the breaker's state. Returns the state before if it changed.
    pub(super) fn set_breaker(&mut self, state: BreakerState) -> Option<BreakerState> {
        if state == self.breaker {
            return None;
        }
        self.status.set_breaker(state);
        Some(std::mem::replace(&mut self.breaker, state))
    }

    // --- lanes and their numbers

    /// Reports a valid lease and the number of lanes that it covers.
    pub(super) fn set_owned_lanes(&self, lanes: u32) {
        self.status.set_lanes(lanes);
        self.status.set_ready();
    }

    /// Clears all numbers of lanes.
    pub(super) fn clear_lanes(&self) {
        self.status.clear_lanes();
    }

    /// Reports that there is no valid lease.
    pub(super) fn set_not_ready(&self) {
        self.status.set_not_ready();
    }

    /// Reports how many rows and bytes are in flight.
    pub(super) fn set_in_flight(&self, in_flight: &InFlight) {
        let metrics = &self.status.metrics;
        metrics.in_flight_rows.set(in_flight.rows() as i64);
        metrics.in_flight_bytes.set(in_flight.bytes() as i64);
    }

    /// Reports the backlog of our lanes, counted by a statement that began then, and the numbers of
    /// the whole table if we own lane 0.
    pub(super) fn set_backlog(&mut self, counted: Depth, table: Option<TableWide>, began: Instant) {
        self.status.set_table(table);
        let now = Instant::now();
        if let Some(depth) = self.backlog.count(counted, began, now) {
            self.set_depth(&depth, now);
        }
    }

    /// Reports that no row waits: a fetch of all lanes, which began then, found none.
    pub(super) fn set_backlog_empty(&mut self, began: Instant) {
        let depth = self.backlog.empty(began);
        self.set_depth(&depth, Instant::now());
    }

    fn set_depth(&self, depth: &Depth, now: Instant) {
        let metrics = &self.status.metrics;
        let age = depth.oldest_us.map(|us| self.seconds_since(us, now));
        metrics.set_backlog(Some((depth.rows, age.unwrap_or(0.0))));
        let since_us = self.backlog.waiting_since_us(now, self.clock);
        let backlog = backlog(depth, since_us, self.clock.at(now));
        self.status.set_backlog(Some(backlog));
    }

    /// Number of rows that was reported last; `None` if it is unknown.
    pub(super) fn backlog_rows(&self) -> Option<u64> {
        self.backlog.rows()
    }

    /// For how long the oldest row that was reported last has waited by now; zero if none waits.
    pub(super) fn oldest_age(&self, now: Instant) -> Duration {
        let since_us = self.backlog.waiting_since_us(now, self.clock);
        since_us.map_or(Duration::ZERO, |us| {
            Duration::from_secs_f64(self.seconds_since(us, now))
        })
    }

    /// Reports that the backlog could not be read. Metrics keep the last numbers: an alert on them
    /// must not end with an outage of the database.
    pub(super) fn backlog_failed(&mut self) {
        self.backlog.forget();
        self.status.set_backlog(None);
    }

    /// Reports that the backlog is not known yet: there are lanes whose rows were not counted.
    pub(super) fn clear_backlog(&mut self) {
        self.backlog.forget();
        self.status.set_backlog(None);
        self.status.metrics.set_backlog(None);
    }

    // --- the way of a row

    /// Reports the round trip to the brokers, and for how long they mute requests.
    pub(super) fn set_broker_times(&self, round_trip: Duration, throttle: Duration) {
        let metrics = &self.status.metrics;
        metrics.kafka_round_trip.set(round_trip.as_secs_f64());
        metrics.kafka_throttle.set(throttle.as_secs_f64());
    }

    /// Reports how many clients share the partitions.
    pub(super) fn set_clients(&self, clients: usize) {
        self.status.metrics.kafka_clients.set(clients as i64);
    }

    /// Measures a fetch whose rows can be used.
    pub(super) fn record_fetch(&self, began: Instant, now: Instant) {
        let seconds = (now - began).as_secs_f64();
        self.status.metrics.fetch.observe(seconds);
    }

    /// Counts rows that were allowed to go to a producer.
    pub(super) fn record_admitted(&self, rows: u64) {
        self.status.metrics.added.inc_by(rows);
    }

    /// Remembers when the row of a slot was created and handed over.
    pub(super) fn record_sent(
        &mut self,
        slot: Slot,
        created_at_us: i64,
        replaced_headers: u64,
        now: Instant,
    ) {
        self.created_at_us[slot.index()] = created_at_us;
        self.sent_at[slot.index()] = now;
        self.status
            .metrics
            .replaced_headers
            .inc_by(replaced_headers);
    }

    /// Measures a record that Kafka acknowledged.
    pub(super) fn record_acknowledged(&self, slot: Slot, topic: &str, now: Instant) {
        let metrics = &self.status.metrics;
        let latency_seconds = self.seconds_since(self.created_at_us[slot.index()], now);
        metrics.publish_latency.observe(latency_seconds);
        metrics.published.with_label_values(&[topic]).inc();
    }

    /// Counts records that Kafka acknowledged, for the rate in the status report.
    pub(super) fn record_published(&self, records: u64, now: Instant) {
        self.status.record_published(records, now);
    }

    /// Counts a record that failed.
    pub(super) fn record_failure(&self, topic: &str, class: ProblemClass) {
        let failed = &self.status.metrics.failed;
        failed.with_label_values(&[topic, &class.to_string()]).inc();
    }

    /// Measures a settling statement and the rows that it deleted.
    pub(super) fn record_settled(&self, slots: &[Slot], began: Instant, now: Instant) {
        let metrics = &self.status.metrics;
        metrics.settle.observe((now - began).as_secs_f64());
        for slot in slots {
            let seconds = (now - self.sent_at[slot.index()]).as_secs_f64();
            metrics.processing.observe(seconds);
        }
    }

    /// Counts and logs a row that was found below a watermark.
    pub(super) fn record_straggler(&self, row: RowIdentity) {
        self.status.metrics.stragglers.inc();
        self.status.row_log.straggler(row, Instant::now());
    }

    /// Logs that old rows of adopted tables cannot be deleted, once until they can be again.
    pub(super) fn purge_failed(&mut self, problem: &Problem) {
        if !std::mem::replace(&mut self.purge_fails, true) {
            tracing::warn!(
                class = %problem.class,
                error = problem.message,
                "old rows of adopted tables cannot be deleted; this is tried again"
            );
        }
    }

    /// Ends the failure of a purge.
    pub(super) fn purge_succeeded(&mut self, rows: u64) {
        tracing::debug!(rows, "old rows of adopted tables were deleted");
        if std::mem::take(&mut self.purge_fails) {
            tracing::info!("resolved: old rows of adopted tables are deleted again");
        }
    }

    /// Logs what happened to a row that is not published.
    pub(super) fn log_disposed(&self, topic: &str, rejected: &RejectedRow, now: Instant) {
        self.status.row_log.disposed(topic, rejected, now);
    }

    /// Logs how many lines about rows were left out in minutes that are over.
    pub(super) fn end_minutes_of_row_log(&self, now: Instant) {
        self.status.row_log.end_minutes(now);
    }
}

fn begin_report(status: &Status, connected: &Connected) {
    let instance = connected.registration.instance.to_string();
    status.set_instance(instance, connected.schema_version);
    status.set_clock(connected.clock);
    status.set_breaker(BreakerState::Closed);
}

/// Ends the problems that a session reports of its work with rows.
fn end_problems_of_work(status: &Status) {
    for work in [
        ProblemSource::Settling,
        ProblemSource::Reading,
        ProblemSource::Parking,
        ProblemSource::Quota,
        ProblemSource::Clocks,
    ] {
        status.set_problems(work, vec![]);
    }
}

/// The backlog, as the status report has it: since when its oldest row waits, and the time of the
/// database at which it was counted.
fn backlog(depth: &Depth, since_us: Option<i64>, measured_at_us: i64) -> Backlog {
    Backlog {
        rows: depth.rows,
        capped: depth.capped,
        oldest_at: depth.oldest_us.map(kafka::rfc3339),
        waiting_since: since_us.map(kafka::rfc3339),
        measured_at: Some(kafka::rfc3339(measured_at_us)),
    }
}
