//! The CustomResourceDefinition as a file: crds/ and the chart carry exactly this text.

use kube::CustomResourceExt;
use serde_json::json;

use super::OutboxRelay;

/// The CRD as YAML.
#[must_use]
pub fn custom_resource_definition() -> String {
    let mut crd = serde_json::to_value(OutboxRelay::crd()).expect("a CRD is JSON");
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        let status = &mut version["schema"]["openAPIV3Schema"]["properties"]["status"];
        // So that "not seen yet" can be told from "seen and fine" from the first moment.
        status["default"] = json!({"observedGeneration": -1});
    }
    let yaml = serde_yaml::to_string(&crd).expect("a CRD is YAML");
    format!("# Written by `outbox-operator crd`.\n{}", quoted(&yaml))
}

/// kubectl and helm read YAML 1.1, where a bare `Off` is the boolean false; serde writes YAML 1.2, where it is a text.
fn quoted(yaml: &str) -> String {
    let is_boolean = |text: &str| matches!(text.to_ascii_lowercase().as_str(), "y" | "yes" | "on" | "n" | "no" | "off");
    let line = |line: &str| match line.rsplit_once(' ') {
        Some((before, scalar)) if is_boolean(scalar) && before.ends_with([':', '-']) => format!("{before} '{scalar}'\n"),
        _ => format!("{line}\n"),
    };
    yaml.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn formats(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("format").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|inner| formats(inner, found));
            }
            Value::Array(list) => list.iter().for_each(|inner| formats(inner, found)),
            _ => {}
        }
    }

    #[test]
    fn a_text_that_older_readers_take_for_a_boolean_is_quoted() {
        assert_eq!(quoted("a:\n- Off\nb: no\nc: turn it off\n"), "a:\n- 'Off'\nb: 'no'\nc: turn it off\n");
    }

    #[test]
    fn the_schema_uses_only_formats_that_the_api_server_knows() {
        let crd: Value = serde_yaml::from_str(&custom_resource_definition()).expect("our own text");
        let mut found = Vec::new();
        formats(&crd, &mut found);
        assert!(found.iter().all(|format| matches!(format.as_str(), "int32" | "int64" | "date-time" | "double")), "{found:?}");
    }
}
