//! Figures that describe the code, for comparing two versions of it. `make figures` prints them.

use std::{collections::BTreeMap, fmt::Display};

use super::{
    circles::circles,
    cut::Function,
    docs, functions,
    lexer::{Kind, pieces},
    markdown,
    paths::{is_name, tokens},
    rooms,
    source::{Source, sources, texts_below},
    words,
};

/// Distribution of a set of numbers. All values are 0 for an empty set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) median: usize,
    /// 95th percentile: the smallest number that 95 % of the set do not exceed.
    pub(super) p95: usize,
    max: usize,
}

impl Spread {
    pub(super) fn of(numbers: impl Iterator<Item = usize>) -> Self {
        let mut sorted: Vec<usize> = numbers.collect();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or(0)
        };
        Self {
            median: at(50),
            p95: at(95),
            max: at(100),
        }
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} / {} / {}", self.median, self.p95, self.max)
    }
}

/// Number of lines of each kind in the production code of a file. Blank lines do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lines {
    code: usize,
    /// Lines that begin with `//`.
    comments: usize,
    /// Lines that begin with `///` or `//!`.
    docs: usize,
}

impl Lines {
    fn of(source: &Source) -> Self {
        let pieces = pieces(&source.text);
        let of_kind = |kind| {
            let is_alone = |at: usize| {
                source.text[..at]
                    .rsplit('\n')
                    .next()
                    .is_some_and(|before| before.trim().is_empty())
            };
            pieces
                .iter()
                .filter(|piece| piece.kind == kind && is_alone(piece.start))
                .count()
        };
        let (comments, docs) = (of_kind(Kind::Comment), of_kind(Kind::Doc));
        let filled = source
            .text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .count();
        Self {
            code: filled - comments - docs,
            comments,
            docs,
        }
    }

    fn all(self) -> usize {
        self.code + self.comments + self.docs
    }

    fn plus(self, other: Self) -> Self {
        Self {
            code: self.code + other.code,
            comments: self.comments + other.comments,
            docs: self.docs + other.docs,
        }
    }
}

/// Methods of iterators, `Option` and `Result` that make up chains.
const COMBINATORS: &[&str] = &[
    "all",
    "and_then",
    "any",
    "chain",
    "cloned",
    "collect",
    "copied",
    "enumerate",
    "filter",
    "filter_map",
    "find",
    "find_map",
    "flat_map",
    "flatten",
    "fold",
    "for_each",
    "inspect",
    "is_none_or",
    "is_some_and",
    "map",
    "map_err",
    "map_or",
    "map_or_else",
    "map_while",
    "max_by_key",
    "min_by_key",
    "ok_or",
    "ok_or_else",
    "or_else",
    "partition",
    "position",
    "retain",
    "rev",
    "skip_while",
    "sum",
    "take_while",
    "then",
    "then_some",
    "try_fold",
    "unwrap_or_else",
    "unwrap_or_default",
    "zip",
];

fn combinators(source: &Source) -> usize {
    let is_combinator = |window: &&[&str]| window[0] == "." && COMBINATORS.contains(&window[1]);
    tokens(&source.code)
        .windows(2)
        .filter(is_combinator)
        .count()
}

/// Returns the names that several types share, each with the number of types.
fn shared_names(sources: &[Source]) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for source in sources {
        for window in tokens(&source.code).windows(2) {
            let [keyword, name] = window else { continue };
            if ["struct", "enum", "trait", "type"].contains(keyword)
                && is_name(name)
                && is_chosen(name)
            {
                *counts.entry((*name).to_owned()).or_default() += 1;
            }
        }
    }
    let shared = counts.into_iter().filter(|(_, count)| *count > 1);
    shared
        .map(|(name, count)| format!("{name} x{count}"))
        .collect()
}

/// Whether a declared `name` is the author's choice: traits name their associated types.
fn is_chosen(name: &str) -> bool {
    !["Error", "Err", "Item", "IntoIter", "Output", "Target"].contains(&name)
}

