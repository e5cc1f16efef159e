//! Makes producers that fit the secrets and the topics as they are now.

use tokio::sync::watch::Receiver;

use crate::{
    kafka::{
        BATCH_BYTES_MIN, BatchLimits, ConfigError, LastClusterError, Observations, Producer,
        ProducerKind, Statistics, WantedProducer,
    },
    relay::{
        RunOptions,
        status::{ProblemSource, Status},
    },
    secrets::Secrets,
};

/// What a new producer is made of.
pub(super) struct ProducerFactory<'a> {
    options: &'a RunOptions,
    status: &'a Status,
    secrets: Receiver<Secrets>,
    /// Sizes that fit the topics; `None` before the brokers have described them.
    batch_limits: Option<BatchLimits>,
    /// Upper bound of a batch, in bytes: a larger one was rejected though none of its records was.
    batch_bytes_max: usize,
    /// Shared with each producer, which adds to them.
    observations: Observations,
}

impl<'a> ProducerFactory<'a> {
    /// A factory that reports its failures to `status`. `batch_limits` is `None` before the brokers
    /// have described the topics.
    pub(super) fn new(
        options: &'a RunOptions,
        status: &'a Status,
        secrets: Receiver<Secrets>,
        batch_limits: Option<BatchLimits>,
    ) -> Self {
        Self {
            options,
            status,
            secrets,
            batch_limits,
            batch_bytes_max: usize::MAX,
            observations: Observations::default(),
        }
    }

    /// Sizes that fit the topics; `None` before the brokers have described them.
    pub(super) fn batch_limits(&self) -> Option<BatchLimits> {
        self.batch_limits
    }

    /// Sets the sizes of producers that are made from now on.
    pub(super) fn set_batch_limits(&mut self, batch_limits: Option<BatchLimits>) {
        self.batch_limits = batch_limits;
    }

    /// Names of the declared topics.
    pub(super) fn topics(&self) -> Vec<String> {
        let topics = self.options.settings.topics.iter();
        topics.map(|topic| topic.name.clone()).collect()
    }

    /// Halves the batches: one of this many bytes was rejected.
    pub(super) fn halve_batches(&mut self, rejected_bytes: usize) {
        self.batch_bytes_max = (rejected_bytes / 2).max(BATCH_BYTES_MIN);
    }

    /// The last error of the cluster that a producer of this factory met.
    pub(super) fn cluster_error(&self) -> &LastClusterError {
        &self.observations.cluster_error
    }

    /// What the producers of this factory measure of the brokers.
    pub(super) fn statistics(&self) -> &Statistics {
        &self.observations.statistics
    }

    /// Sizes that fit the topics, with batches that are not larger than one that was rejected.
    fn bounded_limits(&self) -> BatchLimits {
        let limits = self.batch_limits.unwrap_or_default();
        BatchLimits {
            batch_bytes: limits.batch_bytes.min(self.batch_bytes_max),
        }
    }

    /// Makes a strict producer, and reports the problem if the secrets or the properties do not
    /// allow it.
    ///
    /// # Errors
    /// When a secret is missing, or librdkafka rejects the properties.
    pub(super) fn make(&self) -> Result<Producer, ConfigError> {
        self.make_of_kind(ProducerKind::Strict)
    }

    /// Makes a producer like [`Self::make`], for this kind of records.
    ///
    /// # Errors
    /// When a secret is missing, or librdkafka rejects the properties.
    pub(super) fn make_of_kind(&self, kind: ProducerKind) -> Result<Producer, ConfigError> {
        let secrets = self.secrets.borrow().clone();
        let wanted = WantedProducer {
            kind,
            batch_limits: self.bounded_limits(),
        };
        let made = Producer::of_kind(
            wanted,
            &self.options.settings.kafka,
            &secrets,
            &self.options.pod,
            self.observations.clone(),
        );
        let problem = made.as_ref().err().map(ConfigError::problem);
        self.status
            .set_problems(ProblemSource::Producer, problem.into_iter().collect());
        made
    }
}
