//! One row of `event` as the relay reads it, and its decoding. Pure.

use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::outbox::{
    ctid::Ctid,
    row_text::{OwnedRowText, RowText},
    snapshot::{ParseSnapshotError, Snapshot},
};

/// A committed row that waits to be published.
#[derive(Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub struct OutboxRow {
    pub lane: u8,
    pub id: i64,
    pub event_id: Uuid,
    pub place: Ctid,
    /// Microseconds since 1970.
    pub created_at_us: i64,
    pub payload: Option<Box<[u8]>>,
    pub(crate) texts: OwnedRowText,
}

impl OutboxRow {
    /// A row without a payload, of 1970.
    #[must_use]
    pub fn new(lane: u8, id: i64, event_id: Uuid, texts: RowText<'_>) -> Self {
        Self {
            lane,
            id,
            event_id,
            place: Ctid::default(),
            created_at_us: 0,
            payload: None,
            texts: OwnedRowText::of(texts),
        }
    }

    /// The texts, by column.
    #[must_use]
    pub fn texts(&self) -> RowText<'_> {
        self.texts.get()
    }

    /// Its own topic.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.texts.topic()
    }

    /// The Kafka key.
    #[must_use]
    pub fn key(&self) -> &str {
        self.texts.key()
    }

    /// Of the payload.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payload.as_ref().map_or(0, |payload| payload.len())
    }

    /// What it weighs in the window.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.payload_bytes() + self.texts.weight()
    }
}

#[cfg(test)]
impl OutboxRow {
    /// A row as tests need one: of this lane, with an event of its own.
    pub(crate) fn plain(lane: u8, id: i64) -> Self {
        Self::with(lane, id, RowText::PLAIN)
    }

    /// The same with other texts.
    pub(crate) fn with(lane: u8, id: i64, texts: RowText<'_>) -> Self {
        Self {
            payload: Some([0; 10].into()),
            ..Self::new(lane, id, Uuid::from_u128(id as u128), texts)
        }
    }
}

/// How the sequence of ids stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceState {
    /// Absent: the outbox lives elsewhere than it did when its sequence was last known to be right.
    pub incarnation: Option<Uuid>,
    /// The last id that was drawn.
    pub position: i64,
}

/// The answer to one fetch: the snapshot, and the rows that it saw, by lane and then id.
#[derive(Clone, PartialEq)]
pub struct Fetched {
    pub snapshot: Snapshot,
    pub rows: Vec<OutboxRow>,
    /// Lanes that were looked at only up to an id.
    pub scanned: Vec<(u8, i64)>,
}

/// The database sent something that no version of the schema sends.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error(
        "a column of the outbox has an unexpected type: was the table changed by hand? undo that; \
         outbox-relay migrate names it"
    )]
    Column(#[source] sqlx::Error),
    #[error(
        "a value of the outbox has an unexpected form: was the table changed by hand? undo that; \
         outbox-relay migrate names it"
    )]
    Value,
    #[error("the snapshot cannot be read")]
    Snapshot(#[source] ParseSnapshotError),
    /// For a moment the old file of the sequence is empty, when another relay moves the sequence
    /// on.
    #[error("the sequence of ids was just moved on: it is tried again")]
    NoSnapshot,
}

impl From<sqlx::Error> for DecodeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Column(error)
    }
}

/// Decodes the rows of a fetch, of which one is of the statement itself.
#[derive(Default)]
pub(super) struct Decoder {
    statement: Option<(SequenceState, Snapshot)>,
    rows: Vec<OutboxRow>,
    scanned: Vec<(u8, i64)>,
    bytes: i64,
}

impl Decoder {
    /// # Errors
    /// When a column has another type or form than the schema gives it.
    pub(super) fn take(&mut self, row: &PgRow) -> Result<(), DecodeError> {
        match row.try_get::<Option<&str>, _>(0)? {
            Some(text) => {
                let sequence = SequenceState {
                    position: row.try_get(2)?,
                    incarnation: row.try_get(3)?,
                };
                self.statement = Some((
                    sequence,
                    Snapshot::parse(text).map_err(DecodeError::Snapshot)?,
                ));
            }
            None if row.try_get::<Option<Uuid>, _>(3)?.is_none() => {
                self.scanned.push((lane(row)?, row.try_get(2)?))
            }
            None => {
                let row = decode_row(row)?;
                self.bytes += row.payload_bytes() as i64;
                self.rows.push(row);
            }
        }
        Ok(())
    }

    /// Of payloads so far.
    pub(super) fn bytes(&self) -> i64 {
        self.bytes
    }

    /// # Errors
    /// When the row of the statement did not come.
    pub(super) fn finish(self) -> Result<(SequenceState, Fetched), DecodeError> {
        let (sequence, snapshot) = self.statement.ok_or(DecodeError::NoSnapshot)?;
        Ok((
            sequence,
            Fetched {
                snapshot,
                rows: self.rows,
                scanned: self.scanned,
            },
        ))
    }
}

fn lane(row: &PgRow) -> Result<u8, DecodeError> {
    u8::try_from(row.try_get::<i16, _>(1)?).map_err(|_| DecodeError::Value)
}

pub(super) fn decode_row(row: &PgRow) -> Result<OutboxRow, DecodeError> {
    let payload: Option<&[u8]> = row.try_get(9)?;
    let texts = RowText {
        aggregate_type: row.try_get(4)?,
        aggregate_id: row.try_get(5)?,
        event_type: row.try_get(6)?,
        topic: row.try_get(7)?,
        event_key: row.try_get(8)?,
        headers: jsonb_text(row, 10)?,
    };
    Ok(OutboxRow {
        lane: lane(row)?,
        id: row.try_get(2)?,
        event_id: row.try_get(3)?,
        place: row
            .try_get::<&[u8], _>(12)?
            .try_into()
            .map_err(|_| DecodeError::Value)?,
        created_at_us: timestamp_us(row, 11)?,
        payload: payload.map(Box::from),
        texts: OwnedRowText::of(texts),
    })
}

/// A jsonb in PostgreSQL's binary format: a version byte, then the text. Read as it is: most rows
/// have `{}`, and nobody needs a tree.
fn jsonb_text(row: &PgRow, column: usize) -> Result<&str, DecodeError> {
    let value = row.try_get_raw(column)?;
    match value.as_bytes().map_err(|_| DecodeError::Value)? {
        [1, text @ ..] => std::str::from_utf8(text).map_err(|_| DecodeError::Value),
        _ => Err(DecodeError::Value),
    }
}

/// A timestamptz in PostgreSQL's binary format: microseconds since 2000.
fn timestamp_us(row: &PgRow, column: usize) -> Result<i64, DecodeError> {
    const YEAR_2000_US: i64 = 946_684_800_000_000;
    let value = row.try_get_raw(column)?;
    let bytes = value.as_bytes().map_err(|_| DecodeError::Value)?;
    let since_2000 = i64::from_be_bytes(bytes.try_into().map_err(|_| DecodeError::Value)?);
    // -infinity and infinity are the ends of i64: saturating keeps them far away instead of
    // wrapping.
    Ok(since_2000.saturating_add(YEAR_2000_US))
}
