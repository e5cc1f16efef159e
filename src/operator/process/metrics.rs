//! The operator's own metrics: names, labels, and one struct that holds them.

use std::{cmp::Ordering, time::Duration};

use hyper::StatusCode;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector as _,
};

use crate::{
    api::OutboxRelay,
    operator::{
        call::ErrorClass,
        reconcile::{plan::Decision, upgrade_queue::Counts},
    },
};

/// What is counted when somebody asks: what is gone is not counted any more.
pub(crate) struct Census<'a, R: Iterator<Item = &'a OutboxRelay>> {
    pub relays: R,
    pub in_backoff: usize,
    pub refused: usize,
}

/// Registered once per process.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    reconciliations: IntCounterVec,
    errors: IntCounterVec,
    seconds: Histogram,
    scale_decisions: IntCounterVec,
    requests: HistogramVec,
    leader: IntGauge,
    upgrades: IntGaugeVec,
    upgrade_failures: IntGauge,
    upgrades_stopped: IntGauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let counted = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("constant names")
        };
        let counter = |name: &str, help: &str, label: &str| counted(name, help, &[label]);
        let seconds = HistogramOpts::new(
            "outbox_operator_reconcile_seconds",
            "Duration of a pass over one OutboxRelay.",
        );
        let requests = HistogramOpts::new(
            "outbox_operator_api_request_seconds",
            "Duration of a request to the API server.",
        );
        let metrics = Self {
            registry: Registry::new(),
            reconciliations: counter(
                "outbox_operator_reconciliations_total",
                "Passes over one OutboxRelay.",
                "outcome",
            ),
            errors: counter(
                "outbox_operator_reconcile_errors_total",
                "Passes that failed, by what helps.",
                "class",
            ),
            scale_decisions: counted(
                "outbox_operator_scale_decisions_total",
                "Looks at an OutboxRelay with spec.scaling, by what came of them.",
                &["direction", "reason"],
            ),
            upgrades: gauges(
                "outbox_operator_upgrade_queue",
                "Relays whose upgrade waits or is under way.",
                &["state"],
            ),
            upgrade_failures: gauge(
                "outbox_operator_upgrade_failures_in_a_row",
                "Upgrades that failed since the last that did not.",
            ),
            upgrades_stopped: gauge(
                "outbox_operator_upgrades_stopped",
                "1: so many failed in a row that no further one starts.",
            ),
            seconds: Histogram::with_opts(seconds.buckets(buckets())).expect("constant names"),
            requests: HistogramVec::new(requests.buckets(buckets()), &["verb", "code"])
                .expect("constant names"),
            leader: gauge(
                "outbox_operator_leader",
                "1 for the operator that leads, 0 for one that stands by.",
            ),
        };
        let register = |collector| {
            metrics
                .registry
                .register(collector)
                .expect("each name once");
        };
        register(Box::new(metrics.reconciliations.clone()));
        register(Box::new(metrics.errors.clone()));
        register(Box::new(metrics.seconds.clone()));
        register(Box::new(metrics.scale_decisions.clone()));
        register(Box::new(metrics.requests.clone()));
        register(Box::new(metrics.leader.clone()));
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

    /// A request ended; `None`: without an answer.
    pub(crate) fn asked(&self, verb: &str, code: Option<StatusCode>, took: Duration) {
        let code = code.map_or_else(|| "none".to_owned(), |code| code.as_str().to_owned());
        self.requests
            .with_label_values(&[verb, &code])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn leads(&self) {
        self.leader.set(1);
    }

    pub(crate) fn decided(&self, decision: &Decision) {
        let direction = match decision.to.cmp(&decision.from) {
            Ordering::Greater => "up",
            Ordering::Less => "down",
            Ordering::Equal => "hold",
        };
        self.scale_decisions
            .with_label_values(&[direction, &decision.reason.name()])
            .inc();
    }

    pub(crate) fn queued(&self, counts: Counts) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.upgrades
            .with_label_values(&["waiting"])
            .set(number(counts.waiting));
        self.upgrades
            .with_label_values(&["under_way"])
            .set(number(counts.under_way));
        self.upgrade_failures.set(number(counts.failures_in_a_row));
        self.upgrades_stopped.set(i64::from(counts.stopped));
    }

    /// In the text format that Prometheus scrapes.
    pub(crate) fn text<'a>(
        &self,
        census: Census<'a, impl Iterator<Item = &'a OutboxRelay>>,
    ) -> String {
        let in_backoff = counted(
            "outbox_operator_objects_in_backoff",
            "OutboxRelays whose last pass failed.",
            census.in_backoff,
        );
        let refused = "Namespaces that the API server shows this operator nothing of. An operator \
            of all namespaces counts them as one.";
        let refused = counted(
            "outbox_operator_namespaces_refused",
            refused,
            census.refused,
        );
        let relays = "OutboxRelays by the status of each of their conditions.";
        let relays = gauges("outbox_operator_relays", relays, &["condition", "status"]);
        for condition in census
            .relays
            .filter_map(|relay| relay.status.as_ref())
            .flat_map(|status| &status.conditions)
        {
            relays
                .with_label_values(&[&condition.type_, &condition.status])
                .inc();
        }
        let families = [
            self.registry.gather(),
            in_backoff.collect(),
            refused.collect(),
            relays.collect(),
        ]
        .concat();
        let mut text = Vec::new();
        for family in families
            .into_iter()
            .filter(|family| !family.get_metric().is_empty())
        {
            TextEncoder::new()
                .encode(&[family], &mut text)
                .expect("metrics are text");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("constant names")
}

fn counted(name: &str, help: &str, count: usize) -> IntGauge {
    let gauge = gauge(name, help);
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    gauge
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect("constant names")
}

fn buckets() -> Vec<f64> {
    vec![0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operator::reason::Reason;

    #[track_caller]
    fn has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn passes_and_requests_are_counted_under_their_published_names() {
        let metrics = Metrics::new();
        metrics.passed(Duration::from_millis(5));
        metrics.failed(Duration::from_millis(5), ErrorClass::Transient);
        metrics.asked("GET", Some(StatusCode::OK), Duration::from_millis(5));
        metrics.asked("WATCH", None, Duration::from_secs(5));
        metrics.decided(&Decision {
            from: 2,
            to: 4,
            reason: Reason::BacklogHigh,
        });
        metrics.queued(Counts {
            waiting: 7,
            under_way: 5,
            failures_in_a_row: 3,
            stopped: true,
        });
        let expected = [
            "outbox_operator_reconciliations_total{outcome=\"ok\"} 1",
            "outbox_operator_reconciliations_total{outcome=\"error\"} 1",
            "outbox_operator_reconcile_errors_total{class=\"transient\"} 1",
            "outbox_operator_reconcile_seconds_count 2",
            "outbox_operator_api_request_seconds_count{code=\"200\",verb=\"GET\"} 1",
            "outbox_operator_api_request_seconds_count{code=\"none\",verb=\"WATCH\"} 1",
            "outbox_operator_leader 0",
            "outbox_operator_upgrade_queue{state=\"waiting\"} 7",
            "outbox_operator_upgrade_queue{state=\"under_way\"} 5",
            "outbox_operator_upgrade_failures_in_a_row 3",
            "outbox_operator_upgrades_stopped 1",
            "outbox_operator_scale_decisions_total{direction=\"up\",reason=\"BacklogHigh\"} 1",
        ];
        has(
            &metrics.text(Census {
                relays: [].iter(),
                in_backoff: 0,
                refused: 0,
            }),
            &expected,
        );
    }

    fn ready() -> OutboxRelay {
        let condition = json!({"type": "Ready", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let mut relay = crate::operator::fixtures::relay();
        relay.status =
            Some(serde_json::from_value(json!({"conditions": [condition]})).expect("a status"));
        relay
    }

    #[test]
    fn contract_of_metrics() {
        let metrics = Metrics::new();
        metrics.passed(Duration::ZERO);
        for class in [
            ErrorClass::Conflict,
            ErrorClass::Transient,
            ErrorClass::Permanent,
        ] {
            metrics.failed(Duration::ZERO, class);
        }
        metrics.asked("GET", None, Duration::ZERO);
        for to in 1..=3 {
            metrics.decided(&Decision {
                from: 2,
                to,
                reason: Reason::Ready,
            });
        }
        let text = metrics.text(Census {
            relays: [ready()].iter(),
            in_backoff: 0,
            refused: 0,
        });
        crate::golden::compare(
            "metrics-operator.txt",
            &crate::golden::without_values(&text),
        );
    }

    #[test]
    fn relays_that_are_gone_are_not_counted() {
        let relay = ready();
        let metrics = Metrics::new();
        let two = metrics.text(Census {
            relays: [relay.clone(), relay].iter(),
            in_backoff: 1,
            refused: 3,
        });
        let expected = [
            "outbox_operator_relays{condition=\"Ready\",status=\"True\"} 2",
            "outbox_operator_objects_in_backoff 1",
            "outbox_operator_namespaces_refused 3",
        ];
        has(&two, &expected);
        assert!(
            !metrics
                .text(Census {
                    relays: [].iter(),
                    in_backoff: 0,
                    refused: 0
                })
                .contains("outbox_operator_relays{")
        );
    }
}
