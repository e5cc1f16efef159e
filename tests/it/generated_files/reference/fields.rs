//! Fields of the CRD, as rows of the reference page.
//!
//! The CRD has types, limits, defaults and rules. It drops two things that a reader wants: the
//! order in which the Rust types declare the fields, and what each value of an enum means. Those
//! come from the schema of the Rust types, which is read beside the CRD.

use outbox_relay::api::{OutboxRelaySpec, OutboxRelayStatus, custom_resource_definition};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

/// Types of Kubernetes. Kubernetes documents what is below them.
const OF_KUBERNETES: &[(&str, &str)] = &[
    ("env", "list of EnvVar"),
    ("envFrom", "list of EnvFromSource"),
    ("tolerations", "list of Toleration"),
    ("imagePullSecrets", "list of LocalObjectReference"),
    ("affinity", "Affinity"),
    ("conditions", "list of Condition"),
];

/// One node of the CRD's schema, and the same node of the Rust type's schema.
#[derive(Clone)]
pub(super) struct Schema {
    crd: Value,
    rust: Value,
}

impl Schema {
    /// The whole object. The schema of its Rust type is not needed.
    pub(super) fn object() -> Self {
        Self {
            crd: crd()["schema"]["openAPIV3Schema"].clone(),
            rust: Value::Null,
        }
    }

    pub(super) fn spec() -> Self {
        Self {
            crd: Self::object().crd["properties"]["spec"].clone(),
            rust: rust_schema::<OutboxRelaySpec>(),
        }
    }

    pub(super) fn status() -> Self {
        Self {
            crd: Self::object().crd["properties"]["status"].clone(),
            rust: rust_schema::<OutboxRelayStatus>(),
        }
    }

    /// The fields below this node, in the order of their declaration.
    pub(super) fn properties(&self) -> Vec<(String, Self)> {
        let declared = self.rust["properties"].as_object().into_iter().flatten();
        let found: Vec<_> = declared
            .map(|(name, _)| (name.clone(), self.property(name)))
            .collect();
        let in_crd = self.crd["properties"]
            .as_object()
            .map_or(0, serde_json::Map::len);
        assert_eq!(
            found.len(),
            in_crd,
            "the CRD and the Rust type have different fields: {}",
            self.rust
        );
        found
    }

    pub(super) fn property(&self, name: &str) -> Self {
        let crd = self.crd["properties"][name].clone();
        assert!(crd.is_object(), "the CRD has no field {name}");
        Self {
            crd,
            rust: present(&self.rust["properties"][name]),
        }
    }

    fn items(&self) -> Self {
        Self {
            crd: self.crd["items"].clone(),
            rust: present(&self.rust["items"]),
        }
    }

    fn requires(&self, name: &str) -> bool {
        self.crd["required"]
            .as_array()
            .is_some_and(|all| all.iter().any(|required| required == name))
    }

    fn is_tls(&self) -> bool {
        self.crd["properties"]["clientCertSecretRef"].is_object()
    }
}

/// The version of the CRD; there is one.
fn crd() -> Value {
    let crd: Value = serde_yaml::from_str(&custom_resource_definition()).expect("YAML");
    crd["spec"]["versions"][0].clone()
}

fn rust_schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::default().with(|settings| settings.inline_subschemas = true);
    settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// The schema of `T` where the field is an `Option<T>`.
fn present(rust: &Value) -> Value {
    let alternatives = rust["anyOf"].as_array().into_iter().flatten();
    let mut present = alternatives.filter(|schema| schema["type"] != "null");
    present.next().unwrap_or(rust).clone()
}

/// Name and JSON path of each column that `kubectl get` prints.
pub(super) fn printer_columns() -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let columns = crd()["additionalPrinterColumns"]
        .as_array()
        .expect("columns")
        .clone();
    columns
        .iter()
        .map(|column| (text(&column["name"]), text(&column["jsonPath"])))
        .collect()
}

/// One row of a table. All texts are Markdown.
pub(super) struct Field {
    pub path: String,
    pub kind: String,
    pub default: String,
    pub description: String,
    pub rules: Vec<String>,
}

/// The field of this name, and all below it.
pub(super) fn fields_below(parent: &Schema, name: &str) -> Vec<Field> {
    let mut found = Vec::new();
    collect(
        &parent.property(name),
        name,
        parent.requires(name),
        &mut found,
    );
    found
}

fn collect(schema: &Schema, path: &str, required: bool, found: &mut Vec<Field>) {
    let name = path.rsplit('.').next().expect("a name");
    let of_kubernetes = OF_KUBERNETES
        .iter()
        .find(|(field, _)| *field == name)
        .map(|(_, kind)| *kind);
    let is_link = schema.is_tls() && path != "tls"; // Only the TLS section lists what is below.
    found.push(Field {
        path: path.to_owned(),
        kind: of_kubernetes.map_or_else(|| kind(&schema.crd), str::to_owned),
        default: if required {
            "**required**".to_owned()
        } else {
            default(&schema.crd)
        },
        description: description(schema) + if is_link { " See [TLS](#tls)." } else { "" },
        rules: if is_link {
            Vec::new()
        } else {
            rules(path, schema)
        },
    });
    if of_kubernetes.is_some() || is_link {
        return;
    }
    let (parent, separator) = match schema.crd["items"].is_object() {
        true => (schema.items(), "[]."),
        false => (schema.clone(), "."),
    };
    for (name, property) in parent.properties() {
        collect(
            &property,
            &format!("{path}{separator}{name}"),
            parent.requires(&name),
            found,
        );
    }
}

