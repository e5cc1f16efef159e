//! The strict producer: takes records and returns one delivery report for each. In partitions whose
//! brokers know the producer it leaves no gap: a record that was not written in order is not
//! written at all. Until they know it, its first record to each partition is sent alone
//! (`relay::core::first_record_gate`).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::{BorrowedMessage, DeliveryResult, Message, OwnedHeaders, Timestamp},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig},
    types::RDKafkaErrorCode,
};

use crate::{
    failpoints::{self, Bug},
    kafka::{
        batch_limits::{BatchLimits, MESSAGE_BYTES_MAX},
        config::{ConfigError, client_config},
        delivery_error::{DeliveryError, classify, cluster_problem},
        idempotence::{self, Idempotence},
        statistics::Statistics,
    },
    report::ProblemClass,
    secrets::Secrets,
    settings::KafkaSettings,
};

/// Longest wait for the metadata of one topic when a producer is warmed up.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
/// An error of a topic that comes again within this time is not logged again.
const LOGGED_FOR: Duration = Duration::from_mins(10);
/// Longest wait for a producer id.
const PRODUCER_ID_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a producer checks whether it has a producer id.
const PRODUCER_ID_PAUSE: Duration = Duration::from_millis(10);

/// A record to send. Not `Debug`: a key or a payload must not get into logs.
pub struct Record<'a> {
    /// Name of the topic.
    pub topic: &'a str,
    pub key: &'a str,
    /// Partition of the topic, from 0. `None` leaves it to librdkafka, which chooses as
    /// [`partition_of`](crate::kafka::partition_of) does.
    pub partition: Option<usize>,
    /// `None` is a record without a value.
    pub payload: Option<&'a [u8]>,
    pub headers: OwnedHeaders,
    /// In ms since 1970; not 0, which librdkafka replaces with the time of the node's clock.
    pub timestamp_ms: i64,
}

impl<'a> Record<'a> {
    fn into_base_record(self, slot: usize) -> BaseRecord<'a, str, [u8], usize> {
        let mut record = BaseRecord::with_opaque_to(self.topic, slot)
            .key(self.key)
            .headers(self.headers)
            .timestamp(self.timestamp_ms);
        if let Some(partition) = self.partition {
            record = record.partition(partition as i32);
        }
        if let Some(payload) = self.payload {
            record = record.payload(payload);
        }
        record
    }
}

/// What brokers report of a record that they have.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    /// Time of the broker's clock when it appended the record, in ms since 1970. Only brokers of
    /// topics with `message.timestamp.type=LogAppendTime` report it.
    pub appended_at_ms: Option<i64>,
}

impl Acknowledged {
    fn new(record: &BorrowedMessage<'_>) -> Self {
        let appended_at_ms = match record.timestamp() {
            Timestamp::LogAppendTime(ms) => Some(ms),
            Timestamp::CreateTime(_) | Timestamp::NotAvailable => None,
        };
        Self { appended_at_ms }
    }
}

/// librdkafka's answer for one record.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryReport {
    /// Slot that was passed to [`Producer::send`].
    pub slot: usize,
    /// `Ok` if all in-sync replicas have the record.
    pub outcome: Result<Acknowledged, DeliveryError>,
}

/// Last error of the cluster that librdkafka reported. It is cleared after the next success. Clones
/// share the same value.
#[derive(Clone, Debug, Default)]
pub struct LastClusterError(Arc<Mutex<Option<ProblemClass>>>);

impl LastClusterError {
    /// Class of the last error; `None` if no error was reported since the last success.
    #[must_use]
    pub fn get(&self) -> Option<ProblemClass> {
        *self.lock()
    }

    /// Removes the error. Called after a success, such as an acknowledged record.
    pub fn clear(&self) {
        *self.lock() = None;
    }

