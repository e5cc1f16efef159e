//! The manifests of `examples/`, which are also what the demo applies, and those of the pages:
//! usable as they stand. (The end-to-end test shows the examples to an API server.)

use std::path::{Path, PathBuf};

use outbox_relay::manifest;
use serde_json::Value;

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
        let name = file
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let (settings, _) = manifest::load(&file, None, "test")
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(
            settings.owner.name, name,
            "the file is named after the OutboxRelay"
        );
        assert_eq!(settings.owner.namespace, "essays");
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
