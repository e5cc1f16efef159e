//! Script of what policy `Apply` would run, for a database administrator. Reading the schema is IO,
//! in a read-only transaction; writing the script is pure.

use std::collections::BTreeSet;

use sqlx::{PgConnection, migrate::Migration, query_scalar};

use crate::{
    outbox::{
        adopt,
        migrate::{
            MigrateError, apply,
            grants::{self, WantedGrants},
            lock, preparing, relay_user, repair,
            transaction::MigrationConnection,
        },
        schema::{LEVEL, literal, quoted, statement},
    },
    report::Problem,
    secrets::Secrets,
    settings::{Owner, RelaySettings, SchemaName},
};

/// State of the schema from which the script is written.
struct ScriptInputs {
    level: i64,
    schema_exists: bool,
    /// Numbers of the migrations that were applied.
    applied: BTreeSet<i64>,
    /// Statements that make again what somebody changed.
    repairs: String,
    /// Statements that set the rights.
    grants: String,
    /// Owner that `migration.takeOverFrom` allows to replace, if the schema belongs to it.
    replaced: Option<Owner>,
    /// Statements that adopt and release tables.
    adoptions: String,
}

/// Writes the script, whatever `migration.policy` is. Changes nothing.
///
/// # Errors
/// Returns an error when the database cannot be reached, and for everything that would stop a
/// migration too: another owner, a schema that is too new, a missing role.
///
/// # Cancel safety
/// Cancel safe: it only reads, on a connection of its own.
pub async fn script(settings: &RelaySettings, secrets: &Secrets) -> Result<String, Problem> {
    let inputs = Box::pin(inspect(settings, secrets))
        .await
        .map_err(|error| error.problem())?;
    Ok(render(&settings.database.schema, &settings.owner, &inputs))
}

async fn inspect(
    settings: &RelaySettings,
    secrets: &Secrets,
) -> Result<ScriptInputs, MigrateError> {
    let schema = &settings.database.schema;
    let relay_user = relay_user(settings, secrets)?;
    let mut connection = MigrationConnection::open(settings, secrets).await?;
    let mut transaction = connection.begin_reading(schema).await?;

    let state = lock::read_state(&mut transaction, schema).await?;
    state.check_not_too_new(schema)?;
    let replaced = state.replaced_owner(schema, settings)?.cloned();
    if let Some(owner) = &replaced {
        apply::check_no_active_relays(&mut transaction, schema, owner).await?;
    }
    let repairs = if state.level == LEVEL {
        repair::script(&mut transaction, schema).await?
    } else {
        String::new()
    };
    let wanted = WantedGrants::new(&settings.migration, relay_user);
    Ok(ScriptInputs {
        level: state.level,
        schema_exists: apply::schema_exists(&mut transaction, schema).await?,
        applied: applied_versions(&mut transaction, schema, state.level).await?,
        grants: grants::script(&mut transaction, schema, wanted).await?,
        adoptions: adopt::script(&mut transaction, settings).await?,
        replaced,
        repairs,
    })
}

async fn applied_versions(
    connection: &mut PgConnection,
    schema: &SchemaName,
    level: i64,
) -> Result<BTreeSet<i64>, MigrateError> {
    if level == 0 {
        return Ok(BTreeSet::new());
    }
    let sql = statement("select version from @schema@.schema_migrations", schema);
    let versions: Vec<i64> = query_scalar(sql)
        .fetch_all(connection)
        .await
        .map_err(preparing("read which migrations were applied"))?;
    Ok(versions.into_iter().collect())
}

