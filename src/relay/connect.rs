//! From settings and secrets to a lease in a database whose schema fits. Repeats until it succeeds.
//! IO.

use std::time::{Duration, Instant};

use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    outbox::{
        Connections, DatabaseClock, Pools, READER_OPTIONS, SchemaDrift, Store, UnsupportedProduct,
        check_product, connect::Connect, expected_facts, fetch_facts, judge_drift,
        schema::check_schema, with_lacking_rights,
    },
    relay::{
        RunOptions,
        core::{
            lane_share::LEASE_TTL,
            sequence_check::{self, SequenceMemory, SequenceRegression},
        },
        own_migration::OwnMigration,
        status::{ProblemSource, Status},
    },
    report::{Problem, ProblemClass},
    secrets::Secrets,
    settings::DatabaseSettings,
};

/// Pause between two attempts to connect.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// How often a long attempt reports that the process is alive. Far below the 30 s after which
/// `/healthz` fails.
const ALIVE_EVERY: Duration = Duration::from_secs(2);

/// A database to work on, and the instance that was registered in it.
pub(super) struct Connected {
    pub(super) store: Store,
    pub(super) schema_version: i64,
    pub(super) registration: Registration,
    /// When the lease was requested; its deadline counts from here.
    pub(super) leased_at: Instant,
    /// The database's clock.
    pub(super) clock: DatabaseClock,
}

/// Identity of a session in the database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registration {
    /// Instance that holds the lease.
    pub(super) instance: Uuid,
    /// Incarnation of the outbox for which the sequence was right when the session began.
    pub(super) incarnation: Uuid,
}

/// What the attempts to connect work with.
pub(super) struct Connecting<'a> {
    pub(super) options: &'a RunOptions,
    pub(super) status: &'a Status,
    pub(super) secrets: &'a mut Receiver<Secrets>,
    pub(super) memory: &'a mut SequenceMemory,
    pub(super) migration: &'a mut OwnMigration,
}

/// Connects, migrates if that is due, checks the schema, resumes the sequence if that is due, and
/// registers a new instance. Repeats until all of it succeeds. `None` when stopped before.
///
/// # Cancel safety
/// If dropped midway, an instance may have been registered: it owns no lane, and its lease runs
/// out.
pub(super) async fn connect(
    mut connecting: Connecting<'_>,
    stop: &CancellationToken,
) -> Option<Connected> {
    let status = connecting.status;
    loop {
        let attempted = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            attempted = connecting.attempt() => attempted,
            () = report_alive(status) => unreachable!("it never returns"),
        };
        let pause = match connecting.report(attempted) {
            Ok(connected) => return Some(connected),
            Err(pause) => pause,
        };
        tokio::select! {
            () = stop.cancelled() => return None,
            Ok(()) = connecting.secrets.changed() => {}
            () = tokio::time::sleep(pause) => {}
            () = report_alive(status) => unreachable!("it never returns"),
        }
    }
}

/// Keeps `/healthz` good: to renumber many rows takes long, and a restart would begin it again.
async fn report_alive(status: &Status) {
    loop {
        status.record_turn(Instant::now());
        tokio::time::sleep(ALIVE_EVERY).await;
    }
}

/// What an attempt connected to and the advice about the table, or the problem that ended it.
type Attempted = Result<(Connected, Vec<Problem>), Problem>;

impl Connecting<'_> {
    /// Makes one attempt. Returns advice too, if somebody changed the table in a way that can be
    /// tolerated.
    async fn attempt(&mut self) -> Attempted {
        let options = self.options;
        let secrets = self.secrets.borrow_and_update().clone();
        self.migration.run_if_due(options).await?;
        let (store, schema_version) = log_in(options, &secrets).await?;
        let begun = self.begin(store.clone(), schema_version).await;
        match begun {
            Ok(connected) => Ok(connected),
            Err(problem) => Err(with_rights(options, &store, problem).await),
        }
    }

    /// Checks the table, resumes the sequence if that is due, and registers a new instance.
    async fn begin(&mut self, store: Store, schema_version: i64) -> Attempted {
        let options = self.options;
        let advice = check_schema_facts(options, &store).await?;
        let incarnation = resume_sequence(&store, self.status, self.memory).await?;
        // The lease counts from before the statement is sent, on this process's monotonic clock.
        let leased_at = Instant::now();
        let (registration, clock) = register(&store, &options.pod, incarnation).await?;
        let connected = Connected {
            store,
            schema_version,
            registration,
            leased_at,
            clock,
        };
        Ok((connected, advice))
    }

    /// Reports how an attempt ended. Returns what it connected to, or the pause before the next
    /// attempt.
    fn report(&mut self, attempted: Attempted) -> Result<Connected, Duration> {
        match attempted {
            Ok((connected, advice)) => {
                self.status.set_problems(ProblemSource::Database, vec![]);
                self.status.set_problems(ProblemSource::Table, advice);
                Ok(connected)
            }
            Err(problem) => {
                if problem.class == ProblemClass::SchemaNotReady {
                    // A changed sequence looks like another database at first. It has a cause now.
                    self.status.set_problems(ProblemSource::Sequence, vec![]);
                }
                let pause = self.migration.on_problem(&problem, RETRY_PAUSE);
                self.status
                    .set_problems(ProblemSource::Database, vec![problem]);
                Err(pause)
            }
        }
    }
}

