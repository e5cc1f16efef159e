//! Judges a manifest as an API server would: by the CRD's schema, and by its rules in CEL. Pure.

use std::collections::BTreeSet;

use kube_cel::Validator;
use regex::Regex;
use serde_json::{Map, Value};

/// A field, and why its value is refused.
pub(super) type Violation = (String, String);

/// First bound, pattern or rule of the CRD that a manifest breaks; `None` if it breaks none.
pub(super) fn first_violation(manifest: &Value) -> Option<Violation> {
    let schema = crate::manifest::unknown_fields::crd_schema()?;
    let (spec, spec_schema) = (manifest.get("spec")?, schema.pointer("/properties/spec")?);
    in_schema(spec, spec_schema, "spec").or_else(|| in_rules(manifest, &schema))
}

/// First rule in CEL that is broken. Rules about the change of an object have nothing to judge.
fn in_rules(manifest: &Value, schema: &Value) -> Option<Violation> {
    let errors = Validator::new().validate(schema, manifest, None).err()?;
    let error = errors.into_iter().next()?;
    let field = match error.field_path.as_str() {
        "" => "the manifest",
        path => path,
    };
    Some((field.to_owned(), error.message))
}

/// First bound or pattern that `value` or a part of it breaks.
fn in_schema(value: &Value, schema: &Value, path: &str) -> Option<Violation> {
    // An API server drops a field without a value.
    if value.is_null() {
        return None;
    }
    let own = own_violation(value, schema).or_else(|| choice_violation(value, schema));
    match own {
        Some(reason) => Some((path.to_owned(), reason)),
        None => in_parts(value, schema, path),
    }
}

/// Words for a bound or pattern that `value` itself breaks.
fn own_violation(value: &Value, schema: &Value) -> Option<String> {
    match value {
        Value::String(text) => text_violation(text, schema),
        Value::Number(number) => number_violation(number.as_f64()?, schema),
        Value::Array(items) => list_violation(items, schema),
        Value::Object(fields) => fields_violation(fields, schema),
        Value::Null | Value::Bool(_) => None,
    }
}

fn in_parts(value: &Value, schema: &Value, path: &str) -> Option<Violation> {
    match value {
        Value::Array(items) => in_items(items, schema, path),
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let schema = field_schema(schema, name)?;
            in_schema(value, schema, &format!("{path}.{name}"))
        }),
        _ => None,
    }
}

/// First bound or pattern that an item of a list breaks.
fn in_items(items: &[Value], schema: &Value, path: &str) -> Option<Violation> {
    let schema = schema.get("items")?;
    let mut items = items.iter().enumerate();
    items.find_map(|(index, item)| in_schema(item, schema, &format!("{path}[{index}]")))
}

/// Schema of a field: its own, or that of all fields without one.
fn field_schema<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
    let properties = schema.get("properties");
    properties
        .and_then(|properties| properties.get(name))
        .or_else(|| schema.get("additionalProperties"))
}

/// Value of a keyword that bounds a length or a count.
fn bound(schema: &Value, keyword: &str) -> Option<usize> {
    usize::try_from(schema.get(keyword)?.as_u64()?).ok()
}

/// Words for a count that is out of its bounds.
fn count_violation(
    count: usize,
    unit: &str,
    schema: &Value,
    [min, max]: [&str; 2],
) -> Option<String> {
    match (bound(schema, min), bound(schema, max)) {
        (Some(min), _) if count < min => {
            Some(format!("has {count} {unit}, must have at least {min}"))
        }
        (_, Some(max)) if count > max => {
            Some(format!("has {count} {unit}, must have at most {max}"))
        }
        _ => None,
    }
}

fn text_violation(text: &str, schema: &Value) -> Option<String> {
    let length = text.chars().count();
    count_violation(length, "characters", schema, ["minLength", "maxLength"])
        .or_else(|| pattern_violation(text, schema))
}

fn pattern_violation(text: &str, schema: &Value) -> Option<String> {
    let pattern = schema.get("pattern")?.as_str()?;
    let is_match = Regex::new(pattern).ok()?.is_match(text);
    (!is_match).then(|| format!("'{text}' does not match '{pattern}'"))
}

fn number_violation(number: f64, schema: &Value) -> Option<String> {
    let limit = |keyword| schema.get(keyword).and_then(Value::as_f64);
    match (limit("minimum"), limit("maximum")) {
        (Some(min), _) if number < min => Some(format!("is {number}, must be at least {min}")),
        (_, Some(max)) if number > max => Some(format!("is {number}, must be at most {max}")),
        _ => None,
    }
}

fn list_violation(items: &[Value], schema: &Value) -> Option<String> {
    count_violation(items.len(), "items", schema, ["minItems", "maxItems"])
        .or_else(|| repeated_key(items, schema))
}

