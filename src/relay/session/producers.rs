//! The producers: the main one, which is a set of clients, the probe producer for candidates, and
//! the single producer for rows that are sent alone. When each is made, replaced and retired, so
//! that a record is sent by at most one incarnation at a time; and when the main one gets more
//! clients or fewer.

use std::time::{Duration, Instant};

use tokio::sync::watch::Receiver;

use crate::{
    failpoints::{self, Bug},
    kafka::{
        BatchLimits, BrokerTimes, ClientId, DeliveryError, DeliveryReport, Producer, ProducerKind,
        ProducerSet, Record, replaced_producers,
    },
    relay::{
        RunOptions,
        core::{
            ClusterError, Core, DrainBlockers, ProbeKind,
            ids::{Slot, TopicIndex},
            stale_leaders::StaleLeaders,
        },
        session::{
            producer_factory::ProducerFactory,
            reserve::{Reserve, destroy_beside},
        },
        status::Status,
    },
    secrets::Secrets,
};

/// How often a new session checks whether the brokers have described the topics.
const FIRST_METADATA_PAUSE: Duration = Duration::from_millis(50);
/// Pause before another attempt to make a producer.
const MAKE_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Longest time for the brokers to answer what a producer had sent when it failed for good.
const LAST_REPORTS_MAX: Duration = Duration::from_secs(1);
/// Longest time for what is in flight when a producer that works is replaced. What is left then may
/// be published twice.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// Longest time that draining lanes wait for records that may never end.
const DRAIN_STUCK_MAX: Duration = Duration::from_secs(2);
/// Longest time for the threads of the last producers of a session.
const DESTROY_MAX: Duration = Duration::from_secs(2);
/// Longest time that a main producer goes on which is to be replaced, until its successor has a
/// producer id.
const SUCCESSOR_MAX: Duration = Duration::from_secs(5);
/// Shortest pause between two replacements of a producer that does not know a partition.
const MISSED_PARTITION_PAUSE: Duration = Duration::from_secs(5);
/// Time after the last row that was sent alone for which the single producer is kept.
const SINGLE_KEPT_FOR: Duration = Duration::from_secs(30);
/// Time after the last record for which a client is kept in reserve.
const RESERVE_FOR: Duration = Duration::from_secs(60);
/// Longest time that a client may send nothing because it waits for all of its requests to end. One
/// may be at a broker that hangs.
const CLIENT_DRAIN_MAX: Duration = Duration::from_secs(1);

/// Which producer sends a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProducerRole {
    /// For all rows but candidates.
    Main,
    /// For candidates: what is rejected there costs no other row anything.
    Probe,
    /// For rows that are sent alone because of their size: a rejection does not end it.
    Single,
}

/// What takes records of a role.
#[derive(Clone, Copy)]
pub(super) enum Sender<'a> {
    Main(&'a ProducerSet),
    Probe(&'a Producer),
}

impl Sender<'_> {
    /// Adds a record to the producer's queue. Its delivery report carries `slot`.
    ///
    /// # Errors
    /// If librdkafka rejects the record immediately: it is too large, or the queue is full.
    pub(super) fn send(
        self,
        client: ClientId,
        record: Record<'_>,
        slot: Slot,
    ) -> Result<(), DeliveryError> {
        match self {
            Self::Main(producers) => producers.send(client, record, slot.index()),
            Self::Probe(producer) => producer.send(record, slot.index()),
        }
    }
}

/// How long a producer that is replaced may wait for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grace {
    /// For a producer that works: what is in flight is acknowledged first.
    Flush,
    /// For a producer that has failed: the brokers may still report what they have written.
    LastReports,
}

impl Grace {
    fn ends_at(self, now: Instant) -> Instant {
        match self {
            Self::Flush => now + FLUSH_MAX,
            Self::LastReports => now + LAST_REPORTS_MAX,
        }
    }
}

