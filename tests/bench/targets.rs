//! Targets for the medians of a run. Pure.

use std::fmt;

use serde_json::{Value, json};

use super::{
    Cli,
    contender::Contender::{self, BareLoop, Debezium, Poller, Relay},
    grid::{Point, all_points, drain_name},
    measurements::{Drain, Measurement},
    results::Results,
};

/// A figure or a ratio of two figures, with its bound.
pub(crate) struct Target {
    name: String,
    value: f64,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}
use Bound::{AtLeast, AtMost};

impl Target {
    fn holds(&self) -> bool {
        match self.bound {
            AtLeast(bound) => self.value >= bound,
            AtMost(bound) => self.value <= bound,
        }
    }

    pub(crate) fn json(&self) -> Value {
        let (kind, bound) = match self.bound {
            AtLeast(bound) => ("at_least", bound),
            AtMost(bound) => ("at_most", bound),
        };
        json!({ "target": self.name, "is": self.value, kind: bound, "holds": self.holds() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, bound) = match self.bound {
            AtLeast(bound) => (">=", bound),
            AtMost(bound) => ("<=", bound),
        };
        write!(
            f,
            "{:<74} {:>9.3} {sign} {bound:<7} {}",
            self.name,
            self.value,
            if self.holds() { "met" } else { "MISSED" }
        )
    }
}

/// Evaluates all targets whose figures were measured.
pub(crate) fn evaluate(results: &Results, rows: u64, bytes: usize) -> Vec<Target> {
    let drain = |contender| Drain::of(contender, rows, bytes);
    let of = |measurement: Measurement, figure| results.median(&measurement.name(), figure);
    let rate = |drain: Drain| of(Measurement::Drain(drain), "rows_per_second");
    let ours = |figure| of(Measurement::Drain(drain(Relay)), figure);
    let steady = |rate, figure| {
        of(
            Measurement::Steady {
                contender: Relay,
                rate,
                seconds: 0,
                pinned: false,
            },
            figure,
        )
    };
    let writers = |beside| of(Measurement::Writers(beside), "rows_per_second");
    let idle = |figure| of(Measurement::Idle, figure);
    let relay = rate(drain(Relay));
    let targets = [
        (
            "drain, times Debezium's",
            ratio(relay, rate(drain(Debezium))),
            AtLeast(4.5),
        ),
        (
            "drain, times the polling worker's",
            ratio(relay, rate(drain(Poller))),
            AtLeast(15.0),
        ),
        (
            "drain, part of the bare loop's",
            ratio(relay, rate(drain(BareLoop))),
            AtLeast(0.85),
        ),
        (
            "drain with the horizon pinned, part of the one without",
            ratio(rate(drain(Relay).pinned()), relay),
            AtLeast(0.95),
        ),
        (
            "drain: CPU of the relay, us a row",
            ours("cpu_us_per_row"),
            AtMost(6.0),
        ),
        (
            "drain: RSS of the relay, MiB",
            ours("rss_mib"),
            AtMost(64.0),
        ),
        ("1,000 rows/s: p50, ms", steady(1000, "p50_ms"), AtMost(5.0)),
        (
            "1,000 rows/s: p99, ms",
            steady(1000, "p99_ms"),
            AtMost(15.0),
        ),
        (
            "1,000 rows/s: CPU of the relay, cores",
            steady(1000, "cores"),
            AtMost(0.06),
        ),
        (
            "5,000 rows/s: p99, ms",
            steady(5000, "p99_ms"),
            AtMost(25.0),
        ),
        (
            "writers beside a relay, part of their rate alone",
            ratio(writers(Some(Relay)), writers(None)),
            AtLeast(0.95),
        ),
        ("idle: CPU of the relay, cores", idle("cores"), AtMost(0.01)),
        (
            "idle: transactions a second",
            idle("transactions_per_second"),
            AtMost(100.0),
        ),
    ];
    targets
        .into_iter()
        .filter_map(|(name, value, bound)| {
            Some(Target {
                name: name.to_owned(),
                value: value?,
                bound,
            })
        })
        .collect()
}

fn ratio(of: Option<f64>, to: Option<f64>) -> Option<f64> {
    Some(of? / to?)
}

/// Partitions, and bytes of a payload, of the targets over a network.
const PARTITIONS: i32 = 120;
const BYTES: usize = 300;
/// Highest rate of the targets over a network, in rows per second.
const RATE_MAX: u64 = 1000;

/// Targets of `--grid` whose figures were measured.
pub(crate) fn of_grid(cli: &Cli, results: &Results) -> Vec<Target> {
    let points: Vec<Point> = all_points(cli)
        .into_iter()
        .filter(|point| point.bytes == BYTES)
        .collect();
    let mut all = Vec::new();
    for point in &points {
        all.extend(latency(results, point));
        all.extend(beside_peers(results, point));
        all.extend(growth(results, point));
    }
    for partitions in &cli.partitions {
        for round_trip_ms in &cli.round_trips {
            all.extend(distant_drain(results, *partitions, *round_trip_ms));
        }
    }
    let rss = points
        .iter()
        .filter_map(|point| results.median(&point.name(Relay), "rss_mib"))
        .reduce(f64::max);
    all.extend(target("RSS of the relay at most, MiB", rss, AtMost(64.0)));
    all
}

fn target(name: impl Into<String>, value: Option<f64>, bound: Bound) -> Option<Target> {
    let (name, value) = (name.into(), value?);
    Some(Target { name, value, bound })
}

/// Bounds of p50 and p99 in milliseconds, where there are any.
fn latency(results: &Results, point: &Point) -> Vec<Target> {
    let bounds = match (point.rate, point.round_trip_ms, point.partitions) {
        (20, 0.0, _) => (4.0, 15.0),
        (500 | 1000, 6.0, PARTITIONS) => (10.0, 30.0),
        (500 | 1000, 20.0, PARTITIONS) => (18.0, 40.0),
        _ => return Vec::new(),
    };
    let of = |figure| results.median(&point.name(Relay), figure);
    [
        target(format!("{point}: p50, ms"), of("p50_ms"), AtMost(bounds.0)),
        target(format!("{point}: p99, ms"), of("p99_ms"), AtMost(bounds.1)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// At all points the relay is faster than its peers. At high rates PostgreSQL has no more work than
/// beside Debezium.
fn beside_peers(results: &Results, point: &Point) -> Vec<Target> {
    let part = |figure, peer: Contender| {
        let of = |contender| results.median(&point.name(contender), figure);
        ratio(of(Relay), of(peer))
    };
    let mut all = Vec::new();
    for (peer, figure, name) in [
        (Debezium, "p50_ms", "p50, part of Debezium's"),
        (Debezium, "p99_ms", "p99, part of Debezium's"),
        (Poller, "p50_ms", "p50, part of the polling worker's"),
        (Poller, "p99_ms", "p99, part of the polling worker's"),
    ] {
        let value = part(figure, peer);
        all.extend(target(format!("{point}: {name}"), value, AtMost(1.0)));
    }
    if point.rate >= RATE_MAX {
        all.extend(target(
            format!("{point}: PostgreSQL's cores, part of Debezium's"),
            part("postgres_cores", Debezium),
            AtMost(1.0),
        ));
    }
    all
}

/// p50 with 1,200 partitions, compared with 12.
fn growth(results: &Results, point: &Point) -> Option<Target> {
    if point.partitions != 1200 || point.rate > RATE_MAX {
        return None;
    }
    let few = Point {
        partitions: 12,
        ..*point
    };
    let p50 = |point: &Point| results.median(&point.name(Relay), "p50_ms");
    target(
        format!("{point}: p50, times that with 12 partitions"),
        ratio(p50(point), p50(&few)),
        AtMost(2.0),
    )
}

/// A drain over a network, compared with one without delay.
fn distant_drain(results: &Results, partitions: i32, round_trip_ms: f64) -> Option<Target> {
    if round_trip_ms == 0.0 {
        return None;
    }
    let rate = |ms| results.median(&drain_name(Relay, partitions, ms), "rows_per_second");
    target(
        format!("drain, {partitions} partitions, {round_trip_ms} ms: part of the one at 0 ms"),
        ratio(rate(round_trip_ms), rate(0.0)),
        AtLeast(0.8),
    )
}
