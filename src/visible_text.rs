//! Escapes texts that others wrote, so that they can harm neither a terminal nor a log. Pure.

/// Escapes a text for one line: invisible characters become Rust escapes such as `\u{1b}`.
pub(crate) fn line(text: &str) -> String {
    visible(text, |_| false)
}

/// Escapes a text for several lines: its line ends and tabs are kept.
pub(crate) fn lines(text: &str) -> String {
    visible(text, |c| matches!(c, '\n' | '\t'))
}

/// Escapes a text for one line, and cuts it to at most `bytes_max` bytes, at a character.
pub(crate) fn bounded(text: &str, bytes_max: usize) -> String {
    // Cutting first bounds the work for a text of megabytes.
    let end = text.floor_char_boundary(bytes_max);
    let mut safe = line(&text[..end]);
    if end < text.len() || safe.len() > bytes_max {
        safe.truncate(safe.floor_char_boundary(bytes_max.saturating_sub(CUT.len())));
        safe.push_str(CUT);
    }
    safe
}

/// End of a text that was cut.
const CUT: &str = "...";

/// Escapes harmful characters and backslashes, except those that are `kept`.
fn visible(text: &str, kept: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if !kept(c) && (is_harmful(c) || c == '\\') {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Whether a character is a control character, is invisible, or changes the direction of text.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_text_is_harmless_and_never_longer() {
        for (text, expected) in [
            ("6f1c", "6f1c"),
            ("a\u{1b}\\\n", "a\\u{1b}\\\\\\n"),
            ("0123456789abcdef", "0123456789abcdef"),
            ("0123456789abcdefg", "0123456789abc..."),
            ("ääääääääääää", "ääääää..."),
            ("\u{202e}\u{202e}\u{202e}", "\\u{202e}\\u{20..."),
        ] {
            assert_eq!(bounded(text, 16), expected);
        }
        for text in ["x", "ä", "\u{0}", "\u{1f600}"].map(|c| c.repeat(100_000)) {
            assert!(
                (125..=128).contains(&bounded(&text, 128).len()),
                "{text:.9}"
            );
        }
    }
}
