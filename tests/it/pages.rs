//! The pages of this repository as a reader follows them: no link leads nowhere. Reads files; no
//! server.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What is not ours to read.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];

#[test]
fn every_link_of_a_page_leads_to_a_file_and_a_heading() {
    let mut pages = Vec::new();
    collect(Path::new(env!("CARGO_MANIFEST_DIR")), &mut pages);
    assert!(pages.len() >= 8, "{pages:?}");
    let dead: Vec<String> = pages
        .iter()
        .flat_map(|page| {
            let text = fs::read_to_string(page).expect("a page");
            links(&text)
                .into_iter()
                .filter(|link| !leads_somewhere(page, link))
                .map(|link| format!("{}: {link}", page.display()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(dead.is_empty(), "dead links: {dead:#?}");
}

/// A page that nobody can find is not read.
#[test]
fn the_readme_links_every_page_of_the_documentation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = links(&fs::read_to_string(root.join("README.md")).expect("README.md"));
    let pages = fs::read_dir(root.join("docs")).expect("docs").map(|entry| {
        entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    let unlinked: Vec<String> = pages
        // Pages show pictures; a picture is no page.
        .filter(|page| page != "pictures" && !readme.contains(&format!("docs/{page}")))
        .collect();
    assert!(unlinked.is_empty(), "README.md links none of {unlinked:?}");
}

fn collect(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir()
            && !path
                .file_name()
                .is_some_and(|name| SKIPPED.iter().any(|skipped| name == *skipped))
        {
            collect(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}

/// The targets of `[text](target)` that are not on another host. Code has no links.
fn links(text: &str) -> Vec<String> {
    let without_code = |line: &str| line.split('`').step_by(2).collect::<String>();
    let lines: Vec<String> = text.lines().map(without_code).collect();
    let text = lines.join("\n");
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()));
    targets
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .collect()
}

fn leads_somewhere(page: &Path, link: &str) -> bool {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() {
        page.to_owned()
    } else {
        page.parent().expect("a folder").join(file)
    };
    target.exists()
        && (anchor.is_empty() || headings(&target).iter().any(|heading| heading == anchor))
}

/// Headings as they are linked: lower case, spaces as hyphens, without other signs.
fn headings(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap_or_default();
    let anchor = |heading: &str| {
        let kept = heading
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| {
            if c == ' ' {
                '-'
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect()
    };
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}
