//! Rights of the roles in `migration.grants` and of the relay's own user. Choosing them is pure,
//! granting and reading them is IO.
//!
//! A role that is removed from the manifest loses its rights. Table `grantee` records the roles
//! that came from the manifest, so that rights granted by hand are never revoked. The relay's own
//! user is not recorded: after a change of the user, old relays keep working until they are
//! replaced.

use std::collections::BTreeSet;

use sqlx::{PgConnection, query, query_as, query_scalar, raw_sql};

use crate::{
    outbox::{
        migrate::{MigrateError, preparing},
        schema::{literal, quoted, statement, statement_for_role},
    },
    settings::{MigrationSettings, SchemaName},
};

const REVOKE_ROLE: &str = include_str!("../sql/revoke_role.sql");

/// Set of rights that a role is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Producer,
    Relay,
}

impl Kind {
    /// Name of the kind in table `grantee`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Relay => "relay",
        }
    }

    /// Statements that grant the rights.
    fn sql(self) -> &'static str {
        match self {
            Self::Producer => include_str!("../sql/grant_producer.sql"),
            Self::Relay => include_str!("../sql/grant_relay.sql"),
        }
    }
}

type Grants = BTreeSet<(String, Kind)>;

/// Rights that roles should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WantedGrants {
    /// Roles in `migration.grants`.
    from_manifest: Grants,
    relay_user: String,
}

impl WantedGrants {
    /// Collects the roles of the manifest.
    pub(super) fn new(settings: &MigrationSettings, relay_user: String) -> Self {
        let producers = settings
            .producers
            .iter()
            .map(|role| (role.clone(), Kind::Producer));
        let relays = settings
            .relays
            .iter()
            .map(|role| (role.clone(), Kind::Relay));
        Self {
            from_manifest: producers.chain(relays).collect(),
            relay_user,
        }
    }

    /// Removes the owner of the tables: it has all rights, and a later revoke would take its own
    /// ones away.
    fn without(mut self, owner: &str) -> Self {
        self.from_manifest.retain(|(role, _)| role != owner);
        self
    }

    /// All grants, those of the relay's own user included unless it is the owner.
    fn all(&self, owner: &str) -> Grants {
        let mut all = self.from_manifest.clone();
        if self.relay_user != owner {
            all.insert((self.relay_user.clone(), Kind::Relay));
        }
        all
    }
}

/// Revokes and grants rights until they are as wanted.
///
/// # Errors
/// Returns an error when a role does not exist, or the database fails.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn apply(
    connection: &mut PgConnection,
    schema: &SchemaName,
    wanted: WantedGrants,
) -> Result<(), MigrateError> {
    let owner = owner_of_tables(connection, schema).await?;
    let wanted = wanted.without(&owner);
    let all = wanted.all(&owner);
    check_roles_exist(connection, &all).await?;
    for role in stale_roles(connection, schema, &wanted.from_manifest).await? {
        run_for_role(connection, schema, REVOKE_ROLE, &role).await?;
    }
    record_grantees(connection, schema, &wanted.from_manifest).await?;
    for (role, kind) in &all {
        run_for_role(connection, schema, kind.sql(), role).await?;
    }
    Ok(())
}

/// Returns the statements of [`apply`] as text. Tables that do not exist yet will belong to the
/// role that runs the script.
///
/// # Errors
/// Returns an error when a role does not exist, or the database fails.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn script(
    connection: &mut PgConnection,
    schema: &SchemaName,
    wanted: WantedGrants,
) -> Result<String, MigrateError> {
    let owner = owner_of_existing_tables(connection, schema).await?;
    let wanted = match &owner {
        Some(owner) => wanted.without(owner),
        None => wanted,
    };
    let all = wanted.all(owner.as_deref().unwrap_or_default());
    check_roles_exist(connection, &all).await?;
    // Without tables there is no table `grantee` either.
    let stale = match owner {
        Some(_) => stale_roles(connection, schema, &wanted.from_manifest).await?,
        None => Vec::new(),
    };
    Ok(render_script(schema, &stale, &all, &wanted.from_manifest))
}

fn render_script(
    schema: &SchemaName,
    stale: &[String],
    all: &Grants,
    from_manifest: &Grants,
) -> String {
    let revokes = stale.iter().map(|role| (REVOKE_ROLE, role));
    let grants = all.iter().map(|(role, kind)| (kind.sql(), role));
    let mut text = String::new();
    for (template, role) in revokes.chain(grants) {
        text.push_str(statement_for_role(template, schema, role).as_str());
    }
    text.push_str(statement("delete from @schema@.grantee;\n", schema).as_str());
    for (role, kind) in from_manifest {
        text.push_str(&render_grantee(schema, role, *kind));
    }
    text
}

fn render_grantee(schema: &SchemaName, role: &str, kind: Kind) -> String {
    format!(
        "insert into {}.grantee (role, kind) values ({}, '{}');\n",
        quoted(schema.as_str()),
        literal(role),
        kind.as_str()
    )
}

/// Lists the roles that lack a right, as text. Empty when all rights are as wanted.
///
/// # Errors
/// Returns an error when a role does not exist, or the database fails.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn missing(
    connection: &mut PgConnection,
    schema: &SchemaName,
    wanted: WantedGrants,
) -> Result<String, MigrateError> {
    let owner = owner_of_tables(connection, schema).await?;
    let all = wanted.without(&owner).all(&owner);
    check_roles_exist(connection, &all).await?;
    let missing = missing_rights(connection, schema, &all).await?;
    let roles: Vec<String> = missing
        .iter()
        .map(|(role, kind)| format!("'{role}' as {kind}"))
        .collect();
    Ok(roles.join(", "))
}

