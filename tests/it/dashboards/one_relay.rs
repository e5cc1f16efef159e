//! The dashboard of one outbox, with its relays side by side.

use serde_json::Value;

use super::grafana::{
    Dashboard,
    Look::{Bad, Lines, Number, Table},
    Panel, Row,
};

pub(super) fn dashboard() -> Value {
    Dashboard {
        uid: "outbox-relay",
        title: "Outbox: one relay",
        description: "One OutboxRelay and its pods.",
        variables: &[
            ("namespace", "label_values(outbox_build_info, namespace)"),
            (
                "relay",
                r#"label_values(outbox_build_info{namespace=~"$namespace"}, relay)"#,
            ),
        ],
        rows: &[
            Row {
                title: "State",
                height: 4,
                panels: STATE,
            },
            Row {
                title: "What is wrong",
                height: 6,
                panels: PROBLEMS,
            },
            Row {
                title: "In and out",
                height: 8,
                panels: FLOW,
            },
            Row {
                title: "How long it takes",
                height: 8,
                panels: TIMES,
            },
            Row {
                title: "Pods",
                height: 8,
                panels: PODS,
            },
            Row {
                title: "Kafka",
                height: 8,
                panels: KAFKA,
            },
            Row {
                title: "The table",
                height: 8,
                panels: TABLE,
            },
        ],
    }
    .json()
}

const STATE: &[Panel] = &[
    Panel {
        title: "Oldest row",
        look: Bad(300.0),
        unit: "s",
        description: "Age of the oldest row that may be published.",
        queries: &[(
            r#"max(outbox_event_age_seconds{namespace=~"$namespace", relay=~"$relay"})"#,
            "age",
        )],
    },
    Panel {
        title: "Rows that wait",
        look: Number,
        unit: "short",
        description: "Each relay counts up to 100,000 rows.",
        queries: &[(
            r#"sum(outbox_queue_depth{namespace=~"$namespace", relay=~"$relay"})"#,
            "rows",
        )],
    },
    Panel {
        title: "Lanes without a relay",
        look: Bad(1.0),
        unit: "none",
        description: "Of 64 lanes. Rows in them wait.",
        queries: &[(
            concat!(
                r#"sum(64 - sum by (namespace, relay) "#,
                r#"(outbox_lanes_owned{namespace=~"$namespace", relay=~"$relay"}))"#,
            ),
            "lanes",
        )],
    },
    Panel {
        title: "Open breakers",
        look: Bad(1.0),
        unit: "none",
        description: "Pods whose records Kafka does not acknowledge.",
        queries: &[(
            r#"sum(outbox_breaker_state{namespace=~"$namespace", relay=~"$relay", state="Open"})"#,
            "pods",
        )],
    },
    Panel {
        title: "Parked keys",
        look: Bad(1.0),
        unit: "none",
        description: "Keys whose rows wait until a person decides.",
        queries: &[(
            r#"max(outbox_parked_keys{namespace=~"$namespace", relay=~"$relay"})"#,
            "keys",
        )],
    },
    Panel {
        title: "Dead letters",
        look: Bad(1.0),
        unit: "none",
        description: "Rows that Kafka rejected, and that no consumer received.",
        queries: &[(
            r#"max(outbox_dead_letters{namespace=~"$namespace", relay=~"$relay"})"#,
            "rows",
        )],
    },
];

const PROBLEMS: &[Panel] = &[
    Panel {
        title: "Problems now",
        look: Table,
        unit: "none",
        description: "Problems that its pods report. docs/reasons.md has the next step for each \
            class.",
        queries: &[(
            concat!(
                r#"sum by (pod, class) (outbox_problems{namespace=~"$namespace", "#,
                r#"relay=~"$relay"}) > 0"#,
            ),
            "problems",
        )],
    },
    Panel {
        title: "Versions",
        look: Table,
        unit: "none",
        description: "Version that each pod runs.",
        queries: &[(
            concat!(
                r#"count by (pod, version) (outbox_build_info{namespace=~"$namespace", "#,
                r#"relay=~"$relay"})"#,
            ),
            "pods",
        )],
    },
];