/// State of the main producer.
///
/// ```text
///   Absent -> Open -> Flushing -> Retiring -> Absent
///               \__________________^
/// ```
enum MainProducer {
    /// No producer; the next one is not made before `retry_at`.
    Absent { retry_at: Instant },
    /// The producer takes records.
    Open(ProducerSet),
    /// Being replaced: the producer takes no records, and waits for its reports `until` then.
    Flushing {
        producer: ProducerSet,
        until: Instant,
    },
    /// Purged. The next one must not begin before its last report is in, or records of two
    /// incarnations could mix.
    Retiring(ProducerSet),
}

impl MainProducer {
    fn producer(&self) -> Option<&ProducerSet> {
        match self {
            Self::Open(producer) | Self::Flushing { producer, .. } | Self::Retiring(producer) => {
                Some(producer)
            }
            Self::Absent { .. } => None,
        }
    }
}

/// Why the main producer failed, or the last one did.
#[derive(Clone, Copy, Debug, Default)]
struct ProducerFailure {
    /// The producer gave up for good.
    fatal: bool,
    /// A record or a topic caused the failure.
    cause_found: bool,
}

impl ProducerFailure {
    fn is_unexplained(self) -> bool {
        self.fatal && !self.cause_found
    }
}

/// Both producers of a session.
pub(super) struct Producers<'a> {
    factory: ProducerFactory<'a>,
    main: MainProducer,
    /// Clients that were taken away from the main producer, and still have records out.
    leaving: Vec<ClientId>,
    /// Set when the main producer is to be replaced: as soon as a client is in reserve, or then.
    successor_until: Option<Instant>,
    /// Time that answers may take beyond what they take next door.
    allowance: Duration,
    reserve: Reserve,
    /// When the main producer was replaced last because it did not know a partition.
    partition_missed_at: Option<Instant>,
    /// When records were with the main producer last.
    used_at: Option<Instant>,
    probe: Option<Producer>,
    /// Set when the probe producer is being replaced: it takes no records, and waits for its
    /// reports until then.
    probe_until: Option<Instant>,
    /// Sends rows alone. Set while there are such rows, and for some time after.
    single: Option<Producer>,
    /// Set when the single producer is being replaced, like `probe_until`.
    single_until: Option<Instant>,
    /// When the single producer was needed last.
    single_used_at: Instant,
    failure: ProducerFailure,
    stale_leaders: StaleLeaders,
    /// Since when draining lanes wait for records.
    drain_blocked_since: Option<Instant>,
    /// The session shuts down.
    makes_no_more: bool,
    /// Buffer of [`Self::poll`]: to allocate one for each batch was a twentieth of the relay's
    /// work.
    reports: Vec<DeliveryReport>,
}

impl<'a> Producers<'a> {
    /// No producer yet. The first is made once the brokers have described the topics.
    pub(super) fn new(
        options: &'a RunOptions,
        status: &'a Status,
        secrets: Receiver<Secrets>,
        batch_limits: Option<BatchLimits>,
        now: Instant,
    ) -> Self {
        Self {
            factory: ProducerFactory::new(options, status, secrets, batch_limits),
            main: MainProducer::Absent { retry_at: now },
            leaving: Vec::new(),
            successor_until: None,
            allowance: Duration::ZERO,
            reserve: Reserve::new(now),
            partition_missed_at: None,
            used_at: None,
            probe: None,
            probe_until: None,
            single: None,
            single_until: None,
            single_used_at: now,
            failure: ProducerFailure::default(),
            stale_leaders: StaleLeaders::default(),
            drain_blocked_since: None,
            makes_no_more: false,
            reports: Vec::new(),
        }
    }

    // --- records and their reports

