//! Compares the reports of a relay with the pages that document them: `/metrics` with
//! docs/metrics.md, `/status` with docs/status.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use outbox_relay::{
    report::{ProblemClass, RelayReport},
    settings::{OnPoison, TopicSettings},
};
use serde_json::Value;

use crate::harness::{
    kafka::{create_topic_with, topic_name},
    postgres::{Database, execute},
    prometheus::{output_text, promtool},
    relay::{Relay, until},
};

/// Types and labels of metrics by name.
pub(crate) type Families = BTreeMap<String, (String, BTreeSet<String>)>;

/// Starts a relay that has published rows and parked a key behind a rejected row. Another row waits
/// because its topic is not declared.
async fn busy() -> (Database, Relay, String) {
    let database = Database::create(15).await.migrated().await;
    let topic = topic_name("observed");
    create_topic_with(&topic, 2, &[("max.message.bytes", "100000")]).await;
    let rows = format!(
        "insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
         select 'a', 'k' || n, 'E', '{topic}', case when n = 7
           then (select string_agg(sha256(int4send(g)), '') from generate_series(1, 9500) g) \
           else convert_to(n::text, 'UTF8') end
         from generate_series(1, 20) n;
         insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload) \
         values ('a', 'k1', 'E', 'nobody.declared', '')"
    );
    execute(&mut database.as_admin().await, &rows).await;
    let declared = TopicSettings {
        name: topic.clone(),
        event_types: vec![],
        aggregate_types: vec![],
        on_poison: OnPoison::Block,
    };
    let relay = Relay::start(&database, &database.publishing(vec![declared])).await;
    let mut seen = None;
    let wait = until(
        "a parked key, published rows and one that waits",
        async || {
            let report = relay.report().await?;
            let waits = report
                .backlog
                .as_ref()
                .is_some_and(|backlog| backlog.rows > 0 && backlog.oldest_at.is_some());
            let reported = [ProblemClass::RecordTooLarge, ProblemClass::TopicNotDeclared]
                .map(|class| report.problems.iter().any(|problem| problem.class == class));
            let done = waits
                && reported == [true, true]
                && report.parked_keys == Some(1)
                && report.lanes == 64;
            if !done && seen.as_ref() != Some(&report) {
                eprintln!("{report:?}");
                seen = Some(report);
            }
            done.then_some(())
        },
    );
    wait.await;
    (database, relay, topic)
}

/// The cells of a page's table rows whose first cell is a name in backquotes.
fn table(page: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(page);
    let text = std::fs::read_to_string(path).expect("a page");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        row.trim_matches('|')
            .split(" |")
            .map(|cell| cell.trim_matches(['|', ' ']).to_owned())
            .collect()
    })
    .collect()
}

/// All metrics of docs/metrics.md.
pub(crate) fn documented() -> Families {
    table("metrics.md")
        .into_iter()
        .map(|row| {
            (
                row[0].trim_matches('`').to_owned(),
                (row[1].clone(), names(&row[2])),
            )
        })
        .collect()
}

/// The words in backquotes.
fn names(cell: &str) -> BTreeSet<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_the_documented_ones_with_harmless_labels_and_promtool_has_no_complaint() {
    let (_database, relay, topic) = busy().await;
    let text = relay.get("/metrics").await.expect("an answer");
    let exported = Exported::parse(&text);
    let documented = documented()
        .into_iter()
        .filter(|(name, _)| !name.starts_with("outbox_operator_"))
        .collect();
    assert_eq!(
        exported.families, documented,
        "exported, and documented in docs/metrics.md"
    );

    for (label, values) in &exported.labels {
        let harmless = |value: &String| match label.as_str() {
            "topic" => *value == topic,
            "class" => value.parse() != Ok(ProblemClass::Other),
            "state" => ["Closed", "Slow", "Open"].contains(&value.as_str()),
            "version" => value == env!("CARGO_PKG_VERSION"),
            _ => false,
        };
        assert!(values.iter().all(harmless), "{label}: {values:?}");
    }
    let checked = promtool(&["check", "metrics"], &text);
    assert!(
        checked.status.success() && output_text(&checked).is_empty(),
        "promtool: {}",
        output_text(&checked)
    );
}

/// The metrics of `/metrics`.
#[derive(Default)]
pub(crate) struct Exported {
    pub(crate) families: Families,
    /// All values of each label.
    labels: BTreeMap<String, BTreeSet<String>>,
}

impl Exported {
    /// Parses the text format. Families without samples are not in the text.
    pub(crate) fn parse(text: &str) -> Self {
        let mut exported = Self::default();
        let mut family = String::new();
        for line in text.lines() {
            if let Some((name, kind)) = line
                .strip_prefix("# TYPE ")
                .and_then(|rest| rest.split_once(' '))
            {
                name.clone_into(&mut family);
                exported
                    .families
                    .insert(family.clone(), (kind.to_owned(), BTreeSet::new()));
            } else if !line.starts_with('#') {
                assert!(line.starts_with(&family), "{line} belongs to no family");
                exported.sample(&family, line);
            }
        }
        exported
    }

    /// Adds a sample `name{label="value",...} number`. `le` belongs to the type.
    fn sample(&mut self, family: &str, line: &str) {
        let labels = line
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'))
            .map_or("", |(labels, _)| labels);
        for (label, value) in labels
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .filter(|(label, _)| *label != "le")
        {
            self.families
                .get_mut(family)
                .expect("its family")
                .1
                .insert(label.to_owned());
            self.labels
                .entry(label.to_owned())
                .or_default()
                .insert(value.trim_matches('"').to_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_is_a_report_with_exactly_the_documented_fields() {
    let (_database, relay, _) = busy().await;
    let text = relay.get("/status").await.expect("an answer");
    let report: RelayReport = serde_json::from_str(&text).expect("a report");
    assert_eq!(report.version, env!("CARGO_PKG_VERSION"));
    let mut served = BTreeSet::new();
    fields("", &serde_json::from_str(&text).expect("JSON"), &mut served);
    let documented: BTreeSet<String> = table("status.md")
        .iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    assert_eq!(
        served, documented,
        "served, and documented in docs/status.md"
    );
}

/// Collects the paths of all fields, including those in lists: `backlog.rows`, `problems[].class`.
fn fields(path: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                fields(&path, value, found);
                found.insert(path);
            }
        }
        Value::Array(list) => list
            .iter()
            .for_each(|value| fields(&format!("{path}[]"), value, found)),
        _ => {}
    }
}
