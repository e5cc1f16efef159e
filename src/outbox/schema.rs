//! The outbox's schema: its level, who may work on it, and the one place that puts a schema's name
//! into SQL. Reading is IO, judging is pure.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, PgConnection, SqlSafeStr, SqlStr, postgres::PgRow, query};

use crate::{
    outbox::{
        error::DatabaseError,
        unit_of_work::{Connections, Statement},
    },
    report::{Problem, ProblemClass},
    settings::{Owner, RelaySettings, SchemaName},
};

/// The schema level that this version knows: the highest number in `migrations/`.
pub const LEVEL: i64 = crate::settings::SCHEMA_LEVEL;

/// Why a relay must not work on a schema.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("cannot read the state of schema '{schema}'")]
    ReadState {
        schema: String,
        #[source]
        source: DatabaseError,
    },
    #[error(
        "schema '{schema}' is at level {level}, this version needs {LEVEL}: let the migration run \
         (outbox-relay migrate)"
    )]
    NotReady { schema: String, level: i64 },
    #[error(
        "schema '{schema}' needs relays of level {compatible_from} or newer, this version knows \
         {LEVEL}: upgrade it"
    )]
    Newer {
        schema: String,
        compatible_from: i64,
    },
    #[error(
        "schema '{schema}' belongs to OutboxRelay '{other}': set another spec.database.schema, or \
         name that one in spec.migration.takeOverFrom"
    )]
    ClaimedByOther { schema: String, other: Owner },
    /// Most often it is the same one, and the command line did not say of which cluster.
    #[error(
        "schema '{schema}' belongs to OutboxRelay '{other}', of this name but another cluster: on \
         a command line say which by --cluster-name; else name it in spec.migration.takeOverFrom"
    )]
    ClaimedInOtherCluster { schema: String, other: Owner },
}

impl SchemaError {
    /// As it goes into a report.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::ReadState { schema, source } => {
                Problem::new(source.class, format!("schema '{schema}': {source}"))
            }
            Self::NotReady { .. } => Problem::new(ProblemClass::SchemaNotReady, self.to_string()),
            Self::Newer { .. } => Problem::new(ProblemClass::NewerSchema, self.to_string()),
            Self::ClaimedByOther { .. } | Self::ClaimedInOtherCluster { .. } => {
                Problem::new(ProblemClass::SchemaClaimedByOther, self.to_string())
            }
        }
    }
}

/// Whether the relay of `owner` may work on the schema; its level if so. One statement.
///
/// # Errors
/// When the schema is missing, older, too new, another one's, or cannot be read.
pub async fn check_schema(
    connections: &Connections,
    schema: &SchemaName,
    owner: &Owner,
) -> Result<i64, SchemaError> {
    let state = SchemaState::ask_for(connections, schema).await?;
    state.judge(schema)?;
    state
        .owned_by(schema, owner)?
        .then_some(state.level)
        .ok_or_else(|| not_ready(schema, state.level))
}

/// What a schema says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SchemaState {
    pub(crate) level: i64,
    pub(crate) compatible_from: i64,
    pub(crate) owner: Option<Owner>,
}

impl SchemaState {
    /// A schema without a table that is missing or empty is at level 0.
    pub(crate) async fn read(
        connection: &mut PgConnection,
        schema: &SchemaName,
    ) -> Result<Self, SchemaError> {
        let row = Self::ask(schema).fetch_one(connection).await;
        row.and_then(Self::from_row)
            .map_err(|error| read_error(schema, error))
    }

    /// The same, on a connection of its own.
    pub(crate) async fn ask_for(
        connections: &Connections,
        schema: &SchemaName,
    ) -> Result<Self, SchemaError> {
        let row = connections.row(Self::ask(schema)).await;
        row.and_then(Self::from_row)
            .map_err(|error| read_error(schema, error))
    }

