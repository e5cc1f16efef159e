//! Policy `Apply`: creates the schema, applies migrations, sets the owner and grants rights. IO, in
//! one transaction.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, SqlSafeStr, migrate::Migrator, query, query_scalar};

use crate::{
    outbox::{
        adopt,
        migrate::{
            MigrateError, Migrated,
            grants::{self, WantedGrants},
            lock, name, preparing, relay_user, repair,
            transaction::{self, MigrationConnection},
        },
        schema::{LEVEL, SchemaState, quoted, statement},
    },
    secrets::Secrets,
    settings::{Owner, RelaySettings, SchemaName},
};

/// Brings the schema to the level of this version.
///
/// # Errors
/// Returns an error when a step fails. Nothing was changed then, unless only the commit failed.
///
/// # Cancel safety
/// If dropped midway, the server rolls the transaction back, unless it was just being committed.
pub(super) async fn apply(
    settings: &RelaySettings,
    secrets: &Secrets,
    lock_wait: Duration,
) -> Result<Migrated, MigrateError> {
    let schema = &settings.database.schema;
    let relay_user = relay_user(settings, secrets)?;
    let mut connection = MigrationConnection::open(settings, secrets).await?;
    let mut transaction = connection.begin(schema).await?;

    lock::lock_schema(&mut transaction, schema, lock_wait).await?;
    adopt::lock_tables(&mut transaction, settings, lock_wait).await?;
    let before = lock::read_state(&mut transaction, schema).await?;
    before.check_not_too_new(schema)?;
    let wanted = WantedGrants::new(&settings.migration, relay_user);
    let notes = change_schema(&mut transaction, settings, &before, wanted).await?;
    let adopted = adopt::apply(&mut transaction, settings).await?;
    let mut migrated = describe_result(&mut transaction, schema, &before).await?;
    migrated.notes.extend(notes.into_iter().chain(adopted));

    transaction::commit(transaction)
        .await
        .map_err(|error| MigrateError::Commit {
            schema: name(schema),
            source: error.into(),
        })?;
    Ok(migrated)
}

/// Creates the schema, applies migrations, repairs what somebody changed, sets the owner and grants
/// rights. Returns what people should know about repairs.
async fn change_schema(
    connection: &mut PgConnection,
    settings: &RelaySettings,
    before: &SchemaState,
    wanted: WantedGrants,
) -> Result<Vec<String>, MigrateError> {
    let schema = &settings.database.schema;
    let replaced = before.replaced_owner(schema, settings)?;
    if let Some(owner) = replaced {
        check_no_active_relays(connection, schema, owner).await?;
    }
    create_schema(connection, schema).await?;
    run_migrations(connection, schema).await?;
    let notes = if before.level <= LEVEL {
        repair::repair(connection, schema).await?
    } else {
        Vec::new()
    };
    set_owner(connection, schema, &settings.owner, replaced).await?;
    grants::apply(connection, schema, wanted).await?;
    Ok(notes)
}

async fn create_schema(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<(), MigrateError> {
    // An administrator may have created the schema. Then no right to create one is needed.
    if !schema_exists(connection, schema).await? {
        query(statement("create schema @schema@", schema))
            .execute(&mut *connection)
            .await
            .map_err(|error| MigrateError::CreateSchema {
                schema: name(schema),
                source: error.into(),
            })?;
    }
    if is_open_to_all(connection, schema).await? {
        return Err(MigrateError::OpenToAll {
            schema: name(schema),
        });
    }
    Ok(())
}

/// Whether every role may create objects in the schema.
async fn is_open_to_all(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<bool, MigrateError> {
    query_scalar("select has_schema_privilege('public', $1, 'create')")
        .bind(schema.as_str())
        .fetch_one(connection)
        .await
        .map_err(preparing("read the privileges on the schema"))
}

/// Whether the schema exists.
///
/// # Errors
/// Returns an error when the database fails.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn schema_exists(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<bool, MigrateError> {
    query_scalar("select exists (select from pg_namespace where nspname = $1)")
        .bind(schema.as_str())
        .fetch_one(connection)
        .await
        .map_err(preparing("check whether the schema exists"))
}

async fn run_migrations(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<(), MigrateError> {
    // Not `run`: its future cannot move between threads ("implementation of `Acquire` is not
    // general enough").
    let run = migrator(schema).run_direct(None, connection, false).await;
    run.map_err(|error| why_not_applied(name(schema), error))
}

fn why_not_applied(schema: String, error: sqlx::migrate::MigrateError) -> MigrateError {
    use sqlx::migrate::MigrateError as SqlxError;
    match error {
        SqlxError::VersionMismatch(version) => MigrateError::OtherForm { schema, version },
        SqlxError::Execute(error) | SqlxError::ExecuteMigration(error, _)
            if exists_already(&error) =>
        {
            MigrateError::NotOurs { schema }
        }
        error => MigrateError::ApplyMigrations {
            schema,
            source: error.into(),
        },
    }
}

/// Configures sqlx to use our own table and lock, never its default ones: a service may use sqlx
/// for migrations of its own. Applied migrations that this version does not know are accepted,
/// because `compatible_from` protects the schema.
fn migrator(schema: &SchemaName) -> Migrator {
    let mut migrator = migrations();
    migrator.dangerous_set_table_name(format!("{}.schema_migrations", quoted(schema.as_str())));
    migrator.set_locking(false).set_ignore_missing(true);
    migrator
}

/// Migration whose view asks what some servers refuse. A later one makes another view.
const ASKING: i64 = 3;
/// Questions of [`ASKING`] that a server may refuse, and what is taken for their answers until the
/// later migration asks with care: 0 and empty texts, which are unknown there.
const QUERIES: [(&str, &str); 3] = [
    (
        "(pg_control_system()).system_identifier",
        "0::bigint as system_identifier",
    ),
    (
        "case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end \
         as timeline",
        "''::text as timeline",
    ),
    (
        "pg_relation_filepath('event_id_seq'::regclass) as sequence_file",
        "''::text as sequence_file",
    ),
];

/// All migrations that this version knows. Their checksums are those of the files.
pub(super) fn migrations() -> Migrator {
    let mut migrator = sqlx::migrate!("./migrations");
    for migration in migrator.migrations.to_mut() {
        if migration.version == ASKING {
            let mut sql = migration.sql.as_str().to_owned();
            for (question, answer) in QUERIES {
                sql = sql.replace(question, answer);
            }
            migration.sql = AssertSqlSafe(sql).into_sql_str();
        }
    }
    migrator
}

/// Whether a migration failed because a table, object or function of that name exists.
fn exists_already(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("42P07" | "42710" | "42723"))
}

/// Checks that no relay of the owner that is being replaced has a valid lease. Otherwise relays of
/// two owners would publish, each by its own manifest.
///
/// # Errors
/// Returns an error when there is such a relay, or the database fails.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn check_no_active_relays(
    connection: &mut PgConnection,
    schema: &SchemaName,
    owner: &Owner,
) -> Result<(), MigrateError> {
    let count = "select count(*) from @schema@.relay where lease_until > now()";
    let relays: i64 = query_scalar(statement(count, schema))
        .fetch_one(connection)
        .await
        .map_err(preparing("check for active relays"))?;
    if relays == 0 {
        return Ok(());
    }
    Err(MigrateError::OwnerAtWork {
        schema: name(schema),
        owner: owner.clone(),
        relays,
    })
}

