//! How often the loop does what, and when it has to turn although nothing happens.

use std::time::{Duration, Instant};

use crate::relay::{
    core::lane_share::{RENEW_EVERY, Traffic, lease_deadline},
    session::Session,
};

/// Longest time that an acknowledged row waits for others to be settled with: each statement is a
/// commit that waits for the disk.
const SETTLE_DELAY_MAX: Duration = Duration::from_millis(20);
/// Longest such time once [`SETTLE_ROWS`] rows wait: until they are gone, every fetch reads them
/// again.
const SETTLE_DELAY_MANY: Duration = Duration::from_millis(5);
/// Number of acknowledged rows from which they wait for [`SETTLE_DELAY_MANY`] only.
const SETTLE_ROWS: usize = 32;
/// Pause between two ticks, while rows are read and no other statement draws a transaction id.
const TICK_EVERY: Duration = Duration::from_millis(50);
/// Longest time between two polls for reports while records are with a producer. Each turn of the
/// loop polls, too.
pub(super) const POLL_EVERY: Duration = Duration::from_millis(5);
/// Shortest pause between two reads of the backlog.
const BACKLOG_EVERY: Duration = Duration::from_secs(5);
/// Shortest such pause while a row has waited for [`WAITS_AFTER`].
const BACKLOG_EVERY_WAITING: Duration = Duration::from_secs(2);
/// Age from which a row is not just on its way.
const WAITS_AFTER: Duration = Duration::from_secs(1);
/// Shortest such pause when a fetch showed that the number has changed.
const BACKLOG_AGAIN: Duration = Duration::from_secs(1);
/// Longest pause between two reads of the backlog, however long they take.
const BACKLOG_PAUSE_MAX: Duration = Duration::from_secs(15);
/// Shortest pause between two gap scans.
const GAP_SCAN_EVERY: Duration = Duration::from_secs(30);
/// Shortest pause between two comparisons of the schema with what the migrations made. A change of
/// the sequence is noticed with the next fetch.
const SCHEMA_CHECK_EVERY: Duration = Duration::from_secs(30);
/// Shortest pause between two purges of adopted tables.
const PURGE_EVERY: Duration = Duration::from_secs(2);
/// A periodic read takes at most this part of the database's time: one in a hundred.
const READ_TIME_DIVISOR: u32 = 100;
/// Pause between two reads of what is parked, for each parked key. The digest of 100,000 takes the
/// database 20 to 35 ms (measured), so this is about a hundredth of its time.
const PARKED_PAUSE_PER_KEY: Duration = Duration::from_micros(25);
/// Time after the last row for which rows count as being published.
const BUSY_AFTER_ROW: Duration = Duration::from_secs(5);
/// Pause after a failure of the database.
const DATABASE_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Pause between two reports of what is wrong with topics and keys.
const RECORD_PROBLEMS_EVERY: Duration = Duration::from_millis(500);
/// Pause between two requests for the leaders of partitions, while records are overdue.
const LEADERS_EVERY: Duration = Duration::from_secs(5);
/// The loop turns at least this often.
const TURN_EVERY: Duration = Duration::from_secs(1);

/// When each kind of work is due next.
pub(super) struct Timers {
    /// When the lease must not be trusted any more.
    pub(super) lease_deadline: Instant,
    pub(super) reports: Instant,
    pub(super) lease_round: Instant,
    /// From when on a round of the lease reads what is parked.
    pub(super) parked: Instant,
    pub(super) renewal: Instant,
    pub(super) tick: Instant,
    pub(super) backlog: Instant,
    /// When the backlog may be read although its time has not come.
    backlog_again: Instant,
    pub(super) gap_scan: Instant,
    pub(super) schema_check: Instant,
    pub(super) purge: Instant,
    pub(super) record_problems: Instant,
    pub(super) leaders: Instant,
    /// When acknowledged rows are settled although no batch is full; `None` when none waits.
    pub(super) settle: Option<Instant>,
    /// When a fetch brought rows last; `None` before the first one.
    rows_at: Option<Instant>,
    /// No statement begins before, but for rounds of the lease, which have this in their own time.
    pub(super) database: Instant,
}

