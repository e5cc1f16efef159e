//! From settings and secrets to a lease in a database whose schema fits: asked again until there is one. IO.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{RunOptions, Source, Status, lanes::LEASE_TTL};
use crate::{
    outbox::{
        Altered, Pools, READER_OPTIONS, Store, altered,
        connect::{Connect, pool},
        schema::{LEVEL, check_schema},
    },
    report::Problem,
};

/// Pause between two attempts. Secrets are read anew each time.
const PAUSE: Duration = Duration::from_secs(2);

/// A database that may be worked on, by an instance whose lease runs.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) schema_version: i64,
    pub(super) instance: Uuid,
    /// When the lease was asked for.
    pub(super) leased: Instant,
}

/// Connects, checks the schema and registers a new instance until all succeed; `None` when stopped before.
pub(super) async fn open(options: &RunOptions, status: &Status, stop: &CancellationToken) -> Option<Opened> {
    loop {
        status.turned(Instant::now());
        match attempt(options).await {
            Ok((opened, advice)) => {
                status.tell(Source::Database, vec![]);
                status.tell(Source::Table, advice);
                return Some(opened);
            }
            Err(problem) => status.tell(Source::Database, vec![problem]),
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// With what to say of a table that somebody changed.
async fn attempt(options: &RunOptions) -> Result<(Opened, Vec<Problem>), Problem> {
    let database = &options.settings.database;
    let connect = Connect::relay(database, &options.secrets).map_err(|error| error.problem())?;
    let lease = pool(&connect, 1, &[]);
    let schema_version = check_schema(&lease, &database.schema, &options.settings.owner).await.map_err(|error| error.problem())?;
    let found = if schema_version == LEVEL { altered(&lease, &database.schema).await } else { Ok(Altered::No) };
    let advice = match found.map_err(|fault| fault.problem())? {
        Altered::No => vec![],
        Altered::Bearable(problem) => vec![problem],
        Altered::Unreadable(problem) => return Err(problem),
    };
    let settlers = database.max_connections.saturating_sub(2).clamp(1, 2);
    let pools = Pools { reader: pool(&connect, 1, READER_OPTIONS), settler: pool(&connect, settlers, READER_OPTIONS), lease };
    let store = Store::new(pools, &database.schema);
    let (instance, leased) = (Uuid::new_v4(), Instant::now());
    store.register(instance, &options.pod, LEASE_TTL).await.map_err(|error| error.problem())?;
    Ok((Opened { store, schema_version, instance, leased }, advice))
}
