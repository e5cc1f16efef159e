//! Facts of a run for the checker: what writers wrote, what the database shows, what Kafka has.
//! Plain data.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

/// Milliseconds since 1970, on this machine's clock: writers, brokers and the harness share it.
pub(crate) type Ms = i64;

/// An event with the content that its writer intended.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) topic: String,
    pub(crate) key: String,
    /// Version of the aggregate, drawn under the key's lock: the order of commits. `None` if the
    /// writers of the key take no lock, so that no order is promised.
    pub(crate) version: Option<i64>,
    pub(crate) payload: Vec<u8>,
    /// Header that the writer puts into the row.
    pub(crate) correlation_id: String,
    pub(crate) commit_result: CommitResult,
}

/// Time in which a commit happened: not before it was requested. The answer may be read long after
/// the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitWindow {
    pub(crate) requested: Ms,
    pub(crate) answered: Ms,
}

/// Result of a transaction as its writer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitResult {
    /// The answer to the commit never came.
    Unknown,
    Committed(CommitWindow),
    /// Rolled back, or failed before its commit was sent.
    RolledBack,
}

/// A record in Kafka.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Time at which a broker appended the record.
    pub(crate) at: Ms,
    pub(crate) key: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// Headers of the relay and of the row, in the order of the record.
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

/// A fault, from its first moment until the rows that it delayed were published.
#[derive(Clone, Debug)]
pub(crate) struct FaultWindow {
    pub(crate) name: &'static str,
    pub(crate) from: Ms,
    pub(crate) until: Ms,
}

/// The owner of a lane at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ownership {
    /// How often the database went back before: epochs restart each time.
    pub(crate) generation: usize,
    pub(crate) lane: i16,
    pub(crate) epoch: i64,
    pub(crate) owner: Uuid,
}

/// All facts of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) events: HashMap<Uuid, Event>,
    /// Events whose transactions are committed according to the database.
    pub(crate) journal: HashSet<Uuid>,
    pub(crate) records: Vec<Record>,
    /// Rows that are still in the table.
    pub(crate) waiting: HashSet<Uuid>,
    pub(crate) dead_letters: HashSet<Uuid>,
    /// Truncated rows with the time of the TRUNCATE.
    pub(crate) truncated: HashMap<Uuid, Ms>,
    /// Deleted topics with the time of their deletion. Events committed until then may be lost.
    pub(crate) deleted_topics: BTreeMap<String, Ms>,
    /// Times (from, until) whose commits the database may have lost when it went back.
    pub(crate) rewinds: Vec<(Ms, Ms)>,
    /// Whether a rewind or a TRUNCATE restarted the sequence of ids. Waiting rows may have got new
    /// ids.
    pub(crate) ids_reused: bool,
    /// Number of partitions of each topic.
    pub(crate) partitions: BTreeMap<String, usize>,
    pub(crate) faults: Vec<FaultWindow>,
    /// Descriptions of faults after which the relays did not recover in time.
    pub(crate) not_recovered: Vec<String>,
    pub(crate) owners: HashSet<Ownership>,
    /// Lanes without a live owner.
    pub(crate) lanes_unowned: i64,
    /// Parked keys and topics.
    pub(crate) parked: i64,
}
