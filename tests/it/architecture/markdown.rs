//! Lines have at most 100 columns: lines of Markdown, and of Rust those that rustfmt does not
//! break, comments and strings.

use super::{
    at_most,
    lexer::{Kind, Piece, pieces},
    source::texts_below,
};

pub(super) const COLUMNS_MAX: usize = 100;

/// Generated Markdown files, as paths from the root of the project.
const GENERATED: &[&str] = &["docs/reference.md"];

/// Folders whose Rust files are checked.
const RUST: &[&str] = &["src"];

/// Limit for Markdown lines that are too long.
const LONG_MARKDOWN_MAX: usize = 0;

/// Limit for comment lines that are too long.
const LONG_COMMENTS_MAX: usize = 0;

/// Limit for lines with strings that are too long.
const LONG_STRINGS_MAX: usize = 0;

/// Returns the numbers of the Markdown lines that are too long and can be broken. Lines of tables
/// and code blocks do not count.
fn long_lines(text: &str) -> Vec<usize> {
    let mut block = Block::Text { in_list: false };
    let mut after_blank = true;
    let mut long = Vec::new();
    for (number, line) in text.lines().enumerate() {
        block = block.then(line, after_blank);
        after_blank = line.trim().is_empty();
        let is_prose = matches!(block, Block::Text { .. }) && !line.trim_start().starts_with('|');
        if is_prose && line.chars().count() > COLUMNS_MAX && can_be_broken(line) {
            long.push(number + 1);
        }
    }
    long
}

/// The part of a Markdown file that a line belongs to.
#[derive(Clone, Copy)]
enum Block {
    Text {
        in_list: bool,
    },
    /// Code between two fences, with the first fence.
    Fenced,
    /// The second fence.
    FenceEnd {
        in_list: bool,
    },
    /// Code that is indented by four columns, or by six in a list.
    Indented {
        in_list: bool,
    },
}

impl Block {
    /// Returns the part that `line` belongs to, after a line of `self`.
    fn then(self, line: &str, after_blank: bool) -> Self {
        let words = line.trim_start();
        let is_fence = words.starts_with("```") || words.starts_with("~~~");
        let in_list = match self {
            Self::Fenced if is_fence => return Self::FenceEnd { in_list: false },
            Self::Fenced => return Self::Fenced,
            Self::Text { in_list } | Self::FenceEnd { in_list } | Self::Indented { in_list } => {
                in_list
            }
        };
        let indent = line.len() - words.len();
        let code_indent = if in_list { 6 } else { 4 };
        let may_be_code = after_blank || matches!(self, Self::Indented { .. });
        match (is_fence, words.is_empty()) {
            (true, _) => Self::Fenced,
            (_, true) => self,
            _ if indent >= code_indent && may_be_code => Self::Indented { in_list },
            _ => Self::Text {
                in_list: marker(words) > 0 || in_list && (indent > 0 || !after_blank),
            },
        }
    }
}

/// Returns the length of a list marker with its space, or 0 if there is none.
fn marker(words: &str) -> usize {
    let digits = words.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_numbered = digits.len() < words.len() && digits.starts_with(". ");
    match words {
        _ if is_numbered => words.len() - digits.len() + 2,
        _ if words.starts_with("- ") || words.starts_with("* ") || words.starts_with("+ ") => 2,
        _ => 0,
    }
}

/// Whether the line has a space within the limit, after its marker. A line that is one long word or
/// link has none, and a link definition (`[name]: https://...`) must be on one line.
fn can_be_broken(line: &str) -> bool {
    let words = line.trim_start_matches([' ', '>', '#', '/', '!']);
    let words = &words[marker(words)..];
    let start = line.chars().count() - words.chars().count();
    let is_reference = words.starts_with('[') && words.contains("]: ");
    let space = words.chars().position(char::is_whitespace);
    !is_reference && space.is_some_and(|space| start + space <= COLUMNS_MAX)
}

