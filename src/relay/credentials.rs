//! Secret files, watched for as long as the relay lives. A set that is complete, consistent and
//! accepted by the server is used by everything from then on; until then the last good set stays in
//! use. IO; what to do with a set is decided in [`crate::secrets::change`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch::{Receiver, Sender, channel};

use crate::{
    kafka::client_config,
    outbox::connect::Connect,
    relay::{
        RunOptions, connect,
        status::{ProblemSource, Status},
        topic_metadata::{describe_topic, metadata_client},
    },
    report::{Problem, ProblemClass},
    secrets::{
        SecretSnapshot, Secrets,
        change::{SecretChange, decide},
    },
    settings::{RelaySettings, SecretFile},
};

/// Pause between two reads of the files. Kubernetes swaps a link when a Secret changes, so contents
/// are compared, not times.
const READ_EVERY: Duration = Duration::from_secs(2);
/// A set that has just changed is read again after this pause: it may be half written.
const REREAD_AFTER: Duration = Duration::from_millis(250);
/// A set that a server refused is tried again after this pause: the server may learn of the new
/// secret later than we do.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Which server secrets are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Database,
    Kafka,
}

/// The secrets in use; their receivers also report changes. Until a first good set was found they
/// are the files themselves, so that whatever uses them reports what is wrong with them.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) database: Receiver<Secrets>,
    pub(super) kafka: Receiver<Secrets>,
}

impl Credentials {
    /// Waits for the next change, and returns whose secrets changed.
    ///
    /// # Cancel safety
    /// If dropped midway, no change is lost.
    pub(super) async fn changed(&mut self) -> Side {
        tokio::select! {
            Ok(()) = self.database.changed() => Side::Database,
            Ok(()) = self.kafka.changed() => Side::Kafka,
            else => std::future::pending().await,
        }
    }
}

/// Reads all files and follows their changes in tasks of their own, which end when no receiver is
/// left.
pub(super) fn follow(options: &Arc<RunOptions>, status: &Arc<Status>) -> Credentials {
    Credentials {
        database: follow_side(Side::Database, options, status),
        kafka: follow_side(Side::Kafka, options, status),
    }
}

fn follow_side(side: Side, options: &Arc<RunOptions>, status: &Arc<Status>) -> Receiver<Secrets> {
    let follower = Follower::new(side, Arc::clone(options), Arc::clone(status));
    let first = match &follower.in_use {
        Some(snapshot) => Secrets::from(snapshot.clone()),
        None => options.secrets.clone(),
    };
    let (sender, receiver) = channel(first);
    tokio::spawn(follower.follow(sender));
    receiver
}

/// Follows the files of one side.
struct Follower {
    side: Side,
    options: Arc<RunOptions>,
    status: Arc<Status>,
    in_use: Option<SecretSnapshot>,
    last_read: SecretSnapshot,
    /// A set that a server refused, and when it is tried again.
    refused: Option<(SecretSnapshot, Instant)>,
}

impl Follower {
    /// Takes the first good set without trying it: there is no better one, and whatever uses it
    /// reports what is wrong.
    fn new(side: Side, options: Arc<RunOptions>, status: Arc<Status>) -> Self {
        let last_read = options.secrets.read_all(&side.files(&options.settings));
        let change = side.change(&options.settings, None, &last_read);
        let in_use = (change == SecretChange::Usable).then(|| last_read.clone());
        Self {
            side,
            options,
            status,
            in_use,
            last_read,
            refused: None,
        }
    }

    async fn follow(mut self, sender: Sender<Secrets>) {
        let mut pause = READ_EVERY;
        loop {
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let Some(read) = self.read().await else {
                continue;
            };
            // Two equal reads: a set that is being written is never tried.
            let is_stable = read == self.last_read;
            self.last_read = read;
            pause = if is_stable { READ_EVERY } else { REREAD_AFTER };
            if is_stable && self.take_if_accepted().await {
                sender.send_replace(self.last_read.clone().into());
            }
        }
    }

    /// Reads the files; `None` when the thread that reads panicked.
    async fn read(&self) -> Option<SecretSnapshot> {
        let (side, options) = (self.side, Arc::clone(&self.options));
        tokio::task::spawn_blocking(move || {
            options.secrets.read_all(&side.files(&options.settings))
        })
        .await
        .ok()
    }

    /// Decides about the set that was read last. Returns whether it is used from now on.
    async fn take_if_accepted(&mut self) -> bool {
        match self.last_change() {
            SecretChange::Unchanged => self.set_problems(None),
            // Without a good set, whatever needs one reports what is wrong.
            SecretChange::Unusable(problem) => {
                self.set_problems(self.in_use.is_some().then_some(problem));
            }
            SecretChange::Usable if self.is_refused_for_now() => {}
            SecretChange::Usable => return self.try_last_read().await,
        }
        false
    }

