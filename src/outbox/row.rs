//! A row of table `event` as the relay reads it, and its decoding. Pure.

use std::time::Instant;

use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::outbox::{
    ctid::Ctid,
    database_clock::DatabaseClock,
    ids::{Lane, RowId, RowIdentity},
    row_text::{OwnedRowText, RowText},
    snapshot::{ParseSnapshotError, Snapshot},
};

/// A committed row that waits to be published.
#[derive(Clone, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub struct OutboxRow {
    pub lane: Lane,
    pub id: RowId,
    pub event_id: Uuid,
    /// Position of the row version that was read: a hint for the DELETE.
    pub ctid: Ctid,
    /// Microseconds since 1970, UTC.
    pub created_at_us: i64,
    /// Record value; `None` is a tombstone.
    pub payload: Option<Box<[u8]>>,
    pub(crate) text: OwnedRowText,
}

impl OutboxRow {
    /// Builds a row without a payload whose `created_at` is 1970-01-01.
    #[must_use]
    pub fn new(lane: Lane, id: RowId, event_id: Uuid, text: RowText<'_>) -> Self {
        Self {
            lane,
            id,
            event_id,
            ctid: Ctid::default(),
            created_at_us: 0,
            payload: None,
            text: OwnedRowText::new(text),
        }
    }

    /// Identity of the row.
    #[must_use]
    pub fn identity(&self) -> RowIdentity {
        RowIdentity {
            lane: self.lane,
            id: self.id,
            event_id: self.event_id,
        }
    }

    /// Text columns of the row.
    #[must_use]
    pub fn text(&self) -> RowText<'_> {
        self.text.get()
    }

    /// Topic that the row itself gives. Without one, routes by type decide.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.text.topic()
    }

    /// Kafka key.
    #[must_use]
    pub fn key(&self) -> &str {
        self.text.key()
    }

    /// Size of the payload in bytes; 0 for a tombstone.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payload.as_ref().map_or(0, |payload| payload.len())
    }

    /// Bytes that the row counts for in the limit of bytes in flight: payload, key and headers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.payload_bytes() + self.text.key_and_header_bytes()
    }
}

#[cfg(test)]
impl OutboxRow {
    /// Builds a row with a payload of 10 bytes and an event id made from `id`.
    pub(crate) fn plain(lane: u8, id: i64) -> Self {
        Self::with(lane, id, RowText::PLAIN)
    }

    /// Builds a row like [`Self::plain`] with the given text columns.
    pub(crate) fn with(lane: u8, id: i64, text: RowText<'_>) -> Self {
        Self {
            payload: Some([0; 10].into()),
            ..Self::new(
                Lane::new(lane),
                RowId::new(id),
                Uuid::from_u128(id as u128),
                text,
            )
        }
    }
}

/// State of the sequence that gives rows their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceState {
    /// Identity of the database's outbox contents. `None`: the database is not the one in which the
    /// sequence was last checked, as after a restore or a failover.
    pub incarnation: Option<Uuid>,
    /// Last id that was drawn.
    pub position: RowId,
}

/// State of the database at the moment of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchMoment {
    /// State of the sequence.
    pub sequence: SequenceState,
    /// The database's clock.
    pub clock: DatabaseClock,
}

/// Result of one fetch.
#[derive(Clone, PartialEq)]
pub struct Fetched {
    /// Snapshot that all rows were read with.
    pub snapshot: Snapshot,
    /// Rows in the order of lane and id.
    pub rows: Vec<OutboxRow>,
    /// Lanes that were read only up to an id, and that id.
    pub scanned: Vec<(Lane, RowId)>,
}

/// Why an answer of the database could not be decoded. No version of the schema sends such answers.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error(
        "a column of the outbox has an unexpected type, probably changed by hand: undo the change; \
         outbox-relay migrate shows which one"
    )]
    Column(#[source] sqlx::Error),
    #[error(
        "a value of the outbox has an unexpected form, probably because the table was changed by \
         hand: undo the change; outbox-relay migrate shows it"
    )]
    Value,
    #[error("the snapshot cannot be parsed")]
    Snapshot(#[source] ParseSnapshotError),
    /// The fetch returned no row for the sequence. While another relay moves the sequence on, the
    /// old file of the sequence is empty for a moment.
    #[error("the id sequence was just advanced; this is retried")]
    NoSnapshot,
}

impl From<sqlx::Error> for DecodeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Column(error)
    }
}

/// Decodes the rows of a fetch one by one. One of them describes the statement itself.
pub(super) struct Decoder {
    /// When the statement was sent.
    sent: Instant,
    statement: Option<(FetchMoment, Snapshot)>,
    rows: Vec<OutboxRow>,
    scanned: Vec<(Lane, RowId)>,
    /// Sum of the payloads so far, in bytes.
    payload_bytes: i64,
}

