//! What a record's headers are made of: one example of each rule, and any JSON at all.

use proptest::prelude::*;
use rdkafka::message::Headers;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::*;
use crate::outbox::{Lane, RowId, RowText};

fn row(headers: &str) -> OutboxRow {
    let texts = RowText {
        headers,
        ..RowText::PLAIN
    };
    OutboxRow {
        created_at_us: 1_700_000_000_123_456,
        ..OutboxRow::new(Lane::new(1), RowId::new(42), Uuid::nil(), texts)
    }
}

fn named(headers: &str, style: RecordHeaders) -> (Vec<(String, Option<String>)>, u64) {
    let mut replaced = 0;
    let all = crate::kafka::record::headers(
        &row(headers),
        style,
        "/outbox/essays/file-service",
        &mut replaced,
    )
    .expect("an object");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (
        all.iter()
            .map(|header| (header.key.to_owned(), header.value.map(text)))
            .collect(),
        replaced,
    )
}

#[test]
fn a_row_brings_its_own_headers_and_the_relay_adds_its() {
    let (headers, replaced) = named(
        r#"{"correlation_id": "c", "attempt": 2, "none": null}"#,
        RecordHeaders::Standard,
    );
    let text: Vec<_> = headers
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_deref()))
        .collect();
    assert_eq!(
        text,
        [
            ("attempt", Some("2")),
            ("correlation_id", Some("c")),
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
fn a_header_that_equals_the_relays_is_not_counted_as_replaced() {
    for (json, expected) in [
        (r#"{"event_type": "Created"}"#, 0),
        (r#"{"event_type": "Removed"}"#, 1),
        (r#"{"Event_Type": "Created"}"#, 1),
        (r#"{"event_type": null}"#, 1),
    ] {
        let (headers, replaced) = named(json, RecordHeaders::Standard);
        assert_eq!((headers.len(), replaced), (6, expected), "{json}");
    }
}

#[test]
fn a_row_cannot_forge_the_relays_headers() {
    let (headers, replaced) = named(r#"{"outbox_seq": "1", "id": "x"}"#, RecordHeaders::Debezium);
    assert_eq!(replaced, 2);
    assert_eq!(
        headers
            .iter()
            .filter(|(key, _)| key == "outbox_seq")
            .count(),
        1
    );
}

#[test]
fn a_time_that_a_broker_would_refuse_or_expire_is_moved_to_the_nearest_other_one() {
    let (now, age_max) = (1_700_000_000_000, Duration::from_secs(30));
    let timestamp = |us| timestamp_ms(us, now * 1000, age_max) - now;
    for (created_ms, expected) in [
        (0, 0),
        (-1, -1),
        (-30_000, -30_000),
        (-30_001, -30_000),
        (1, 0),
        (86_400_000, 0),
    ] {
        assert_eq!(
            timestamp((now + created_ms) * 1000),
            expected,
            "{created_ms}"
        );
    }
    assert_eq!(timestamp(i64::MAX), 0, "infinity");
    assert_eq!(timestamp(i64::MIN), -30_000, "-infinity");
    assert_eq!(timestamp_ms(0, now * 1000, Duration::ZERO), now);
    assert_eq!(
        timestamp_ms(0, 0, Duration::MAX),
        1,
        "0 is the node's clock to librdkafka"
    );
}

#[test]
fn a_time_outside_any_calendar_is_written_as_the_nearest_one_inside() {
    for (us, expected) in [
        (i64::MAX, "9999-12-31T23:59:59.999999Z"),
        (YEAR_9999_END_US + 1, "9999-12-31T23:59:59.999999Z"),
        (YEAR_9999_END_US, "9999-12-31T23:59:59.999999Z"),
        (YEAR_9999_END_US - 1, "9999-12-31T23:59:59.999998Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (YEAR_1_US, "0001-01-01T00:00:00.000000Z"),
        (YEAR_1_US - 1, "0001-01-01T00:00:00.000000Z"),
        (i64::MIN, "0001-01-01T00:00:00.000000Z"),
    ] {
        assert_eq!(rfc3339(us), expected, "{us}");
    }
}

fn of_row_in(headers: &str, style: RecordHeaders) -> Vec<(String, Option<String>)> {
    let ours =
        crate::kafka::record::relay_headers(&row("{}"), style, "/outbox/essays/file-service").len();
    let (mut all, _) = named(headers, style);
    all.truncate(all.len() - ours);
    all
}

#[test]
fn each_kind_of_json_becomes_a_text_to_the_letter() {
    let json = r#"{"text": "ä \" \\ \u0001", "empty": "", "number": 1.10, "big": 123456789012345678901234567890, "small": 1e-400, "yes": true, "no": false,
        "none": null, "list": [1, "two", null], "object": {"b": {"a": []}}, "": "no name"}"#;
    let found = of_row_in(json, RecordHeaders::Standard);
    let expected = [
        ("", Some("no name")),
        ("big", Some("123456789012345678901234567890")),
        ("empty", Some("")),
        ("list", Some(r#"[1, "two", null]"#)),
        ("no", Some("false")),
        ("none", None),
        ("number", Some("1.10")),
        ("object", Some(r#"{"b": {"a": []}}"#)),
        ("small", Some("1e-400")),
        ("text", Some("ä \" \\ \u{1}")),
        ("yes", Some("true")),
    ];
    let found: Vec<_> = found
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_deref()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn depth_does_not_matter() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(
        of_row_in(&format!(r#"{{"deep": {deep}}}"#), RecordHeaders::Standard),
        [("deep".to_owned(), Some(deep))]
    );
}

#[test]
fn upper_case_forges_nothing_and_other_names_keep_theirs() {
    let (all, replaced) = named(
        r#"{"OUTBOX_SEQ": "1", "Event_Id": "x", "Trace": "a", "trace": "b"}"#,
        RecordHeaders::Standard,
    );
    assert_eq!(replaced, 2);
    assert_eq!(
        all.iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case("outbox_seq"))
            .count(),
        1
    );
    assert_eq!(
        all.iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case("trace"))
            .count(),
        2
    );
}

#[test]
fn a_style_reserves_only_its_own_names() {
    let json = r#"{"event_id": "x", "ce_id": "y", "id": "z"}"#;
    for (style, kept) in [
        (RecordHeaders::Standard, ["ce_id", "id"]),
        (RecordHeaders::Debezium, ["ce_id", "event_id"]),
        (RecordHeaders::CloudEvents, ["event_id", "id"]),
    ] {
        let (all, replaced) = named(json, style);
        assert_eq!(replaced, 1, "{style:?}");
        for name in kept {
            assert!(
                all.iter().any(|(key, value)| key == name
                    && value.as_ref().is_some_and(|value| value.len() == 1)),
                "{style:?} {name}"
            );
        }
    }
}

#[test]
fn a_content_type_is_the_rows_own_unless_it_makes_the_event_a_structured_one() {
    for (value, kept) in [
        ("application/json", true),
        ("application/cloudevents+json; charset=utf-8", false),
        ("Application/CloudEvents", false),
    ] {
        for style in [RecordHeaders::CloudEvents, RecordHeaders::Standard] {
            let found = of_row_in(&format!(r#"{{"content-type": "{value}"}}"#), style);
            let kept = kept || style == RecordHeaders::Standard;
            assert_eq!(found.len(), usize::from(kept), "{style:?} {value}");
        }
    }
}

#[test]
fn a_cloud_event_without_an_aggregate_has_no_subject() {
    let row = OutboxRow::with(
        1,
        42,
        RowText {
            aggregate_id: "",
            ..RowText::PLAIN
        },
    );
    assert!(
        crate::kafka::record::relay_headers(&row, RecordHeaders::CloudEvents, "/outbox")
            .iter()
            .all(|(name, _)| *name != "ce_subject")
    );
}

#[test]
fn what_is_no_object_is_refused_by_its_kind_and_never_quoted() {
    for (json, kind) in [
        ("[\"quoted\"]", "an array"),
        ("\"quoted\"", "a text"),
        ("-1", "a number"),
        ("true", "a boolean"),
        ("null", "null"),
        ("quoted", "invalid JSON"),
    ] {
        let error = crate::kafka::record::headers(&row(json), RecordHeaders::Standard, "/", &mut 0)
            .map(|_| ())
            .expect_err(json);
        assert_eq!(error, HeaderError::NotAnObject { kind });
        assert!(!error.to_string().contains("quoted"), "{error}");
    }
    for json in [
        r#"{"a\u0000b": "quoted"}"#,
        r#"{"a": "\ud800"}"#,
        r#"{"a": "#,
    ] {
        let error = crate::kafka::record::headers(&row(json), RecordHeaders::Standard, "/", &mut 0)
            .map(|_| ())
            .expect_err(json);
        assert_eq!(error, HeaderError::Character, "{json}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let text = || "[^\0]{0,12}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let fields = prop::collection::btree_map(text(), inner.clone(), 0..6)
            .prop_map(|fields| Value::from(fields.into_iter().collect::<Map<_, _>>()));
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::from),
            fields
        ]
    })
}

fn any_style() -> impl Strategy<Value = RecordHeaders> {
    prop_oneof![
        Just(RecordHeaders::Standard),
        Just(RecordHeaders::Debezium),
        Just(RecordHeaders::CloudEvents)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_in_comes_out(
        fields in prop::collection::btree_map("[^\0]{0,12}|event_id|CE_ID|id", any_json(), 0..8),
        style in any_style(),
    ) {
        let object: Map<String, Value> = fields.clone().into_iter().collect();
        let (all, replaced) = named(&Value::from(object).to_string(), style);
        let row = row("{}");
        let ours = crate::kafka::record::relay_headers(&row, style, "/outbox/essays/file-service");
        prop_assert_eq!(all.len() + replaced as usize, fields.len() + ours.len());
        for (key, value) in &all[..all.len() - ours.len()] {
            let expected = match &fields[key] {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            prop_assert_eq!(value, &expected);
        }
        for ((key, value), (name, expected)) in all[all.len() - ours.len()..].iter().zip(&ours) {
            prop_assert_eq!((key.as_str(), value.as_deref()), (*name, Some(&**expected)));
        }
    }

    #[test]
    fn no_text_at_all_makes_the_mapping_panic(
        json in "\\PC{0,40}|[{}\\[\\]\",:a0\\\\u ]{0,20}",
        style in any_style(),
    ) {
        let _ = crate::kafka::record::headers(&row(&json), style, "/", &mut 0);
    }

    #[test]
    fn every_time_is_of_rfc_3339(us in any::<i64>()) {
        let text = rfc3339(us);
        let time = text.strip_suffix('Z').and_then(|time| time.parse::<DateTime>().ok());
        prop_assert!(time.is_some() && text.len() == 27, "{}", text);
    }
}
