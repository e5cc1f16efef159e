//! Figures that describe the code, for comparing two versions of it. `make figures` prints them.

use std::{collections::BTreeMap, fmt::Display};

use super::{
    circles,
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
const COMBINATORS: &str = "\
    all and_then any chain cloned collect copied enumerate filter filter_map find find_map \
    flat_map flatten fold for_each inspect is_none_or is_some_and map map_err map_or map_or_else \
    map_while max_by_key min_by_key ok_or ok_or_else or_else partition position retain rev \
    skip_while sum take_while then then_some try_fold unwrap_or_default unwrap_or_else zip";

fn combinators(source: &Source) -> usize {
    let names: Vec<&str> = COMBINATORS.split_whitespace().collect();
    let is_combinator = |window: &&[&str]| window[0] == "." && names.contains(&window[1]);
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

/// Figures in the order in which they are printed.
#[derive(Default)]
struct Report(Vec<(&'static str, String)>);

impl Report {
    fn of(sources: &[Source]) -> Self {
        let mut report = Self::default();
        report.add_files(sources);
        report.add_functions(sources);
        report.add_structure(sources);
        report.add_prose(sources);
        report
    }

    fn add(&mut self, name: &'static str, value: impl Display) {
        self.0.push((name, value.to_string()));
    }

    fn add_files(&mut self, sources: &[Source]) {
        let size = |source: &Source| source.text.trim_end().lines().count();
        let long: usize = sources
            .iter()
            .map(|source| over_100_columns(&source.text))
            .sum();
        self.add("files with production code", sources.len());
        self.add("files, tests included", texts_below("src", &["rs"]).len());
        self.add(
            "lines of a file: median / p95 / max",
            Spread::of(sources.iter().map(size)),
        );
        self.add("lines of code", lines(sources).code);
        self.add("lines of more than 100 columns", long);
    }

    fn add_functions(&mut self, sources: &[Source]) {
        let functions = functions::all(sources);
        let spread = |size: fn(&Function) -> usize| {
            Spread::of(functions.iter().map(|(_, function)| size(function)))
        };
        let accessors = functions
            .iter()
            .filter(|(_, function)| function.is_accessor())
            .count();
        self.add("functions", functions.len());
        self.add("accessors among them", accessors);
        self.add(
            "lines of a function: median / p95 / max",
            spread(|function| function.lines),
        );
        self.add(
            "functions of more than 70 lines, tables left out",
            functions::long().len(),
        );
        self.add(
            "tokens of a function, accessors left out",
            functions::token_spread(&functions),
        );
        self.add(
            "tokens of a function, accessors included",
            spread(|function| function.tokens),
        );
        self.add(
            "functions with 6 parameters or more",
            functions::with_many_parameters().len(),
        );
        self.add(
            "functions with `bool` parameters",
            functions::with_bools().len(),
        );
        let chained: usize = sources.iter().map(combinators).sum();
        let lines = lines(sources).code;
        self.add(
            "combinators per 100 lines of code",
            format!("{:.1}", percent(chained, lines)),
        );
    }

    fn add_structure(&mut self, sources: &[Source]) {
        let shared = shared_names(sources);
        self.add("circles of imports", circles::circles(sources).len());
        self.add(
            "circles within a half",
            circles::within_halves(sources).len(),
        );
        self.add("glob imports of modules", rooms::globs(sources).len());
        self.add(
            "file names used twice within a half",
            rooms::same_names(sources).len(),
        );
        self.add(
            "names of several types",
            format!("{}: {}", shared.len(), shared.join(", ")),
        );
    }

    fn add_prose(&mut self, sources: &[Source]) {
        let lines = lines(sources);
        let share = |part| format!("{:.1} % ({part} lines)", percent(part, lines.all()));
        let (public, bare) = docs::public_items(sources);
        self.add("`//` comments", share(lines.comments));
        self.add("`///` and `//!`", share(lines.docs));
        self.add(
            "doc comments without a subject",
            docs::elliptical(sources).len(),
        );
        self.add("`pub` items without docs", format!("{bare} of {public}"));
        let silent = docs::without_cancel_safety(sources).len();
        self.add("async functions without `# Cancel safety`", silent);
        self.add(
            "`pub` functions without `# Errors`",
            docs::without_errors(sources).len(),
        );
        self.add("phrases that phrases.tsv forbids", words::phrases().len());
        self.add(
            "Markdown lines of more than 100 columns",
            markdown::long_markdown().len(),
        );
    }
}

fn lines(sources: &[Source]) -> Lines {
    sources
        .iter()
        .map(Lines::of)
        .fold(Lines::default(), Lines::plus)
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole as f64
}

fn over_100_columns(text: &str) -> usize {
    text.lines()
        .filter(|line| line.chars().count() > markdown::COLUMNS_MAX)
        .count()
}

#[test]
#[ignore = "not a test: make figures prints the figures"]
fn figures() {
    for (name, value) in Report::of(&sources()).0 {
        eprintln!("{name:50} {value}");
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
    let text = "//! Header.\n\nuse a; // why\n// A comment.\n/// Docs.\n\
        fn f() { b.iter().map(c).sum() }\nstruct D;\n";
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