impl Timers {
    /// Timers of a session whose lease was requested at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            lease_deadline: lease_deadline(now),
            reports: now,
            lease_round: now,
            parked: now,
            renewal: now + RENEW_EVERY,
            tick: now,
            backlog: now,
            backlog_again: now,
            gap_scan: now + GAP_SCAN_EVERY,
            schema_check: now + SCHEMA_CHECK_EVERY,
            purge: now + PURGE_EVERY,
            record_problems: now,
            leaders: now,
            settle: None,
            rows_at: None,
            database: now,
        }
    }

    /// The producers were polled.
    pub(super) fn reports_polled(&mut self, now: Instant) {
        self.reports = now + POLL_EVERY;
    }

    /// A round of the lease ended; the next one begins after `pause`.
    pub(super) fn lease_round_ended(&mut self, now: Instant, pause: Duration) {
        self.lease_round = now + pause;
    }

    /// What is parked was read: this number of keys and topics.
    pub(super) fn parked_read(&mut self, listed: u32, now: Instant) {
        self.parked = now + PARKED_PAUSE_PER_KEY * listed;
    }

    /// A fetch brought rows.
    pub(super) fn rows_fetched(&mut self, now: Instant) {
        self.rows_at = Some(now);
    }

    /// Whether a fetch brought rows lately.
    pub(super) fn traffic(&self, now: Instant) -> Traffic {
        match self.rows_at {
            Some(at) if now.saturating_duration_since(at) < BUSY_AFTER_ROW => Traffic::Busy,
            _ => Traffic::Idle,
        }
    }

    /// The lease was renewed by a statement that was sent at this time.
    pub(super) fn lease_renewed(&mut self, sent: Instant) {
        self.lease_deadline = lease_deadline(sent);
        self.renewal = sent + RENEW_EVERY;
    }

    /// A transaction id was drawn, or will be, by a statement that begins now.
    pub(super) fn ticked(&mut self, now: Instant) {
        self.tick = now + TICK_EVERY;
    }

    /// The backlog was read, and its oldest row has waited for `oldest`. Scaling depends on it, so
    /// it never gets older than [`BACKLOG_PAUSE_MAX`]: an old number under a growing backlog would
    /// say that nothing waits.
    pub(super) fn backlog_read(&mut self, began: Instant, now: Instant, oldest: Duration) {
        let pause = if oldest < WAITS_AFTER {
            BACKLOG_EVERY
        } else {
            BACKLOG_EVERY_WAITING
        };
        let latest = now + BACKLOG_PAUSE_MAX;
        self.backlog = next_read(began, now, pause).min(latest);
        self.backlog_again = next_read(began, now, BACKLOG_AGAIN).min(latest);
    }

    /// The number of waiting rows has changed: it is counted as soon as the last count allows.
    pub(super) fn count_backlog_soon(&mut self) {
        self.backlog = self.backlog.min(self.backlog_again);
    }

    /// A gap scan ended.
    pub(super) fn gap_scanned(&mut self, began: Instant, now: Instant) {
        self.gap_scan = next_read(began, now, GAP_SCAN_EVERY);
    }

    /// A comparison of the schema ended.
    pub(super) fn schema_checked(&mut self, began: Instant, now: Instant) {
        self.schema_check = next_read(began, now, SCHEMA_CHECK_EVERY);
    }

    /// A purge of adopted tables ended.
    pub(super) fn purged(&mut self, began: Instant, now: Instant) {
        self.purge = next_read(began, now, PURGE_EVERY);
    }

    /// Problems with topics and keys were reported.
    pub(super) fn record_problems_reported(&mut self, now: Instant) {
        self.record_problems = now + RECORD_PROBLEMS_EVERY;
    }

    /// The brokers were asked for the leaders of partitions.
    pub(super) fn leaders_requested(&mut self, now: Instant) {
        self.leaders = now + LEADERS_EVERY;
    }

    /// Schedules the settling of `acked` rows. An earlier time that is set already stays.
    pub(super) fn schedule_settle(&mut self, acked: usize, now: Instant) {
        let latest = now + settle_delay(acked);
        self.settle = (acked > 0).then(|| self.settle.unwrap_or(latest).min(latest));
    }

    /// Starts no statement for a moment, after one failed.
    pub(super) fn pause_database(&mut self, now: Instant) {
        self.database = now + DATABASE_RETRY_PAUSE;
        // Rounds of the lease ignore `database`: their own time may be later, and stays so then.
        self.lease_round = self.lease_round.max(self.database);
    }
}

