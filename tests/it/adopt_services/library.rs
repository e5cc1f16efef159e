//! Rows of `event_outbox` as the Python library of the seven services writes them, and the records
//! that they must become. The SQL is the one that SQLAlchemy sends.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json, ser::Formatter};
use sqlx::{PgConnection, query};
use uuid::Uuid;

/// Generation of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    /// Newer tables have a column `topic`.
    TopicColumn,
    /// In older tables only `event_data` has the topic.
    TopicInData,
}

impl Generation {
    /// SQL that creates the table with its indexes.
    pub(super) fn create_table(self) -> String {
        let topic = match self {
            Self::TopicColumn => "topic varchar(255) not null,",
            Self::TopicInData => "",
        };
        include_str!("event_outbox.sql").replace("@topic@", topic)
    }

    /// Expression for the topic of a row.
    pub(super) fn topic(self) -> &'static str {
        match self {
            Self::TopicColumn => "topic",
            Self::TopicInData => "event_data ->> 'topic'",
        }
    }

    fn insert(self) -> &'static str {
        match self {
            Self::TopicColumn => {
                "INSERT INTO event_outbox (id, aggregate_id, aggregate_type, event_type, \
                 event_data, event_key, published_at, last_error, topic) VALUES ($1::UUID, \
                 $2::VARCHAR, $3::VARCHAR, $4::VARCHAR, $5::JSON, $6::VARCHAR, $7::TIMESTAMP WITH \
                 TIME ZONE, $8::VARCHAR, $9::VARCHAR) RETURNING event_outbox.created_at, \
                 event_outbox.retry_count"
            }
            Self::TopicInData => {
                "INSERT INTO event_outbox (id, aggregate_id, aggregate_type, event_type, \
                 event_data, event_key, published_at, last_error) VALUES ($1::UUID, $2::VARCHAR, \
                 $3::VARCHAR, $4::VARCHAR, $5::JSON, $6::VARCHAR, $7::TIMESTAMP WITH TIME ZONE, \
                 $8::VARCHAR) RETURNING event_outbox.created_at, event_outbox.retry_count"
            }
        }
    }
}

/// An event as a service passes it to the library.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) topic: &'static str,
    pub(super) aggregate_type: &'static str,
    pub(super) aggregate_id: String,
    /// Column `event_type`, which is not always the envelope's.
    pub(super) event_type: &'static str,
    pub(super) envelope: Value,
    pub(super) call: Call,
}

/// Function of the library that is called.
#[derive(Clone, Debug)]
pub(super) enum Call {
    /// `publish_to_outbox`: puts topic and headers into the envelope.
    Publish {
        message_key: Option<String>,
        headers: Value,
    },
    /// `add_event`: writes the envelope as it is.
    Add { event_key: Option<String> },
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: Uuid,
    event: Event,
    event_data: String,
    event_key: Option<String>,
}

impl Row {
    /// Converts an event as the library does.
    pub(super) fn new(event: Event) -> Self {
        let mut data = event.envelope.clone();
        let event_key = match &event.call {
            Call::Publish {
                message_key,
                headers,
            } => {
                data["topic"] = json!(event.topic);
                if headers != &json!({}) {
                    data["headers"] = headers.clone();
                }
                let partition_key = data["metadata"]["partition_key"].as_str();
                let key = partition_key.or(message_key.as_deref());
                Some(key.unwrap_or(&event.aggregate_id).to_owned())
            }
            Call::Add { event_key } => event_key.clone(),
        };
        Self {
            id: Uuid::new_v4(),
            event_data: python_json(&data),
            event,
            event_key,
        }
    }

