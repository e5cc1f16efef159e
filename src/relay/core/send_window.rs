//! How much may be with the producers, so that a quota of the brokers mutes no request for long:
//! 1 MB at 20 kB/s would mute for 50 s. The window begins small, grows as it is used, and shrinks
//! by what the brokers report. Pure.
//!
//! A broker counts bytes over ten seconds. It acknowledges a request, and mutes the connection
//! until the mean is within the quota again. So the length of a mute is what was sent, divided by
//! the quota: twice as long as it should be means a window that is twice as large as it should be.

use std::time::{Duration, Instant};

use crate::relay::core::{fair_share::Amount, in_flight::Budget, recent_max::RecentMax};

/// Bytes that may be with the producers at first.
const BYTES_AT_FIRST: usize = 64 << 10;
/// Least bytes that may be with the producers, whatever the brokers report.
const BYTES_MIN: usize = 4 << 10;
/// The window grows by this part each time that as many bytes were acknowledged. If it doubled, it
/// would reach a quota with ten seconds' worth of bytes.
const GROWTH_DIVISOR: usize = 4;
/// Part of the window that must be with the producers for it to count as used.
const USED_DIVISOR: usize = 2;
/// A longer mute shrinks the window.
const MUTE_MAX: Duration = Duration::from_secs(2);
/// Length of mutes that a smaller window aims at. Longer ones keep it from growing.
const MUTE_AIM: Duration = Duration::from_secs(1);
/// Time without such a mute after which the window grows again.
const GROWS_AFTER: Duration = Duration::from_secs(3);
/// For at least this long, it is remembered how much of the window was used.
const USE_REMEMBERED: Duration = Duration::from_secs(15);
/// Size of a row in bytes that is assumed before the first one.
const ROW_BYTES_AT_FIRST: usize = 1 << 10;
/// Weight of one row in the mean size: one in this many.
const ROW_BYTES_DIVISOR: usize = 16;

/// How much may be with the producers.
#[derive(Clone, Debug)]
pub(super) struct SendWindow {
    budget: Amount,
    bytes: usize,
    /// What the producers have.
    sent: Amount,
    /// Bytes that were acknowledged while the window was used, since it last grew.
    acknowledged: usize,
    /// Bytes with the producers.
    used: RecentMax<usize>,
    /// Mean size of rows, in bytes.
    row_bytes: usize,
    grows_at: Option<Instant>,
    /// What was sent before the window shrank is muted until then.
    shrinks_at: Option<Instant>,
}

impl SendWindow {
    /// A small window that may grow to the whole budget.
    pub(super) fn new(budget: Budget, now: Instant) -> Self {
        Self {
            budget: Amount {
                rows: budget.rows,
                bytes: budget.bytes,
            },
            bytes: BYTES_AT_FIRST.min(budget.bytes),
            sent: Amount::default(),
            acknowledged: 0,
            used: RecentMax::new(USE_REMEMBERED, now),
            row_bytes: ROW_BYTES_AT_FIRST,
            grows_at: None,
            shrinks_at: None,
        }
    }

    /// Most that may be with the producers now.
    pub(super) fn limit(&self) -> Amount {
        if self.bytes >= self.budget.bytes {
            return self.budget;
        }
        let rows = (self.bytes / self.row_bytes.max(1)).max(1);
        Amount {
            rows: rows.min(self.budget.rows),
            bytes: self.bytes,
        }
    }

    /// What may go to the producers now, beside what they have. What `paused` topics have with them
    /// may stay there without end, so it takes no room from the others.
    pub(super) fn room(&self, paused: Amount) -> Amount {
        self.limit().without(self.sent.without(paused))
    }

    /// Records that a row of `bytes` goes to a producer.
    pub(super) fn on_sent(&mut self, bytes: usize, now: Instant) {
        // A row that is sent alone counts no bytes.
        if bytes > 0 {
            let kept = self.row_bytes - self.row_bytes / ROW_BYTES_DIVISOR;
            self.row_bytes = kept + bytes / ROW_BYTES_DIVISOR;
        }
        self.sent.rows += 1;
        self.sent.bytes += bytes;
        self.used.observe(self.sent.bytes, now);
    }

