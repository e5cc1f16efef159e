//! Names and labels of the relay's metrics, as docs/metrics.md lists them. Labels are declared
//! topics and closed sets, never a key, an id or an error's text.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
    core::{Atomic, Collector, GenericGaugeVec},
};

use crate::{
    outbox::TableWide,
    report::{BreakerState, ProblemClass},
};

const QUEUE_DEPTH: Metric = Metric::new(
    "outbox_queue_depth",
    "Rows that wait in this relay's lanes, counted up to 100,000.",
);
const EVENT_AGE: Metric = Metric::new(
    "outbox_event_age_seconds",
    "Age of the oldest row that waits in this relay's lanes.",
);
const EVENTS_ADDED: Metric = Metric::new(
    "outbox_events_added_total",
    "Rows handed over to a producer. A row that failed counts again.",
);
const EVENTS_PUBLISHED: Metric = Metric::new(
    "outbox_events_published_total",
    "Records that Kafka acknowledged.",
)
.labels(&["topic"]);
const EVENTS_FAILED: Metric = Metric::new(
    "outbox_events_failed_total",
    "Records that failed. Their rows are sent again.",
)
.labels(&["topic", "class"]);
const RELAY_ERRORS: Metric = Metric::new(
    "outbox_relay_errors_total",
    "Problems that the relay reported, each counted when it began.",
)
.labels(&["class"]);
const PROBLEMS: Metric =
    Metric::new("outbox_problems", "Current problems, as in /status.").labels(&["class"]);
const PUBLISH_LATENCY: Metric = Metric::new(
    "outbox_publish_latency_seconds",
    "Time from a row's created_at to Kafka's acknowledgement.",
);
const PROCESSING: Metric = Metric::new(
    "outbox_relay_processing_seconds",
    "Time from the fetch of a row to its deletion.",
);
const FETCH: Metric = Metric::new(
    "outbox_fetch_seconds",
    "Duration of a fetch from the database.",
);
const SETTLE: Metric = Metric::new("outbox_settle_seconds", "Duration of a settling statement.");
const LANES_OWNED: Metric = Metric::new("outbox_lanes_owned", "Lanes that this relay owns, of 64.");
const BREAKER_STATE: Metric = Metric::new(
    "outbox_breaker_state",
    "1 for the current state of the circuit breaker for Kafka, 0 for the others.",
)
.labels(&["state"]);
const IN_FLIGHT_ROWS: Metric = Metric::new(
    "outbox_in_flight_rows",
    "Rows in flight: fetched and not yet settled.",
);
const IN_FLIGHT_BYTES: Metric =
    Metric::new("outbox_in_flight_bytes", "Bytes of the rows in flight.");
const KAFKA_ROUND_TRIP: Metric = Metric::new(
    "outbox_kafka_round_trip_seconds",
    "Shortest round trip of the last second to the broker that is farthest away.",
);
const KAFKA_THROTTLE: Metric = Metric::new(
    "outbox_kafka_throttle_seconds",
    "Longest time of the last second for which a quota of the brokers mutes requests.",
);
const KAFKA_CLIENTS: Metric = Metric::new(
    "outbox_kafka_clients",
    "Kafka clients that share the partitions. There is one while few requests are under way.",
);
const PARKED_KEYS: Metric = Metric::new("outbox_parked_keys", "Parked keys in the whole table.");
const PARKED_TOPICS: Metric = Metric::new("outbox_parked_topics", "Topics that a person parked.");
const DEAD_LETTERS: Metric = Metric::new("outbox_dead_letters", "Rows in dead_letter.");
const XMIN_AGE: Metric = Metric::new(
    "outbox_xmin_age_seconds",
    "Age of the oldest transaction that keeps vacuum from removing dead rows.",
);
const DEAD_TUPLES: Metric = Metric::new(
    "outbox_dead_tuples",
    "Dead rows of the outbox, as the server estimates them.",
);
const STRAGGLERS_FOUND: Metric = Metric::new(
    "outbox_stragglers_found_total",
    "Rows that only the gap scan found, below a watermark. Stays 0 unless ids were drawn twice.",
);
const REPLACED_HEADERS: Metric = Metric::new(
    "outbox_replaced_headers_total",
    "Headers of rows that had the name of one of the relay's own headers and were replaced.",
);
const PARTITIONS_ADDED: Metric = Metric::new(
    "outbox_topic_partitions_added_total",
    "Partitions that were added to a topic while this relay ran.",
)
.labels(&["topic"]);
const BUILD_INFO: Metric =
    Metric::new("outbox_build_info", "Version of the relay; always 1.").labels(&["version"]);

