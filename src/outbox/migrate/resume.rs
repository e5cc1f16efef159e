//! `migrate --resume-sequence`: moves the sequence of ids on when a person knows that ids may be
//! drawn twice and nothing in the database shows it. IO, in one transaction.

use sqlx::{FromRow, query};

use crate::{
    outbox::{
        migrate::{MigrateError, lock, name, transaction, transaction::MigrationConnection},
        schema::statement,
    },
    report::Problem,
    secrets::Secrets,
    settings::{RelaySettings, SchemaName},
};

/// Statement that moves the sequence on, in the columns of `sql/resume_sequence.sql`.
const RESUME: &str = "select was_at, moved from @schema@.resume_sequence(anyway => true)";

/// Moves the sequence of ids on, whatever its state, and returns a sentence that describes what was
/// done. Running relays start over.
///
/// # Errors
/// Returns an error when the schema is missing, older or another one's, or the database fails.
/// Nothing was changed then, unless only the commit failed.
///
/// # Cancel safety
/// If dropped midway, either nothing is changed, or everything.
pub async fn resume_sequence(
    settings: &RelaySettings,
    secrets: &Secrets,
) -> Result<String, Problem> {
    Box::pin(resume(settings, secrets))
        .await
        .map_err(|error| error.problem())
}

/// SQL that [`resume_sequence`] would run.
#[must_use]
pub fn resume_script(schema: &SchemaName) -> String {
    format!(
        "\n-- Advances the id sequence, and gives new ids to rows whose ids may have been used \
         already.\n{};\n",
        statement(RESUME, schema).as_str()
    )
}

async fn resume(settings: &RelaySettings, secrets: &Secrets) -> Result<String, MigrateError> {
    let schema = &settings.database.schema;
    let mut connection = MigrationConnection::open(settings, secrets).await?;
    let mut transaction = connection.begin(schema).await?;
    let state = lock::read_state(&mut transaction, schema).await?;
    state.check_level(schema)?;
    // A schema without an owner is accepted too.
    state.ownership(schema, &settings.owner)?;
    let failed = |source: sqlx::Error| MigrateError::ResumeSequence {
        schema: name(schema),
        source: source.into(),
    };
    let row = query(statement(RESUME, schema))
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
    let (was_at, moved): (i64, i64) = FromRow::from_row(&row).map_err(failed)?;
    transaction::commit(transaction).await.map_err(failed)?;
    Ok(format!(
        "the id sequence was at {was_at} and has been advanced; {moved} waiting rows got new ids"
    ))
}
