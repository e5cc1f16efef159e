//! Circles of imports: strongly connected sets of two or more files.
//!
//! A file has an edge to each file that its production code refers to, by a path in a `use` or in
//! the code itself. A path refers to the deepest file whose module is a prefix of it. If that file
//! re-exports the name (`pub use`, of any visibility), the path also refers to the file that
//! defines it. Both edges count: a reader goes through the first file and ends in the second. So a
//! re-export cannot hide a circle. A `pub use` itself has only the edge to the module that it
//! mentions.
//!
//! Edges between a module and its own parent do not count: a parent declares its children, and a
//! child may use what the parent keeps for all of them. A glob import has one edge, to the module
//! that it opens; names used through it are not followed. `rooms.rs` forbids globs.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    at_most,
    paths::reexported,
    source::{Source, sources},
};

/// Root file and folder of the relay and of the operator.
pub(super) const HALVES: &[&[&str]] = &[&["relay.rs", "relay/"], &["operator.rs", "operator/"]];

/// Limit for all circles.
const CIRCLES_MAX: usize = 0;

/// Limit for circles with two or more files in one half.
const CIRCLES_WITHIN_HALVES_MAX: usize = 0;

/// One strongly connected set.
#[derive(Debug)]
pub(super) struct Circle {
    files: Vec<String>,
    /// Every edge between these files, in words.
    edges: Vec<String>,
}

impl Circle {
    fn is_within_a_half(&self) -> bool {
        let is_in = |file: &str, half: &[&str]| {
            half.iter()
                .any(|place| file == *place || place.ends_with('/') && file.starts_with(place))
        };
        let files_in = |half: &[&str]| self.files.iter().filter(|file| is_in(file, half)).count();
        HALVES.iter().any(|half| files_in(half) > 1)
    }

    fn to_text(&self) -> String {
        format!(
            "{}\n    {}",
            self.files.join(" "),
            self.edges.join("\n    ")
        )
    }
}

/// Returns all circles in `sources`, sorted by their first file.
pub(super) fn circles(sources: &[Source]) -> Vec<Circle> {
    let edges = Imports::new(sources).edges(sources);
    let reached: BTreeMap<&str, BTreeSet<&str>> = sources
        .iter()
        .map(|source| (source.path.as_str(), reached_from(&source.path, &edges)))
        .collect();
    let mut circles = Vec::new();
    let mut seen = BTreeSet::new();
    for (&file, reached_files) in &reached {
        let is_in_circle = |other: &&&str| reached[**other].contains(file);
        let files: Vec<String> = reached_files
            .iter()
            .filter(is_in_circle)
            .map(|file| (*file).to_owned())
            .collect();
        if files.len() > 1 && seen.insert(files.clone()) {
            let inside = edges
                .iter()
                .filter(|edge| files.contains(&edge.from) && files.contains(&edge.to));
            let edges = inside.map(Edge::to_text).collect();
            circles.push(Circle { files, edges });
        }
    }
    circles
}

/// Returns those circles of which two or more files are in one half.
pub(super) fn within_halves(sources: &[Source]) -> Vec<Circle> {
    let mut circles = circles(sources);
    circles.retain(Circle::is_within_a_half);
    circles
}

fn reached_from<'e>(file: &str, edges: &'e [Edge]) -> BTreeSet<&'e str> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![file];
    while let Some(from) = waiting.pop() {
        for edge in edges.iter().filter(|edge| edge.from == from) {
            if reached.insert(edge.to.as_str()) {
                waiting.push(&edge.to);
            }
        }
    }
    reached
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: String,
    to: String,
    /// Paths in `from` that refer to `to`.
    paths: BTreeSet<String>,
}

impl Edge {
    fn to_text(&self) -> String {
        let paths: Vec<&str> = self.paths.iter().map(String::as_str).collect();
        format!("{} -> {} ({})", self.from, self.to, paths.join(", "))
    }
}

/// Resolves paths to modules and files.
pub(super) struct Imports<'s> {
    /// File of each module.
    files: BTreeMap<&'s str, &'s str>,
    /// For each module, the names that it re-exports with the paths that they mean.
    reexports: BTreeMap<&'s str, BTreeMap<String, String>>,
}

impl<'s> Imports<'s> {
    pub(super) fn new(sources: &'s [Source]) -> Self {
        let files = sources
            .iter()
            .map(|source| (source.module.as_str(), source.path.as_str()));
        let reexports = sources.iter().map(|source| {
            (
                source.module.as_str(),
                reexported(&source.code, &source.module),
            )
        });
        Self {
            files: files.collect(),
            reexports: reexports.collect(),
        }
    }

    fn edges(&self, sources: &[Source]) -> Vec<Edge> {
        let mut edges: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
        for source in sources {
            for path in &source.paths {
                for module in self.imported(path, &source.module) {
                    let edge = edges.entry((&source.path, self.files[module])).or_default();
                    edge.insert(path.clone());
                }
            }
        }
        let edge = |((from, to), paths): ((&str, &str), _)| Edge {
            from: from.into(),
            to: to.into(),
            paths,
        };
        edges.into_iter().map(edge).collect()
    }