    /// Inserts the row. The library adds the value of `published_at`, which is none.
    pub(super) async fn insert(
        &self,
        connection: &mut PgConnection,
        generation: Generation,
    ) -> sqlx::Result<()> {
        let nothing: Option<String> = None;
        let insert = query(generation.insert())
            .bind(self.id)
            .bind(&self.event.aggregate_id)
            .bind(self.event.aggregate_type)
            .bind(self.event.event_type)
            .bind(&self.event_data)
            .bind(&self.event_key)
            .bind(&nothing)
            .bind(&nothing);
        let insert = match generation {
            Generation::TopicColumn => insert.bind(self.event.topic),
            Generation::TopicInData => insert,
        };
        insert.fetch_one(connection).await?;
        Ok(())
    }

    /// Topic and key of the record.
    pub(super) fn place(&self) -> (String, String) {
        let key = self.event_key.as_ref().unwrap_or(&self.event.aggregate_id);
        (self.event.topic.to_owned(), key.clone())
    }

    /// Value of the record: the envelope, byte for byte, unless its id is nil or missing.
    pub(super) fn value(&self) -> String {
        let mut envelope = self.event.envelope.clone();
        envelope["event_id"] = json!(self.event_id());
        python_json(&envelope)
    }

    fn event_id(&self) -> String {
        let own = self.event.envelope["event_id"].as_str();
        let is_nil = |id: &&str| id.parse().is_ok_and(|id: Uuid| id.is_nil());
        own.filter(|id| !is_nil(id))
            .map_or_else(|| self.id.to_string(), str::to_owned)
    }

    /// Headers of the record but for `outbox_seq` and `outbox_created_at`: those of the caller, the
    /// seven standard ones, `traceparent`, and the relay's.
    pub(super) fn headers(&self) -> BTreeMap<String, String> {
        let envelope = &self.event.envelope;
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut headers: BTreeMap<String, String> = [
            ("trace_id", text(&envelope["correlation_id"])),
            ("schema_version", text(&envelope["schema_version"])),
            ("occurred_at", text(&envelope["event_timestamp"])),
            ("content_type", "application/json".to_owned()),
            ("source_service", text(&envelope["source_service"])),
            ("aggregate_type", self.event.aggregate_type.to_owned()),
            ("aggregate_id", self.event.aggregate_id.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Some(traceparent) = envelope["metadata"]["traceparent"].as_str() {
            headers.insert("traceparent".to_owned(), traceparent.to_owned());
        }
        if let Call::Publish { headers: own, .. } = &self.event.call {
            let own = own.as_object().expect("an object");
            headers.extend(own.iter().map(|(name, value)| (name.clone(), text(value))));
        }
        headers.insert("event_id".to_owned(), self.event_id());
        headers.insert("event_type".to_owned(), text(&envelope["event_type"]));
        headers
    }
}

/// Converts a value as Python's `json.dumps` does by default.
fn python_json(value: &Value) -> String {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, Python);
    value.serialize(&mut serializer).expect("plain data");
    String::from_utf8(text).expect("ASCII")
}

/// `", "` and `": "` between members, and ASCII only.
struct Python;

impl Python {
    fn separate<W: std::io::Write + ?Sized>(writer: &mut W, first: bool) -> std::io::Result<()> {
        if first {
            return Ok(());
        }
        writer.write_all(b", ")
    }
}

impl Formatter for Python {
    fn begin_array_value<W: std::io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_key<W: std::io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_value<W: std::io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: std::io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> std::io::Result<()> {
        for unit in fragment.encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => writer.write_all(&[byte])?,
                _ => write!(writer, "\\u{unit:04x}")?,
            }
        }
        Ok(())
    }
}

/// The text is what Python 3 prints for the same value.
#[test]
fn json_is_written_as_python_writes_it() {
    let value = json!({"ö": ["\u{1F600}\n", 1, 2.5, null, {}], "a": {"b": true, "c": "\\\""}});
    assert_eq!(
        python_json(&value),
        r#"{"\u00f6": ["\ud83d\ude00\n", 1, 2.5, null, {}], "a": {"b": true, "c": "\\\""}}"#
    );
}
