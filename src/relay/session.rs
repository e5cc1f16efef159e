//! One lease and the loop that works under it: drain reports -> settle -> fetch -> send. Thin: what
//! to do is decided in [`super::core`].

mod answers;
mod end;
mod outage;
mod pace;
mod probing;
mod records;
mod secrets;
mod start;

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    time::{Duration, Instant, SystemTime},
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::FuturesUnordered,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    kafka::{self, DeliveryError, LastClusterError, Producer, Report, Sizes},
    outbox::{
        Depth, FetchRequest, Fetched, GapScanPlan, LaneWatermarks, OutboxRow, SequenceState, Store,
        StoreError, TableWide, connect::Connect,
    },
    relay::{
        ProblemSource, RunOptions, Status,
        connect::Opened,
        core::{
            ClusterError, Core, Lookup, Outcome, Outgoing, RejectedRow, SettleWhen, TopicPresence,
            gap_scan::{GapScan, Straggler},
            ids::{Slot, TopicIndex},
            in_flight::Budget,
            lane_share::{RENEW_EVERY, SURVEY_EVERY, lease_deadline},
            routing::Routes,
            sequence_check::{SequenceMemory, regression},
            stale_leaders::StaleLeaders,
            watermarks::XidTick,
        },
        credentials::{Credentials, Side},
        lease::{LeaseOutcome, LeaseRound, turn},
        session::pace::{
            BACKLOG_AT_LATEST, BACKLOG_EVERY, BACKLOG_ROWS_MAX, DESTROY_MAX, DRAIN_BROKEN_MAX,
            DRAIN_MAX, FIRST_NEWS, REPORTS_EVERY, RETRY_AFTER, SETTLES_MAX, SWEEP_EVERY,
            TICK_EVERY, Timers, settle_at,
        },
        topic_metadata::{TopicMetadata, TopicMetadataWatch},
    },
    report::{Backlog, BreakerState, Problem, ProblemClass},
};

/// Why a session ended.
pub(super) enum Ended {
    Stopped,
    LeaseLost,
    /// Ids may have come again: what it knew counts no more.
    SequenceBroke,
}

/// Whether records can be sent.
enum Sending {
    Open(Producer),
    /// It is replaced: nothing is sent, and until this time what is in flight may end well.
    Flushing(Producer, Instant),
    /// It failed for good, or lost its lease: thrown out, and its last reports are awaited before
    /// another may begin.
    Retiring(Producer),
    /// None, until then.
    None {
        retry_at: Instant,
    },
}

impl Sending {
    fn producer(&self) -> Option<&Producer> {
        match self {
            Self::Open(producer) | Self::Flushing(producer, _) | Self::Retiring(producer) => {
                Some(producer)
            }
            Self::None { .. } => None,
        }
    }
}

/// A producer of the relay.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Main,
    /// For rows on trial, so that a refusal costs nobody else anything.
    Trial,
}

type Running<T> = Option<BoxFuture<'static, T>>;
type FetchResult = Result<(SequenceState, Fetched), StoreError>;

/// Why the producer in use, or the last one, had to be thrown out.
#[derive(Clone, Copy, Debug, Default)]
struct Rebuild {
    /// It gave up by itself.
    fatal: bool,
    /// A record or a topic is to blame.
    cause_found: bool,
}

/// Rows that wait in our lanes, and the numbers of the whole table from the owner of lane 0.
type Counts = (Depth, Option<TableWide>);

/// How a settling statement ended; its transaction is a tick.
struct Settled {
    slots: Vec<Slot>,
    began: Instant,
    result: Result<XidTick, StoreError>,
}

