//! An hour of load against a model of relays, table and Kafka. `cargo test an_hour_of_load --
//! --nocapture` prints the curve.

use super::*;
use crate::operator::fixtures::at;

const STEP_SECONDS: i64 = 15;
const POD_START_SECONDS: i64 = 6;
const RELAY_ROWS_PER_SECOND: i64 = 500;
const SINK_ROWS_PER_SECOND: i64 = 1_000_000;

/// What happens in a second.
#[derive(Clone, Copy)]
struct Weather {
    written: i64,
    sink: i64,
    reported: bool,
}

fn weather(second: i64) -> Weather {
    let calm = Weather {
        written: 100,
        sink: SINK_ROWS_PER_SECOND,
        reported: true,
    };
    match second {
        300..700 => Weather {
            written: 100 + (second - 300) * 5,
            ..calm
        },
        700..1300 => Weather {
            written: 2100,
            ..calm
        },
        1700 => Weather {
            written: 300_000,
            ..calm
        },
        2150..2350 => Weather {
            written: 700,
            sink: 0,
            ..calm
        },
        2800..2900 => Weather {
            written: 1500,
            reported: false,
            ..calm
        },
        2900..2950 => Weather {
            written: 1500,
            ..calm
        },
        3300..3600 => Weather {
            written: 1000,
            sink: 400,
            ..calm
        },
        _ => calm,
    }
}

struct World {
    /// When they were written, and how many.
    waiting: VecDeque<(i64, i64)>,
    published: VecDeque<i64>,
    /// Since when each relay exists.
    relays: Vec<i64>,
    memory: ScalingMemory,
}

/// One reconciliation.
#[derive(Clone, Copy, Debug)]
struct Point {
    second: i64,
    rows: i64,
    relays: i32,
    reason: Reason,
}

impl World {
    fn rows(&self) -> i64 {
        self.waiting.iter().map(|(_, rows)| rows).sum()
    }

    fn running(&self, second: i64) -> i64 {
        self.relays
            .iter()
            .filter(|since| second - **since >= POD_START_SECONDS)
            .count() as i64
    }

    fn live_through(&mut self, second: i64) {
        let weather = weather(second);
        self.waiting.push_back((second, weather.written));
        let published = (self.running(second) * RELAY_ROWS_PER_SECOND)
            .min(weather.sink)
            .min(self.rows());
        let mut left = published;
        while let Some((_, rows)) = self.waiting.front_mut() {
            let gone = left.min(*rows);
            (*rows, left) = (*rows - gone, left - gone);
            if *rows > 0 {
                break;
            }
            self.waiting.pop_front();
        }
        self.published.push_back(published);
        if self.published.len() > 10 {
            self.published.pop_front();
        }
    }

    fn decide_at(&mut self, second: i64) -> Point {
        let weather = weather(second);
        let load = Load {
            rows: self.rows(),
            oldest_age: SignedDuration::from_secs(
                self.waiting
                    .front()
                    .map_or(0, |(written, _)| second - written),
            ),
            published_per_second: self.published.iter().sum::<i64>() as f64 / 10.0,
            breaker_open: weather.sink == 0,
        };
        let inputs = ScaleInputs {
            count: self.relays.len() as i32,
            available: self.running(second) as i32,
            load: weather.reported.then_some(load),
        };
        let (oldest_age, stabilization) =
            (SignedDuration::from_secs(5), SignedDuration::from_secs(300));
        let policy = ScalingPolicy {
            min: 1,
            max: 16,
            rows_per_relay: 10_000,
            oldest_age,
            stabilization,
        };
        let (decision, memory) = decide(&policy, &inputs, &self.memory, at(second));
        self.memory = memory;
        self.relays.resize(decision.to as usize, second);
        Point {
            second,
            rows: load.rows,
            relays: decision.to,
            reason: decision.reason,
        }
    }
}

fn hour() -> Vec<Point> {
    let mut world = World {
        waiting: VecDeque::new(),
        published: VecDeque::new(),
        relays: vec![-100],
        memory: ScalingMemory::default(),
    };
    let mut curve = Vec::new();
    for second in 0..3600 {
        world.live_through(second);
        if second % STEP_SECONDS == 0 {
            curve.push(world.decide_at(second));
        }
    }
    curve
}

#[test]
fn an_hour_of_load_is_followed_up_and_down() {
    let curve = hour();
    for point in curve.iter().filter(|point| point.second % 60 == 0) {
        let bar = "#".repeat(point.relays as usize);
        eprintln!(
            "{:>4} min {:>7} rows {:>2} {bar:<16} {:?}",
            point.second / 60,
            point.rows,
            point.relays,
            point.reason
        );
    }
    let between = |from: i64, to: i64| {
        curve
            .iter()
            .filter(move |point| (from..to).contains(&point.second))
    };
    let most = |from, to| {
        between(from, to)
            .map(|point| point.relays)
            .max()
            .expect("a reconciliation")
    };
    let last = |from, to| {
        between(from, to)
            .next_back()
            .expect("a reconciliation")
            .relays
    };

    assert_eq!(most(0, 300), 1, "calm needs one");
    assert!(
        most(300, 750) >= 5,
        "2,100 rows a second need five relays of 500"
    );
    assert!(
        between(800, 1300).all(|point| point.rows < 20_000 && point.relays >= 5),
        "a steady load keeps what carries it"
    );
    assert_eq!(last(1300, 1700), 1, "and they go when it has gone");
    assert!(most(1700, 1800) >= 8, "a burst is met within 100 s");
    assert_eq!(last(1800, 2150), 1);

    assert!(
        between(2150, 2350).all(|point| point.relays == 1),
        "an outage adds nothing"
    );
    assert!(
        between(2200, 2350).any(|point| point.reason == Reason::BreakerOpen),
        "and the reason shows it"
    );
    assert!(
        most(2350, 2450) > 1,
        "what piled up is taken away afterwards"
    );
    assert_eq!(last(2450, 2800), 1);

    assert!(
        between(2800, 2900)
            .all(|point| point.relays == 1 && point.reason == Reason::ReportsIncomplete),
        "the unknown changes nothing"
    );
    assert!(most(2900, 3000) > 1);

    assert!(
        most(3300, 3600) <= last(3200, 3300) * 2,
        "a sink that takes no more gets one step"
    );
    assert_eq!(
        curve.last().expect("a reconciliation").reason,
        Reason::ThroughputFlat,
        "and the reason shows it"
    );
    for pair in curve.windows(2) {
        assert!(
            pair[1].relays <= pair[0].relays * 2,
            "at most to the double: {pair:?}"
        );
    }
}
