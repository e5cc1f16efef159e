//! The strict producer: records out, one report each. An incarnation leaves no gap, in partitions
//! where the brokers know it: what was not written in order is not written at all. Until then its
//! records go alone (`relay::openers`).

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::{DeliveryResult, Message, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig},
    types::RDKafkaErrorCode,
};

use super::{
    config::{ConfigError, client_config},
    fault::{Fault, fault_of, trouble_of},
    sizes::Sizes,
};
use crate::{
    planted::{self, Bug},
    report::ProblemClass,
    secrets::Secrets,
    settings::KafkaSettings,
};

/// How one record ended; `slot` is what it was sent with.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub slot: usize,
    pub outcome: Result<(), Fault>,
}

/// The last trouble with the cluster that librdkafka told of; empty again with the next success.
#[derive(Clone, Debug, Default)]
pub struct Trouble(Arc<Mutex<Option<ProblemClass>>>);

impl Trouble {
    /// What is wrong with the cluster, as far as known.
    #[must_use]
    pub fn get(&self) -> Option<ProblemClass> {
        *self.lock()
    }

    /// A record was acknowledged: whatever it was, it is over.
    pub fn clear(&self) {
        *self.lock() = None;
    }

    /// A refused login ends in "all brokers down" too: what is known more exactly stays.
    pub(super) fn set(&self, trouble: ProblemClass) {
        let mut known = self.lock();
        if known.is_none() || trouble != ProblemClass::KafkaUnreachable {
            *known = Some(trouble);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<ProblemClass>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Context {
    reports: Mutex<Vec<Report>>,
    trouble: Trouble,
    /// Topics and the errors of theirs that the log has.
    told: Mutex<BTreeSet<(String, i32)>>,
}

impl Context {
    fn reports(&self) -> MutexGuard<'_, Vec<Report>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose fault it is, with the error's own name in the log, once: a problem knows classes only.
    fn fault(&self, error: &KafkaError, topic: &str) -> Fault {
        let Some(code) = error.rdkafka_error_code() else {
            return Fault::Cluster(ProblemClass::KafkaError);
        };
        let fault = fault_of(code);
        if fault != Fault::Purged
            && self
                .told
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert((topic.to_owned(), code as i32))
        {
            tracing::warn!(topic, error = ?code, "Kafka did not take a record");
        }
        fault
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(class) = error
            .rdkafka_error_code()
            .and_then(|code| trouble_of(code, reason))
        {
            self.trouble.set(class);
        }
    }
}

/// librdkafka's own words are for whoever debugs; the relay's problems say what is wrong.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    tracing::debug!(target: "librdkafka", ?level, facility, message);
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    /// Called by whoever polls.
    fn delivery(&self, result: &DeliveryResult<'_>, slot: usize) {
        let outcome = match result {
            Ok(_) => Ok(()),
            Err((error, record)) => Err(self.fault(error, record.topic())),
        };
        self.reports().push(Report { slot, outcome });
    }
}

/// What the contract rests on; nothing that a manifest says overrides it.
fn make_strict(config: &mut ClientConfig, sizes: Sizes) {
    config
        // Retries may neither duplicate nor reorder ...
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("max.in.flight", "1")
        // ... a record that fails for good takes all later ones with it, instead of leaving a gap
        // ...
        .set("enable.gapless.guarantee", "true")
        // ... and none fails for being late: an outage costs nothing but time.
        .set("message.timeout.ms", "0")
        // A topic that a stale broker does not know is asked for again; larger values overflow
        // (measured).
        .set("topic.metadata.propagation.max.ms", "2000000")
        // As Java's producers place keys.
        .set("partitioner", "murmur2_random")
        // A broker judges whole batches.
        .set("batch.size", sizes.batch_bytes.to_string())
        .set("message.max.bytes", sizes.message_max_bytes.to_string())
        // The relay's window is the bound.
        .set("queue.buffering.max.messages", "200000");
}

/// One incarnation of the producer. Dropping it waits for its threads.
///
/// Its reports wait until they are polled, by whoever sends: a thread for that would be woken for
/// each of them, only to wake the sender.
pub struct Producer {
    inner: BaseProducer<Context>,
    sizes: Sizes,
}

impl Producer {
    /// Connects in the background.
    ///
    /// # Errors
    /// When a secret is missing, or librdkafka refuses the properties.
    pub fn new(
        settings: &KafkaSettings,
        secrets: &Secrets,
        client_id: &str,
        sizes: Sizes,
        trouble: Trouble,
    ) -> Result<Self, ConfigError> {
        let mut config = client_config(settings, secrets, client_id)?;
        // Rows come in fetches, and while one request is under way the next batches grow: to linger
        // costs time and saves nothing (measured).
        config.set("linger.ms", "0").set("compression.type", "lz4");
        for (name, value) in &settings.properties {
            config.set(name, value);
        }
        make_strict(&mut config, sizes);
        if planted::has(Bug::GaplessOff) {
            config.set("enable.gapless.guarantee", "false");
        }
        if planted::has(Bug::MessageTimeout) {
            config.set("message.timeout.ms", "1500");
        }
        let context = Context {
            reports: Mutex::default(),
            trouble,
            told: Mutex::default(),
        };
        Ok(Self {
            inner: config
                .create_with_context(context)
                .map_err(ConfigError::Create)?,
            sizes,
        })
    }

    /// What it was made for.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Adds the records that ended since, in the order in which they did. Never waits.
    pub fn poll(&self, reports: &mut Vec<Report>) {
        loop {
            // One call brings those of one batch at most.
            self.inner.poll(Duration::ZERO);
            let mut brought = self.inner.context().reports();
            if brought.is_empty() {
                return;
            }
            reports.append(&mut brought);
        }
    }

    /// Hands a record over. Its report comes later, with the same slot; after an error here none
    /// comes.
    ///
    /// # Errors
    /// When the record is refused at once.
    pub fn send(
        &self,
        topic: &str,
        key: &str,
        payload: Option<&[u8]>,
        headers: OwnedHeaders,
        timestamp_ms: Option<i64>,
        slot: usize,
    ) -> Result<(), Fault> {
        let mut record = BaseRecord::with_opaque_to(topic, slot)
            .key(key)
            .headers(headers);
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        if let Some(timestamp_ms) = timestamp_ms {
            record = record.timestamp(timestamp_ms);
        }
        self.inner
            .send(record)
            .map_err(|(error, _)| match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) | None => {
                    Fault::Cluster(ProblemClass::KafkaError)
                }
                Some(code) => fault_of(code),
            })
    }

    /// Whether this incarnation can never send again.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.inner.client().fatal_error().is_some()
    }

    /// Throws out what was not sent yet; each record still gets its report. Does not wait for
    /// librdkafka's threads, which may wait for a name server.
    pub fn purge_queue(&self) {
        self.inner
            .purge(PurgeConfig::default().queue().non_blocking());
    }

    /// Throws out whatever is not acknowledged; each record still gets its report. Waits as little.
    pub fn purge(&self) {
        self.inner
            .purge(PurgeConfig::default().queue().inflight().non_blocking());
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
            .set("max.in.flight", "5")
            .set("acks", "1");
        make_strict(
            &mut config,
            Sizes {
                batch_bytes: 20_000,
                message_max_bytes: 1_048_588,
            },
        );
        for (name, value) in [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("max.in.flight", "1"),
            ("enable.gapless.guarantee", "true"),
            ("message.timeout.ms", "0"),
            ("topic.metadata.propagation.max.ms", "2000000"),
            ("partitioner", "murmur2_random"),
            ("batch.size", "20000"),
            ("message.max.bytes", "1048588"),
        ] {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
    }
}
