//! Files that are written by code: `UPDATE_GENERATED=1 cargo test generated` writes them again.

mod expected_schema;
mod reference;

use std::path::Path;

use outbox_relay::api::custom_resource_definition;

const CRD: [&str; 2] = [
    "crds/outboxrelays.outboxrelay.dev.yaml",
    "charts/outbox-operator/files/outboxrelays.outboxrelay.dev.yaml",
];

#[test]
fn generated_crds_are_what_the_operator_prints() {
    for path in CRD {
        compare(path, &custom_resource_definition());
    }
}

pub(crate) fn compare(path: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, wanted).expect("a file of the repository");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} is not up to date: UPDATE_GENERATED=1 cargo test generated",
        path.display()
    );
}

#[test]
fn the_schema_level_is_the_number_of_the_last_migration() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let files = std::fs::read_dir(folder).expect("migrations");
    let names = files.map(|file| file.expect("a file").file_name());
    let last = names.max().expect("migrations");
    let number = last.to_string_lossy()[..4].parse::<i64>();
    assert_eq!(number, Ok(outbox_relay::settings::SCHEMA_LEVEL));
}