    /// Records an error. `KafkaUnreachable` does not replace a more specific class.
    pub(super) fn set(&self, class: ProblemClass) {
        let mut last = self.lock();
        // librdkafka reports a refused login, and then "all brokers down".
        if last.is_none() || class != ProblemClass::KafkaUnreachable {
            *last = Some(class);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<ProblemClass>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What producers observe of the cluster, beside delivery reports. Clones share the same values.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    /// Last error of the cluster.
    pub cluster_error: LastClusterError,
    /// How far away the brokers are, and for how long they mute requests.
    pub statistics: Statistics,
    /// Errors of records that were logged, by any of the producers.
    pub logged: LoggedErrors,
}

/// Error codes of topics that were logged, and when each came last. Clones share the same values.
#[derive(Clone, Debug, Default)]
pub struct LoggedErrors(Arc<Mutex<BTreeMap<(String, i32), Instant>>>);

impl LoggedErrors {
    /// Whether an error is to be logged: it has not come for [`LOGGED_FOR`].
    fn is_new(&self, topic: &str, code: RDKafkaErrorCode, now: Instant) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = logged.insert((topic.to_owned(), code as i32), now);
        before.is_none_or(|before| now.saturating_duration_since(before) >= LOGGED_FOR)
    }
}

struct Context {
    reports: Mutex<Vec<DeliveryReport>>,
    observations: Observations,
    idempotence: Idempotence,
    /// Whether a record went to a partition that the producer does not know.
    missed_partition: AtomicBool,
}

impl Context {
    fn new(observations: Observations) -> Self {
        Self {
            reports: Mutex::default(),
            observations,
            idempotence: Idempotence::default(),
            missed_partition: AtomicBool::new(false),
        }
    }

    fn reports(&self) -> MutexGuard<'_, Vec<DeliveryReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Classifies the error of a record, and logs its code.
    fn delivery_error(&self, error: &KafkaError, topic: &str) -> DeliveryError {
        let Some(code) = error.rdkafka_error_code() else {
            return DeliveryError::Cluster(ProblemClass::KafkaError);
        };
        self.note_partition(code);
        let delivery_error = classify(code);
        if delivery_error != DeliveryError::Purged {
            self.log_once(topic, code);
        }
        delivery_error
    }

    fn note_partition(&self, code: RDKafkaErrorCode) {
        if code == RDKafkaErrorCode::UnknownPartition {
            self.missed_partition.store(true, Ordering::Relaxed);
        }
    }

    /// Logs each error code of a topic once: a problem only holds the class of an error, so its
    /// code must be found in the log.
    fn log_once(&self, topic: &str, code: RDKafkaErrorCode) {
        if self.observations.logged.is_new(topic, code, Instant::now()) {
            tracing::warn!(topic, error = ?code, "Kafka did not accept a record");
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.idempotence.on_log(facility, message);
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(class) = error
            .rdkafka_error_code()
            .and_then(|code| cluster_problem(code, reason))
        {
            self.observations.cluster_error.set(class);
        }
    }

    fn stats_raw(&self, json: &[u8]) {
        self.observations.statistics.add(json);
    }
}

/// Logs a line of librdkafka at level debug. Users read the relay's own problems instead.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    tracing::debug!(target: "librdkafka", ?level, facility, message);
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    /// Called by librdkafka within [`Producer::poll`], on the same thread.
    fn delivery(&self, result: &DeliveryResult<'_>, slot: usize) {
        let outcome = match result {
            Ok(record) => Ok(Acknowledged::new(record)),
            Err((error, record)) => Err(self.delivery_error(error, record.topic())),
        };
        self.reports().push(DeliveryReport { slot, outcome });
    }
}

/// Properties that the ordering and no-loss guarantees depend on: names and values.
const STRICT: &[(&str, &str)] = &[
    // Retries may neither duplicate nor reorder records.
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("max.in.flight", "5"),
    // If a record fails for good, all later ones fail with it, instead of leaving a gap.
    ("enable.gapless.guarantee", "true"),
    // No record fails because it is late: an outage only delays records.
    ("message.timeout.ms", "0"),
    // A topic that a broker with stale metadata does not know yet is requested again. Unit: ms;
    // larger values overflow in librdkafka (measured).
    ("topic.metadata.propagation.max.ms", "2000000"),
    // Keys go to the same partitions as with Kafka's Java producers.
    ("partitioner", "murmur2_random"),
    // A broker answers the requests of a connection one after the other. One that waits for a
    // replica holds up all behind it for this long, and is then sent again; the broker ignores what
    // it has.
    ("request.timeout.ms", "2000"),
    // Longer than a quota of the brokers keeps a connection muted after the largest request: 1 MB
    // at 20 kB/s takes 50 s. Nothing else waits for it. Records to a broker that hangs are sent by
    // another producer once they are overdue (`relay::core::stale_leaders`), and so are all others
    // of a client that waits for such a request (`Producer::draining_for`).
    ("socket.timeout.ms", "60000"),
    // More than the relay ever has in flight: the relay bounds the queue itself.
    ("queue.buffering.max.messages", "200000"),
];

/// Time between two statistics, in ms. A quota that mutes requests is known after this time. Eight
/// clients with 120 partitions take 0.2 % of a core for it, and 0.9 % at 200 ms (measured).
const STATISTICS_EVERY_MS: &str = "1000";

/// Sets the properties of [`STRICT`] and the limits of batches. Called after the properties of the
/// manifest, so that none of these can be overridden.
fn make_strict(config: &mut ClientConfig, limits: BatchLimits) {
    for &(name, value) in STRICT {
        config.set(name, value);
    }
    set_batch_limits(config, limits);
}

fn set_batch_limits(config: &mut ClientConfig, limits: BatchLimits) {
    // A broker accepts or rejects whole batches.
    config
        .set("batch.size", limits.batch_bytes.to_string())
        .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string());
}

