//! Carries out what the core decides about rejected records: looks rows up, probes candidates on a
//! producer of their own, writes what happens to rejected rows.

use std::time::Instant;

use crate::{
    outbox::{OutboxRow, ParkedRow, RowFault, RowIdentity, Store, StoreError, WantedRow},
    relay::{
        core::{Disposition, Lookup, ProbeKind, RejectedRow, row_limits::LargeRows},
        session::{
            Session,
            producers::ProducerRole,
            tasks::{DispositionEnd, LookupEnd},
        },
        status::ProblemSource,
    },
};

/// Keys that one statement parks at most.
const DISPOSITIONS_MAX: usize = 200;

impl Session<'_> {
    /// Looks up the next rows under suspicion by their names.
    pub(super) fn start_lookup(&mut self) {
        if self.tasks.lookup.is_idle()
            && let Some(lookup) = self.core.next_lookup()
        {
            let (store, large) = (self.store.clone(), self.core.large_rows());
            self.tasks.lookup.start(look_up(store, large, lookup));
        }
    }

    /// Takes the rows that were looked up as candidates.
    pub(super) fn on_looked_up(&mut self, looked_up: LookupEnd) {
        let now = Instant::now();
        match looked_up.result {
            Ok(rows) => {
                self.core.on_looked_up(&looked_up.lookup, rows, now);
                self.reporter.work_succeeded(ProblemSource::Parking);
            }
            Err(error) => {
                self.core.on_lookup_failed(looked_up.lookup);
                self.on_database_error(ProblemSource::Parking, &error, now);
            }
        }
    }

    /// Sends the next candidates to the probe producer, and the next rows that are sent alone to
    /// the single producer, if these are ready.
    pub(super) fn probe_candidates(&mut self, now: Instant) {
        if self.producers.prepare_probe(&mut self.core, now)
            && let Some(outgoing) = self.core.next_probe_of(ProbeKind::Candidates, now)
        {
            self.send(outgoing, ProducerRole::Probe, now);
        }
        if self.producers.prepare_single(&mut self.core, now)
            && let Some(outgoing) = self.core.next_probe_of(ProbeKind::Alone, now)
        {
            self.send(outgoing, ProducerRole::Single, now);
        }
    }

    /// Parks the keys of the next rejected rows, or moves the next one to the dead letters.
    pub(super) fn start_disposition(&mut self) {
        if !self.tasks.disposition.is_idle() {
            return;
        }
        let rejected = self.core.next_dispositions(DISPOSITIONS_MAX);
        if rejected.is_empty() {
            return;
        }
        self.note_judged(&rejected);
        let rows = rejected.iter().map(|row| self.parked_row(row)).collect();
        let dispose = dispose(self.store.clone(), rows, rejected);
        self.tasks.disposition.start(dispose);
    }

    /// Counts rows that were rejected without being sent. If one is too large, the limit of its
    /// topic may have been raised since it was read.
    fn note_judged(&self, rejected: &[RejectedRow]) {
        for row in rejected.iter().filter(|row| row.fault.is_some()) {
            self.record_failure(row.topic, row.class);
        }
        if rejected
            .iter()
            .any(|row| row.fault == Some(RowFault::TooLarge))
        {
            self.process.metadata.request_now();
        }
    }

    fn parked_row(&self, rejected: &RejectedRow) -> ParkedRow {
        let row = rejected.row;
        ParkedRow {
            topic: self.core.routes().name(rejected.topic).to_owned(),
            key: rejected.key.to_string(),
            lane: row.lane,
            id: row.id,
            event_id: row.event_id,
            class: rejected.class,
        }
    }

    /// Logs what happened to rejected rows, for a person to act on.
    pub(super) fn on_disposed(&mut self, disposed: DispositionEnd) {
        let (now, rejected) = (Instant::now(), disposed.rejected);
        if let Err(error) = disposed.result {
            // Each is put in front, so the last one first.
            let last_first = rejected.into_iter().rev();
            last_first.for_each(|row| self.core.on_disposition_failed(row));
            return self.on_database_error(ProblemSource::Parking, &error, now);
        }
        self.reporter.work_succeeded(ProblemSource::Parking);
        for rejected in &rejected {
            let topic = self.core.routes().name(rejected.topic);
            self.reporter.log_disposed(topic, rejected, now);
            self.core.on_disposition_done(rejected, now);
        }
    }
}

/// Reads the rows of a look-up that still exist.
async fn look_up(store: Store, large: LargeRows, lookup: Lookup) -> LookupEnd {
    let result = read(&store, &large, &lookup.rows).await;
    LookupEnd { lookup, result }
}

/// Reads rows by their names: first how large they are, then the payloads of large ones.
async fn read(
    store: &Store,
    large: &LargeRows,
    rows: &[RowIdentity],
) -> Result<Vec<OutboxRow>, StoreError> {
    let named: Vec<_> = rows.iter().copied().map(WantedRow::like_a_fetch).collect();
    let mut found = store.fetch_by_ids(&named).await?;
    let wanted = large.plan_lookup(&mut found);
    if wanted.is_empty() {
        return Ok(found);
    }
    read_again(store, found, &wanted).await
}

/// Replaces the rows that are wanted with what is read of them now.
async fn read_again(
    store: &Store,
    mut rows: Vec<OutboxRow>,
    wanted: &[WantedRow],
) -> Result<Vec<OutboxRow>, StoreError> {
    rows.retain(|row| !wanted.iter().any(|wanted| wanted.row == row.identity()));
    rows.append(&mut store.fetch_by_ids(wanted).await?);
    rows.sort_by_key(OutboxRow::identity);
    Ok(rows)
}

/// Writes what happens to rejected rows: all are parked, or there is one for the dead letters.
async fn dispose(store: Store, rows: Vec<ParkedRow>, rejected: Vec<RejectedRow>) -> DispositionEnd {
    let result = match (&*rows, &*rejected) {
        ([row], [rejected]) if rejected.disposition == Disposition::DeadLetter => {
            store.dead_letter(row, rejected.attempts).await.map(drop)
        }
        (rows, _) => store.park_keys(rows).await,
    };
    DispositionEnd { rejected, result }
}
