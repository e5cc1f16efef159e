//! The CustomResourceDefinition as a file: crds/ and the chart contain exactly this text.

use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::api::OutboxRelay;

/// CRD of `OutboxRelay` as YAML.
#[must_use]
pub fn custom_resource_definition() -> String {
    let mut crd = serde_json::to_value(OutboxRelay::crd()).expect("a CRD is JSON");
    set_default_status(&mut crd);
    let yaml = serde_yaml::to_string(&crd).expect("a CRD is YAML");
    format!("# Written by `outbox-operator crd`.\n{yaml}")
}

/// Sets a default that distinguishes an object that the operator has not observed yet from one
/// without problems.
fn set_default_status(crd: &mut Value) {
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        version["schema"]["openAPIV3Schema"]["properties"]["status"]["default"] =
            json!({"observedGeneration": -1});
    }
}

#[cfg(test)]
mod tests {
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

    /// kubectl and helm read YAML 1.1, where an unquoted `Off` is the boolean false.
    #[test]
    fn no_value_of_a_manifest_is_a_boolean_to_older_readers() {
        let crd = custom_resource_definition();
        let is_boolean = |text: &str| {
            matches!(
                text.to_ascii_lowercase().as_str(),
                "y" | "yes" | "on" | "n" | "no" | "off"
            )
        };
        let values = crd
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- "));
        assert_eq!(
            values
                .map(|value| value.trim_matches('\''))
                .find(|value| is_boolean(value)),
            None
        );
    }

    /// Collects each property with its path.
    fn properties<'a>(schema: &'a Value, path: &str, found: &mut Vec<(String, &'a Value)>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            found.push((path.clone(), property));
            properties(property, &path, found);
            properties(&property["items"], &path, found);
        }
    }

    /// Whether a property belongs to a type of Kubernetes, which documents it.
    fn of_kubernetes(path: &str) -> bool {
        [
            "template.affinity.",
            "template.tolerations.",
            "template.env.",
            "template.envFrom.",
            "template.imagePullSecrets.",
            "status.conditions.",
        ]
        .iter()
        .any(|own| path.contains(own))
    }

    /// `kubectl explain` shows only these descriptions.
    #[test]
    fn every_field_is_explained_with_its_default() {
        let crd: Value = serde_yaml::from_str(&custom_resource_definition()).expect("our own text");
        let mut found = Vec::new();
        properties(
            &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"],
            "spec",
            &mut found,
        );
        properties(
            &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"],
            "status",
            &mut found,
        );
        assert!(found.len() > 100, "{}", found.len());
        for (path, property) in found.iter().filter(|(path, _)| !of_kubernetes(path)) {
            let text = property["description"].as_str().unwrap_or_default();
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.ends_with('.'), "{path} is not explained: {text:?}");
            let default = match &property["default"] {
                Value::Array(_) => "none".to_owned(),
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) if !path.starts_with("status.") => {
                    property["default"].to_string()
                }
                _ => continue,
            };
            assert!(
                text.contains(&format!("Default: {default}.")),
                "{path} is described without its default: {text}"
            );
        }
    }

    #[test]
    fn the_schema_uses_only_formats_that_the_api_server_knows() {
        let crd: Value = serde_yaml::from_str(&custom_resource_definition()).expect("our own text");
        let mut found = Vec::new();
        formats(&crd, &mut found);
        assert!(
            found.iter().all(|format| matches!(
                format.as_str(),
                "int32" | "int64" | "date-time" | "double"
            )),
            "{found:?}"
        );
    }
}
