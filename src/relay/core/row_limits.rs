//! What is done with a row because of its size: it is sent with others, it is sent alone on the
//! single producer, or it is rejected without being read. Pure.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    kafka::{LimitsByTopic, TOPIC_BYTES_UNKNOWN},
    outbox::{Content, FetchRequest, Fetched, Lane, OutboxRow, RowFault, WantedRow},
    relay::core::{
        Core,
        ids::TopicIndex,
        routing::{Destination, Routes},
    },
};

/// A row that is larger than its topic's limit by more than this factor is rejected without being
/// read: compression makes few payloads smaller than that.
pub(crate) const COMPRESSION_MAX: usize = 8;
/// A row may take this part of the memory that the process may use. While it is sent, there are up
/// to four copies: the row, librdkafka's, its request, and the compressed one. The allocator keeps
/// some of what is freed, too: with 128 MiB, rows of a sixth were too large (measured).
const MEMORY_DIVISOR: usize = 8;
/// Larger rows are sent alone, one at a time, whatever their topic takes: the rows that are read
/// with others share the window.
const SHARED_BYTES_MAX: usize = 8 << 20;
/// Upper bound of what the relay adds to a row: its headers, and what is around a record.
const ADDED_BYTES_MAX: usize = 1 << 10;
/// Largest row in bytes that is read: a larger request makes brokers close the connection, because
/// of `socket.request.max.bytes`, and librdkafka sends it again and again.
const REQUEST_BYTES_MAX: usize = 96 << 20;

/// Rows that a look-up reads at most, in bytes, beside the first.
const LOOKUP_BYTES_MAX: usize = 4 << 20;

/// What is done with a row because of its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// The main producer sends it, in batches.
    WithOthers,
    /// The single producer sends it alone: its topic may reject it.
    Alone,
    /// The row is rejected without being read.
    TooLarge,
}

/// Whether the producer compresses records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    On,
    Off,
}

/// Limits of the sizes of rows.
#[derive(Clone, Debug)]
pub struct RowLimits {
    /// `max.message.bytes` of each topic; `None` if it is not known.
    topics: Arc<[Option<usize>]>,
    /// Rows up to this size, in bytes, are sent with others by each topic.
    smallest: usize,
    /// Largest row in bytes that is read.
    read_max: usize,
    compression: Compression,
}

impl Default for RowLimits {
    /// Limits of no topic, for a process without a limit of its memory.
    fn default() -> Self {
        Self {
            topics: Arc::default(),
            smallest: 0,
            read_max: REQUEST_BYTES_MAX,
            compression: Compression::On,
        }
    }
}

impl RowLimits {
    /// Limits for a process that may use `memory` bytes.
    #[must_use]
    pub fn new(memory: usize, compression: Compression) -> Self {
        Self {
            topics: Arc::default(),
            smallest: 0,
            read_max: (memory / MEMORY_DIVISOR).min(REQUEST_BYTES_MAX),
            compression,
        }
    }

    /// Sets the limits of the topics as the brokers describe them.
    pub(super) fn set_topics(&mut self, limits: &LimitsByTopic) {
        let known = limits.0.iter().map(|topic| topic.max_message_bytes);
        self.topics = known.collect();
        let smallest = self.topics.iter().copied().map(shared_max).min();
        self.smallest = smallest.unwrap_or_default();
    }

    /// Whether a row is sent with others, whatever its topic is.
    fn is_always_small(&self, row: &OutboxRow) -> bool {
        record_bytes_max(row) <= self.smallest
    }

    /// What is done with a row of this topic.
    pub(crate) fn sending(&self, topic: TopicIndex, row: &OutboxRow) -> Sending {
        let limit = self.topics.get(topic.index()).copied().flatten();
        if row.bytes() > self.read_max || limit.is_some_and(|limit| self.is_hopeless(row, limit)) {
            Sending::TooLarge
        } else if record_bytes_max(row) > shared_max(limit) {
            Sending::Alone
        } else {
            Sending::WithOthers
        }
    }

    /// Whether compression cannot be expected to make a row small enough for its topic.
    fn is_hopeless(&self, row: &OutboxRow, limit: usize) -> bool {
        let factor = match self.compression {
            Compression::On => COMPRESSION_MAX,
            Compression::Off => 1,
        };
        row.bytes() > limit.saturating_mul(factor)
    }
}

/// Upper bound of the size of a row's record, in bytes.
fn record_bytes_max(row: &OutboxRow) -> usize {
    row.bytes() + row.key().len() + ADDED_BYTES_MAX
}

/// Largest record, in bytes, that is sent with others to a topic with this limit.
fn shared_max(limit: Option<usize>) -> usize {
    limit.unwrap_or(TOPIC_BYTES_UNKNOWN).min(SHARED_BYTES_MAX)
}

/// What is done with the large rows of a fetch, and of a look-up. It outlives the core's turn,
/// while they are read.
#[derive(Clone, Debug)]
pub struct LargeRows {
    pub(super) routes: Arc<Routes>,
    pub(super) limits: RowLimits,
}

