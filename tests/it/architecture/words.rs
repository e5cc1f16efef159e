//! Words that the project no longer uses: names in `words.tsv`, phrases of prose in `phrases.tsv`.

use std::collections::BTreeMap;

use super::{
    at_most,
    lexer::{code, line_at, pieces},
    paths::{is_name, offset, tokens},
    source::texts_below,
};

/// Limit for uses of the phrases in `phrases.tsv`.
const PHRASES_MAX: usize = 0;

/// Extensions of the files that are searched. Scripts have none.
const EXTENSIONS: &[&str] = &["", "md", "rs", "sh", "sql", "yaml", "yml"];

/// Places that are not searched: migrations must not change, and these tests contain the words.
const EXCEPT: &[&str] = &["migrations/", "tests/it/architecture/"];

/// Beginning of names in the API, which are no prose: an annotation had a listed word.
const API_GROUP: &str = "outboxrelay.dev/";

/// A row of `words.tsv`.
#[derive(Debug, PartialEq, Eq)]
struct Word<'r> {
    old: &'r str,
    new: &'r str,
    /// Files and folders, from the root of the project, that must not use `old`.
    places: Vec<&'r str>,
    scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Identifiers in the code of Rust files.
    Identifiers,
    /// The whole text of files of all kinds, comments and strings included.
    Text,
}

impl Word<'_> {
    /// Whether the file at `path` must not use the word. `src/relay` covers `src/relay.rs` as well.
    fn is_for(&self, path: &str) -> bool {
        let is_below = |place: &&str| {
            path.strip_prefix(place.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
        };
        self.places.iter().any(is_below)
    }
}

fn words(table: &str) -> Vec<Word<'_>> {
    let word = |row| {
        let [old, new, places] = columns(row);
        let (old, scope) = match old.strip_prefix("text:") {
            Some(old) => (old, Scope::Text),
            None => (old, Scope::Identifiers),
        };
        Word {
            old,
            new,
            places: places.split(',').map(str::trim).collect(),
            scope,
        }
    };
    rows(table).map(word).collect()
}

/// Returns the rows of a table without empty lines and comments.
fn rows(table: &str) -> impl Iterator<Item = &str> {
    table
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
}

#[track_caller]
fn columns<const N: usize>(row: &str) -> [&str; N] {
    let columns: Vec<&str> = row.split('\t').map(str::trim).collect();
    columns
        .try_into()
        .unwrap_or_else(|_| panic!("a row has {N} columns, separated by tabs: {row:?}"))
}

/// A file, prepared for the search for many words.
struct Searched<'f> {
    path: &'f str,
    text: &'f str,
    /// Identifiers with the line of their first use. Empty if the file is not Rust.
    identifiers: BTreeMap<String, usize>,
}

impl<'f> Searched<'f> {
    fn new(path: &'f str, text: &'f str) -> Self {
        let code = if path.ends_with(".rs") {
            code(text)
        } else {
            String::new()
        };
        let mut identifiers = BTreeMap::new();
        for token in tokens(&code).into_iter().filter(|token| is_name(token)) {
            let line = || line_at(&code, offset(&code, token));
            identifiers.entry(token.to_owned()).or_insert_with(line);
        }
        Self {
            path,
            text,
            identifiers,
        }
    }

    /// Returns the first line that uses `word` against the rule.
    fn line_of(&self, word: &Word<'_>) -> Option<usize> {
        if !word.is_for(self.path) {
            return None;
        }
        let in_code = self.identifiers.get(word.old).copied();
        match word.scope {
            Scope::Identifiers => in_code,
            Scope::Text => in_code.or_else(|| {
                positions(self.text, word.old)
                    .first()
                    .map(|at| line_at(self.text, *at))
            }),
        }
    }
}

/// Returns the offsets of `word` in `text`, where no letter, digit or `_` is next to it.
fn positions(text: &str, word: &str) -> Vec<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let is_whole_word = |at: &usize| {
        !text[..*at].ends_with(is_part) && !text[*at + word.len()..].starts_with(is_part)
    };
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(is_whole_word)
        .collect()
}

/// Reports each file that uses a name of the table against the rule.
fn old_names(table: &str, files: &[(String, String)]) -> Vec<String> {
    let words = words(table);
    let in_file = |(path, text): &(String, String)| -> Vec<String> {
        let file = Searched::new(path, text);
        let found = words
            .iter()
            .filter_map(|word| Some((word, file.line_of(word)?)));
        found
            .map(|(word, line)| format!("{path}:{line} {}, now {}", word.old, word.new))
            .collect()
    };
    files.iter().flat_map(in_file).collect()
}

/// Returns the prose of a file as paragraphs with their first line: comments and strings of Rust,
/// text outside of code blocks of Markdown. A paragraph is in lower case and has no line breaks.
fn paragraphs(path: &str, text: &str) -> Vec<(usize, String)> {
    let mut paragraphs: Vec<(usize, String)> = Vec::new();
    let is_rust = path.ends_with(".rs");
    let blocks: Vec<(usize, &str, bool)> = if is_rust {
        prose_of_rust(text)
    } else {
        prose_of_markdown(text)
    };
    for (line, prose, goes_on) in blocks {
        let prose = prose.replace("\\\n", " ").to_lowercase();
        let words = prose.split_whitespace().collect::<Vec<_>>().join(" ");
        match paragraphs.last_mut() {
            Some((_, last)) if goes_on => *last = format!("{last} {words}"),
            _ => paragraphs.push((line, words)),
        }
    }
    paragraphs
}

