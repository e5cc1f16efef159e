//! A row of table `event` as the relay reads it, and its decoding. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::outbox::{
    ctid::Ctid,
    database_clock::DatabaseClock,
    ids::{Lane, RowId, RowIdentity},
    row_sql::FETCHED_BYTES_MAX,
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
    pub content: Content,
    pub(crate) text: OwnedRowText,
}

/// What was read of a row, beside its text columns.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub enum Content {
    /// Everything. The value of its record; `None` is a tombstone.
    Whole(Option<Box<[u8]>>),
    /// The row is large: neither payload nor headers were read, only its size in bytes.
    Unread(usize),
    /// The row cannot become a record, whatever the brokers take. It has this size in bytes.
    Faulty(RowFault, usize),
}

/// Why a row cannot become a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowFault {
    /// The text of this column cannot become UTF-8.
    NotUtf8(TextColumn),
    /// The row is larger than the relay reads.
    TooLarge,
}

/// A column of a row whose text may not be UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TextColumn {
    EventKey,
    AggregateId,
    EventType,
    AggregateType,
    Headers,
}

impl TextColumn {
    const ALL: [Self; 5] = [
        Self::EventKey,
        Self::AggregateId,
        Self::EventType,
        Self::AggregateType,
        Self::Headers,
    ];

    /// Name of the column.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EventKey => "event_key",
            Self::AggregateId => "aggregate_id",
            Self::EventType => "event_type",
            Self::AggregateType => "aggregate_type",
            Self::Headers => "headers",
        }
    }
}

impl RowFault {
    /// The fault that a fetch reports: `key` for a key that is too long, or the name of a column.
    fn from_text(text: &str) -> Result<Self, DecodeError> {
        if text == "key" {
            return Ok(Self::TooLarge);
        }
        let mut columns = TextColumn::ALL.into_iter();
        let column = columns.find(|column| column.name() == text);
        column.map(Self::NotUtf8).ok_or(DecodeError::Value)
    }
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
            content: Content::Whole(None),
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

    /// Value of the record; `None` if it was not read.
    #[must_use]
    pub fn value(&self) -> Option<Option<&[u8]>> {
        match &self.content {
            Content::Whole(payload) => Some(payload.as_deref()),
            Content::Unread(_) | Content::Faulty(..) => None,
        }
    }

    /// Why the row cannot become a record; `None` if it may.
    #[must_use]
    pub fn fault(&self) -> Option<RowFault> {
        match self.content {
            Content::Faulty(fault, _) => Some(fault),
            Content::Whole(_) | Content::Unread(_) => None,
        }
    }

    /// Whether the row is so large that its payload was not read.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        matches!(self.content, Content::Unread(_))
    }

    /// Marks the row as one that cannot become a record.
    pub fn set_fault(&mut self, fault: RowFault) {
        self.content = Content::Faulty(fault, self.bytes());
    }

    /// Bytes that were read of the row: payload and texts.
    #[must_use]
    pub fn read_bytes(&self) -> usize {
        let payload = self.value().flatten().map_or(0, <[u8]>::len);
        payload + self.text.bytes()
    }

    /// Size of the row in bytes: payload, texts and headers. It counts in the limit of bytes in
    /// flight.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self.content {
            Content::Whole(_) => self.read_bytes(),
            Content::Unread(bytes) | Content::Faulty(_, bytes) => bytes,
        }
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
            content: Content::Whole(Some([0; 10].into())),
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
    /// Lanes whose rows were cut short because of their bytes.
    pub cut: Vec<Lane>,
}

impl Fetched {
    /// Puts rows that were read by their names in the places of the unread ones. A lane is cut at
    /// the first row of `wanted` that does not exist any more.
    pub fn fill(&mut self, wanted: &BTreeSet<RowIdentity>, read: Vec<OutboxRow>) {
        let mut read: BTreeMap<RowIdentity, OutboxRow> =
            read.into_iter().map(|row| (row.identity(), row)).collect();
        let mut cut = Vec::new();
        self.rows.retain_mut(|row| {
            if cut.contains(&row.lane) {
                return false;
            }
            match read.remove(&row.identity()) {
                Some(whole) => *row = whole,
                None if wanted.contains(&row.identity()) => cut.push(row.lane),
                None => {}
            }
            !cut.contains(&row.lane)
        });
        self.cut.append(&mut cut);
    }

