//! An outbox that never runs dry: rows as services write them, of about 10,000 keys in 64 lanes. In
//! memory, and in place of a decoded answer.

use std::collections::BTreeSet;

use outbox_relay::outbox::{FetchPlan, Fetched, OutboxRow, Snapshot, Texts};
use uuid::Uuid;

pub(crate) const TOPIC: &str = "essays.file.uploaded";
pub(crate) const LANES: i64 = 64;
/// Many in each lane.
const KEYS: i64 = LANES * 156;
const PAYLOAD_BYTES: usize = 300;
const HEADERS: &str = r#"{"tenant": "acme", "content-type": "application/json", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}"#;
/// 2026-01-01; a row more each millisecond.
const FIRST_US: i64 = 1_767_225_600_000_000;

/// The row of this id; its lane is the one of its key.
pub(crate) fn row(id: i64) -> OutboxRow {
    let event_id = Uuid::from_u128(0x0199_4b7e_5c00_7000_8000_0000_0000_0000 | id as u128);
    let file = format!("file-{:08}", id % KEYS);
    let texts = Texts {
        aggregate_type: "file",
        aggregate_id: &file,
        event_type: "FileUploaded",
        topic: Some(TOPIC),
        event_key: None,
        headers: HEADERS,
    };
    let mut row = OutboxRow::new((id % LANES) as u8, id, event_id, texts);
    row.payload = Some(vec![b'x'; PAYLOAD_BYTES].into());
    row.created_at_us = FIRST_US + id * 1000;
    row
}

/// Ids of the rows of one lane.
struct Lane {
    /// Read, and not settled yet.
    read: BTreeSet<i64>,
    /// The first that was never read.
    next: i64,
}

pub(crate) struct Table {
    lanes: Vec<Lane>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            lanes: (0..LANES)
                .map(|lane| Lane {
                    read: BTreeSet::new(),
                    next: LANES + lane,
                })
                .collect(),
        }
    }

    /// What the statement finds: by lane, in the order of the ids.
    pub(crate) fn fetch(&mut self, plan: &FetchPlan, snapshot: Snapshot) -> Fetched {
        let mut rows = Vec::new();
        for ((lane, low), rows_max) in plan.lanes.iter().zip(&plan.lows).zip(&plan.rows_max) {
            rows.extend(
                self.lanes[*lane as usize]
                    .read(*low, *rows_max as usize)
                    .into_iter()
                    .map(row),
            );
        }
        Fetched {
            snapshot,
            rows,
            scanned: Vec::new(),
        }
    }

    pub(crate) fn delete(&mut self, lanes: &[i16], ids: &[i64]) {
        for (lane, id) in lanes.iter().zip(ids) {
            self.lanes[*lane as usize].read.remove(id);
        }
    }
}

impl Lane {
    fn read(&mut self, low: i64, rows_max: usize) -> Vec<i64> {
        let again = self.read.range(low + 1..).copied();
        let ids: Vec<i64> = again
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