/// Upper bounds of the buckets of all histograms, in seconds.
const BUCKETS_SECONDS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0,
];

/// All metrics of one relay process.
pub struct Metrics {
    registry: Registry,
    /// Without a series while the backlog is not known.
    queue_depth: IntGaugeVec,
    /// Without a series while the backlog is not known.
    event_age: GaugeVec,
    pub added: IntCounter,
    pub published: IntCounterVec,
    pub failed: IntCounterVec,
    pub errors: IntCounterVec,
    problems: IntGaugeVec,
    pub publish_latency: Histogram,
    pub processing: Histogram,
    pub fetch: Histogram,
    pub settle: Histogram,
    pub lanes_owned: IntGauge,
    breaker: IntGaugeVec,
    pub in_flight_rows: IntGauge,
    pub in_flight_bytes: IntGauge,
    pub kafka_round_trip: Gauge,
    pub kafka_throttle: Gauge,
    pub kafka_clients: IntGauge,
    pub stragglers: IntCounter,
    table: TableGauges,
    pub replaced_headers: IntCounter,
    partitions_added: IntCounterVec,
}

impl Metrics {
    /// Registers everything; `topics` get their series at once, so that a rate of zero is a zero
    /// and not a gap.
    #[must_use]
    pub fn new(topics: &[String]) -> Self {
        let metrics = Self::registered();
        metrics.set_build_info();
        for topic in topics {
            metrics.begin_series_of(topic);
        }
        metrics.set_breaker(BreakerState::Closed);
        metrics
    }

    fn set_build_info(&self) {
        let build_info = BUILD_INFO.gauges(&self.registry);
        build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
    }

    /// Begins the series of a topic with zeros.
    fn begin_series_of(&self, topic: &str) {
        self.published.with_label_values(&[topic]);
        self.partitions_added.with_label_values(&[topic]);
    }

    /// Registers all metrics, without series for labels.
    fn registered() -> Self {
        let registry = Registry::new();
        Self {
            queue_depth: QUEUE_DEPTH.gauges(&registry),
            event_age: EVENT_AGE.float_gauges(&registry),
            added: EVENTS_ADDED.counter(&registry),
            published: EVENTS_PUBLISHED.counters(&registry),
            failed: EVENTS_FAILED.counters(&registry),
            errors: RELAY_ERRORS.counters(&registry),
            problems: PROBLEMS.gauges(&registry),
            publish_latency: PUBLISH_LATENCY.histogram(&registry),
            processing: PROCESSING.histogram(&registry),
            fetch: FETCH.histogram(&registry),
            settle: SETTLE.histogram(&registry),
            lanes_owned: LANES_OWNED.gauge(&registry),
            breaker: BREAKER_STATE.gauges(&registry),
            in_flight_rows: IN_FLIGHT_ROWS.gauge(&registry),
            in_flight_bytes: IN_FLIGHT_BYTES.gauge(&registry),
            kafka_round_trip: KAFKA_ROUND_TRIP.float_gauge(&registry),
            kafka_throttle: KAFKA_THROTTLE.float_gauge(&registry),
            kafka_clients: KAFKA_CLIENTS.gauge(&registry),
            stragglers: STRAGGLERS_FOUND.counter(&registry),
            table: TableGauges::new(&registry),
            replaced_headers: REPLACED_HEADERS.counter(&registry),
            partitions_added: PARTITIONS_ADDED.counters(&registry),
            registry,
        }
    }

    /// Sets the series of this state to 1 and those of the other states to 0.
    pub fn set_breaker(&self, breaker: BreakerState) {
        for state in BreakerState::ALL {
            self.breaker
                .with_label_values(&[state.name()])
                .set(i64::from(state == breaker));
        }
    }

    /// Sets how many problems of a class there are. A class that is over stays as a zero.
    pub(crate) fn set_problems(&self, class: ProblemClass, count: usize) {
        self.problems
            .with_label_values(&[&class.to_string()])
            .set(clamped(count));
    }

    /// Counts partitions that were added to a topic.
    pub(crate) fn add_partitions(&self, topic: &str, added: usize) {
        self.partitions_added
            .with_label_values(&[topic])
            .inc_by(added as u64);
    }

    /// Sets the numbers of the whole table. `None` removes their series: the relay that owns lane 0
    /// has them.
    pub fn set_table(&self, table: Option<TableWide>) {
        match table {
            Some(table) => self.table.set(table),
            None => self.table.reset(),
        }
    }