const FLOW: &[Panel] = &[
    Panel {
        title: "Written and published",
        look: Lines,
        unit: "cps",
        description: "Rows that were fetched for the first time, and records that Kafka \
            acknowledged. While the first is above the second, the backlog grows.",
        queries: &[
            (
                concat!(
                    r#"sum(rate(outbox_events_added_total{namespace=~"$namespace", "#,
                    r#"relay=~"$relay"}[$__rate_interval]))"#,
                ),
                "written",
            ),
            (
                concat!(
                    r#"sum(rate(outbox_events_published_total{namespace=~"$namespace", "#,
                    r#"relay=~"$relay"}[$__rate_interval]))"#,
                ),
                "published",
            ),
        ],
    },
    Panel {
        title: "Published by topic",
        look: Lines,
        unit: "cps",
        description: "Records that Kafka acknowledged.",
        queries: &[(
            concat!(
                r#"sum by (topic) (rate(outbox_events_published_total{namespace=~"$namespace", "#,
                r#"relay=~"$relay"}[$__rate_interval]))"#,
            ),
            "{{topic}}",
        )],
    },
    Panel {
        title: "Failed by topic",
        look: Lines,
        unit: "cps",
        description: "Records that Kafka rejected, or that are sent again.",
        queries: &[(
            concat!(
                r#"sum by (topic, class) "#,
                r#"(rate(outbox_events_failed_total{namespace=~"$namespace", "#,
                r#"relay=~"$relay"}[$__rate_interval]))"#,
            ),
            "{{topic}} {{class}}",
        )],
    },
];

const TIMES: &[Panel] = &[
    Panel {
        title: "From commit to Kafka",
        look: Lines,
        unit: "s",
        description: "From a row's created_at to Kafka's acknowledgement.",
        queries: &[
            (
                concat!(
                    r#"histogram_quantile(0.5, sum by (le) "#,
                    r#"(rate(outbox_publish_latency_seconds_bucket{namespace=~"$namespace", "#,
                    r#"relay=~"$relay"}[$__rate_interval])))"#,
                ),
                "median",
            ),
            (
                concat!(
                    r#"histogram_quantile(0.99, sum by (le) "#,
                    r#"(rate(outbox_publish_latency_seconds_bucket{namespace=~"$namespace", "#,
                    r#"relay=~"$relay"}[$__rate_interval])))"#,
                ),
                "99 %",
            ),
        ],
    },
    Panel {
        title: "In the relay",
        look: Lines,
        unit: "s",
        description: "From the fetch of a row to its deletion.",
        queries: &[
            (
                concat!(
                    r#"histogram_quantile(0.5, sum by (le) "#,
                    r#"(rate(outbox_relay_processing_seconds_bucket{namespace=~"$namespace", "#,
                    r#"relay=~"$relay"}[$__rate_interval])))"#,
                ),
                "median",
            ),
            (
                concat!(
                    r#"histogram_quantile(0.99, sum by (le) "#,
                    r#"(rate(outbox_relay_processing_seconds_bucket{namespace=~"$namespace", "#,
                    r#"relay=~"$relay"}[$__rate_interval])))"#,
                ),
                "99 %",
            ),
        ],
    },
    Panel {
        title: "Way to the brokers",
        look: Lines,
        unit: "s",
        description: "The round trip to the broker that is farthest away, and for how long a quota \
                      mutes requests.",
        queries: &[
            (
                concat!(
                    r#"max(outbox_kafka_round_trip_seconds{namespace=~"$namespace", "#,
                    r#"relay=~"$relay"})"#,
                ),
                "round trip",
            ),
            (
                concat!(
                    r#"max(outbox_kafka_throttle_seconds{namespace=~"$namespace", "#,
                    r#"relay=~"$relay"})"#,
                ),
                "muted",
            ),
        ],
    },
    Panel {
        title: "Fetch",
        look: Lines,
        unit: "s",
        description: "One fetch from the database. It grows with dead rows.",
        queries: &[
            (
                concat!(
                    r#"histogram_quantile(0.5, sum by (le) "#,
                    r#"(rate(outbox_fetch_seconds_bucket{namespace=~"$namespace", "#,
                    r#"relay=~"$relay"}[$__rate_interval])))"#,
                ),
                "median",
            ),
            (
                concat!(
                    r#"histogram_quantile(0.99, sum by (le) "#,
                    r#"(rate(outbox_fetch_seconds_bucket{namespace=~"$namespace", "#,
                    r#"relay=~"$relay"}[$__rate_interval])))"#,
                ),
                "99 %",
            ),
        ],
    },
    Panel {
        title: "Settle",
        look: Lines,
        unit: "s",
        description: "One statement that deletes published rows.",
        queries: &[
            (
                concat!(
                    r#"histogram_quantile(0.5, sum by (le) "#,
                    r#"(rate(outbox_settle_seconds_bucket{namespace=~"$namespace", "#,
                    r#"relay=~"$relay"}[$__rate_interval])))"#,
                ),
                "median",
            ),
            (
                concat!(
                    r#"histogram_quantile(0.99, sum by (le) "#,
                    r#"(rate(outbox_settle_seconds_bucket{namespace=~"$namespace", "#,
                    r#"relay=~"$relay"}[$__rate_interval])))"#,
                ),
                "99 %",
            ),
        ],
    },
];

