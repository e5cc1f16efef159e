//! Row -> headers and timestamp of its record; docs/records.md describes them for users. Pure.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _, time::Duration};

use jiff::{SignedDuration, civil::DateTime};
use rdkafka::message::{Header, OwnedHeaders};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{outbox::OutboxRow, settings::RecordHeaders};

/// Why the headers of a row cannot become headers of a record. The table's check and `jsonb` rule
/// it out, so somebody has changed the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error(
        "column headers of a row holds {kind} instead of a JSON object: change it to an object of \
         names and texts"
    )]
    /// The column holds JSON that is not an object, or no JSON at all.
    NotAnObject { kind: &'static str },
    #[error(
        "column headers of a row holds a name or a text with a character that a record cannot \
         carry: remove the character"
    )]
    /// A name or a value holds NUL, or an escape sequence that is not valid text.
    Character,
    /// The row has a header [`ADOPTION_FAULT`].
    #[error("the row could not be converted into an event: correct spec.migration.adopt")]
    AdoptionFault,
}

/// Header of a row that holds a copy of a row of an adopted table instead of an event, since an
/// expression of `migration.adopt` failed for it. Its value is the reason. Such a row is rejected.
pub(super) const ADOPTION_FAULT: &str = "outbox_adoption_fault";

/// 0001-01-01T00:00:00Z in µs since 1970: RFC 3339 has four-digit years, and the calendars of
/// consumers begin here.
const YEAR_1_US: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z in µs since 1970, the last time that RFC 3339 can hold.
const YEAR_9999_END_US: i64 = 253_402_300_799_999_999;

/// Timestamp of a record in ms since 1970: the row's `created_at`, moved to the nearest time that
/// is at most `age_max` old and not ahead, by the database's clock (`database_us`). An older one
/// could be rejected with its whole batch, or be deleted by retention at once, and one that is
/// ahead could be rejected.
#[must_use]
pub fn timestamp_ms(created_at_us: i64, database_us: i64, age_max: Duration) -> i64 {
    let now_ms = database_us.div_euclid(1000);
    let age_max_ms = i64::try_from(age_max.as_millis()).unwrap_or(i64::MAX);
    let timestamp_ms = created_at_us
        .div_euclid(1000)
        .max(now_ms.saturating_sub(age_max_ms))
        .min(now_ms);
    // librdkafka replaces 0 with the time of the node's clock.
    timestamp_ms.max(1)
}

/// Headers of a record: the row's own, then the relay's. A row header with the name of one of the
/// relay's is left out, and counted in `replaced` unless the two are equal.
///
/// # Errors
/// If the row's headers are not a JSON object, or hold text that no record can carry.
pub fn headers(
    row: &OutboxRow,
    style: RecordHeaders,
    source: &str,
    replaced: &mut u64,
) -> Result<OwnedHeaders, HeaderError> {
    let relay_headers = relay_headers(row, style, source);
    let row_headers = row_headers(row.text().headers)?;
    let mut all = OwnedHeaders::new_with_capacity(relay_headers.len() + row_headers.len());
    for (Text(key), json) in &row_headers {
        let value = header_value(json)?;
        let value = value.as_ref().map(|Text(value)| &**value);
        if is_reserved(key, value, style, &relay_headers) {
            *replaced += u64::from(!is_equal(key, value, &relay_headers));
        } else {
            all = all.insert(Header { key, value });
        }
    }
    Ok(with_relay_headers(all, &relay_headers))
}

fn with_relay_headers(mut all: OwnedHeaders, relay_headers: &[RelayHeader<'_>]) -> OwnedHeaders {
    for (key, value) in relay_headers {
        let value = Some(&**value);
        all = all.insert(Header { key, value });
    }
    all
}

/// A JSON string: borrowed from the JSON, unless it holds an escape sequence.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Names and raw values of a row's headers, sorted by name.
fn row_headers(json: &str) -> Result<BTreeMap<Text<'_>, &RawValue>, HeaderError> {
    let object: BTreeMap<Text<'_>, &RawValue> =
        serde_json::from_str(json).map_err(|_| header_error(json))?;
    if object.keys().any(|name| name.0.contains('\0')) {
        return Err(HeaderError::Character);
    }
    if object.keys().any(|name| name.0 == ADOPTION_FAULT) {
        return Err(HeaderError::AdoptionFault);
    }
    Ok(object)
}

/// Value of a header: a string is sent as it is, `null` is a header without a value, and anything
/// else is sent as JSON, character by character as PostgreSQL writes it, so that no number is
/// rounded.
fn header_value(json: &RawValue) -> Result<Option<Text<'_>>, HeaderError> {
    let json = json.get();
    match json.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => serde_json::from_str(json)
            .map(Some)
            .map_err(|_| HeaderError::Character),
        _ => Ok(Some(Text(json.into()))),
    }
}

