//! The dashboard of the operator.

use serde_json::Value;

use super::grafana::{
    Dashboard,
    Look::{Bad, Lines},
    Panel, Row,
};

pub(super) fn dashboard() -> Value {
    Dashboard {
        uid: "outbox-operator",
        title: "Outbox: operator",
        description: "Reconciliations of OutboxRelays by the operator.",
        variables: &[(
            "namespace",
            "label_values(outbox_operator_reconcile_seconds_count, namespace)",
        )],
        rows: &[
            Row {
                title: "State",
                height: 4,
                panels: STATE,
            },
            Row {
                title: "Reconciliations",
                height: 9,
                panels: PASSES,
            },
            Row {
                title: "Scaling",
                height: 9,
                panels: SCALING,
            },
            Row {
                title: "Upgrades",
                height: 9,
                panels: UPGRADES,
            },
        ],
    }
    .json()
}

const STATE: &[Panel] = &[
    Panel {
        title: "Leaders",
        look: Bad(2.0),
        unit: "none",
        description: "One operator is the leader. If there is none, see the runbook of \
            OutboxOperatorAbsent.",
        queries: &[(
            r#"sum(outbox_operator_leader{namespace=~"$namespace"})"#,
            "leaders",
        )],
    },
    Panel {
        title: "OutboxRelays that are not ready",
        look: Bad(1.0),
        unit: "none",
        description: "`kubectl get outboxrelays -A` lists them with their reasons.",
        queries: &[(
            concat!(
                r#"sum(outbox_operator_relays{namespace=~"$namespace", condition="Ready", "#,
                r#"status!="True"}) or vector(0)"#,
            ),
            "OutboxRelays",
        )],
    },
    Panel {
        title: "OutboxRelays that wait for their schema",
        look: Bad(1.0),
        unit: "none",
        description: "Their migration is running, fails or does not start. See column SCHEMA of \
            `kubectl get outboxrelays -A`.",
        queries: &[(
            concat!(
                r#"sum(outbox_operator_relays{namespace=~"$namespace", condition="SchemaReady", "#,
                r#"status="False"}) or vector(0)"#,
            ),
            "OutboxRelays",
        )],
    },
    Panel {
        title: "OutboxRelays whose last reconciliation failed",
        look: Bad(1.0),
        unit: "none",
        description: "The operator retries them. Its log reports the error.",
        queries: &[(
            r#"sum(outbox_operator_objects_in_backoff{namespace=~"$namespace"})"#,
            "OutboxRelays",
        )],
    },
    Panel {
        title: "Failing reconciliations",
        look: Bad(0.001),
        unit: "cps",
        description: "Reconciliations that failed. Conflicts are retried at once and do not count.",
        queries: &[(
            concat!(
                r#"sum(rate(outbox_operator_reconcile_errors_total{namespace=~"$namespace", "#,
                r#"class!="conflict"}[15m])) or vector(0)"#,
            ),
            "passes",
        )],
    },
    Panel {
        title: "Slow reconciliations",
        look: Bad(10.0),
        unit: "s",
        description: "99 of 100 reconciliations were faster.",
        queries: &[(
            concat!(
                r#"histogram_quantile(0.99, sum by (le) "#,
                r#"(rate(outbox_operator_reconcile_seconds_bucket{namespace=~"$namespace"}"#,
                r#"[15m])))"#,
            ),
            "99 %",
        )],
    },
];

const PASSES: &[Panel] = &[
    Panel {
        title: "Requests to the API server",
        look: Lines,
        unit: "reqps",
        description: "By code of the response. `none`: no response.",
        queries: &[(
            concat!(
                r#"sum by (verb, code) "#,
                r#"(rate(outbox_operator_api_request_seconds_count{namespace=~"$namespace"}"#,
                r#"[$__rate_interval]))"#,
            ),
            "{{verb}} {{code}}",
        )],
    },
    Panel {
        title: "Reconciliations",
        look: Lines,
        unit: "cps",
        description: "Each OutboxRelay is reconciled every 15 s, and when it or one of its objects \
            changes.",
        queries: &[(
            concat!(
                r#"sum by (outcome) "#,
                r#"(rate(outbox_operator_reconciliations_total{namespace=~"$namespace"}"#,
                r#"[$__rate_interval]))"#,
            ),
            "{{outcome}}",
        )],
    },
    Panel {
        title: "Failed reconciliations",
        look: Lines,
        unit: "cps",
        description: "By class: `conflict` is retried at once, `transient` is retried later, \
            `permanent` waits for a person.",
        queries: &[(
            concat!(
                r#"sum by (class) "#,
                r#"(rate(outbox_operator_reconcile_errors_total{namespace=~"$namespace"}"#,
                r#"[$__rate_interval]))"#,
            ),
            "{{class}}",
        )],
    },
    Panel {
        title: "Duration",
        look: Lines,
        unit: "s",
        description: "It grows when the API server responds slowly.",
        queries: &[
            (
                concat!(
                    r#"histogram_quantile(0.5, sum by (le) "#,
                    r#"(rate(outbox_operator_reconcile_seconds_bucket{namespace=~"$namespace"}"#,
                    r#"[$__rate_interval])))"#,
                ),
                "median",
            ),
            (
                concat!(
                    r#"histogram_quantile(0.99, sum by (le) "#,
                    r#"(rate(outbox_operator_reconcile_seconds_bucket{namespace=~"$namespace"}"#,
                    r#"[$__rate_interval])))"#,
                ),
                "99 %",
            ),
        ],
    },
];

const SCALING: &[Panel] = &[Panel {
    title: "Scaling decisions",
    look: Lines,
    unit: "cps",
    description: "Decisions for OutboxRelays with `spec.scaling`, by direction and reason. \
        docs/reasons.md explains the reasons.",
    queries: &[(
        concat!(
            r#"sum by (direction, reason) "#,
            r#"(rate(outbox_operator_scale_decisions_total{namespace=~"$namespace"}"#,
            r#"[$__rate_interval]))"#,
        ),
        "{{direction}} {{reason}}",
    )],
}];

const UPGRADES: &[Panel] = &[
    Panel {
        title: "Upgrades",
        look: Lines,
        unit: "none",
        description: "OutboxRelays whose upgrade to a new version of the operator waits or is \
            running.",
        queries: &[(
            r#"max by (state) (outbox_operator_upgrade_queue{namespace=~"$namespace"})"#,
            "{{state}}",
        )],
    },
    Panel {
        title: "Upgrades that failed in a row",
        look: Lines,
        unit: "none",
        description: "After three failures the queue stops, and the alert OutboxUpgradesStopped \
            fires.",
        queries: &[(
            r#"max(outbox_operator_upgrade_failures_in_a_row{namespace=~"$namespace"})"#,
            "failures",
        )],
    },
];