const PODS: &[Panel] = &[
    Panel {
        title: "Lanes",
        look: Lines,
        unit: "none",
        description: "Lanes that each pod owns. The sum is 64.",
        queries: &[(
            r#"sum by (pod) (outbox_lanes_owned{namespace=~"$namespace", relay=~"$relay"})"#,
            "{{pod}}",
        )],
    },
    Panel {
        title: "Rows in flight",
        look: Lines,
        unit: "short",
        description: "Rows between fetch and deletion, at most 16,384.",
        queries: &[(
            r#"sum by (pod) (outbox_in_flight_rows{namespace=~"$namespace", relay=~"$relay"})"#,
            "{{pod}}",
        )],
    },
    Panel {
        title: "Bytes in flight",
        look: Lines,
        unit: "bytes",
        description: "Payloads, headers and texts of these rows, at most about 32 MiB.",
        queries: &[(
            r#"sum by (pod) (outbox_in_flight_bytes{namespace=~"$namespace", relay=~"$relay"})"#,
            "{{pod}}",
        )],
    },
    Panel {
        title: "Rows that wait",
        look: Lines,
        unit: "short",
        description: "Rows that wait in the lanes of each pod.",
        queries: &[(
            r#"sum by (pod) (outbox_queue_depth{namespace=~"$namespace", relay=~"$relay"})"#,
            "{{pod}}",
        )],
    },
];

const KAFKA: &[Panel] = &[
    Panel {
        title: "Breaker",
        look: Lines,
        unit: "none",
        description: "Pods by the state of their breaker.",
        queries: &[(
            r#"sum by (state) (outbox_breaker_state{namespace=~"$namespace", relay=~"$relay"})"#,
            "{{state}}",
        )],
    },
    Panel {
        title: "New problems",
        look: Lines,
        unit: "cps",
        description: "How often a problem began.",
        queries: &[(
            concat!(
                r#"sum by (class) (rate(outbox_relay_errors_total{namespace=~"$namespace", "#,
                r#"relay=~"$relay"}[$__rate_interval]))"#,
            ),
            "{{class}}",
        )],
    },
    Panel {
        title: "Kafka clients",
        look: Lines,
        unit: "none",
        description: "Clients of each pod that share the partitions: one while few requests are \
                      under way, eight at most.",
        queries: &[(
            r#"sum by (pod) (outbox_kafka_clients{namespace=~"$namespace", relay=~"$relay"})"#,
            "{{pod}}",
        )],
    },
    Panel {
        title: "Partitions added",
        look: Lines,
        unit: "none",
        description: "Keys of the topic moved to other partitions. Their order does not hold \
            across that moment.",
        queries: &[(
            concat!(
                r#"sum by (topic) "#,
                r#"(increase(outbox_topic_partitions_added_total{namespace=~"$namespace", "#,
                r#"relay=~"$relay"}[$__rate_interval]))"#,
            ),
            "{{topic}}",
        )],
    },
];

const TABLE: &[Panel] = &[
    Panel {
        title: "Oldest transaction",
        look: Lines,
        unit: "s",
        description: "Age of the oldest transaction that keeps vacuum from removing dead rows. \
            Above half an hour the alert OutboxXminHeld fires.",
        queries: &[(
            concat!(
                r#"max by (namespace, relay) (outbox_xmin_age_seconds{namespace=~"$namespace", "#,
                r#"relay=~"$relay"})"#,
            ),
            "{{namespace}}/{{relay}}",
        )],
    },
    Panel {
        title: "Dead rows",
        look: Lines,
        unit: "short",
        description: "Dead rows of the table, as the server estimates them.",
        queries: &[(
            concat!(
                r#"max by (namespace, relay) (outbox_dead_tuples{namespace=~"$namespace", "#,
                r#"relay=~"$relay"})"#,
            ),
            "{{namespace}}/{{relay}}",
        )],
    },
    Panel {
        title: "Stragglers",
        look: Lines,
        unit: "none",
        description: "Rows that only the gap scan found. Above 0, ids were used twice.",
        queries: &[(
            concat!(
                r#"sum by (namespace, relay) "#,
                r#"(increase(outbox_stragglers_found_total{namespace=~"$namespace", "#,
                r#"relay=~"$relay"}[$__rate_interval]))"#,
            ),
            "{{namespace}}/{{relay}}",
        )],
    },
    Panel {
        title: "Replaced headers",
        look: Lines,
        unit: "none",
        description: "Row headers that had the name of a relay header and were replaced.",
        queries: &[(
            concat!(
                r#"sum by (namespace, relay) "#,
                r#"(increase(outbox_replaced_headers_total{namespace=~"$namespace", "#,
                r#"relay=~"$relay"}[$__rate_interval]))"#,
            ),
            "{{namespace}}/{{relay}}",
        )],
    },
];