impl LargeRows {
    /// Which rows of a fetch are to be read by their names: those that are sent with others, as far
    /// as there is room for them. A lane is cut at the first one without room, and read again from
    /// there.
    #[must_use]
    pub fn plan_fetch(&self, request: &FetchRequest, fetched: &mut Fetched) -> Vec<WantedRow> {
        let mut bytes: usize = fetched.rows.iter().map(OutboxRow::read_bytes).sum();
        let (mut wanted, mut cut) = (Vec::new(), Vec::new());
        fetched.rows.retain_mut(|row| {
            if cut.contains(&row.lane) {
                return false;
            }
            if request.held.contains(&row.identity()) || !self.is_read_with_others(row) {
                return true;
            }
            bytes += row.bytes();
            if bytes > request.bytes_max && !wanted.is_empty() {
                bytes -= row.bytes();
                cut.push(row.lane);
                return false;
            }
            wanted.push(WantedRow::whole(row));
            true
        });
        fetched.cut.append(&mut cut);
        wanted
    }

    /// Whether a row is unread and to be sent with others. Marks it if it is too large.
    fn is_read_with_others(&self, row: &mut OutboxRow) -> bool {
        self.judge(row) == Some(Sending::WithOthers) && row.is_unread()
    }

    /// Which rows that were looked up are to be read: up to a limit of bytes, and one in any case.
    #[must_use]
    pub fn plan_lookup(&self, rows: &mut [OutboxRow]) -> Vec<WantedRow> {
        let (mut wanted, mut bytes) = (Vec::new(), 0);
        for row in rows {
            self.judge(row);
            if row.is_unread() && (wanted.is_empty() || bytes + row.bytes() <= LOOKUP_BYTES_MAX) {
                bytes += row.bytes();
                wanted.push(WantedRow::whole(row));
            }
        }
        wanted
    }

    /// What is done with a row; `None` if its topic is not declared. Marks it if it is too large.
    fn judge(&self, row: &mut OutboxRow) -> Option<Sending> {
        let Destination::Topic(topic) = self.routes.destination(row) else {
            return None;
        };
        let sending = self.limits.sending(topic, row);
        if sending == Sending::TooLarge {
            row.set_fault(RowFault::TooLarge);
        }
        Some(sending)
    }
}

impl Core {
    /// Sets the limits of the process. Those of the topics are not known yet.
    #[must_use]
    pub fn with_row_limits(mut self, limits: RowLimits) -> Self {
        self.row_limits = limits;
        self
    }

    /// Sets the limits of the topics as the brokers describe them.
    pub fn on_topic_limits(&mut self, limits: &LimitsByTopic) {
        self.row_limits.set_topics(limits);
    }

    /// What is done with large rows as of now.
    #[must_use]
    pub fn large_rows(&self) -> LargeRows {
        LargeRows {
            routes: Arc::clone(&self.routes),
            limits: self.row_limits.clone(),
        }
    }

    /// How many rows of a lane, from the first on, may be taken now. A row that is sent alone, or
    /// is rejected, waits until no earlier row of its lane and topic is with the main producer: it
    /// may have the same key. A row whose payload was not read is read with the next fetch.
    pub(super) fn rows_before_waiting(&self, lane: Lane, rows: &[OutboxRow]) -> usize {
        let is_usual = |row: &OutboxRow| !row.is_unread() && self.special(row).is_none();
        if rows.iter().all(is_usual) {
            return rows.len();
        }
        let mut sent = BTreeSet::new();
        for (at, row) in rows.iter().enumerate() {
            if !self.in_flight.holds(row.identity()) && self.must_wait(lane, row, &mut sent) {
                return at;
            }
        }
        rows.len()
    }

    /// Whether a row must wait. If it goes to the main producer, adds its topic to `sent`.
    fn must_wait(&self, lane: Lane, row: &OutboxRow, sent: &mut BTreeSet<Destination>) -> bool {
        let topic = self.routes.destination(row);
        if self.special(row).is_some() {
            return sent.contains(&topic) || self.has_sent_below(lane, row, topic);
        }
        sent.insert(topic);
        row.is_unread()
    }

    /// Whether an earlier row of a lane is with the main producer, to the topic of this one.
    fn has_sent_below(&self, lane: Lane, row: &OutboxRow, of: Destination) -> bool {
        match of {
            Destination::Topic(topic) => self.in_flight.has_sent_below(lane, row.id, topic),
            Destination::Undeclared => false,
        }
    }

    /// How a row is sent that is not sent with others; `None` if it is, or if its topic is not
    /// declared.
    pub(super) fn special(&self, row: &OutboxRow) -> Option<Sending> {
        if matches!(row.content, Content::Whole(_)) && self.row_limits.is_always_small(row) {
            return None;
        }
        let Destination::Topic(topic) = self.routes.destination(row) else {
            return None;
        };
        if row.fault().is_some() {
            return Some(Sending::TooLarge);
        }
        Some(self.row_limits.sending(topic, row)).filter(|sending| *sending != Sending::WithOthers)
    }
}

#[cfg(test)]
mod tests;