/// Words for two items of a list with keys that have the same key.
fn repeated_key(items: &[Value], schema: &Value) -> Option<String> {
    let names = schema.get("x-kubernetes-list-map-keys")?.as_array()?;
    let mut seen = BTreeSet::new();
    let key = |item: &Value| {
        let parts = names.iter().filter_map(|name| item.get(name.as_str()?));
        parts
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let twice = items
        .iter()
        .map(key)
        .find(|key| !seen.insert(key.clone()))?;
    Some(format!("has two items with key {twice}: keep one"))
}

fn fields_violation(fields: &Map<String, Value>, schema: &Value) -> Option<String> {
    let bounds = ["minProperties", "maxProperties"];
    count_violation(fields.len(), "entries", schema, bounds)
        .or_else(|| missing_field(fields, schema))
}

/// Words for a field that is required, and neither there nor has a default.
fn missing_field(fields: &Map<String, Value>, schema: &Value) -> Option<String> {
    let has_default = |name: &str| {
        let property = schema.get("properties").and_then(|all| all.get(name));
        property.is_some_and(|property| property.get("default").is_some())
    };
    let required = schema.get("required")?.as_array()?;
    let mut names = required.iter().filter_map(Value::as_str);
    let missing = names.find(|name| !fields.contains_key(*name) && !has_default(name))?;
    Some(format!("lacks field {missing}: add it"))
}

fn choice_violation(value: &Value, schema: &Value) -> Option<String> {
    let choices = schema.get("enum")?.as_array()?;
    let listed = || {
        let choices = choices.iter().map(ToString::to_string);
        choices.collect::<Vec<_>>().join(", ")
    };
    (!choices.contains(value)).then(|| format!("is {value}, must be one of {}", listed()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A manifest that keeps all rules, with one field changed.
    fn manifest(path: &str, value: Value) -> Value {
        let mut manifest = json!({
            "apiVersion": "outboxrelay.dev/v1alpha1", "kind": "OutboxRelay",
            "metadata": {"name": "files"},
            "spec": {
                "database": {
                    "host": "db", "name": "files", "credentialsSecretRef": {"name": "db"},
                },
                "kafka": {"bootstrapServers": ["kafka:9092"], "properties": {}},
                "topics": [{"name": "files", "eventTypes": ["A"]}],
                "migration": {}, "template": {}, "scaling": {},
            },
        });
        let (parent, name) = path.rsplit_once('/').expect("a path");
        manifest.pointer_mut(parent).expect("the parent")[name] = value;
        manifest
    }

    #[test]
    fn each_kind_of_bound_is_checked_and_told_with_its_field() {
        let types: Vec<String> = (0..17).map(|n| format!("T{n}")).collect();
        for (path, value, field, words) in [
            ("/spec/topics", json!([]), "spec.topics", "at least 1"),
            (
                "/spec/topics",
                json!([{"name": "files", "eventTypes": types}]),
                "spec.topics[0].eventTypes",
                "has 17 items, must have at most 16",
            ),
            (
                "/spec/topics",
                json!([{"name": "no topic"}]),
                "spec.topics[0].name",
                "does not match",
            ),
            (
                "/spec/kafka/bootstrapServers",
                json!(["kafka:99999"]),
                "spec.kafka.bootstrapServers[0]",
                "does not match",
            ),
            (
                "/spec/database/port",
                json!(0),
                "spec.database.port",
                "at least 1",
            ),
            (
                "/spec/database/port",
                json!(65536),
                "spec.database.port",
                "at most 65535",
            ),
            (
                "/spec/database/host",
                json!(""),
                "spec.database.host",
                "at least 1",
            ),
            ("/spec/replicas", json!(65), "spec.replicas", "at most 64"),
            (
                "/spec/kafka/properties",
                json!({"acks": "1"}),
                "spec.kafka.properties",
                "only linger.ms and compression.type",
            ),
            (
                "/spec/scaling",
                json!({"scaleDownStabilization": "2h"}),
                "spec.scaling",
                "scaleDownStabilization",
            ),
            (
                "/spec/topics",
                json!([{"name": "a", "eventTypes": ["A"]}, {"name": "b", "eventTypes": ["A"]}]),
                "spec.topics",
                "",
            ),
            (
                "/spec/template",
                json!({"affinity": {"podAntiAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [{}]}}}),
                "spec.template.affinity",
                "lacks field",
            ),
            (
                "/metadata/name",
                json!("Files"),
                "the manifest",
                "metadata.name",
            ),
        ] {
            let violation = first_violation(&manifest(path, value.clone()));
            let (found, reason) = violation.unwrap_or_else(|| panic!("{path}: {value}"));
            assert!(found.starts_with(field), "{path}: {found}: {reason}");
            assert!(reason.contains(words), "{path}: {found}: {reason}");
        }
    }

    #[test]
    fn a_manifest_that_an_api_server_accepts_breaks_no_rule() {
        for (path, value) in [
            ("/spec/database/port", json!(65535)),
            ("/spec/database/host", json!("[::1]")),
            ("/spec/kafka/bootstrapServers", json!(["[::1]:9092"])),
            ("/spec/replicas", Value::Null),
        ] {
            assert_eq!(
                first_violation(&manifest(path, value.clone())),
                None,
                "{path}: {value}"
            );
        }
    }
}
