//! Secret files, looked at for as long as the relay lives. A set that is complete, fits together
//! and lets us in is what everybody uses from then on; until then the last good one is. IO; what to
//! do with a set is decided in [`crate::secrets::change`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch::{Receiver, Sender, channel};

use crate::{
    kafka::{MetadataClient, client_config},
    outbox::connect::Connect,
    relay::{ProblemSource, RunOptions, Status, connect, topic_metadata::cluster_problem},
    report::{Problem, ProblemClass},
    secrets::{
        SecretSnapshot, Secrets,
        change::{SecretChange, decide},
    },
    settings::{RelaySettings, SecretFile},
};

/// Pause between two looks. Kubernetes swaps a link when a Secret changes, so contents are
/// compared, not times.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A set that has just changed is looked at again: somebody may still be writing.
const SETTLED_AFTER: Duration = Duration::from_millis(250);
/// A set that a server refused is tried again: the server may be told of it later than we are.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Whose secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Database,
    Kafka,
}

/// The secrets in use; a receiver also tells of a change. Until a first good set was found they are
/// the files themselves, for their errors.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) database: Receiver<Secrets>,
    pub(super) kafka: Receiver<Secrets>,
}

impl Credentials {
    /// Whose secrets changed next. Cancelled midway, no change is lost.
    pub(super) async fn changed(&mut self) -> Side {
        tokio::select! {
            Ok(()) = self.database.changed() => Side::Database,
            Ok(()) = self.kafka.changed() => Side::Kafka,
            else => std::future::pending().await,
        }
    }
}

/// Reads all files and follows their changes; ends when nobody uses the credentials any more.
pub(super) fn follow(options: &Arc<RunOptions>, status: &Arc<Status>) -> Credentials {
    let side = |side| {
        let follower = Follower::begin(side, Arc::clone(options), Arc::clone(status));
        let (sender, receiver) = channel(
            follower
                .in_use
                .clone()
                .map_or_else(|| options.secrets.clone(), Secrets::from),
        );
        tokio::spawn(follower.follow(sender));
        receiver
    };
    Credentials {
        database: side(Side::Database),
        kafka: side(Side::Kafka),
    }
}

struct Follower {
    side: Side,
    options: Arc<RunOptions>,
    status: Arc<Status>,
    in_use: Option<SecretSnapshot>,
    /// The last look.
    seen: SecretSnapshot,
    /// What a server did not accept, and when it is tried again.
    refused: Option<(SecretSnapshot, Instant)>,
}

impl Follower {
    /// The first good set is taken unseen: there is nothing better, and whoever uses it says what
    /// is wrong.
    fn begin(side: Side, options: Arc<RunOptions>, status: Arc<Status>) -> Self {
        let seen = options.secrets.read_all(&side.files(&options.settings));
        let usable = |secrets: &Secrets| side.usable(&options.settings, secrets);
        let in_use = (decide(None, &seen, usable) == SecretChange::Usable).then(|| seen.clone());
        Self {
            side,
            options,
            status,
            in_use,
            seen,
            refused: None,
        }
    }

    async fn follow(mut self, sender: Sender<Secrets>) {
        let mut pause = LOOK_EVERY;
        loop {
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let Some(now) = self.look().await else {
                continue;
            };
            let settled = now == self.seen;
            self.seen = now;
            pause = if settled { LOOK_EVERY } else { SETTLED_AFTER };
            if settled && self.consider().await {
                sender.send_replace(self.seen.clone().into());
            }
        }
    }

    async fn look(&self) -> Option<SecretSnapshot> {
        let (side, options) = (self.side, Arc::clone(&self.options));
        tokio::task::spawn_blocking(move || {
            options.secrets.read_all(&side.files(&options.settings))
        })
        .await
        .ok()
    }

