//! Rules that help a reader find things: a file name is unique within its half of the crate, and no
//! glob import hides where a name comes from.

use std::collections::BTreeMap;

use super::{
    at_most,
    circles::{HALVES, Imports},
    source::{Source, sources},
};

/// Limit for file names that several files of one half share.
const SAME_NAME_MAX: usize = 0;

/// Limit for glob imports of this crate's modules in production code.
const GLOBS_MAX: usize = 0;

/// Reports each file name that several files of one half share.
pub(super) fn same_names(sources: &[Source]) -> Vec<String> {
    let of_half = |half: &&[&str]| {
        let mut named: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for source in sources.iter().filter(|source| source.is_in(half)) {
            let name = source.path.rsplit('/').next().unwrap_or_default();
            named.entry(name).or_default().push(&source.path);
        }
        named.retain(|_, paths| paths.len() > 1);
        named
            .into_values()
            .map(|paths| paths.join(" "))
            .collect::<Vec<_>>()
    };
    HALVES.iter().flat_map(of_half).collect()
}

/// Reports each glob import of a module of this crate, such as `use super::*` or
/// `use crate::relay::*`. Globs of enums and of other crates' preludes are allowed.
pub(super) fn globs(sources: &[Source]) -> Vec<String> {
    let imports = Imports::new(sources);
    let of = |source: &Source| -> Vec<String> {
        let opened = source
            .paths
            .iter()
            .filter_map(|path| path.strip_suffix("::*"));
        let modules = opened.filter(|path| imports.is_module(path, &source.module));
        modules
            .map(|module| format!("src/{}: use {module}::*", source.path))
            .collect()
    };
    sources.iter().flat_map(of).collect()
}

#[test]
fn no_file_name_is_used_twice_within_a_half() {
    let why = "rename one: the name alone must identify the file";
    at_most(SAME_NAME_MAX, &same_names(&sources()), why);
}

#[test]
fn imports_are_no_globs() {
    let why = "import the names, so that each line shows what it uses";
    at_most(GLOBS_MAX, &globs(&sources()), why);
}

#[test]
fn planted_globs_and_names_are_found() {
    let child = "use super::*;\nuse crate::a::State::*;\n\
        use kube::prelude::*;\nuse super::{D, b::*};\n\
        #[cfg(test)]\nmod tests {\n    use super::*;\n}";
    let files = [
        ("operator/a.rs", "mod b;"),
        ("operator/a/b.rs", child),
        ("operator/c/b.rs", ""),
    ];
    let sources = files.map(|(path, text)| Source::new(path, text));
    let of_child = |opened: &str| format!("src/operator/a/b.rs: use crate::operator::{opened}::*");
    assert_eq!(globs(&sources), ["a", "a::b"].map(of_child));
    assert_eq!(same_names(&sources), ["operator/a/b.rs operator/c/b.rs"]);
}