fn render(schema: &SchemaName, owner: &Owner, inputs: &ScriptInputs) -> String {
    let schema = quoted(schema.as_str());
    let mut text = format!(
        "-- Statements that outbox-relay {} runs to bring schema {schema} from level {} to {}.
-- Run this script as the role that owns the tables. Do not run it as a superuser: the functions
-- would have the privileges of a superuser.
--   psql --set ON_ERROR_STOP=1 --file FILE DATABASE
begin isolation level read committed;
",
        env!("CARGO_PKG_VERSION"),
        inputs.level,
        inputs.level.max(LEVEL),
    );
    if !inputs.schema_exists {
        text.push_str(&format!("create schema {schema};\n"));
    }
    text.push_str(&format!(
        "set local search_path = {schema}, pg_temp;\n{}{}{}",
        render_migrations(inputs),
        inputs.repairs,
        render_owner(&schema, owner, inputs.replaced.as_ref()),
    ));
    text.push_str(&format!(
        "\n-- Privileges.\n{}{}commit;\n",
        inputs.grants, inputs.adoptions
    ));
    text
}

/// Statements that set the owner. `schema` is quoted.
fn render_owner(schema: &str, owner: &Owner, replaced: Option<&Owner>) -> String {
    let mut text = "\n-- Owner of the schema: cluster (--cluster-name), namespace and name. An \
        operator manages schemas of its own cluster only.\n"
        .to_owned();
    if let Some(replaced) = replaced {
        let replaced = owner_literals(replaced);
        text.push_str(&format!(
            "delete from {schema}.owner where (cluster, namespace, name) = ({replaced});\n"
        ));
    }
    let owner = owner_literals(owner);
    text.push_str(&format!(
        "insert into {schema}.owner (cluster, namespace, name) values ({owner}) on conflict do \
         nothing;\n"
    ));
    text
}

/// Cluster, namespace and name of an owner as SQL literals, separated by commas.
fn owner_literals(owner: &Owner) -> String {
    [&owner.cluster, &owner.namespace, &owner.name]
        .map(|part| literal(part))
        .join(", ")
}

/// Statements of the migrations that were not applied yet.
fn render_migrations(inputs: &ScriptInputs) -> String {
    let mut text = String::new();
    if inputs.level == 0 {
        text.push_str(
            "create table if not exists schema_migrations (
  version bigint primary key, description text not null, installed_on timestamptz not null default \
             now(), success boolean not null,
  checksum bytea not null, execution_time bigint not null
);
",
        );
    }
    for migration in apply::migrations().iter() {
        if !inputs.applied.contains(&migration.version) {
            text.push_str(&render_migration(migration));
        }
    }
    text
}

/// Statements of a migration, and the row that sqlx would write for it.
fn render_migration(migration: &Migration) -> String {
    let description = literal(&migration.description);
    let checksum: String = migration
        .checksum
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        "\n-- Migration {version}.\n{sql}\ninsert into schema_migrations (version, description, \
         success, checksum, execution_time)
values ({version}, {description}, true, '\\x{checksum}', -1);\n",
        version = migration.version,
        sql = migration.sql.as_str().trim_end(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(level: i64, applied: &[i64]) -> String {
        let schema = SchemaName::try_from("outbox".to_owned()).expect("a name");
        let owner = Owner {
            cluster: "c'); drop table x; --".to_owned(),
            namespace: "n".to_owned(),
            name: "files".to_owned(),
        };
        let inputs = ScriptInputs {
            level,
            schema_exists: level > 0,
            applied: applied.iter().copied().collect(),
            grants: "grant x;\n".to_owned(),
            replaced: None,
            adoptions: String::new(),
            repairs: String::new(),
        };
        render(&schema, &owner, &inputs)
    }

    #[test]
    fn only_what_is_missing_is_in_the_script() {
        let text = script(1, &[1]);
        assert!(
            text.contains("-- Migration 2.")
                && !text.contains("-- Migration 1.")
                && !text.contains("create schema"),
            "{text}"
        );
        let text = script(0, &[]);
        assert!(
            text.contains(
                "create schema \"outbox\";\nset local search_path = \"outbox\", \
                pg_temp;\ncreate table if not exists"
            ),
            "{text}"
        );
        assert!(!script(LEVEL, &(1..=LEVEL).collect::<Vec<_>>()).contains("-- Migration"));
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        assert!(script(0, &[]).contains("values ('c''); drop table x; --', 'n', 'files')"));
    }
}
