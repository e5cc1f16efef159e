//! What is done in the database now and then beside fetches: transaction ids, the backlog, the rows
//! below the watermarks, the definition of the schema, and the purge of adopted tables.

use std::time::Instant;

use crate::{
    failpoints::{self, Bug},
    outbox::{
        BacklogPlan, GapScanPlan, Lane, RowId, RowIdentity, SchemaDrift, Store, expected_facts,
        fetch_facts, judge_drift,
    },
    relay::{
        core::{
            backlog_change::{BacklogStep, FetchExtent, after_fetch},
            watermarks::XidTick,
        },
        session::{
            Session,
            tasks::{BacklogEnd, GapScanEnd, PurgeEnd, SchemaCheckEnd, TickEnd},
        },
        status::ProblemSource,
    },
    settings::SchemaName,
};

/// Rows of the backlog are counted up to this number.
const BACKLOG_ROWS_MAX: u32 = 100_000;

impl Session<'_> {
    /// Draws a transaction id if rows wait for one and no other statement has drawn it within
    /// the last 50 ms.
    pub(super) fn start_tick(&mut self, now: Instant) {
        if self.is_tick_due(now) {
            let tick = draw_tick(self.store.clone(), self.core.highest_id());
            self.tasks.tick.start(tick);
        }
    }

    fn is_tick_due(&self, now: Instant) -> bool {
        now >= self.timers.tick && self.core.needs_tick() && self.tasks.tick.is_idle()
    }

    /// Takes a transaction id that was drawn.
    pub(super) fn on_ticked(&mut self, ticked: TickEnd) {
        let now = Instant::now();
        self.timers.ticked(now);
        let drawn = ticked.drawn;
        match ticked.result {
            Ok(xid) => self.core.on_tick(XidTick { xid, drawn }),
            // The problem ends with the next round of the lease: there may be nothing to settle.
            Err(error) => self.on_database_error(ProblemSource::Database, &error, now),
        }
    }

    /// Reads how many rows wait in our lanes, if it is time.
    pub(super) fn start_backlog_read(&mut self, now: Instant) {
        if self.is_backlog_read_due(now) {
            let read = read_backlog(self.store.clone(), self.core.backlog_plan(), now);
            self.tasks.backlog.start(read);
        }
    }

    fn is_backlog_read_due(&self, now: Instant) -> bool {
        self.tasks.backlog.is_idle() && now >= self.timers.backlog
    }

    /// Reports the backlog, or that it is unknown.
    pub(super) fn on_backlog_read(&mut self, read: BacklogEnd) {
        let now = Instant::now();
        self.reporter.set_in_flight(self.core.in_flight());
        let uncounted = read.result.is_ok() && !self.is_complete(&read.lanes);
        match read.result {
            Ok((depth, table)) if !uncounted => {
                self.reporter.set_backlog(depth, table, read.began);
            }
            Ok(_) => self.reporter.clear_backlog(),
            Err(_) => self.reporter.backlog_failed(),
        }
        let oldest = self.reporter.oldest_age(now);
        self.timers.backlog_read(read.began, now, oldest);
        if uncounted {
            self.on_lanes_uncounted(now);
        }
    }

    /// Corrects the backlog that was reported last by what a fetch showed that began then.
    pub(super) fn update_backlog(&mut self, extent: FetchExtent, began: Instant) {
        let extent = match extent {
            FetchExtent::AllReturned if self.core.has_more_rows() => FetchExtent::MoreWait,
            extent => extent,
        };
        match after_fetch(self.reporter.backlog_rows(), extent) {
            BacklogStep::Keep => {}
            BacklogStep::ReportEmpty => self.reporter.set_backlog_empty(began),
            BacklogStep::CountSoon => self.timers.count_backlog_soon(),
        }
    }

    /// Whether these are all lanes that we own by now. Without a lane nothing is known.
    fn is_complete(&self, counted: &[Lane]) -> bool {
        let owned = self.core.watermarks();
        !owned.is_empty() && owned.iter().all(|own| counted.contains(&own.lane))
    }

    /// Reports that the backlog is unknown, and reads it as soon as possible: there are new lanes.
    pub(super) fn on_lanes_uncounted(&mut self, now: Instant) {
        self.reporter.clear_backlog();
        if self.core.owned_lanes() > 0 {
            self.timers.backlog = now;
        }
    }

    /// Reads the next page below each lane's watermark, if it is time.
    pub(super) fn start_gap_scan(&mut self, now: Instant) {
        if self.is_gap_scan_due(now) {
            let scan = scan_gaps(self.store.clone(), self.plan_gap_scan(), now);
            self.tasks.gap_scan.start(scan);
        }
    }

    fn is_gap_scan_due(&self, now: Instant) -> bool {
        self.tasks.gap_scan.is_idle()
            && now >= self.timers.gap_scan
            && !failpoints::has(Bug::ForwardOnly)
    }

    fn plan_gap_scan(&self) -> GapScanPlan {
        let watermarks = self.core.watermarks();
        self.tasks.gap_scan_position.plan(&watermarks)
    }

    /// Takes the stragglers of a gap scan. A failed scan is not repeated early: it is only a safety
    /// net.
    pub(super) fn on_gap_scanned(&mut self, scanned: GapScanEnd) {
        self.timers.gap_scanned(scanned.began, Instant::now());
        if let Ok(found) = scanned.result {
            self.on_gap_page(&scanned.plan, found);
        }
    }

    /// Takes the stragglers of one page of a gap scan.
    fn on_gap_page(&mut self, plan: &GapScanPlan, found: Vec<RowIdentity>) {
        self.tasks.gap_scan_position.on_page(plan, &found);
        for row in found {
            if self.core.on_straggler(row) {
                self.reporter.record_straggler(row);
            }
        }
    }

    /// Compares the schema with what the migrations made, if it is time.
    pub(super) fn start_schema_check(&mut self, now: Instant) {
        if self.tasks.schema_check.is_idle() && now >= self.timers.schema_check {
            let schema = self.process.options.settings.database.schema.clone();
            let check = read_schema(self.store.clone(), schema, now);
            self.tasks.schema_check.start(check);
        }
    }

    /// Ends the session if somebody changed the schema in a way that can break a promise. The next
    /// one begins once that is repaired. A comparison that failed is not repeated early.
    pub(super) fn on_schema_checked(&mut self, checked: SchemaCheckEnd) {
        self.timers.schema_checked(checked.began, Instant::now());
        let Ok(found) = checked.result else {
            return;
        };
        let schema = &self.process.options.settings.database.schema;
        match judge_drift(&expected_facts(), &found, schema) {
            SchemaDrift::No => self.reporter.set_problems(ProblemSource::Table, vec![]),
            SchemaDrift::Tolerable(problem) => {
                self.reporter
                    .set_problems(ProblemSource::Table, vec![problem]);
            }
            SchemaDrift::Unsafe(problem) => self.on_schema_changed(problem),
        }
    }

    /// Deletes old rows of adopted tables, if it is time.
    pub(super) fn start_purge(&mut self, now: Instant) {
        if !self.may_purge() || now < self.timers.purge {
            return;
        }
        let store = self.store.clone();
        self.tasks.purge.start(async move {
            let result = store.purge_adopted().await;
            PurgeEnd { began: now, result }
        });
    }

    /// Whether a purge may begin: one relay purges for all, the one that owns lane 0.
    pub(super) fn may_purge(&self) -> bool {
        self.tasks.purge.is_idle()
            && !self.is_shutting_down()
            && self.process.purges_adopted_tables()
            && self.core.owns(Lane::FIRST)
    }

    /// Logs how many rows a purge deleted. A failed one is not repeated early.
    pub(super) fn on_purged(&mut self, purged: PurgeEnd) {
        self.timers.purged(purged.began, Instant::now());
        match purged.result {
            Ok(rows) => self.reporter.purge_succeeded(rows),
            Err(error) => self.reporter.purge_failed(&error.problem()),
        }
    }
}

