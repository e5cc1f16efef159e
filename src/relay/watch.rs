//! Asks the brokers about the declared topics, for as long as the relay lives: what they say goes to the loop as news, what is wrong into the
//! report. IO, on a thread of its own, since librdkafka's question blocks.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    runtime::Handle,
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        watch::Receiver,
    },
};

use super::{
    RunOptions, Source, Status,
    clock::Clock,
    partitions::{Growth, Partitions},
};
use crate::{
    kafka::{Limits, Sizes, TopicState, Topics, ask_limits, sizes},
    planted::{self, Bug},
    report::{Problem, ProblemClass},
    secrets::Secrets,
};

/// Pause between two rounds while something is wrong, in any case, and while nothing is.
const SOON: Duration = Duration::from_secs(2);
const AT_LEAST: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(30);
/// Limits of topics are asked for less often: each time by a client of its own. The first is for rounds that somebody wished for.
const LIMITS_AT_LEAST: Duration = Duration::from_secs(10);
const LIMITS_EVERY: Duration = Duration::from_secs(300);
/// Longer than any question takes by its own limits: nobody will answer it any more.
const ASKING_MAX: Duration = Duration::from_secs(30);
/// Copies of a record that the no-loss contract needs.
const REPLICAS_MIN: usize = 3;

/// What a round found.
pub(super) struct News {
    /// The index of a declared topic, and whether it can be written to.
    usable: Vec<(usize, bool)>,
    /// Of these each partition has a leader.
    led: Vec<usize>,
    /// Partitions of each declared topic; none while it was never seen.
    partitions: Vec<usize>,
    /// What the topics take, as far as known.
    limits: Limits,
}

impl News {
    /// Whether each partition of a topic has a leader.
    pub(super) fn is_led(&self, topic: usize) -> bool {
        self.led.contains(&topic)
    }

    /// How many partitions each declared topic has, where that is known.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (usize, usize)> {
        self.partitions.iter().copied().enumerate().filter(|(_, partitions)| *partitions > 0)
    }
}

impl<'a> IntoIterator for &'a News {
    type Item = &'a (usize, bool);
    type IntoIter = std::slice::Iter<'a, (usize, bool)>;

    fn into_iter(self) -> Self::IntoIter {
        self.usable.iter()
    }
}

/// The running watch.
pub(super) struct Watch {
    options: Arc<RunOptions>,
    status: Arc<Status>,
    secrets: Receiver<Secrets>,
    thread: Thread,
    clock: Clock,
    sizes: Option<Sizes>,
}

/// The thread that asks. It ends when nobody hears its news any more.
struct Thread {
    news: UnboundedReceiver<News>,
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

impl Watch {
    pub(super) fn start(options: Arc<RunOptions>, status: Arc<Status>, secrets: Receiver<Secrets>) -> Self {
        let thread = Thread::start(&options, &status, &secrets);
        Self { options, status, secrets, thread, clock: Clock::new(SystemTime::now(), Instant::now()), sizes: None }
    }

    /// Begins anew with another client when nobody answers any more, or will. Whether clients of Kafka hang, all of them: the clock was set back.
    pub(super) fn keep(&mut self, now: Instant) -> bool {
        if planted::has(Bug::ClockUnnoticed) {
            return false;
        }
        let set_back = self.clock.set_back(SystemTime::now(), now);
        if let Some(by) = set_back {
            tracing::warn!("the clock was set back by {by:.1?}: clients of Kafka are made anew, for they would wait for so long");
        } else if self.thread.asking.is_stuck(now) {
            tracing::warn!("the client that asks the brokers about topics has not come back for {ASKING_MAX:?}; another one asks");
        } else {
            return false;
        }
        self.thread = Thread::start(&self.options, &self.status, &self.secrets);
        set_back.is_some()
    }

    /// The next news. Cancelled midway, none is lost.
    pub(super) async fn next(&mut self) -> Option<News> {
        let news = self.thread.news.recv().await?;
        self.sizes = Some(sizes(&news.limits));
        Some(news)
    }

