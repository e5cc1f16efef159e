//! The version of crate, chart, image and pages is one. Reads files; no server.

use std::{fs, path::Path};

use serde_json::Value;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn text(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Versions that follow `before` in a text: digits and dots.
fn versions_after<'t>(text: &'t str, before: &str) -> Vec<&'t str> {
    text.split(before)
        .skip(1)
        .map(|rest| {
            let end = rest.find(|one: char| !one.is_ascii_digit() && one != '.');
            rest[..end.unwrap_or(rest.len())].trim_end_matches('.')
        })
        .filter(|version| version.contains('.'))
        .collect()
}

/// Files, and what a version follows there. Each occurs at least once.
const NAMED: &[(&str, &[&str])] = &[
    ("README.md", &["| Status | ", "--version "]),
    (
        "docs/setup.md",
        &["outbox-relay:", "--version ", "outbox-operator-"],
    ),
    ("examples/kind/README.md", &["localhost/outbox-relay:"]),
    ("Dockerfile", &["outbox-relay:", "ARG VERSION="]),
];

#[test]
fn crate_chart_image_and_pages_have_one_version() {
    let chart: Value =
        serde_yaml::from_str(&text("charts/outbox-operator/Chart.yaml")).expect("YAML");
    assert_eq!(chart["version"], VERSION);
    assert_eq!(chart["appVersion"], VERSION);
    for (file, marks) in NAMED {
        for mark in *marks {
            let content = text(file);
            let found = versions_after(&content, mark);
            assert!(!found.is_empty(), "{file} has no version after '{mark}'");
            for version in found {
                assert_eq!(version, VERSION, "{file}, after '{mark}'");
            }
        }
    }
}

/// Newer versions come first, and the first one is the crate's.
#[test]
fn the_changelog_begins_with_this_version() {
    let changelog = text("CHANGELOG.md");
    let first = changelog.lines().find_map(|line| line.strip_prefix("## ["));
    let first = first.and_then(|line| line.split(']').next());
    assert_eq!(first, Some(VERSION));
}

#[test]
fn versions_are_found_in_a_text() {
    let text = "image:1.2.3, image:0.1.0. image:latest image:4";
    assert_eq!(versions_after(text, "image:"), ["1.2.3", "0.1.0"]);
}
