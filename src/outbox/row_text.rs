//! The text columns of a row, in a single allocation. Pure.
//!
//! A fetch returns thousands of rows. Allocating each column on its own cost more than reading it.

use std::ops::Range;

/// Text columns of a row, borrowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RowText<'a> {
    pub aggregate_type: &'a str,
    pub aggregate_id: &'a str,
    pub event_type: &'a str,
    pub topic: Option<&'a str>,
    pub event_key: Option<&'a str>,
    /// JSON object in the form that PostgreSQL writes.
    pub headers: &'a str,
}

#[cfg(test)]
impl RowText<'static> {
    /// Text columns of a row that uses defaults where it can.
    pub(crate) const PLAIN: Self = Self {
        aggregate_type: "essay",
        aggregate_id: "e-1",
        event_type: "Created",
        topic: None,
        event_key: None,
        headers: "{}",
    };
}

/// Number of text columns.
const COLUMNS: usize = 6;

/// Index of each column in [`OwnedRowText::ends`].
const AGGREGATE_TYPE: usize = 0;
const AGGREGATE_ID: usize = 1;
const EVENT_TYPE: usize = 2;
const TOPIC: usize = 3;
const EVENT_KEY: usize = 4;
const HEADERS: usize = 5;

/// Text columns of a row, owned.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct OwnedRowText {
    /// All columns, one after the other.
    all: Box<str>,
    /// Byte offset in `all` at which each column ends.
    ends: [u32; COLUMNS],
    /// Distinguishes an empty topic from an absent one.
    has_topic: bool,
    /// Distinguishes an empty key from an absent one.
    has_event_key: bool,
}

impl OwnedRowText {
    /// Copies the columns.
    pub(super) fn new(text: RowText<'_>) -> Self {
        let RowText {
            aggregate_type,
            aggregate_id,
            event_type,
            topic,
            event_key,
            headers,
        } = text;
        let columns: [&str; COLUMNS] = [
            aggregate_type,
            aggregate_id,
            event_type,
            topic.unwrap_or_default(),
            event_key.unwrap_or_default(),
            headers,
        ];
        let mut end = 0;
        let ends = columns.map(|column| {
            // The sum fits: a message of PostgreSQL has at most 2^31 bytes.
            end += column.len() as u32;
            end
        });
        Self {
            all: columns.concat().into(),
            ends,
            has_topic: topic.is_some(),
            has_event_key: event_key.is_some(),
        }
    }

    /// Borrows the columns.
    pub(super) fn get(&self) -> RowText<'_> {
        RowText {
            aggregate_type: self.column(AGGREGATE_TYPE),
            aggregate_id: self.column(AGGREGATE_ID),
            event_type: self.column(EVENT_TYPE),
            topic: self.topic(),
            event_key: self.has_event_key.then(|| self.column(EVENT_KEY)),
            headers: self.column(HEADERS),
        }
    }

    /// Topic that the row itself gives.
    pub(super) fn topic(&self) -> Option<&str> {
        self.has_topic.then(|| self.column(TOPIC))
    }

    /// Kafka key: `event_key`, or `aggregate_id` when it is absent.
    pub(super) fn key(&self) -> &str {
        self.column(self.key_column())
    }

    /// Size of all columns, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.all.len()
    }

    fn key_column(&self) -> usize {
        if self.has_event_key {
            EVENT_KEY
        } else {
            AGGREGATE_ID
        }
    }

    fn column(&self, column: usize) -> &str {
        &self.all[self.range(column)]
    }

    fn range(&self, column: usize) -> Range<usize> {
        let start = match column {
            0 => 0,
            column => self.ends[column - 1],
        };
        start as usize..self.ends[column] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_text_is_not_an_absent_one() {
        let text = RowText {
            aggregate_type: "essay",
            aggregate_id: "é1",
            event_type: "",
            topic: None,
            event_key: Some(""),
            headers: r#"{"a": "b"}"#,
        };
        for text in [
            text,
            RowText {
                topic: Some("t"),
                event_key: None,
                ..text
            },
        ] {
            let owned = OwnedRowText::new(text);
            assert!(owned.get() == text);
            assert_eq!(owned.key(), text.event_key.unwrap_or(text.aggregate_id));
            let topic = text.topic.map_or(0, str::len);
            let others = text.aggregate_type.len() + text.aggregate_id.len() + text.headers.len();
            assert_eq!(owned.bytes(), topic + others);
        }
    }
}
