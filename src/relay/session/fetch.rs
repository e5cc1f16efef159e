//! Fetches: rows of all owned lanes are read, and the new ones sent.

use std::time::Instant;

use crate::{
    outbox::{FetchRequest, Fetched, Store},
    relay::{
        core::row_limits::LargeRows,
        session::{
            Session,
            producers::ProducerRole,
            tasks::{FetchEnd, FetchResult},
        },
        status::ProblemSource,
    },
};

impl Session<'_> {
    /// Starts a fetch if it is time, there is room in flight, and a producer can send its rows.
    pub(super) fn start_fetch(&mut self, now: Instant) {
        let may_fetch = self.tasks.fetch.is_idle() && self.producers.is_open();
        if may_fetch && let Some(request) = self.core.plan_fetch(now) {
            let large = self.core.large_rows();
            let fetch = fetch(self.store.clone(), request, large, now);
            self.tasks.fetch.start(fetch);
        }
    }

    /// Sends the rows of a fetch that are new.
    pub(super) fn on_fetched(&mut self, fetched: FetchEnd) {
        let now = Instant::now();
        // Reports that are in may pause topics of these rows, and make room for them.
        self.receive_reports(now);
        let Some(rows) = self.usable_rows(fetched.result, now) else {
            return;
        };
        self.reporter.record_fetch(fetched.began, now);
        let extent = self.core.fetch_extent(&fetched.request, rows.rows.len());
        let outgoing = self.core.accept(&fetched.request, rows, now);
        self.process.memory.on_id(self.core.highest_id());
        if !outgoing.is_empty() {
            self.timers.rows_fetched(now);
        }
        self.send(outgoing, ProducerRole::Main, now);
        self.update_backlog(extent, fetched.began);
    }

    /// The rows of a fetch; `None` if the fetch failed, or if its rows may not be sent.
    fn usable_rows(&mut self, result: FetchResult, now: Instant) -> Option<Fetched> {
        let (moment, rows) = match result {
            Ok(answer) => answer,
            Err(error) => {
                self.core.on_fetch_failed(now);
                self.on_database_error(ProblemSource::Reading, &error, now);
                return None;
            }
        };
        self.reporter.work_succeeded(ProblemSource::Reading);
        self.clocks.set_database(moment.clock);
        self.reporter.set_clock(moment.clock);
        // The producer may have failed since the fetch began: its rows are read again.
        if self.check_sequence(moment.sequence).is_err() || !self.producers.is_open() {
            self.core.on_fetch_failed(now);
            return None;
        }
        Some(rows)
    }
}

/// Reads rows of all lanes of a request.
async fn fetch(store: Store, request: FetchRequest, large: LargeRows, began: Instant) -> FetchEnd {
    let result = read(&store, &request, &large).await;
    FetchEnd {
        request,
        began,
        result,
    }
}

/// Reads rows, and then the payloads of large ones, as many as there is room for.
async fn read(store: &Store, request: &FetchRequest, large: &LargeRows) -> FetchResult {
    let (sequence, mut fetched) = store.fetch(request).await?;
    let wanted = large.plan_fetch(request, &mut fetched);
    if !wanted.is_empty() {
        let rows = store.fetch_by_ids(&wanted).await?;
        let wanted = wanted.iter().map(|wanted| wanted.row).collect();
        fetched.fill(&wanted, rows);
    }
    Ok((sequence, fetched))
}
