//! How much longer than next door a record may take before it counts as overdue: the brokers are
//! far away, mute a connection because of a quota, or have more to do. Measurements in, an
//! allowance out. Pure.

use std::time::{Duration, Instant};

use crate::relay::core::{recent_max::RecentMax, throttle::Throttle};

/// Round trips that a record may take beyond `slowAfter`. Connecting with TLS and a login, and
/// becoming a producer that the broker knows, takes about as many.
const ROUND_TRIPS: u32 = 12;
/// Longest round trip that counts as distance: a satellite is closer.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);
/// By this part a round trip becomes shorter at once, at most: one short answer says little.
const ROUND_TRIP_DECAY_DIVISOR: u32 = 8;
/// A record may take this many times as long as the slowest one that was acknowledged lately.
const DELIVERIES: u32 = 2;
/// For at least this long, and at most twice as long, a delivery is remembered.
const DELIVERY_REMEMBERED: Duration = Duration::from_secs(5);

/// What is known of the way to the brokers.
#[derive(Clone, Debug)]
pub struct Patience {
    round_trip: Duration,
    longest_delivery: RecentMax<Duration>,
}

impl Patience {
    /// Brokers next door, until something is measured.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            round_trip: Duration::ZERO,
            longest_delivery: RecentMax::new(DELIVERY_REMEMBERED, now),
        }
    }

    /// Round trip to the brokers, as it was last measured.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Records a measured round trip. Leave it out while requests are muted: it contains the wait.
    pub fn on_round_trip(&mut self, measured: Duration) {
        let decayed = self.round_trip - self.round_trip / ROUND_TRIP_DECAY_DIVISOR;
        self.round_trip = measured.min(ROUND_TRIP_MAX).max(decayed);
    }

    /// Records how long an acknowledged record took. Leave out one that was overdue: an outage that
    /// is over is no measure for the next one.
    pub fn on_delivery(&mut self, delivery: Duration, now: Instant) {
        self.longest_delivery.observe(delivery, now);
    }

    /// Forgets deliveries that are too old.
    pub fn forget_old(&mut self, now: Instant) {
        self.longest_delivery.forget_old(now);
    }

    /// What to add to a time without any acknowledgement.
    #[must_use]
    pub fn of_cluster(&self, throttle: &Throttle, now: Instant) -> Duration {
        self.round_trip * ROUND_TRIPS + throttle.delay(now)
    }

    /// What to add to the age of a record. Records wait for each other, and the cluster's time
    /// without an acknowledgement does not include that.
    #[must_use]
    pub fn of_record(&self, throttle: &Throttle, now: Instant) -> Duration {
        self.of_cluster(throttle, now) + self.longest_delivery.get() * DELIVERIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn distance_and_a_quota_and_slow_deliveries_each_allow_more_time() {
        for (round_trip, mute, delivery, of_cluster, of_record) in [
            (0, 0, 0, 0, 0),
            (1, 0, 4, 12, 20),
            (20, 0, 60, 240, 360),
            (100, 0, 250, 1_200, 1_700),
            (300, 0, 900, 3_600, 5_400),
            (20_000, 0, 0, 12_000, 12_000),
            (1, 3_000, 0, 6_012, 6_012),
            (100, 3_000, 5_000, 7_200, 17_200),
        ] {
            let now = Instant::now();
            let (mut patience, mut throttle) = (Patience::new(now), Throttle::default());
            patience.on_round_trip(ms(round_trip));
            patience.on_delivery(ms(delivery), now);
            throttle.on_statistics(ms(mute), now);
            assert_eq!(
                (
                    patience.of_cluster(&throttle, now),
                    patience.of_record(&throttle, now)
                ),
                (ms(of_cluster), ms(of_record)),
                "{round_trip} ms away, muted for {mute} ms, delivered in {delivery} ms"
            );
        }
    }

    #[test]
    fn a_round_trip_grows_at_once_and_shrinks_by_an_eighth() {
        let mut patience = Patience::new(Instant::now());
        for (measured, round_trip) in [(80, 80), (1, 70), (75, 75), (70, 70)] {
            patience.on_round_trip(ms(measured));
            assert_eq!(patience.round_trip(), ms(round_trip));
        }
    }

    #[test]
    fn a_slow_delivery_is_forgotten_after_some_seconds() {
        let start = Instant::now();
        let (mut patience, throttle) = (Patience::new(start), Throttle::default());
        patience.on_delivery(ms(700), start);
        for (second, allowed) in [(1, 1_400), (4, 1_400), (5, 1_400), (9, 1_400), (10, 0)] {
            let now = start + Duration::from_secs(second);
            patience.forget_old(now);
            assert_eq!(
                patience.of_record(&throttle, now),
                ms(allowed),
                "after {second} s"
            );
        }
    }
}
