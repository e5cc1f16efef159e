//! Each field wrong once, found by walking through whatever settings there are; and any text at
//! all.

use proptest::prelude::*;
use serde_yaml::{Mapping, Value};

use super::*;
use crate::{api::OutboxRelay, settings::Owner};

const MANIFEST: &str = "
apiVersion: outboxrelay.dev/v1alpha1
kind: OutboxRelay
metadata: { name: file-service }
spec:
  database: { host: db, name: files, credentialsSecretRef: { name: relay } }
  migration:
    database: { host: db, name: files, credentialsSecretRef: { name: owner } }
    grants: { producers: [ producer ], relays: [ other ] }
  kafka:
    bootstrapServers: [ 'kafka:9093' ]
    sasl: { mechanism: SCRAM-SHA-512, username: relay, credentialsSecretRef: { name: kafka } }
    properties: { linger.ms: '5' }
  topics:
    - { name: files, eventTypes: [ Uploaded ], aggregateTypes: [ file ] }
    - { name: essays }
";

fn good() -> Value {
    let manifest: OutboxRelay = serde_yaml::from_str(MANIFEST).expect("a manifest");
    let owner = Owner {
        cluster: "c".to_owned(),
        namespace: "n".to_owned(),
        name: "file-service".to_owned(),
    };
    let settings = RelaySettings::from_manifest(owner, &manifest.spec).expect("a good spec");
    let text = serde_yaml::to_string(&settings).expect("plain data");
    assert_eq!(RelaySettings::read(&text), Ok(settings));
    serde_yaml::from_str(&text).expect("YAML")
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Item(usize),
}

/// Every node below the top.
fn paths(value: &Value) -> Vec<Vec<Step>> {
    let below = |step: Step, value: &Value| {
        let mut all = vec![vec![step.clone()]];
        all.extend(
            paths(value)
                .into_iter()
                .map(|path| [vec![step.clone()], path].concat()),
        );
        all
    };
    match value {
        Value::Mapping(fields) => fields
            .iter()
            .flat_map(|(name, value)| {
                below(
                    Step::Field(name.as_str().expect("a name").to_owned()),
                    value,
                )
            })
            .collect(),
        Value::Sequence(items) => items
            .iter()
            .enumerate()
            .flat_map(|(index, value)| below(Step::Item(index), value))
            .collect(),
        _ => Vec::new(),
    }
}

fn at<'a>(value: &'a mut Value, path: &[Step]) -> &'a mut Value {
    path.iter().fold(value, |value, step| match step {
        Step::Field(name) => &mut value[name.as_str()],
        Step::Item(index) => &mut value[*index],
    })
}

/// Returns a path in the form that errors use.
fn written(path: &[Step]) -> String {
    let step = |step: &Step| match step {
        Step::Field(name) => format!(".{name}"),
        Step::Item(index) => format!("[{index}]"),
    };
    path.iter()
        .map(step)
        .collect::<String>()
        .trim_start_matches('.')
        .to_owned()
}

#[track_caller]
fn refusal(settings: &Value) -> (String, String) {
    let text = serde_yaml::to_string(settings).expect("YAML");
    match RelaySettings::read(&text) {
        Err(InvalidSettings::Field { field, reason }) => (field, reason),
        other => panic!("{other:?}: {text}"),
    }
}

#[test]
fn a_value_of_another_kind_is_refused_with_its_field_and_never_quoted() {
    let good = good();
    let paths = paths(&good);
    assert!(paths.len() > 40, "{paths:?}");
    for path in paths {
        let mut wrong = good.clone();
        let node = at(&mut wrong, &path);
        *node = match node {
            Value::Mapping(_) | Value::Sequence(_) => Value::from("quoted"),
            _ => Value::from(vec!["quoted"]),
        };
        let (field, reason) = refusal(&wrong);
        // Of an endpoint, whose kind decides what its fields are, only the endpoint is named.
        assert!(
            written(&path).starts_with(&field),
            "{} was wrong, {field} is named: {reason}",
            written(&path)
        );
        assert!(
            field.contains("endpoint") || field == written(&path),
            "{} was wrong, {field} is named",
            written(&path)
        );
        assert!(!reason.contains("quoted"), "{field}: {reason}");
        assert!(
            reason.starts_with("is a text, must be") || reason.starts_with("is a list, must be"),
            "{field}: {reason}"
        );
    }
}

#[test]
fn a_field_that_is_missing_or_unknown_is_named() {
    let good = good();
    let mut optional = Vec::new();
    for path in paths(&good) {
        let (Some(Step::Field(name)), parent) = (path.last(), &path[..path.len() - 1]) else {
            continue;
        };
        let mut without = good.clone();
        at(&mut without, parent)
            .as_mapping_mut()
            .expect("fields")
            .remove(name.as_str());
        match RelaySettings::read(&serde_yaml::to_string(&without).expect("YAML")) {
            Ok(_) => optional.push(written(&path)),
            Err(error) => assert!(
                error
                    .to_string()
                    .contains(&format!("missing field `{name}`")),
                "{error}"
            ),
        }
    }
    assert!(
        optional.len() < paths(&good).len() / 2,
        "what may be left out: {optional:?}"
    );
    for path in std::iter::once(Vec::new()).chain(paths(&good)) {
        let mut with = good.clone();
        let Value::Mapping(fields) = at(&mut with, &path) else {
            continue;
        };
        fields.insert(Value::from("surprise"), Value::from("quoted"));
        let (field, reason) = refusal(&with);
        let expected = if written(&path) == "kafka.properties" {
            "only linger.ms and compression.type may be set"
        } else {
            "unknown field `surprise`"
        };
        assert!(
            reason.contains(expected) && !reason.contains("quoted"),
            "{field}: {reason}"
        );
    }
}

