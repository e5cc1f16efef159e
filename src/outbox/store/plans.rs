//! What goes into the relay's statements and comes out of them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::outbox::{
    ctid::Ctid,
    ids::{Lane, RowId, RowIdentity},
    row::OutboxRow,
    row_sql::FETCHED_BYTES_MAX,
    store::parking::ParkedDigest,
};

/// Which rows a fetch reads.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FetchRequest {
    pub lanes: Vec<LaneRead>,
    /// No recent row was so large that the rows could exceed the limits of bytes: the server does
    /// not count bytes.
    pub small: bool,
    /// Restriction to some rows; `None`: all rows.
    pub filter: Option<FetchFilter>,
    /// Upper bound of the rows of a lane that a fetch with `filter` looks at.
    pub scan_max: i32,
    /// Upper bound of all rows in bytes, with the large ones that are read by their names. One of
    /// these is read in any case.
    pub bytes_max: usize,
    /// Large rows that are in flight: they are not read by their names again.
    pub held: BTreeSet<RowIdentity>,
}

/// A row to read by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedRow {
    pub row: RowIdentity,
    /// Limit in bytes: only the size is read of a row that is larger.
    pub bytes_max: usize,
}

impl WantedRow {
    /// All of a row.
    #[must_use]
    pub fn whole(row: &OutboxRow) -> Self {
        Self {
            row: row.identity(),
            bytes_max: row.bytes(),
        }
    }

    /// The row, and its payload unless it is so large that fetches leave it out.
    #[must_use]
    pub fn like_a_fetch(row: RowIdentity) -> Self {
        Self {
            row,
            bytes_max: FETCHED_BYTES_MAX,
        }
    }
}

/// What a fetch reads of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneRead {
    pub lane: Lane,
    /// Rows above this id are read.
    pub low: RowId,
    /// Upper bound of the rows.
    pub rows_max: i32,
    /// Upper bound of the rows in bytes, without large ones. One row is read in any case.
    pub bytes_max: i64,
}

/// Which rows to read while some are excluded: rows of active topics but for those of paused keys,
/// and rows of undeclared topics until the relay excludes these.
///
/// A row has the topic that it gives itself. Without one, the routes of its types decide.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FetchFilter {
    /// Active topics.
    pub topics: Vec<String>,
    /// Event type -> active topic; beats the aggregate type.
    pub by_event_type: BTreeMap<String, String>,
    /// Aggregate type -> active topic.
    pub by_aggregate_type: BTreeMap<String, String>,
    /// (topic, key).
    pub paused_keys: Vec<(String, String)>,
    /// All declared topics; `None`: rows of undeclared topics are excluded.
    pub declared: Option<Vec<String>>,
}

impl FetchFilter {
    /// The paused keys as an object, in which PostgreSQL finds one by binary search. No topic
    /// contains the separator.
    pub(super) fn paused_keys_json(&self) -> String {
        let object: serde_json::Map<_, _> = self
            .paused_keys
            .iter()
            .map(|(topic, key)| (format!("{topic}\u{1f}{key}"), 0.into()))
            .collect();
        serde_json::Value::Object(object).to_string()
    }
}

/// Whether a survey reads what is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedParked {
    /// Nothing of it.
    No,
    /// All of it, unless it has this digest.
    Unless(Option<ParkedDigest>),
}

/// Which rows to count as backlog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BacklogPlan {
    pub lanes: Vec<LaneBacklog>,
    /// Rows that are not counted; `None`: all rows are counted.
    pub parked: Option<ParkedRows>,
}

/// Which rows of one lane to count as backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneBacklog {
    pub lane: Lane,
    /// Rows above this id are counted.
    pub above: RowId,
}

/// Rows of parked topics and of parked keys. The database knows which keys are parked.
///
/// A row has the topic that it gives itself. Without one, the routes of its types decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedRows {
    /// Parked topics.
    pub topics: Vec<String>,
    /// Event type -> topic; beats the aggregate type.
    pub by_event_type: BTreeMap<String, String>,
    /// Aggregate type -> topic.
    pub by_aggregate_type: BTreeMap<String, String>,
}

/// A row to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SettleRow {
    pub row: RowIdentity,
    /// Position of the row version that was read: a hint for the DELETE.
    pub ctid: Ctid,
}

/// What the owner of a lane writes into table `lane`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneWatermark {
    pub lane: Lane,
    /// Number of the ownership. The database ignores watermarks of an earlier one.
    pub epoch: i64,
    /// Every row up to this id is settled, and none is still to come.
    pub watermark: RowId,
    /// Highest id that was taken.
    pub high_id: RowId,
}

/// Where a gap scan looks for rows that should not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GapScanPlan {
    pub lanes: Vec<LaneGapScan>,
    /// Upper bound of the rows of each lane.
    pub rows_max: i64,
}

/// Where a gap scan looks in one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneGapScan {
    pub lane: Lane,
    /// Rows above this id are read.
    pub above: RowId,
    /// Rows up to this id are read.
    pub watermark: RowId,
}

/// What a call of `resume_sequence` found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The call moved the sequence on.
    pub resumed: bool,
    /// The outbox was in another database before.
    pub elsewhere: bool,
    /// Position of the sequence before the call.
    pub was_at: RowId,
    /// The highest id that the relays or the database had seen.
    pub highest: RowId,
    /// Number of waiting rows that got new ids.
    pub moved: i64,
}

/// A lane that was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub lane: Lane,
    /// Number of the new ownership.
    pub epoch: i64,
    /// Up to this id the owners before have settled every row.
    pub watermark: RowId,
    /// Highest id that the owners before have taken.
    pub high_id: RowId,
}

/// Which relays are live, and how the lanes are spread over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Other relays whose lease has not run out.
    pub others: Others,
    /// Other relays whose lease has not run out and whose breaker is not Open.
    pub well: Others,
    /// Number of lanes that can be claimed.
    pub free: u32,
}

/// Other relays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    pub count: u32,
    /// Smallest number of lanes that one of them owns; `None` without any.
    pub fewest: Option<u32>,
}

/// The size and the age of the backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Number of waiting rows.
    pub rows: u64,
    /// Counting stopped at a limit: there are at least `rows`.
    pub capped: bool,
    /// `created_at` of the oldest row, microseconds since 1970.
    pub oldest_us: Option<i64>,
}

impl Depth {
    /// No row waits.
    pub const EMPTY: Self = Self {
        rows: 0,
        capped: false,
        oldest_us: None,
    };
}
