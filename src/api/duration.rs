//! Durations in manifests (`50ms`, `1m30s`), parsed by the rules of the CRD's pattern. Pure.

use std::time::Duration;

/// The text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a duration: use numbers with unit ms, s, m or h, such as 50ms or 1m30s")]
pub struct ParseDurationError(String);

/// Parses a duration such as `50ms`, `1.5s` or `1m30s`.
///
/// # Errors
/// If the text has another form, or the duration does not fit into a [`Duration`].
pub fn parse_duration(text: &str) -> Result<Duration, ParseDurationError> {
    let error = || ParseDurationError(text.to_owned());
    if text.is_empty() {
        return Err(error());
    }
    let (mut total, mut left) = (Duration::ZERO, text);
    while !left.is_empty() {
        let (part, after) = parse_part(left).ok_or_else(error)?;
        total = total.checked_add(part).ok_or_else(error)?;
        left = after;
    }
    Ok(total)
}

/// Parses a number and its unit at the start of the text. Returns the duration, and the text after
/// it.
fn parse_part(text: &str) -> Option<(Duration, &str)> {
    let (number, after) = text.split_at(text.find(|c: char| !is_part_of_number(c))?);
    let number: f64 = number.parse().ok()?;
    let unit_end = after.find(|c: char| c.is_ascii_digit());
    let (unit, after) = after.split_at(unit_end.unwrap_or(after.len()));
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    Some((Duration::try_from_secs_f64(seconds).ok()?, after))
}

fn is_part_of_number(c: char) -> bool {
    c.is_ascii_digit() || c == '.'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_the_api_server_reads_them() {
        for (text, ms) in [
            ("50ms", 50),
            ("1.5s", 1500),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_text_of_another_form_is_refused() {
        for text in [
            "",
            "5",
            "ms",
            "5 s",
            "-5s",
            "1d",
            "1.2.3s",
            "5000000000000000h5000000000000000h",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
