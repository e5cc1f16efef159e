//! What a source names, as full paths: trees of `use` are expanded, renamed and relative names
//! resolved. Pure.

use std::collections::BTreeMap;

/// All paths that `code` names; `module` is its own, such as `crate::relay::core`. What is called
/// ends in `(`, a glob in `*`.
pub(super) fn named(code: &str, module: &str) -> Vec<String> {
    let mut reader = Reader {
        tokens: tokens(code),
        at: 0,
        module,
        aliases: BTreeMap::new(),
        found: Vec::new(),
    };
    let is_use = |reader: &Reader<'_>| reader.is(0, "use") && !reader.is(1, "<");
    while reader.at < reader.tokens.len() {
        let tree = is_use(&reader);
        reader.at += 1;
        if tree {
            reader.tree(&[]);
        }
    }
    reader.at = 0;
    while reader.at < reader.tokens.len() {
        if is_use(&reader) {
            while reader.at < reader.tokens.len() && !reader.is(0, ";") {
                reader.at += 1;
            }
        } else {
            reader.path();
        }
    }
    reader.found
}

/// Returns the names that a module re-exports, by `pub use` or `pub(...) use`, with the paths that
/// they mean.
pub(super) fn reexported(code: &str, module: &str) -> BTreeMap<String, String> {
    let mut reader = Reader {
        tokens: tokens(code),
        at: 0,
        module,
        aliases: BTreeMap::new(),
        found: Vec::new(),
    };
    while reader.at < reader.tokens.len() {
        // `pub use` or `pub(super) use`.
        let is_public = reader.at > 0 && ["pub", ")"].contains(&reader.tokens[reader.at - 1]);
        let is_use = is_public && reader.is(0, "use");
        reader.at += 1;
        if is_use {
            reader.tree(&[]);
        }
    }
    reader
        .aliases
        .into_iter()
        .map(|(name, path)| (name.to_owned(), path))
        .collect()
}

struct Reader<'c> {
    tokens: Vec<&'c str>,
    at: usize,
    module: &'c str,
    /// What a name of a `use` stands for.
    aliases: BTreeMap<&'c str, String>,
    found: Vec<String>,
}

impl<'c> Reader<'c> {
    fn is(&self, ahead: usize, token: &str) -> bool {
        self.tokens.get(self.at + ahead) == Some(&token)
    }

