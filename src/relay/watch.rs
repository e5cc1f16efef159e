//! Asks the brokers about the declared topics, for as long as the relay lives: what they say goes to the loop as news, what is wrong into the
//! report. IO, on a thread of its own, since librdkafka's question blocks.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    watch::Receiver,
};

use super::{RunOptions, Source, Status};
use crate::{
    kafka::{TopicState, Topics},
    report::{Problem, ProblemClass},
    secrets::Secrets,
};

/// Pause between two rounds while something is wrong, in any case, and while nothing is.
const SOON: Duration = Duration::from_secs(2);
const AT_LEAST: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(30);
/// Copies of a record that the no-loss contract needs.
const REPLICAS_MIN: usize = 3;

/// What a round found: the index of a declared topic, and whether it can be written to.
pub(super) type News = Vec<(usize, bool)>;

/// The running watch.
pub(super) struct Watch {
    news: UnboundedReceiver<News>,
    ask: mpsc::Sender<()>,
}

impl Watch {
    /// The next news. Cancelled midway, none is lost.
    pub(super) async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }

    /// Asks the brokers again at once.
    pub(super) fn ask_now(&self) {
        // Nobody listens when the watch has ended: then the relay ends too.
        let _ = self.ask.send(());
    }
}

/// Starts the watch; it ends when nobody hears its news any more.
pub(super) fn watch(options: Arc<RunOptions>, status: Arc<Status>, secrets: Receiver<Secrets>) -> Watch {
    let (sender, news) = unbounded_channel();
    let (ask, asked) = mpsc::channel();
    std::thread::spawn(move || rounds(&options, &status, secrets, &sender, &asked));
    Watch { news, ask }
}

fn rounds(options: &RunOptions, status: &Status, mut secrets: Receiver<Secrets>, news: &UnboundedSender<News>, asked: &mpsc::Receiver<()>) {
    let mut client = None;
    while !news.is_closed() {
        if secrets.has_changed().unwrap_or(false) {
            client = None;
        }
        let calm = match round(options, &mut secrets, &mut client, news) {
            Ok(problems) => {
                let calm = problems.iter().all(|problem| problem.class == ProblemClass::TopicUnderReplicated);
                status.tell(Source::Kafka, vec![]);
                status.tell(Source::Topics, problems);
                calm
            }
            Err(problem) => {
                status.tell(Source::Kafka, vec![problem]);
                // Made anew, so that a secret that was mended is read.
                client = None;
                false
            }
        };
        std::thread::sleep(AT_LEAST);
        let asked_meanwhile = asked.try_iter().count() > 0;
        if !asked_meanwhile {
            let _ = asked.recv_timeout(if calm { LATER } else { SOON });
        }
    }
}

/// Asks about every topic once; the answer is the list of what is wrong with them.
fn round(
    options: &RunOptions,
    secrets: &mut Receiver<Secrets>,
    client: &mut Option<Topics>,
    news: &UnboundedSender<News>,
) -> Result<Vec<Problem>, Problem> {
    let settings = &options.settings;
    let topics = match client {
        Some(topics) => topics,
        None => {
            let secrets = secrets.borrow_and_update().clone();
            client.insert(Topics::new(&settings.kafka, &secrets, &options.pod).map_err(|error| error.problem())?)
        }
    };
    let (mut found, mut problems) = (News::new(), Vec::new());
    for (index, topic) in settings.topics.iter().enumerate() {
        let state = topics.ask(&topic.name).map_err(|class| cluster_problem(class, &settings.kafka.bootstrap_servers.join(",")))?;
        found.push((index, matches!(state, TopicState::Exists { .. })));
        problems.extend(topic_problem(&topic.name, state));
    }
    // Closed: the relay ends, and so does the next round.
    let _ = news.send(found);
    Ok(problems)
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
