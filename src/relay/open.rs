//! From settings and secrets to a database whose schema fits: asked again until it does. IO.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{RunOptions, Source, Status, credentials::Credentials};
use crate::{
    outbox::{
        Pools, READER_OPTIONS, Store,
        connect::{Connect, pool},
        schema::check_schema,
    },
    report::Problem,
    secrets::Secrets,
    settings::DatabaseSettings,
};

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// A database that may be worked on.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) schema_version: i64,
}

/// Connects and checks the schema until both succeed; `None` when stopped before.
pub(super) async fn open(options: &RunOptions, status: &Status, credentials: &mut Credentials, stop: &CancellationToken) -> Option<Opened> {
    loop {
        status.turned(Instant::now());
        let secrets = credentials.database.borrow_and_update().clone();
        match attempt(options, &secrets).await {
            Ok(opened) => {
                status.tell(Source::Database, vec![]);
                return (!stop.is_cancelled()).then_some(opened);
            }
            Err(problem) => status.tell(Source::Database, vec![problem]),
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Connects and checks the schema once.
pub(super) async fn attempt(options: &RunOptions, secrets: &Secrets) -> Result<Opened, Problem> {
    let database = &options.settings.database;
    let connect = Connect::relay(database, secrets).map_err(|error| error.problem())?;
    let store = store(database, &connect);
    let schema_version = check_schema(store.lease_pool(), &database.schema, &options.settings.owner).await;
    Ok(Opened { store, schema_version: schema_version.map_err(|error| error.problem())? })
}

/// Connections that are opened when they are wanted.
pub(super) fn store(database: &DatabaseSettings, connect: &Connect) -> Store {
    let settlers = database.max_connections.saturating_sub(2).clamp(1, 2);
    let pools =
        Pools { reader: pool(connect, 1, READER_OPTIONS), settler: pool(connect, settlers, READER_OPTIONS), lease: pool(connect, 1, &[]) };
    Store::new(pools, &database.schema)
}
