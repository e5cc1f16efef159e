//! Bytes that preset EventOutbox makes of envelopes. `adopt_bytes/envelopes.json` defines them: a
//! case has a name, a row, and what comes out of it, in tables with and without column `topic`.

use serde::Deserialize;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, query, query_as};
use uuid::Uuid;

use crate::harness::{
    adopted::{
        Generation, OutboxRow, adopt, create_tables, event_outbox, events, with_event_outbox,
    },
    postgres::{Database, execute, value},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    case: String,
    row: Row,
    in_both: Option<Expected>,
    with_topic: Option<Expected>,
    without_topic: Option<Expected>,
}

/// Values of `event_outbox`. The topic of the column is `files`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    event_type: String,
    event_key: Option<String>,
    event_data: String,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Expected {
    /// The row is a dead letter for this reason.
    Faulty { fault: String },
    Event {
        topic: Option<String>,
        event_id: String,
        event_type: String,
        headers: Value,
        payload: String,
    },
}

impl Case {
    fn all() -> Vec<Self> {
        serde_json::from_str(include_str!("adopt_bytes/envelopes.json")).expect("cases")
    }

    fn expected(&self, generation: Generation) -> &Expected {
        let of_generation = match generation {
            Generation::WithTopic => self.with_topic.as_ref(),
            Generation::WithoutTopic => self.without_topic.as_ref(),
        };
        of_generation
            .or(self.in_both.as_ref())
            .unwrap_or_else(|| panic!("{}: expects nothing", self.case))
    }

    async fn insert(&self, connection: &mut PgConnection, generation: Generation) {
        let row = OutboxRow {
            id: self.row.id.parse().expect("a UUID"),
            aggregate_id: "f1",
            aggregate_type: "file",
            event_type: &self.row.event_type,
            event_data: &self.row.event_data,
            event_key: self.row.event_key.as_deref(),
            topic: (generation == Generation::WithTopic).then_some("files"),
        };
        execute(connection, &row.insert_into("event_outbox")).await;
    }

    /// What came out, and its key.
    async fn read(&self, connection: &mut PgConnection) -> (Expected, Option<String>) {
        type Columns = (
            Option<String>,
            Uuid,
            String,
            String,
            Vec<u8>,
            Option<String>,
        );
        let columns = "topic, event_id, event_type, headers::text, payload, event_key";
        let rows = format!(
            "select {columns} from outbox.event where source_key = $1::jsonb union all select \
             {columns} from outbox.dead_letter where source_key = $1::jsonb"
        );
        let source = format!("{{\"id\": \"{}\"}}", self.row.id);
        let row: Columns = query_as(AssertSqlSafe(rows))
            .bind(source)
            .fetch_one(connection)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", self.case));
        let headers: Value = serde_json::from_str(&row.3).expect("JSON");
        let found = match headers.get("outbox_adoption_fault").and_then(Value::as_str) {
            Some(fault) => Expected::Faulty {
                fault: fault.to_owned(),
            },
            None => Expected::Event {
                topic: row.0,
                event_id: row.1.to_string(),
                event_type: row.2,
                headers,
                payload: String::from_utf8(row.4).expect("text"),
            },
        };
        (found, row.5)
    }
}

on_oldest_and_newest_server! {
    async fn envelopes_come_out_of_tables_with_a_topic_as_defined(database: Database) {
        check_envelopes(&database, Generation::WithTopic).await;
    }
}

on_oldest_and_newest_server! {
    async fn envelopes_come_out_of_tables_without_a_topic_as_defined(database: Database) {
        check_envelopes(&database, Generation::WithoutTopic).await;
    }
}

async fn check_envelopes(database: &Database, generation: Generation) {
    with_event_outbox(database, generation).await;
    let mut service = database.connect_as(&database.producer).await;
    let mut admin = database.as_admin().await;
    let cases = Case::all();
    let mut wrong = Vec::new();
    for case in &cases {
        case.insert(&mut service, generation).await;
        let (found, key) = case.read(&mut admin).await;
        let expected = case.expected(generation);
        if (&found, &key) != (expected, &case.row.event_key) {
            wrong.push(format!(
                "{}:\n  found    {found:?} {key:?}\n  expected {expected:?}",
                case.case
            ));
        }
    }
    assert!(wrong.is_empty(), "{generation:?}\n{}", wrong.join("\n"));
    assert!(cases.len() > 35);
}

