//! What policy `Apply` would run, as one script for a database administrator. Reading what is there
//! is IO, in a read-only transaction; writing the script is pure.

use std::collections::BTreeSet;

use sqlx::{PgConnection, query_scalar};

use crate::{
    outbox::{
        connect::Connect,
        migrate::{
            MigrateError, apply,
            grants::{self, Wanted},
            lock, preparing, relay_user, shape,
        },
        schema::{LEVEL, literal, quoted, statement},
    },
    report::Problem,
    secrets::Secrets,
    settings::{Owner, RelaySettings, SchemaName},
};

/// What is there, and who shall have rights.
struct Found {
    level: i64,
    schema_exists: bool,
    applied: BTreeSet<i64>,
    grants: String,
    taken_from: Option<Owner>,
}

/// The script, whatever `migration.policy` says; nothing is changed. What would stop a migration
/// stops it, too.
///
/// # Errors
/// When the database cannot be reached, the schema is another one's or too new, or a role is
/// missing.
pub async fn script(settings: &RelaySettings, secrets: &Secrets) -> Result<String, Problem> {
    let found = Box::pin(look(settings, secrets))
        .await
        .map_err(|error| error.problem())?;
    Ok(written(&settings.database.schema, &settings.owner, &found))
}

async fn look(settings: &RelaySettings, secrets: &Secrets) -> Result<Found, MigrateError> {
    let schema = &settings.database.schema;
    let relay_user = relay_user(settings, secrets)?;
    let connect = Connect::migration(settings, secrets)?;
    let mut connection = connect.open().await?;
    let mut transaction = lock::begin_reading(&mut connection, &connect, schema).await?;

    let state = lock::state(&mut transaction, schema).await?;
    state.not_too_new(schema)?;
    let taken_from = state.taken_from(schema, settings)?.cloned();
    if let Some(owner) = &taken_from {
        apply::nobody_at_work(&mut transaction, schema, owner).await?;
    }
    if state.level == LEVEL {
        shape::check(&mut transaction, schema).await?;
    }
    let exists = query_scalar("select exists (select from pg_namespace where nspname = $1)")
        .bind(schema.as_str());
    let schema_exists = exists
        .fetch_one(&mut *transaction)
        .await
        .map_err(preparing("look for the schema"))?;
    let applied = applied(&mut transaction, schema, state.level).await?;
    let grants = grants::script(
        &mut transaction,
        schema,
        Wanted::new(&settings.migration, relay_user),
    )
    .await?;
    Ok(Found {
        level: state.level,
        schema_exists,
        applied,
        grants,
        taken_from,
    })
}

async fn applied(
    connection: &mut PgConnection,
    schema: &SchemaName,
    level: i64,
) -> Result<BTreeSet<i64>, MigrateError> {
    if level == 0 {
        return Ok(BTreeSet::new());
    }
    let versions = query_scalar::<_, i64>(statement(
        "select version from @schema@.schema_migrations",
        schema,
    ));
    Ok(versions
        .fetch_all(connection)
        .await
        .map_err(preparing("read which migrations were applied"))?
        .into_iter()
        .collect())
}

fn written(schema: &SchemaName, owner: &Owner, found: &Found) -> String {
    let name = quoted(schema.as_str());
    let mut text = format!(
        "-- What outbox-relay {} runs to bring schema {name} from level {} to {}.
-- Run it as the role that owns the tables, and not as a superuser, whose rights the functions would have:
--   psql --set ON_ERROR_STOP=1 --file FILE DATABASE
begin;
",
        env!("CARGO_PKG_VERSION"),
        found.level,
        found.level.max(LEVEL),
    );
    if !found.schema_exists {
        text.push_str(&format!("create schema {name};\n"));
    }
    text.push_str(&format!(
        "set local search_path = {name}, pg_temp;\n{}",
        migrations(found)
    ));
    let [cluster, namespace, owner] =
        [&owner.cluster, &owner.namespace, &owner.name].map(|name| literal(name));
    text.push_str(
        "\n-- Who manages the schema: cluster (--cluster-name), namespace and name. An \
        operator works on schemas of its own cluster only.\n",
    );
    if let Some(from) = &found.taken_from {
        let [cluster, namespace, name_] =
            [&from.cluster, &from.namespace, &from.name].map(|name| literal(name));
        text.push_str(&format!(
            "delete from {name}.owner where (cluster, namespace, name) = \
            ({cluster}, {namespace}, {name_});\n"
        ));
    }
    text.push_str(&format!(
        "insert into {name}.owner (cluster, namespace, name) values ({cluster}, {namespace}, \
         {owner}) on conflict do nothing;\n"
    ));
    text.push_str(&format!("\n-- Rights.\n{}commit;\n", found.grants));
    text
}

fn migrations(found: &Found) -> String {
    let mut text = String::new();
    if found.level == 0 {
        text.push_str(
            "create table if not exists schema_migrations (
  version bigint primary key, description text not null, installed_on timestamptz not null default now(), success boolean not null,
  checksum bytea not null, execution_time bigint not null
);
",
        );
    }
    let all = apply::migrations();
    for migration in all
        .iter()
        .filter(|migration| !found.applied.contains(&migration.version))
    {
        let description = literal(&migration.description);
        let checksum: String = migration
            .checksum
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        text.push_str(&format!(
            "\n-- Migration {version}.\n{sql}\ninsert into schema_migrations (version, description, success, checksum, execution_time)
values ({version}, {description}, true, '\\x{checksum}', -1);\n",
            version = migration.version,
            sql = migration.sql.as_str().trim_end(),
        ));
    }
    text
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
        let found = Found {
            level,
            schema_exists: level > 0,
            applied: applied.iter().copied().collect(),
            grants: "grant x;\n".to_owned(),
            taken_from: None,
        };
        written(&schema, &owner, &found)
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
