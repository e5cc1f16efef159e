//! Tables of other libraries, adopted by a preset or by expressions alone.

use std::collections::BTreeMap;

use outbox_relay::settings::{AdoptExpressions, AdoptPreset};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::harness::{
    adopted::{Event, adopt, by_expressions, create_tables, events, expressions},
    postgres::{Database, execute, value, values},
};

async fn connect(database: &Database) -> (PgConnection, PgConnection) {
    let service = database.connect_as(&database.producer).await;
    (service, database.as_admin().await)
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn headers(all: &[(&str, serde_json::Value)]) -> BTreeMap<String, serde_json::Value> {
    all.iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

/// Statement that checks the time of the only event.
const CREATED_AT: &str = "select created_at = '2026-01-02 03:04:05.678901Z' from outbox.event";

on_oldest_and_newest_server! {
    /// Columns of Debezium's outbox event router. Its users often delete the row at once, or have
    /// no column that says whether it was published.
    async fn rows_of_debeziums_router_are_events_routed_by_their_types(database: Database) {
        let table = "create table outboxevent (
            id uuid primary key, aggregatetype varchar(255) not null, aggregateid varchar(255) \
            not null, type varchar(255) not null, payload jsonb, tracingspancontext varchar(256)
          )";
        create_tables(&database, table).await;
        let mut entry = by_expressions("public", "outboxevent", AdoptExpressions::default());
        entry.preset = Some(AdoptPreset::Debezium);
        adopt(&database, [entry]).await;
        let (mut service, mut admin) = connect(&database).await;
        let rows = "begin;
          insert into outboxevent (id, aggregatetype, aggregateid, type, payload) values
            ('00000000-0000-0000-0000-000000000001', 'Order', '17', 'OrderCreated', \
            '{\"b\": 1.10, \"a\": \"ü\"}'),
            ('00000000-0000-0000-0000-000000000002', 'Order', '17', 'OrderDeleted', null);
          delete from outboxevent; commit";
        execute(&mut service, rows).await;
        let event = |number: u128, kind: &str, payload: Option<&str>| Event {
            event_id: Uuid::from_u128(number),
            aggregate_type: "Order".to_owned(),
            aggregate_id: "17".to_owned(),
            event_type: kind.to_owned(),
            topic: None,
            event_key: None,
            payload: payload.map(str::to_owned),
            headers: BTreeMap::new(),
            source_key: Some(format!("{{\"id\": \"{}\"}}", Uuid::from_u128(number))),
        };
        assert_eq!(
            events(&mut admin).await,
            [
                event(1, "OrderCreated", Some(r#"{"a": "ü", "b": 1.10}"#)),
                event(2, "OrderDeleted", None),
            ]
        );
    }
}

/// The payload of Debezium's router can have other types; bytes are sent as they are.
#[tokio::test]
async fn a_payload_of_debeziums_router_has_the_bytes_of_its_type() {
    for (kind, literal, expected) in [
        ("bytea", r"'\x00ff80'", "00ff80"),
        ("text", r#"'{"a" : 1e2}'"#, "7b226122203a203165327d"),
        ("json", r#"'{"a" : 1e2}'"#, "7b226122203a203165327d"),
        ("varchar(100)", "'ä'", "c3a4"),
    ] {
        let database = Database::create(15).await;
        let table = format!(
            "create table outboxevent (id uuid primary key, aggregatetype text, aggregateid text, \
             type text, payload {kind})"
        );
        create_tables(&database, &table).await;
        let mut entry = by_expressions("public", "outboxevent", AdoptExpressions::default());
        entry.preset = Some(AdoptPreset::Debezium);
        adopt(&database, [entry]).await;
        let (mut service, mut admin) = connect(&database).await;
        let insert = format!(
            "set bytea_output = escape; insert into outboxevent values (gen_random_uuid(), \
             'Order', '17', 'OrderCreated', {literal})"
        );
        execute(&mut service, &insert).await;
        let bytes = "select encode(payload, 'hex') from outbox.event";
        assert_eq!(value::<String>(&mut admin, bytes).await, expected, "{kind}");
    }
}

on_oldest_and_newest_server! {
    /// Table of Spring Modulith's event publication registry: a row for each event and listener.
    /// Rows are completed at once, so that Modulith does not publish them again after a restart.
    async fn publications_of_spring_modulith_are_events(database: Database) {
        let table = "create table event_publication (
            id uuid not null, listener_id text not null, event_type text not null, \
            serialized_event text not null, publication_date timestamptz not null, \
            completion_date timestamptz, primary key (id)
          )";
        create_tables(&database, table).await;
        let named = [
            ("payload", "serialized_event"),
            ("headers", "jsonb_build_object('listener', listener_id)"),
            ("topic", "case when event_type like 'com.example.orders.%' then 'orders' end"),
            ("eventId", "id"),
            ("eventType", "substring(event_type from '[^.]*$')"),
            ("aggregateType", "'order'"),
            ("aggregateId", "serialized_event::jsonb ->> 'orderId'"),
            ("createdAt", "publication_date"),
        ];
        let mut entry = by_expressions("public", "event_publication", expressions(&named));
        entry.published_column = text("completion_date");
        adopt(&database, [entry]).await;
        let (mut service, mut admin) = connect(&database).await;
        let insert = "insert into event_publication (id, listener_id, event_type, \
            serialized_event, publication_date) values ('00000000-0000-0000-0000-000000000001', \
            'com.example.Kafka.on(com.example.orders.OrderPlaced)', \
            'com.example.orders.OrderPlaced', '{\"orderId\":\"o-1\",\"total\":9.90}', \
            '2026-01-02 03:04:05.678901Z')";
        execute(&mut service, insert).await;
        assert_eq!(
            events(&mut admin).await,
            [Event {
                event_id: Uuid::from_u128(1),
                aggregate_type: "order".to_owned(),
                aggregate_id: "o-1".to_owned(),
                event_type: "OrderPlaced".to_owned(),
                topic: text("orders"),
                event_key: None,
                payload: text(r#"{"orderId":"o-1","total":9.90}"#),
                headers: headers(&[(
                    "listener",
                    "com.example.Kafka.on(com.example.orders.OrderPlaced)".into()
                )]),
                source_key: text(r#"{"id": "00000000-0000-0000-0000-000000000001"}"#),
            }]
        );
        assert!(value::<bool>(&mut admin, CREATED_AT).await);
        // What Modulith does when the listener has returned, and when it looks for what is left.
        let completed = "update event_publication set completion_date = now() where id = \
            '00000000-0000-0000-0000-000000000001'";
        execute(&mut service, completed).await;
        let left = "select count(*) from event_publication where completion_date is null";
        assert_eq!(value::<i64>(&mut service, left).await, 0);
        assert_eq!(events(&mut admin).await.len(), 1);
        // An event without the field has no key, and its transaction commits.
        let broken = insert.replace("0001'", "0002'").replace("orderId", "other");
        execute(&mut service, &broken).await;
        let reason = "select headers ->> 'outbox_adoption_fault' from outbox.dead_letter";
        assert_eq!(value::<String>(&mut admin, reason).await, "aggregate_id is null");
    }
}

on_oldest_and_newest_server! {
    /// Table of the Node library pg-transactional-outbox, in its own schema.
    async fn messages_of_the_library_pg_transactional_outbox_are_events(database: Database) {
        let table = "create schema messaging; create table messaging.outbox (
            id uuid primary key, aggregate_type text not null, aggregate_id text not null, \
            message_type text not null, segment text, concurrency text not null default \
            'sequential', payload jsonb not null, metadata jsonb, locked_until timestamptz not \
            null default to_timestamp(0), created_at timestamptz not null default \
            clock_timestamp(), processed_at timestamptz, abandoned_at timestamptz, \
            started_attempts smallint not null default 0, finished_attempts smallint not null \
            default 0
          );
          alter table messaging.outbox add constraint outbox_concurrency_check check \
            (concurrency in ('sequential', 'parallel'));";
        create_tables(&database, table).await;
        let named = [
            ("payload", "payload"),
            ("headers", "metadata"),
            ("topic", "aggregate_type || '.events'"),
            ("eventKey", "coalesce(segment, aggregate_id)"),
            ("eventId", "id"),
            ("eventType", "message_type"),
            ("aggregateType", "aggregate_type"),
            ("aggregateId", "aggregate_id"),
            ("createdAt", "created_at"),
        ];
        let mut entry = by_expressions("messaging", "outbox", expressions(&named));
        entry.published_column = text("processed_at");
        // It waits, as one that the library's listener has not read yet.
        let (mut service, mut admin) = connect(&database).await;
        let insert = |number: u128, segment: &str, metadata: &str| {
            format!(
                "insert into messaging.outbox (id, aggregate_type, aggregate_id, message_type, \
                 segment, payload, metadata, created_at) values ('{}', 'movie', 'm-1', \
                 'movie_created', {segment}, '{{\"title\": \"Ä\", \"id\": 1.0}}', {metadata}, \
                 '2026-01-02 03:04:05.678901Z')",
                Uuid::from_u128(number)
            )
        };
        execute(&mut service, &insert(1, "null", "null")).await;
        adopt(&database, [entry]).await;
        execute(&mut service, &insert(2, "'s-1'", "'{\"routingKey\": \"a.b\"}'")).await;
        let event = |number: u128, key: &str, with: &[(&str, serde_json::Value)]| Event {
            event_id: Uuid::from_u128(number),
            aggregate_type: "movie".to_owned(),
            aggregate_id: "m-1".to_owned(),
            event_type: "movie_created".to_owned(),
            topic: text("movie.events"),
            event_key: text(key),
            payload: text(r#"{"id": 1.0, "title": "Ä"}"#),
            headers: headers(with),
            source_key: Some(format!("{{\"id\": \"{}\"}}", Uuid::from_u128(number))),
        };
        assert_eq!(
            events(&mut admin).await,
            [
                event(1, "m-1", &[]),
                event(2, "s-1", &[("routingKey", "a.b".into())]),
            ]
        );
        let times = "select distinct created_at = '2026-01-02 03:04:05.678901Z' from outbox.event";
        assert_eq!(values::<bool>(&mut admin, times).await, [true]);
        // What the library's listener would read next.
        let left = "select count(*) from messaging.outbox where processed_at is null";
        assert_eq!(value::<i64>(&mut service, left).await, 0);
    }
}
