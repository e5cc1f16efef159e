//! Policy `Apply`: schema, migrations, owner, grants. IO.

use std::time::Duration;

use sqlx::{PgConnection, migrate::Migrator, query, query_scalar};

use super::{
    Done, MigrateError,
    grants::{self, Wanted},
    lock, name, preparing, relay_user, shape,
};
use crate::{
    outbox::{
        connect::Connect,
        schema::{LEVEL, SchemaState, quoted, statement},
    },
    secrets::Secrets,
    settings::{Owner, RelaySettings, SchemaName},
};

pub(super) async fn apply(
    settings: &RelaySettings,
    secrets: &Secrets,
    lock_wait: Duration,
) -> Result<Done, MigrateError> {
    let schema = &settings.database.schema;
    let relay_user = relay_user(settings, secrets)?;
    let connect = Connect::migration(settings, secrets)?;
    let mut connection = connect.open().await?;
    let mut transaction = lock::begin(&mut connection, &connect, schema).await?;

    lock::alone(&mut transaction, schema, lock_wait).await?;
    let before = lock::state(&mut transaction, schema).await?;
    before.not_too_new(schema)?;
    let taken_from = before.taken_from(schema, settings)?;
    if let Some(owner) = taken_from {
        nobody_at_work(&mut transaction, schema, owner).await?;
    }
    create_schema(&mut transaction, schema).await?;
    run_migrations(&mut transaction, schema).await?;
    if before.level <= LEVEL {
        shape::check(&mut transaction, schema).await?;
    }
    claim(&mut transaction, schema, &settings.owner, taken_from).await?;
    grants::apply(
        &mut transaction,
        schema,
        Wanted::new(&settings.migration, relay_user),
    )
    .await?;
    let done = done(&mut transaction, schema, &before).await?;

    lock::commit(transaction)
        .await
        .map_err(|error| MigrateError::Commit {
            schema: name(schema),
            source: error.into(),
        })?;
    Ok(done)
}

/// An existing schema needs no right to create one: an administrator may have made it.
async fn create_schema(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<(), MigrateError> {
    let exists = query_scalar("select exists (select from pg_namespace where nspname = $1)")
        .bind(schema.as_str());
    if !exists
        .fetch_one(&mut *connection)
        .await
        .map_err(preparing("look for the schema"))?
    {
        let create = query(statement("create schema @schema@", schema))
            .execute(&mut *connection)
            .await;
        create.map_err(|error| MigrateError::CreateSchema {
            schema: name(schema),
            source: error.into(),
        })?;
    }
    let open =
        query_scalar("select has_schema_privilege('public', $1, 'create')").bind(schema.as_str());
    if open
        .fetch_one(connection)
        .await
        .map_err(preparing("look at the schema's rights"))?
    {
        return Err(MigrateError::OpenToAll {
            schema: name(schema),
        });
    }
    Ok(())
}

async fn run_migrations(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<(), MigrateError> {
    use sqlx::migrate::MigrateError as Failed;
    // Not `run`: its future cannot move between threads ("implementation of `Acquire` is not
    // general enough").
    match migrator(schema).run_direct(None, connection, false).await {
        Ok(()) => Ok(()),
        Err(Failed::VersionMismatch(version)) => Err(MigrateError::OtherForm {
            schema: name(schema),
            version,
        }),
        Err(Failed::Execute(error) | Failed::ExecuteMigration(error, _))
            if exists_already(&error) =>
        {
            Err(MigrateError::NotOurs {
                schema: name(schema),
            })
        }
        Err(error) => Err(MigrateError::ApplyMigrations {
            schema: name(schema),
            source: error.into(),
        }),
    }
}

/// Our bookkeeping table and our lock, never sqlx's default ones: a service may use sqlx itself.
/// Migrations of a newer version are fine, see `compatible_from`.
fn migrator(schema: &SchemaName) -> Migrator {
    let mut migrator = migrations();
    migrator.dangerous_set_table_name(format!("{}.schema_migrations", quoted(schema.as_str())));
    migrator.set_locking(false).set_ignore_missing(true);
    migrator
}

pub(super) fn migrations() -> Migrator {
    sqlx::migrate!("./migrations")
}

fn exists_already(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| matches!(code.as_ref(), "42P07" | "42710" | "42723"))
}

/// Two owners' relays at a time would each publish by their own manifest.
pub(super) async fn nobody_at_work(
    connection: &mut PgConnection,
    schema: &SchemaName,
    owner: &Owner,
) -> Result<(), MigrateError> {
    let relays = query_scalar::<_, i64>(statement(
        "select count(*) from @schema@.relay where lease_until > now()",
        schema,
    ));
    match relays
        .fetch_one(connection)
        .await
        .map_err(preparing("look for relays at work"))?
    {
        0 => Ok(()),
        relays => Err(MigrateError::OwnerAtWork {
            schema: name(schema),
            owner: owner.clone(),
            relays,
        }),
    }
}

async fn claim(
    connection: &mut PgConnection,
    schema: &SchemaName,
    owner: &Owner,
    from: Option<&Owner>,
) -> Result<(), MigrateError> {
    if let Some(from) = from {
        let remove = "delete from @schema@.owner where (cluster, namespace, name) = ($1, $2, $3)";
        let remove = query(statement(remove, schema))
            .bind(&from.cluster)
            .bind(&from.namespace)
            .bind(&from.name);
        let removed = remove.execute(&mut *connection).await;
        removed.map_err(|error| MigrateError::Claim {
            schema: name(schema),
            source: error.into(),
        })?;
    }
    let insert = "insert into @schema@.owner (cluster, namespace, name) values ($1, $2, $3) on \
        conflict do nothing";
    let insert = query(statement(insert, schema))
        .bind(&owner.cluster)
        .bind(&owner.namespace)
        .bind(&owner.name);
    let inserted = insert.execute(&mut *connection).await;
    inserted.map_err(|error| MigrateError::Claim {
        schema: name(schema),
        source: error.into(),
    })?;
    SchemaState::read(connection, schema)
        .await?
        .owned_by(schema, owner)?;
    Ok(())
}

async fn done(
    connection: &mut PgConnection,
    schema: &SchemaName,
    before: &SchemaState,
) -> Result<Done, MigrateError> {
    let level = SchemaState::read(&mut *connection, schema).await?.level;
    let lz4 = "select attcompression = 'l' from pg_attribute where attrelid = \
        '@schema@.event'::regclass and attname = 'payload'";
    let lz4 = query_scalar::<_, bool>(statement(lz4, schema));
    let mut notes = Vec::new();
    if !lz4
        .fetch_one(connection)
        .await
        .map_err(preparing("look at the payload's compression"))?
    {
        notes.push("this server was built without lz4: payloads are compressed in its default way, a little slower".to_owned());
    }
    Ok(Done {
        level,
        applied: (before.level + 1..=level).collect(),
        notes,
    })
}
