//! From settings and secrets to a lease in a database whose schema fits: asked again until there is
//! one. IO.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    outbox::{
        Connections, Pools, READER_OPTIONS, SchemaDrift, Store, check_drift,
        connect::Connect,
        schema::{LEVEL, check_schema},
    },
    relay::{
        ProblemSource, RunOptions, Status,
        core::{
            lane_share::LEASE_TTL,
            sequence_check::{self, SequenceMemory, SequenceRegression},
        },
        credentials::Credentials,
    },
    report::Problem,
    secrets::Secrets,
    settings::DatabaseSettings,
};

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// A database that may be worked on, by an instance whose lease runs.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) schema_version: i64,
    pub(super) instance: Uuid,
    /// Of the outbox, as its sequence was right when this began.
    pub(super) incarnation: Uuid,
    /// When the lease was asked for.
    pub(super) leased: Instant,
}

/// Connects, checks the schema, moves the sequence on if that is due and registers a new instance
/// until all succeed; `None` when stopped before.
pub(super) async fn open(
    options: &RunOptions,
    status: &Status,
    credentials: &mut Credentials,
    memory: &mut SequenceMemory,
    stop: &CancellationToken,
) -> Option<Opened> {
    loop {
        let secrets = credentials.database.borrow_and_update().clone();
        let attempted = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            attempted = attempt(options, &secrets, status, memory) => attempted,
            () = turn(status) => unreachable!("it turns for ever"),
        };
        match attempted {
            Ok((opened, advice)) => {
                status.set_problems(ProblemSource::Database, vec![]);
                status.set_problems(ProblemSource::Table, advice);
                return Some(opened);
            }
            Err(problem) => status.set_problems(ProblemSource::Database, vec![problem]),
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Moving many rows takes long, and is no reason to be restarted.
async fn turn(status: &Status) {
    loop {
        status.turned(Instant::now());
        tokio::time::sleep(PAUSE).await;
    }
}

/// With what to say of a table that somebody changed.
async fn attempt(
    options: &RunOptions,
    secrets: &Secrets,
    status: &Status,
    memory: &mut SequenceMemory,
) -> Result<(Opened, Vec<Problem>), Problem> {
    let database = &options.settings.database;
    let (store, schema_version) = log_in(options, secrets).await?;
    let lease = store.lease_connections();
    let found = if schema_version == LEVEL {
        check_drift(lease, &database.schema).await
    } else {
        Ok(SchemaDrift::No)
    };
    let advice = match found.map_err(|fault| fault.problem())? {
        SchemaDrift::No => vec![],
        SchemaDrift::Tolerable(problem) => vec![problem],
        SchemaDrift::Unreadable(problem) => return Err(problem),
    };
    let incarnation = resume(&store, status, memory).await?;
    let (instance, leased) = (Uuid::new_v4(), Instant::now());
    store
        .register(instance, &options.pod, LEASE_TTL)
        .await
        .map_err(|error| error.problem())?;
    Ok((
        Opened {
            store,
            schema_version,
            instance,
            incarnation,
            leased,
        },
        advice,
    ))
}

/// Moves the sequence of ids on, if they may have come again. Nothing is read or sent before.
async fn resume(
    store: &Store,
    status: &Status,
    memory: &mut SequenceMemory,
) -> Result<Uuid, Problem> {
    let before = store
        .sequence_state()
        .await
        .map_err(|error| error.problem())?;
    if before.incarnation.is_none() {
        status.set_problems(
            ProblemSource::Sequence,
            vec![SequenceRegression::OtherIncarnation.problem()],
        );
        memory.on_reported(Instant::now());
    }
    let (done, after) = store
        .resume_sequence(memory.highest_id)
        .await
        .map_err(|error| error.problem())?;
    if done.resumed {
        status.set_problems(
            ProblemSource::Sequence,
            vec![sequence_check::resumed_problem(done, after.position)],
        );
        memory.on_reported(Instant::now());
    }
    after
        .incarnation
        .ok_or_else(|| SequenceRegression::OtherIncarnation.problem())
}

/// Connects and reads the schema's level, and changes nothing.
pub(super) async fn log_in(
    options: &RunOptions,
    secrets: &Secrets,
) -> Result<(Store, i64), Problem> {
    let database = &options.settings.database;
    let connect = Connect::relay(database, secrets).map_err(|error| error.problem())?;
    let store = store(database, &connect);
    let level = check_schema(
        store.lease_connections(),
        &database.schema,
        &options.settings.owner,
    )
    .await;
    Ok((store, level.map_err(|error| error.problem())?))
}

/// Connections that are opened when they are wanted.
pub(super) fn store(database: &DatabaseSettings, connect: &Connect) -> Store {
    let settlers = database.max_connections.saturating_sub(2).clamp(1, 2);
    let pools = Pools {
        reader: Connections::new(connect, 1, READER_OPTIONS),
        settler: Connections::new(connect, settlers, READER_OPTIONS),
        lease: Connections::new(connect, 1, &[]),
    };
    Store::new(pools, &database.schema)
}