    /// Whether what was seen is used from now on.
    async fn consider(&mut self) -> bool {
        let (side, settings) = (self.side, &self.options.settings);
        match decide(self.in_use.as_ref(), &self.seen, |secrets| {
            side.usable(settings, secrets)
        }) {
            SecretChange::Unchanged => self.set_problems(None),
            // Without a good set, those who need it tell what is wrong.
            SecretChange::Unusable(problem) => {
                self.set_problems(self.in_use.is_some().then_some(problem))
            }
            SecretChange::Usable if self.waits() => {}
            SecretChange::Usable => match self.try_it().await {
                Ok(()) => {
                    tracing::info!(side = ?self.side, "the secrets changed: they are complete, \
                        are accepted, and used from now on");
                    self.in_use = Some(self.seen.clone());
                    self.set_problems(None);
                    return true;
                }
                Err(problem) => {
                    self.refused = Some((self.seen.clone(), Instant::now() + RETRY_AFTER));
                    self.set_problems(Some(not_accepted(&problem)));
                }
            },
        }
        false
    }

    fn waits(&self) -> bool {
        self.refused
            .as_ref()
            .is_some_and(|(refused, until)| *refused == self.seen && Instant::now() < *until)
    }

    /// Logs in with what was seen, beside the connections that work.
    async fn try_it(&self) -> Result<(), Problem> {
        let secrets = Secrets::from(self.seen.clone());
        if self.in_use.is_none() {
            return Ok(());
        }
        let options = Arc::clone(&self.options);
        match self.side {
            Side::Database => match connect::log_in(&options, &secrets).await {
                Err(problem) if !is_about_the_schema(problem.class) => Err(problem),
                _ => Ok(()),
            },
            Side::Kafka => {
                let asked = tokio::task::spawn_blocking(move || log_in(&options, &secrets)).await;
                asked.unwrap_or_else(|_| {
                    Err(Problem::new(
                        ProblemClass::KafkaError,
                        "the attempt to log in broke off; it is made again",
                    ))
                })
            }
        }
    }

    fn set_problems(&self, problem: Option<Problem>) {
        let source = match self.side {
            Side::Database => ProblemSource::DatabaseSecrets,
            Side::Kafka => ProblemSource::KafkaSecrets,
        };
        self.status
            .set_problems(source, problem.into_iter().collect());
    }
}

impl Side {
    fn files(self, settings: &RelaySettings) -> Vec<SecretFile> {
        match self {
            Self::Database => settings.database.files(),
            Self::Kafka => settings.kafka.files(),
        }
    }

    /// Whether a client can be made of them.
    fn usable(self, settings: &RelaySettings, secrets: &Secrets) -> Result<(), Problem> {
        match self {
            Self::Database => Connect::relay(&settings.database, secrets)
                .map(drop)
                .map_err(|error| error.problem()),
            Self::Kafka => client_config(&settings.kafka, secrets, "")
                .map(drop)
                .map_err(|error| error.problem()),
        }
    }
}

/// Who hears this of the database has logged in.
fn is_about_the_schema(class: ProblemClass) -> bool {
    matches!(
        class,
        ProblemClass::SchemaNotReady
            | ProblemClass::NewerSchema
            | ProblemClass::SchemaClaimedByOther
    )
}

fn not_accepted(problem: &Problem) -> Problem {
    Problem::new(
        problem.class,
        format!(
            "the new secret is not used, the last good one is: {}",
            problem.message
        ),
    )
    .with_last_good_used()
}

/// Whether the brokers answer a client with these secrets. Blocks.
fn log_in(options: &RunOptions, secrets: &Secrets) -> Result<(), Problem> {
    let settings = &options.settings;
    let client = MetadataClient::new(&settings.kafka, secrets, &options.pod)
        .map_err(|error| error.problem())?;
    let Some(topic) = settings.topics.first() else {
        return Ok(());
    };
    let answer = client.describe(&topic.name);
    answer
        .map(drop)
        .map_err(|class| cluster_problem(class, &settings.kafka.bootstrap_servers.join(",")))
}