/// One life under one lease.
pub(super) struct Session<'a> {
    options: &'a RunOptions,
    status: &'a Status,
    watch: &'a mut TopicMetadataWatch,
    credentials: &'a mut Credentials,
    memory: &'a mut SequenceMemory,
    store: Store,
    instance: Uuid,
    incarnation: Uuid,
    /// Ids may have come again: it only ends well what it has sent.
    is_broken: bool,
    core: Core,
    stale_leaders: StaleLeaders,
    sending: Sending,
    trial: Option<Producer>,
    /// Its secrets are old: it gets nothing new, and until then what it has may end well.
    trial_by: Option<Instant>,
    /// Batches of more bytes were refused, though none of their records was.
    batch_bytes_max: usize,
    cluster_error: LastClusterError,
    /// As it was last told.
    breaker: BreakerState,
    /// Since when lanes on their way back wait for their records to end.
    draining_since: Option<Instant>,
    rebuild: Rebuild,
    /// Room for those that come next: to make it anew for each batch was a twentieth of the relay's
    /// work.
    reports: Vec<Report>,
    created_at_us: Vec<i64>,
    taken_at: Vec<Instant>,
    source: String,
    deadline: Instant,
    timers: Timers,
    stop_by: Option<Instant>,
    /// Kinds of work whose failure stands in the report.
    failing: BTreeSet<ProblemSource>,
    fetch: Running<(FetchRequest, Instant, FetchResult)>,
    settles: FuturesUnordered<BoxFuture<'static, Settled>>,
    lease: Running<Result<LeaseOutcome, StoreError>>,
    tick: Running<(i64, Result<u64, StoreError>)>,
    backlog: Running<(Instant, Result<Counts, StoreError>)>,
    gap_scan: Running<(GapScanPlan, Instant, Result<Vec<Straggler>, StoreError>)>,
    gap_scanned: GapScan,
    lookup: Running<(Lookup, Result<Vec<OutboxRow>, StoreError>)>,
    verdict: Running<(RejectedRow, Result<(), StoreError>)>,
}

/// Something that the loop waited for.
enum Event {
    Fetched(FetchRequest, Instant, FetchResult),
    Settled(Settled),
    Leased(Result<LeaseOutcome, StoreError>),
    Ticked(i64, Result<u64, StoreError>),
    Counted(Instant, Result<Counts, StoreError>),
    Swept(GapScanPlan, Instant, Result<Vec<Straggler>, StoreError>),
    LookedUp(Lookup, Result<Vec<OutboxRow>, StoreError>),
    Judged(RejectedRow, Result<(), StoreError>),
    TopicMetadata(TopicMetadata),
    Secrets(Side),
    Time,
    Stop,
}

impl<'a> Session<'a> {
    /// The life of an instance that was registered.
    pub(super) fn begin(
        options: &'a RunOptions,
        status: &'a Status,
        opened: Opened,
        watch: &'a mut TopicMetadataWatch,
        credentials: &'a mut Credentials,
        memory: &'a mut SequenceMemory,
    ) -> Self {
        let (instance, now) = (opened.instance, opened.leased);
        status.began(instance.to_string(), opened.schema_version);
        status.set_breaker(BreakerState::Closed, kafka::rfc3339(outage::now_us()));
        // What the instance before could not do is not this one's to do.
        for work in [
            ProblemSource::Settling,
            ProblemSource::ReadDecision,
            ProblemSource::Parking,
        ] {
            status.set_problems(work, vec![]);
        }
        // Until the brokers have named a topic, none of its rows is sent.
        watch.ask_now();
        let (settings, budget) = (&options.settings, Budget::default());
        Self {
            core: Core::new(
                Routes::new(&settings.topics),
                budget,
                settings.poll_interval(),
                now,
            )
            .with_breaker(settings.breaker, instance.as_u64_pair().1, now),
            source: format!(
                "/outbox/{}/{}",
                settings.owner.namespace, settings.owner.name
            ),
            options,
            status,
            watch,
            credentials,
            memory,
            store: opened.store,
            instance,
            incarnation: opened.incarnation,
            is_broken: false,
            stale_leaders: StaleLeaders::default(),
            sending: Sending::None { retry_at: now },
            trial: None,
            trial_by: None,
            batch_bytes_max: usize::MAX,
            cluster_error: LastClusterError::default(),
            breaker: BreakerState::Closed,
            draining_since: None,
            rebuild: Rebuild::default(),
            reports: Vec::new(),
            created_at_us: vec![0; budget.rows],
            taken_at: vec![now; budget.rows],
            deadline: lease_deadline(now),
            timers: Timers::new(now),
            stop_by: None,
            failing: BTreeSet::new(),
            fetch: None,
            settles: FuturesUnordered::new(),
            lease: None,
            tick: None,
            backlog: None,
            gap_scan: None,
            gap_scanned: GapScan::default(),
            lookup: None,
            verdict: None,
        }
    }