/// Waiting rows go through the same function when the table is adopted.
#[tokio::test]
async fn envelopes_that_wait_at_the_adoption_come_out_the_same() {
    for generation in Generation::BOTH {
        let database = Database::create(15).await;
        create_tables(&database, &generation.table("event_outbox")).await;
        let mut service = database.connect_as(&database.producer).await;
        let cases = Case::all();
        for case in &cases {
            case.insert(&mut service, generation).await;
        }
        adopt(&database, [event_outbox("public", "event_outbox")]).await;
        let mut admin = database.as_admin().await;
        for case in &cases {
            let (found, key) = case.read(&mut admin).await;
            assert_eq!(
                (&found, &key),
                (case.expected(generation), &case.row.event_key),
                "{}",
                case.case
            );
        }
    }
}

/// Every JSON text that a case defines is one that a consumer can parse, unless it went out whole.
#[test]
fn what_comes_out_is_json_with_the_event_id_of_the_header_where_that_is_a_uuid() {
    let mut parsed = 0;
    for case in Case::all() {
        for generation in Generation::BOTH {
            let Expected::Event {
                headers,
                payload,
                event_id,
                ..
            } = case.expected(generation)
            else {
                continue;
            };
            assert_eq!(headers["event_id"], event_id.as_str());
            if case.case.contains("goes out whole") {
                assert_eq!(*payload, case.row.event_data);
                continue;
            }
            // A number can be too large for this parser.
            let Ok(body) = serde_json::from_str::<Value>(payload) else {
                assert!(payload.contains("1E+400"), "{payload}");
                continue;
            };
            let in_body = body["event_id"].as_str().map(Uuid::parse_str);
            if let Some(Ok(in_body)) = in_body {
                assert_eq!(in_body.to_string(), *event_id, "{}", case.case);
                parsed += 1;
            }
            assert!(body.get("topic").is_none() && body.get("headers").is_none());
        }
    }
    assert!(parsed > 50, "{parsed}");
}

/// The service's column has changed the text already; nothing more changes.
#[tokio::test]
async fn an_envelope_in_a_jsonb_column_comes_out_as_jsonb_writes_it() {
    let database = Database::create(15).await;
    let table = Generation::WithTopic
        .table("event_outbox")
        .replace("event_data json", "event_data jsonb");
    create_tables(&database, &table).await;
    adopt(&database, [event_outbox("public", "event_outbox")]).await;
    let mut service = database.connect_as(&database.producer).await;
    let row = OutboxRow {
        event_data: concat!(
            r#"{"topic": "files", "n": 1.10, "headers": {"h": "1"}, "#,
            r#""data": {"e": "\u00e9", "b": 1e2},"n":2.50}"#,
        ),
        ..OutboxRow::numbered(Generation::WithTopic, 7)
    };
    execute(&mut service, &row.insert_into("event_outbox")).await;
    let mut admin = database.as_admin().await;
    let events = events(&mut admin).await;
    assert_eq!(
        events[0].payload.as_deref(),
        Some(concat!(
            r#"{"n": 2.50, "data": {"b": 100, "e": "é"}, "#,
            r#""event_id": "00000000-0000-0000-0000-000000000007"}"#,
        ))
    );
    assert_eq!(events[0].headers["h"], "1");
}

/// A megabyte of data, as a value and as many fields.
#[tokio::test]
async fn large_envelopes_come_out_whole() {
    let database = Database::create(15).await;
    with_event_outbox(&database, Generation::WithTopic).await;
    let mut service = database.connect_as(&database.producer).await;
    let fields: Vec<String> = (0..20_000).map(|n| format!("\"f{n}\": {n}.0")).collect();
    let bodies = [
        format!("{{\"data\": \"{}\", ", "\\u00e9x".repeat(150_000)),
        format!("{{{}, ", fields.join(", ")),
    ];
    let mut admin = database.as_admin().await;
    for (number, body) in bodies.iter().enumerate() {
        let id = Uuid::from_u128(number as u128 + 1);
        query(
            "insert into event_outbox (id, aggregate_id, aggregate_type, event_type, event_data, \
             topic) values ($1, 'f1', 'file', 'Uploaded', $2::json, 'files')",
        )
        .bind(id)
        .bind(format!("{body}\"topic\": \"files\"}}"))
        .execute(&mut service)
        .await
        .expect("inserted");
        let payload: Vec<u8> = value(
            &mut admin,
            &format!("select payload from outbox.event where event_id = '{id}'"),
        )
        .await;
        assert!(payload == format!("{body}\"event_id\": \"{id}\"}}").into_bytes());
    }
}
