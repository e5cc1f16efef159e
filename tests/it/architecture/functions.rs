//! Limits for the size and the signature of functions. Comments, literals and tests do not count.

use super::{
    at_most,
    cut::{Function, functions},
    figures::Spread,
    source::{Source, sources},
};

/// Limit for the median of tokens per function, accessors left out.
const TOKENS_MEDIAN_MAX: usize = 57;

/// Limit for the 95th percentile of tokens per function, accessors left out.
const TOKENS_P95_MAX: usize = 160;

/// Limit for the lines of a function, from its signature to its closing brace. A function that is
/// one `match` may be longer.
const LINES_MAX: usize = 70;

/// Limit for the number of functions with more than [`LINES_MAX`] lines.
const LONG_MAX: usize = 0;

/// Number of parameters, `self` not counted, from which on a function should take a struct.
const MANY_PARAMETERS: usize = 6;

/// Limit for functions with [`MANY_PARAMETERS`] or more.
const MANY_PARAMETERS_MAX: usize = 0;

/// Limit for functions with parameters of type `bool`. Lower it as enums replace them.
const WITH_BOOLS_MAX: usize = 0;

/// Returns all functions of production code, each with its file.
pub(super) fn all<'s>(sources: &'s [Source]) -> Vec<(&'s Source, Function)> {
    let of = |source: &'s Source| {
        functions(&source.code)
            .into_iter()
            .map(move |function| (source, function))
    };
    sources.iter().flat_map(of).collect()
}

/// Returns the distribution of tokens per function, accessors left out.
pub(super) fn token_spread(functions: &[(&Source, Function)]) -> Spread {
    let counted = functions
        .iter()
        .filter(|(_, function)| !function.is_accessor());
    Spread::of(counted.map(|(_, function)| function.tokens))
}

/// Reports the place of each function for which `is_found` returns a reason.
fn found(is_found: impl Fn(&Function) -> Option<String>) -> Vec<String> {
    let sources = sources();
    let found = all(&sources).into_iter().filter_map(|(source, function)| {
        let why = is_found(&function)?;
        Some(format!(
            "src/{}:{} {}: {why}",
            source.path, function.line, function.name
        ))
    });
    found.collect()
}

pub(super) fn long() -> Vec<String> {
    found(|function| {
        function
            .is_longer_than(LINES_MAX)
            .then(|| format!("{} lines", function.lines))
    })
}

pub(super) fn with_many_parameters() -> Vec<String> {
    let is_typed = |parameter: &&(String, String)| !parameter.1.is_empty();
    let count = |function: &Function| function.parameters.iter().filter(is_typed).count();
    found(|function| {
        (count(function) >= MANY_PARAMETERS).then(|| format!("{} parameters", count(function)))
    })
}

pub(super) fn with_bools() -> Vec<String> {
    let bools = |function: &Function| function.bools().collect::<Vec<_>>().join(", ");
    found(|function| Some(bools(function)).filter(|bools| !bools.is_empty()))
}

#[test]
fn functions_have_few_tokens() {
    let sources = sources();
    let tokens = token_spread(&all(&sources));
    let long = found(|function| {
        (function.tokens > TOKENS_P95_MAX).then(|| format!("{} tokens", function.tokens))
    });
    assert!(
        tokens.median <= TOKENS_MEDIAN_MAX,
        "the median function has {} tokens, at most {TOKENS_MEDIAN_MAX} are allowed",
        tokens.median
    );
    assert!(
        tokens.p95 <= TOKENS_P95_MAX,
        "the 95th percentile is {} tokens, at most {TOKENS_P95_MAX} are allowed: {long:#?}",
        tokens.p95
    );
}

#[test]
fn functions_have_few_lines() {
    at_most(
        LONG_MAX,
        &long(),
        "split it: a function has at most 70 lines, unless it is one match",
    );
}

#[test]
fn functions_have_few_parameters() {
    let why = "put parameters that belong together into a struct";
    at_most(MANY_PARAMETERS_MAX, &with_many_parameters(), why);
}

#[test]
fn functions_take_no_bools() {
    let why = "a call does not show what `true` means: use an enum";
    at_most(WITH_BOOLS_MAX, &with_bools(), why);
}
