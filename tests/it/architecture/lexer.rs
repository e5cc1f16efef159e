//! Splits Rust source text into code, comments and literals, and blanks items that only tests
//! compile. Pure.

use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Code,
    /// A `//` comment, up to the end of its line.
    Comment,
    /// A line of `///` or `//!`.
    Doc,
    /// A string or a character in quotes.
    Literal,
    /// A string of the form `r"..."` or `r#"..."#`, without the `r` and the first `#`.
    RawLiteral,
}

/// A part of a text that is of one kind. All pieces of a text joined are the text again.
#[derive(Clone, Debug)]
pub(super) struct Piece<'t> {
    pub(super) kind: Kind,
    /// Offset of the first byte in the text.
    pub(super) start: usize,
    pub(super) text: &'t str,
}

impl Piece<'_> {
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    pub(super) fn is_comment(&self) -> bool {
        matches!(self.kind, Kind::Comment | Kind::Doc)
    }

    pub(super) fn is_literal(&self) -> bool {
        matches!(self.kind, Kind::Literal | Kind::RawLiteral)
    }
}

/// Returns the pieces of `text` in order. Block comments are not recognised; the project has none.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut code_from, mut at) = (0, 0);
    while let Some(found) = text[at..].find(['/', '"', '\'']) {
        at += found;
        let Some((kind, length)) = piece_at(text, at) else {
            at += 1;
            continue;
        };
        pieces.push(Piece {
            kind: Kind::Code,
            start: code_from,
            text: &text[code_from..at],
        });
        pieces.push(Piece {
            kind,
            start: at,
            text: &text[at..at + length],
        });
        at += length;
        code_from = at;
    }
    pieces.push(Piece {
        kind: Kind::Code,
        start: code_from,
        text: &text[code_from..],
    });
    pieces.retain(|piece| !piece.text.is_empty());
    pieces
}

/// Returns kind and length of the comment or literal that begins at `at`, or `None` for code.
fn piece_at(text: &str, at: usize) -> Option<(Kind, usize)> {
    let (before, from) = text.split_at(at);
    if from.starts_with("//") {
        let is_doc =
            from.starts_with("//!") || (from.starts_with("///") && !from.starts_with("////"));
        let kind = if is_doc { Kind::Doc } else { Kind::Comment };
        return Some((kind, from.find('\n').unwrap_or(from.len())));
    }
    if from.starts_with('"') {
        let hashes = before.len() - before.trim_end_matches('#').len();
        let is_raw = before.trim_end_matches('#').ends_with('r');
        let kind = if is_raw {
            Kind::RawLiteral
        } else {
            Kind::Literal
        };
        let length = if is_raw {
            raw_length(from, hashes)
        } else {
            string_length(from)
        };
        return Some((kind, length));
    }
    match from.starts_with('\'').then(|| character_length(from)) {
        None | Some(0) => None,
        Some(length) => Some((Kind::Literal, length)),
    }
}

fn raw_length(text: &str, hashes: usize) -> usize {
    let end = format!("\"{}", "#".repeat(hashes));
    text[1..]
        .find(&end)
        .map_or(text.len(), |at| at + 1 + end.len())
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == '"' && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// Returns the length of a character in quotes, or 0 if the quote begins a lifetime.
fn character_length(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    let Some((_, first)) = characters.next() else {
        return 0;
    };
    let closing = characters.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
    match (first, text.chars().nth(2)) {
        ('\\', _) if text[2..].starts_with('\'') => 4,
        ('\\', _) => closing.unwrap_or(0),
        (_, Some('\'')) => closing.unwrap_or(0),
        _ => 0,
    }
}

/// Returns `text` with comments and literals overwritten by spaces. Lines and offsets stay the
/// same.
pub(super) fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    for piece in pieces(text) {
        if piece.kind == Kind::Code {
            code.push_str(piece.text);
        } else {
            code.push_str(&blank(piece.text));
        }
    }
    code
}

/// Returns spaces and line breaks with as many bytes as `text`.
fn blank(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte == b'\n' { '\n' } else { ' ' })
        .collect()
}

const TEST: &str = "#[cfg(test)]";

/// Returns `text` with each item under `#[cfg(test)]`, its docs and its attributes overwritten by
/// spaces. Lines and offsets stay the same.
pub(super) fn production(text: &str) -> String {
    let code = code(text);
    let mut kept = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = code[at..].find(TEST) {
        let item = item_around(text, &code, at + found);
        kept.push_str(&text[at..item.start.max(at)]);
        kept.push_str(&blank(&text[item.start.max(at)..item.end]));
        at = item.end;
    }
    kept.push_str(&text[at..]);
    kept
}

