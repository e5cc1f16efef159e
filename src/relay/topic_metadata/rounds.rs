//! What is requested of the brokers, round by round, and the problems that this shows. IO.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{mpsc::UnboundedSender, watch::Receiver},
};

use crate::{
    kafka::{LimitsByTopic, MetadataClient, TopicDescription, TopicLimits, request_topic_limits},
    relay::{
        RunOptions,
        core::{ids::TopicIndex, partition_growth::PartitionCounts},
        status::{ProblemSource, Status},
        topic_metadata::{
            PendingSince, TopicMetadata, describe_topic, metadata_client,
            problems::{growth_problem, is_advice, topic_problem},
        },
    },
    report::Problem,
    secrets::Secrets,
};

/// Pause between two rounds while something is wrong.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Shortest pause between two rounds, whatever requests them.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Pause between two rounds while nothing is wrong.
const STEADY_PAUSE: Duration = Duration::from_secs(30);
/// Age from which limits are refreshed by a round that was requested. Each refresh takes a client
/// of its own.
const LIMITS_AGE_MIN: Duration = Duration::from_secs(10);
/// Age from which limits are refreshed by any round.
const LIMITS_AGE_MAX: Duration = Duration::from_secs(60);

/// Why a round begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    /// The pause is over.
    Timer,
    /// The loop requested it.
    Request,
}

impl Trigger {
    /// Age from which a round refreshes the limits.
    fn limits_age_max(self) -> Duration {
        match self {
            Self::Request => LIMITS_AGE_MIN,
            Self::Timer => LIMITS_AGE_MAX,
        }
    }
}

/// The thread's own state: its client, and what earlier rounds found.
pub(super) struct Rounds {
    options: Arc<RunOptions>,
    status: Arc<Status>,
    secrets: Receiver<Secrets>,
    runtime: Handle,
    pending: PendingSince,
    /// Absent after a failure: the next one reads the secrets again, which may have been
    /// corrected.
    client: Option<MetadataClient>,
    limits: LimitsByTopic,
    /// When the limits were last answered.
    limits_at: Option<Instant>,
    partitions: PartitionCounts,
    /// Which topics could be written to in the round before.
    usable_before: Vec<(TopicIndex, bool)>,
}

impl Rounds {
    /// Takes the runtime of the calling thread for requests that are async.
    pub(super) fn new(
        options: Arc<RunOptions>,
        status: Arc<Status>,
        secrets: Receiver<Secrets>,
        pending: PendingSince,
    ) -> Self {
        let topics = options.settings.topics.len();
        Self {
            options,
            status,
            secrets,
            runtime: Handle::current(),
            pending,
            client: None,
            limits: LimitsByTopic(vec![TopicLimits::default(); topics]),
            limits_at: None,
            partitions: PartitionCounts::new(topics),
            usable_before: Vec::new(),
        }
    }

    /// Runs rounds until `metadata` has no receiver any more. Blocks.
    pub(super) fn run(
        &mut self,
        metadata: &UnboundedSender<TopicMetadata>,
        requests: &mpsc::Receiver<()>,
    ) {
        let mut trigger = Trigger::Timer;
        while !metadata.is_closed() {
            if self.secrets.has_changed().unwrap_or(false) {
                self.client = None;
            }
            let round = self.round(trigger, metadata);
            if metadata.is_closed() {
                return; // Another thread has taken over, and reports.
            }
            let has_failed = round.is_err();
            let pause = match self.report(round) {
                Outlook::Good => STEADY_PAUSE,
                Outlook::Bad => RETRY_PAUSE,
            };
            if has_failed {
                // Only now: it waits for librdkafka's threads, and one of them may wait for a name
                // server for longer than a problem may stay unreported.
                self.client = None;
            }
            self.pending.set(None);
            trigger = next_trigger(requests, pause);
        }
    }

    fn report(&self, round: Result<Vec<Problem>, Problem>) -> Outlook {
        match round {
            Ok(problems) => self.report_topics(problems),
            Err(problem) => self.report_cluster(problem),
        }
    }

    /// Reports the topics' problems of a round that succeeded.
    fn report_topics(&self, problems: Vec<Problem>) -> Outlook {
        let outlook = Outlook::after(&problems);
        self.status.set_problems(ProblemSource::Kafka, vec![]);
        self.status.set_problems(ProblemSource::Topics, problems);
        outlook
    }

    /// Reports the problem with the cluster that ended a round.
    fn report_cluster(&self, problem: Problem) -> Outlook {
        self.status
            .set_problems(ProblemSource::Kafka, vec![problem]);
        Outlook::Bad
    }

    /// Requests the state of every topic once, and sends what it finds. Returns the topics'
    /// problems, or the cluster's.
    fn round(
        &mut self,
        trigger: Trigger,
        metadata: &UnboundedSender<TopicMetadata>,
    ) -> Result<Vec<Problem>, Problem> {
        let states = self.topic_states()?;
        let usable = usable_topics(&states);
        if self.are_limits_due(trigger, &usable) {
            self.refresh_limits();
        }
        self.usable_before.clone_from(&usable);
        // Fails only when the relay ends; then the next round is not begun.
        let _ = metadata.send(TopicMetadata {
            usable,
            led: led_topics(&states),
            partitions: self.partitions.counts(),
            limits: self.limits.clone(),
        });
        Ok(self.problems(&states))
    }

