//! What is asked of the brokers, round by round, and how it reads in a report. IO.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{mpsc::UnboundedSender, watch::Receiver},
};

use crate::{
    kafka::{Limits, TopicLimits, TopicState, Topics, ask_limits},
    relay::{
        ProblemSource, RunOptions, Status,
        core::{ids::TopicIndex, partition_growth::PartitionCounts},
        topic_metadata::{
            Asking, TopicMetadata,
            problems::{cluster_problem, growth_problem, is_advice, topic_problem},
        },
    },
    report::Problem,
    secrets::Secrets,
    settings::TopicSettings,
};

/// Pause between two rounds while something is wrong, in any case, and while nothing is.
const SOON: Duration = Duration::from_secs(2);
const AT_LEAST: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(30);
/// Limits of topics are asked for less often: each time by a client of its own. The first is for
/// rounds that somebody wished for.
const LIMITS_AT_LEAST: Duration = Duration::from_secs(10);
const LIMITS_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Rounds {
    options: Arc<RunOptions>,
    status: Arc<Status>,
    secrets: Receiver<Secrets>,
    runtime: Handle,
    asking: Asking,
    client: Option<Topics>,
    limits: Limits,
    limits_at: Option<Instant>,
    partitions: PartitionCounts,
    /// What could be written to in the round before.
    before: Vec<(usize, bool)>,
}

impl Rounds {
    pub(super) fn new(
        options: Arc<RunOptions>,
        status: Arc<Status>,
        secrets: Receiver<Secrets>,
        asking: Asking,
    ) -> Self {
        let topics = options.settings.topics.len();
        Self {
            options,
            status,
            secrets,
            runtime: Handle::current(),
            asking,
            client: None,
            limits: Limits(vec![TopicLimits::default(); topics]),
            limits_at: None,
            partitions: PartitionCounts::new(topics),
            before: Vec::new(),
        }
    }

    pub(super) fn run(
        &mut self,
        news: &UnboundedSender<TopicMetadata>,
        asked: &mpsc::Receiver<()>,
    ) {
        let mut wished = false;
        while !news.is_closed() {
            if self.secrets.has_changed().unwrap_or(false) {
                self.client = None;
            }
            let round = self.round(wished, news);
            if news.is_closed() {
                return; // another one tells by now
            }
            let calm = match round {
                Ok(problems) => {
                    let calm = problems.iter().all(|problem| is_advice(problem.class));
                    self.status.set_problems(ProblemSource::Kafka, vec![]);
                    self.status.set_problems(ProblemSource::Topics, problems);
                    calm
                }
                Err(problem) => {
                    self.status
                        .set_problems(ProblemSource::Kafka, vec![problem]);
                    // Made anew, so that a secret that was mended is read.
                    self.client = None;
                    false
                }
            };
            self.asking.set(None);
            std::thread::sleep(AT_LEAST);
            wished = asked.try_iter().count() > 0
                || asked.recv_timeout(if calm { LATER } else { SOON }).is_ok();
        }
    }

    /// Asks about every topic once; the answer is the list of what is wrong with them.
    fn round(
        &mut self,
        wished: bool,
        news: &UnboundedSender<TopicMetadata>,
    ) -> Result<Vec<Problem>, Problem> {
        let options = Arc::clone(&self.options);
        let settings = &options.settings;
        let topics = match &mut self.client {
            Some(topics) => topics,
            None => {
                let secrets = self.secrets.borrow_and_update().clone();
                self.client.insert(
                    Topics::new(&settings.kafka, &secrets, &options.pod)
                        .map_err(|error| error.problem())?,
                )
            }
        };
        let (mut usable, mut led, mut states) = (Vec::new(), Vec::new(), Vec::new());
        for (index, topic) in settings.topics.iter().enumerate() {
            self.asking.set(Some(Instant::now()));
            let state = topics.ask(&topic.name).map_err(|class| {
                cluster_problem(class, &settings.kafka.bootstrap_servers.join(","))
            })?;
            usable.push((index, matches!(state, TopicState::Exists { .. })));
            led.extend(matches!(state, TopicState::Exists { led: true, .. }).then_some(index));
            states.push(state);
            if let TopicState::Exists { partitions, .. } = state {
                let added =
                    self.partitions
                        .on_metadata(TopicIndex::new(index), partitions, Instant::now());
                self.status
                    .metrics
                    .partitions_added
                    .with_label_values(&[&topic.name])
                    .inc_by(added as u64);
            }
        }
        self.learn_limits(wished, &usable);
        self.before.clone_from(&usable);
        // Closed: the relay ends, and so does the next round.
        let _ = news.send(TopicMetadata {
            usable,
            led,
            partitions: self.partitions.counts(),
            limits: self.limits.clone(),
        });
        Ok(self.problems(&states))
    }

    fn problems(&self, states: &[TopicState]) -> Vec<Problem> {
        let now = Instant::now();
        let of_topic = |(index, (topic, state)): (usize, (&TopicSettings, &TopicState))| {
            let growth = self
                .partitions
                .growth(TopicIndex::new(index), now)
                .map(|growth| growth_problem(&topic.name, growth));
            topic_problem(
                &topic.name,
                *state,
                self.limits.0.get(index).copied().unwrap_or_default(),
            )
            .into_iter()
            .chain(growth)
        };
        self.options
            .settings
            .topics
            .iter()
            .zip(states)
            .enumerate()
            .flat_map(of_topic)
            .collect()
    }

    /// At first, when another topic can be written to, when somebody wishes it, and every minute.
    /// Without an answer what was known stays.
    fn learn_limits(&mut self, wished: bool, usable: &[(usize, bool)]) {
        let older_than = |age| self.limits_at.is_none_or(|at| at.elapsed() >= age);
        if !(older_than(LIMITS_EVERY)
            || (wished && older_than(LIMITS_AT_LEAST))
            || self.before != usable)
        {
            return;
        }
        let (options, names) = (
            &self.options,
            self.options
                .settings
                .topics
                .iter()
                .map(|topic| topic.name.as_str()),
        );
        let names: Vec<_> = names.collect();
        let secrets = self.secrets.borrow().clone();
        let asked = ask_limits(&options.settings.kafka, &secrets, &options.pod, &names);
        self.asking.set(Some(Instant::now()));
        let answer = self.runtime.block_on(asked);
        self.limits_at = answer.as_ref().map(|_| Instant::now());
        self.limits = answer.unwrap_or_else(|| std::mem::take(&mut self.limits));
    }
}
