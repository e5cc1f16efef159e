//! What the chart renders with its default values and with all values changed. Comments, NOTES.txt
//! and texts for people are not compared. The rig builds helm; the API server is not needed.

use std::process::Command;

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{crd, golden::compare, remove};
use crate::harness::rig::rig;

#[test]
fn the_chart_renders_the_same_objects() {
    compare("helm-default.yaml", &rendered(&[]));
    compare(
        "helm-everything.yaml",
        &rendered(&["-f", "tests/it/contract/values.yaml"]),
    );
}

#[test]
fn an_image_with_a_digest_is_pulled_by_it() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let objects = rendered(&["--set", &format!("image.digest={digest},image.tag=1.2.3")]);
    assert!(objects.contains(&format!("image: outbox-relay@{digest}")));
    assert!(objects.contains(&format!("value: outbox-relay@{digest}")));
    assert!(!objects.contains("1.2.3"), "{objects}");
}

fn rendered(arguments: &[&str]) -> String {
    let mut command = Command::new(format!("{}/helm", rig("RIG_BIN")));
    command
        .args([
            "template",
            "outbox-operator",
            "charts/outbox-operator",
            "-n",
            "outbox-system",
        ])
        .args(arguments);
    let output = command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("`tests/rig/rig up kubernetes` builds helm");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let objects = serde_yaml::Deserializer::from_slice(&output.stdout)
        .map(|one| Value::deserialize(one).expect("YAML"));
    objects
        .filter(|one| !one.is_null())
        .map(|object| {
            format!(
                "---\n{}",
                serde_yaml::to_string(&essential(object)).expect("YAML")
            )
        })
        .collect()
}

fn essential(mut object: Value) -> Value {
    match object["kind"].as_str() {
        Some("CustomResourceDefinition") => refer_to_printed(&mut object),
        Some("PrometheusRule") => remove(&mut object, &["summary", "description"]),
        Some("ConfigMap") => dashboards(&mut object),
        _ => {}
    }
    object
}

/// The chart's CRD is the one in crd.yaml, so the file of the chart does not repeat it.
fn refer_to_printed(object: &mut Value) {
    let mut spec = object["spec"].take();
    crd::without_texts(&mut spec);
    assert_eq!(
        spec,
        crd::printed()["spec"],
        "the chart's CRD, and the one that the operator prints"
    );
    object["spec"] = json!("(crd.yaml)");
}

/// Keeps the expressions of dashboards. Titles and the layout are for people.
fn dashboards(object: &mut Value) {
    for dashboard in object["data"].as_object_mut().expect("data").values_mut() {
        let parsed: Value =
            serde_json::from_str(dashboard.as_str().expect("a text")).expect("JSON");
        let mut found = Vec::new();
        expressions(&parsed, &mut found);
        *dashboard = json!({"uid": parsed["uid"], "expressions": found});
    }
}

fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("expr").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|inner| expressions(inner, found));
        }
        Value::Array(list) => list.iter().for_each(|inner| expressions(inner, found)),
        _ => {}
    }
}
