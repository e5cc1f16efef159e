//! Rights of the roles in `migration.grants` and of the relay's own user. Choosing is pure,
//! granting is IO.
//!
//! A role that is taken out of the manifest loses its rights: table `grantee` remembers which roles
//! came from there, so that rights given by hand are never touched. The relay's own user is not
//! remembered: after a change of user the old relays work on until they are replaced.

use std::collections::BTreeSet;

use sqlx::{PgConnection, query, query_scalar, raw_sql};

use crate::{
    outbox::{
        migrate::{MigrateError, preparing},
        schema::{literal, quoted, statement, statement_for_role},
    },
    settings::{MigrationSettings, SchemaName},
};

/// What a role is granted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Producer,
    Relay,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Relay => "relay",
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Producer => include_str!("../sql/grant_producer.sql"),
            Self::Relay => include_str!("../sql/grant_relay.sql"),
        }
    }
}

type Grants = BTreeSet<(String, Kind)>;

/// Who shall have rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// From the manifest.
    named: Grants,
    relay_user: String,
}

impl Wanted {
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
            named: producers.chain(relays).collect(),
            relay_user,
        }
    }

    /// Without the tables' owner: it has all rights, and a later revoke would take its own ones
    /// away.
    fn without(mut self, owner: &str) -> Self {
        self.named.retain(|(role, _)| role != owner);
        self
    }

    /// All of them, the relay's own user included.
    fn all(&self, owner: &str) -> Grants {
        let mut all = self.named.clone();
        if self.relay_user != owner {
            all.insert((self.relay_user.clone(), Kind::Relay));
        }
        all
    }
}

/// Makes the rights what they shall be.
pub(super) async fn apply(
    connection: &mut PgConnection,
    schema: &SchemaName,
    wanted: Wanted,
) -> Result<(), MigrateError> {
    let owner = owner_of_tables(connection, schema).await?;
    let wanted = wanted.without(&owner);
    let all = wanted.all(&owner);
    roles_exist(connection, &all).await?;
    for role in remembered_but_not_wanted(connection, schema, &wanted.named).await? {
        run(
            connection,
            schema,
            include_str!("../sql/revoke_role.sql"),
            &role,
        )
        .await?;
    }
    remember(connection, schema, &wanted.named).await?;
    for (role, kind) in &all {
        run(connection, schema, kind.sql(), role).await?;
    }
    Ok(())
}

/// The statements of [`apply`], as text. Tables that are not there yet will belong to whoever runs
/// it.
pub(super) async fn script(
    connection: &mut PgConnection,
    schema: &SchemaName,
    wanted: Wanted,
) -> Result<String, MigrateError> {
    let owner = "select pg_get_userbyid(relowner)::text from pg_class where oid = \
        to_regclass('@schema@.event')";
    let owner = query_scalar::<_, String>(statement(owner, schema))
        .fetch_optional(&mut *connection)
        .await;
    let owner = owner.map_err(preparing("read the tables' owner"))?;
    let wanted = owner
        .as_deref()
        .map_or(wanted.clone(), |owner| wanted.without(owner));
    let all = wanted.all(owner.as_deref().unwrap_or_default());
    roles_exist(connection, &all).await?;
    let stale = match owner {
        Some(_) => remembered_but_not_wanted(connection, schema, &wanted.named).await?,
        None => Vec::new(),
    };
    let revoke = stale
        .iter()
        .map(|role| statement_for_role(include_str!("../sql/revoke_role.sql"), schema, role));
    let grant = all
        .iter()
        .map(|(role, kind)| statement_for_role(kind.sql(), schema, role));
    let mut text: String = revoke
        .chain(grant)
        .map(|sql| sql.as_str().to_owned())
        .collect();
    text.push_str(statement("delete from @schema@.grantee;\n", schema).as_str());
    for (role, kind) in &wanted.named {
        let remember = format!(
            "insert into @schema@.grantee (role, kind) values ({}, '{}');\n",
            literal(role),
            kind.as_str()
        );
        text.push_str(&remember.replace("@schema@", &quoted(schema.as_str())));
    }
    Ok(text)
}

