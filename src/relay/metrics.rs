//! Names and labels of the relay's metrics, for whoever reads them in docs/metrics.md. Labels are
//! declared topics and closed sets, never a key, an id or an error's text.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, core::Collector,
};

use crate::{
    outbox::TableWide,
    report::{BreakerState, ProblemClass},
};

/// Numbers of the whole table: without series unless this relay owns lane 0, so that a sum over
/// relays counts them once.
struct TableGauges {
    parked_keys: IntGaugeVec,
    parked_topics: IntGaugeVec,
    dead_letters: IntGaugeVec,
    xmin_age: GaugeVec,
    dead_tuples: IntGaugeVec,
}

/// All metrics of one relay process.
pub struct Metrics {
    registry: Registry,
    pub queue_depth: IntGauge,
    pub event_age: Gauge,
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
    pub stragglers: IntCounter,
    table: TableGauges,
    pub replaced_headers: IntCounter,
    pub partitions_added: IntCounterVec,
}

impl Metrics {
    /// Registers everything; `topics` get their series at once, so that a rate of zero is a zero
    /// and not a gap.
    #[must_use]
    pub fn new(topics: &[String]) -> Self {
        let registry = Registry::new();
        let metrics = Self {
            queue_depth: keep(
                &registry,
                IntGauge::new(
                    "outbox_queue_depth",
                    "Rows that wait in this relay's lanes, counted up to 100,000.",
                ),
            ),
            event_age: keep(
                &registry,
                Gauge::new(
                    "outbox_event_age_seconds",
                    "Age of the oldest row that waits in this relay's lanes.",
                ),
            ),
            added: keep(
                &registry,
                IntCounter::new(
                    "outbox_events_added_total",
                    "Rows that went to the producer; again after a failure.",
                ),
            ),
            published: keep(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "outbox_events_published_total",
                        "Records that Kafka acknowledged.",
                    ),
                    &["topic"],
                ),
            ),
            failed: keep(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "outbox_events_failed_total",
                        "Records that failed and are sent again.",
                    ),
                    &["topic", "class"],
                ),
            ),
            errors: keep(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "outbox_relay_errors_total",
                        "Failures of the relay's own work.",
                    ),
                    &["class"],
                ),
            ),
            problems: keep(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "outbox_problems",
                        "Problems that there are now, as in /status.",
                    ),
                    &["class"],
                ),
            ),
            publish_latency: keep(
                &registry,
                seconds(
                    "outbox_publish_latency_seconds",
                    "From a row's created_at to Kafka's acknowledgement.",
                ),
            ),
            processing: keep(
                &registry,
                seconds(
                    "outbox_relay_processing_seconds",
                    "From the fetch that brought a row to its deletion.",
                ),
            ),
            fetch: keep(
                &registry,
                seconds("outbox_fetch_seconds", "Time of a fetch from the database."),
            ),
            settle: keep(
                &registry,
                seconds("outbox_settle_seconds", "Time of a settling statement."),
            ),
            lanes_owned: keep(
                &registry,
                IntGauge::new("outbox_lanes_owned", "Lanes that this relay owns, of 64."),
            ),
            breaker: keep(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "outbox_breaker_state",
                        "1 for the state in which the breaker towards Kafka is.",
                    ),
                    &["state"],
                ),
            ),
            in_flight_rows: keep(
                &registry,
                IntGauge::new("outbox_in_flight_rows", "Rows between fetch and settle."),
            ),
            in_flight_bytes: keep(
                &registry,
                IntGauge::new(
                    "outbox_in_flight_bytes",
                    "Bytes of the rows between fetch and settle.",
                ),
            ),
            table: TableGauges {
                parked_keys: keep(
                    &registry,
                    IntGaugeVec::new(
                        Opts::new(
                            "outbox_parked_keys",
                            "Keys that are parked, in the whole table.",
                        ),
                        &[],
                    ),
                ),
                parked_topics: keep(
                    &registry,
                    IntGaugeVec::new(
                        Opts::new("outbox_parked_topics", "Topics that a person parked."),
                        &[],
                    ),
                ),
                dead_letters: keep(
                    &registry,
                    IntGaugeVec::new(
                        Opts::new("outbox_dead_letters", "Rows in dead_letter."),
                        &[],
                    ),
                ),
                xmin_age: keep(
                    &registry,
                    GaugeVec::new(
                        Opts::new(
                            "outbox_xmin_age_seconds",
                            "Age of the oldest transaction that keeps vacuum from removing dead \
                             rows.",
                        ),
                        &[],
                    ),
                ),
                dead_tuples: keep(
                    &registry,
                    IntGaugeVec::new(
                        Opts::new(
                            "outbox_dead_tuples",
                            "Dead rows of the outbox, as the server estimates them.",
                        ),
                        &[],
                    ),
                ),
            },
            stragglers: keep(
                &registry,
                IntCounter::new(
                    "outbox_stragglers_found_total",
                    "Rows that only the sweep found below a mark; stays 0 unless ids came again.",
                ),
            ),
            replaced_headers: keep(
                &registry,
                IntCounter::new(
                    "outbox_replaced_headers_total",
                    "Row headers that had the name of one of the relay's own and were replaced.",
                ),
            ),
            partitions_added: keep(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "outbox_topic_partitions_added_total",
                        "Partitions that a topic got while this relay ran.",
                    ),
                    &["topic"],
                ),
            ),
            registry,
        };
        let build = keep(
            &metrics.registry,
            IntGaugeVec::new(
                Opts::new("outbox_build_info", "Version of the relay; always 1."),
                &["version"],
            ),
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        for topic in topics {
            metrics.published.with_label_values(&[topic]);
            metrics.partitions_added.with_label_values(&[topic]);
        }
        metrics.set_breaker(BreakerState::Closed);
        metrics
    }

    pub fn set_breaker(&self, breaker: BreakerState) {
        for state in BreakerState::ALL {
            self.breaker
                .with_label_values(&[state.name()])
                .set(i64::from(state == breaker));
        }
    }

    /// So many of this class there are now. A class that there was stays as a zero.
    pub(crate) fn set_problems(&self, class: ProblemClass, count: usize) {
        self.problems
            .with_label_values(&[&class.to_string()])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Numbers of the whole table; `None`: another relay tells them.
    pub fn set_table(&self, table: Option<TableWide>) {
        let gauges = &self.table;
        let Some(table) = table else {
            gauges.xmin_age.reset();
            let counts = [
                &gauges.parked_keys,
                &gauges.parked_topics,
                &gauges.dead_letters,
                &gauges.dead_tuples,
            ];
            return counts.into_iter().for_each(IntGaugeVec::reset);
        };
        let set = |gauge: &IntGaugeVec, value: u64| {
            gauge
                .with_label_values::<&str>(&[])
                .set(i64::try_from(value).unwrap_or(i64::MAX))
        };
        set(&gauges.parked_keys, table.parked_keys);
        set(&gauges.parked_topics, table.parked_topics);
        set(&gauges.dead_letters, table.dead_letters);
        set(&gauges.dead_tuples, table.dead_tuples);
        gauges
            .xmin_age
            .with_label_values::<&str>(&[])
            .set(table.xmin_age_seconds.unwrap_or(0.0));
    }

    /// Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}

fn seconds(name: &str, help: &str) -> prometheus::Result<Histogram> {
    let buckets = vec![
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0,
    ];
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))
}

fn keep<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("our own names and labels are valid");
    registry
        .register(Box::new(collector.clone()))
        .expect("each of our names is registered once");
    collector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_of_metrics() {
        let metrics = Metrics::new(&["topic".to_owned()]);
        metrics.set_problems(ProblemClass::Other, 1);
        let (dead_letters, parked_keys, parked_topics, xmin_age_seconds, dead_tuples) =
            (0, 0, 0, None, 0);
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
