//! Object -> a number that changes when its meaning does: labels, annotations, owners and
//! everything outside status. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

/// Annotation that the Deployment controller sets. It is ignored, like `replicas`, which the
/// operator writes through the scale subresource.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// Top-level fields that are not hashed as a whole.
const NOT_HASHED: [&str; 4] = ["metadata", "status", "apiVersion", "kind"];

/// Hashes what the operator reacts to: labels, annotations, owners and everything outside `status`.
pub(crate) fn fingerprint(object: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    let metadata = &object["metadata"];
    let annotations = without(&metadata["annotations"], REVISION);
    metadata["labels"].to_string().hash(&mut hasher);
    metadata["ownerReferences"].to_string().hash(&mut hasher);
    annotations.to_string().hash(&mut hasher);
    for (field, value) in object.as_object().into_iter().flatten() {
        if !NOT_HASHED.contains(&field.as_str()) {
            (field, without(value, "replicas").to_string()).hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn without(value: &Value, field: &str) -> Value {
    let mut value = value.clone();
    if let Some(map) = value.as_object_mut() {
        map.shift_remove(field);
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment() -> Value {
        json!({
            "metadata": {"labels": {"a": "b"}, "resourceVersion": "1"},
            "spec": {"replicas": 2, "paused": false},
            "status": {"replicas": 2},
        })
    }

    #[test]
    fn status_version_and_replicas_do_not_count() {
        let mut other = deployment();
        other["metadata"]["resourceVersion"] = json!("2");
        other["spec"]["replicas"] = json!(5);
        other["status"]["replicas"] = json!(5);
        assert_eq!(fingerprint(&deployment()), fingerprint(&other));
    }

    #[test]
    fn a_changed_field_or_label_counts() {
        for path in ["/spec/paused", "/metadata/labels/a"] {
            let mut other = deployment();
            *other.pointer_mut(path).expect("a field") = json!("changed");
            assert_ne!(fingerprint(&deployment()), fingerprint(&other), "{path}");
        }
    }
}