    /// Records that a row of `bytes` was acknowledged.
    pub(super) fn on_acknowledged(&mut self, bytes: usize, now: Instant) {
        if self.may_grow(now) {
            self.acknowledged += bytes;
        }
        if self.acknowledged >= self.bytes {
            self.acknowledged = 0;
            self.bytes = (self.bytes + self.bytes / GROWTH_DIVISOR).min(self.budget.bytes);
        }
        self.on_ended(bytes);
    }

    /// Records that a row of `bytes` is with a producer no longer.
    pub(super) fn on_ended(&mut self, bytes: usize) {
        self.sent = self.sent.without(Amount { rows: 1, bytes });
    }

    /// Whether the window is used, may be larger, and no long mute was reported for a while.
    fn may_grow(&self, now: Instant) -> bool {
        self.bytes < self.budget.bytes
            && self.sent.bytes >= self.bytes / USED_DIVISOR
            && self.grows_at.is_none_or(|at| at <= now)
    }

    /// Takes the longest throttle time since the last statistics; zero if there was none.
    pub(super) fn on_statistics(&mut self, mute: Duration, now: Instant) {
        if mute >= MUTE_AIM {
            self.grows_at = Some(now + GROWS_AFTER);
            self.acknowledged = 0;
        }
        if mute >= MUTE_MAX && self.shrinks_at.is_none_or(|at| at <= now) {
            self.shrink(mute);
            self.shrinks_at = Some(now + mute);
        }
    }