#[test]
fn a_value_of_the_right_kind_that_cannot_work_is_refused() {
    for (path, value, expected) in [
        ("batchSize", "0", "batchSize: must be at least 1"),
        (
            "batchSize",
            "-1",
            "batchSize: is a whole number, must be u32",
        ),
        (
            "batchSize",
            "1.5",
            "batchSize: is a number with a fraction, must be u32",
        ),
        ("pollIntervalMs", "0", "pollIntervalMs: must be at least 1"),
        (
            "pollIntervalMs",
            "null",
            "pollIntervalMs: is empty, must be u64",
        ),
        (
            "recordHeaders",
            "quoted",
            "recordHeaders: has an unknown value, must be one of `Standard`, `Debezium`, \
             `CloudEvents`",
        ),
        ("topics", "[]", "topics: must contain at least one topic"),
        (
            "topics",
            "[{name: a}, {name: a}]",
            "topics: contain a topic twice",
        ),
        (
            "topics",
            "[{name: a, eventTypes: [E]}, {name: b, eventTypes: [E]}]",
            "topics: route an event type twice",
        ),
        (
            "topics",
            "[{name: a, aggregateTypes: [E, E]}]",
            "topics: route an aggregate type twice",
        ),
    ] {
        let mut wrong = good();
        wrong[path] = serde_yaml::from_str(value).expect("YAML");
        let (field, reason) = refusal(&wrong);
        assert_eq!(format!("{field}: {reason}"), expected);
    }
    for name in ["", ".", "..", "a b", "ä", "a/b"] {
        let mut wrong = good();
        wrong["topics"][0]["name"] = Value::from(name);
        assert!(
            refusal(&wrong).1.contains("Kafka does not accept"),
            "{name}"
        );
    }
    let mut wrong = good();
    wrong["database"]["schema"] = Value::from("Quoted");
    let (field, reason) = refusal(&wrong);
    assert_eq!(field, "database.schema");
    assert!(
        reason.starts_with("is not a valid schema name: use 1 to 63") && !reason.contains("Quoted"),
        "{reason}"
    );
    for (part, field, value) in [
        ("database", "maxConnections", "0"),
        ("kafka", "bootstrapServers", "[]"),
        ("kafka", "bootstrapServers", "['']"),
        ("kafka", "properties", "{acks: '1'}"),
        ("kafka", "properties", "{linger.ms: '5s'}"),
        ("kafka", "properties", "{linger.ms: '+5'}"),
        ("kafka", "properties", "{linger.ms: '1001'}"),
        ("kafka", "properties", "{compression.type: uncompressed}"),
    ] {
        let mut wrong = good();
        wrong[part][field] = serde_yaml::from_str(value).expect("YAML");
        assert_eq!(refusal(&wrong).0, format!("{part}.{field}"));
    }
}

#[test]
fn what_is_no_yaml_is_refused_by_its_place() {
    for text in ["a: 'quoted", "{", "a: b: c", "- a\nb", "a: 1\na: 2"] {
        let Err(InvalidSettings::Yaml { location }) = RelaySettings::read(text) else {
            panic!("{text} was read")
        };
        assert!(
            location.starts_with("check ") && !location.contains("quoted"),
            "{location}"
        );
    }
    for text in ["", "null", "quoted", "[quoted]"] {
        let Err(InvalidSettings::Field { field, .. }) = RelaySettings::read(text) else {
            panic!("{text} was read")
        };
        assert_eq!(field, "the file");
    }
}

/// Names that YAML would rather take for something else.
#[test]
fn names_that_look_like_numbers_stay_names() {
    for name in [
        "1",
        "1e3",
        "true",
        "null",
        "1.5",
        "0x1F",
        "2026-01-01",
        "-",
        "._-",
    ] {
        let mut settings = good();
        settings["topics"][0]["name"] = Value::from(name);
        let read = RelaySettings::read(&serde_yaml::to_string(&settings).expect("YAML"))
            .expect("good settings");
        assert_eq!(read.topics[0].name, name);
    }
}

fn any_yaml() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "quoted\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let fields = prop::collection::vec(("from|name|[a-z]{1,6}", inner.clone()), 0..4);
        let fields = fields.prop_map(|fields| {
            Value::Mapping(
                fields
                    .into_iter()
                    .map(|(name, value)| (Value::from(name), value))
                    .collect::<Mapping>(),
            )
        });
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            fields
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,60}|([a-z]{1,4}|[-:{}\\[\\]&*!|>'\"%@#?, \
        \n\t0]){0,30}") {
        let _ = RelaySettings::read(&text);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = RelaySettings::read(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_value_in_any_place_is_settings_or_an_error_that_does_not_quote_it(
        location in any::<prop::sample::Index>(),
        value in any_yaml(),
    ) {
        let mut settings = good();
        let path = location.get(&paths(&settings)).clone();
        *at(&mut settings, &path) = value;
        let read = RelaySettings::read(&serde_yaml::to_string(&settings).expect("YAML"));
        let quotes = |error: &InvalidSettings| error.to_string().contains("quoted");
        prop_assert!(!read.as_ref().is_err_and(quotes), "{:?}", read);
    }
}
