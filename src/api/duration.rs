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
    let refuse = || ParseDurationError(text.to_owned());
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(refuse());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .ok_or_else(refuse)?;
        let number: f64 = rest[..digits].parse().map_err(|_| refuse())?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ms" => number / 1000.0,
            "s" => number,
            "m" => number * 60.0,
            "h" => number * 3600.0,
            _ => return Err(refuse()),
        };
        total += Duration::try_from_secs_f64(seconds).map_err(|_| refuse())?;
        rest = &rest[unit..];
    }
    Ok(total)
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
        for text in ["", "5", "ms", "5 s", "-5s", "1d", "1.2.3s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
