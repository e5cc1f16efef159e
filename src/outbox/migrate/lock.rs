//! One migration of a schema at a time, and the way to the state before it. IO.

use std::time::Duration;

use sqlx::{Connection, PgConnection, PgTransaction, query, query_scalar};
use tokio::time::Instant;

use super::{MigrateError, name, preparing};
use crate::{
    outbox::{
        connect::Connect,
        schema::{SchemaError, SchemaState, statement},
    },
    report::ProblemClass,
    settings::SchemaName,
};

/// First of the two numbers of our advisory lock; `enqueue` uses the one before it. The second is
/// the schema's.
const LOCK_CLASS: i32 = 1_868_720_754;
const LOCK_PAUSE: Duration = Duration::from_millis(200);
const OLDEST_SERVER: i32 = 15;

/// A transaction whose unqualified names are the schema's.
pub(super) async fn begin<'c>(
    connection: &'c mut PgConnection,
    connect: &Connect,
    schema: &SchemaName,
) -> Result<PgTransaction<'c>, MigrateError> {
    let mut transaction = connection
        .begin_with(connect.begin())
        .await
        .map_err(preparing("begin"))?;
    // pg_temp explicitly last: functions store this very path.
    let path = statement("set local search_path = @schema@, pg_temp", schema);
    query(path)
        .execute(&mut *transaction)
        .await
        .map_err(preparing("set the search path"))?;
    let version =
        query_scalar::<_, i32>("select current_setting('server_version_num')::int / 10000");
    let major = version
        .fetch_one(&mut *transaction)
        .await
        .map_err(preparing("ask for the server's version"))?;
    if major < OLDEST_SERVER {
        Err(MigrateError::ServerTooOld { major })
    } else {
        Ok(transaction)
    }
}

/// The same for somebody who changes nothing.
pub(super) async fn begin_reading<'c>(
    connection: &'c mut PgConnection,
    connect: &Connect,
    schema: &SchemaName,
) -> Result<PgTransaction<'c>, MigrateError> {
    let mut transaction = begin(connection, connect, schema).await?;
    query("set transaction read only")
        .execute(&mut *transaction)
        .await
        .map_err(preparing("set the transaction read only"))?;
    Ok(transaction)
}

/// Commits, and leaves none of our named statements behind: the connection may be a pooler's. One
/// that fails closes the connection, and a pooler then closes its own.
pub(super) async fn commit(mut transaction: PgTransaction<'_>) -> Result<(), sqlx::Error> {
    transaction.clear_cached_statements().await?;
    transaction.commit().await
}

/// Waits until no other migration of this schema runs. Held until the transaction ends, and thus
/// safe behind any pooler.
pub(super) async fn alone(
    connection: &mut PgConnection,
    schema: &SchemaName,
    lock_wait: Duration,
) -> Result<(), MigrateError> {
    let start = Instant::now();
    loop {
        let lock = query_scalar("select pg_try_advisory_xact_lock($1, hashtext($2))")
            .bind(LOCK_CLASS)
            .bind(schema.as_str());
        if lock
            .fetch_one(&mut *connection)
            .await
            .map_err(preparing("lock the schema"))?
        {
            return Ok(());
        }
        if start.elapsed() >= lock_wait {
            return Err(MigrateError::LockHeld {
                schema: name(schema),
                waited: lock_wait,
            });
        }
        tokio::time::sleep(LOCK_PAUSE.min(lock_wait)).await;
    }
}

/// What is there; level 0 when nothing is. A table that is missing is asked for first: an error
/// would end the transaction.
pub(super) async fn state(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<SchemaState, MigrateError> {
    let exists = statement(
        "select to_regclass('@schema@.schema_migrations') is not null",
        schema,
    );
    let exists = query_scalar::<_, bool>(exists)
        .fetch_one(&mut *connection)
        .await
        .map_err(preparing("look for the schema"))?;
    if !exists {
        return Ok(SchemaState {
            level: 0,
            compatible_from: 0,
            owner: None,
        });
    }
    match SchemaState::read(connection, schema).await {
        // There is a table of that name, but without our columns or our other tables.
        Err(SchemaError::NotReady { .. }) => Err(MigrateError::NotOurs {
            schema: name(schema),
        }),
        Err(SchemaError::ReadState { source, .. })
            if source.class == ProblemClass::SchemaNotReady =>
        {
            Err(MigrateError::NotOurs {
                schema: name(schema),
            })
        }
        state => Ok(state?),
    }
}