impl Decoder {
    /// Decodes the answer to a statement that is sent at `sent`.
    pub(super) fn new(sent: Instant) -> Self {
        Self {
            sent,
            statement: None,
            rows: Vec::new(),
            scanned: Vec::new(),
            payload_bytes: 0,
        }
    }

    /// Decodes the next row, which has just been received: `now` is asked for the time if that
    /// matters.
    ///
    /// # Errors
    /// Returns an error when a column does not have the type or form that the schema gives it.
    pub(super) fn push(
        &mut self,
        row: &PgRow,
        now: impl FnOnce() -> Instant,
    ) -> Result<(), DecodeError> {
        match row.try_get::<Option<&str>, _>(0)? {
            Some(text) => {
                let snapshot = Snapshot::parse(text).map_err(DecodeError::Snapshot)?;
                let moment = decode_moment(row, self.sent, now())?;
                self.statement = Some((moment, snapshot));
            }
            None if row.try_get::<Option<Uuid>, _>(3)?.is_none() => {
                self.scanned.push((lane(row)?, row.try_get(2)?));
            }
            None => {
                let row = decode_row(row)?;
                self.payload_bytes += row.payload_bytes() as i64;
                self.rows.push(row);
            }
        }
        Ok(())
    }

    /// Sum of the payloads so far, in bytes.
    pub(super) fn payload_bytes(&self) -> i64 {
        self.payload_bytes
    }

    /// Ends decoding.
    ///
    /// # Errors
    /// Returns an error when the row that describes the statement is missing.
    pub(super) fn finish(self) -> Result<(FetchMoment, Fetched), DecodeError> {
        let (moment, snapshot) = self.statement.ok_or(DecodeError::NoSnapshot)?;
        Ok((
            moment,
            Fetched {
                snapshot,
                rows: self.rows,
                scanned: self.scanned,
            },
        ))
    }
}

/// Decodes the row of a fetch that describes the statement itself.
fn decode_moment(
    row: &PgRow,
    sent: Instant,
    received: Instant,
) -> Result<FetchMoment, DecodeError> {
    Ok(FetchMoment {
        sequence: SequenceState {
            position: row.try_get(2)?,
            incarnation: row.try_get(3)?,
        },
        clock: DatabaseClock::new(timestamp_us(row, 11)?, sent, received),
    })
}

fn ctid(row: &PgRow) -> Result<Ctid, DecodeError> {
    let bytes: &[u8] = row.try_get(12)?;
    bytes.try_into().map_err(|_| DecodeError::Value)
}

fn lane(row: &PgRow) -> Result<Lane, DecodeError> {
    Lane::from_column(row.try_get(1)?).ok_or(DecodeError::Value)
}

/// Decodes a row of `event`, in the columns of `fetch.sql`.
///
/// # Errors
/// Returns an error when a column does not have the type or form that the schema gives it.
pub(super) fn decode_row(row: &PgRow) -> Result<OutboxRow, DecodeError> {
    let payload: Option<&[u8]> = row.try_get(9)?;
    let text = RowText {
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
        ctid: ctid(row)?,
        created_at_us: timestamp_us(row, 11)?,
        payload: payload.map(Box::from),
        text: OwnedRowText::new(text),
    })
}

/// Text of a jsonb column. PostgreSQL's binary format is a version byte, then the text.
///
/// The text is not parsed here: most rows have `{}`, and a tree is not needed.
fn jsonb_text(row: &PgRow, column: usize) -> Result<&str, DecodeError> {
    let value = row.try_get_raw(column)?;
    match value.as_bytes().map_err(|_| DecodeError::Value)? {
        [1, text @ ..] => std::str::from_utf8(text).map_err(|_| DecodeError::Value),
        _ => Err(DecodeError::Value),
    }
}

/// Microseconds since 1970 of a timestamptz column. PostgreSQL's binary format is microseconds
/// since 2000.
///
/// # Errors
/// Returns an error when the column has another type.
pub(super) fn timestamp_us(row: &PgRow, column: usize) -> Result<i64, DecodeError> {
    const YEAR_2000_US: i64 = 946_684_800_000_000;
    let value = row.try_get_raw(column)?;
    let bytes = value.as_bytes().map_err(|_| DecodeError::Value)?;
    let since_2000 = i64::from_be_bytes(bytes.try_into().map_err(|_| DecodeError::Value)?);
    // -infinity and infinity are the smallest and the largest i64. Saturating keeps them at the
    // ends instead of wrapping around.
    Ok(since_2000.saturating_add(YEAR_2000_US))
}
