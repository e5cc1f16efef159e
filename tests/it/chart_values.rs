//! The chart's values: each has a comment in values.yaml, is in the generated README, and is in the
//! schema. Reads files.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;

use crate::generated_files::compare;

const MARKS: [&str; 2] = ["<!-- values -->\n", "<!-- /values -->\n"];

fn chart(file: &str) -> String {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/charts/outbox-operator"
    ))
    .join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn values() -> Value {
    serde_yaml::from_str(&chart("values.yaml")).expect("YAML")
}

/// Paths of values, such as `image.tag`, with the comments above them.
type Documented = Vec<(String, String)>;

/// Reads the comments of a values file. Comment lines belong to the key directly below them. Keys
/// below a documented key are part of its value.
fn documented(text: &str) -> Documented {
    let (mut found, mut path, mut comment) =
        (Documented::new(), Vec::<(usize, String)>::new(), Vec::new());
    for line in text.lines() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if let Some(words) = content.strip_prefix("# ") {
            comment.push(words);
        } else if let Some((key, _)) = content
            .split_once(':')
            .filter(|_| !content.starts_with('-'))
        {
            path.retain(|(of, _)| *of < indent);
            path.push((indent, key.to_owned()));
            if !comment.is_empty() {
                let names: Vec<&str> = path.iter().map(|(_, name)| name.as_str()).collect();
                found.push((names.join("."), comment.join(" ")));
            }
            comment.clear();
        } else {
            comment.clear();
        }
    }
    found
}

fn table() -> String {
    let values = values();
    let row = |(path, meaning): (String, String)| {
        let default = values
            .pointer(&pointer(&path))
            .unwrap_or_else(|| panic!("{path} has no default"));
        let default = default
            .as_str()
            .filter(|text| !text.is_empty())
            .map_or_else(|| default.to_string(), str::to_owned);
        format!("| `{path}` | `{default}` | {meaning} |\n")
    };
    let rows: String = documented(&chart("values.yaml"))
        .into_iter()
        .map(row)
        .collect();
    format!("| value | default | meaning |\n|---|---|---|\n{rows}")
}

fn pointer(path: &str) -> String {
    format!("/{}", path.replace('.', "/"))
}

#[test]
fn generated_readme_of_the_chart_has_all_values() {
    let readme = chart("README.md");
    let [start, end] = MARKS;
    let (before, rest) = readme
        .split_once(start)
        .expect("a mark where the values begin");
    let (_, after) = rest.split_once(end).expect("a mark where the values end");
    compare(
        "charts/outbox-operator/README.md",
        &format!("{before}{start}{}{end}{after}", table()),
    );
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// Collects the paths of all values that are not maps or are documented as a whole.
fn leaves(path: &str, value: &Value, whole: &BTreeSet<String>, found: &mut BTreeSet<String>) {
    let Some(map) = value.as_object().filter(|_| !whole.contains(path)) else {
        found.insert(path.to_owned());
        return;
    };
    for (key, value) in map {
        leaves(&below(path, key), value, whole, found);
    }
}

#[test]
fn every_value_is_documented() {
    let documented: BTreeSet<String> = documented(&chart("values.yaml"))
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    let mut all = BTreeSet::new();
    leaves("", &values(), &documented, &mut all);
    assert_eq!(all, documented, "all values, and the documented ones");
}

/// Collects the paths of a schema and follows `$ref`. A map with any keys is a leaf.
fn properties(path: &str, schema: &Value, root: &Value, found: &mut BTreeSet<String>) {
    let schema = schema["$ref"]
        .as_str()
        .and_then(|name| root.pointer(name.strip_prefix('#')?))
        .unwrap_or(schema);
    let Some(map) = schema["properties"].as_object() else {
        found.insert(path.to_owned());
        return;
    };
    assert_eq!(
        schema["additionalProperties"], false,
        "'{path}' takes values of other names"
    );
    for (key, value) in map {
        properties(&below(path, key), value, root, found);
    }
}

#[test]
fn the_schema_has_exactly_the_documented_values() {
    let schema: Value = serde_json::from_str(&chart("values.schema.json")).expect("JSON");
    let mut known = BTreeSet::new();
    properties("", &schema, &schema, &mut known);
    // Helm's own value.
    assert!(known.remove("global"));
    // One value with two parts.
    assert!(
        known.remove("resources.requests")
            && known.remove("resources.limits")
            && known.insert("resources".to_owned())
    );
    let documented: BTreeSet<String> = documented(&chart("values.yaml"))
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    assert_eq!(
        known, documented,
        "in values.schema.json, and in values.yaml"
    );
}
