//! Comparison with a file below `tests/it/contract/files`. The library includes this module for its
//! unit tests.

use std::path::Path;

const UPDATE: &str = "UPDATE_CONTRACT";
/// How many lines of a difference are printed for each side.
const LINES_MAX: usize = 12;

/// Compares a text with its file, or writes the file where `UPDATE_CONTRACT` is set.
#[track_caller]
pub(crate) fn compare(file: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/contract/files")
        .join(file);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, found).expect("a file of the repository");
        return;
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if let Some(difference) = difference(&expected, found) {
        panic!(
            "{} differs.\n{difference}\nUsers rely on it: only a commit whose title says so may change this file.\n\
             {UPDATE}=1 cargo test --lib --test it -- contract:: contract_of --skip producer_",
            path.display()
        );
    }
}

/// Names, types and labels of metrics in the text format of Prometheus, without help texts and
/// without the values of samples.
pub(crate) fn without_values(metrics: &str) -> String {
    let lines = metrics.lines().filter(|line| !line.starts_with("# HELP "));
    let name = |line: &'_ str| match line.rsplit_once(' ') {
        Some((name, _)) if !line.starts_with('#') => format!("{name}\n"),
        _ => format!("{line}\n"),
    };
    lines.map(name).collect()
}

#[test]
fn types_and_labels_of_metrics_are_kept() {
    let text = "# HELP a Some help.\n# TYPE a gauge\na{b=\"c d\"} 1\n";
    assert_eq!(without_values(text), "# TYPE a gauge\na{b=\"c d\"}\n");
}

/// Returns the lines between the common start and the common end, or `None` for equal texts.
fn difference(expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
    let (expected, found): (Vec<&str>, Vec<&str>) =
        (expected.split('\n').collect(), found.split('\n').collect());
    let start = expected
        .iter()
        .zip(&found)
        .take_while(|(a, b)| a == b)
        .count();
    let shorter = expected.len().min(found.len()) - start;
    let end = expected
        .iter()
        .rev()
        .zip(found.iter().rev())
        .take(shorter)
        .take_while(|(a, b)| a == b)
        .count();
    let side = |sign: char, lines: &[&str]| {
        let changed = &lines[start..lines.len() - end];
        let shown: String = changed
            .iter()
            .take(LINES_MAX)
            .map(|line| format!("{sign} {line}\n"))
            .collect();
        let more = changed.len().saturating_sub(LINES_MAX);
        if more == 0 {
            shown
        } else {
            format!("{shown}{sign} ... and {more} more lines\n")
        }
    };
    Some(format!(
        "From line {}, expected (-) and found (+):\n{}{}",
        start + 1,
        side('-', &expected),
        side('+', &found)
    ))
}

#[test]
fn a_difference_is_reported_with_its_line() {
    assert_eq!(difference("a\nb\nc\n", "a\nb\nc\n"), None);
    let changed = difference("a\nb\nc\n", "a\nx\nc\n").expect("different");
    assert!(
        changed.starts_with("From line 2,") && changed.ends_with("- b\n+ x\n"),
        "{changed}"
    );
    let added = difference("a\nc\n", "a\nb\nc\n").expect("different");
    assert!(added.ends_with("(+):\n+ b\n"), "{added}");
    let shortened = difference("a\na\na\n", "a\na\n").expect("different");
    assert!(shortened.ends_with("(+):\n- a\n"), "{shortened}");
}
