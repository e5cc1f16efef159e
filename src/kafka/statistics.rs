//! librdkafka's statistics -> how far away the brokers are, and for how long they hold requests
//! back. Clients that share a [`Statistics`] add to it, and the relay takes the sum.
//!
//! A quota of the brokers does not fail a request. The broker answers it, and then reads nothing
//! more from that connection for a while: it mutes the connection, for the throttle time that its
//! answer reports.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;

/// What clients measured of the brokers since it was last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerTimes {
    /// Shortest round trip to the broker that is farthest away; `None` if no broker answered.
    pub round_trip: Option<Duration>,
    /// Longest time for which a broker mutes a connection because of a quota; zero without one.
    pub throttle: Duration,
}

impl BrokerTimes {
    fn merge(self, other: Self) -> Self {
        Self {
            round_trip: self.round_trip.max(other.round_trip),
            throttle: self.throttle.max(other.throttle),
        }
    }
}

/// Statistics of all clients that share it. Clones share the same value.
#[derive(Clone, Debug, Default)]
pub struct Statistics(Arc<Mutex<Option<BrokerTimes>>>);

impl Statistics {
    /// What was added since the last call; `None` if nothing was.
    #[must_use]
    pub fn take(&self) -> Option<BrokerTimes> {
        self.lock().take()
    }

    /// Adds what one client reports, as JSON. A text of another form is ignored.
    pub(super) fn add(&self, json: &[u8]) {
        if let Some(times) = parse(json) {
            let mut all = self.lock();
            *all = Some(all.unwrap_or_default().merge(times));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<BrokerTimes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What follows the brokers in librdkafka's JSON: several times as long, and not used.
const AFTER_BROKERS: &[u8] = br#", "topics":"#;

/// The part of librdkafka's JSON that is used.
#[derive(Deserialize)]
struct Client<'a> {
    #[serde(borrow)]
    brokers: HashMap<&'a str, Broker>,
}

#[derive(Deserialize)]
struct Broker {
    /// In microseconds.
    rtt: Window,
    /// In milliseconds. Only answers with a throttle time count.
    throttle: Window,
}

/// Values since the last statistics; all are zero if there was none.
#[derive(Deserialize)]
struct Window {
    min: u64,
    max: u64,
    cnt: u64,
}

impl Broker {
    fn times(&self) -> BrokerTimes {
        BrokerTimes {
            round_trip: (self.rtt.cnt > 0).then(|| Duration::from_micros(self.rtt.min)),
            throttle: Duration::from_millis(self.throttle.max),
        }
    }
}

fn parse(json: &[u8]) -> Option<BrokerTimes> {
    let mut brokers = without_topics(json).to_vec();
    brokers.push(b'}');
    let client: Client<'_> = serde_json::from_slice(&brokers).ok()?;
    let brokers = client.brokers.values().map(Broker::times);
    Some(brokers.fold(BrokerTimes::default(), BrokerTimes::merge))
}

/// The JSON object as far as the end of its brokers.
fn without_topics(json: &[u8]) -> &[u8] {
    let mut windows = json.windows(AFTER_BROKERS.len());
    let end = windows.position(|window| window == AFTER_BROKERS);
    &json[..end.unwrap_or(json.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Statistics of a client with two brokers, cut to a few of the fields of librdkafka 2.12.
    fn json(rtt: [(u64, u64); 2], throttle: [(u64, u64); 2]) -> String {
        let window = |(value, cnt)| {
            format!(
                r#"{{ "min":{value}, "max":{value}, "avg":{value}, "p50":{value}, "cnt":{cnt} }}"#
            )
        };
        let broker = |at: usize| {
            format!(
                r#""127.0.0.1:{at}/{at}": {{ "name":"b", "nodeid":{at}, "int_latency": {}, "rtt": {},
                "throttle": {}, "toppars":{{ "t-0": {{ "topic":"t", "partition":0}} }} }}"#,
                window((7, 7)),
                window(rtt[at]),
                window(throttle[at])
            )
        };
        format!(
            r#"{{ "name": "c", "ts":1, "brokers":{{ {}, {} }}, "topics":{{ "t": {{ "age":1 }} }} }}"#,
            broker(0),
            broker(1)
        )
    }

    #[test]
    fn the_broker_that_is_farthest_away_and_the_longest_throttle_time_count() {
        for (rtt, throttle, round_trip_us, throttle_ms) in [
            ([(0, 0), (0, 0)], [(0, 0), (0, 0)], None, 0),
            ([(900, 4), (20_100, 2)], [(0, 0), (0, 0)], Some(20_100), 0),
            ([(900, 4), (0, 0)], [(40, 1), (2_300, 3)], Some(900), 2_300),
        ] {
            assert_eq!(
                parse(json(rtt, throttle).as_bytes()),
                Some(BrokerTimes {
                    round_trip: round_trip_us.map(Duration::from_micros),
                    throttle: Duration::from_millis(throttle_ms),
                })
            );
        }
    }

    #[test]
    fn clients_add_up_until_they_are_taken() {
        let statistics = Statistics::default();
        assert_eq!(statistics.take(), None);
        statistics.add(json([(900, 1), (800, 1)], [(0, 0), (5_000, 1)]).as_bytes());
        statistics.add(json([(0, 0), (6_000, 1)], [(0, 0), (0, 0)]).as_bytes());
        statistics.add(b"not JSON");
        assert_eq!(
            statistics.take(),
            Some(BrokerTimes {
                round_trip: Some(Duration::from_millis(6)),
                throttle: Duration::from_secs(5),
            })
        );
        assert_eq!(statistics.take(), None);
    }
}
