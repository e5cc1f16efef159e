//! The chart's alerts: their fields, and their tests by promtool. Needs no server.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::harness::{
    kubernetes::program,
    prometheus::{output_text, promtool},
};

const RULES: &str = "charts/outbox-operator/files/alerts.yaml";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All alerts of the chart.
pub(crate) fn alerts() -> Vec<Value> {
    let text = fs::read_to_string(root().join(RULES)).expect("the chart's alerts");
    of(&serde_yaml::from_str(&text).expect("YAML"))
}

fn of(rules: &Value) -> Vec<Value> {
    let groups = rules["groups"].as_array().expect("groups");
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules").clone())
        .collect()
}

fn text<'a>(alert: &'a Value, pointer: &str) -> &'a str {
    alert
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Names of the files in a folder, without `.md` or `.yaml`.
fn names(folder: &str) -> BTreeSet<String> {
    let files =
        fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    files
        .map(|file| {
            Path::new(&file.expect("a file").file_name())
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

#[test]
fn every_alert_has_a_runbook_and_a_test_and_there_are_no_others() {
    let alerts: BTreeSet<String> = alerts()
        .iter()
        .map(|alert| text(alert, "/alert").to_owned())
        .collect();
    assert_eq!(
        names("docs/runbooks"),
        alerts,
        "pages in docs/runbooks, and alerts"
    );
    assert_eq!(
        names("tests/alerts"),
        alerts,
        "tests in tests/alerts, and alerts"
    );
}

#[test]
fn every_alert_has_a_severity_a_summary_and_a_next_step() {
    for alert in alerts() {
        assert!(
            ["critical", "warning"].contains(&text(&alert, "/labels/severity")),
            "{alert}"
        );
        for words in ["/annotations/summary", "/annotations/description"] {
            assert!(text(&alert, words).ends_with('.'), "{words} of {alert}");
        }
    }
}

#[test]
fn every_alert_passes_its_promtool_test() {
    let checked = promtool(&["check", "rules", RULES], "");
    assert!(checked.status.success(), "{}", output_text(&checked));
    for name in names("tests/alerts") {
        let file = format!("tests/alerts/{name}.yaml");
        let test: Value =
            serde_yaml::from_str(&fs::read_to_string(root().join(&file)).expect("a test"))
                .expect("YAML");
        let cases = test["tests"].as_array().expect("tests");
        let expected: Vec<bool> = cases
            .iter()
            .map(|case| case["alert_rule_test"][0]["exp_alerts"] != Value::Array(vec![]))
            .collect();
        assert!(
            expected.contains(&true) && expected.contains(&false),
            "{file} tests that the alert fires and that it does not"
        );
        assert!(
            cases
                .iter()
                .all(|case| case["alert_rule_test"][0]["alertname"] == name.as_str()),
            "{file} tests {name}"
        );
        let tested = promtool(&["test", "rules", &file], "");
        assert!(tested.status.success(), "{}", output_text(&tested));
    }
}

#[test]
fn recording_rules_keep_the_labels_of_the_platforms_dashboards() {
    let tested = promtool(&["test", "rules", "examples/monitoring/test.yaml"], "");
    assert!(tested.status.success(), "{}", output_text(&tested));
}

#[test]
fn the_chart_links_each_alert_to_its_runbook() {
    let values = "monitoring.prometheusRule.enabled=true,\
                  monitoring.prometheusRule.runbookUrl=https://wiki.invalid/books";
    let chart = root().join("charts/outbox-operator");
    let arguments = [
        "template",
        "x",
        chart.to_str().expect("UTF-8"),
        "-s",
        "templates/prometheusrule.yaml",
        "--set",
        values,
    ];
    let rendered = program("helm", &arguments, "");
    assert!(rendered.status.success(), "{}", output_text(&rendered));
    let rule: Value = serde_yaml::from_slice(&rendered.stdout).expect("YAML");
    let mut expected = alerts();
    for alert in &mut expected {
        alert["annotations"]["runbook_url"] =
            format!("https://wiki.invalid/books/{}.md", text(alert, "/alert")).into();
    }
    assert_eq!(of(&rule["spec"]), expected);
}

/// The commands of a page that call the relay's program, in a pod or elsewhere, from its name on.
fn commands(page: &str) -> Vec<String> {
    let lines = page
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.split(['#', '>']).next());
    let call = |line: &str| {
        line.strip_prefix("outbox-relay ")
            .or_else(|| Some(line.split_once("-- outbox-relay ")?.1))
            .map(str::to_owned)
    };
    lines.filter_map(call).collect()
}

/// Each command is called as it is written. It fails when it reads the manifest or the settings,
/// which do not exist here.
#[test]
fn the_program_accepts_all_commands_of_the_pages() {
    let pages = ["docs/runbooks", "docs"].map(|folder| {
        names(folder)
            .into_iter()
            .map(move |name| format!("{folder}/{name}.md"))
    });
    let mut tried = 0;
    for page in pages
        .into_iter()
        .flatten()
        .filter(|page| root().join(page).exists())
    {
        let text = fs::read_to_string(root().join(&page)).expect("a page");
        for command in commands(&text) {
            let called = command.replace("EVENT_ID", "7f1c2b52-6d3f-4c1c-8d3c-0123456789ab");
            let output = Command::new(env!("CARGO_BIN_EXE_outbox-relay"))
                .args(called.split_whitespace())
                .output()
                .expect("the program");
            let output_text = output_text(&output);
            assert!(
                output.status.code() == Some(1) && output_text.contains("cannot read"),
                "{page}: outbox-relay {command}: {output_text}"
            );
            // Otherwise the runbook would refer to cluster "local" and not to the operator's.
            assert!(
                !command.starts_with("migrate") || command.contains("--cluster-name"),
                "{page}: outbox-relay {command}"
            );
            tried += 1;
        }
    }
    assert!(tried > 12, "only {tried} commands were found");
}