    /// Works until stopped, or until the lease is lost.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> Ended {
        loop {
            let now = Instant::now();
            self.status.turned(now);
            self.drain_reports(now);
            if now >= self.deadline {
                return Box::pin(self.lose_lease()).await;
            }
            if self.is_drained(now) {
                return Box::pin(self.leave()).await;
            }
            self.keep_producer(now).await;
            self.core.resume_due(now);
            self.look(now);
            self.try_suspects(now).await;
            self.start(now);
            match self.next_event(stop).await {
                Event::Fetched(plan, began, fetched) => self.fetched(&plan, began, fetched),
                Event::Settled(settled) => self.settled(settled),
                Event::Leased(result) => {
                    if !self.leased(result) {
                        return Box::pin(self.lose_lease()).await;
                    }
                }
                Event::Ticked(drawn, result) => self.ticked(drawn, result),
                Event::Counted(began, result) => self.counted(began, result),
                Event::Swept(plan, began, result) => self.gap_scanned(&plan, began, result),
                Event::LookedUp(lookup, rows) => self.looked_up(lookup, rows),
                Event::Judged(verdict, result) => self.judged(verdict, result),
                Event::TopicMetadata(news) => self.on_topic_metadata(&news),
                Event::Secrets(side) => self.secrets_changed(side),
                Event::Time => {}
                Event::Stop => self.begin_to_stop(),
            }
        }
    }

    async fn next_event(&mut self, stop: &CancellationToken) -> Event {
        let wake = self.next_wake().into();
        let stopping = self.stop_by.is_some();
        tokio::select! {
            biased;
            () = stop.cancelled(), if !stopping => Event::Stop,
            Some(result) = take(&mut self.lease) => Event::Leased(result),
            Some((plan, began, fetched)) = take(&mut self.fetch) => Event::Fetched(plan, began, fetched),
            Some(settled) = self.settles.next() => Event::Settled(settled),
            Some((drawn, result)) = take(&mut self.tick) => Event::Ticked(drawn, result),
            Some((began, result)) = take(&mut self.backlog) => Event::Counted(began, result),
            Some((plan, began, result)) = take(&mut self.gap_scan) => Event::Swept(plan, began, result),
            Some((lookup, rows)) = take(&mut self.lookup) => Event::LookedUp(lookup, rows),
            Some((verdict, result)) = take(&mut self.verdict) => Event::Judged(verdict, result),
            Some(news) = self.watch.next() => Event::TopicMetadata(news),
            side = self.credentials.changed() => Event::Secrets(side),
            () = tokio::time::sleep_until(wake) => Event::Time,
        }
    }
}

/// Destroying waits for threads of librdkafka. One that waits for a name server ends later, by
/// itself.
async fn destroy(producer: Producer) {
    let _ = tokio::time::timeout(
        DESTROY_MAX,
        tokio::task::spawn_blocking(move || drop(producer)),
    )
    .await;
}

fn start<T>(work: impl Future<Output = T> + Send + 'static) -> Running<T> {
    Some(work.boxed())
}

/// Waits for work that may not be under way, and takes it out when it is done.
async fn take<T>(running: &mut Running<T>) -> Option<T> {
    let done = OptionFuture::from(running.as_mut().map(Pin::new)).await?;
    *running = None;
    Some(done)
}
