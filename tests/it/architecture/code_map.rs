//! The code map of ARCHITECTURE.md has one line for each module, and no line for a file that is
//! gone.

use std::{collections::BTreeSet, fs, path::Path};

use super::source::sources;

/// Returns the files that a code map lists, as paths below `src/`. A heading ends with the folder
/// that the paths of its tables are relative to; `../x.rs` is the file beside that folder.
fn listed(page: &str) -> Vec<String> {
    let map = page.split("## Code map\n").nth(1).unwrap_or_default();
    let map = map.split("\n## ").next().unwrap_or_default();
    let mut folder = "";
    let mut files = Vec::new();
    for line in map.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            folder = heading
                .split("`src/")
                .nth(1)
                .map_or("", |rest| rest.trim_end_matches('`'));
        }
        let name = line
            .strip_prefix("| `")
            .and_then(|rest| rest.split('`').next());
        if let Some(name) = name.filter(|name| name.ends_with(".rs")) {
            files.push(path(folder, name));
        }
    }
    files
}

fn path(folder: &str, name: &str) -> String {
    let Some(beside) = name.strip_prefix("../") else {
        return format!("{folder}{name}");
    };
    let parent = folder.trim_end_matches('/').rsplit_once('/');
    parent.map_or_else(
        || beside.to_owned(),
        |(parent, _)| format!("{parent}/{beside}"),
    )
}

#[test]
fn the_code_map_lists_every_module_once() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let listed = listed(&fs::read_to_string(page).expect("ARCHITECTURE.md"));
    let sources = sources();
    let modules: BTreeSet<&str> = sources.iter().map(|source| source.path.as_str()).collect();
    let once: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    let missing: Vec<_> = modules.difference(&once).collect();
    let gone: Vec<_> = once.difference(&modules).collect();
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md has no line for {missing:#?}"
    );
    assert!(
        gone.is_empty(),
        "ARCHITECTURE.md has lines for files that do not exist: {gone:#?}"
    );
    assert_eq!(
        listed.len(),
        once.len(),
        "a module has one line: {listed:#?}"
    );
}

#[test]
fn paths_are_relative_to_the_folder_in_the_heading() {
    let page = "## Code map\n### The loop: `src/relay/session/`\n| `../session.rs` | the loop |\n\
        | `send.rs` | sends |\n### Shared: `src/`\n| `lib.rs` | all |\n## Decisions\n| `no.rs` | |\n";
    assert_eq!(
        listed(page),
        ["relay/session.rs", "relay/session/send.rs", "lib.rs"]
    );
}
