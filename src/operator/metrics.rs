//! The operator's own metrics: names, labels, and one struct that holds them.

use std::{cmp::Ordering, time::Duration};

use prometheus::{Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::{call::ErrorClass, plan::Decision, upgrades::Counts};

/// Registered once per process.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    reconciliations: IntCounterVec,
    errors: IntCounterVec,
    seconds: Histogram,
    scale_decisions: IntCounterVec,
    upgrades: IntGaugeVec,
    upgrade_failures: IntGauge,
    upgrades_stopped: IntGauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let counted = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels).expect("constant names");
        let counter = |name: &str, help: &str, label: &str| counted(name, help, &[label]);
        let seconds = HistogramOpts::new("outbox_operator_reconcile_seconds", "Duration of a pass over one OutboxRelay.");
        let metrics = Self {
            registry: Registry::new(),
            reconciliations: counter("outbox_operator_reconciliations_total", "Passes over one OutboxRelay.", "outcome"),
            errors: counter("outbox_operator_reconcile_errors_total", "Passes that failed, by what helps.", "class"),
            scale_decisions: counted(
                "outbox_operator_scale_decisions_total",
                "Looks at an OutboxRelay with spec.scaling, by what came of them.",
                &["direction", "reason"],
            ),
            upgrades: IntGaugeVec::new(
                Opts::new("outbox_operator_upgrade_queue", "Relays whose upgrade waits or is under way."),
                &["state"],
            )
            .expect("constant names"),
            upgrade_failures: IntGauge::new(
                "outbox_operator_upgrade_failures_in_a_row",
                "Upgrades that failed since the last that did not.",
            )
            .expect("constant names"),
            upgrades_stopped: IntGauge::new("outbox_operator_upgrades_stopped", "1: so many failed in a row that no further one starts.")
                .expect("constant names"),
            seconds: Histogram::with_opts(seconds.buckets(vec![0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0])).expect("constant names"),
        };
        let register = |collector| metrics.registry.register(collector).expect("each name once");
        register(Box::new(metrics.reconciliations.clone()));
        register(Box::new(metrics.errors.clone()));
        register(Box::new(metrics.seconds.clone()));
        register(Box::new(metrics.scale_decisions.clone()));
        register(Box::new(metrics.upgrades.clone()));
        register(Box::new(metrics.upgrade_failures.clone()));
        register(Box::new(metrics.upgrades_stopped.clone()));
        metrics.queued(Counts::default());
        metrics
    }

    pub(crate) fn passed(&self, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        self.reconciliations.with_label_values(&["ok"]).inc();
    }

    pub(crate) fn failed(&self, took: Duration, class: ErrorClass) {
        self.seconds.observe(took.as_secs_f64());
        self.reconciliations.with_label_values(&["error"]).inc();
        self.errors.with_label_values(&[class.name()]).inc();
    }

    pub(crate) fn decided(&self, decision: &Decision) {
        let direction = match decision.to.cmp(&decision.from) {
            Ordering::Greater => "up",
            Ordering::Less => "down",
            Ordering::Equal => "hold",
        };
        self.scale_decisions.with_label_values(&[direction, &decision.why.name()]).inc();
    }

    pub(crate) fn queued(&self, counts: Counts) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.upgrades.with_label_values(&["waiting"]).set(number(counts.waiting));
        self.upgrades.with_label_values(&["under_way"]).set(number(counts.under_way));
        self.upgrade_failures.set(number(counts.failures_in_a_row));
        self.upgrades_stopped.set(i64::from(counts.stopped));
    }

    /// In the text format that Prometheus scrapes.
    pub(crate) fn text(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("metrics are text");
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::reason::Reason;

    #[test]
    fn passes_are_counted_under_their_published_names() {
        let metrics = Metrics::new();
        metrics.passed(Duration::from_millis(5));
        metrics.failed(Duration::from_millis(5), ErrorClass::Transient);
        metrics.decided(&Decision { from: 2, to: 4, why: Reason::BacklogHigh });
        metrics.queued(Counts { waiting: 7, under_way: 5, failures_in_a_row: 3, stopped: true });
        let text = metrics.text();
        for line in [
            "outbox_operator_reconciliations_total{outcome=\"ok\"} 1",
            "outbox_operator_reconciliations_total{outcome=\"error\"} 1",
            "outbox_operator_reconcile_errors_total{class=\"transient\"} 1",
            "outbox_operator_reconcile_seconds_count 2",
            "outbox_operator_upgrade_queue{state=\"waiting\"} 7",
            "outbox_operator_upgrade_queue{state=\"under_way\"} 5",
            "outbox_operator_upgrade_failures_in_a_row 3",
            "outbox_operator_upgrades_stopped 1",
            "outbox_operator_scale_decisions_total{direction=\"up\",reason=\"BacklogHigh\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
