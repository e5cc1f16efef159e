//! How often the loop does what, and when it has to turn although nothing happens.

use std::time::{Duration, Instant};

use crate::relay::{
    core::lane_share::RENEW_EVERY,
    session::{Sending, Session},
};

/// An acknowledged row waits at most this long for others to be settled with: each statement is a
/// commit that waits for the disk.
const SETTLE_WITHIN: Duration = Duration::from_millis(20);
/// With so many others it waits at most this long, since until they are gone every fetch reads them
/// again.
const SETTLE_ROWS: usize = 32;
const SETTLE_SOON: Duration = Duration::from_millis(5);
/// Settling statements under way at the same time.
pub(super) const SETTLES_MAX: usize = 2;
/// While rows flow and nothing else brings a tick.
pub(super) const TICK_EVERY: Duration = Duration::from_millis(50);
/// Reports are looked at whenever the loop turns, and while records are out at least this often.
pub(super) const REPORTS_EVERY: Duration = Duration::from_millis(5);
/// How often a new session looks whether the brokers have been heard.
pub(super) const FIRST_NEWS: Duration = Duration::from_millis(50);
pub(super) const BACKLOG_EVERY: Duration = Duration::from_secs(5);
/// As often as the operator asks.
pub(super) const BACKLOG_AT_LATEST: Duration = Duration::from_secs(15);
pub(super) const BACKLOG_ROWS_MAX: u32 = 100_000;
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// After a failure of the database.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(500);
/// For the threads of a producer that nobody needs any more.
pub(super) const DESTROY_MAX: Duration = Duration::from_secs(2);
/// On SIGTERM, for what is in flight.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(20);
/// The same when the sequence broke: less than the lease still lasts, for it is not renewed.
pub(super) const DRAIN_BROKEN_MAX: Duration = Duration::from_secs(5);

/// What is done when, besides being driven by events.
pub(super) struct Timers {
    pub(super) reports: Instant,
    pub(super) lease: Instant,
    pub(super) renew: Instant,
    pub(super) tick: Instant,
    pub(super) backlog: Instant,
    pub(super) gap_scan: Instant,
    pub(super) topics: Instant,
    pub(super) leaders: Instant,
    pub(super) settle: Option<Instant>,
    pub(super) database: Instant,
}

impl Timers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            reports: now,
            lease: now,
            renew: now + RENEW_EVERY,
            tick: now,
            backlog: now,
            gap_scan: now + SWEEP_EVERY,
            topics: now,
            leaders: now,
            settle: None,
            database: now,
        }
    }
}

/// When so many acknowledged rows are settled at the latest, if nobody thought of a time before or
/// of this one.
pub(super) fn settle_at(before: Option<Instant>, acked: usize, now: Instant) -> Option<Instant> {
    let within = if acked < SETTLE_ROWS {
        SETTLE_WITHIN
    } else {
        SETTLE_SOON
    };
    (acked > 0).then(|| before.map_or(now + within, |at| at.min(now + within)))
}

impl Session<'_> {
    /// When the loop has to turn although nothing happens: only for work that could start then.
    pub(super) fn next_wake(&self) -> Instant {
        let (now, timers) = (Instant::now(), &self.timers);
        let works = self.stop_by.is_none();
        let may_fetch = works && matches!(self.sending, Sending::Open(_));
        let database = |at: Instant| at.max(timers.database);
        [
            Some(self.deadline),
            self.stop_by,
            self.lease.is_none().then_some(timers.lease),
            may_fetch
                .then(|| self.core.next_fetch_at())
                .flatten()
                .map(database),
            (self.settles.len() < SETTLES_MAX)
                .then_some(timers.settle)
                .flatten()
                .map(database),
            (self.core.in_flight().sent() > 0).then_some(timers.reports),
            (works && self.tick.is_none() && self.core.needs_tick()).then(|| database(timers.tick)),
            (works && self.backlog.is_none()).then(|| database(timers.backlog)),
            (works && self.gap_scan.is_none()).then(|| database(timers.gap_scan)),
            self.core.next_resume_at(now),
            self.trial_by,
            match &self.sending {
                Sending::None { retry_at } => works.then_some(*retry_at),
                Sending::Flushing(_, by) => Some(*by),
                Sending::Open(_) | Sending::Retiring(_) => None,
            },
        ]
        .into_iter()
        .flatten()
        .fold(now + Duration::from_secs(1), Instant::min)
    }
}