/// Type and limits, such as `integer, 1 to 64`.
fn kind(crd: &Value) -> String {
    let name = match crd["type"].as_str().expect("a type") {
        "array" => format!("list of {}", plural(&crd["items"])),
        "object" if crd["additionalProperties"].is_object() => {
            format!("map of strings to {}", plural(&crd["additionalProperties"]))
        }
        "string" => string_kind(crd).to_owned(),
        other => other.to_owned(),
    };
    match limits(crd) {
        Some(limits) => format!("{name}, {limits}"),
        None => name,
    }
}

/// Type of the entries of a list or a map, such as `strings (1 to 63 characters)`.
fn plural(crd: &Value) -> String {
    match kind(crd).split_once(", ") {
        Some((name, limits)) => format!("{name}s ({limits})"),
        None if crd["pattern"]
            .as_str()
            .is_some_and(|pattern| pattern.contains("|Ki|Mi|")) =>
        {
            "quantities".to_owned()
        }
        None => format!("{}s", kind(crd)),
    }
}

fn string_kind(crd: &Value) -> &'static str {
    let pattern = crd["pattern"].as_str().unwrap_or_default();
    if crd["enum"].is_array() {
        "enum"
    } else if crd["format"] == "date-time" {
        "time"
    } else if pattern.contains("(ms|s|m|h)") {
        "duration"
    } else if pattern.contains("|Ki|Mi|") {
        "quantity"
    } else {
        "string"
    }
}

fn limits(crd: &Value) -> Option<String> {
    let range = |from: &str, to: &str| match (crd[from].as_f64(), crd[to].as_f64()) {
        (Some(from), Some(to)) => Some(format!("{from} to {to}")),
        (None, Some(to)) => Some(format!("at most {to}")),
        (Some(from), None) => Some(format!("at least {from}")),
        (None, None) => None,
    };
    let length = match string_kind(crd) {
        "string" => range("minLength", "maxLength").map(|range| format!("{range} characters")),
        _ => None, // The unit says enough.
    };
    let entries = range("minItems", "maxItems").or_else(|| range("minProperties", "maxProperties"));
    let entries = entries.map(|range| format!("{range} entries"));
    range("minimum", "maximum").or(entries).or(length)
}

fn default(crd: &Value) -> String {
    match &crd["default"] {
        Value::Null | Value::Object(_) => String::new(), // An object's fields have their own.
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

/// What the field is, what it must match, and what each of its values means.
fn description(schema: &Schema) -> String {
    let text = schema.crd["description"].as_str().expect("a description");
    let text = text.replace('\n', " ").replace('|', "\\|");
    without_default(&text, &schema.crd["default"]) + &pattern(&schema.crd) + &values(schema)
}

/// The table has a column for the default.
fn without_default(text: &str, default: &Value) -> String {
    let default = match default {
        Value::Array(_) => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.replace(&format!(" Default: {default}."), "")
}

fn pattern(crd: &Value) -> String {
    let pattern = crd["pattern"]
        .as_str()
        .or(crd["items"]["pattern"].as_str())
        .unwrap_or_default();
    if pattern.is_empty() || string_kind(crd) == "duration" {
        return String::new();
    }
    // A bar would end the cell of the table.
    format!(" Must match `{}`.", pattern.replace('|', "\\|"))
}

fn values(schema: &Schema) -> String {
    let values = schema.crd["enum"].as_array().into_iter().flatten();
    let meaning = |value: &Value| {
        let variants = schema.rust["oneOf"].as_array().into_iter().flatten();
        let mut meanings = variants.filter(|variant| variant["const"] == *value);
        let meaning = meanings
            .next()
            .and_then(|variant| variant["description"].as_str());
        meaning
            .unwrap_or_else(|| panic!("{value} has no doc comment"))
            .replace('\n', " ")
    };
    let value = |value: &Value| {
        format!(
            "<br>`{}`: {}",
            value.as_str().expect("a text"),
            meaning(value)
        )
    };
    values.map(value).collect()
}

/// Messages of the CEL rules at this node and at its items.
pub(super) fn rules(path: &str, schema: &Schema) -> Vec<String> {
    let crd = &schema.crd;
    let below = if crd["items"].is_object() {
        format!("{path}[]")
    } else {
        String::new()
    };
    [rules_at(path, crd), rules_at(&below, &crd["items"])].concat()
}

fn rules_at(path: &str, crd: &Value) -> Vec<String> {
    let rules = crd["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten();
    let messages = rules.map(|rule| rule["message"].as_str().expect("a message"));
    messages
        .map(|message| format!("`{path}`: {}.", without_path(message, path)))
        .collect()
}

/// The list of rules has the path in front already.
fn without_path<'m>(message: &'m str, path: &str) -> &'m str {
    let rest = message.strip_prefix(path).unwrap_or(message);
    rest.strip_prefix(": ")
        .or(rest.strip_prefix(' '))
        .unwrap_or(message)
}