/// Loosens what costs a producer for each record that is rejected. Only for a producer that has one
/// record of a partition at a time, so that order and gaps are no question.
fn allow_rejections(config: &mut ClientConfig) {
    for (name, value) in [
        ("enable.gapless.guarantee", "false"),
        ("enable.idempotence", "false"),
        ("max.in.flight", "1"),
    ] {
        config.set(name, value);
    }
}

/// What a producer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerKind {
    /// Many records, in order and without a gap. A record that is rejected ends it.
    Strict,
    /// Records of which each partition gets one at a time. One that is rejected costs nothing else.
    Single,
}

/// A producer to make.
#[derive(Clone, Copy, Debug)]
pub struct WantedProducer {
    pub kind: ProducerKind,
    pub batch_limits: BatchLimits,
}

/// Makes librdkafka log the changes of state that [`Idempotence`] follows.
fn log_idempotence(config: &mut ClientConfig) {
    config
        .set("debug", idempotence::DEBUG_CONTEXT)
        .set_log_level(idempotence::LOG_LEVEL);
}

/// Weakens the configuration where a failpoint for tests is enabled.
fn plant_bugs(config: &mut ClientConfig) {
    if failpoints::has(Bug::GaplessOff) {
        config.set("enable.gapless.guarantee", "false");
    }
    if failpoints::has(Bug::MessageTimeout) {
        config.set("message.timeout.ms", "1500");
    }
}

/// One producer with its own producer id. Dropping it blocks until its threads have ended.
///
/// Delivery reports are queued until the sender calls [`Self::poll`]. A polling thread would be
/// woken for each report, only to wake the sender.
pub struct Producer {
    inner: BaseProducer<Context>,
    batch_limits: BatchLimits,
}

impl Producer {
    /// Creates a producer; it connects in the background. Errors of the cluster and measurements of
    /// the brokers are recorded in `observations`.
    ///
    /// # Errors
    /// If a secret is missing or cannot be used, or librdkafka rejects the properties.
    pub fn new(
        settings: &KafkaSettings,
        secrets: &Secrets,
        client_id: &str,
        batch_limits: BatchLimits,
        observations: Observations,
    ) -> Result<Self, ConfigError> {
        let wanted = WantedProducer {
            kind: ProducerKind::Strict,
            batch_limits,
        };
        Self::of_kind(wanted, settings, secrets, client_id, observations)
    }

    /// Creates a producer like [`Self::new`], for this kind of records.
    ///
    /// # Errors
    /// If a secret is missing or cannot be used, or librdkafka rejects the properties.
    pub fn of_kind(
        wanted: WantedProducer,
        settings: &KafkaSettings,
        secrets: &Secrets,
        client_id: &str,
        observations: Observations,
    ) -> Result<Self, ConfigError> {
        let WantedProducer { kind, batch_limits } = wanted;
        let mut config = client_config(settings, secrets, client_id)?;
        // Rows arrive in fetches, and the next batches grow while one request is in flight, so
        // lingering adds latency and saves nothing (measured).
        config.set("linger.ms", "0").set("compression.type", "lz4");
        config.set("statistics.interval.ms", STATISTICS_EVERY_MS);
        for (name, value) in &settings.properties {
            config.set(name, value);
        }
        make_strict(&mut config, batch_limits);
        if kind == ProducerKind::Single {
            allow_rejections(&mut config);
        }
        log_idempotence(&mut config);
        plant_bugs(&mut config);
        let inner = config
            .create_with_context(Context::new(observations))
            .map_err(ConfigError::Create)?;
        Ok(Self {
            inner,
            batch_limits,
        })
    }

    /// Limits that the producer was created with.
    #[must_use]
    pub fn batch_limits(&self) -> BatchLimits {
        self.batch_limits
    }

