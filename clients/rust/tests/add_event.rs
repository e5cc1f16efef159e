//! Commits events and rolls one back. tests/clients/languages runs these tests, and then compares
//! the records in Kafka with what they committed.

use std::{collections::BTreeMap, env, error::Error, fs, io::Write};

use outbox_client::{Event, add_event};
use sqlx::{
    Connection, PgConnection, Postgres, Transaction,
    postgres::{PgConnectOptions, PgSslMode},
};

const KEY: &str = "größe/42";
const CORRELATION_ID: &str = r#"6f1c "ü" \"#;
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::test]
async fn rollback_leaves_nothing() -> Result<()> {
    let mut connection = connect().await?;
    let topic = env::var("OUTBOX_TOPIC")?;
    let mut transaction = connection.begin().await?;
    add_file(&mut transaction, "rolled-back").await?;
    add_event(&mut transaction, &renamed(&topic, b"0")).await?;
    transaction.rollback().await?;
    let files = sqlx::query("select from files where id = 'rolled-back'")
        .fetch_all(&mut connection)
        .await?;
    assert!(files.is_empty());
    Ok(())
}

#[tokio::test]
async fn committed_events_reach_kafka() -> Result<()> {
    let mut connection = connect().await?;
    let topic = env::var("OUTBOX_TOPIC")?;
    let payloads = fs::read(env::var("OUTBOX_PAYLOADS")?)?;
    let serialised = serde_json::json!({ "written by": "serde's \"json\" \\ é 😀", "size": 1e21 });
    let serialised = serde_json::to_vec_pretty(&serialised)?;
    let lines = payloads.strip_suffix(b"\n").unwrap_or(&payloads);
    let lines = lines.split(|byte| *byte == b'\n');
    let mut events: Vec<Event> = lines.map(|payload| renamed(&topic, payload)).collect();
    events.push(renamed(&topic, &serialised));
    // Topic, key, headers and payload may be left out.
    events.push(Event {
        aggregate_type: "file",
        aggregate_id: KEY,
        event_type: "FileDeletedV1",
        ..Event::default()
    });
    for (number, event) in events.iter().enumerate() {
        let mut transaction = connection.begin().await?;
        add_file(&mut transaction, &format!("file-{number}")).await?;
        add_event(&mut transaction, event).await?;
        transaction.commit().await?;
    }
    let texts = add_text(&mut connection, &events).await?;
    events.extend(texts);
    write_expected(&events)
}

/// Adds the payloads with the functions that take text, and returns these events. `str` is bound as
/// text, so JSON needs a cast.
async fn add_text<'a>(
    connection: &mut PgConnection,
    events: &[Event<'a>],
) -> Result<Vec<Event<'a>>> {
    let mut added = Vec::new();
    for call in [
        "select outbox.enqueue_text('file', 'file-42', 'FileRenamedV1', $1, $2, $3)",
        "select outbox.enqueue_json('file', 'file-42', 'FileRenamedV1', $1::json, $2, $3)",
    ] {
        for event in events.iter().filter(|event| event.payload.is_some()) {
            sqlx::query(call)
                .bind(std::str::from_utf8(event.payload.unwrap_or_default())?)
                .bind(event.topic)
                .bind(event.key)
                .execute(&mut *connection)
                .await?;
            added.push(Event {
                payload: event.payload,
                ..Event::default()
            });
        }
    }
    Ok(added)
}

/// Connects to PGHOST, PGDATABASE and so on.
async fn connect() -> sqlx::Result<PgConnection> {
    let options = PgConnectOptions::new().ssl_mode(PgSslMode::Disable);
    PgConnection::connect_with(&options).await
}

async fn add_file(transaction: &mut Transaction<'_, Postgres>, id: &str) -> sqlx::Result<()> {
    sqlx::query("insert into files (id) values ($1)")
        .bind(id)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

fn renamed<'a>(topic: &'a str, payload: &'a [u8]) -> Event<'a> {
    Event {
        aggregate_type: "file",
        aggregate_id: "file-42",
        event_type: "FileRenamedV1",
        payload: Some(payload),
        topic: Some(topic),
        key: Some(KEY),
        headers: BTreeMap::from([
            ("correlation_id", CORRELATION_ID),
            ("traceparent", TRACEPARENT),
        ]),
    }
}

/// Writes the records as tests/clients/languages reads them from Kafka.
fn write_expected(events: &[Event]) -> Result<()> {
    let mut records = Vec::new();
    for event in events {
        if !event.headers.is_empty() {
            write!(
                records,
                "correlation_id:{CORRELATION_ID},traceparent:{TRACEPARENT}"
            )?;
        }
        write!(records, "\t{KEY}\t")?;
        records.extend(event.payload.unwrap_or(b"TOMBSTONE"));
        records.extend(b"\n--\n");
    }
    fs::write(env::var("OUTBOX_EXPECTED")?, records)?;
    Ok(())
}