    /// What the set that was read last means for the one in use.
    fn last_change(&self) -> SecretChange {
        let (settings, in_use) = (&self.options.settings, self.in_use.as_ref());
        self.side.change(settings, in_use, &self.last_read)
    }

    fn is_refused_for_now(&self) -> bool {
        self.refused
            .as_ref()
            .is_some_and(|(refused, until)| *refused == self.last_read && Instant::now() < *until)
    }

    /// Takes the set that was read last if the server accepts it. Returns whether it does.
    async fn try_last_read(&mut self) -> bool {
        match self.log_in().await {
            Ok(()) => {
                self.on_accepted();
                true
            }
            Err(problem) => {
                self.on_refused(&problem);
                false
            }
        }
    }

    /// Uses the set that was read last, which the server accepted.
    fn on_accepted(&mut self) {
        tracing::info!(
            side = ?self.side,
            "the secrets changed: the new ones are complete, the server accepts them, and the \
             relay uses them from now on"
        );
        self.in_use = Some(self.last_read.clone());
        self.set_problems(None);
    }

    /// Keeps the set in use, and tries the one that was read last again later.
    fn on_refused(&mut self, problem: &Problem) {
        self.refused = Some((self.last_read.clone(), Instant::now() + RETRY_AFTER));
        self.set_problems(Some(not_accepted(problem)));
    }

    /// Logs in with the set that was read last, beside the connections that work.
    async fn log_in(&self) -> Result<(), Problem> {
        if self.in_use.is_none() {
            return Ok(());
        }
        let secrets = Secrets::from(self.last_read.clone());
        let options = Arc::clone(&self.options);
        match self.side {
            Side::Database => log_in_to_database(&options, &secrets).await,
            Side::Kafka => log_in_to_kafka(options, secrets).await,
        }
    }

    fn set_problems(&self, problem: Option<Problem>) {
        let problems = problem.into_iter().collect();
        self.status.set_problems(self.side.into(), problems);
    }
}

impl From<Side> for ProblemSource {
    fn from(side: Side) -> Self {
        match side {
            Side::Database => Self::DatabaseSecrets,
            Side::Kafka => Self::KafkaSecrets,
        }
    }
}

impl Side {
    fn files(self, settings: &RelaySettings) -> Vec<SecretFile> {
        match self {
            Self::Database => settings.database.files(),
            Self::Kafka => settings.kafka.files(),
        }
    }

    /// What a set that was read means for the one in use.
    fn change(
        self,
        settings: &RelaySettings,
        in_use: Option<&SecretSnapshot>,
        read: &SecretSnapshot,
    ) -> SecretChange {
        decide(in_use, read, |secrets| self.check_usable(settings, secrets))
    }

    /// Checks that a client can be made of these secrets. Connects to nothing.
    fn check_usable(self, settings: &RelaySettings, secrets: &Secrets) -> Result<(), Problem> {
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

async fn log_in_to_database(options: &RunOptions, secrets: &Secrets) -> Result<(), Problem> {
    match connect::log_in(options, secrets).await {
        Err(problem) if !is_about_the_schema(problem.class) => Err(problem),
        _ => Ok(()),
    }
}

/// Checks on a thread of its own that the brokers answer a client with these secrets: librdkafka's
/// request blocks.
async fn log_in_to_kafka(options: Arc<RunOptions>, secrets: Secrets) -> Result<(), Problem> {
    let attempt = tokio::task::spawn_blocking(move || describe_first_topic(&options, &secrets));
    attempt.await.unwrap_or_else(|_| {
        Err(Problem::new(
            ProblemClass::KafkaError,
            "the attempt to log in to Kafka failed unexpectedly; the relay retries automatically",
        ))
    })
}

/// Whether a login succeeded although the database cannot be used: problems with the schema come
/// after it.
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
            "the new secret is not used; the last good one stays: {}",
            problem.message
        ),
    )
    .with_last_good_used()
}

/// Checks that the brokers answer a client with these secrets. Blocks.
fn describe_first_topic(options: &RunOptions, secrets: &Secrets) -> Result<(), Problem> {
    let settings = &options.settings;
    let client = metadata_client(options, secrets)?;
    match settings.topics.first() {
        Some(topic) => describe_topic(&client, &topic.name, &settings.kafka).map(drop),
        None => Ok(()),
    }
}