    /// Appends the delivery reports that arrived since the last call, in order of arrival. Never
    /// blocks.
    pub fn poll(&self, reports: &mut Vec<DeliveryReport>) {
        loop {
            // One call serves the reports of one batch at most.
            self.inner.poll(Duration::ZERO);
            let mut arrived = self.inner.context().reports();
            if arrived.is_empty() {
                return;
            }
            reports.append(&mut arrived);
        }
    }

    /// Adds a record to librdkafka's queue. Its delivery report arrives later and carries `slot`.
    /// After an error here there is no delivery report.
    ///
    /// # Errors
    /// If librdkafka rejects the record immediately: it is too large, or the queue is full.
    pub fn send(&self, record: Record<'_>, slot: usize) -> Result<(), DeliveryError> {
        let sent = self.inner.send(record.into_base_record(slot));
        sent.map_err(|(error, _)| {
            let code = error.rdkafka_error_code();
            code.into_iter()
                .for_each(|code| self.inner.context().note_partition(code));
            send_error(code)
        })
    }

    /// Whether a record was refused because this producer does not know its partition: the broker
    /// that it asked lags behind. It asks again within 5 minutes.
    #[must_use]
    pub fn has_missed_partition(&self) -> bool {
        self.inner
            .context()
            .missed_partition
            .load(Ordering::Relaxed)
    }

    /// Requests the metadata of these topics and waits for a producer id, so that the first record
    /// waits for neither. Blocks for as long as that takes: up to some seconds for each topic.
    /// Returns whether it has a producer id.
    #[must_use]
    pub fn warm_up<'a>(&self, topics: impl IntoIterator<Item = &'a str>) -> bool {
        for topic in topics {
            // librdkafka keeps what it learns about a topic. A topic that is missing costs its
            // first record what it would have cost anyway.
            let _ = self
                .inner
                .client()
                .fetch_metadata(Some(topic), METADATA_TIMEOUT);
        }
        self.wait_for_id(Instant::now() + PRODUCER_ID_TIMEOUT)
    }

    /// Polls, which is how it learns of its producer id, until it has one. Returns whether it has.
    fn wait_for_id(&self, until: Instant) -> bool {
        let idempotence = &self.inner.context().idempotence;
        while !idempotence.has_id() && Instant::now() < until {
            self.inner.poll(PRODUCER_ID_PAUSE);
        }
        idempotence.has_id()
    }

    /// How long it has sent nothing, because librdkafka waits for all of its requests to end before
    /// it raises its epoch. Zero if it does not. This happens after a broker rejected a request for
    /// a while (`NOT_ENOUGH_REPLICAS`) and therefore the one behind it, too (`OUT_OF_ORDER`).
    #[must_use]
    pub fn draining_for(&self) -> Duration {
        self.inner.context().idempotence.draining_for()
    }

    /// Whether a fatal error has ended this producer: it never sends again, and must be replaced.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.inner.client().fatal_error().is_some()
    }

    /// Purges the records that were not sent yet; each still gets a delivery report. Does not block
    /// on librdkafka's threads, which may be waiting for a name server.
    pub fn purge_queue(&self) {
        self.inner
            .purge(PurgeConfig::default().queue().non_blocking());
    }

    /// Purges all records that are not acknowledged; each still gets a delivery report. Does not
    /// block on librdkafka's threads either.
    pub fn purge(&self) {
        self.inner
            .purge(PurgeConfig::default().queue().inflight().non_blocking());
    }
}

/// Classifies the error of a record that did not get into librdkafka's queue.
fn send_error(code: Option<RDKafkaErrorCode>) -> DeliveryError {
    match code {
        Some(RDKafkaErrorCode::QueueFull) | None => {
            DeliveryError::Cluster(ProblemClass::KafkaError)
        }
        Some(code) => classify(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens without each of these is in tests/it/producer_contract.rs; the ones that take
    /// minutes to show are only here.
    #[test]
    fn no_property_of_a_manifest_loosens_the_contract() {
        let mut config = ClientConfig::new();
        config
            .set("message.timeout.ms", "300000")
            .set("enable.gapless.guarantee", "false")
            .set("max.in.flight", "1000")
            .set("acks", "1");
        make_strict(
            &mut config,
            BatchLimits {
                batch_bytes: 20_000,
            },
        );
        for (name, value) in [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("max.in.flight", "5"),
            ("enable.gapless.guarantee", "true"),
            ("message.timeout.ms", "0"),
            ("topic.metadata.propagation.max.ms", "2000000"),
            ("partitioner", "murmur2_random"),
            ("request.timeout.ms", "2000"),
            ("socket.timeout.ms", "60000"),
            ("batch.size", "20000"),
            ("message.max.bytes", "1000000000"),
        ] {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
    }
}
