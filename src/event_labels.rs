//! What a log line says about an event, so that a person can follow it: ids and its type, bounded
//! and escaped. Never its key, nor anything of its payload. Pure.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::visible_text::bounded;

/// Longest value of a field, in bytes.
const FIELD_BYTES_MAX: usize = 128;
/// Header with an id that the services of a request share.
const CORRELATION_ID: &str = "correlation_id";
/// Header of a trace, as W3C Trace Context defines it.
const TRACEPARENT: &str = "traceparent";
/// Length of a trace id, in hexadecimal digits.
const TRACE_ID_DIGITS: usize = 32;

/// Type and ids of an event. A field is absent if the event does not have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventLabels {
    event_type: Option<Box<str>>,
    correlation_id: Option<Box<str>>,
    trace_id: Option<Box<str>>,
}

impl EventLabels {
    /// Labels from the values themselves. Of a `traceparent` only its trace id counts.
    #[must_use]
    pub fn new(
        event_type: Option<&str>,
        correlation_id: Option<&str>,
        traceparent: Option<&str>,
    ) -> Self {
        Self {
            event_type: field(event_type),
            correlation_id: field(correlation_id),
            trace_id: traceparent.and_then(trace_id).map(Box::from),
        }
    }

    /// Labels of a row with these headers, which are a JSON object. Headers that were not read, or
    /// that cannot be, give no label.
    #[must_use]
    pub fn of_row(event_type: &str, headers: &str) -> Self {
        let headers: BTreeMap<HeaderName<'_>, &RawValue> =
            serde_json::from_str(headers).unwrap_or_default();
        let header = |name: &str| {
            headers
                .get(&HeaderName(name.into()))
                .and_then(|json| text(json))
        };
        Self::new(
            Some(event_type),
            header(CORRELATION_ID).as_deref(),
            header(TRACEPARENT).as_deref(),
        )
    }

    /// The type of the event.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        self.event_type.as_deref()
    }

    /// Value of the header `correlation_id`.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        self.correlation_id.as_deref()
    }

    /// The trace id in the header `traceparent`: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }
}

/// A name or an id as a field of a log line.
#[must_use]
pub fn label(text: &str) -> String {
    bounded(text, FIELD_BYTES_MAX)
}

/// HeaderName of a header. Borrowed unless it has escapes.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct HeaderName<'a>(#[serde(borrow)] Cow<'a, str>);

/// A field of a log line; nothing if it would be empty.
fn field(value: Option<&str>) -> Option<Box<str>> {
    let value = value.filter(|value| !value.is_empty())?;
    Some(bounded(value, FIELD_BYTES_MAX).into())
}

/// Text of a header's value: that of a string, or the JSON of a number or a boolean.
fn text(json: &RawValue) -> Option<Cow<'_, str>> {
    match json.get().as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(json.get())
            .ok()
            .map(Cow::Owned),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(json.get())),
    }
}

/// The trace id of a `traceparent`: `00-TRACE ID-SPAN ID-FLAGS`. Nothing of a malformed one.
fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.trim().split('-');
    let (version, trace_id) = (parts.next()?, parts.next()?);
    let (span_id, flags) = (parts.next()?, parts.next()?);
    let is_valid = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace_id, TRACE_ID_DIGITS)
        && trace_id.bytes().any(|digit| digit != b'0')
        && is_hex(span_id, 16)
        && is_hex(flags, 2);
    is_valid.then_some(trace_id)
}

fn is_hex(text: &str, digits: usize) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == digits && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn labels_come_from_the_type_and_two_headers() {
        let headers = format!(
            r#"{{"correlation_id": "6f1c", "traceparent": "00-{TRACE}-00f067aa0ba902b7-01", "secret": "x"}}"#
        );
        let labels = EventLabels::of_row("Uploaded", &headers);
        let found = (
            labels.event_type(),
            labels.correlation_id(),
            labels.trace_id(),
        );
        assert_eq!(found, (Some("Uploaded"), Some("6f1c"), Some(TRACE)));
    }

    #[test]
    fn what_is_missing_or_malformed_gives_no_label() {
        for headers in [
            "",
            "{}",
            "[1]",
            r#"{"correlation_id": null, "traceparent": 7}"#,
            r#"{"correlation_id": {"a": 1}, "traceparent": "00-4bf9-00f0-01"}"#,
            r#"{"correlation_id": "", "traceparent": "00-00000000000000000000000000000000-00f067aa0ba902b7-01"}"#,
            r#"{"traceparent": "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}"#,
            r#"{"traceparent": "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"}"#,
        ] {
            let labels = EventLabels::of_row("", headers);
            assert_eq!(labels, EventLabels::default(), "{headers}");
        }
    }

    #[test]
    fn hostile_values_are_escaped_and_cut() {
        let headers = serde_json::json!({"correlation_id": "\u{1b}[2J\n".repeat(100_000)});
        let labels = EventLabels::of_row(&"x".repeat(200), &headers.to_string());
        for value in [labels.event_type(), labels.correlation_id()] {
            let value = value.expect("a label");
            assert!(
                value.len() <= 128 && !value.contains(char::is_control),
                "{value}"
            );
        }
    }

    #[test]
    fn a_number_is_an_id_too() {
        let labels = EventLabels::of_row("E", r#"{"correlation_id": 42}"#);
        assert_eq!(labels.correlation_id(), Some("42"));
    }
}
