//! Fields that the CRD's schema does not know. An API server refuses them (`kubectl` asks for
//! that); a misspelt field that is passed over would leave its default in force. Pure.

use kube::CustomResourceExt;
use serde_json::Value as Schema;
use serde_yaml::Value;

use crate::api::OutboxRelay;

/// The first unknown field below `spec`, and the known ones in its place.
pub(super) fn first(manifest: &Value) -> Option<(String, String)> {
    let crd = OutboxRelay::crd();
    let schema = crd
        .spec
        .versions
        .first()?
        .schema
        .as_ref()?
        .open_api_v3_schema
        .as_ref()?;
    let schema = serde_json::to_value(schema).ok()?;
    walk(
        manifest.get("spec")?,
        schema.pointer("/properties/spec")?,
        "spec",
    )
}

fn walk(value: &Value, schema: &Schema, path: &str) -> Option<(String, String)> {
    match value {
        Value::Mapping(fields) => fields
            .iter()
            .find_map(|(name, value)| field(name.as_str()?, value, schema, path)),
        Value::Sequence(items) => {
            let schema = schema.get("items")?;
            items
                .iter()
                .enumerate()
                .find_map(|(index, item)| walk(item, schema, &format!("{path}[{index}]")))
        }
        _ => None,
    }
}

fn field(name: &str, value: &Value, schema: &Schema, path: &str) -> Option<(String, String)> {
    let path = format!("{path}.{name}");
    // A map of free names, or anything at all.
    let properties = schema.get("properties").and_then(Schema::as_object)?;
    match properties.get(name) {
        Some(schema) => walk(value, schema, &path),
        None => {
            let properties = properties
                .keys()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ");
            Some((path, format!("is no field; known are: {properties}")))
        }
    }
}
