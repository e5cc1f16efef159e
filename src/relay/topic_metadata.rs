//! Asks the brokers about the declared topics, for as long as the relay lives: what they say goes
//! to the loop as news, what is wrong into the report. IO, on a thread of its own, since
//! librdkafka's question blocks. What it asks is in [`rounds`].

mod problems;
mod rounds;

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{
    mpsc::{UnboundedReceiver, unbounded_channel},
    watch::Receiver,
};

pub(super) use crate::relay::topic_metadata::problems::cluster_problem;
use crate::{
    failpoints::{self, Bug},
    kafka::{BatchLimits, LimitsByTopic},
    relay::{RunOptions, Status, core::clock_step::Clock, topic_metadata::rounds::Rounds},
    secrets::Secrets,
};

/// Longer than any question takes by its own limits: nobody will answer it any more.
const ASKING_MAX: Duration = Duration::from_secs(30);

/// What a round found.
pub(super) struct TopicMetadata {
    /// The index of a declared topic, and whether it can be written to.
    usable: Vec<(usize, bool)>,
    /// Of these each partition has a leader.
    led: Vec<usize>,
    /// Partitions of each declared topic; none while it was never seen.
    partitions: Vec<usize>,
    /// What the topics take, as far as known.
    limits: LimitsByTopic,
}

impl TopicMetadata {
    /// Whether each partition of a topic has a leader.
    pub(super) fn is_led(&self, topic: usize) -> bool {
        self.led.contains(&topic)
    }

    /// How many partitions each declared topic has, where that is known.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (usize, usize)> {
        self.partitions
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, partitions)| *partitions > 0)
    }
}

impl<'a> IntoIterator for &'a TopicMetadata {
    type Item = &'a (usize, bool);
    type IntoIter = std::slice::Iter<'a, (usize, bool)>;

    fn into_iter(self) -> Self::IntoIter {
        self.usable.iter()
    }
}

/// The running watch.
pub(super) struct TopicMetadataWatch {
    options: Arc<RunOptions>,
    status: Arc<Status>,
    secrets: Receiver<Secrets>,
    thread: Thread,
    clock: Clock,
    batch_limits: Option<BatchLimits>,
}

/// The thread that asks. It ends when nobody hears its news any more.
struct Thread {
    news: UnboundedReceiver<TopicMetadata>,
    ask: mpsc::Sender<()>,
    asking: Asking,
}

/// Since when a question is under way.
#[derive(Clone, Default)]
struct Asking(Arc<Mutex<Option<Instant>>>);

impl Asking {
    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn is_stuck(&self, now: Instant) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| now.saturating_duration_since(since) > ASKING_MAX)
    }
}

impl TopicMetadataWatch {
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
            batch_limits: None,
        }
    }

    /// Begins anew with another client when nobody answers any more, or will. Whether clients of
    /// Kafka hang, all of them: the clock was set back.
    pub(super) fn keep(&mut self) -> bool {
        if failpoints::has(Bug::ClockUnnoticed) {
            return false;
        }
        // At the same time: the process may have stood still since the loop looked at the clock.
        let (wall, now) = (SystemTime::now(), Instant::now());
        let set_back = self.clock.set_back(wall, now);
        if let Some(by) = set_back {
            tracing::warn!(
                "the clock was set back by {by:.1?}: clients of Kafka are made anew, for they \
                 would wait for so long"
            );
        } else if self.thread.asking.is_stuck(now) {
            tracing::warn!(
                "the client that asks the brokers about topics has not come back for \
                 {ASKING_MAX:?}; another one asks"
            );
        } else {
            return false;
        }
        self.thread = Thread::start(&self.options, &self.status, &self.secrets);
        set_back.is_some()
    }

    /// The next news. Cancelled midway, none is lost.
    pub(super) async fn next(&mut self) -> Option<TopicMetadata> {
        let news = self.thread.news.recv().await?;
        self.batch_limits = Some(BatchLimits::for_topics(&news.limits));
        Some(news)
    }

    /// Sizes of a producer that fits the topics as the latest news has them; `None` before the
    /// first.
    pub(super) fn batch_limits(&self) -> Option<BatchLimits> {
        self.batch_limits
    }

    /// Asks the brokers again at once; for limits too, but these at most every 10 s.
    pub(super) fn ask_now(&self) {
        // Nobody listens when the watch has ended: then the relay ends too.
        let _ = self.thread.ask.send(());
    }
}

impl Thread {
    fn start(options: &Arc<RunOptions>, status: &Arc<Status>, secrets: &Receiver<Secrets>) -> Self {
        let (sender, news) = unbounded_channel();
        let (ask, asked) = mpsc::channel();
        let asking = Asking::default();
        let mut rounds = Rounds::new(
            Arc::clone(options),
            Arc::clone(status),
            secrets.clone(),
            asking.clone(),
        );
        std::thread::spawn(move || rounds.run(&sender, &asked));
        Self { news, ask, asking }
    }
}