/// Roles that lack a right, each with the name of its kind.
async fn missing_rights(
    connection: &mut PgConnection,
    schema: &SchemaName,
    all: &Grants,
) -> Result<Vec<(String, String)>, MigrateError> {
    let (roles, kinds) = columns(all);
    query_as(statement(include_str!("../sql/missing_rights.sql"), schema))
        .bind(schema.as_str())
        .bind(roles)
        .bind(kinds)
        .fetch_all(connection)
        .await
        .map_err(preparing("read the privileges"))
}

async fn owner_of_tables(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<String, MigrateError> {
    let sql = "select pg_get_userbyid(relowner)::text from pg_class where oid = \
        '@schema@.event'::regclass";
    query_scalar(statement(sql, schema))
        .fetch_one(connection)
        .await
        .map_err(preparing("read the tables' owner"))
}

/// Owner of the tables; `None` when there are none yet.
async fn owner_of_existing_tables(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<Option<String>, MigrateError> {
    let sql = "select pg_get_userbyid(relowner)::text from pg_class where oid = \
        to_regclass('@schema@.event')";
    query_scalar(statement(sql, schema))
        .fetch_optional(connection)
        .await
        .map_err(preparing("read the tables' owner"))
}

/// Checks that all roles exist, before granting, to report all that are missing at once. It also
/// keeps out `public`, which is not a role: a grant to it would be a grant to everybody.
async fn check_roles_exist(
    connection: &mut PgConnection,
    all: &Grants,
) -> Result<(), MigrateError> {
    let sql = "select distinct name from unnest($1::text[]) as name where name not in (select \
        rolname from pg_roles) order by name";
    let missing: Vec<String> = query_scalar(sql)
        .bind(columns(all).0)
        .fetch_all(connection)
        .await
        .map_err(preparing("check whether the roles exist"))?;
    if missing.is_empty() {
        return Ok(());
    }
    let quoted: Vec<String> = missing.iter().map(|role| format!("'{role}'")).collect();
    Err(MigrateError::RolesMissing {
        roles: quoted.join(", "),
    })
}

/// Recorded roles that the manifest does not list any more.
///
/// Leaves out roles that were dropped, which have lost their rights already, and the owner of the
/// tables, which keeps its own.
async fn stale_roles(
    connection: &mut PgConnection,
    schema: &SchemaName,
    from_manifest: &Grants,
) -> Result<Vec<String>, MigrateError> {
    let sql = "select distinct role from @schema@.grantee
      where (role, kind) not in (select * from unnest($1::text[], $2::text[])) and role in (select \
        rolname from pg_roles)
        and role <> (select pg_get_userbyid(relowner)::text from pg_class where oid = \
        '@schema@.event'::regclass)";
    let (roles, kinds) = columns(from_manifest);
    query_scalar(statement(sql, schema))
        .bind(roles)
        .bind(kinds)
        .fetch_all(connection)
        .await
        .map_err(preparing("read the recorded roles"))
}

/// Replaces the contents of table `grantee`.
async fn record_grantees(
    connection: &mut PgConnection,
    schema: &SchemaName,
    from_manifest: &Grants,
) -> Result<(), MigrateError> {
    let (roles, kinds) = columns(from_manifest);
    let delete = "delete from @schema@.grantee where (role, kind) not in (select * from \
        unnest($1::text[], $2::text[]))";
    query(statement(delete, schema))
        .bind(&roles)
        .bind(&kinds)
        .execute(&mut *connection)
        .await
        .map_err(preparing("delete recorded roles"))?;
    let insert = "insert into @schema@.grantee (role, kind) select * from unnest($1::text[], \
        $2::text[]) on conflict do nothing";
    query(statement(insert, schema))
        .bind(roles)
        .bind(kinds)
        .execute(connection)
        .await
        .map_err(preparing("record the roles"))?;
    Ok(())
}

async fn run_for_role(
    connection: &mut PgConnection,
    schema: &SchemaName,
    template: &'static str,
    role: &str,
) -> Result<(), MigrateError> {
    raw_sql(statement_for_role(template, schema, role))
        .execute(connection)
        .await
        .map_err(|error| MigrateError::Grant {
            role: role.to_owned(),
            source: error.into(),
        })?;
    Ok(())
}

/// Roles and names of their kinds, as parallel lists.
fn columns(grants: &Grants) -> (Vec<String>, Vec<&'static str>) {
    grants
        .iter()
        .map(|(role, kind)| (role.clone(), kind.as_str()))
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::MigrationPolicy;

    fn wanted(producers: &[&str], relay_user: &str) -> WantedGrants {
        let producers = producers.iter().map(|role| (*role).to_owned()).collect();
        let settings = MigrationSettings {
            policy: MigrationPolicy::Apply,
            database: None,
            producers,
            relays: Vec::new(),
            take_over_from: None,
            adopt: Vec::new(),
        };
        WantedGrants::new(&settings, relay_user.to_owned())
    }

    #[test]
    fn the_relays_own_user_is_granted_automatically() {
        let all = wanted(&["files"], "relay").all("admin");
        let expected = [
            ("files".to_owned(), Kind::Producer),
            ("relay".to_owned(), Kind::Relay),
        ];
        assert_eq!(all, Grants::from(expected));
    }

    #[test]
    fn the_owner_of_the_tables_is_never_granted_and_so_never_revoked() {
        assert_eq!(
            wanted(&["app"], "app").without("app").all("app"),
            Grants::new()
        );
    }
}
