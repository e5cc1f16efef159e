//! One migration of a schema at a time, and the state before it. IO.

use std::time::Duration;

use sqlx::{PgConnection, query_scalar};
use tokio::time::Instant;

use crate::{
    outbox::{
        migrate::{MigrateError, name, preparing},
        schema::{SchemaError, SchemaState, statement},
    },
    report::ProblemClass,
    settings::SchemaName,
};

/// First of the two numbers of the advisory lock. The second is a hash of the schema's name. The
/// SQL function `enqueue` uses the number before this one.
const LOCK_CLASS: i32 = 1_868_720_754;
/// Pause between two attempts to get the lock.
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Waits until no other migration of this schema runs, at most `lock_wait`.
///
/// The lock is held until the transaction ends, so it is safe behind any pooler.
///
/// # Errors
/// Returns an error when the lock is still held after `lock_wait`, or the database fails.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too, which releases the lock.
pub(super) async fn lock_schema(
    connection: &mut PgConnection,
    schema: &SchemaName,
    lock_wait: Duration,
) -> Result<(), MigrateError> {
    let start = Instant::now();
    while !try_lock(connection, schema).await? {
        if start.elapsed() >= lock_wait {
            return Err(MigrateError::LockHeld {
                schema: name(schema),
                waited: lock_wait,
            });
        }
        tokio::time::sleep(LOCK_RETRY_PAUSE.min(lock_wait)).await;
    }
    Ok(())
}

async fn try_lock(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<bool, MigrateError> {
    query_scalar("select pg_try_advisory_xact_lock($1, hashtext($2))")
        .bind(LOCK_CLASS)
        .bind(schema.as_str())
        .fetch_one(connection)
        .await
        .map_err(preparing("lock the schema"))
}

/// Reads the state of the schema; [`SchemaState::EMPTY`] when there is none.
///
/// # Errors
/// Returns an error when the database fails, or the schema has a table `schema_migrations` that is
/// not the outbox's.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn read_state(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<SchemaState, MigrateError> {
    // Reading a table that does not exist would abort the transaction.
    if !has_migrations_table(connection, schema).await? {
        return Ok(SchemaState::EMPTY);
    }
    match SchemaState::read(connection, schema).await {
        Ok(state) => Ok(state),
        Err(error) if is_foreign_table(&error) => Err(MigrateError::NotOurs {
            schema: name(schema),
        }),
        Err(error) => Err(error.into()),
    }
}

async fn has_migrations_table(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<bool, MigrateError> {
    let exists = statement(
        "select to_regclass('@schema@.schema_migrations') is not null",
        schema,
    );
    query_scalar(exists)
        .fetch_one(connection)
        .await
        .map_err(preparing("check whether the schema exists"))
}

/// Whether a table of that name exists, but without our columns or our other tables.
fn is_foreign_table(error: &SchemaError) -> bool {
    match error {
        SchemaError::NotReady { .. } => true,
        SchemaError::ReadState { source, .. } => source.class == ProblemClass::SchemaNotReady,
        _ => false,
    }
}