    /// Records the lanes of which as many bytes were read as `limits` allow.
    fn cut_at_limits(&mut self, limits: &[(Lane, i64)], bytes: &BTreeMap<Lane, i64>) {
        for (lane, bytes_max) in limits {
            if bytes.get(lane).is_some_and(|of_lane| of_lane >= bytes_max) {
                self.cut.push(*lane);
            }
        }
    }
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
    /// Sum of what was read so far, in bytes.
    bytes: i64,
    /// Sum of the rows of each lane, as the statement counts them.
    lane_bytes: BTreeMap<Lane, i64>,
}

impl Decoder {
    /// Decodes the answer to a statement that is sent at `sent`.
    pub(super) fn new(sent: Instant) -> Self {
        Self {
            sent,
            statement: None,
            rows: Vec::new(),
            scanned: Vec::new(),
            bytes: 0,
            lane_bytes: BTreeMap::new(),
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
                let counted = row.try_get::<i64, _>(13)?.min(FETCHED_BYTES_MAX as i64);
                let row = decode_row(row)?;
                *self.lane_bytes.entry(row.lane).or_default() += counted;
                self.bytes += row.read_bytes() as i64;
                self.rows.push(row);
            }
        }
        Ok(())
    }

    /// Sum of what was read so far, in bytes.
    pub(super) fn bytes(&self) -> i64 {
        self.bytes
    }

    /// The rows that were decoded.
    pub(super) fn into_rows(self) -> Vec<OutboxRow> {
        self.rows
    }

    /// Ends decoding. `limits` are the lanes whose bytes the statement limits.
    ///
    /// # Errors
    /// Returns an error when the row that describes the statement is missing.
    pub(super) fn finish(
        self,
        limits: &[(Lane, i64)],
    ) -> Result<(FetchMoment, Fetched), DecodeError> {
        let (moment, snapshot) = self.statement.ok_or(DecodeError::NoSnapshot)?;
        let mut fetched = Fetched {
            snapshot,
            rows: self.rows,
            scanned: self.scanned,
            cut: Vec::new(),
        };
        fetched.cut_at_limits(limits, &self.lane_bytes);
        Ok((moment, fetched))
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
fn decode_row(row: &PgRow) -> Result<OutboxRow, DecodeError> {
    let headers: Option<&str> = row.try_get(10)?;
    let text = row_text(row, headers)?;
    Ok(OutboxRow {
        lane: lane(row)?,
        id: row.try_get(2)?,
        event_id: row.try_get(3)?,
        ctid: ctid(row)?,
        created_at_us: timestamp_us(row, 11)?,
        content: content(row, headers)?,
        text: OwnedRowText::new(text),
    })
}

/// Decodes the text columns of a row, borrowed. `headers` are decoded already.
fn row_text<'r>(row: &'r PgRow, headers: Option<&'r str>) -> Result<RowText<'r>, DecodeError> {
    Ok(RowText {
        aggregate_type: row.try_get(4)?,
        aggregate_id: row.try_get(5)?,
        event_type: row.try_get(6)?,
        topic: row.try_get(7)?,
        event_key: row.try_get(8)?,
        headers: headers.unwrap_or_default(),
    })
}

/// What was read of a row; everything if its headers, which are never null, were.
fn content(row: &PgRow, headers: Option<&str>) -> Result<Content, DecodeError> {
    let bytes: i64 = row.try_get(13)?;
    let bytes = usize::try_from(bytes).map_err(|_| DecodeError::Value)?;
    Ok(match row.try_get::<Option<&str>, _>(14)? {
        Some(fault) => Content::Faulty(RowFault::from_text(fault)?, bytes),
        None if headers.is_some() => {
            Content::Whole(row.try_get::<Option<&[u8]>, _>(9)?.map(Box::from))
        }
        None => Content::Unread(bytes),
    })
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