/// Returns each comment line and string as its line, its text, and whether it continues the
/// paragraph.
fn prose_of_rust(text: &str) -> Vec<(usize, &str, bool)> {
    let mut prose = Vec::new();
    let mut comment_end = None;
    for piece in pieces(text)
        .into_iter()
        .filter(|piece| piece.is_comment() || piece.is_literal())
    {
        let goes_on = piece.is_comment()
            && comment_end.is_some_and(|end: usize| text[end..piece.start].trim().is_empty());
        let words = if piece.is_comment() {
            piece.text.trim_start_matches(['/', '!'])
        } else {
            piece.text
        };
        prose.push((line_at(text, piece.start), words, goes_on));
        comment_end = piece.is_comment().then(|| piece.end());
    }
    prose
}

fn prose_of_markdown(text: &str) -> Vec<(usize, &str, bool)> {
    let (mut in_code, mut goes_on) = (false, false);
    let mut prose = Vec::new();
    for (line, words) in text.lines().enumerate() {
        let is_fence = words.trim_start().starts_with("```");
        if !in_code && !is_fence && !words.trim().is_empty() {
            prose.push((line + 1, words, goes_on));
            goes_on = true;
        } else {
            goes_on = false;
        }
        in_code ^= is_fence;
    }
    prose
}

/// Reports each use of a phrase of the table.
fn phrases_in(table: &str, path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (line, prose) in paragraphs(path, text) {
        for row in rows(table) {
            let [phrase, instead] = columns(row);
            let is_prose = |at: &usize| !prose[..*at].ends_with(API_GROUP);
            for at in positions(&prose, phrase).into_iter().filter(is_prose) {
                let before = prose[..at].char_indices().rev().nth(29);
                let around = &prose[before.map_or(0, |(from, _)| from)..at];
                found.push(format!("{path}:{line} ...{around}{phrase}: {instead}"));
            }
        }
    }
    found
}

const WORDS: &str = include_str!("words.tsv");
const PHRASES: &str = include_str!("phrases.tsv");

fn files() -> Vec<(String, String)> {
    let mut files = texts_below("", EXTENSIONS);
    files.retain(|(path, _)| !EXCEPT.iter().any(|place| path.starts_with(place)));
    files
}

/// Reports the phrases in comments and strings of `src/` and in Markdown.
pub(super) fn phrases() -> Vec<String> {
    let is_read =
        |path: &str| path.ends_with(".md") || path.starts_with("src/") && path.ends_with(".rs");
    let files = files();
    let read = files.iter().filter(|(path, _)| is_read(path));
    read.flat_map(|(path, text)| phrases_in(PHRASES, path, text))
        .collect()
}

#[test]
fn old_names_are_not_used() {
    at_most(
        0,
        &old_names(WORDS, &files()),
        "words.tsv lists the new names",
    );
}

#[test]
fn every_word_applies_to_a_file() {
    let files = files();
    let unused = words(WORDS)
        .into_iter()
        .filter(|word| !files.iter().any(|(path, _)| word.is_for(path)));
    let unused: Vec<String> = unused
        .map(|word| format!("{}: {:?}", word.old, word.places))
        .collect();
    at_most(
        0,
        &unused,
        "correct the places in words.tsv: no file is there",
    );
}

#[test]
fn prose_uses_no_listed_phrase() {
    at_most(PHRASES_MAX, &phrases(), "phrases.tsv lists better words");
}

#[test]
fn planted_names_are_found() {
    let table = "# a comment\n\nDesk\tAdminClient\tsrc/outbox\n\
        text:culprit\trejected row\tsrc/relay, docs\n";
    for (path, text, found) in [
        (
            "src/outbox/desk.rs",
            "fn f(desk: &Desk) {}",
            "Desk, now AdminClient",
        ),
        ("src/outbox.rs", "struct Desk;", "Desk, now AdminClient"),
        (
            "src/outbox/a.rs",
            "// A Desk.\nconst A: &str = \"Desk\"; struct Desks;",
            "",
        ),
        ("src/outboxes/a.rs", "struct Desk;", ""),
        (
            "src/relay/a.rs",
            "// A culprit.",
            "culprit, now rejected row",
        ),
        (
            "src/relay/a.rs",
            "fn culprit() {}",
            "culprit, now rejected row",
        ),
        ("docs/a.md", "the culprit is", "culprit, now rejected row"),
        ("docs/a.md", "culprits, the_culprit", ""),
    ] {
        let expected: Vec<String> = match found {
            "" => Vec::new(),
            found => vec![format!("{path}:2 {found}")],
        };
        let file = (path.to_owned(), format!("\n{text}"));
        assert_eq!(old_names(table, &[file]), expected, "{path}: {text}");
    }
}

#[test]
fn planted_phrases_are_found() {
    let table = "for ever\tforever\nanew\tagain\n";
    for (path, text, count) in [
        ("a.rs", "/// Waits for\n/// ever.\nfn f() {}", 1),
        ("a.rs", "fn f() { g(\"Anew for \\\n    ever\") }", 2),
        ("a.rs", "fn anew() {} // for everyone", 0),
        ("a.rs", "// for\nfn f() {}\n// ever", 0),
        ("a.md", "For\never, canew", 1),
        ("a.md", "for\n\never", 0),
        ("a.md", "```\nanew\n```\nanew", 1),
    ] {
        assert_eq!(phrases_in(table, path, text).len(), count, "{text}");
    }
}