/// Returns all figures, each with its name.
fn report(sources: &[Source]) -> Vec<(&'static str, String)> {
    let functions = functions::all(sources);
    let sizes = |size: fn(&Function) -> usize| {
        Spread::of(functions.iter().map(|(_, function)| size(function)))
    };
    let lines = sources
        .iter()
        .map(Lines::of)
        .fold(Lines::default(), Lines::plus);
    let accessors = functions
        .iter()
        .filter(|(_, function)| function.is_accessor())
        .count();
    let (public, bare) = docs::public_items(sources);
    let percent = |part: usize| format!("{:.1} %", 100.0 * part as f64 / lines.all() as f64);
    let per_100_lines = |count: usize| format!("{:.1}", 100.0 * count as f64 / lines.code as f64);
    let shared = shared_names(sources);
    let file_lines = Spread::of(
        sources
            .iter()
            .map(|source| source.text.trim_end().lines().count()),
    );
    let tokens = functions::token_spread(&functions);
    let long: usize = sources
        .iter()
        .map(|source| over_100_columns(&source.text))
        .sum();
    vec![
        ("files with production code", sources.len().to_string()),
        (
            "files, tests included",
            texts_below("src", &["rs"]).len().to_string(),
        ),
        ("lines of production code", lines.code.to_string()),
        (
            "lines of a file: median / p95 / max",
            file_lines.to_string(),
        ),
        ("functions", functions.len().to_string()),
        (
            "lines of a function: median / p95 / max",
            sizes(|function| function.lines).to_string(),
        ),
        (
            "functions of more than 70 lines, tables left out",
            functions::long().len().to_string(),
        ),
        (
            "tokens of a function, accessors apart: median / p95 / max",
            tokens.to_string(),
        ),
        (
            "tokens of a function, accessors included",
            sizes(|function| function.tokens).to_string(),
        ),
        ("accessors", accessors.to_string()),
        (
            "functions with 6 parameters or more",
            functions::with_many_parameters().len().to_string(),
        ),
        (
            "functions with `bool` parameters",
            functions::with_bools().len().to_string(),
        ),
        (
            "combinators in 100 lines of code",
            per_100_lines(sources.iter().map(combinators).sum()),
        ),
        (
            "`//` comments, of all lines",
            format!("{} ({} lines)", percent(lines.comments), lines.comments),
        ),
        ("`///` and `//!`, of all lines", percent(lines.docs)),
        ("circles of imports", circles(sources).len().to_string()),
        (
            "glob imports of modules",
            rooms::globs(sources).len().to_string(),
        ),
        (
            "file names used twice within a half",
            rooms::same_names(sources).len().to_string(),
        ),
        (
            "names of several types",
            format!("{}: {}", shared.len(), shared.join(", ")),
        ),
        (
            "doc comments without a subject",
            docs::elliptical(sources).len().to_string(),
        ),
        ("`pub` items without docs", format!("{bare} of {public}")),
        (
            "async functions without `# Cancel safety`",
            docs::without_cancel_safety(sources).len().to_string(),
        ),
        (
            "`pub` functions without `# Errors`",
            docs::without_errors(sources).len().to_string(),
        ),
        (
            "phrases that phrases.tsv forbids",
            words::phrases().len().to_string(),
        ),
        (
            "Markdown lines of more than 100 columns",
            markdown::long_markdown().len().to_string(),
        ),
        (
            "lines of production code of more than 100 columns",
            long.to_string(),
        ),
    ]
}

fn over_100_columns(text: &str) -> usize {
    text.lines()
        .filter(|line| line.chars().count() > markdown::COLUMNS_MAX)
        .count()
}

#[test]
#[ignore = "not a test: make figures prints the figures"]
fn figures() {
    for (name, value) in report(&sources()) {
        eprintln!("{name:60} {value}");
    }
}

#[test]
fn a_spread_is_of_sorted_numbers() {
    assert_eq!(
        Spread::of((1..=100).rev()),
        Spread {
            median: 50,
            p95: 95,
            max: 100
        }
    );
    assert_eq!(
        Spread::of([7].into_iter()),
        Spread {
            median: 7,
            p95: 7,
            max: 7
        }
    );
    assert_eq!(
        Spread::of(std::iter::empty()),
        Spread {
            median: 0,
            p95: 0,
            max: 0
        }
    );
}

#[test]
fn lines_and_names_are_counted() {
    let text = "//! Header.\n\nuse a; // why\n// A comment.\n/// Docs.\nfn f() { b.iter().map(c).sum() }\nstruct D;\n";
    let source = Source::new("a.rs", text);
    assert_eq!(
        Lines::of(&source),
        Lines {
            code: 3,
            comments: 1,
            docs: 2
        }
    );
    assert_eq!(combinators(&source), 2);
    assert_eq!(
        shared_names(&[source, Source::new("b.rs", "enum D {}")]),
        ["D x2"]
    );
}