/// Makes `owner` the owner of the schema, unless another one is. Removes `replaced` first.
async fn set_owner(
    connection: &mut PgConnection,
    schema: &SchemaName,
    owner: &Owner,
    replaced: Option<&Owner>,
) -> Result<(), MigrateError> {
    if let Some(replaced) = replaced {
        let remove = "delete from @schema@.owner where (cluster, namespace, name) = ($1, $2, $3)";
        change_owner(connection, schema, remove, replaced).await?;
    }
    let insert = "insert into @schema@.owner (cluster, namespace, name) values ($1, $2, $3) on \
        conflict do nothing";
    change_owner(connection, schema, insert, owner).await?;
    SchemaState::read(connection, schema)
        .await?
        .ownership(schema, owner)?;
    Ok(())
}

async fn change_owner(
    connection: &mut PgConnection,
    schema: &SchemaName,
    template: &'static str,
    owner: &Owner,
) -> Result<(), MigrateError> {
    query(statement(template, schema))
        .bind(&owner.cluster)
        .bind(&owner.namespace)
        .bind(&owner.name)
        .execute(connection)
        .await
        .map_err(|error| MigrateError::Claim {
            schema: name(schema),
            source: error.into(),
        })?;
    Ok(())
}

/// Note for a server without lz4.
const WITHOUT_LZ4: &str = "this server was built without lz4: payloads are compressed with its \
    default method, which is a little slower";

async fn describe_result(
    connection: &mut PgConnection,
    schema: &SchemaName,
    before: &SchemaState,
) -> Result<Migrated, MigrateError> {
    let level = SchemaState::read(&mut *connection, schema).await?.level;
    let mut notes = Vec::new();
    if !uses_lz4(connection, schema).await? {
        notes.push(WITHOUT_LZ4.to_owned());
    }
    Ok(Migrated {
        level,
        applied: (before.level + 1..=level).collect(),
        notes,
    })
}

/// Whether payloads are compressed with lz4. The migration chooses it when the server has it.
async fn uses_lz4(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<bool, MigrateError> {
    let lz4 = "select attcompression = 'l' from pg_attribute where attrelid = \
        '@schema@.event'::regclass and attname = 'payload'";
    query_scalar(statement(lz4, schema))
        .fetch_one(connection)
        .await
        .map_err(preparing("read the compression of payloads"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_schema_asks_nothing_that_a_server_may_refuse_before_it_asks_with_care() {
        let all = migrations();
        let asking = all.iter().find(|of| of.version == ASKING).expect("it is");
        for (question, answer) in QUERIES {
            assert!(!asking.sql.as_str().contains(question), "{question}");
            assert!(asking.sql.as_str().contains(answer), "{answer}");
        }
        let file = include_bytes!("../../../migrations/0003_resume.sql");
        let unchanged = sqlx::migrate!("./migrations");
        let original = unchanged.iter().find(|of| of.version == ASKING);
        let original = original.expect("it is");
        assert_eq!(original.sql.as_str().as_bytes(), file);
        assert_eq!(asking.checksum, original.checksum);
    }
}