/// Draws a transaction id; ids up to `drawn` were seen before it.
async fn draw_tick(store: Store, drawn: RowId) -> TickEnd {
    let result = store.tick().await;
    TickEnd { drawn, result }
}

/// Counts the rows of a plan, and reads the numbers of the whole table if we own lane 0.
async fn read_backlog(store: Store, plan: BacklogPlan, began: Instant) -> BacklogEnd {
    let lanes = plan.lanes.iter().map(|of| of.lane).collect();
    let depth = store.backlog(&plan, BACKLOG_ROWS_MAX).await;
    // One relay reports the numbers of the whole table, so that a sum over relays has them once.
    let first = plan.lanes.first();
    let table = if first.is_some_and(|of| of.lane == Lane::FIRST) {
        store.table_wide().await.ok()
    } else {
        None
    };
    BacklogEnd {
        lanes,
        began,
        result: depth.map(|depth| (depth, table)),
    }
}

/// Reads how the schema is. Not on the lease's connection: the catalogs may be locked.
async fn read_schema(store: Store, schema: SchemaName, began: Instant) -> SchemaCheckEnd {
    let result = fetch_facts(store.settle_connections(), &schema).await;
    SchemaCheckEnd { began, result }
}

/// Reads a page below each watermark.
async fn scan_gaps(store: Store, plan: GapScanPlan, began: Instant) -> GapScanEnd {
    let result = store.gap_scan(&plan).await;
    GapScanEnd {
        plan,
        began,
        result,
    }
}
