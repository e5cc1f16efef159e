//! `migrate --resume-sequence`: a person knows that ids came again where nothing in the database
//! tells. IO, in one transaction.

use sqlx::{FromRow, query};

use super::{MigrateError, lock, name};
use crate::{
    outbox::{connect::Connect, schema::statement},
    report::Problem,
    secrets::Secrets,
    settings::{RelaySettings, SchemaName},
};

/// The statement, in the columns of `sql/resume_sequence.sql`.
const RESUME: &str = "select was_at, moved from @schema@.resume_sequence(anyway => true)";

/// Moves the sequence of ids on, whatever is known of it, and says what was done. Relays that run
/// begin anew.
///
/// # Errors
/// When the schema is missing, older or another one's, or the database fails. Nothing was changed
/// then.
pub async fn resume_sequence(
    settings: &RelaySettings,
    secrets: &Secrets,
) -> Result<String, Problem> {
    Box::pin(resume(settings, secrets))
        .await
        .map_err(|error| error.problem())
}

/// What it would run.
#[must_use]
pub fn resume_script(schema: &SchemaName) -> String {
    format!(
        "\n-- Moves the sequence of ids on, and gives rows whose ids may have been used already \
         new ones.\n{};\n",
        statement(RESUME, schema).as_str()
    )
}

async fn resume(settings: &RelaySettings, secrets: &Secrets) -> Result<String, MigrateError> {
    let schema = &settings.database.schema;
    let connect = Connect::migration(settings, secrets)?;
    let mut connection = connect.open().await?;
    let mut transaction = lock::begin(&mut connection, &connect, schema).await?;
    let state = lock::state(&mut transaction, schema).await?;
    state.judge(schema)?;
    state.owned_by(schema, &settings.owner)?;
    let failed = |source: sqlx::Error| MigrateError::ResumeSequence {
        schema: name(schema),
        source: source.into(),
    };
    let row = query(statement(RESUME, schema))
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
    let (was_at, moved): (i64, i64) = FromRow::from_row(&row).map_err(failed)?;
    lock::commit(transaction).await.map_err(failed)?;
    Ok(format!(
        "the sequence of ids stood at {was_at} and was moved on; {moved} waiting rows got new ids"
    ))
}
