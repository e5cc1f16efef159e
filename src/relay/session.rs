//! One lease and the loop that works under it: receive reports -> settle -> fetch -> send. Thin:
//! what to do is decided in [`super::core`]. Each step of the loop is a file below.

mod brokers;
mod clocks;
mod fetch;
mod lease_round;
mod periodic_reads;
mod probing;
mod producer_factory;
mod producers;
mod record_problems;
mod reporter;
mod reserve;
mod ringing;
mod rotation;
mod send;
mod settle;
mod shutdown;
mod tasks;
mod timers;

use std::time::Instant;

use tokio_util::sync::CancellationToken;

pub(super) use crate::relay::session::shutdown::SessionEnd;
use crate::{
    outbox::{Lane, ParkedDigest, Store, StoreError},
    relay::{
        RunOptions,
        connect::{Connected, Registration},
        core::{
            Core,
            in_flight::Budget,
            routing::Routes,
            row_limits::{Compression, RowLimits},
            sequence_check::SequenceMemory,
        },
        credentials::{Credentials, Side},
        memory_limit::memory_limit,
        session::{
            clocks::Clocks,
            producers::Producers,
            reporter::Reporter,
            ringing::BellLine,
            shutdown::Shutdown,
            tasks::{
                BacklogEnd, BellEnd, DispositionEnd, FetchEnd, GapScanEnd, LeaseRoundEnd,
                LookupEnd, PurgeEnd, SchemaCheckEnd, SettleEnd, Tasks, TickEnd,
            },
            timers::Timers,
        },
        status::{ProblemSource, Status},
        topic_metadata::{TopicMetadata, TopicMetadataWatch},
    },
    settings::{KafkaSettings, Owner},
};

/// What outlives a session: there is one of each in a process.
pub(super) struct Process<'a> {
    pub(super) options: &'a RunOptions,
    pub(super) status: &'a Status,
    pub(super) metadata: &'a mut TopicMetadataWatch,
    pub(super) credentials: &'a mut Credentials,
    pub(super) memory: &'a mut SequenceMemory,
}

impl Process<'_> {
    /// Whether the manifest has an adopted table whose old rows are deleted.
    fn purges_adopted_tables(&self) -> bool {
        let adopted = &self.options.settings.migration.adopt;
        adopted.iter().any(|table| table.retain_ms.is_some())
    }
}

/// One lease, and everything that must not outlive it.
pub(super) struct Session<'a> {
    process: Process<'a>,
    store: Store,
    registration: Registration,
    /// The CloudEvents attribute `source` of every record.
    record_source: String,
    core: Core,
    producers: Producers<'a>,
    tasks: Tasks,
    line: BellLine,
    timers: Timers,
    clocks: Clocks,
    /// What was parked when that was read last; `None`: it was not read yet.
    known_parked: Option<ParkedDigest>,
    reporter: Reporter<'a>,
    /// Set once the session takes no new rows.
    shutdown: Option<Shutdown>,
}

/// What the loop waits for. The tasks come first, then what other parts of the process report.
enum Event {
    Fetched(FetchEnd),
    Settled(SettleEnd),
    LeaseRound(LeaseRoundEnd),
    Ticked(TickEnd),
    BacklogRead(BacklogEnd),
    GapScanned(GapScanEnd),
    SchemaChecked(SchemaCheckEnd),
    Purged(PurgeEnd),
    LookedUp(LookupEnd),
    Disposed(DispositionEnd),
    Bell(BellEnd),
    /// A writer rang for a lane; `None`: the doorbell's connection is gone.
    Rung(Option<Lane>),
    TopicMetadata(TopicMetadata),
    SecretsChanged(Side),
    Timer,
    Stop,
}

impl<'a> Session<'a> {
    /// The session of an instance that was just registered. It owns no lane yet.
    pub(super) fn new(process: Process<'a>, connected: Connected) -> Self {
        let (options, now) = (process.options, connected.leased_at);
        let memory = memory_limit();
        let budget = Budget::within(memory);
        let mut core = new_core(options, &connected, budget, memory);
        if let Some(limits) = process.metadata.limits() {
            core.on_topic_limits(limits);
        }
        let reporter = Reporter::new(process.status, &connected, budget.rows);
        let producers = Producers::new(
            options,
            process.status,
            process.credentials.kafka.clone(),
            process.metadata.batch_limits(),
            now,
        );
        // No row of a topic is sent before the brokers have described it.
        process.metadata.request_now();
        Self {
            core,
            clocks: Clocks::new(connected.clock),
            record_source: record_source(&options.settings.owner),
            process,
            store: connected.store,
            registration: connected.registration,
            producers,
            tasks: Tasks::default(),
            line: BellLine::new(&options.settings.database, now),
            timers: Timers::new(now),
            known_parked: None,
            reporter,
            shutdown: None,
        }
    }