    /// All series in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}

impl Metrics {
    /// Sets the number of rows that wait, and the age of the oldest one; `None` if not known yet.
    pub fn set_backlog(&self, backlog: Option<(u64, f64)>) {
        let rows = backlog.map(|(rows, _)| clamped(rows));
        set_or_reset(&self.queue_depth, rows);
        set_or_reset(&self.event_age, backlog.map(|(_, seconds)| seconds));
    }
}

/// Numbers of the whole table. They have no series unless this relay owns lane 0, so that a sum
/// over relays counts them once.
struct TableGauges {
    parked_keys: IntGaugeVec,
    parked_topics: IntGaugeVec,
    dead_letters: IntGaugeVec,
    xmin_age: GaugeVec,
    dead_tuples: IntGaugeVec,
}

impl TableGauges {
    fn new(registry: &Registry) -> Self {
        Self {
            parked_keys: PARKED_KEYS.gauges(registry),
            parked_topics: PARKED_TOPICS.gauges(registry),
            dead_letters: DEAD_LETTERS.gauges(registry),
            xmin_age: XMIN_AGE.float_gauges(registry),
            dead_tuples: DEAD_TUPLES.gauges(registry),
        }
    }

    fn set(&self, table: TableWide) {
        for (gauge, count) in [
            (&self.parked_keys, table.parked_keys),
            (&self.parked_topics, table.parked_topics),
            (&self.dead_letters, table.dead_letters),
        ] {
            gauge.with_label_values::<&str>(&[]).set(clamped(count));
        }
        set_or_reset(&self.dead_tuples, table.dead_tuples.map(clamped));
        set_or_reset(&self.xmin_age, table.xmin_age_seconds);
    }

    fn reset(&self) {
        self.parked_keys.reset();
        self.parked_topics.reset();
        self.dead_letters.reset();
        self.dead_tuples.reset();
        self.xmin_age.reset();
    }
}

/// What describes one metric: its name, its help text and the names of its labels.
#[derive(Clone, Copy)]
struct Metric {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
}

impl Metric {
    const fn new(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            labels: &[],
        }
    }

    const fn labels(self, labels: &'static [&'static str]) -> Self {
        Self { labels, ..self }
    }

    fn counter(self, registry: &Registry) -> IntCounter {
        registered(registry, IntCounter::with_opts(self.opts()))
    }

    fn counters(self, registry: &Registry) -> IntCounterVec {
        registered(registry, IntCounterVec::new(self.opts(), self.labels))
    }

    fn gauge(self, registry: &Registry) -> IntGauge {
        registered(registry, IntGauge::with_opts(self.opts()))
    }

    fn gauges(self, registry: &Registry) -> IntGaugeVec {
        registered(registry, IntGaugeVec::new(self.opts(), self.labels))
    }

    fn float_gauge(self, registry: &Registry) -> Gauge {
        registered(registry, Gauge::with_opts(self.opts()))
    }

    fn float_gauges(self, registry: &Registry) -> GaugeVec {
        registered(registry, GaugeVec::new(self.opts(), self.labels))
    }

    fn histogram(self, registry: &Registry) -> Histogram {
        let opts = HistogramOpts::new(self.name, self.help).buckets(BUCKETS_SECONDS.to_vec());
        registered(registry, Histogram::with_opts(opts))
    }

    fn opts(self) -> Opts {
        Opts::new(self.name, self.help)
    }
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("our own names and labels are valid");
    registry
        .register(Box::new(collector.clone()))
        .expect("each of our names is registered once");
    collector
}

/// Sets the one series of a gauge without labels, or removes it: the value is unknown.
fn set_or_reset<P: Atomic + 'static>(gauge: &GenericGaugeVec<P>, value: Option<P::T>) {
    match value {
        Some(value) => gauge.with_label_values::<&str>(&[]).set(value),
        None => gauge.reset(),
    }
}

/// A gauge's value for a count that may not fit it.
fn clamped(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_of_metrics() {
        let metrics = Metrics::new(&["topic".to_owned()]);
        metrics.set_problems(ProblemClass::Other, 1);
        let (dead_letters, parked_keys, parked_topics, xmin_age_seconds, dead_tuples) =
            (0, 0, 0, Some(0.0), Some(0));
        metrics.set_backlog(Some((0, 0.0)));
        metrics.set_table(Some(TableWide {
            dead_letters,
            parked_keys,
            parked_topics,
            xmin_age_seconds,
            dead_tuples,
        }));
        metrics.failed.with_label_values(&["topic", "class"]).inc();
        metrics.errors.with_label_values(&["class"]).inc();
        let text = metrics
            .render()
            .replace(env!("CARGO_PKG_VERSION"), "VERSION");
        crate::golden::compare("metrics-relay.txt", &crate::golden::without_values(&text));
    }
}
