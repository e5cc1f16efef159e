//! An outbox table in memory that never is empty. Its rows are like those of services, with about
//! 10,000 keys in 64 lanes. It replaces the decoded answer of a database.

use std::collections::BTreeSet;

use outbox_relay::outbox::{
    Content, FetchRequest, Fetched, Lane, OutboxRow, RowId, RowText, SettleRow, Snapshot,
};
use uuid::Uuid;

pub(crate) const TOPIC: &str = "essays.file.uploaded";
pub(crate) const LANES: i64 = 64;
/// Number of keys, many in each lane.
const KEYS: i64 = LANES * 156;
const PAYLOAD_BYTES: usize = 300;
const HEADERS: &str = concat!(
    r#"{"tenant": "acme", "content-type": "application/json", "#,
    r#""traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}"#
);
/// Time of the first row, in microseconds since 1970: 2026-01-01. Each row is a millisecond later.
const FIRST_US: i64 = 1_767_225_600_000_000;

/// The row with this id, in the lane of its key.
pub(crate) fn row(id: i64) -> OutboxRow {
    let event_id = Uuid::from_u128(0x0199_4b7e_5c00_7000_8000_0000_0000_0000 | id as u128);
    let file = format!("file-{:08}", id % KEYS);
    let texts = RowText {
        aggregate_type: "file",
        aggregate_id: &file,
        event_type: "FileUploaded",
        topic: Some(TOPIC),
        event_key: None,
        headers: HEADERS,
    };
    let mut row = OutboxRow::new(
        Lane::new((id % LANES) as u8),
        RowId::new(id),
        event_id,
        texts,
    );
    row.content = Content::Whole(Some(vec![b'x'; PAYLOAD_BYTES].into()));
    row.created_at_us = FIRST_US + id * 1000;
    row
}

/// Ids of the rows of one lane.
struct LaneRows {
    /// Ids that were read and not settled yet.
    read: BTreeSet<i64>,
    /// The first id that was never read.
    next: i64,
}

/// The table.
pub(crate) struct Table {
    lanes: Vec<LaneRows>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            lanes: (0..LANES)
                .map(|lane| LaneRows {
                    read: BTreeSet::new(),
                    next: LANES + lane,
                })
                .collect(),
        }
    }

    /// The rows that a fetch finds, by lane and id.
    pub(crate) fn fetch(&mut self, plan: &FetchRequest, snapshot: Snapshot) -> Fetched {
        let mut rows = Vec::new();
        for read in &plan.lanes {
            rows.extend(
                self.lanes[read.lane.index()]
                    .read(read.low.get(), read.rows_max as usize)
                    .into_iter()
                    .map(row),
            );
        }
        Fetched {
            snapshot,
            rows,
            scanned: Vec::new(),
            cut: Vec::new(),
        }
    }

    pub(crate) fn delete(&mut self, rows: &[SettleRow]) {
        for SettleRow { row, .. } in rows {
            self.lanes[row.lane.index()].read.remove(&row.id.get());
        }
    }
}

impl LaneRows {
    fn read(&mut self, low: i64, rows_max: usize) -> Vec<i64> {
        let unsettled = self.read.range(low + 1..).copied();
        let ids: Vec<i64> = unsettled
            .chain((self.next..).step_by(LANES as usize))
            .take(rows_max)
            .collect();
        self.next = ids
            .last()
            .map_or(self.next, |last| self.next.max(last + LANES));
        self.read.extend(&ids);
        ids
    }
}