    /// Makes the window so small that it would have been muted for [`MUTE_AIM`].
    fn shrink(&mut self, mute: Duration) {
        let sent = self.bytes.min(self.used.get());
        let aimed_at = sent as f64 * MUTE_AIM.div_duration_f64(mute);
        self.bytes = (aimed_at as usize).max(BYTES_MIN).min(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget {
        rows: 16_384,
        bytes: 64 << 20,
        rows_per_lane: 2_048,
    };

    /// A broker with a quota, as Kafka applies it: the mean over ten seconds. All that is sent at a
    /// time is one request, and the next one begins when the connection is not muted any more.
    struct Broker {
        bytes_per_second: f64,
        now: f64,
        requests: Vec<(f64, usize)>,
    }

    impl Broker {
        fn new(bytes_per_second: usize) -> Self {
            Self {
                bytes_per_second: bytes_per_second as f64,
                now: 0.0,
                requests: Vec::new(),
            }
        }

        /// Writes a request. Returns the seconds for which the connection is muted.
        fn write(&mut self, bytes: usize) -> f64 {
            self.requests.push((self.now, bytes));
            self.requests.retain(|(at, _)| *at > self.now - 10.0);
            let all: usize = self.requests.iter().map(|(_, bytes)| bytes).sum();
            let mute = (all as f64 / self.bytes_per_second - 10.0).max(0.0);
            self.now += mute.max(0.01);
            mute
        }
    }

    /// Sends rows of this size until a broker's clock has reached `seconds`. Returns the mutes in
    /// seconds, and the bytes that were sent.
    fn send(broker: &mut Broker, row: usize, seconds: f64) -> (Vec<f64>, usize) {
        let start = Instant::now();
        let (mut window, mut mutes, mut sent) = (SendWindow::new(BUDGET, start), Vec::new(), 0);
        while broker.now < seconds {
            let now = start + Duration::from_secs_f64(broker.now);
            let rows = fill(&mut window, row, now);
            (0..rows).for_each(|_| window.on_acknowledged(row, now));
            let mute = broker.write(rows * row);
            window.on_statistics(Duration::from_secs_f64(mute), now);
            mutes.push(mute);
            sent += rows * row;
        }
        (mutes, sent)
    }

    /// Fills a window with rows of this size. Returns how many.
    fn fill(window: &mut SendWindow, row: usize, now: Instant) -> usize {
        let mut rows = 0;
        while window.room(Amount::default()).rows > 0 && window.room(Amount::default()).bytes > 0 {
            window.on_sent(row, now);
            rows += 1;
        }
        rows
    }

    fn longest(mutes: &[f64]) -> f64 {
        mutes.iter().copied().fold(0.0, f64::max)
    }

    #[test]
    fn under_a_quota_no_request_is_muted_for_more_than_a_few_seconds() {
        for (quota, row) in [
            (20_000, 2_000),
            (50_000, 300),
            (50_000, 10_000),
            (1_000_000, 300),
        ] {
            let mut broker = Broker::new(quota);
            let (mutes, sent) = send(&mut broker, row, 200.0);
            let all = longest(&mutes);
            assert!(all < 7.0, "{all} s at {quota} bytes/s");
            let late = longest(&mutes[mutes.len() / 2..]);
            assert!(late <= 3.0, "{late} s at {quota} bytes/s in the end");
            let share = sent as f64 / quota as f64 / broker.now;
            assert!(share > 0.9, "{share} of {quota} bytes/s are used");
        }
    }

    /// What is acknowledged while less than half of the window is used does not count, so a growth
    /// takes more than two of these round trips.
    #[test]
    fn without_a_quota_the_window_is_large_after_some_round_trips() {
        let now = Instant::now();
        let mut window = SendWindow::new(BUDGET, now);
        for _ in 0..60 {
            let rows = fill(&mut window, 300, now);
            (0..rows).for_each(|_| window.on_acknowledged(300, now));
        }
        assert!(window.limit().bytes > 5 << 20, "{:?}", window.limit());
    }

    #[test]
    fn the_window_grows_to_the_whole_budget() {
        let now = Instant::now();
        let mut window = SendWindow::new(BUDGET, now);
        while window.limit().bytes < BUDGET.bytes {
            let rows = fill(&mut window, 100_000, now);
            (0..rows).for_each(|_| window.on_acknowledged(100_000, now));
        }
        assert_eq!(window.limit().rows, BUDGET.rows);
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let now = Instant::now();
        let mut window = SendWindow::new(BUDGET, now);
        for _ in 0..10_000 {
            window.on_sent(1_000, now);
            window.on_acknowledged(1_000, now);
        }
        assert_eq!(window.limit().bytes, BYTES_AT_FIRST);
        assert!((60..=75).contains(&window.limit().rows), "of 1 kB each");
    }

    #[test]
    fn a_row_that_was_not_acknowledged_makes_room_too() {
        let now = Instant::now();
        let mut window = SendWindow::new(BUDGET, now);
        let before = window.room(Amount::default()).bytes;
        window.on_sent(1_000, now);
        assert_eq!(window.room(Amount::default()).bytes, before - 1_000);
        window.on_ended(1_000);
        assert_eq!(window.room(Amount::default()).bytes, before);
    }

    /// A quota that is set while the window is large, and little is sent.
    #[test]
    fn what_shrinks_is_what_was_used() {
        let (mut window, now) = (SendWindow::new(BUDGET, Instant::now()), Instant::now());
        window.bytes = BUDGET.bytes;
        window.on_sent(1_000_000, now);
        window.on_statistics(Duration::from_secs(50), now);
        assert_eq!(window.limit().bytes, 20_000);
        window.on_statistics(Duration::from_secs(40), now + Duration::from_secs(9));
        assert_eq!(window.limit().bytes, 20_000, "it was sent before");
    }

    #[test]
    fn a_single_row_always_fits() {
        let (mut window, now) = (SendWindow::new(BUDGET, Instant::now()), Instant::now());
        for _ in 0..100 {
            window.on_sent(900_000, now);
        }
        window.on_statistics(Duration::from_secs(3_600), now);
        assert_eq!((window.limit().rows, window.limit().bytes), (1, BYTES_MIN));
    }
}
