//! Policy `Verify`: reports what is missing and changes nothing. IO, in a read-only transaction.

use sqlx::PgConnection;

use crate::{
    outbox::{
        adopt,
        migrate::{
            MigrateError, Migrated,
            grants::{self, WantedGrants},
            lock, name, relay_user, repair,
            transaction::MigrationConnection,
        },
        schema::{LEVEL, Ownership, SchemaError, SchemaState},
    },
    secrets::Secrets,
    settings::{RelaySettings, SchemaName},
};

/// Checks level, owner, table and rights of the schema.
///
/// # Errors
/// Returns an error when something is missing, or the database fails.
///
/// # Cancel safety
/// Cancel safe: it only reads, on a connection of its own.
pub(super) async fn verify(
    settings: &RelaySettings,
    secrets: &Secrets,
) -> Result<Migrated, MigrateError> {
    let schema = &settings.database.schema;
    let relay_user = relay_user(settings, secrets)?;
    let mut connection = MigrationConnection::open(settings, secrets).await?;
    let mut transaction = connection.begin_reading(schema).await?;

    let state = lock::read_state(&mut transaction, schema).await?;
    state.check_level(schema)?;
    check_owned(&state, settings)?;
    let notes = if state.level == LEVEL {
        repair::check(&mut transaction, schema).await?
    } else {
        Vec::new()
    };
    let wanted = WantedGrants::new(&settings.migration, relay_user);
    check_rights(&mut transaction, schema, wanted).await?;
    if state.level >= LEVEL {
        adopt::check_applied(&mut transaction, settings).await?;
    }
    Ok(Migrated {
        level: state.level,
        applied: Vec::new(),
        notes,
    })
}

/// Checks that the schema belongs to the owner of the settings.
fn check_owned(state: &SchemaState, settings: &RelaySettings) -> Result<(), MigrateError> {
    let schema = &settings.database.schema;
    if state.ownership(schema, &settings.owner)? == Ownership::Unowned {
        let schema = name(schema);
        return Err(SchemaError::NotReady { schema, level: 0 }.into());
    }
    Ok(())
}

async fn check_rights(
    connection: &mut PgConnection,
    schema: &SchemaName,
    wanted: WantedGrants,
) -> Result<(), MigrateError> {
    let missing = grants::missing(connection, schema, wanted).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let schema = name(schema);
    Err(MigrateError::RightsMissing { schema, missing })
}