    /// Returns the modules to which `path` makes an edge from `module`.
    fn imported(&self, path: &str, module: &str) -> Vec<&'s str> {
        let mut modules = self.modules(path, module);
        if self.reexports[module].values().any(|target| target == path) {
            modules.truncate(1);
        }
        modules.retain(|imported| *imported != module && !is_parent_and_child(imported, module));
        modules
    }

    /// Returns the modules that `path` refers to when `module` uses it: the deepest one that is a
    /// prefix, then each one along re-exports up to the definition.
    fn modules(&self, path: &str, module: &str) -> Vec<&'s str> {
        let mut modules = Vec::new();
        let mut path = self.absolute(path, module);
        while let Some((module, below)) = path.as_deref().and_then(|path| self.deepest(path)) {
            if modules.contains(&module) {
                break;
            }
            modules.push(module);
            let (name, more) = below.split_once("::").unwrap_or((below, ""));
            path = self.reexports[module]
                .get(name.trim_end_matches('('))
                .and_then(|target| {
                    let target = self.absolute(target, module)?;
                    Some(if more.is_empty() {
                        target
                    } else {
                        format!("{target}::{more}")
                    })
                });
        }
        modules
    }

    /// Whether `path`, used in `module`, is itself a module of this crate.
    pub(super) fn is_module(&self, path: &str, module: &str) -> bool {
        self.absolute(path, module)
            .is_some_and(|path| self.files.contains_key(path.as_str()))
    }

    /// Returns `path` from the root of the crate, or `None` if it leads out of the crate.
    fn absolute(&self, path: &str, module: &str) -> Option<String> {
        if path == "crate" || path.starts_with("crate::") {
            return Some(path.to_owned());
        }
        let child = format!("{module}::{}", path.split("::").next()?);
        self.files
            .contains_key(child.as_str())
            .then(|| format!("{module}::{path}"))
    }

    /// Returns the deepest module that is a prefix of `path`, and the rest of the path.
    fn deepest<'p>(&self, path: &'p str) -> Option<(&'s str, &'p str)> {
        let mut end = path.len();
        loop {
            if let Some((module, _)) = self.files.get_key_value(&path[..end]) {
                return Some((module, path[end..].trim_start_matches("::")));
            }
            end = path[..end].rfind("::")?;
        }
    }
}

fn is_parent_and_child(one: &str, other: &str) -> bool {
    let is_parent = |parent: &str, child: &str| {
        child
            .rsplit_once("::")
            .is_some_and(|(above, _)| above == parent)
    };
    is_parent(one, other) || is_parent(other, one)
}

#[test]
fn there_are_few_circles_of_imports() {
    let circles: Vec<String> = circles(&sources()).iter().map(Circle::to_text).collect();
    at_most(
        CIRCLES_MAX,
        &circles,
        "files that import each other cannot be read one by one",
    );
}

#[test]
fn no_circle_of_imports_is_within_a_half() {
    let within = within_halves(&sources());
    let within: Vec<String> = within.iter().map(Circle::to_text).collect();
    at_most(
        CIRCLES_WITHIN_HALVES_MAX,
        &within,
        "within a half, imports go one way",
    );
}

#[test]
fn a_planted_circle_is_found() {
    let found = |files: &[(&str, &str)]| {
        let sources: Vec<Source> = files
            .iter()
            .map(|(path, text)| Source::new(path, text))
            .collect();
        let circles = circles(&sources);
        circles
            .iter()
            .map(|circle| circle.files.join(" "))
            .collect::<Vec<_>>()
    };
    let direct = [
        ("relay/a.rs", "use super::b::B;"),
        ("relay/b.rs", "fn f() { crate::relay::a::g() }"),
    ];
    assert_eq!(found(&direct), ["relay/a.rs relay/b.rs"]);
    let sources = direct.map(|(path, text)| Source::new(path, text));
    let text = circles(&sources)[0].to_text();
    for edge in [
        "relay/a.rs -> relay/b.rs (crate::relay::b::B)",
        "relay/b.rs -> relay/a.rs (crate::relay::a::g()",
    ] {
        assert!(text.contains(edge), "{text}");
    }

    let of_three = [
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "use crate::c;"),
        ("c.rs", "use crate::{a::A, d::D};"),
        ("d.rs", ""),
    ];
    assert_eq!(found(&of_three), ["a.rs b.rs c.rs"]);

    let through_a_reexport = [
        ("a.rs", "pub(crate) use b::B;\nmod b;"),
        ("a/b.rs", "use crate::c::C;"),
        ("c.rs", "use crate::a::B;"),
    ];
    assert_eq!(found(&through_a_reexport), ["a/b.rs c.rs"]);

    let through_the_file_that_reexports = [
        ("a.rs", "pub use b::B;\nuse crate::c::C;\nmod b;"),
        ("a/b.rs", ""),
        ("c.rs", "use crate::a::B;"),
    ];
    assert_eq!(found(&through_the_file_that_reexports), ["a.rs c.rs"]);

    let parent_and_child = [("a.rs", "mod b;\nuse b::B;"), ("a/b.rs", "use super::A;")];
    assert_eq!(found(&parent_and_child), Vec::<String>::new());

    let in_tests_alone = [
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}"),
    ];
    assert_eq!(found(&in_tests_alone), Vec::<String>::new());
}

#[test]
fn a_circle_is_within_a_half_if_two_of_its_files_are() {
    let circle = |files: &[&str]| Circle {
        files: files.iter().map(|file| (*file).to_owned()).collect(),
        edges: Vec::new(),
    };
    assert!(circle(&["operator/plan.rs", "operator/status.rs"]).is_within_a_half());
    assert!(circle(&["http.rs", "relay.rs", "relay/a.rs"]).is_within_a_half());
    assert!(!circle(&["operator.rs", "relay.rs"]).is_within_a_half());
    assert!(!circle(&["http.rs", "relay.rs"]).is_within_a_half());
}
