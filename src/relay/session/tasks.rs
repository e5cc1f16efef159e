//! Statements under way, at most one of a kind but for settling. They run only while the loop waits
//! for them. IO.

use std::{future::Future, time::Instant};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, pending},
    stream::FuturesUnordered,
};

use crate::{
    outbox::{
        Bell, Depth, FetchMoment, FetchRequest, Fetched, GapScanPlan, Lane, OutboxRow, RowId,
        RowIdentity, SchemaFact, StoreError, TableWide, error::DatabaseError,
    },
    relay::{
        core::{
            Lookup, RejectedRow, doorbell::BellAnswer, gap_scan::GapScan, ids::Slot,
            watermarks::XidTick,
        },
        lease::LeaseOutcome,
        session::Event,
    },
};

/// Most settling statements that are under way at the same time.
const SETTLES_MAX: usize = 2;

/// The sequence and the rows that a fetch read in one transaction.
pub(super) type FetchResult = Result<(FetchMoment, Fetched), StoreError>;

/// How a fetch ended.
pub(super) struct FetchEnd {
    pub(super) request: FetchRequest,
    pub(super) began: Instant,
    pub(super) result: FetchResult,
}

/// How a settling statement ended. Its transaction is a tick.
pub(super) struct SettleEnd {
    pub(super) slots: Vec<Slot>,
    pub(super) began: Instant,
    pub(super) result: Result<XidTick, StoreError>,
}

/// How a round of the lease ended.
pub(super) type LeaseRoundEnd = Result<LeaseOutcome, StoreError>;

/// How drawing a transaction id ended.
pub(super) struct TickEnd {
    /// Highest id seen before the transaction began.
    pub(super) drawn: RowId,
    pub(super) result: Result<u64, StoreError>,
}

/// How reading the backlog ended: rows that wait in our lanes, and the numbers of the whole table
/// if we own lane 0.
pub(super) struct BacklogEnd {
    /// Lanes whose rows were counted.
    pub(super) lanes: Vec<Lane>,
    pub(super) began: Instant,
    pub(super) result: Result<(Depth, Option<TableWide>), StoreError>,
}

/// How a gap scan ended.
pub(super) struct GapScanEnd {
    pub(super) plan: GapScanPlan,
    pub(super) began: Instant,
    pub(super) result: Result<Vec<RowIdentity>, StoreError>,
}

/// How comparing the schema with what the migrations made ended.
pub(super) struct SchemaCheckEnd {
    pub(super) began: Instant,
    pub(super) result: Result<Vec<SchemaFact>, DatabaseError>,
}

/// How a purge of adopted tables ended.
pub(super) struct PurgeEnd {
    pub(super) began: Instant,
    /// Number of rows that it deleted.
    pub(super) result: Result<u64, StoreError>,
}

/// How looking rows up ended.
pub(super) struct LookupEnd {
    pub(super) lookup: Lookup,
    pub(super) result: Result<Vec<OutboxRow>, StoreError>,
}

/// How writing the dispositions of rejected rows ended.
pub(super) struct DispositionEnd {
    pub(super) rejected: Vec<RejectedRow>,
    pub(super) result: Result<(), StoreError>,
}

/// How a request to the doorbell's connection ended.
pub(super) enum BellEnd {
    /// The connection is open.
    Connected(Bell),
    /// The relay may not sleep on this server.
    Unusable,
    Answered(Bell, BellAnswer),
    Failed(DatabaseError),
}

/// Work of one kind: under way, or not.
pub(super) struct Task<T>(Option<BoxFuture<'static, T>>);

impl<T> Default for Task<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Task<T> {
    /// Whether none is under way, so that [`Self::start`] may be called.
    pub(super) fn is_idle(&self) -> bool {
        self.0.is_none()
    }

    /// Starts the work: it begins when the loop waits next.
    pub(super) fn start(&mut self, work: impl Future<Output = T> + Send + 'static) {
        self.0 = Some(work.boxed());
    }

    /// Waits for the end of the work; forever if none is under way.
    ///
    /// # Cancel safety
    /// If dropped midway, the work stays under way.
    async fn finished(&mut self) -> T {
        let Some(work) = &mut self.0 else {
            return pending().await;
        };
        let result = work.await;
        self.0 = None;
        result
    }
}

/// All work with the database that a session has under way.
#[derive(Default)]
pub(super) struct Tasks {
    pub(super) fetch: Task<FetchEnd>,
    pub(super) lease_round: Task<LeaseRoundEnd>,
    pub(super) tick: Task<TickEnd>,
    pub(super) backlog: Task<BacklogEnd>,
    pub(super) gap_scan: Task<GapScanEnd>,
    pub(super) schema_check: Task<SchemaCheckEnd>,
    pub(super) purge: Task<PurgeEnd>,
    pub(super) lookup: Task<LookupEnd>,
    pub(super) disposition: Task<DispositionEnd>,
    pub(super) bell: Task<BellEnd>,
    settles: FuturesUnordered<BoxFuture<'static, SettleEnd>>,
    /// From where the next gap scan goes on.
    pub(super) gap_scan_position: GapScan,
}

impl Tasks {
    /// Waits for the next task that ends; forever if none is under way. Of several that have ended,
    /// the lease comes first.
    ///
    /// # Cancel safety
    /// If dropped midway, no result is lost.
    pub(super) async fn next(&mut self) -> Event {
        tokio::select! {
            biased;
            result = self.lease_round.finished() => Event::LeaseRound(result),
            bell = self.bell.finished() => Event::Bell(bell),
            fetched = self.fetch.finished() => Event::Fetched(fetched),
            Some(settled) = self.settles.next() => Event::Settled(settled),
            ticked = self.tick.finished() => Event::Ticked(ticked),
            read = self.backlog.finished() => Event::BacklogRead(read),
            scanned = self.gap_scan.finished() => Event::GapScanned(scanned),
            checked = self.schema_check.finished() => Event::SchemaChecked(checked),
            purged = self.purge.finished() => Event::Purged(purged),
            looked_up = self.lookup.finished() => Event::LookedUp(looked_up),
            disposed = self.disposition.finished() => Event::Disposed(disposed),
        }
    }

    /// Whether another settling statement may begin.
    pub(super) fn may_settle(&self) -> bool {
        self.settles.len() < SETTLES_MAX
    }

    /// Starts a settling statement beside those under way.
    pub(super) fn start_settle(&mut self, work: impl Future<Output = SettleEnd> + Send + 'static) {
        self.settles.push(work.boxed());
    }

    /// Waits for the next settling statement that ends; `None` when none is under way.
    ///
    /// # Cancel safety
    /// If dropped midway, no result is lost.
    pub(super) async fn next_settled(&mut self) -> Option<SettleEnd> {
        self.settles.next().await
    }
}
