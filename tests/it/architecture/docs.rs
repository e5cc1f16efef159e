//! Rules for doc comments: each one stands alone, a public async function documents its cancel
//! safety, and a public function that returns a `Result` documents its errors. The checks find
//! missing text; only a reader can judge whether the text is true.

use std::collections::BTreeMap;

use super::{
    at_most,
    cut::{Function, Visibility, functions},
    lexer::{Kind, after_attributes, code, line_at, pieces},
    paths::{offset, tokens},
    source::{Source, sources, texts_below},
};

/// First words of a doc comment that refers to the item above it. An editor shows the comment
/// alone, without that item.
const OPENERS: &[&str] = &[
    "The same",
    "Of",
    "Or",
    "As",
    "None when",
    "Also",
    "And",
    "But",
    "Else",
    "It",
    "Its",
    "Likewise",
    "Nor",
    "Otherwise",
    "So",
    "That",
    "Theirs",
    "Them",
    "Then",
    "These",
    "They",
    "Those",
];

/// Limit for doc comments in `src/` and `tests/` that begin with such words.
const ELLIPTICAL_MAX: usize = 0;

/// Limit for async functions, visible outside their module, without a section `# Cancel safety`.
const WITHOUT_CANCEL_SAFETY_MAX: usize = 0;

/// Limit for public functions that return a `Result` and have no section `# Errors`.
const WITHOUT_ERRORS_MAX: usize = 0;

/// Consecutive lines of `///` or `//!`.
#[derive(Debug)]
struct Docs {
    line: usize,
    /// The words, without the slashes of each line.
    text: String,
    /// Offset of the documented item, after its attributes.
    item: usize,
}

/// All doc comments of `text`; `code` is `text` with spaces in place of comments and literals.
fn docs(text: &str, code: &str) -> Vec<Docs> {
    let mut docs: Vec<Docs> = Vec::new();
    let mut end = 0;
    for piece in pieces(text).iter().filter(|piece| piece.kind == Kind::Doc) {
        let words = piece.text[3..].trim_end();
        let goes_on =
            text[end..piece.start].trim().is_empty() && !text[end..piece.start].contains("\n\n");
        end = piece.end();
        let item = after_attributes(code, end);
        match docs.last_mut() {
            Some(last) if goes_on => {
                last.text.push_str(words);
                last.text.push('\n');
                last.item = item;
            }
            _ => docs.push(Docs {
                line: line_at(text, piece.start),
                text: format!("{words}\n"),
                item,
            }),
        }
    }
    docs
}

impl Docs {
    fn opener(&self) -> Option<&'static str> {
        let words = self.text.trim_start();
        let opens = |opener: &&&str| {
            let more = words.strip_prefix(**opener);
            more.is_some_and(|more| {
                !more.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '\'')
            })
        };
        OPENERS.iter().find(opens).copied()
    }

    fn has_heading(&self, heading: &str) -> bool {
        self.text.lines().any(|line| line.trim() == heading)
    }
}

/// Reports each doc comment of production code that begins with one of [`OPENERS`].
pub(super) fn elliptical(sources: &[Source]) -> Vec<String> {
    let of = |source: &Source| elliptical_in(&format!("src/{}", source.path), &source.text);
    sources.iter().flat_map(of).collect()
}

fn elliptical_in(path: &str, text: &str) -> Vec<String> {
    let first_line = |docs: &Docs| docs.text.lines().next().unwrap_or_default().to_owned();
    let docs = docs(text, &code(text));
    let found = docs.iter().filter(|docs| docs.opener().is_some());
    found
        .map(|docs| format!("{path}:{}{}", docs.line, first_line(docs)))
        .collect()
}

/// Reports each function for which `needs` is true and whose docs lack `heading`.
fn without(sources: &[Source], heading: &str, needs: impl Fn(&Function) -> bool) -> Vec<String> {
    let of = |source: &Source| -> Vec<String> {
        let docs = docs(&source.text, &source.code);
        let says = |function: &Function| {
            docs.iter()
                .any(|docs| docs.item == function.start && docs.has_heading(heading))
        };
        let functions = functions(&source.code);
        let silent = functions
            .iter()
            .filter(|function| needs(function) && !says(function));
        silent
            .map(|function| format!("src/{}:{} {}", source.path, function.line, function.name))
            .collect()
    };
    sources.iter().flat_map(of).collect()
}

