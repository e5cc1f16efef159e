//! What goes into the relay's statements and comes out of them. Pure.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::outbox::place::Place;

/// Which rows to read: parallel lists, an entry per lane.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FetchPlan {
    pub lanes: Vec<i16>,
    /// Rows above this id.
    pub lows: Vec<i64>,
    /// At most so many rows.
    pub rows_max: Vec<i32>,
    /// At most so many bytes of payload, but always one row.
    pub bytes_max: Vec<i64>,
    /// No row of late was so large that these could be more than that many bytes: it is not counted
    /// first.
    pub small: bool,
    /// Only rows that flow; absent: all.
    pub flowing: Option<Flowing>,
    /// With `flowing`: looks at no more rows of a lane than this.
    pub scan_max: i32,
}

/// Which rows flow while others rest: those of `topics`, by their own topic or else by the route of
/// their types, but for `resting_keys`; and those of no declared topic, as long as nobody knows of
/// them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Flowing {
    pub topics: Vec<String>,
    /// Event type -> topic; beats the aggregate type.
    pub by_event_type: BTreeMap<String, String>,
    /// Aggregate type -> topic.
    pub by_aggregate_type: BTreeMap<String, String>,
    /// (topic, key).
    pub resting_keys: Vec<(String, String)>,
    /// All declared topics; absent: it is known that there are rows of others, and they rest.
    pub declared: Option<Vec<String>>,
}

impl Flowing {
    pub(super) fn resting_keys_json(&self) -> String {
        keys_json(&self.resting_keys)
    }
}

/// Keys as an object, which PostgreSQL searches by halving; no topic contains the separator.
fn keys_json(keys: &[(String, String)]) -> String {
    let object: serde_json::Map<_, _> = keys
        .iter()
        .map(|(topic, key)| (format!("{topic}\u{1f}{key}"), 0.into()))
        .collect();
    serde_json::Value::Object(object).to_string()
}

/// Which rows to count: parallel lists, an entry per lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BacklogPlan {
    pub lanes: Vec<i16>,
    /// Rows above this id.
    pub marks: Vec<i64>,
    /// But for these.
    pub parked: Option<ParkedRows>,
}

/// Rows that wait for a person: of `topics`, by their own topic or else by the route of their
/// types, and of `keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedRows {
    pub topics: Vec<String>,
    /// (topic, key).
    pub keys: Vec<(String, String)>,
    /// Event type -> topic; beats the aggregate type.
    pub by_event_type: BTreeMap<String, String>,
    /// Aggregate type -> topic.
    pub by_aggregate_type: BTreeMap<String, String>,
}

impl ParkedRows {
    pub(super) fn keys_json(&self) -> String {
        keys_json(&self.keys)
    }
}

/// Rows to delete: parallel lists, an entry per row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettlePlan {
    pub lanes: Vec<i16>,
    pub ids: Vec<i64>,
    pub event_ids: Vec<Uuid>,
    pub places: Vec<Place>,
}

/// Lanes with what their owner knows of them: parallel lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneMarksPlan {
    pub lanes: Vec<i16>,
    pub epochs: Vec<i64>,
    pub marks: Vec<i64>,
    pub high_ids: Vec<i64>,
}

/// Where to look for rows that should not exist: parallel lists, an entry per lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepPlan {
    pub lanes: Vec<i16>,
    /// Behind this id.
    pub after: Vec<i64>,
    /// Up to this id.
    pub marks: Vec<i64>,
    /// At most so many rows of a lane.
    pub rows_max: i64,
}

/// What a call of `resume_sequence` found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// It had to move the sequence on.
    pub resumed: bool,
    /// The outbox lived elsewhere before.
    pub elsewhere: bool,
    /// Where the sequence stood.
    pub was_at: i64,
    /// The highest id that anybody knew of.
    pub highest: i64,
    /// Waiting rows that got new ids.
    pub moved: i64,
}

/// A lane that was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub lane: u8,
    pub epoch: i64,
    pub mark: i64,
    pub high_id: i64,
}

/// Who lives and who has what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Other relays whose lease has not run out.
    pub others: Others,
    /// Those of them whose breaker is not Open.
    pub well: Others,
    /// Lanes that can be claimed.
    pub free: u32,
}

/// Other relays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    pub count: u32,
    /// Smallest number of lanes that one of them has; absent without any.
    pub fewest: Option<u32>,
}

/// Rows that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    pub rows: u64,
    /// Counting stopped: there are at least so many.
    pub capped: bool,
    /// `created_at` of the oldest, microseconds since 1970.
    pub oldest_us: Option<i64>,
}
