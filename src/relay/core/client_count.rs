//! How many clients the main producer needs. Pure.
//!
//! librdkafka puts one partition into a request, and a client has at most five requests under way
//! at a broker. The number of requests that are under way at a time is their number in a second
//! times the time that each takes (Little's law), so the sum of these times within a window,
//! divided by the window, is that number. Nothing has to know the round trip.

use std::time::{Duration, Instant};

/// Most clients. Each has a connection to every broker and five threads.
const CLIENTS_MAX: usize = 8;
/// Requests that a client may have under way at a broker.
const REQUESTS_PER_CLIENT: u32 = 5;
/// Partitions for each client: fewer could not keep it busy.
const PARTITIONS_PER_CLIENT: usize = 3;
/// Time over which requests are counted.
const WINDOW: Duration = Duration::from_millis(250);
/// Longest time that counts for one request: a request that waits for a failed broker says nothing
/// about the round trip.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(1);
/// Time with few requests after which one client is enough.
const QUIET_FOR: Duration = Duration::from_secs(60);

/// Decides how many clients there should be, from the time that requests take.
#[derive(Clone, Debug)]
pub(crate) struct ClientCount {
    wanted: usize,
    began: Instant,
    /// Sum of the times of all requests that ended since `began`.
    request_time: Duration,
    /// What the last window needed. One window is not enough to grow: it may be a burst.
    needed_before: usize,
    /// Since when less than half of one client is needed.
    quiet_since: Option<Instant>,
}

impl ClientCount {
    /// One client.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            wanted: 1,
            began: now,
            request_time: Duration::ZERO,
            needed_before: 1,
            quiet_since: None,
        }
    }

    /// Records that a request was acknowledged this long after its records were handed over.
    pub(crate) fn on_request_ended(&mut self, took: Duration) {
        self.request_time += took.min(REQUEST_TIME_MAX);
    }

    /// Number of clients that there should be for this number of partitions.
    pub(crate) fn wanted(&mut self, partitions: usize, now: Instant) -> usize {
        let window = now.saturating_duration_since(self.began);
        if window >= WINDOW {
            let under_way = self.request_time.as_secs_f64() / window.as_secs_f64();
            (self.began, self.request_time) = (now, Duration::ZERO);
            self.end_window(under_way, now);
        }
        self.wanted.min(clients_max(partitions))
    }

    fn end_window(&mut self, under_way: f64, now: Instant) {
        let needed = clients_for(under_way);
        let lasting = needed.min(self.needed_before);
        self.needed_before = needed;
        self.wanted = self.wanted.max(lasting);
        self.quiet_since = is_quiet(under_way).then(|| self.quiet_since.unwrap_or(now));
        if self.has_been_quiet(now) {
            self.wanted = 1;
        }
    }

    fn has_been_quiet(&self, now: Instant) -> bool {
        self.quiet_since
            .is_some_and(|since| now.saturating_duration_since(since) >= QUIET_FOR)
    }
}

/// Most clients for this number of partitions.
fn clients_max(partitions: usize) -> usize {
    partitions
        .div_ceil(PARTITIONS_PER_CLIENT)
        .clamp(1, CLIENTS_MAX)
}

/// Requests that may be under way before another client is needed: three fifths of what one may
/// have at a broker, as if one broker led all partitions.
fn comfortable() -> f64 {
    f64::from(REQUESTS_PER_CLIENT) * 3.0 / 5.0
}

/// Clients for this mean number of requests under way.
fn clients_for(under_way: f64) -> usize {
    let needed = (under_way / comfortable()).ceil() as usize;
    needed.clamp(1, CLIENTS_MAX)
}

/// Whether one client would have twice the room that this number of requests needs.
fn is_quiet(under_way: f64) -> bool {
    under_way * 2.0 <= comfortable()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITIONS: usize = 120;

    /// Clients after each of some windows with this many requests that take this long each.
    fn clients(requests: u32, took_ms: u64, windows: u32) -> Vec<usize> {
        let start = Instant::now();
        let mut count = ClientCount::new(start);
        (1..=windows)
            .map(|window| {
                for _ in 0..requests {
                    count.on_request_ended(Duration::from_millis(took_ms));
                }
                count.wanted(PARTITIONS, start + WINDOW * window)
            })
            .collect()
    }

    #[test]
    fn clients_follow_the_number_of_requests_under_way() {
        for (requests_per_window, took_ms, expected) in [
            (0, 0, 1),
            (125, 1, 1),  // 500/s next door
            (125, 6, 1),  // 500/s over 6 ms: three requests
            (125, 7, 2),  // 3.5
            (250, 7, 3),  // 1,000/s over 7 ms
            (125, 20, 4), // 10
            (250, 20, 7), // 20
            (250, 100, 8),
            (1250, 1, 2), // 5,000/s next door
        ] {
            let clients = clients(requests_per_window, took_ms, 3);
            assert_eq!(
                clients,
                [1, expected, expected],
                "{requests_per_window} requests of {took_ms} ms: two windows in succession count"
            );
        }
    }

    #[test]
    fn a_single_burst_adds_no_client_and_an_outage_counts_for_one_second() {
        let start = Instant::now();
        let mut count = ClientCount::new(start);
        count.on_request_ended(Duration::from_secs(600));
        assert_eq!(count.wanted(PARTITIONS, start + WINDOW), 1);
        assert_eq!(count.needed_before, 2, "one second of a quarter: four");
        assert_eq!(count.wanted(PARTITIONS, start + WINDOW * 2), 1);
    }

    #[test]
    fn few_partitions_need_few_clients() {
        for (partitions, expected) in [(0, 1), (1, 1), (3, 1), (4, 2), (12, 4), (24, 8), (1200, 8)]
        {
            assert_eq!(clients_max(partitions), expected, "{partitions}");
        }
    }

    #[test]
    fn one_client_is_left_after_a_minute_with_few_requests_and_not_before() {
        let start = Instant::now();
        let mut count = ClientCount::new(start);
        let busy = |count: &mut ClientCount| {
            (0..100).for_each(|_| count.on_request_ended(Duration::from_millis(25)));
        };
        for window in 1..=2 {
            busy(&mut count);
            count.wanted(PARTITIONS, start + WINDOW * window);
        }
        let quiet_from = start + WINDOW * 3;
        for (after, expected) in [
            (Duration::ZERO, 4),
            (QUIET_FOR.mul_f64(0.5), 4),
            (QUIET_FOR - WINDOW, 4),
            (QUIET_FOR, 1),
        ] {
            assert_eq!(
                count.wanted(PARTITIONS, quiet_from + after),
                expected,
                "{after:?}"
            );
        }
        busy(&mut count);
        count.wanted(PARTITIONS, quiet_from + QUIET_FOR + WINDOW);
        assert_eq!(count.quiet_since, None, "it is busy again");
    }
}
