//! The operator's own metrics: their names, their labels, and the struct that holds them.

use std::{cmp::Ordering, time::Duration};

use hyper::StatusCode;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector, proto::MetricFamily,
};

use crate::{
    api::OutboxRelay,
    operator::{
        call::ErrorClass,
        reconcile::{plan::Decision, upgrade_queue::Counts},
    },
};

/// Upper bounds of the histograms' buckets, in seconds.
const BUCKETS_SECONDS: [f64; 8] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// What is counted at each scrape, so that deleted objects no longer count.
pub(crate) struct MetricsSnapshot<'a, R: Iterator<Item = &'a OutboxRelay>> {
    pub relays: R,
    pub in_backoff: usize,
    pub refused: usize,
}

/// The metrics of one process. Clones share them.
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
        let metrics = Self {
            registry: Registry::new(),
            reconciliations: counters(
                "outbox_operator_reconciliations_total",
                "Reconciliations of one OutboxRelay.",
                &["outcome"],
            ),
            errors: counters(
                "outbox_operator_reconcile_errors_total",
                "Reconciliations that failed, by what resolves the failure.",
                &["class"],
            ),
            seconds: histogram(
                "outbox_operator_reconcile_seconds",
                "Duration of a reconciliation of one OutboxRelay.",
            ),
            scale_decisions: counters(
                "outbox_operator_scale_decisions_total",
                "Scale decisions for OutboxRelays with spec.scaling, by result.",
                &["direction", "reason"],
            ),
            requests: histograms(
                "outbox_operator_api_request_seconds",
                "Duration of a request to the API server.",
                &["verb", "code"],
            ),
            leader: gauge(
                "outbox_operator_leader",
                "1 for the operator that leads, 0 for one that stands by.",
            ),
            upgrades: gauges(
                "outbox_operator_upgrade_queue",
                "Relays whose upgrade waits or is under way.",
                &["state"],
            ),
            upgrade_failures: gauge(
                "outbox_operator_upgrade_failures_in_a_row",
                "Upgrades that failed since the last one that succeeded.",
            ),
            upgrades_stopped: gauge(
                "outbox_operator_upgrades_stopped",
                "1: too many upgrades failed in a row, and no further one starts.",
            ),
        };
        metrics.register();
        metrics.queued(Counts::default());
        metrics
    }

    fn register(&self) {
        let collectors: [Box<dyn Collector>; 9] = [
            Box::new(self.reconciliations.clone()),
            Box::new(self.errors.clone()),
            Box::new(self.seconds.clone()),
            Box::new(self.scale_decisions.clone()),
            Box::new(self.requests.clone()),
            Box::new(self.leader.clone()),
            Box::new(self.upgrades.clone()),
            Box::new(self.upgrade_failures.clone()),
            Box::new(self.upgrades_stopped.clone()),
        ];
        for collector in collectors {
            self.registry.register(collector).expect("each name once");
        }
    }

    /// Counts a reconciliation that succeeded after `took`.
    pub(crate) fn succeeded(&self, took: Duration) {
        self.reconciled("ok", took);
    }

    /// Counts a reconciliation that failed after `took`.
    pub(crate) fn failed(&self, took: Duration, class: ErrorClass) {
        self.reconciled("error", took);
        self.errors.with_label_values(&[class.name()]).inc();
    }

    fn reconciled(&self, outcome: &str, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        self.reconciliations.with_label_values(&[outcome]).inc();
    }

    /// Counts a request to the API server that ended after `took`. `None` means that it got no
    /// response.
    pub(crate) fn request_ended(&self, verb: &str, code: Option<StatusCode>, took: Duration) {
        let code = code.as_ref().map_or("none", StatusCode::as_str);
        self.requests
            .with_label_values(&[verb, code])
            .observe(took.as_secs_f64());
    }

    /// Records that this operator leads.
    pub(crate) fn leads(&self) {
        self.leader.set(1);
    }

    /// Counts a scale decision.
    pub(crate) fn decided(&self, decision: &Decision) {
        self.scale_decisions
            .with_label_values(&[direction(decision), &decision.reason.name()])
            .inc();
    }

    /// Sets what the upgrade queue holds.
    pub(crate) fn queued(&self, counts: Counts) {
        let state = |name: &str| self.upgrades.with_label_values(&[name]);
        state("waiting").set(number(counts.waiting));
        state("under_way").set(number(counts.under_way));
        self.upgrade_failures.set(number(counts.failures_in_a_row));
        self.upgrades_stopped.set(i64::from(counts.stopped));
    }

    /// Encodes all metrics in the text format that Prometheus scrapes.
    pub(crate) fn encode<'a>(
        &self,
        snapshot: MetricsSnapshot<'a, impl Iterator<Item = &'a OutboxRelay>>,
    ) -> String {
        let in_backoff = gauge(
            "outbox_operator_objects_in_backoff",
            "OutboxRelays whose last reconciliation failed.",
        );
        in_backoff.set(number(snapshot.in_backoff));
        let refused = gauge(
            "outbox_operator_namespaces_refused",
            "Namespaces that the API server refuses this operator access to. An operator of all \
             namespaces counts them as one.",
        );
        refused.set(number(snapshot.refused));
        let families = [
            self.registry.gather(),
            in_backoff.collect(),
            refused.collect(),
            conditions(snapshot.relays).collect(),
        ];
        text(families.concat())
    }
}