pub(super) fn without_cancel_safety(sources: &[Source]) -> Vec<String> {
    let needs =
        |function: &Function| function.is_async && function.visibility != Visibility::Private;
    without(sources, "# Cancel safety", needs)
}

pub(super) fn without_errors(sources: &[Source]) -> Vec<String> {
    let needs = |function: &Function| {
        function.visibility == Visibility::Public && returns_result(&function.returned)
    };
    without(sources, "# Errors", needs)
}

fn returns_result(returned: &str) -> bool {
    returned.contains("Result<") || returned.ends_with("::Result")
}

/// Counts public functions, types and constants, and those of them without docs. Fields do not
/// count.
pub(super) fn public_items(sources: &[Source]) -> (usize, usize) {
    let mut counts = (0, 0);
    for source in sources {
        let docs: BTreeMap<usize, Docs> = docs(&source.text, &source.code)
            .into_iter()
            .map(|docs| (docs.item, docs))
            .collect();
        for item in public_offsets(&source.code) {
            counts.0 += 1;
            counts.1 += usize::from(!docs.contains_key(&item));
        }
    }
    counts
}

fn public_offsets(code: &str) -> Vec<usize> {
    const ITEMS: &[&str] = &[
        "async", "const", "enum", "fn", "static", "struct", "trait", "type",
    ];
    let tokens = tokens(code);
    let is_public = |window: &&[&str]| window[0] == "pub" && ITEMS.contains(&window[1]);
    tokens
        .windows(2)
        .filter(is_public)
        .map(|window| offset(code, window[0]))
        .collect()
}

#[test]
fn doc_comments_stand_alone() {
    let why = "an editor shows no item above: begin with what this item is or does";
    let of = |folder: &str| -> Vec<String> {
        let files = texts_below(folder, &["rs"]);
        files
            .iter()
            .flat_map(|(path, text)| elliptical_in(&format!("{folder}/{path}"), text))
            .collect()
    };
    at_most(ELLIPTICAL_MAX, &["src", "tests"].map(of).concat(), why);
}

#[test]
fn async_functions_document_their_cancel_safety() {
    let why = "say below `# Cancel safety` what is lost when the future is dropped before it ends";
    at_most(
        WITHOUT_CANCEL_SAFETY_MAX,
        &without_cancel_safety(&sources()),
        why,
    );
}

#[test]
fn public_functions_document_their_errors() {
    let why = "say below `# Errors` when the function fails";
    at_most(WITHOUT_ERRORS_MAX, &without_errors(&sources()), why);
}

#[test]
fn planted_doc_comments_are_found() {
    let text = r"//! Or so.

/// Of the payload.
#[derive(A)]
pub struct B {
    /// Assigned.
    pub c: u8,
    pub d: u8,
}

/// Sends.
///
/// # Errors
///
/// Kafka is unavailable.
#[must_use]
pub async fn e() -> Result<(), F> {}

// Of no matter: this is no doc comment.
/// Waits.
///
/// # Cancel safety
///
/// Nothing is lost.
pub(super) async fn h() -> Result<(), I> {}

pub fn k() -> io::Result<()> {}

#[cfg(test)]
mod tests {
    /// As ever.
    pub async fn n() {}
}
";
    let sources = [Source::new("a.rs", text)];
    assert_eq!(
        elliptical(&sources),
        ["src/a.rs:1 Or so.", "src/a.rs:3 Of the payload."]
    );
    assert_eq!(without_cancel_safety(&sources), ["src/a.rs:17 e"]);
    assert_eq!(without_errors(&sources), ["src/a.rs:27 k"]);
    assert_eq!(public_items(&sources), (3, 1), "B, e and k; k is bare");
}