    /// Sizes of a producer that fits the topics as the latest news has them; `None` before the first.
    pub(super) fn sizes(&self) -> Option<Sizes> {
        self.sizes
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
        let (topics, asking) = (options.settings.topics.len(), Asking::default());
        let mut rounds = Rounds {
            options: Arc::clone(options),
            status: Arc::clone(status),
            secrets: secrets.clone(),
            runtime: Handle::current(),
            asking: asking.clone(),
            client: None,
            limits: Limits(vec![None; topics]),
            limits_at: None,
            partitions: Partitions::new(topics),
            before: Vec::new(),
        };
        std::thread::spawn(move || rounds.run(&sender, &asked));
        Self { news, ask, asking }
    }
}

struct Rounds {
    options: Arc<RunOptions>,
    status: Arc<Status>,
    secrets: Receiver<Secrets>,
    runtime: Handle,
    asking: Asking,
    client: Option<Topics>,
    limits: Limits,
    limits_at: Option<Instant>,
    partitions: Partitions,
    /// What could be written to in the round before.
    before: Vec<(usize, bool)>,
}

impl Rounds {
    fn run(&mut self, news: &UnboundedSender<News>, asked: &mpsc::Receiver<()>) {
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
                    self.status.tell(Source::Kafka, vec![]);
                    self.status.tell(Source::Topics, problems);
                    calm
                }
                Err(problem) => {
                    self.status.tell(Source::Kafka, vec![problem]);
                    // Made anew, so that a secret that was mended is read.
                    self.client = None;
                    false
                }
            };
            self.asking.set(None);
            std::thread::sleep(AT_LEAST);
            wished = asked.try_iter().count() > 0 || asked.recv_timeout(if calm { LATER } else { SOON }).is_ok();
        }
    }

    /// Asks about every topic once; the answer is the list of what is wrong with them.
    fn round(&mut self, wished: bool, news: &UnboundedSender<News>) -> Result<Vec<Problem>, Problem> {
        let options = Arc::clone(&self.options);
        let settings = &options.settings;
        let topics = match &mut self.client {
            Some(topics) => topics,
            None => {
                let secrets = self.secrets.borrow_and_update().clone();
                self.client.insert(Topics::new(&settings.kafka, &secrets, &options.pod).map_err(|error| error.problem())?)
            }
        };
        let (mut usable, mut led, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        for (index, topic) in settings.topics.iter().enumerate() {
            self.asking.set(Some(Instant::now()));
            let state = topics.ask(&topic.name).map_err(|class| cluster_problem(class, &settings.kafka.bootstrap_servers.join(",")))?;
            usable.push((index, matches!(state, TopicState::Exists { .. })));
            led.extend(matches!(state, TopicState::Exists { led: true, .. }).then_some(index));
            problems.extend(topic_problem(&topic.name, state));
            if let TopicState::Exists { partitions, .. } = state {
                let added = self.partitions.seen(index, partitions, Instant::now());
                self.status.metrics.partitions_added.with_label_values(&[&topic.name]).inc_by(added as u64);
            }
            problems.extend(self.partitions.growth(index, Instant::now()).map(|growth| growth_problem(&topic.name, growth)));
        }
        self.learn_limits(wished, &usable);
        self.before.clone_from(&usable);
        // Closed: the relay ends, and so does the next round.
        let _ = news.send(News { usable, led, partitions: self.partitions.counts(), limits: self.limits.clone() });
        Ok(problems)
    }

    /// At first, when another topic can be written to, when somebody wishes it, and every few minutes. Without an answer what was known stays.
    fn learn_limits(&mut self, wished: bool, usable: &[(usize, bool)]) {
        let older_than = |age| self.limits_at.is_none_or(|at| at.elapsed() >= age);
        if !(older_than(LIMITS_EVERY) || (wished && older_than(LIMITS_AT_LEAST)) || self.before != usable) {
            return;
        }
        let (options, names) = (&self.options, self.options.settings.topics.iter().map(|topic| topic.name.as_str()));
        let names: Vec<_> = names.collect();
        let secrets = self.secrets.borrow().clone();
        let asked = ask_limits(&options.settings.kafka, &secrets, &options.pod, &names);
        self.asking.set(Some(Instant::now()));
        let answer = self.runtime.block_on(asked);
        self.limits_at = answer.as_ref().map(|_| Instant::now());
        self.limits = answer.unwrap_or_else(|| std::mem::take(&mut self.limits));
    }
}

/// What needs no second look soon.
fn is_advice(class: ProblemClass) -> bool {
    matches!(class, ProblemClass::TopicUnderReplicated | ProblemClass::PartitionsAdded)
}

fn growth_problem(name: &str, Growth { from, to }: Growth) -> Problem {
    let message = format!(
        "topic '{name}' went from {from} to {to} partitions: keys move, and a key's order does not hold across that moment; compare outbox_seq"
    );
    Problem::new(ProblemClass::PartitionsAdded, message)
}

/// As it goes into a report.
pub(super) fn cluster_problem(class: ProblemClass, servers: &str) -> Problem {
    let why = match class {
        ProblemClass::KafkaAuthenticationFailed => "refused the login: check spec.kafka.sasl and its Secret",
        ProblemClass::KafkaTlsFailed => "failed the TLS check: check spec.kafka.tls, the CA and the host name",
        _ => "cannot be reached: check spec.kafka.bootstrapServers and the network; rows wait until it can",
    };
    Problem::new(class, format!("Kafka at {servers} {why}"))
}

fn topic_problem(name: &str, state: TopicState) -> Option<Problem> {
    match state {
        TopicState::Missing => {
            Some(Problem::new(ProblemClass::TopicMissing, format!("topic '{name}' does not exist: create it; its rows wait until then")))
        }
        TopicState::NotAuthorized => {
            let message = format!("topic '{name}' is not ours to use: allow WRITE and DESCRIBE on it; its rows wait until then");
            Some(Problem::new(ProblemClass::TopicNotAuthorized, message))
        }
        TopicState::Exists { replicas, .. } if replicas < REPLICAS_MIN => {
            let message = format!(
                "topic '{name}' has {replicas} of {REPLICAS_MIN} replicas: a lost broker can lose records; raise its replication factor"
            );
            Some(Problem::new(ProblemClass::TopicUnderReplicated, message))
        }
        TopicState::Exists { .. } => None,
    }
}
