//! The manifests of `examples/`, which are also what the demo applies: usable as they stand. (The end-to-end test shows them to an API server.)

use std::path::Path;

use outbox_relay::manifest;

#[test]
fn each_example_is_a_manifest_that_a_relay_takes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files: Vec<_> = std::fs::read_dir(folder).expect("examples").map(|entry| entry.expect("an entry").path()).collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let (settings, _) = manifest::load(&file, None, "test").unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(settings.owner.name, name, "the file is named after the OutboxRelay");
        assert_eq!(settings.owner.namespace, "essays");
    }
}
