//! Finds fields that are not in the CRD's schema. An API server rejects them, because `kubectl`
//! requests strict validation. If a misspelt field were ignored, its default would apply. Pure.

use kube::CustomResourceExt;
use serde_json::Value as Schema;
use serde_yaml::Value;

use crate::api::OutboxRelay;

/// Path of the first unknown field below `spec`, and a message that lists the fields that are
/// allowed there. `None` if all fields are known.
pub(super) fn first(manifest: &Value) -> Option<(String, String)> {
    let schema = crd_schema()?;
    walk(
        manifest.get("spec")?,
        schema.pointer("/properties/spec")?,
        "spec",
    )
}

/// JSON schema of an `OutboxRelay`.
pub(super) fn crd_schema() -> Option<Schema> {
    let crd = OutboxRelay::crd();
    let schema = crd
        .spec
        .versions
        .first()?
        .schema
        .as_ref()?
        .open_api_v3_schema
        .as_ref()?;
    serde_json::to_value(schema).ok()
}

fn walk(value: &Value, schema: &Schema, path: &str) -> Option<(String, String)> {
    match value {
        Value::Mapping(fields) => fields
            .iter()
            .find_map(|(name, value)| field(name.as_str()?, value, schema, path)),
        Value::Sequence(items) => {
            let schema = schema.get("items")?;
            let mut items = items.iter().enumerate();
            items.find_map(|(index, item)| walk(item, schema, &format!("{path}[{index}]")))
        }
        _ => None,
    }
}

fn field(name: &str, value: &Value, schema: &Schema, path: &str) -> Option<(String, String)> {
    let path = format!("{path}.{name}");
    // No properties: a map with free names, or a field without a schema.
    let properties = schema.get("properties").and_then(Schema::as_object)?;
    if let Some(schema) = properties.get(name) {
        return walk(value, schema, &path);
    }
    let known: Vec<_> = properties.keys().map(String::as_str).collect();
    let known = known.join(", ");
    Some((path, format!("is not a field; use one of: {known}")))
}
