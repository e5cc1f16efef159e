//! What a run knows at its end: what writers meant, what the database shows, what Kafka has. Plain
//! data.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

/// Milliseconds since 1970, on this machine's clock: writers, brokers and the harness share it.
pub(crate) type Ms = i64;

/// An event as its writer meant it.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) topic: String,
    pub(crate) key: String,
    /// Drawn under the key's lock: the order of commits. `None`: nobody serialises the writers of
    /// this key, and no order is promised.
    pub(crate) turn: Option<i64>,
    pub(crate) payload: Vec<u8>,
    /// Header of the row itself.
    pub(crate) correlation_id: String,
    pub(crate) fate: Fate,
}

/// A commit happened somewhere in this time: before it was asked for it cannot, and an answer may
/// be read long after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct During {
    pub(crate) asked: Ms,
    pub(crate) answered: Ms,
}

/// What the writer knows of its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The answer to the commit never came.
    Unknown,
    Committed(During),
    /// Rolled back, or failed before its commit was sent.
    RolledBack,
}

/// A record of Kafka.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// When a broker took it.
    pub(crate) at: Ms,
    pub(crate) key: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// Of the relay and of the row, in their order.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(of, _)| of == name)
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    pub(crate) fn event_id(&self) -> Option<Uuid> {
        self.header("event_id")?.parse().ok()
    }

    pub(crate) fn seq(&self) -> Option<i64> {
        self.header("outbox_seq")?.parse().ok()
    }
}

/// When something was broken, from its first moment until all had healed.
#[derive(Clone, Debug)]
pub(crate) struct FaultWindow {
    pub(crate) name: &'static str,
    pub(crate) from: Ms,
    pub(crate) until: Ms,
}

/// The owner of a lane, as once seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ownership {
    /// Counts the times that the database went back: epochs begin again.
    pub(crate) life: usize,
    pub(crate) lane: i16,
    pub(crate) epoch: i64,
    pub(crate) owner: Uuid,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) events: HashMap<Uuid, Event>,
    /// Events whose transaction the database shows to be committed.
    pub(crate) journal: HashSet<Uuid>,
    pub(crate) records: Vec<Record>,
    /// Rows that are still in the table at the end.
    pub(crate) waiting: HashSet<Uuid>,
    pub(crate) dead_letters: HashSet<Uuid>,
    /// Rows that somebody truncated, and when.
    pub(crate) truncated: HashMap<Uuid, Ms>,
    /// Topics that were deleted: what was committed until then may be gone with them.
    pub(crate) deleted_topics: BTreeMap<String, Ms>,
    /// The database went back: what was committed in between may be gone.
    pub(crate) rewinds: Vec<(Ms, Ms)>,
    /// The sequence of ids began again, by a rewind or a TRUNCATE: waiting rows may have got new
    /// ids.
    pub(crate) ids_came_again: bool,
    pub(crate) partitions: BTreeMap<String, usize>,
    pub(crate) faults: Vec<FaultWindow>,
    /// What had not come to rest long after it was mended, in words.
    pub(crate) unhealed: Vec<String>,
    pub(crate) owners: HashSet<Ownership>,
    /// Lanes without a live owner, at the end.
    pub(crate) lanes_unowned: i64,
    /// Parked keys and topics, at the end.
    pub(crate) parked: i64,
}
