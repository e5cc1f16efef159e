//! Row -> headers and timestamp of its record; docs/records.md says the same to users. Pure.

use std::{borrow::Cow, collections::BTreeMap};

use rdkafka::message::{Header, OwnedHeaders};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{outbox::OutboxRow, settings::RecordHeaders};

/// A row's headers cannot be headers of a record; the table's own check and `jsonb` forbid it, so
/// somebody changed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error(
        "column headers of a row holds {kind}, no JSON object: make it an object of names and texts"
    )]
    NoObject { kind: &'static str },
    #[error(
        "column headers of a row holds a name or a text with a character that no record can \
         carry: take it out"
    )]
    Character,
}

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
/// 0001-01-01T00:00:00Z: RFC 3339 has years of four digits, and the calendars of consumers begin
/// here.
const YEAR_1_US: i64 = -62_135_596_800_000_000;

/// `created_at` as the record's timestamp, unless it is older than an hour (retention would expire
/// it at once) or more than a minute ahead (a broker refuses the whole batch): then `None`, the
/// time of sending.
#[must_use]
pub fn timestamp_ms(created_at_us: i64, now_ms: i64) -> Option<i64> {
    let created_ms = created_at_us.div_euclid(1000);
    (now_ms - HOUR_MS..=now_ms + MINUTE_MS)
        .contains(&created_ms)
        .then_some(created_ms)
}

/// The row's own headers, then the relay's. A row header with the name of one of the relay's is
/// replaced; `replaced` counts these.
///
/// # Errors
/// When the row's headers are no JSON object.
pub fn headers(
    row: &OutboxRow,
    style: RecordHeaders,
    source: &str,
    replaced: &mut u64,
) -> Result<OwnedHeaders, HeaderError> {
    let (own, of_row) = (own(row, style, source), of_row(row.text().headers)?);
    let mut all = OwnedHeaders::new_with_capacity(own.len() + of_row.len());
    for (Text(key), json) in &of_row {
        let value = value(json)?;
        let value = value.as_ref().map(|Text(value)| &**value);
        if is_reserved(key, value, style, &own) {
            *replaced += 1;
        } else {
            all = all.insert(Header { key, value });
        }
    }
    Ok(own.iter().fold(all, |all, (key, value)| {
        all.insert(Header {
            key,
            value: Some(&**value),
        })
    }))
}

/// A text of JSON: a piece of it, unless something in it is escaped.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Names and values as they go out, in the order of the names: a text as it is, null as a header
/// without a value, anything else as JSON, to the letter as PostgreSQL writes it, so that no number
/// is rounded.
fn of_row(json: &str) -> Result<BTreeMap<Text<'_>, &RawValue>, HeaderError> {
    let object: BTreeMap<Text<'_>, &RawValue> =
        serde_json::from_str(json).map_err(|_| refusal(json))?;
    if object.keys().any(|name| name.0.contains('\0')) {
        Err(HeaderError::Character)
    } else {
        Ok(object)
    }
}

fn value(json: &RawValue) -> Result<Option<Text<'_>>, HeaderError> {
    let json = json.get();
    match json.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => serde_json::from_str(json)
            .map(Some)
            .map_err(|_| HeaderError::Character),
        _ => Ok(Some(Text(json.into()))),
    }
}

fn refusal(json: &str) -> HeaderError {
    let kind = match json.trim_start().as_bytes().first() {
        Some(b'{') => return HeaderError::Character,
        Some(b'[') => "an array",
        Some(b'"') => "a text",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        Some(b'-' | b'0'..=b'9') => "a number",
        _ => "no JSON",
    };
    HeaderError::NoObject { kind }
}

/// Upper and lower case are one, since consumers may take them for one: a row cannot forge what the
/// relay says. Nor can it make a binary CloudEvent look like a structured one.
fn is_reserved(
    key: &str,
    value: Option<&str>,
    style: RecordHeaders,
    own: &[(&str, Cow<'_, str>)],
) -> bool {
    const STRUCTURED: &str = "application/cloudevents";
    let starts_structured = || {
        value
            .and_then(|value| value.get(..STRUCTURED.len()))
            .is_some_and(|start| start.eq_ignore_ascii_case(STRUCTURED))
    };
    own.iter().any(|(name, _)| name.eq_ignore_ascii_case(key))
        || style == RecordHeaders::CloudEvents
            && key.eq_ignore_ascii_case("content-type")
            && starts_structured()
}

fn own<'a>(
    row: &'a OutboxRow,
    style: RecordHeaders,
    source: &'a str,
) -> Vec<(&'static str, Cow<'a, str>)> {
    let texts = row.text();
    let seq = ("outbox_seq", row.id.to_string().into());
    match style {
        RecordHeaders::Standard => vec![
            ("event_id", row.event_id.to_string().into()),
            ("event_type", texts.event_type.into()),
            ("aggregate_type", texts.aggregate_type.into()),
            ("aggregate_id", texts.aggregate_id.into()),
            seq,
            ("outbox_created_at", rfc3339(row.created_at_us).into()),
        ],
        RecordHeaders::Debezium => vec![
            ("id", row.event_id.to_string().into()),
            ("eventType", texts.event_type.into()),
            seq,
        ],
        RecordHeaders::CloudEvents => {
            let mut own = vec![
                ("ce_specversion", "1.0".into()),
                ("ce_id", row.event_id.to_string().into()),
                ("ce_type", texts.event_type.into()),
                ("ce_source", source.into()),
                ("ce_subject", texts.aggregate_id.into()),
                ("ce_time", rfc3339(row.created_at_us).into()),
                seq,
            ];
            // A subject is optional, but never empty.
            own.retain(|(name, value)| *name != "ce_subject" || !value.is_empty());
            own
        }
    }
}

/// Microseconds since 1970 as RFC 3339 in UTC, with microseconds. Times before year 1 or after 9999
/// come out as the nearest one inside.
#[must_use]
pub fn rfc3339(us: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(us.max(YEAR_1_US));
    format!("{:.6}", time.unwrap_or(jiff::Timestamp::MAX))
}

#[cfg(test)]
mod tests;