/// Longest time that this number of acknowledged rows waits for others.
fn settle_delay(acked: usize) -> Duration {
    if acked < SETTLE_ROWS {
        SETTLE_DELAY_MAX
    } else {
        SETTLE_DELAY_MANY
    }
}

/// When a read that has just ended may begin again: after `pause`, or later if it took long.
fn next_read(began: Instant, now: Instant, pause: Duration) -> Instant {
    now + pause.max((now - began) * READ_TIME_DIVISOR)
}

impl Session<'_> {
    /// When the loop has to turn although nothing happens: only for work that could begin then.
    pub(super) fn wake_at(&self) -> Instant {
        let (now, timers) = (Instant::now(), &self.timers);
        let may_begin_round = self.tasks.lease_round.is_idle();
        let has_reports = self.core.in_flight().sent() > 0;
        let [main, probe] = self.producers.wake_at();
        [
            // Only what could begin then: a time in the past would make the loop spin.
            Some(timers.lease_deadline),
            self.shutdown.as_ref().map(|shutdown| shutdown.until),
            may_begin_round.then_some(timers.lease_round),
            self.next_statement_at(),
            has_reports.then_some(timers.reports),
            self.core.next_resume_at(now),
            self.next_bell_at(now),
            main,
            probe,
        ]
        .into_iter()
        .flatten()
        .fold(now + TURN_EVERY, Instant::min)
    }

    /// When the next statement may begin, rounds of the lease left out.
    fn next_statement_at(&self) -> Option<Instant> {
        let (timers, tasks) = (&self.timers, &self.tasks);
        let is_working = !self.is_shutting_down();
        let may_fetch = is_working && self.producers.is_open();
        let may_read_backlog = is_working && tasks.backlog.is_idle();
        let may_scan = is_working && tasks.gap_scan.is_idle();
        let may_check = is_working && tasks.schema_check.is_idle();
        let may_tick = is_working && tasks.tick.is_idle() && self.core.needs_tick();
        [
            self.core.next_fetch_at().filter(|_| may_fetch),
            timers.settle.filter(|_| tasks.may_settle()),
            may_tick.then_some(timers.tick),
            may_read_backlog.then_some(timers.backlog),
            may_scan.then_some(timers.gap_scan),
            may_check.then_some(timers.schema_check),
            self.may_purge().then_some(timers.purge),
        ]
        .into_iter()
        .flatten()
        .min()
        .map(|at| at.max(timers.database))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backlog_is_read_as_often_as_it_changes_and_as_its_cost_allows() {
        let start = Instant::now();
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        for (took, oldest, soon, pause) in [
            (ms(1), s(0), false, s(5)),
            (ms(1), ms(999), false, s(5)),
            (ms(1), s(1), false, s(2)),
            (ms(1), s(0), true, s(1)),
            (ms(30), s(1), false, s(3)),
            (ms(30), s(0), true, s(3)),
            (ms(400), s(9), false, s(15)),
            (ms(400), s(9), true, s(15)),
        ] {
            let mut timers = Timers::new(start);
            timers.backlog_read(start, start + took, oldest);
            if soon {
                timers.count_backlog_soon();
            }
            let found = timers.backlog - (start + took);
            assert_eq!(found, pause, "{took:?} {oldest:?} {soon}");
        }
    }
}