    /// One branch of a `use`: `a::{b, c as d, e::*}` behind `prefix`.
    fn tree(&mut self, prefix: &[&'c str]) {
        let mut segments = prefix.to_vec();
        while let Some(&token) = self.tokens.get(self.at) {
            match token {
                "{" => return self.branches(&segments),
                "," | "}" | ";" => break,
                "as" => {
                    self.at += 1;
                    let alias = self.tokens[self.at];
                    self.at += 1;
                    return self.add(alias, &segments);
                }
                "::" => {}
                // In braces it is what stands before them.
                "self" if !segments.is_empty() => {}
                segment => segments.push(segment),
            }
            self.at += 1;
        }
        if let Some(name) = segments.last() {
            self.add(name, &segments);
        }
    }

    fn branches(&mut self, prefix: &[&'c str]) {
        while !self.is(0, "}") {
            self.at += 1;
            if !self.is(0, "}") {
                self.tree(prefix);
            }
        }
        self.at += 1;
    }

    fn add(&mut self, alias: &'c str, segments: &[&'c str]) {
        let path = absolute(segments, self.module);
        self.aliases.insert(alias, path.clone());
        self.found.push(path);
    }

    /// A path of the code itself, of at least two names or called.
    fn path(&mut self) {
        let start = self.at;
        self.at += 1;
        if !is_name(self.tokens[start]) {
            return;
        }
        while self.is(0, "::")
            && self
                .tokens
                .get(self.at + 1)
                .is_some_and(|next| is_name(next))
        {
            self.at += 2;
        }
        let segments: Vec<&str> = self.tokens[start..self.at]
            .iter()
            .copied()
            .filter(|token| *token != "::")
            .collect();
        let called = if self.is(0, "(") { "(" } else { "" };
        if segments.len() < 2 && called.is_empty() {
            return;
        }
        let method = start > 0 && self.tokens[start - 1] == ".";
        let path = match self.aliases.get(segments[0]) {
            Some(meant) if !method => [&[meant.as_str()], &segments[1..]].concat().join("::"),
            _ => absolute(&segments, self.module),
        };
        self.found.push(path + called);
    }
}

/// With the module's own path in place of `self` and `super`.
fn absolute(segments: &[&str], module: &str) -> String {
    let mut base: Vec<&str> = Vec::new();
    let mut rest = segments;
    if matches!(rest, ["self" | "super", ..]) {
        base = module.split("::").collect();
    }
    while let ["self" | "super", ..] = rest {
        if rest[0] == "super" {
            base.pop();
        }
        rest = &rest[1..];
    }
    base.extend(rest);
    base.join("::")
}

pub(super) fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Names, `::`, and every other sign that is no space.
pub(super) fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("::") {
            2
        } else if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// Returns the offset of a token in the `code` that it was cut from.
pub(super) fn offset(code: &str, token: &str) -> usize {
    token.as_ptr() as usize - code.as_ptr() as usize
}

/// Whether `path` is `root` or something below it; a root that ends in `(` is a call, by the end of
/// its path.
pub(super) fn is_below(path: &str, root: &str) -> bool {
    if root.ends_with('(') {
        return path == root
            || path
                .strip_suffix(root)
                .is_some_and(|before| before.ends_with("::"));
    }
    if let Some(opened) = path.strip_suffix('*') {
        return format!("{root}::").starts_with(opened) || opened.starts_with(&format!("{root}::"));
    }
    path.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest == "(" || rest.starts_with("::"))
}

#[test]
fn a_use_is_expanded_whatever_its_form() {
    let uses = |code: &str, root: &str| {
        named(code, "crate::relay::core")
            .iter()
            .any(|path| is_below(path, root))
    };
    for (code, root) in [
        ("use kube::{Api, Client};", "kube::Client"),
        (
            "use kube::{\n    api::{Patch, PatchParams},\n    runtime::{self, wait},\n};",
            "kube::runtime",
        ),
        ("use kube::Client as K;", "kube::Client"),
        ("use kube::*;", "kube::Client"),
        ("use std::{env, fs};", "std::fs"),
        ("use std::env;", "std::env"),
        (
            "use std::{self as s};\nfn f() { s::env::var(name) }",
            "std::env",
        ),
        ("use kube as k;\nfn f(client: k::Client) {}", "kube::Client"),
        ("fn f() { tokio::spawn(g()) }", "tokio"),
        ("use super::super::kafka::Producer;", "crate::kafka"),
        (
            "use super::super::{kafka, relay::session};",
            "crate::relay::session",
        ),
        ("fn f() { std::time::Instant::now() }", "Instant::now("),
        (
            "use std::time::Instant as Clock;\nfn f() { Clock::now() }",
            "Instant::now(",
        ),
        ("fn f() { query(sql).persistent(true) }", "persistent("),
    ] {
        assert!(
            uses(code, root),
            "{code} names {root}: {:?}",
            named(code, "crate::relay::core")
        );
    }
    for (code, root) in [
        ("use kube::{ClientBuilder, ResourceExt};", "kube::Client"),
        (
            "use k8s_openapi::api::core::v1::Pod; fn f(kube: u8) {}",
            "kube",
        ),
        ("fn f() -> &'static str { env!(name) }", "std::env"),
        (
            "use std::time::Instant;\nfn f(now: Instant) {}",
            "Instant::now(",
        ),
        (
            "fn f() -> impl Iterator + use<'_> { tokio_less::x() }",
            "tokio",
        ),
        ("use a::{tokio::B, c};", "tokio"),
    ] {
        assert!(
            !uses(code, root),
            "{code} does not name {root}: {:?}",
            named(code, "crate::relay::core")
        );
    }
}
