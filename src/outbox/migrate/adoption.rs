//! Commands around the adoption of tables: what it would do, and moving many waiting rows before
//! it. IO.

use sqlx::PgConnection;

use crate::{
    outbox::{
        adopt::{self, DryRun},
        migrate::{
            MigrateError, lock, preparing,
            transaction::{self, MigrationConnection},
        },
    },
    report::Problem,
    secrets::Secrets,
    settings::{AdoptSettings, RelaySettings, SchemaName},
};

/// Counts for each table of `migration.adopt` what an adoption would do. Changes nothing, and takes
/// no lock that writers wait for. Whether the schema exists does not matter.
///
/// # Errors
/// Returns an error when the database cannot be reached or a table cannot be adopted.
///
/// # Cancel safety
/// Cancel safe: the server rolls the transaction back.
pub async fn dry_run(settings: &RelaySettings, secrets: &Secrets) -> Result<Vec<DryRun>, Problem> {
    Box::pin(run_dry(settings, secrets))
        .await
        .map_err(|error| error.problem())
}

async fn run_dry(settings: &RelaySettings, secrets: &Secrets) -> Result<Vec<DryRun>, MigrateError> {
    let mut connection = MigrationConnection::open(settings, secrets).await?;
    let mut transaction = connection.begin(&settings.database.schema).await?;
    let results = adopt::dry_run(&mut transaction, settings).await?;
    transaction
        .rollback()
        .await
        .map_err(preparing("roll the transaction back"))?;
    Ok(results)
}

/// Moves all waiting rows of a table of `migration.adopt` into the outbox, 1,000 in a transaction,
/// and calls `progress` after each with the number of rows that it moved. The table has no triggers
/// yet: its old worker must be stopped, or it publishes rows twice.
///
/// # Errors
/// Returns an error when the database fails, the schema is not migrated yet, or the table cannot be
/// adopted. The batches before it stay moved.
///
/// # Cancel safety
/// If dropped midway, the current batch is rolled back, unless it was just being committed.
pub async fn drain(
    settings: &RelaySettings,
    secrets: &Secrets,
    table: &AdoptSettings,
    mut progress: impl FnMut(i64),
) -> Result<(), Problem> {
    let mut connection = MigrationConnection::open(settings, secrets)
        .await
        .map_err(|error| error.problem())?;
    loop {
        let moved = Box::pin(drain_batch(&mut connection, settings, table))
            .await
            .map_err(|error| error.problem())?;
        if moved == 0 {
            return Ok(());
        }
        progress(moved);
    }
}

async fn drain_batch(
    connection: &mut MigrationConnection,
    settings: &RelaySettings,
    table: &AdoptSettings,
) -> Result<i64, MigrateError> {
    let schema = &settings.database.schema;
    let mut transaction = connection.begin(schema).await?;
    lock::lock_schema(&mut transaction, schema, super::LOCK_WAIT).await?;
    check_migrated(&mut transaction, schema).await?;
    let moved = adopt::drain(&mut transaction, settings, table).await?;
    transaction::commit(transaction)
        .await
        .map_err(|error| MigrateError::Commit {
            schema: schema.as_str().to_owned(),
            source: error.into(),
        })?;
    Ok(moved)
}

async fn check_migrated(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<(), MigrateError> {
    let state = lock::read_state(connection, schema).await?;
    Ok(state.check_level(schema)?)
}