/// Returns the range of the item with an attribute at `attribute`, from its docs to its end.
fn item_around(text: &str, code: &str, attribute: usize) -> Range<usize> {
    let mut start = text[..attribute].rfind('\n').map_or(0, |at| at + 1);
    if !text[start..attribute].trim().is_empty() {
        start = attribute;
    }
    while start > 0 {
        let line = text[..start - 1].rfind('\n').map_or(0, |at| at + 1);
        let above = text[line..start].trim_start();
        if !above.starts_with("///") && !above.starts_with("#[") {
            break;
        }
        start = line;
    }
    start..item_end(code, after_attributes(code, attribute))
}

/// Skips spaces and attributes from `at` on. In blanked code this skips docs as well.
pub(super) fn after_attributes(code: &str, mut at: usize) -> usize {
    loop {
        at += code[at..].len() - code[at..].trim_start().len();
        if !code[at..].starts_with("#[") {
            return at;
        }
        at = closing(code, at + 1);
    }
}

/// Returns the offset after the bracket that closes the one at `open`.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code[open..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + at + 1;
        }
    }
    code.len()
}

/// First words of items. A comma ends a field, a variant or an argument, but not one of these.
const ITEMS: &[&str] = &[
    "async",
    "const",
    "enum",
    "fn",
    "impl",
    "let",
    "macro_rules",
    "mod",
    "pub",
    "static",
    "struct",
    "trait",
    "type",
    "unsafe",
    "use",
];

fn item_end(code: &str, start: usize) -> usize {
    let first = code[start..]
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .next();
    let is_item = first.is_some_and(|first| ITEMS.contains(&first));
    let mut at = start;
    while let Some(c) = code[at..].chars().next() {
        match c {
            ';' => return at + 1,
            ',' if !is_item => return at + 1,
            ')' | ']' | '}' => return at,
            '{' => {
                let end = closing(code, at);
                let more = code[end..].trim_start();
                let ends_a_use = more.starts_with(';');
                return if ends_a_use {
                    code.len() - more.len() + 1
                } else {
                    end
                };
            }
            '(' | '[' => at = closing(code, at),
            _ => at += c.len_utf8(),
        }
    }
    code.len()
}

/// Returns the line number of `offset`; the first line is 1.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

#[test]
fn comments_literals_and_characters_are_no_code() {
    let source = r##"a // kube::Client
        "kube::\" x" b '"' c 'x' d<'a>( '\'' , r#"kube "::" Client"# ) e '\u{1f}' "two
        lines" f /// docs"##;
    let code = code(source);
    assert_eq!(code.len(), source.len());
    assert_eq!(code.lines().count(), source.lines().count());
    let words: Vec<&str> = code
        .split(|c: char| !c.is_alphabetic())
        .filter(|word| !word.is_empty())
        .collect();
    assert_eq!(words, ["a", "b", "c", "d", "a", "r", "e", "f"]);
    let kinds = |kind| {
        pieces(source)
            .iter()
            .filter(|piece| piece.kind == kind)
            .count()
    };
    assert_eq!(
        [Kind::Comment, Kind::Doc, Kind::RawLiteral].map(kinds),
        [1, 1, 1]
    );
    let whole: String = pieces(source).iter().map(|piece| piece.text).collect();
    assert_eq!(whole, source);
}

#[test]
fn items_for_tests_are_blanked() {
    for (text, kept) in [
        (
            "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\nfn c() {}",
            "fn a() {}\nfn c() {}",
        ),
        (
            "#[cfg(test)]\npub(crate) use a::{B, C};\nuse d::E;",
            "use d::E;",
        ),
        (
            "/// Docs.\n#[derive(D)]\n#[cfg(test)]\n#[path = \"x\"]\nmod x;\nuse a;",
            "use a;",
        ),
        ("enum A { B, #[cfg(test)] C(D, E), F }", "enum A { B, F }"),
        (
            "#[cfg(test)]\nimpl<A, B> C for D<A, B> { fn f() {} }\nfn g() {}",
            "fn g() {}",
        ),
        (
            "const A: &str = \"#[cfg(test)]\";",
            "const A: &str = \"#[cfg(test)]\";",
        ),
    ] {
        let production = production(text);
        assert_eq!(production.len(), text.len());
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(&production), words(kept), "{text}");
    }
}
