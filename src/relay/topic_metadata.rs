//! Requests the metadata of the declared topics from the brokers, for as long as the relay lives.
//! The answers go to the loop, the problems into the status report. IO, on a thread of its own,
//! since librdkafka's request blocks. What a round requests is in [`rounds`].

pub(crate) mod problems;
mod rounds;

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{
    mpsc::{UnboundedReceiver, unbounded_channel},
    watch::Receiver,
};

use crate::{
    failpoints::{self, Bug},
    kafka::{BatchLimits, LimitsByTopic, MetadataClient, TopicDescription},
    relay::{
        RunOptions,
        core::{clock_step::Clock, ids::TopicIndex},
        status::Status,
        topic_metadata::{problems::cluster_problem, rounds::Rounds},
    },
    report::Problem,
    secrets::Secrets,
    settings::KafkaSettings,
};

/// A request that is pending for longer will never be answered: this is longer than any request may
/// take by its own time-outs.
const PENDING_MAX: Duration = Duration::from_secs(30);

/// What one round found about the declared topics.
pub(super) struct TopicMetadata {
    /// Index of each topic, and whether it can be written to.
    usable: Vec<(TopicIndex, bool)>,
    /// Topics of which each partition has a leader.
    led: Vec<TopicIndex>,
    /// Number of partitions of each topic; 0 until the topic was seen.
    partitions: Vec<usize>,
    /// Limits of each topic's configuration, as far as they are known.
    limits: LimitsByTopic,
}

impl TopicMetadata {
    /// Index of each declared topic, and whether it can be written to.
    pub(super) fn usable(&self) -> impl Iterator<Item = (TopicIndex, bool)> {
        self.usable.iter().copied()
    }

    /// Whether each partition of a topic has a leader.
    pub(super) fn is_led(&self, topic: TopicIndex) -> bool {
        self.led.contains(&topic)
    }

    /// Number of partitions of each declared topic that was seen.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (TopicIndex, usize)> {
        let topics = self.partitions.iter().copied().enumerate();
        topics
            .filter(|(_, partitions)| *partitions > 0)
            .map(|(index, partitions)| (TopicIndex::new(index), partitions))
    }
}

/// The loop's end of the thread that requests metadata; replaces a thread that is stuck.
pub(super) struct TopicMetadataWatch {
    options: Arc<RunOptions>,
    status: Arc<Status>,
    secrets: Receiver<Secrets>,
    thread: Thread,
    clock: Clock,
    /// Limits of the topics as they were last described.
    limits: Option<LimitsByTopic>,
}

/// One thread that requests metadata. It ends once its receiver is dropped.
struct Thread {
    metadata: UnboundedReceiver<TopicMetadata>,
    /// Asks for a round at once.
    request: mpsc::Sender<()>,
    pending: PendingSince,
}

/// Since when a request is pending; shared with the thread that waits for its answer.
#[derive(Clone, Default)]
struct PendingSince(Arc<Mutex<Option<Instant>>>);

impl PendingSince {
    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn is_stuck(&self, now: Instant) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| now.saturating_duration_since(since) > PENDING_MAX)
    }
}

/// Whether the thread that requests metadata was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    /// The thread works.
    NotNeeded,
    /// The thread's client does not return.
    ClientStuck,
    /// The wall clock was set back, so every client of Kafka waits for too long, producers
    /// included.
    ClockSetBack,
}

impl TopicMetadataWatch {
    /// Starts the first thread.
    pub(super) fn start(
        options: Arc<RunOptions>,
        status: Arc<Status>,
        secrets: Receiver<Secrets>,
    ) -> Self {
        let thread = Thread::start(&options, &status, &secrets);
        Self {
            options,
            status,
            secrets,
            thread,
            clock: Clock::new(SystemTime::now(), Instant::now()),
            limits: None,
        }
    }

