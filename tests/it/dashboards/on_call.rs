//! The dashboard for on-call duty: all outboxes, problems first.

use serde_json::Value;

use super::grafana::{
    Dashboard,
    Look::{Bad, Lines, Number, Table},
    Panel, Row,
};

pub(super) fn dashboard() -> Value {
    Dashboard {
        uid: "outbox-on-call",
        title: "Outbox: on call",
        description: "All OutboxRelays, problems first. Ages and numbers count only rows that may \
            be published.",
        variables: &[("namespace", "label_values(outbox_build_info, namespace)")],
        rows: &[
            Row {
                title: "Is something wrong?",
                height: 4,
                panels: NUMBERS,
            },
            Row {
                title: "What is wrong",
                height: 8,
                panels: PROBLEMS,
            },
            Row {
                title: "All outboxes",
                height: 9,
                panels: OUTBOXES,
            },
            Row {
                title: "Rows that wait",
                height: 8,
                panels: WAITING,
            },
            Row {
                title: "Records",
                height: 8,
                panels: RECORDS,
            },
        ],
    }
    .json()
}

const NUMBERS: &[Panel] = &[
    Panel {
        title: "Oldest row",
        look: Bad(300.0),
        unit: "s",
        description: "Age of the oldest row of all outboxes. Above five minutes the alert \
            OutboxBacklogOld fires.",
        queries: &[(
            r#"max(outbox_event_age_seconds{namespace=~"$namespace"})"#,
            "age",
        )],
    },
    Panel {
        title: "Lanes without a relay",
        look: Bad(1.0),
        unit: "none",
        description: "Of 64 lanes for each outbox. Rows in them wait. After three minutes the \
            alert OutboxLanesUnowned fires.",
        queries: &[(
            r#"sum(64 - sum by (namespace, relay) (outbox_lanes_owned{namespace=~"$namespace"}))"#,
            "lanes",
        )],
    },
    Panel {
        title: "Open breakers",
        look: Bad(1.0),
        unit: "none",
        description: "Relays whose records Kafka does not acknowledge.",
        queries: &[(
            r#"sum(outbox_breaker_state{namespace=~"$namespace", state="Open"})"#,
            "relays",
        )],
    },
    Panel {
        title: "Parked keys",
        look: Bad(1.0),
        unit: "none",
        description: "Keys whose rows wait until a person decides.",
        queries: &[(
            r#"sum(max by (namespace, relay) (outbox_parked_keys{namespace=~"$namespace"}))"#,
            "keys",
        )],
    },
    Panel {
        title: "Dead letters",
        look: Bad(1.0),
        unit: "none",
        description: "Rows that Kafka rejected, and that no consumer received.",
        queries: &[(
            r#"sum(max by (namespace, relay) (outbox_dead_letters{namespace=~"$namespace"}))"#,
            "rows",
        )],
    },
    Panel {
        title: "Operators seen",
        look: Number,
        unit: "none",
        description: "Operators that Prometheus scrapes. Without one, relays continue, but no \
            change is applied.",
        queries: &[(
            "count(outbox_operator_reconcile_seconds_count) or vector(0)",
            "operators",
        )],
    },
];

const PROBLEMS: &[Panel] = &[Panel {
    title: "Problems now",
    look: Table,
    unit: "none",
    description: "Problems that relays report, by OutboxRelay and class. docs/reasons.md has the \
        next step for each class.",
    queries: &[(
        r#"sum by (namespace, relay, class) (outbox_problems{namespace=~"$namespace"}) > 0"#,
        "problems",
    )],
}];

const OUTBOXES: &[Panel] = &[Panel {
    title: "Outboxes",
    look: Table,
    unit: "none",
    description: "One line for each OutboxRelay.",
    queries: &[
        (
            r#"max by (namespace, relay) (outbox_event_age_seconds{namespace=~"$namespace"})"#,
            "oldest row, s",
        ),
        (
            r#"sum by (namespace, relay) (outbox_queue_depth{namespace=~"$namespace"})"#,
            "rows waiting",
        ),
        (
            concat!(
                r#"sum by (namespace, relay) "#,
                r#"(rate(outbox_events_published_total{namespace=~"$namespace"}"#,
                r#"[$__rate_interval]))"#,
            ),
            "records/s",
        ),
        (
            concat!(
                r#"max by (namespace, relay) (outbox_breaker_state{namespace=~"$namespace", "#,
                r#"state="Open"})"#,
            ),
            "breaker open",
        ),
        (
            r#"max by (namespace, relay) (outbox_parked_keys{namespace=~"$namespace"})"#,
            "parked keys",
        ),
        (
            r#"max by (namespace, relay) (outbox_dead_letters{namespace=~"$namespace"})"#,
            "dead letters",
        ),
        (
            r#"sum by (namespace, relay) (outbox_lanes_owned{namespace=~"$namespace"})"#,
            "lanes",
        ),
        (
            r#"count by (namespace, relay) (outbox_build_info{namespace=~"$namespace"})"#,
            "relays",
        ),
    ],
}];

const WAITING: &[Panel] = &[
    Panel {
        title: "Oldest row, the ten worst",
        look: Lines,
        unit: "s",
        description: "Age of the oldest row that may be published.",
        queries: &[(
            concat!(
                r#"topk(10, max by (namespace, relay) "#,
                r#"(outbox_event_age_seconds{namespace=~"$namespace"}))"#,
            ),
            "{{namespace}}/{{relay}}",
        )],
    },
    Panel {
        title: "Rows that wait, the ten worst",
        look: Lines,
        unit: "short",
        description: "Each relay counts up to 100,000 rows.",
        queries: &[(
            r#"topk(10, sum by (namespace, relay) (outbox_queue_depth{namespace=~"$namespace"}))"#,
            "{{namespace}}/{{relay}}",
        )],
    },
];

const RECORDS: &[Panel] = &[
    Panel {
        title: "Published",
        look: Lines,
        unit: "cps",
        description: "Records that Kafka acknowledged.",
        queries: &[(
            concat!(
                r#"sum by (namespace, relay) "#,
                r#"(rate(outbox_events_published_total{namespace=~"$namespace"}"#,
                r#"[$__rate_interval]))"#,
            ),
            "{{namespace}}/{{relay}}",
        )],
    },
    Panel {
        title: "Failed",
        look: Lines,
        unit: "cps",
        description: "Records that Kafka rejected, or that are sent again. An outage of Kafka \
            alone fails no record.",
        queries: &[(
            concat!(
                r#"sum by (namespace, relay, class) "#,
                r#"(rate(outbox_events_failed_total{namespace=~"$namespace"}[$__rate_interval]))"#,
            ),
            "{{namespace}}/{{relay}} {{class}}",
        )],
    },
    Panel {
        title: "New problems",
        look: Lines,
        unit: "cps",
        description: "How often a problem began. Shows intermittent problems.",
        queries: &[(
            concat!(
                r#"sum by (namespace, relay, class) "#,
                r#"(rate(outbox_relay_errors_total{namespace=~"$namespace"}[$__rate_interval]))"#,
            ),
            "{{namespace}}/{{relay}} {{class}}",
        )],
    },
];