/// Registers a new instance, which owns no lane yet. Returns the database's clock, too.
async fn register(
    store: &Store,
    pod: &str,
    incarnation: Uuid,
) -> Result<(Registration, DatabaseClock), Problem> {
    let instance = Uuid::new_v4();
    let clock = store
        .register(instance, pod, LEASE_TTL)
        .await
        .map_err(|error| error.problem())?;
    let registration = Registration {
        instance,
        incarnation,
    };
    Ok((registration, clock))
}

/// Compares the schema with what the migrations made.
async fn check_schema_facts(options: &RunOptions, store: &Store) -> Result<Vec<Problem>, Problem> {
    let schema = &options.settings.database.schema;
    let found = fetch_facts(store.lease_connections(), schema)
        .await
        .map_err(|error| error.problem())?;
    match judge_drift(&expected_facts(), &found, schema) {
        SchemaDrift::No => Ok(vec![]),
        SchemaDrift::Tolerable(problem) => Ok(vec![problem]),
        SchemaDrift::Unsafe(problem) => Err(problem),
    }
}

/// Moves the sequence of ids forward if ids may have been drawn twice. Returns the incarnation of
/// the outbox. No row is read or sent before.
async fn resume_sequence(
    store: &Store,
    status: &Status,
    memory: &mut SequenceMemory,
) -> Result<Uuid, Problem> {
    let before = store
        .sequence_state()
        .await
        .map_err(|error| error.problem())?;
    if before.incarnation.is_none() {
        report_sequence(
            status,
            memory,
            SequenceRegression::OtherIncarnation.problem(),
        );
    }
    let (resumed, after) = store
        .resume_sequence(memory.highest_id)
        .await
        .map_err(|error| error.problem())?;
    if resumed.resumed {
        let problem = sequence_check::resumed_problem(resumed, after.position);
        report_sequence(status, memory, problem);
    }
    after
        .incarnation
        .ok_or_else(|| SequenceRegression::OtherIncarnation.problem())
}

/// Reports a problem with the sequence, for as long as [`SequenceMemory`] keeps it.
fn report_sequence(status: &Status, memory: &mut SequenceMemory, problem: Problem) {
    status.set_problems(ProblemSource::Sequence, vec![problem]);
    memory.on_reported(Instant::now());
}

/// Connects and reads the schema's level. Changes nothing.
///
/// # Errors
/// The problem that keeps the relay from working with this database.
///
/// # Cancel safety
/// If dropped midway, its connections are closed.
pub(super) async fn log_in(
    options: &RunOptions,
    secrets: &Secrets,
) -> Result<(Store, i64), Problem> {
    let database = &options.settings.database;
    let connect = Connect::relay(database, secrets).map_err(|error| error.problem())?;
    let store = new_store(database, &connect);
    check_product(store.lease_connections())
        .await
        .map_err(UnsupportedProduct::problem)?;
    let level = check_schema(
        store.lease_connections(),
        &database.schema,
        &options.settings.owner,
    )
    .await;
    match level {
        Ok(level) => Ok((store, level)),
        Err(error) => Err(with_rights(options, &store, error.problem()).await),
    }
}

async fn with_rights(options: &RunOptions, store: &Store, problem: Problem) -> Problem {
    let schema = &options.settings.database.schema;
    with_lacking_rights(store.lease_connections(), schema, problem).await
}

/// A store whose connections are opened when they are first used.
pub(super) fn new_store(database: &DatabaseSettings, connect: &Connect) -> Store {
    // One connection reads and one holds the lease; of the others, two settle at most.
    let settlers = database.max_connections.saturating_sub(2).clamp(1, 2);
    let pools = Pools {
        reader: Connections::new(connect, 1, READER_OPTIONS),
        settler: Connections::new(connect, settlers, READER_OPTIONS),
        lease: Connections::new(connect, 1, &[]),
    };
    Store::new(pools, &database.schema)
}
