//! Prometheus scrapes running relays and an operator, and each expression of dashboards and alerts
//! has a result.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::PostParams;
use outbox_relay::{
    api::OutboxRelay,
    report::ProblemClass,
    settings::{OnPoison, TopicSettings},
};
use serde_json::{Value, json};

use crate::{
    dashboards::RATE_INTERVAL,
    expressions,
    harness::{
        kafka::{create_topic_with, topic_name},
        kubernetes::{Namespace, manifest},
        operator::OperatorProcess,
        postgres::{Database, execute},
        prometheus::Prometheus,
        relay::{Relay, until},
        server::free_port,
        writers::Steady,
    },
    observed::{Exported, documented},
};

/// Alerts whose causes this test creates: they must fire. The other alerts must have a value to
/// compare.
const FIRING: [&str; 5] = [
    "OutboxKeysParked",
    "OutboxDeadLetters",
    "OutboxRelayGone",
    "OutboxTopicStalled",
    "OutboxOperatorFailing",
];
/// An alert that fires without an operator, so it is checked before the operator starts.
const ABSENT: &str = "OutboxOperatorAbsent";

/// Creates two topics that reject large rows: one parks their keys, one makes them dead letters.
async fn topics() -> [TopicSettings; 2] {
    let topics = [
        ("monitored-block", OnPoison::Block),
        ("monitored-dead", OnPoison::DeadLetter),
    ]
    .map(|(name, on_poison)| TopicSettings {
        name: topic_name(name),
        event_types: vec![],
        aggregate_types: vec![],
        on_poison,
    });
    for topic in &topics {
        create_topic_with(&topic.name, 2, &[("max.message.bytes", "100000")]).await;
    }
    topics
}

/// Writes a large row for each topic, and a row of an undeclared topic.
async fn write_rejected_rows(database: &Database, topics: &[TopicSettings]) {
    let large = "(select string_agg(sha256(int4send(g)), '') from generate_series(1, 9500) g)";
    let rows = topics
        .iter()
        .map(|topic| (topic.name.as_str(), large))
        .chain([("nobody.declared", "''")]);
    for (topic, payload) in rows {
        let row = format!(
            "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload) \
             values ('a', 'k', 'E', '{topic}', {payload})"
        );
        execute(&mut database.as_admin().await, &row).await;
    }
}

/// Creates an OutboxRelay that works and scales, and one with a name conflict, whose schema is
/// never created.
async fn objects() -> Namespace {
    let ns = Namespace::create().await;
    ns.create_relay(|relay| relay["spec"]["scaling"] = json!({"minReplicas": 1, "maxReplicas": 3}))
        .await;
    ns.create_object::<Service>(
        json!({"metadata": {"name": "taken-relay"}, "spec": {"ports": [{"port": 80}]}}),
    )
    .await;
    let mut taken = manifest();
    taken["metadata"]["name"] = json!("taken");
    taken["spec"]["migration"]["policy"] = json!("Apply");
    let taken: OutboxRelay = serde_json::from_value(taken).expect("a manifest");
    ns.api::<OutboxRelay>()
        .create(&PostParams::default(), &taken)
        .await
        .expect("a valid manifest");
    ns
}

/// Fills in the variables of an expression with all values selected. A stalled topic needs failing
/// brokers, so the expression asks for any problem instead.
fn with_variables(name: &str, expression: &str) -> String {
    let expression = expression
        .replace(RATE_INTERVAL, "20s")
        .replace("$namespace", ".*")
        .replace("$relay", ".*");
    // The relays of this test do not have these problems, but others of the same metric.
    let expression = [
        ProblemClass::ClockSkew,
        ProblemClass::TopicStalled,
        ProblemClass::KafkaThrottled,
    ]
    .into_iter()
    .fold(expression, |text, class| {
        text.replace(
            &class.to_string(),
            &ProblemClass::TopicUnderReplicated.to_string(),
        )
    });
    let healthy = name.starts_with("Outbox") && !FIRING.contains(&name);
    if healthy {
        without_threshold(&expression).to_owned()
    } else {
        expression
    }
}

/// An expression without its comparison at the end.
fn without_threshold(expression: &str) -> &str {
    let compared = |at: usize| {
        expression[at + 3..]
            .trim()
            .parse::<f64>()
            .is_ok()
            .then(|| &expression[..at])
    };
    [" > ", " < "]
        .iter()
        .find_map(|sign| compared(expression.rfind(sign)?))
        .unwrap_or(expression)
}

/// Whether one of the samples is a number.
fn has_number(samples: &[Value]) -> bool {
    samples.iter().any(|sample| sample["value"][1] != "NaN")
}

async fn has_answer(prometheus: &Prometheus, name: &str, expression: &str) {
    let mut last = Ok(vec![]);
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    loop {
        let answer = prometheus.query(expression).await;
        if answer.as_ref().is_ok_and(|samples| has_number(samples)) {
            return;
        }
        if answer != last {
            eprintln!("{name}: {answer:?}");
            last = answer;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{name}: {expression} has no answer: {last:?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_expression_of_dashboards_and_alerts_has_an_answer() {
    let database = Database::create(15).await.migrated().await;
    let (topics, ns, operator_port) = (topics().await, objects().await, free_port().await);
    let settings = database.publishing(topics.to_vec());
    let relay = Relay::start(&database, &settings).await;
    let mut removed = Relay::start(&database, &settings).await;
    let load = Steady::start(&database, &topics[0].name, 50);
    let prometheus = Prometheus::start(&[
        (
            relay.port(),
            &[
                ("namespace", "essays"),
                ("relay", "file-service"),
                ("pod", "a"),
            ],
        ),
        (
            removed.port(),
            &[("namespace", "essays"), ("relay", "gone"), ("pod", "b")],
        ),
        (
            operator_port,
            &[("namespace", "outbox-system"), ("pod", "o")],
        ),
    ])
    .await;
    let all = expressions::all();
    let absent = all
        .iter()
        .find(|(name, _)| name == ABSENT)
        .expect("an alert on an operator that is not there");
    has_answer(&prometheus, ABSENT, &absent.1).await;
    has_answer(
        &prometheus,
        "a relay that will go",
        r#"outbox_build_info{relay="gone"}"#,
    )
    .await;

    let _operator = OperatorProcess::start(&ns.name, operator_port, None).await;
    removed.stop().await;
    // At this time, so that the remaining relay has processed them.
    write_rejected_rows(&database, &topics).await;
    for (name, expression) in all.iter().filter(|(name, _)| name != ABSENT) {
        has_answer(&prometheus, name, &with_variables(name, expression)).await;
    }
    load.stop().await;

    let metrics = until("the operator's metrics", async || {
        crate::harness::server::get(operator_port, "/metrics").await
    })
    .await;
    let documented = documented()
        .into_iter()
        .filter(|(name, _)| name.starts_with("outbox_operator_"));
    assert_eq!(
        Exported::parse(&metrics).families,
        documented.collect(),
        "exported, and documented in docs/metrics.md"
    );
}