    /// Starts another thread with another client if this one is stuck, or is about to be.
    pub(super) fn restart_if_stuck(&mut self) -> Restart {
        if failpoints::has(Bug::ClockUnnoticed) {
            return Restart::NotNeeded;
        }
        let restart = self.restart_needed();
        if restart != Restart::NotNeeded {
            self.start_other_thread();
        }
        restart
    }

    /// Starts a thread in place of the one before, which ends once its client returns.
    fn start_other_thread(&mut self) {
        self.thread = Thread::start(&self.options, &self.status, &self.secrets);
    }

    /// Whether the client does not return, or will not. Logs why.
    fn restart_needed(&mut self) -> Restart {
        // Both clocks are read here, in one moment: the process may have been paused since the loop
        // read its own time.
        let (wall, now) = (SystemTime::now(), Instant::now());
        if let Some(by) = self.clock.set_back(wall, now) {
            tracing::warn!(
                "the clock was set back by {by:.1?}: the clients of Kafka are replaced, because \
                 they would wait for that much longer"
            );
            return Restart::ClockSetBack;
        }
        if self.thread.pending.is_stuck(now) {
            tracing::warn!(
                "the client for topic metadata has not returned for {PENDING_MAX:?}; another \
                 client takes over"
            );
            return Restart::ClientStuck;
        }
        Restart::NotNeeded
    }

    /// Waits for the next metadata; `None` when the thread has ended.
    ///
    /// # Cancel safety
    /// If dropped midway, no metadata is lost.
    pub(super) async fn next(&mut self) -> Option<TopicMetadata> {
        let metadata = self.thread.metadata.recv().await?;
        self.limits = Some(metadata.limits.clone());
        Some(metadata)
    }

    /// Sizes of a producer that fits the topics as they were last described; `None` before the
    /// first metadata.
    pub(super) fn batch_limits(&self) -> Option<BatchLimits> {
        self.limits.as_ref().map(BatchLimits::for_topics)
    }

    /// Limits of the topics as they were last described; `None` before the first metadata.
    pub(super) fn limits(&self) -> Option<&LimitsByTopic> {
        self.limits.as_ref()
    }

    /// Greatest age that the timestamp of a record of a topic may have when it is sent.
    pub(super) fn timestamp_age_max(&self, topic: TopicIndex) -> Duration {
        let unknown = LimitsByTopic::default();
        let limits = self.limits.as_ref().unwrap_or(&unknown);
        limits.timestamp_age_max(topic.index())
    }

    /// Requests a round at once. Limits are part of it, but at most every 10 s.
    pub(super) fn request_now(&self) {
        // Fails only when the thread has ended, and so does the relay then.
        let _ = self.thread.request.send(());
    }
}

impl Thread {
    fn start(options: &Arc<RunOptions>, status: &Arc<Status>, secrets: &Receiver<Secrets>) -> Self {
        let (sender, metadata) = unbounded_channel();
        let (request, requests) = mpsc::channel();
        let pending = PendingSince::default();
        let mut rounds = Rounds::new(
            Arc::clone(options),
            Arc::clone(status),
            secrets.clone(),
            pending.clone(),
        );
        std::thread::spawn(move || rounds.run(&sender, &requests));
        Self {
            metadata,
            request,
            pending,
        }
    }
}

/// A client that requests metadata with these secrets.
///
/// # Errors
/// If a secret is missing or cannot be used, or librdkafka rejects the properties.
pub(super) fn metadata_client(
    options: &RunOptions,
    secrets: &Secrets,
) -> Result<MetadataClient, Problem> {
    MetadataClient::new(&options.settings.kafka, secrets, &options.pod)
        .map_err(|error| error.problem())
}

/// State of one topic. `kafka` are the settings that the client was made from. Blocks, and with a
/// stuck client forever.
///
/// # Errors
/// The problem that keeps the cluster from being used.
pub(super) fn describe_topic(
    client: &MetadataClient,
    name: &str,
    kafka: &KafkaSettings,
) -> Result<TopicDescription, Problem> {
    client
        .describe(name)
        .map_err(|class| cluster_problem(class, &kafka.bootstrap_servers.join(",")))
}
