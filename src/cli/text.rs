//! Text that no key, topic or payload can break: a terminal obeys control characters, a table its
//! line ends. Pure.

use std::fmt::Write;

use serde::Serialize;

/// Cells are cut at so many characters.
const CELL_MAX: usize = 48;

/// One line of visible characters; what is none is escaped as Rust writes it, `\u{1b}`.
pub(super) fn line(text: &str) -> String {
    visible(text, |_| false)
}

/// The same with the line ends and tabs that the text has.
pub(super) fn lines(text: &str) -> String {
    visible(text, |c| matches!(c, '\n' | '\t'))
}

/// One line of at most 48 characters.
pub(super) fn cell(text: &str) -> String {
    let start: String = text.chars().take(CELL_MAX + 1).collect();
    let safe = line(&start);
    if safe.chars().count() <= CELL_MAX {
        return safe;
    }
    safe.chars().take(CELL_MAX - 1).chain(['…']).collect()
}

fn visible(text: &str, kept: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if !kept(c) && (harmful(c) || c == '\\') {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Controls, and what is invisible or turns the direction of what follows.
fn harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Columns side by side, each as wide as its widest cell. Cells are made safe and cut here.
pub(super) fn table<const N: usize>(
    heads: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows: Vec<[String; N]> = rows
        .into_iter()
        .map(|row| row.map(|text| cell(&text)))
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
            .max(heads[column].len())
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in std::iter::once(&heads.map(str::to_owned)).chain(&rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Names and values below each other.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    facts.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:width$}  {value}");
        text
    })
}

/// JSON that is as good for a terminal as for a program: what serde leaves as it is but a terminal
/// would obey is escaped.
pub(super) fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("plain data of our own");
    let mut safe = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // Line ends are serde's own: those of values are escaped already.
        if harmful(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe.push('\n');
    safe
}

/// `1 row`, `1,234 rows`.
pub(super) fn count(number: u64, noun: &str) -> String {
    format!(
        "{} {noun}{}",
        thousands(number),
        if number == 1 { "" } else { "s" }
    )
}

/// `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An age in its largest units: `5s`, `3m20s`, `2h05m`, `4d03h`.
pub(super) fn age(seconds: f64) -> String {
    // Saturating: an age of minus infinity is 0.
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
    fn nothing_that_a_terminal_obeys_gets_through() {
        for text in [
            line(HOSTILE),
            cell(HOSTILE),
            json(&HOSTILE).trim_end().to_owned(),
            table(["A"], [[HOSTILE.to_owned()]]),
        ] {
            assert!(
                text.trim_end().lines().count() <= 2
                    && text.chars().all(|c| c == '\n' || !harmful(c)),
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
                cut.chars().count() == CELL_MAX && cut.ends_with('…'),
                "{cut}"
            );
        }
        assert_eq!(cell(&"x".repeat(CELL_MAX)), "x".repeat(CELL_MAX));
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
