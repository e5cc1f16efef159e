//! docs/metrics.md documents all metrics and labels that alerts and dashboards use. Pure.

use std::collections::BTreeSet;

use outbox_relay::report::ProblemClass;
use serde_json::Value;

use crate::{
    alerts, dashboards,
    observed::{Families, documented},
};

/// Other words in expressions: functions and keywords.
const WORDS: &[&str] = &[
    "absent",
    "and",
    "by",
    "count",
    "histogram_quantile",
    "increase",
    "label_values",
    "max",
    "max_over_time",
    "or",
    "rate",
    "sum",
    "topk",
    "unless",
    "vector",
];

/// All expressions of the chart, with the names of their owners.
pub(crate) fn all() -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let alerts = alerts::alerts()
        .into_iter()
        .map(|alert| (text(&alert["alert"]), text(&alert["expr"])));
    alerts.chain(dashboards::expressions()).collect()
}

/// The names in an expression.
#[derive(Debug, Default, PartialEq)]
struct Names {
    /// Metrics with the labels of their selectors.
    metrics: Vec<(String, BTreeSet<String>)>,
    /// Labels of `by (..)`, `on (..)` and `group_left (..)`.
    groups: BTreeSet<String>,
    words: BTreeSet<String>,
    /// Values of the label `class`.
    classes: Vec<String>,
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn names(expression: &str) -> Names {
    let (mut found, mut rest) = (Names::default(), expression);
    while let Some(start) = rest.find(|c: char| is_name(c) || "[\"".contains(c)) {
        rest = &rest[start..];
        if let Some((_, after)) = rest.strip_prefix('"').and_then(|text| text.split_once('"')) {
            rest = after;
            continue;
        }
        if let Some((_, after)) = rest.strip_prefix('[').and_then(|span| span.split_once(']')) {
            rest = after;
            continue;
        }
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        if name.starts_with("outbox_") {
            let selector = after
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'));
            found.metrics.push((
                name.to_owned(),
                labels(selector.map_or("", |(inner, _)| inner), &mut found.classes),
            ));
            rest = selector.map_or(after, |(_, after)| after);
        } else if ["by", "on", "group_left"].contains(&name) {
            let (group, after) = after
                .trim_start()
                .strip_prefix('(')
                .and_then(|inner| inner.split_once(')'))
                .expect("labels to group by");
            found
                .groups
                .extend(group.split(',').map(|label| label.trim().to_owned()));
            rest = after;
        } else if name.parse::<f64>().is_err() && !name.starts_with(|c: char| c.is_ascii_digit()) {
            found.words.insert(name.to_owned());
        }
    }
    found
}

fn labels(selector: &str, classes: &mut Vec<String>) -> BTreeSet<String> {
    let matchers = selector
        .split(',')
        .filter(|matcher| !matcher.trim().is_empty());
    let name = |matcher: &str| {
        let (name, value) = matcher
            .trim()
            .split_at(matcher.trim().find(|c| !is_name(c)).expect("a matcher"));
        if name == "class" {
            classes.push(value.trim_matches(|c| "=!~\"".contains(c)).to_owned());
        }
        name.to_owned()
    };
    matchers.map(name).collect()
}

/// The labels of a metric in Prometheus, with those that the chart's monitors add. `None` if the
/// metric is not documented.
fn has(metric: &str, documented: &Families) -> Option<BTreeSet<String>> {
    let of_histogram = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|suffix| metric.strip_suffix(suffix));
    let found = documented.get(metric).or_else(|| {
        documented
            .get(of_histogram?)
            .filter(|(kind, _)| kind == "histogram")
    });
    let mut labels = found?.1.clone();
    labels.extend(["namespace", "pod"].map(str::to_owned));
    labels.extend((!metric.starts_with("outbox_operator_")).then(|| "relay".to_owned()));
    labels.extend(metric.ends_with("_bucket").then(|| "le".to_owned()));
    Some(labels)
}

/// The undocumented names in an expression.
fn undocumented(expression: &str, documented: &Families) -> Vec<String> {
    let names = names(expression);
    let mut wrong: Vec<String> = names
        .words
        .iter()
        .filter(|word| !WORDS.contains(&word.as_str()))
        .cloned()
        .collect();
    let mut all = BTreeSet::new();
    for (metric, labels) in &names.metrics {
        match has(metric, documented) {
            Some(known) => {
                wrong.extend(
                    labels
                        .difference(&known)
                        .map(|label| format!("{metric}{{{label}}}")),
                );
                all.extend(known);
            }
            None => wrong.push(metric.clone()),
        }
    }
    wrong.extend(
        names
            .groups
            .difference(&all)
            .map(|label| format!("by ({label})")),
    );
    let operators = ["conflict", "transient", "permanent"];
    wrong.extend(names.classes.into_iter().filter(|class| {
        class.parse() == Ok(ProblemClass::Other) && !operators.contains(&class.as_str())
    }));
    wrong
}

#[test]
fn alerts_and_dashboards_ask_only_for_what_is_documented() {
    let (documented, all) = (documented(), all());
    assert!(all.len() > 60, "{}", all.len());
    let wrong: Vec<String> = (all.iter())
        .map(|(of, expression)| (of, undocumented(expression, &documented)))
        .filter(|(_, wrong)| !wrong.is_empty())
        .map(|(of, wrong)| format!("{of}: {wrong:?}"))
        .collect();
    assert!(wrong.is_empty(), "docs/metrics.md has none of {wrong:#?}");
}

#[test]
fn every_documented_metric_is_shown_or_alerted_on() {
    let asked: Vec<String> = all()
        .iter()
        .flat_map(|(_, expression)| names(expression).metrics)
        .map(|(metric, _)| metric)
        .collect();
    let unseen: Vec<String> = documented()
        .into_keys()
        .filter(|name| !asked.iter().any(|metric| metric.starts_with(name.as_str())))
        .collect();
    assert!(
        unseen.is_empty(),
        "on no dashboard and in no alert: {unseen:?}"
    );
}

#[test]
fn a_name_that_does_not_exist_is_found() {
    let documented = documented();
    let check = |expression| undocumented(expression, &documented);
    assert_eq!(
        check(concat!(
            r#"sum by (relay) (rate(outbox_events_failed_total{topic="t", "#,
            r#"class="KeysParked"}[$__rate_interval])) > 0.5"#,
        )),
        [] as [&str; 0]
    );
    assert_eq!(check("max(outbox_queue_dept)"), ["outbox_queue_dept"]);
    assert_eq!(check("outbox_queue_depth_sum"), ["outbox_queue_depth_sum"]);
    assert_eq!(
        check(r#"outbox_queue_depth{topic="t"} or up"#),
        ["up", "outbox_queue_depth{topic}"]
    );
    assert_eq!(
        check(
            "sum by (le) (outbox_fetch_seconds_bucket) / sum by (topic) \
             (outbox_fetch_seconds_count)"
        ),
        ["by (topic)"]
    );
    assert_eq!(
        check(r#"outbox_problems{class="TopicStaled"}"#),
        ["TopicStaled"]
    );
}
