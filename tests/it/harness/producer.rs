//! The relay's producer without a relay, and the results of its records.

use std::{collections::BTreeMap, time::SystemTime};

use outbox_relay::{
    kafka::{BatchLimits, DeliveryError, LastClusterError, Observations, Producer, Record},
    report::ProblemClass,
    secrets::Secrets,
    settings::{KafkaSettings, TlsMode, TlsSettings},
};
use rdkafka::message::OwnedHeaders;

use super::relay::until;

/// A producer that numbers its records by slot.
pub(crate) struct Sender {
    pub(crate) producer: Producer,
    cluster_error: LastClusterError,
    outcomes: BTreeMap<usize, Result<(), DeliveryError>>,
}

impl Sender {
    pub(crate) fn new(servers: &str, batch_limits: BatchLimits) -> Self {
        Self::with(servers, batch_limits, &[])
    }

    /// Creates a producer with properties that a manifest may set.
    pub(crate) fn with(
        servers: &str,
        batch_limits: BatchLimits,
        properties: &[(&str, &str)],
    ) -> Self {
        let tls = TlsSettings {
            mode: TlsMode::Disable,
            ca: false,
            client_certificate: false,
        };
        let properties = properties
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let settings = KafkaSettings {
            bootstrap_servers: vec![servers.to_owned()],
            tls,
            sasl: None,
            properties,
        };
        let cluster_error = LastClusterError::default();
        let producer = Producer::new(
            &settings,
            &Secrets::folder("/nowhere"),
            "it",
            batch_limits,
            Observations {
                cluster_error: cluster_error.clone(),
                ..Observations::default()
            },
        );
        Self {
            producer: producer.expect("a producer"),
            cluster_error,
            outcomes: BTreeMap::new(),
        }
    }

    /// Sends a record whose value begins with its number.
    pub(crate) fn send(
        &self,
        topic: &str,
        key: &str,
        number: usize,
        bytes: usize,
    ) -> Result<(), DeliveryError> {
        self.send_at(topic, key, number, bytes, None)
    }

    /// Sends a record with a timestamp, in milliseconds since 1970.
    pub(crate) fn send_at(
        &self,
        topic: &str,
        key: &str,
        number: usize,
        bytes: usize,
        ms: Option<i64>,
    ) -> Result<(), DeliveryError> {
        let value = format!("{number}:{}", noise(number, bytes));
        let record = Record {
            topic,
            key,
            partition: None,
            payload: Some(value.as_bytes()),
            headers: OwnedHeaders::new(),
            timestamp_ms: ms.unwrap_or_else(now_ms),
        };
        self.producer.send(record, number)
    }

    /// Waits for the delivery reports of `records` records and returns their results.
    pub(crate) async fn outcomes(
        &mut self,
        records: usize,
    ) -> &BTreeMap<usize, Result<(), DeliveryError>> {
        until(&format!("{records} reports"), async || {
            self.poll();
            (self.outcomes.len() >= records).then_some(())
        })
        .await;
        &self.outcomes
    }

    /// The producer's last error of the whole cluster.
    pub(crate) fn cluster_error(&mut self) -> Option<ProblemClass> {
        self.poll();
        self.cluster_error.get()
    }

    fn poll(&mut self) {
        let mut reports = Vec::new();
        self.producer.poll(&mut reports);
        for report in reports {
            let twice = self.outcomes.insert(report.slot, report.outcome.map(drop));
            assert!(twice.is_none(), "record {} got two reports", report.slot);
        }
    }
}

/// Time of the wall clock, in ms since 1970.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("after 1970").as_millis() as i64
}

/// Text that does not compress.
fn noise(seed: usize, bytes: usize) -> String {
    let mut state = seed as u64 + 1;
    let letter = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + ((state >> 33) % 90) as u8)
    };
    std::iter::repeat_with(letter).take(bytes).collect()
}

/// The number at the start of a value of [`Sender::send`].
pub(crate) fn number(value: &[u8]) -> usize {
    let text = std::str::from_utf8(value).expect("text");
    text.split(':')
        .next()
        .and_then(|number| number.parse().ok())
        .expect("a number")
}
