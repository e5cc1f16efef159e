//! Makes again what the migrations made and somebody changed. Which differences there are is
//! decided elsewhere; running the statements is IO.

use sqlx::{PgConnection, query, raw_sql};

use crate::{
    outbox::{
        migrate::{MigrateError, name, preparing},
        schema_drift::{Difference, Effect, differences, sentence},
        schema_facts::{expected_facts, read_facts},
    },
    settings::SchemaName,
};

/// A schema without its tables has nothing that a statement could repair, and functions name
/// tables and views that are made again after them.
const UNCHECKED_BODIES: &str = "set local check_function_bodies = off";

/// Repairs the schema. Returns a sentence for each thing that was repaired, and for each one that
/// is still different and can be tolerated.
///
/// # Errors
/// Returns an error for a difference that can break a promise and cannot be repaired, or when the
/// database fails.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn repair(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<Vec<String>, MigrateError> {
    let before = read_differences(connection, schema).await?;
    let beyond_repair = before
        .iter()
        .find(|difference| is_beyond_repair(difference));
    if let Some(difference) = beyond_repair {
        let sentence = sentence(difference, schema);
        return Err(MigrateError::SchemaChanged { sentence });
    }
    let mut notes = Vec::new();
    for difference in &before {
        if make_again(connection, schema, difference).await? {
            notes.push(format!("repaired: {}", difference.what));
        }
    }
    if notes.is_empty() {
        notes.extend(tolerated(&before, schema)?);
        return Ok(notes);
    }
    let after = read_differences(connection, schema).await?;
    notes.extend(tolerated(&after, schema)?);
    Ok(notes)
}

/// Checks the schema without changing it. Returns a sentence for each difference that can be
/// tolerated.
///
/// # Errors
/// Returns an error for a difference that can break a promise, or when the database fails.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn check(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<Vec<String>, MigrateError> {
    let differences = read_differences(connection, schema).await?;
    tolerated(&differences, schema)
}

/// Statements that [`repair`] would run, for a script; empty if there are none.
///
/// # Errors
/// Returns an error when the database fails.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn script(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<String, MigrateError> {
    let mut text = String::new();
    for difference in read_differences(connection, schema).await? {
        let repair = difference.repair.and_then(|fact| fact.repair(schema));
        if let Some(sql) = repair {
            text.push_str(&format!("-- {}.\n{}\n", difference.what, sql.as_str()));
        }
    }
    if !text.is_empty() {
        text = format!("\n-- Repairs.\n{UNCHECKED_BODIES};\n{text}");
    }
    Ok(text)
}

/// Whether only a person can undo a change, and it can break a promise.
fn is_beyond_repair(difference: &Difference) -> bool {
    difference.effect == Effect::Unsafe && difference.repair.is_none()
}

async fn read_differences(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<Vec<Difference>, MigrateError> {
    let found = read_facts(connection, schema)
        .await
        .map_err(preparing("read the definition of the schema"))?;
    Ok(differences(&expected_facts(), &found, schema))
}

/// Runs the statements that repair a difference. Returns whether there are any.
async fn make_again(
    connection: &mut PgConnection,
    schema: &SchemaName,
    difference: &Difference,
) -> Result<bool, MigrateError> {
    let Some(sql) = difference.repair.and_then(|fact| fact.repair(schema)) else {
        return Ok(false);
    };
    let failed = |source: sqlx::Error| MigrateError::Repair {
        schema: name(schema),
        what: difference.what.clone(),
        source: source.into(),
    };
    query(UNCHECKED_BODIES)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    raw_sql(sql).execute(connection).await.map_err(failed)?;
    Ok(true)
}

/// Sentences for differences that can be tolerated.
fn tolerated(differences: &[Difference], schema: &SchemaName) -> Result<Vec<String>, MigrateError> {
    let sentences = differences.iter().map(|difference| {
        let sentence = sentence(difference, schema);
        match difference.effect {
            Effect::Unsafe => Err(MigrateError::SchemaChanged { sentence }),
            Effect::Tolerable => Ok(sentence),
        }
    });
    sentences.collect()
}