/// Counts OutboxRelays by the status of each of their conditions.
fn conditions<'a>(relays: impl Iterator<Item = &'a OutboxRelay>) -> IntGaugeVec {
    let gauges = gauges(
        "outbox_operator_relays",
        "OutboxRelays by the status of each of their conditions.",
        &["condition", "status"],
    );
    let statuses = relays.filter_map(|relay| relay.status.as_ref());
    for condition in statuses.flat_map(|status| &status.conditions) {
        gauges
            .with_label_values(&[&condition.type_, &condition.status])
            .inc();
    }
    gauges
}

/// The label `direction` of a scale decision.
fn direction(decision: &Decision) -> &'static str {
    match decision.to.cmp(&decision.from) {
        Ordering::Greater => "up",
        Ordering::Less => "down",
        Ordering::Equal => "hold",
    }
}

/// Encodes metrics, without those that have no values yet: the encoder rejects them.
fn text(mut families: Vec<MetricFamily>) -> String {
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new()
        .encode_to_string(&families)
        .expect("metrics are text")
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("constant names")
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("constant names")
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect("constant names")
}

fn histogram(name: &str, help: &str) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(BUCKETS_SECONDS.to_vec());
    Histogram::with_opts(options).expect("constant names")
}

fn histograms(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(BUCKETS_SECONDS.to_vec());
    HistogramVec::new(options, labels).expect("constant names")
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
    fn reconciliations_and_requests_are_counted_under_their_published_names() {
        let metrics = Metrics::new();
        metrics.succeeded(Duration::from_millis(5));
        metrics.failed(Duration::from_millis(5), ErrorClass::Transient);
        metrics.request_ended("GET", Some(StatusCode::OK), Duration::from_millis(5));
        metrics.request_ended("WATCH", None, Duration::from_secs(5));
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
            &metrics.encode(MetricsSnapshot {
                relays: [].iter(),
                in_backoff: 0,
                refused: 0,
            }),
            &expected,
        );
    }

    fn ready() -> OutboxRelay {
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "R", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let mut relay = crate::operator::fixtures::relay();
        relay.status =
            Some(serde_json::from_value(json!({"conditions": [condition]})).expect("a status"));
        relay
    }

    #[test]
    fn contract_of_metrics() {
        let metrics = Metrics::new();
        metrics.succeeded(Duration::ZERO);
        for class in [
            ErrorClass::Conflict,
            ErrorClass::Transient,
            ErrorClass::Permanent,
        ] {
            metrics.failed(Duration::ZERO, class);
        }
        metrics.request_ended("GET", None, Duration::ZERO);
        for to in 1..=3 {
            metrics.decided(&Decision {
                from: 2,
                to,
                reason: Reason::Ready,
            });
        }
        let text = metrics.encode(MetricsSnapshot {
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
    fn deleted_relays_are_not_counted() {
        let relay = ready();
        let metrics = Metrics::new();
        let two = metrics.encode(MetricsSnapshot {
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
                .encode(MetricsSnapshot {
                    relays: [].iter(),
                    in_backoff: 0,
                    refused: 0
                })
                .contains("outbox_operator_relays{")
        );
    }
}
