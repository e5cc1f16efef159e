//! Targets for the medians of a run. Pure.

use std::fmt;

use serde_json::{Value, json};

use super::{
    contender::Contender::{BareLoop, Debezium, Poller, Relay},
    measurements::{Drain, Measurement},
    results::Results,
};

/// A figure or a ratio of two figures, with its bound.
pub(crate) struct Target {
    name: &'static str,
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
            "{:<58} {:>9.3} {sign} {bound:<7} {}",
            self.name,
            self.value,
            if self.holds() { "holds" } else { "MISSED" }
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
                name,
                value: value?,
                bound,
            })
        })
        .collect()
}

fn ratio(of: Option<f64>, to: Option<f64>) -> Option<f64> {
    Some(of? / to?)
}
