//! The texts of a row, in one piece of memory: a fetch brings thousands of rows, and to allocate
//! each text cost more than to read it. Pure.

use std::ops::Range;

/// Texts of a row, by column.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RowText<'a> {
    pub aggregate_type: &'a str,
    pub aggregate_id: &'a str,
    pub event_type: &'a str,
    pub topic: Option<&'a str>,
    pub event_key: Option<&'a str>,
    /// JSON object, as PostgreSQL writes it.
    pub headers: &'a str,
}

#[cfg(test)]
impl RowText<'static> {
    pub(crate) const PLAIN: Self = Self {
        aggregate_type: "essay",
        aggregate_id: "e-1",
        event_type: "Created",
        topic: None,
        event_key: None,
        headers: "{}",
    };
}

const COLUMNS: usize = 6;
const AGGREGATE_ID: usize = 1;
const TOPIC: usize = 3;
const EVENT_KEY: usize = 4;
const HEADERS: usize = 5;

/// The same, owned.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct OwnedRowText {
    all: Box<str>,
    /// Where each column ends in `all`.
    ends: [u32; COLUMNS],
    has_topic: bool,
    has_event_key: bool,
}

impl OwnedRowText {
    pub(super) fn of(texts: RowText<'_>) -> Self {
        let RowText {
            aggregate_type,
            aggregate_id,
            event_type,
            topic,
            event_key,
            headers,
        } = texts;
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
            // A message of PostgreSQL has at most 2^31 bytes.
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

    pub(super) fn get(&self) -> RowText<'_> {
        RowText {
            aggregate_type: self.column(0),
            aggregate_id: self.column(AGGREGATE_ID),
            event_type: self.column(2),
            topic: self.topic(),
            event_key: self.has_event_key.then(|| self.column(EVENT_KEY)),
            headers: self.column(HEADERS),
        }
    }

    pub(super) fn topic(&self) -> Option<&str> {
        self.has_topic.then(|| self.column(TOPIC))
    }

    /// `event_key`, or else `aggregate_id`.
    pub(super) fn key(&self) -> &str {
        self.column(self.key_column())
    }

    /// Bytes of key and headers.
    pub(super) fn weight(&self) -> usize {
        self.range(self.key_column()).len() + self.range(HEADERS).len()
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
        let start = column.checked_sub(1).map_or(0, |before| self.ends[before]);
        start as usize..self.ends[column] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_text_is_not_an_absent_one() {
        let texts = RowText {
            aggregate_type: "essay",
            aggregate_id: "é1",
            event_type: "",
            topic: None,
            event_key: Some(""),
            headers: r#"{"a": "b"}"#,
        };
        for texts in [
            texts,
            RowText {
                topic: Some("t"),
                event_key: None,
                ..texts
            },
        ] {
            let owned = OwnedRowText::of(texts);
            assert!(owned.get() == texts);
            assert_eq!(owned.key(), texts.event_key.unwrap_or(texts.aggregate_id));
            assert_eq!(owned.weight(), owned.key().len() + texts.headers.len());
        }
    }
}