    fn ask(schema: &SchemaName) -> Statement<'static> {
        query(statement(include_str!("sql/schema_state.sql"), schema))
    }

    fn from_row(row: PgRow) -> Result<Self, sqlx::Error> {
        use sqlx::Row;
        let owner = match row.try_get("cluster")? {
            None => None,
            Some(cluster) => Some(Owner {
                cluster,
                namespace: row.try_get("namespace")?,
                name: row.try_get("name")?,
            }),
        };
        Ok(Self {
            level: row.try_get("level")?,
            compatible_from: row.try_get("compatible_from")?,
            owner,
        })
    }

    /// Whether this version fits the schema's level.
    pub(crate) fn judge(&self, schema: &SchemaName) -> Result<(), SchemaError> {
        if self.level < LEVEL {
            return Err(not_ready(schema, self.level));
        }
        self.not_too_new(schema)
    }

    /// Whether the schema still takes relays of this version.
    pub(crate) fn not_too_new(&self, schema: &SchemaName) -> Result<(), SchemaError> {
        if self.compatible_from > LEVEL {
            let schema = schema.as_str().to_owned();
            return Err(SchemaError::Newer {
                schema,
                compatible_from: self.compatible_from,
            });
        }
        Ok(())
    }

    /// True: it is `owner`'s. False: it is nobody's.
    pub(crate) fn owned_by(&self, schema: &SchemaName, owner: &Owner) -> Result<bool, SchemaError> {
        match &self.owner {
            None => Ok(false),
            Some(found) if found == owner => Ok(true),
            Some(other) => Err(claimed(schema, owner, other.clone())),
        }
    }

    /// The owner that the settings allow to take the schema from, when it is that one's.
    pub(crate) fn taken_from<'a>(
        &self,
        schema: &SchemaName,
        settings: &'a RelaySettings,
    ) -> Result<Option<&'a Owner>, SchemaError> {
        match &settings.migration.take_over_from {
            Some(from) if self.owner.as_ref() == Some(from) && *from != settings.owner => {
                Ok(Some(from))
            }
            _ => self.owned_by(schema, &settings.owner).map(|_| None),
        }
    }
}

fn claimed(schema: &SchemaName, owner: &Owner, other: Owner) -> SchemaError {
    let schema = schema.as_str().to_owned();
    if (&other.namespace, &other.name) == (&owner.namespace, &owner.name) {
        SchemaError::ClaimedInOtherCluster { schema, other }
    } else {
        SchemaError::ClaimedByOther { schema, other }
    }
}

fn not_ready(schema: &SchemaName, level: i64) -> SchemaError {
    SchemaError::NotReady {
        schema: schema.as_str().to_owned(),
        level,
    }
}

fn read_error(schema: &SchemaName, error: sqlx::Error) -> SchemaError {
    let missing = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "42P01" || code == "3F000");
    if missing {
        return not_ready(schema, 0);
    }
    SchemaError::ReadState {
        schema: schema.as_str().to_owned(),
        source: error.into(),
    }
}

/// The statement of a file below `sql/`, with the schema's name in place of `@schema@`. A schema's
/// name is checked when it is read from the settings, so this is safe for any template of ours.
#[must_use]
pub fn statement(template: &'static str, schema: &SchemaName) -> SqlStr {
    AssertSqlSafe(Arc::<str>::from(in_schema(template, schema))).into_sql_str()
}

/// The same for a statement that also names a role, in place of `@role@`.
pub(super) fn statement_for_role(
    template: &'static str,
    schema: &SchemaName,
    role: &str,
) -> SqlStr {
    AssertSqlSafe(in_schema(template, schema).replace("@role@", &quoted(role))).into_sql_str()
}

fn in_schema(template: &str, schema: &SchemaName) -> String {
    template.replace("@schema@", &quoted(schema.as_str()))
}

/// An identifier in double quotes, as the server's `quote_ident` would write it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in quotes, for a server with standard_conforming_strings.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests;