    /// Works until stopped, until the lease is lost, until ids may have been drawn twice, or until
    /// somebody changed the schema.
    ///
    /// # Cancel safety
    /// If dropped midway, rows in flight are published again by the next owner of their lanes, once
    /// the lease has run out.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> SessionEnd {
        loop {
            let now = Instant::now();
            self.reporter.record_turn(now);
            // Reports come first in a turn: a failed record must pause its topic before any later
            // record of it is sent.
            self.receive_reports(now);
            if let Some(end) = self.end(now) {
                return Box::pin(self.shut_down(end)).await;
            }
            self.producers.maintain(&mut self.core, now);
            self.core.resume_due(now);
            self.observe_kafka(now);
            self.probe_candidates(now);
            self.start_tasks(now);
            let event = self.next_event(stop).await;
            if let Some(end) = self.on_event(event) {
                return Box::pin(self.shut_down(end)).await;
            }
        }
    }

    /// Handles one event. Returns the session's end if the lease is lost.
    fn on_event(&mut self, event: Event) -> Option<SessionEnd> {
        match event {
            Event::LeaseRound(result) => return self.on_lease_round(result),
            Event::Fetched(fetched) => self.on_fetched(fetched),
            Event::Settled(settled) => self.on_settled(settled),
            Event::Ticked(ticked) => self.on_ticked(ticked),
            Event::BacklogRead(read) => self.on_backlog_read(read),
            Event::GapScanned(scanned) => self.on_gap_scanned(scanned),
            Event::SchemaChecked(checked) => self.on_schema_checked(checked),
            Event::Purged(purged) => self.on_purged(purged),
            Event::LookedUp(looked_up) => self.on_looked_up(looked_up),
            Event::Disposed(disposed) => self.on_disposed(disposed),
            Event::Bell(end) => self.on_bell(end),
            Event::Rung(ring) => self.on_ring(ring),
            Event::TopicMetadata(metadata) => self.on_topic_metadata(&metadata),
            Event::SecretsChanged(side) => self.on_secrets_changed(side),
            Event::Timer => {}
            Event::Stop => self.on_stop(),
        }
        None
    }

    /// Starts what is due: each kind of work at most as often as its timer allows. Waits for
    /// nothing.
    fn start_tasks(&mut self, now: Instant) {
        self.start_settles(now);
        self.start_lease_round(now);
        self.start_bell(now);
        if !self.is_shutting_down() && now >= self.timers.database {
            self.start_pausable_tasks(now);
        }
    }

    /// Starts what is due of the work that pauses after a failure of the database and during a
    /// shutdown.
    fn start_pausable_tasks(&mut self, now: Instant) {
        self.start_lookup();
        self.start_disposition();
        self.start_fetch(now);
        self.start_tick(now);
        self.start_backlog_read(now);
        self.start_gap_scan(now);
        self.start_schema_check(now);
        self.start_purge(now);
    }

    /// Waits for the next event. A stop is seen once: then the session shuts down.
    async fn next_event(&mut self, stop: &CancellationToken) -> Event {
        let wake_at = self.wake_at().into();
        let is_shutting_down = self.is_shutting_down();
        tokio::select! {
            // In this order: a stop or the end of a lease round does not wait behind other events.
            biased;
            () = stop.cancelled(), if !is_shutting_down => Event::Stop,
            event = self.tasks.next() => event,
            ring = self.line.ring() => Event::Rung(ring),
            Some(metadata) = self.process.metadata.next() => Event::TopicMetadata(metadata),
            side = self.process.credentials.changed() => Event::SecretsChanged(side),
            () = tokio::time::sleep_until(wake_at) => Event::Timer,
        }
    }

    /// One kind of work with the database failed. The others go on, after a pause for all of them.
    fn on_database_error(&mut self, work: ProblemSource, error: &StoreError, now: Instant) {
        self.timers.pause_database(now);
        self.reporter.work_failed(work, error.problem());
    }
}

/// The core of a new session. It owns no lane, and no topic is active.
fn new_core(options: &RunOptions, connected: &Connected, budget: Budget, memory: usize) -> Core {
    let (settings, now) = (&options.settings, connected.leased_at);
    let routes = Routes::new(&settings.topics);
    // Random bits of the instance's UUID: relays that met the same failure must not pause for the
    // same times.
    let seed = connected.registration.instance.as_u64_pair().1;
    Core::new(routes, budget, settings.poll_interval(), now)
        .with_breaker(settings.breaker, seed, now)
        .with_row_limits(RowLimits::new(memory, compression(&settings.kafka)))
}

/// Whether producers compress records: they do unless the manifest says otherwise.
fn compression(kafka: &KafkaSettings) -> Compression {
    match kafka.properties.get("compression.type").map(String::as_str) {
        Some("none") => Compression::Off,
        _ => Compression::On,
    }
}

fn record_source(owner: &Owner) -> String {
    format!("/outbox/{}/{}", owner.namespace, owner.name)
}
