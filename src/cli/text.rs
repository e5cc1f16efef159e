//! Formatting of output. Values are escaped, because keys, topics and payloads are written by
//! others: control characters could control the terminal, and line ends could break a table. Pure.

use std::fmt::Write;

use serde::Serialize;

use crate::visible_text::is_harmful;
pub(super) use crate::visible_text::{line, lines};

/// Longest cell of a table, in characters.
const CELL_CHARS_MAX: usize = 48;

/// Escapes a text for one line and cuts it to 48 characters.
pub(super) fn cell(text: &str) -> String {
    // Cutting first bounds the work for a payload of megabytes.
    let start: String = text.chars().take(CELL_CHARS_MAX + 1).collect();
    cut(line(&start))
}

/// Cuts a text that is longer than a cell, so that it ends in `…`.
fn cut(safe: String) -> String {
    if safe.chars().count() <= CELL_CHARS_MAX {
        return safe;
    }
    safe.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect()
}

/// Formats a table in which each column is as wide as its widest cell. Escapes and cuts the cells.
pub(super) fn table<const N: usize>(
    heads: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows: Vec<[String; N]> = rows
        .into_iter()
        .map(|row| row.map(|text| cell(&text)))
        .collect();
    let heads = heads.map(str::to_owned);
    let lines = || std::iter::once(&heads).chain(&rows);
    let widths: [usize; N] = std::array::from_fn(|column| widest(lines(), column));
    lines().map(|row| table_line(row, &widths)).collect()
}

/// Number of characters of the widest cell of a column.
fn widest<'r, const N: usize>(rows: impl Iterator<Item = &'r [String; N]>, column: usize) -> usize {
    rows.map(|row| row[column].chars().count())
        .max()
        .unwrap_or(0)
}

fn table_line<const N: usize>(row: &[String; N], widths: &[usize; N]) -> String {
    let cells: Vec<String> = row
        .iter()
        .zip(widths)
        .map(|(cell, width)| format!("{cell:width$}"))
        .collect();
    format!("{}\n", cells.join("  ").trim_end())
}

/// Formats names and values, one pair in each line. Does not escape them.
pub(super) fn fields(fields: &[(&str, String)]) -> String {
    let width = longest_name(fields);
    let mut text = String::new();
    for (name, value) in fields {
        let _ = writeln!(text, "{name:width$}  {value}");
    }
    text
}

/// Length in bytes of the longest name; all names are ASCII.
fn longest_name(fields: &[(&str, String)]) -> usize {
    let lengths = fields.iter().map(|(name, _)| name.len());
    lengths.max().unwrap_or(0)
}

/// Formats a value as JSON that is safe on a terminal: also escapes characters that serde does not
/// escape.
pub(crate) fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("plain data of our own");
    let mut safe = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // Serde itself writes line ends between the fields. Those inside values are escaped
        // already.
        if is_harmful(c) && c != '\n' {
            push_json_escape(&mut safe, c);
        } else {
            safe.push(c);
        }
    }
    safe.push('\n');
    safe
}

fn push_json_escape(text: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _ = write!(text, "\\u{unit:04x}");
    }
}

/// Formats a number and a noun: `1 row`, `1,234 rows`.
pub(super) fn count(number: u64, noun: &str) -> String {
    format!(
        "{} {noun}{}",
        thousands(number),
        if number == 1 { "" } else { "s" }
    )
}

/// Formats a number with commas: `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", thousands(number / 1000), number % 1000),
    }
}

/// Formats an age in its two largest units: `5s`, `3m20s`, `2h05m`, `4d03h`.
pub(super) fn age(seconds: f64) -> String {
    // A negative age, which skewed clocks can cause, becomes 0.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, which is what is wanted"
    )]
    let seconds = seconds as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clears a screen, turns the direction, ends the line, rings; and an 8-bit control sequence.
    const HOSTILE: &str = "\u{1b}[2J\u{202e}a\nb\r\u{7}\u{9b}31m\u{7f}";

    #[test]
    fn no_control_character_reaches_the_terminal() {
        for text in [
            line(HOSTILE),
            cell(HOSTILE),
            json(&HOSTILE).trim_end().to_owned(),
            table(["A"], [[HOSTILE.to_owned()]]),
        ] {
            assert!(
                text.trim_end().lines().count() <= 2
                    && text.chars().all(|c| c == '\n' || !is_harmful(c)),
                "{text:?}"
            );
        }
        assert_eq!(line("a\u{1b}\\"), "a\\u{1b}\\\\");
        assert_eq!(lines("a\tb\nc\r"), "a\tb\nc\\r");
    }

    #[test]
    fn escaped_json_is_read_as_what_it_was() {
        let all: String = ('\0'..='\u{fff}')
            .chain(['\u{e0001}', '\u{1f600}', '\u{2028}'])
            .collect();
        assert_eq!(
            serde_json::from_str::<String>(&json(&all)).expect("JSON"),
            all
        );
    }

    #[test]
    fn a_long_cell_is_cut_whatever_it_is_made_of() {
        for text in ["x".repeat(1_000_000), "ä".repeat(100), "\u{0}".repeat(100)] {
            let cut = cell(&text);
            assert!(
                cut.chars().count() == CELL_CHARS_MAX && cut.ends_with('…'),
                "{cut}"
            );
        }
        assert_eq!(
            cell(&"x".repeat(CELL_CHARS_MAX)),
            "x".repeat(CELL_CHARS_MAX)
        );
    }

    #[test]
    fn columns_line_up() {
        let text = table(
            ["KEY", "TOPIC"],
            [
                ["ä".to_owned(), "t".to_owned()],
                ["long".to_owned(), String::new()],
            ],
        );
        assert_eq!(text, "KEY   TOPIC\nä     t\nlong\n");
    }

    #[test]
    fn numbers_and_ages_are_for_people() {
        assert_eq!(
            (count(1, "row"), count(1_234_567, "row")),
            ("1 row".to_owned(), "1,234,567 rows".to_owned())
        );
        assert_eq!(
            [5.9, 200.0, 7500.0, 356_400.0].map(age),
            ["5s", "3m20s", "2h05m", "4d03h"].map(str::to_owned)
        );
        assert_eq!(
            [-3.0, f64::NAN, f64::NEG_INFINITY].map(age),
            ["0s"; 3].map(str::to_owned)
        );
    }
}