    /// State of each declared topic, in their order.
    fn topic_states(&mut self) -> Result<Vec<TopicDescription>, Problem> {
        let client = self.take_client()?;
        let states = self.describe_all(&client);
        // Kept after a failure, too: see `run`.
        self.client = Some(client);
        states
    }

    /// The client of the round before, or a new one.
    fn take_client(&mut self) -> Result<MetadataClient, Problem> {
        match self.client.take() {
            Some(client) => Ok(client),
            None => self.new_client(),
        }
    }

    fn describe_all(&mut self, client: &MetadataClient) -> Result<Vec<TopicDescription>, Problem> {
        let options = Arc::clone(&self.options);
        let mut states = Vec::new();
        for (index, topic) in options.settings.topics.iter().enumerate() {
            let state = self.describe(client, &topic.name)?;
            states.push(state);
            if let TopicDescription::Exists { partitions, .. } = state {
                self.on_partitions(TopicIndex::new(index), &topic.name, partitions);
            }
        }
        Ok(states)
    }

    /// State of one topic, or the problem with the cluster. Blocks, and with a stuck client
    /// forever.
    fn describe(&self, client: &MetadataClient, name: &str) -> Result<TopicDescription, Problem> {
        // From here on the loop may find that the client does not return, and replace this thread.
        self.pending.set(Some(Instant::now()));
        describe_topic(client, name, &self.options.settings.kafka)
    }

    /// A client for the secrets as they are now.
    fn new_client(&mut self) -> Result<MetadataClient, Problem> {
        let secrets = self.secrets.borrow_and_update().clone();
        metadata_client(&self.options, &secrets)
    }

    fn on_partitions(&mut self, topic: TopicIndex, name: &str, partitions: usize) {
        let added = self
            .partitions
            .on_metadata(topic, partitions, Instant::now());
        self.status.metrics.add_partitions(name, added);
    }

    fn problems(&self, states: &[TopicDescription]) -> Vec<Problem> {
        let now = Instant::now();
        let mut problems = Vec::new();
        for (index, (topic, state)) in self.options.settings.topics.iter().zip(states).enumerate() {
            let limits = self.limits.0.get(index).copied().unwrap_or_default();
            problems.extend(topic_problem(&topic.name, *state, limits));
            if let Some(growth) = self.partitions.growth(TopicIndex::new(index), now) {
                problems.push(growth_problem(&topic.name, growth));
            }
        }
        problems
    }

    /// Whether to request the topics' limits: at first, when another topic can be written to, when
    /// the loop requested a round, and every minute.
    fn are_limits_due(&self, trigger: Trigger, usable: &[(TopicIndex, bool)]) -> bool {
        let are_old = |at: Instant| at.elapsed() >= trigger.limits_age_max();
        self.limits_at.is_none_or(are_old) || self.usable_before != usable
    }

    /// Requests the topics' limits. Without an answer the limits stay as they are known.
    fn refresh_limits(&mut self) {
        let answer = self.request_limits();
        self.limits_at = answer.as_ref().map(|_| Instant::now());
        if let Some(limits) = answer {
            self.limits = limits;
        }
    }

    /// Limits of all topics; `None` without an answer. Blocks.
    fn request_limits(&self) -> Option<LimitsByTopic> {
        let settings = &self.options.settings;
        let topics = settings.topics.iter();
        let names: Vec<_> = topics.map(|topic| topic.name.as_str()).collect();
        let secrets = self.secrets.borrow().clone();
        let request = request_topic_limits(&settings.kafka, &secrets, &self.options.pod, &names);
        self.pending.set(Some(Instant::now()));
        self.runtime.block_on(request)
    }
}

/// Whether each topic can be written to.
fn usable_topics(states: &[TopicDescription]) -> Vec<(TopicIndex, bool)> {
    by_topic(states)
        .map(|(topic, state)| (topic, is_usable(state)))
        .collect()
}

fn is_usable(state: &TopicDescription) -> bool {
    matches!(state, TopicDescription::Exists { .. })
}

/// Topics of which each partition has a leader.
fn led_topics(states: &[TopicDescription]) -> Vec<TopicIndex> {
    let led = by_topic(states).filter(|(_, state)| is_led(state));
    led.map(|(topic, _)| topic).collect()
}

fn is_led(state: &TopicDescription) -> bool {
    matches!(
        state,
        TopicDescription::Exists {
            has_leaders: true,
            ..
        }
    )
}

/// States with the indexes of their topics.
fn by_topic(states: &[TopicDescription]) -> impl Iterator<Item = (TopicIndex, &TopicDescription)> {
    states
        .iter()
        .enumerate()
        .map(|(index, state)| (TopicIndex::new(index), state))
}

/// Waits for the next round: [`PAUSE_MIN`], then until one is requested, at most `pause`.
fn next_trigger(requests: &mpsc::Receiver<()>, pause: Duration) -> Trigger {
    std::thread::sleep(PAUSE_MIN);
    // Several requests that came meanwhile need one round only.
    let is_requested = requests.try_iter().count() > 0 || requests.recv_timeout(pause).is_ok();
    if is_requested {
        Trigger::Request
    } else {
        Trigger::Timer
    }
}

/// What a round means for the pause before the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlook {
    /// Nothing is wrong, or nothing that changes within seconds.
    Good,
    /// Something is wrong: when it ends should be noticed soon.
    Bad,
}

impl Outlook {
    /// The outlook after a round that found these problems with topics.
    fn after(problems: &[Problem]) -> Self {
        if problems.iter().all(|problem| is_advice(problem.class)) {
            Self::Good
        } else {
            Self::Bad
        }
    }
}