    /// The producer that takes records of this role now.
    pub(super) fn sender(&self, role: ProducerRole) -> Option<Sender<'_>> {
        match (role, &self.main) {
            (ProducerRole::Main, MainProducer::Open(producers)) => Some(Sender::Main(producers)),
            (ProducerRole::Main, _) => None,
            (ProducerRole::Probe, _) => self.probe.as_ref().map(Sender::Probe),
            (ProducerRole::Single, _) => self.single.as_ref().map(Sender::Probe),
        }
    }

    /// Whether the main producer takes records.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.main, MainProducer::Open(_))
    }

    /// Reports of both producers since the last call, in the order in which their records ended.
    /// Give the buffer back with [`Self::reuse`].
    pub(super) fn poll(&mut self) -> Vec<DeliveryReport> {
        let mut reports = std::mem::take(&mut self.reports);
        if let Some(producers) = self.main.producer() {
            producers.poll(&mut reports);
        }
        for producer in self.probe.iter().chain(&self.single) {
            producer.poll(&mut reports);
        }
        reports
    }

    /// Takes the emptied buffer of [`Self::poll`] back.
    pub(super) fn reuse(&mut self, reports: Vec<DeliveryReport>) {
        self.reports = reports;
    }

    /// Remembers whether a failed record of the main producer explains the producer's failure.
    pub(super) fn on_delivery_error(&mut self, error: DeliveryError) {
        self.failure.cause_found |=
            matches!(error, DeliveryError::Topic(_) | DeliveryError::Record(_));
    }

    /// Whether the cluster's last sign is an error.
    pub(super) fn cluster_error(&self) -> ClusterError {
        match self.factory.cluster_error().get() {
            Some(_) => ClusterError::Reported,
            None => ClusterError::None,
        }
    }

    /// Forgets the cluster's last error: it is over, or means nothing any more.
    pub(super) fn clear_cluster_error(&self) {
        self.factory.cluster_error().clear();
    }

    /// Number of clients of the main producer.
    pub(super) fn clients(&self) -> usize {
        self.main.producer().map_or(0, ProducerSet::len)
    }

    /// What both producers measured of the brokers since the last call; `None` if nothing.
    pub(super) fn take_broker_times(&self) -> Option<BrokerTimes> {
        self.factory.statistics().take()
    }

    // --- sizes and leaders

    /// Sets the sizes of producers that are made from now on.
    pub(super) fn set_batch_limits(&mut self, batch_limits: Option<BatchLimits>) {
        self.factory.set_batch_limits(batch_limits);
    }

    /// Whether an open main producer is as large as the topics need, and not larger.
    pub(super) fn fits_topics(&self) -> bool {
        match (&self.main, self.factory.batch_limits()) {
            (MainProducer::Open(producer), Some(batch_limits)) => {
                producer.batch_limits().fits(batch_limits)
            }
            _ => true,
        }
    }

    /// Whether the producers have lost their way to one of these topics: their records are overdue
    /// although each partition has a leader.
    pub(super) fn has_stale_leaders(
        &mut self,
        overdue: impl Iterator<Item = TopicIndex>,
        now: Instant,
    ) -> bool {
        self.stale_leaders.check(overdue, now)
    }

    // --- replacing and retiring

    /// Replaces both producers, once their records have ended or this time is over.
    pub(super) fn replace(&mut self, grace: Grace, now: Instant) {
        // Both have the same secrets and sizes, so one reason replaces both.
        let until = grace.ends_at(now + self.allowance);
        self.reserve.clear();
        self.replace_probe(until);
        self.flush_main(until);
    }

    /// Replaces both producers: the main one goes on until its successor has a producer id.
    pub(super) fn replace_when_ready(&mut self, now: Instant) {
        self.reserve.clear();
        self.replace_probe(Grace::Flush.ends_at(now + self.allowance));
        if self.is_open() {
            self.successor_until = Some(now + SUCCESSOR_MAX);
        }
    }

    /// Replaces the probe producer and the single producer, if there are any, once their records
    /// have ended or this time is over.
    fn replace_probe(&mut self, until: Instant) {
        self.probe_until = self.probe.as_ref().map(|_| until);
        self.single_until = self.single.as_ref().map(|_| until);
    }

    /// No producer is made from now on.
    pub(super) fn make_no_more(&mut self) {
        self.makes_no_more = true;
    }

    /// When each producer has something to do although nothing happens: the main one, the probe.
    pub(super) fn wake_at(&self) -> [Option<Instant>; 2] {
        let main = match &self.main {
            MainProducer::Absent { retry_at } => (!self.makes_no_more).then_some(*retry_at),
            MainProducer::Flushing { until, .. } => Some(*until),
            MainProducer::Open(_) => self.successor_until,
            MainProducer::Retiring(_) => None,
        };
        [main, self.probe_until.or(self.single_until)]
    }

    /// Retires the main producer if it failed for good or its grace is over, and makes the next one
    /// once the last report is in. Adds and removes clients.
    pub(super) fn maintain(&mut self, core: &mut Core, now: Instant) {
        self.allowance = core.allowance(now);
        self.flush_if_failed(now);
        self.flush_if_successor_is_ready(now);
        self.retire_if_batches_are_too_large(core);
        self.retire_if_client_drains();
        self.replace_if_partition_is_missed(now);
        self.advance_main(core, now);
        self.maintain_clients(core, now);
    }

    /// The next state of the main producer.
    fn advance_main(&mut self, core: &mut Core, now: Instant) {
        self.main = match self.take_main(now) {
            MainProducer::Flushing { producer, .. } | MainProducer::Retiring(producer)
                if may_end_main(core) =>
            {
                self.end_main(producer, core, now)
            }
            // While no broker takes anything, waiting for reports is in vain. A purge ends each
            // record with a report; those in a request under way may be written all the same.
            MainProducer::Flushing { producer, until }
                if now >= until || self.has_cluster_error() =>
            {
                producer.purge();
                MainProducer::Retiring(producer)
            }
            MainProducer::Absent { retry_at } if retry_at <= now && !self.makes_no_more => {
                self.open_main(core, now)
            }
            unchanged => unchanged,
        };
    }

    /// Destroys a main producer whose last report is in. Returns the state from which the next one
    /// is made.
    fn end_main(&mut self, producer: ProducerSet, core: &mut Core, now: Instant) -> MainProducer {
        if failpoints::has(Bug::NextProducerEarly) {
            replaced_producers::keep(producer);
            return MainProducer::Absent { retry_at: now };
        }
        drop(destroy_beside(producer));
        let retry_at = now + self.rebuild_backoff(core, now);
        MainProducer::Absent { retry_at }
    }

    /// Stops sending on a main producer that is to be replaced, if the next one can begin at once.
    fn flush_if_successor_is_ready(&mut self, now: Instant) {
        if self
            .successor_until
            .is_some_and(|until| self.reserve.is_ready() || now >= until)
        {
            self.successor_until = None;
            self.flush_main(Grace::Flush.ends_at(now + self.allowance));
        }
    }

    /// Retires the main producer if one of its clients sends nothing for too long, because it waits
    /// for all of its requests to end. One of them may be at a broker that hangs, and the client
    /// would wait for `socket.timeout.ms`, with the records of all its partitions.
    fn retire_if_client_drains(&mut self) {
        if let MainProducer::Open(producers) = &self.main
            && producers.draining_for() >= CLIENT_DRAIN_MAX
        {
            self.retire_main(
                "after a broker rejected a request for a while, a client waits for answers to all \
                 others, and does not get them",
            );
        }
    }

    /// Replaces a main producer that does not know a partition which the brokers list, at most as
    /// often as another answer can be expected.
    fn replace_if_partition_is_missed(&mut self, now: Instant) {
        let is_recent = |at| now.saturating_duration_since(at) < MISSED_PARTITION_PAUSE;
        if let MainProducer::Open(producers) = &self.main
            && producers.has_missed_partition()
            && !self.partition_missed_at.is_some_and(is_recent)
        {
            tracing::info!("the producer is replaced: it does not know a partition of a topic");
            self.partition_missed_at = Some(now);
            self.replace(Grace::Flush, now);
        }
    }

    // --- clients of the main producer

    /// Adds clients to an open main producer, or takes some away, as the core decides. Keeps one in
    /// reserve while records are sent.
    fn maintain_clients(&mut self, core: &mut Core, now: Instant) {
        let wanted = core.clients_wanted(now);
        if core.sent_on_main() > 0 {
            self.used_at = Some(now);
        }
        self.remove_left_clients(core);
        let missing = self.fit_clients(wanted, core);
        if self.needs_reserve(now) {
            self.reserve.maintain(missing + 1, &self.factory, now);
        } else {
            self.reserve.clear();
        }
    }

    /// Adds clients that are ready, or takes some away. Returns how many are still missing.
    fn fit_clients(&mut self, wanted: usize, core: &mut Core) -> usize {
        let MainProducer::Open(producers) = &mut self.main else {
            return 0;
        };
        while producers.len() - self.leaving.len() < wanted
            && let Some(client) = self.reserve.take()
        {
            core.add_client(producers.add(client));
        }
        while producers.len() - self.leaving.len() > wanted
            && let Some(client) = core.remove_client()
        {
            self.leaving.push(client);
        }
        wanted.saturating_sub(producers.len() - self.leaving.len())
    }

    /// Destroys clients that were taken away and of which nothing is out.
    fn remove_left_clients(&mut self, core: &Core) {
        if let MainProducer::Open(producers) = &mut self.main {
            self.leaving.retain(|client| {
                let is_free = core.is_client_free(*client);
                if is_free {
                    let removed = producers.remove(*client);
                    drop(removed.map(destroy_beside));
                }
                !is_free
            });
        }
    }

    /// Whether a client must be in reserve: the main producer is in use, or is to be replaced.
    fn needs_reserve(&self, now: Instant) -> bool {
        let in_use = |at| now.saturating_duration_since(at) < RESERVE_FOR;
        !self.makes_no_more
            && self.factory.batch_limits().is_some()
            && (self.used_at.is_some_and(in_use) || self.successor_until.is_some())
    }

    /// Retires the main producer after a batch was rejected only because of its size.
    fn retire_if_batches_are_too_large(&mut self, core: &mut Core) {
        let Some(bytes) = core.take_oversized_batch() else {
            return;
        };
        self.factory.halve_batches(bytes);
        // They were made for larger batches, too.
        self.reserve.clear();
        self.retire_main(
            "its batches are larger than a topic takes; the next one makes smaller batches",
        );
    }

    fn has_cluster_error(&self) -> bool {
        self.cluster_error() == ClusterError::Reported
    }

    /// A producer that failed for good sends nothing more. The brokers may still acknowledge what
    /// they have of it, which would otherwise be published twice.
    fn flush_if_failed(&mut self, now: Instant) {
        let until = Grace::LastReports.ends_at(now + self.allowance);
        if self.has_open_main_failed() {
            self.flush_failed_main(until);
        }
        self.shorten_flush(until);
    }

    fn has_open_main_failed(&self) -> bool {
        matches!(&self.main, MainProducer::Open(producer) if producer.is_fatal())
    }

    /// Stops sending on a main producer that failed for good.
    fn flush_failed_main(&mut self, until: Instant) {
        self.failure.fatal = true;
        self.clear_cluster_error();
        tracing::warn!(
            "the producer is replaced: it failed for good so as to leave no gap in a partition; \
             the next one starts at the lowest unsettled rows"
        );
        self.flush_main(until);
    }

    /// Gives a flush under way of a producer that failed for good only this much time.
    fn shorten_flush(&mut self, until: Instant) {
        if let MainProducer::Flushing {
            producer,
            until: flush_until,
        } = &mut self.main
            && producer.is_fatal()
            && *flush_until >= until
        {
            *flush_until = until;
            // Only the queue: what librdkafka has sent already may still be acknowledged.
            producer.purge_queue();
        }
    }

    /// Pause before the next main producer: zero if the cause of the failure is known, otherwise
    /// the breaker's back-off.
    fn rebuild_backoff(&mut self, core: &mut Core, now: Instant) -> Duration {
        let failure = std::mem::take(&mut self.failure);
        if failure.is_unexplained() {
            core.on_producer_rebuilt(now)
        } else {
            Duration::ZERO
        }
    }

    fn open_main(&mut self, core: &mut Core, now: Instant) -> MainProducer {
        // Nothing can be sent before the topics are described, and their limits decide how large
        // batches may be.
        if self.factory.batch_limits().is_none() {
            let retry_at = now + FIRST_METADATA_PAUSE;
            return MainProducer::Absent { retry_at };
        }
        let Some(first) = self.first_client() else {
            let retry_at = now + MAKE_RETRY_PAUSE;
            return MainProducer::Absent { retry_at };
        };
        // An error that its predecessor met, such as a refused login, means nothing for this one.
        self.clear_cluster_error();
        self.leaving.clear();
        self.successor_until = None;
        core.on_new_producer();
        MainProducer::Open(ProducerSet::new(first))
    }

    /// The client in reserve, or a new one. `None` if the secrets or the properties allow none.
    fn first_client(&mut self) -> Option<Producer> {
        // Making one fails without a connection: for a missing secret, or a property that
        // librdkafka rejects.
        self.reserve.take().or_else(|| self.factory.make().ok())
    }

    /// Stops sending on an open main producer. What it has may still be acknowledged until then,
    /// unless the cluster takes nothing.
    fn flush_main(&mut self, until: Instant) {
        self.main = match self.take_main(Instant::now()) {
            MainProducer::Open(producer) => MainProducer::Flushing { producer, until },
            unchanged => unchanged,
        };
    }

    fn retire_main(&mut self, why: &str) {
        self.main = match self.take_main(Instant::now()) {
            MainProducer::Open(producer) => {
                tracing::warn!("the producer is retired: {why}");
                self.clear_cluster_error();
                producer.purge();
                MainProducer::Retiring(producer)
            }
            unchanged => unchanged,
        };
    }

    /// Takes the main producer's state out, to put the next one in its place.
    fn take_main(&mut self, now: Instant) -> MainProducer {
        std::mem::replace(&mut self.main, MainProducer::Absent { retry_at: now })
    }

    /// Retires producers whose records keep draining lanes from being given back for too long. A
    /// new producer begins at the lowest unsettled rows, here or where the lanes go.
    pub(super) fn retire_if_drain_is_stuck(&mut self, core: &Core, now: Instant) {
        let blockers = core.drain_blockers();
        self.note_blockers(blockers, now);
        if self.is_drain_stuck(core, now) {
            self.retire_blocking(blockers, now);
        }
    }

    /// Remembers since when draining lanes wait for records; forgets it when they wait for none.
    fn note_blockers(&mut self, blockers: DrainBlockers, now: Instant) {
        let blocked_since = self.drain_blocked_since.unwrap_or(now);
        self.drain_blocked_since = blockers.any().then_some(blocked_since);
    }

    fn is_drain_stuck(&self, core: &Core, now: Instant) -> bool {
        let is_long = |since| now.saturating_duration_since(since) >= DRAIN_STUCK_MAX;
        self.drain_blocked_since.is_some_and(is_long) && core.has_stuck_records()
    }

    /// Retires the producers whose records draining lanes wait for.
    fn retire_blocking(&mut self, blockers: DrainBlockers, now: Instant) {
        self.drain_blocked_since = None;
        if blockers.probe {
            self.replace_probe(now);
        }
        if blockers.main {
            self.retire_main(
                "lanes must be given back, and Kafka does not acknowledge their records",
            );
        }
    }

    // --- the probe producer

    /// Retires the probe producer if it is used up, and makes one if there are candidates. Returns
    /// whether it may be sent to: a probe producer that rejected a record is used up, and the next
    /// candidates get a new one.
    pub(super) fn prepare_probe(&mut self, core: &mut Core, now: Instant) -> bool {
        self.purge_probe_if_due(now);
        if self.is_probe_used_up(core) && !self.end_probe(core) {
            return false;
        }
        if self.makes_no_more || !core.has_probes(ProbeKind::Candidates) {
            return false;
        }
        self.make_probe_if_absent(core);
        self.probe.is_some()
    }

    /// Makes a single producer if there are rows to send alone, and retires one that was not needed
    /// for a while. Returns whether it may be sent to.
    pub(super) fn prepare_single(&mut self, core: &mut Core, now: Instant) -> bool {
        let is_needed = core.has_probes(ProbeKind::Alone);
        if is_needed {
            self.single_used_at = now;
        }
        self.purge_single_if_due(now);
        if self.is_single_used_up(now) && !self.end_single(core) {
            return false;
        }
        if self.makes_no_more || !is_needed {
            return false;
        }
        if self.single.is_none() {
            self.single = self.factory.make_of_kind(ProducerKind::Single).ok();
            core.on_new_single_producer();
        }
        self.single.is_some()
    }

    fn is_single_used_up(&self, now: Instant) -> bool {
        let is_fatal = self.single.as_ref().is_some_and(Producer::is_fatal);
        let unused_for = now.saturating_duration_since(self.single_used_at);
        self.single_until.is_some() || is_fatal || unused_for >= SINGLE_KEPT_FOR
    }

    /// Destroys the single producer once its last report is in. Returns whether there is none.
    fn end_single(&mut self, core: &Core) -> bool {
        if core.has_sent_probes(ProbeKind::Alone) {
            return false;
        }
        drop(self.single.take().map(destroy_beside));
        self.single_until = None;
        true
    }

    /// Purges a single producer that is being replaced, once waiting for its reports is in vain.
    fn purge_single_if_due(&self, now: Instant) {
        if let (Some(single), Some(until)) = (&self.single, self.single_until)
            && (now >= until || self.has_cluster_error())
        {
            single.purge();
        }
    }

    /// Makes a probe producer unless there is one.
    fn make_probe_if_absent(&mut self, core: &mut Core) {
        if self.probe.is_none() {
            self.probe = self.factory.make().ok();
            core.on_new_probe_producer();
        }
    }

    fn is_probe_used_up(&self, core: &Core) -> bool {
        let is_fatal = self.probe.as_ref().is_some_and(Producer::is_fatal);
        !core.has_probes(ProbeKind::Candidates) || self.probe_until.is_some() || is_fatal
    }

    /// Destroys the probe producer once its last report is in. Returns whether it was.
    fn end_probe(&mut self, core: &Core) -> bool {
        if core.has_sent_probes(ProbeKind::Candidates) {
            // A race: a record that was handed over just as the producer failed is neither sent nor
            // reported by librdkafka, unless it is purged.
            self.probe
                .iter()
                .filter(|probe| probe.is_fatal())
                .for_each(Producer::purge);
            return false;
        }
        drop(self.probe.take().map(destroy_beside));
        self.probe_until = None;
        true
    }

    /// Purges a probe producer that is being replaced, once waiting for its reports is in vain.
    fn purge_probe_if_due(&self, now: Instant) {
        if let (Some(probe), Some(until)) = (&self.probe, self.probe_until)
            && (now >= until || probe.is_fatal() || self.has_cluster_error())
        {
            probe.purge();
        }
    }

    // --- the end of a session

    /// Purges all producers: each record still gets its report.
    pub(super) fn purge(&self) {
        let probes = self.probe.iter().chain(&self.single);
        probes.for_each(Producer::purge);
        if let Some(producers) = self.main.producer() {
            producers.purge();
        }
    }

    /// Destroys all producers. Their last reports must be in.
    ///
    /// # Cancel safety
    /// If dropped midway, the producer that is being destroyed is gone, and its threads end later.
    pub(super) async fn destroy(&mut self) {
        self.reserve.clear();
        if let MainProducer::Open(producer)
        | MainProducer::Flushing { producer, .. }
        | MainProducer::Retiring(producer) = self.take_main(Instant::now())
        {
            destroy(producer).await;
        }
        let others = [self.probe.take(), self.single.take()];
        for producer in others.into_iter().flatten() {
            destroy(producer).await;
        }
    }
}

/// Whether the main producer may be destroyed. Before its last report is in, Kafka may still write
/// its records, and those of the next one would get between them.
fn may_end_main(core: &Core) -> bool {
    core.sent_on_main() == 0 || failpoints::has(Bug::NextProducerEarly)
}

/// Destroys a producer, which waits for threads of librdkafka. One that waits for a name server
/// ends later, in the background.
async fn destroy(producer: impl Send + 'static) {
    let _ = tokio::time::timeout(DESTROY_MAX, destroy_beside(producer)).await;
}