fn header_error(json: &str) -> HeaderError {
    let kind = match json.trim_start().as_bytes().first() {
        Some(b'{') => return HeaderError::Character,
        Some(b'[') => "an array",
        Some(b'"') => "a text",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        Some(b'-' | b'0'..=b'9') => "a number",
        _ => "invalid JSON",
    };
    HeaderError::NotAnObject { kind }
}

/// Whether a row may not set this header: it would forge one of the relay's, or make a binary
/// CloudEvent look like a structured one. Case is ignored, since consumers may ignore it.
fn is_reserved(
    key: &str,
    value: Option<&str>,
    style: RecordHeaders,
    relay_headers: &[RelayHeader<'_>],
) -> bool {
    let mut names = relay_headers.iter().map(|(name, _)| name);
    names.any(|name| name.eq_ignore_ascii_case(key))
        || style == RecordHeaders::CloudEvents
            && key.eq_ignore_ascii_case("content-type")
            && value.is_some_and(is_structured_cloud_event)
}

/// Whether the relay adds just this header, as for `event_id` of a row of an adopted table.
fn is_equal(key: &str, value: Option<&str>, relay_headers: &[RelayHeader<'_>]) -> bool {
    relay_headers
        .iter()
        .any(|(name, own)| *name == key && Some(&**own) == value)
}

/// Whether a `content-type` is the one of a structured CloudEvent.
fn is_structured_cloud_event(content_type: &str) -> bool {
    const PREFIX: &str = "application/cloudevents";
    let start = content_type.get(..PREFIX.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// Name and value of a header that the relay adds.
type RelayHeader<'a> = (&'static str, Cow<'a, str>);

/// Headers that the relay adds to each record.
fn relay_headers<'a>(
    row: &'a OutboxRow,
    style: RecordHeaders,
    source: &'a str,
) -> Vec<RelayHeader<'a>> {
    match style {
        RecordHeaders::Standard => standard_headers(row),
        RecordHeaders::Debezium => debezium_headers(row),
        RecordHeaders::CloudEvents => cloud_events_headers(row, source),
    }
}

fn standard_headers(row: &OutboxRow) -> Vec<RelayHeader<'_>> {
    let texts = row.text();
    vec![
        ("event_id", row.event_id.to_string().into()),
        ("event_type", texts.event_type.into()),
        ("aggregate_type", texts.aggregate_type.into()),
        ("aggregate_id", texts.aggregate_id.into()),
        outbox_seq(row),
        ("outbox_created_at", rfc3339(row.created_at_us).into()),
    ]
}

fn debezium_headers(row: &OutboxRow) -> Vec<RelayHeader<'_>> {
    vec![
        ("id", row.event_id.to_string().into()),
        ("eventType", row.text().event_type.into()),
        outbox_seq(row),
    ]
}

fn cloud_events_headers<'a>(row: &'a OutboxRow, source: &'a str) -> Vec<RelayHeader<'a>> {
    let texts = row.text();
    let mut headers = vec![
        ("ce_specversion", "1.0".into()),
        ("ce_id", row.event_id.to_string().into()),
        ("ce_type", texts.event_type.into()),
        ("ce_source", source.into()),
        ("ce_subject", texts.aggregate_id.into()),
        ("ce_time", rfc3339(row.created_at_us).into()),
        outbox_seq(row),
    ];
    // By the CloudEvents specification the subject is optional, but never empty.
    headers.retain(|(name, value)| *name != "ce_subject" || !value.is_empty());
    headers
}

fn outbox_seq(row: &OutboxRow) -> RelayHeader<'_> {
    ("outbox_seq", row.id.to_string().into())
}

/// RFC 3339 text, in UTC with six digits of a second, for `us` microseconds since 1970. Times
/// before year 1 or after year 9999 are moved to the nearest time that RFC 3339 can hold.
#[must_use]
pub fn rfc3339(us: i64) -> String {
    // `jiff::Timestamp` ends a day before year 9999 does.
    let since_1970 = SignedDuration::from_micros(us.clamp(YEAR_1_US, YEAR_9999_END_US));
    let time = DateTime::constant(1970, 1, 1, 0, 0, 0, 0).saturating_add(since_1970);
    let mut text = String::with_capacity("1970-01-01T00:00:00.000000Z".len());
    write!(text, "{time:.6}Z").expect("a string takes all text");
    text
}

#[cfg(test)]
mod tests;
