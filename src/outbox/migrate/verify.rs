//! Policy `Verify`: says what is missing, changes nothing. IO, in a read-only transaction.

use super::{
    Done, MigrateError,
    grants::{self, Wanted},
    lock, name, relay_user, shape,
};
use crate::{
    outbox::{
        connect::Connect,
        schema::{LEVEL, SchemaError},
    },
    secrets::Secrets,
    settings::RelaySettings,
};

pub(super) async fn verify(
    settings: &RelaySettings,
    secrets: &Secrets,
) -> Result<Done, MigrateError> {
    let schema = &settings.database.schema;
    let relay_user = relay_user(settings, secrets)?;
    let connect = Connect::migration(settings, secrets)?;
    let mut connection = connect.open().await?;
    let mut transaction = lock::begin_reading(&mut connection, &connect, schema).await?;

    let state = lock::state(&mut transaction, schema).await?;
    state.judge(schema)?;
    if !state.owned_by(schema, &settings.owner)? {
        return Err(SchemaError::NotReady {
            schema: name(schema),
            level: 0,
        }
        .into());
    }
    if state.level == LEVEL {
        shape::check(&mut transaction, schema).await?;
    }
    let missing = grants::missing(
        &mut transaction,
        schema,
        Wanted::new(&settings.migration, relay_user),
    )
    .await?;
    if !missing.is_empty() {
        return Err(MigrateError::RightsMissing {
            schema: name(schema),
            missing,
        });
    }
    Ok(Done {
        level: state.level,
        applied: Vec::new(),
        notes: Vec::new(),
    })
}
