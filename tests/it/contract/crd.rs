//! The CRD as the operator prints it, without the texts that people read: descriptions, and messages
//! of validation rules.

use std::process::Command;

use serde_json::Value;

use super::golden::compare;

/// Removes texts for people. A property of the schema with such a name is a map, and is kept.
pub(super) fn without_texts(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, inner| {
                !(inner.is_string() && matches!(name.as_str(), "description" | "message"))
            });
            map.values_mut().for_each(without_texts);
        }
        Value::Array(list) => list.iter_mut().for_each(without_texts),
        _ => {}
    }
}

pub(super) fn printed() -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_outbox-operator"))
        .arg("crd")
        .output()
        .expect("the program");
    let mut crd = serde_yaml::from_slice(&output.stdout).expect("YAML");
    without_texts(&mut crd);
    crd
}

#[test]
fn the_crd_has_the_same_fields_and_rules() {
    compare(
        "crd.yaml",
        &serde_yaml::to_string(&printed()).expect("YAML"),
    );
}