pub(super) fn long_markdown() -> Vec<String> {
    let of = |(path, text): (String, String)| -> Vec<String> {
        let long = if GENERATED.contains(&path.as_str()) {
            Vec::new()
        } else {
            long_lines(&text)
        };
        long.into_iter()
            .map(|line| format!("{path}:{line}"))
            .collect()
    };
    texts_below("", &["md"]).into_iter().flat_map(of).collect()
}

/// Returns the numbers of the lines that are too long, can be broken, and contain a part of a piece
/// for which `is_counted` is true.
fn long_because_of(text: &str, is_counted: impl Fn(&Piece<'_>) -> bool) -> Vec<usize> {
    let pieces: Vec<Piece<'_>> = pieces(text).into_iter().filter(is_counted).collect();
    let mut start = 0;
    let mut long = Vec::new();
    for (number, line) in text.split('\n').enumerate() {
        let end = start + line.len();
        let is_long = line.chars().count() > COLUMNS_MAX && can_be_broken(line);
        if is_long
            && pieces
                .iter()
                .any(|piece| piece.start < end && piece.end() > start)
        {
            long.push(number + 1);
        }
        start = end + 1;
    }
    long
}

fn long_rust(is_counted: impl Fn(&Piece<'_>) -> bool) -> Vec<String> {
    let mut long = Vec::new();
    for folder in RUST {
        for (path, text) in texts_below(folder, &["rs"]) {
            let lines = long_because_of(&text, &is_counted).into_iter();
            long.extend(lines.map(|line| format!("{folder}/{path}:{line}")));
        }
    }
    long
}

pub(super) fn long_comments() -> Vec<String> {
    long_rust(|piece| piece.is_comment())
}

pub(super) fn long_strings() -> Vec<String> {
    // A raw string cannot be broken without changing it.
    long_rust(|piece| piece.kind == Kind::Literal)
}

const WHY: &str = "wrap them: a line has at most 100 columns";

#[test]
fn markdown_lines_are_short() {
    at_most(LONG_MARKDOWN_MAX, &long_markdown(), WHY);
}

#[test]
fn lines_of_comments_are_short() {
    at_most(LONG_COMMENTS_MAX, &long_comments(), WHY);
}

#[test]
fn lines_with_strings_are_short() {
    at_most(
        LONG_STRINGS_MAX,
        &long_strings(),
        "break the string with a backslash: a line has at most 100 columns",
    );
}

#[test]
fn planted_long_lines_are_found() {
    let words = "word ".repeat(21);
    let link = format!("https://example.test/{}", "a".repeat(100));
    for (text, long) in [
        (words.clone(), vec![1]),
        (
            words
                .replace(' ', "ä")
                .replace("word", "w ")
                .chars()
                .take(100)
                .collect(),
            vec![],
        ),
        (format!("- {words}"), vec![1]),
        (format!("| {words} |"), vec![]),
        (format!("{link}\n- <{link}>\n[a]: {link}"), vec![]),
        (format!("see [a]({link})"), vec![1]),
        (format!("```\n{words}\n```\n{words}"), vec![4]),
        (format!("a\n\n    {words}\n    {words}\nb"), vec![]),
        (format!("a\n    {words}"), vec![2]),
        (format!("- a\n\n    {words}\n\n      {words}"), vec![3]),
        (format!("- a\n\nb\n\n    {words}"), vec![]),
    ] {
        assert_eq!(long_lines(&text), long, "{text}");
    }
}

#[test]
fn planted_long_lines_of_rust_are_found() {
    let words = "word ".repeat(21);
    let text = format!(
        "/// {words}\n// {words}\nconst A: &str = \"{words}\";\nconst B: &str = r\"{words}\";\n\
         // https://{}\nconst C: &str = \"a\n{words}\";",
        "a".repeat(100)
    );
    assert_eq!(long_because_of(&text, |piece| piece.is_comment()), [1, 2]);
    assert_eq!(
        long_because_of(&text, |piece| piece.kind == Kind::Literal),
        [3, 7]
    );
}