/// Which roles lack a right, as text; empty: none does.
pub(super) async fn missing(
    connection: &mut PgConnection,
    schema: &SchemaName,
    wanted: Wanted,
) -> Result<String, MigrateError> {
    let owner = owner_of_tables(connection, schema).await?;
    let all = wanted.without(&owner).all(&owner);
    roles_exist(connection, &all).await?;
    let (roles, kinds) = columns(&all);
    let sql = statement(include_str!("../sql/missing_rights.sql"), schema);
    let rows = sqlx::query_as::<_, (String, String)>(sql)
        .bind(schema.as_str())
        .bind(roles)
        .bind(kinds);
    let rows = rows
        .fetch_all(connection)
        .await
        .map_err(preparing("read the rights"))?;
    Ok(rows
        .iter()
        .map(|(role, kind)| format!("'{role}' as {kind}"))
        .collect::<Vec<_>>()
        .join(", "))
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

/// Asked before granting, to name all at once; and `public`, which is no role, would mean
/// everybody.
async fn roles_exist(connection: &mut PgConnection, all: &Grants) -> Result<(), MigrateError> {
    let sql = "select distinct name from unnest($1::text[]) as name where name not in (select \
        rolname from pg_roles) order by name";
    let missing = query_scalar::<_, String>(sql)
        .bind(columns(all).0)
        .fetch_all(connection)
        .await;
    let missing = missing.map_err(preparing("look for the roles"))?;
    if missing.is_empty() {
        return Ok(());
    }
    let roles = missing
        .iter()
        .map(|role| format!("'{role}'"))
        .collect::<Vec<_>>()
        .join(", ");
    Err(MigrateError::RolesMissing { roles })
}

/// A dropped role has lost its rights already, and one that owns the tables by now keeps its own.
async fn remembered_but_not_wanted(
    connection: &mut PgConnection,
    schema: &SchemaName,
    named: &Grants,
) -> Result<Vec<String>, MigrateError> {
    let sql = "select distinct role from @schema@.grantee
      where (role, kind) not in (select * from unnest($1::text[], $2::text[])) and role in (select rolname from pg_roles)
        and role <> (select pg_get_userbyid(relowner)::text from pg_class where oid = '@schema@.event'::regclass)";
    let (roles, kinds) = columns(named);
    let stale = query_scalar(statement(sql, schema))
        .bind(roles)
        .bind(kinds)
        .fetch_all(connection)
        .await;
    stale.map_err(preparing("read who had rights"))
}

async fn remember(
    connection: &mut PgConnection,
    schema: &SchemaName,
    named: &Grants,
) -> Result<(), MigrateError> {
    let (roles, kinds) = columns(named);
    let forget = "delete from @schema@.grantee where (role, kind) not in (select * from \
        unnest($1::text[], $2::text[]))";
    let forget = query(statement(forget, schema))
        .bind(&roles)
        .bind(&kinds)
        .execute(&mut *connection)
        .await;
    forget.map_err(preparing("forget who had rights"))?;
    let add = "insert into @schema@.grantee (role, kind) select * from unnest($1::text[], \
        $2::text[]) on conflict do nothing";
    let add = query(statement(add, schema))
        .bind(roles)
        .bind(kinds)
        .execute(connection)
        .await;
    add.map_err(preparing("remember who has rights"))?;
    Ok(())
}

async fn run(
    connection: &mut PgConnection,
    schema: &SchemaName,
    sql: &'static str,
    role: &str,
) -> Result<(), MigrateError> {
    let done = raw_sql(statement_for_role(sql, schema, role))
        .execute(connection)
        .await;
    done.map_err(|error| MigrateError::Grant {
        role: role.to_owned(),
        source: error.into(),
    })?;
    Ok(())
}

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

    fn wanted(producers: &[&str], relay_user: &str) -> Wanted {
        let producers = producers.iter().map(|role| (*role).to_owned()).collect();
        let settings = MigrationSettings {
            policy: MigrationPolicy::Apply,
            database: None,
            producers,
            relays: Vec::new(),
            take_over_from: None,
        };
        Wanted::new(&settings, relay_user.to_owned())
    }

    #[test]
    fn the_relays_own_user_is_granted_by_itself() {
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
