//! Row -> headers and timestamp of its record. Pure.

use rdkafka::message::{Header, OwnedHeaders};
use serde_json::Value;

use crate::{outbox::OutboxRow, settings::RecordHeaders};

/// A row's headers are no JSON object; the table's own check forbids it.
#[derive(Debug, thiserror::Error)]
#[error("the headers of a row are no JSON object")]
pub struct HeaderError(#[source] serde_json::Error);

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

/// `created_at` as the record's timestamp, unless it is older than an hour (retention would expire it at once) or more than a minute ahead (a
/// broker refuses the whole batch): then `None`, the time of sending.
#[must_use]
pub fn timestamp_ms(created_at_us: i64, now_ms: i64) -> Option<i64> {
    let created_ms = created_at_us.div_euclid(1000);
    (now_ms - HOUR_MS..=now_ms + MINUTE_MS).contains(&created_ms).then_some(created_ms)
}

/// The row's own headers, then the relay's. A row header with the name of one of the relay's is replaced; `replaced` counts these.
///
/// # Errors
/// When the row's headers are no JSON object.
pub fn headers(row: &OutboxRow, style: RecordHeaders, source: &str, replaced: &mut u64) -> Result<OwnedHeaders, HeaderError> {
    let own = own(row, style, source);
    let mut all = OwnedHeaders::new_with_capacity(own.len() + 2);
    if row.headers != "{}" {
        let object: serde_json::Map<String, Value> = serde_json::from_str(&row.headers).map_err(HeaderError)?;
        for (key, value) in &object {
            if own.iter().any(|(name, _)| name == key) {
                *replaced += 1;
                continue;
            }
            all = match value {
                Value::Null => all.insert(Header::<&[u8]> { key, value: None }),
                Value::String(text) => all.insert(Header { key, value: Some(text) }),
                other => all.insert(Header { key, value: Some(&other.to_string()) }),
            };
        }
    }
    Ok(own.iter().fold(all, |all, (key, value)| all.insert(Header { key, value: Some(value) })))
}

fn own(row: &OutboxRow, style: RecordHeaders, source: &str) -> Vec<(&'static str, String)> {
    let seq = ("outbox_seq", row.id.to_string());
    match style {
        RecordHeaders::Standard => vec![
            ("event_id", row.event_id.to_string()),
            ("event_type", row.event_type.clone()),
            ("aggregate_type", row.aggregate_type.clone()),
            ("aggregate_id", row.aggregate_id.clone()),
            seq,
            ("outbox_created_at", rfc3339(row.created_at_us)),
        ],
        RecordHeaders::Debezium => vec![("id", row.event_id.to_string()), ("eventType", row.event_type.clone()), seq],
        RecordHeaders::CloudEvents => vec![
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", row.event_id.to_string()),
            ("ce_type", row.event_type.clone()),
            ("ce_source", source.to_owned()),
            ("ce_subject", row.aggregate_id.clone()),
            ("ce_time", rfc3339(row.created_at_us)),
            seq,
        ],
    }
}

/// Microseconds since 1970 as RFC 3339 in UTC, with microseconds. Times that no calendar holds come out as the nearest one that does.
#[must_use]
pub fn rfc3339(us: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(us);
    format!("{:.6}", time.unwrap_or(if us < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX }))
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers;
    use uuid::Uuid;

    use super::*;

    fn row(headers: &str) -> OutboxRow {
        OutboxRow {
            lane: 1,
            id: 42,
            event_id: Uuid::nil(),
            aggregate_type: "essay".to_owned(),
            aggregate_id: "e-1".to_owned(),
            event_type: "Created".to_owned(),
            topic: None,
            event_key: None,
            payload: None,
            headers: headers.to_owned(),
            created_at_us: 1_700_000_000_123_456,
        }
    }

    fn named(headers: &str, style: RecordHeaders) -> (Vec<(String, Option<String>)>, u64) {
        let mut replaced = 0;
        let all = super::headers(&row(headers), style, "/outbox/essays/file-service", &mut replaced).expect("an object");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        (all.iter().map(|header| (header.key.to_owned(), header.value.map(text))).collect(), replaced)
    }

    #[test]
    fn a_row_brings_its_own_headers_and_the_relay_adds_its() {
        let (headers, replaced) = named(r#"{"correlation_id": "c", "attempt": 2, "none": null}"#, RecordHeaders::Standard);
        let text: Vec<_> = headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        assert_eq!(
            text,
            [
                ("correlation_id", Some("c")),
                ("attempt", Some("2")),
                ("none", None),
                ("event_id", Some("00000000-0000-0000-0000-000000000000")),
                ("event_type", Some("Created")),
                ("aggregate_type", Some("essay")),
                ("aggregate_id", Some("e-1")),
                ("outbox_seq", Some("42")),
                ("outbox_created_at", Some("2023-11-14T22:13:20.123456Z")),
            ]
        );
        assert_eq!(replaced, 0);
    }

    #[test]
    fn a_row_cannot_forge_the_relays_headers() {
        let (headers, replaced) = named(r#"{"outbox_seq": "1", "id": "x"}"#, RecordHeaders::Debezium);
        assert_eq!(replaced, 2);
        assert_eq!(headers.iter().filter(|(key, _)| key == "outbox_seq").count(), 1);
    }

    #[test]
    fn a_time_that_a_broker_would_refuse_or_expire_becomes_the_time_of_sending() {
        let now = 1_700_000_000_000;
        for (ms, kept) in
            [(now, true), (now - HOUR_MS, true), (now - HOUR_MS - 1, false), (now + MINUTE_MS, true), (now + MINUTE_MS + 1, false)]
        {
            assert_eq!(timestamp_ms(ms * 1000, now), kept.then_some(ms), "{ms}");
        }
    }

    #[test]
    fn a_time_outside_any_calendar_is_written_as_the_nearest_one_inside() {
        assert!(rfc3339(i64::MAX).starts_with("9999-"));
    }
}
