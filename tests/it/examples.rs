//! The manifests of `examples/`, which are also what the demo applies, and those of the pages:
//! usable as they stand. (The end-to-end test shows the examples to an API server.)

use std::path::{Path, PathBuf};

use outbox_relay::{
    api::custom_resource_definition,
    manifest,
    settings::{AdoptPreset, RelaySettings},
};
use serde::Deserialize;
use serde_json::{Value, json};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn each_example_is_a_manifest_that_a_relay_takes() {
    let files: Vec<_> = std::fs::read_dir(root().join("examples"))
        .expect("examples")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let name = file.file_stem().expect("a name").to_string_lossy();
        is_accepted(&file, &name);
    }
}

/// Checks that a manifest is accepted by a relay and by the rules of the CRD. Returns its settings.
fn is_accepted(file: &Path, name: &str) -> RelaySettings {
    let (settings, _) = manifest::load(file, None, "test")
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert_eq!(settings.owner.name, name, "{}", file.display());
    assert_eq!(settings.owner.namespace, "essays");
    let [relay] = documents(file).try_into().expect("one document");
    let checked = kube_cel::Validator::new().validate(&schema(), &relay, None);
    if let Err(errors) = checked {
        panic!("{}: {errors}", file.display());
    }
    settings
}

fn documents(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).expect("an example");
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).expect("YAML"))
        .collect()
}

fn schema() -> Value {
    let crd: Value = serde_yaml::from_str(&custom_resource_definition()).expect("YAML");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Folders of `examples/services`, with the names of their services.
fn services() -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(root().join("examples/services")).expect("examples");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let folders = paths.filter(|path| path.is_dir()).map(|path| {
        let name = path.file_name().expect("a name").to_string_lossy();
        (name.into_owned(), path.clone())
    });
    folders.collect()
}

#[test]
fn each_service_has_a_manifest_that_adopts_its_table() {
    let services = services();
    assert_eq!(services.len(), 7, "{services:?}");
    for (name, folder) in services {
        let settings = is_accepted(&folder.join("outboxrelay.yaml"), &name);
        let [adopt] = settings.migration.adopt.as_slice() else {
            panic!("{name} adopts one table")
        };
        assert_eq!(adopt.to_string(), "public.event_outbox");
        assert_eq!(adopt.preset, Some(AdoptPreset::EventOutbox));
        let page = std::fs::read_to_string(folder.join("README.md")).expect("README.md");
        for topic in &settings.topics {
            assert!(page.contains(&format!("| `{}` |", topic.name)), "{name}");
        }
    }
}

#[test]
fn the_secrets_of_each_service_are_those_that_its_manifest_needs() {
    for (name, folder) in services() {
        let [relay] = documents(&folder.join("outboxrelay.yaml"))
            .try_into()
            .expect("one document");
        let (database, migration) = (
            &relay["spec"]["database"],
            &relay["spec"]["migration"]["database"],
        );
        let needed = [migration, database].map(|side| &side["credentialsSecretRef"]["name"]);
        let secrets = documents(&folder.join("secrets.yaml"));
        let found: Vec<&Value> = secrets
            .iter()
            .map(|found| &found["metadata"]["name"])
            .collect();
        assert_eq!(found, needed, "{name}");
        for secret in &secrets {
            assert_eq!(
                secret["metadata"]["namespace"],
                relay["metadata"]["namespace"]
            );
            let keys = secret["stringData"].as_object().expect("an object").keys();
            assert_eq!(keys.collect::<Vec<_>>(), ["username", "password"], "{name}");
        }
    }
}

/// Names of topics in `topics.sh`: one on each line of its list.
fn topics_of_script(folder: &Path) -> Vec<String> {
    let script = std::fs::read_to_string(folder.join("topics.sh")).expect("topics.sh");
    let list = script.split("topics=(\n").nth(1).expect("a list");
    let list = list.split("\n)").next().expect("its end");
    list.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn the_topics_of_each_service_are_made_as_they_are_today() {
    for (name, folder) in services() {
        let settings = is_accepted(&folder.join("outboxrelay.yaml"), &name);
        let declared: Vec<&str> = settings.topics.iter().map(|topic| &*topic.name).collect();
        assert_eq!(topics_of_script(&folder), declared, "{name}");
        let topics = documents(&folder.join("topics.yaml"));
        let names: Vec<&Value> = topics
            .iter()
            .map(|topic| &topic["spec"]["topicName"])
            .collect();
        assert_eq!(names, declared, "{name}");
        for topic in &topics {
            assert_eq!(topic["kind"], "KafkaTopic");
            let (spec, resource) = (&topic["spec"], &topic["metadata"]["name"]);
            assert_eq!(
                (&spec["partitions"], &spec["replicas"]),
                (&json!(3), &json!(1))
            );
            assert_eq!(spec["config"], json!({"min.insync.replicas": 1}));
            let resource = resource.as_str().expect("a name");
            let allowed =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            assert!(resource.chars().all(allowed), "{resource}");
        }
    }
}

/// The README's first manifest, and that manifest with each block that shows a part of `spec`.
#[test]
fn manifests_of_pages_are_ones_that_a_relay_takes() {
    let pages = [
        "README.md",
        "docs/setup.md",
        "docs/reference.md",
        "docs/adopting.md",
    ];
    let blocks: Vec<Value> = pages
        .iter()
        .flat_map(|page| manifests(&root().join(page)))
        .collect();
    let [whole, parts @ ..] = blocks.as_slice() else {
        panic!("no manifest")
    };
    assert!(parts.len() >= 11, "{parts:?}");
    takes(whole);
    for part in parts {
        let mut changed = whole.clone();
        lay_over(&mut changed, part);
        takes(&changed);
    }
}

fn manifests(page: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(page).expect("a page");
    let blocks = text
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().expect("an end"));
    blocks
        .map(|block| {
            serde_yaml::from_str(block)
                .unwrap_or_else(|error| panic!("{}: {error}\n{block}", page.display()))
        })
        .collect()
}

fn takes(relay: &Value) {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("manifest-of-a-page-{}.yaml", uuid::Uuid::new_v4()));
    std::fs::write(&file, serde_yaml::to_string(relay).expect("YAML")).expect("written");
    let loaded = manifest::load(&file, None, "test");
    std::fs::remove_file(&file).expect("removed");
    if let Err(error) = loaded {
        panic!("{:#}\n{relay:#}", anyhow::Error::from(error));
    }
}

/// A URL replaces the fields that it carries, and those replace it.
fn lay_over(whole: &mut Value, part: &Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            if part.contains_key("urlSecretRef") {
                whole.retain(|name, _| {
                    !["host", "name", "credentialsSecretRef"].contains(&name.as_str())
                });
            }
            if part.contains_key("host") {
                whole.shift_remove("urlSecretRef");
            }
            for (name, value) in part {
                lay_over(whole.entry(name).or_insert(Value::Null), value);
            }
        }
        (whole, part) => *whole = part.clone(),
    }
}
