//! State of the outbox's schema: its level and its owner; and the only place that inserts names
//! into SQL. Reading the state is IO, checking it is pure.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, PgConnection, SqlSafeStr, SqlStr, postgres::PgRow, query};

use crate::{
    outbox::{
        error::DatabaseError,
        row_sql::TextReading,
        unit_of_work::{Connections, Statement},
    },
    report::{Problem, ProblemClass},
    settings::{Owner, RelaySettings, SchemaName},
};

/// The schema level that this version knows: the highest number in `migrations/`.
pub const LEVEL: i64 = crate::settings::SCHEMA_LEVEL;

/// Why a relay or a migration must not use a schema.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("cannot read the state of schema '{schema}'")]
    ReadState {
        schema: String,
        #[source]
        source: DatabaseError,
    },
    #[error(
        "schema '{schema}' is at level {level}, but this version needs level {LEVEL}: run the \
         migration (outbox-relay migrate)"
    )]
    NotReady { schema: String, level: i64 },
    #[error(
        "schema '{schema}' needs relays of level {compatible_from} or higher, but this version has \
         level {LEVEL}: upgrade it"
    )]
    Newer {
        schema: String,
        compatible_from: i64,
    },
    #[error(
        "schema '{schema}' belongs to OutboxRelay '{other}': suspend it and set \
         spec.migration.takeOverFrom to it, or create this with another schema"
    )]
    ClaimedByOther { schema: String, other: Owner },
    /// The owner has this namespace and name in another cluster. Usually it is the same
    /// OutboxRelay, and the command line did not give its cluster.
    #[error(
        "schema '{schema}' belongs to OutboxRelay '{other}', which has this name in another \
         cluster: on a command line, set --cluster-name; else suspend it and set \
         spec.migration.takeOverFrom"
    )]
    ClaimedInOtherCluster { schema: String, other: Owner },
}

impl SchemaError {
    /// Converts the error for a report: a class and a sentence.
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

/// Checks with one statement that relays of `owner` may use the schema. Returns its level.
///
/// # Errors
/// Returns an error when the schema
///
/// - is missing, or at a lower level than this version needs,
/// - no longer accepts relays of this version,
/// - has no owner, or another one,
/// - cannot be read.
///
/// # Cancel safety
/// Cancel safe: it only reads.
pub async fn check_schema(
    connections: &Connections,
    schema: &SchemaName,
    owner: &Owner,
) -> Result<i64, SchemaError> {
    let state = SchemaState::fetch(connections, schema).await?;
    state.check_level(schema)?;
    match state.ownership(schema, owner)? {
        Ownership::Own => Ok(state.level),
        Ownership::Unowned => Err(not_ready(schema, state.level)),
    }
}

/// Owner of a schema, as seen by one of the OutboxRelays that may become it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// The schema belongs to this OutboxRelay.
    Own,
    /// The schema has no owner.
    Unowned,
}

/// State of a schema, as its own tables describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SchemaState {
    /// Number of the last migration that was applied; 0 when there was none.
    pub(crate) level: i64,
    /// Lowest level that a relay must know to use the schema.
    pub(crate) compatible_from: i64,
    /// OutboxRelay that manages the schema.
    pub(crate) owner: Option<Owner>,
}

impl SchemaState {
    /// State before the first migration.
    pub(crate) const EMPTY: Self = Self {
        level: 0,
        compatible_from: 0,
        owner: None,
    };

    /// Reads the state on a connection that may be in a transaction.
    ///
    /// # Errors
    /// Returns [`SchemaError::NotReady`] with level 0 when one of the tables is missing, and
    /// [`SchemaError::ReadState`] when the database fails.
    ///
    /// # Cancel safety
    /// It only reads, but the connection must not be used again when the future is dropped midway.
    pub(crate) async fn read(
        connection: &mut PgConnection,
        schema: &SchemaName,
    ) -> Result<Self, SchemaError> {
        let row = Self::query(schema).fetch_one(connection).await;
        Self::decode(row, schema)
    }

    /// Reads the state on a connection of the pool.
    ///
    /// # Errors
    /// Returns [`SchemaError::NotReady`] with level 0 when one of the tables is missing, and
    /// [`SchemaError::ReadState`] when the database fails.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub(crate) async fn fetch(
        connections: &Connections,
        schema: &SchemaName,
    ) -> Result<Self, SchemaError> {
        let row = connections.row(Self::query(schema)).await;
        Self::decode(row, schema)
    }

    fn query(schema: &SchemaName) -> Statement<'static> {
        query(statement(include_str!("sql/schema_state.sql"), schema))
    }

    fn decode(row: Result<PgRow, sqlx::Error>, schema: &SchemaName) -> Result<Self, SchemaError> {
        row.and_then(Self::from_row)
            .map_err(|error| read_error(schema, error))
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

    /// Checks that this version can use a schema of this level.
    ///
    /// # Errors
    /// Returns [`SchemaError::NotReady`] for a lower level than this version needs, and
    /// [`SchemaError::Newer`] when the schema no longer accepts this version.
    pub(crate) fn check_level(&self, schema: &SchemaName) -> Result<(), SchemaError> {
        if self.level < LEVEL {
            return Err(not_ready(schema, self.level));
        }
        self.check_not_too_new(schema)
    }

    /// Checks that the schema still accepts relays of this version.
    ///
    /// # Errors
    /// Returns [`SchemaError::Newer`] when it does not.
    pub(crate) fn check_not_too_new(&self, schema: &SchemaName) -> Result<(), SchemaError> {
        if self.compatible_from > LEVEL {
            return Err(newer(schema, self.compatible_from));
        }
        Ok(())
    }

    /// Whether the schema belongs to `owner` or has no owner.
    ///
    /// # Errors
    /// Returns an error when the schema belongs to another OutboxRelay.
    pub(crate) fn ownership(
        &self,
        schema: &SchemaName,
        owner: &Owner,
    ) -> Result<Ownership, SchemaError> {
        match &self.owner {
            None => Ok(Ownership::Unowned),
            Some(found) if found == owner => Ok(Ownership::Own),
            Some(other) => Err(claimed(schema, owner, other.clone())),
        }
    }

    /// Owner that `migration.takeOverFrom` allows to replace, when the schema belongs to it.
    ///
    /// # Errors
    /// Returns an error when the schema belongs to another OutboxRelay that must not be replaced.
    pub(crate) fn replaced_owner<'a>(
        &self,
        schema: &SchemaName,
        settings: &'a RelaySettings,
    ) -> Result<Option<&'a Owner>, SchemaError> {
        match &settings.migration.take_over_from {
            Some(from) if self.owner.as_ref() == Some(from) && *from != settings.owner => {
                Ok(Some(from))
            }
            _ => self.ownership(schema, &settings.owner).map(|_| None),
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

/// Whether the server reports that a table or the whole schema is missing.
fn is_missing(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("42P01" | "3F000"))
}

fn newer(schema: &SchemaName, compatible_from: i64) -> SchemaError {
    SchemaError::Newer {
        schema: schema.as_str().to_owned(),
        compatible_from,
    }
}

fn not_ready(schema: &SchemaName, level: i64) -> SchemaError {
    SchemaError::NotReady {
        schema: schema.as_str().to_owned(),
        level,
    }
}

fn read_error(schema: &SchemaName, error: sqlx::Error) -> SchemaError {
    if is_missing(&error) {
        return not_ready(schema, 0);
    }
    SchemaError::ReadState {
        schema: schema.as_str().to_owned(),
        source: error.into(),
    }
}

/// Builds a statement from a template, with the quoted name of the schema in place of `@schema@`.
///
/// This is safe for every template: the name of a schema is checked when the settings are read.
#[must_use]
pub fn statement(template: &'static str, schema: &SchemaName) -> SqlStr {
    AssertSqlSafe(Arc::<str>::from(in_schema(template, schema))).into_sql_str()
}

/// Builds a statement that reads rows from a template with the parts of
/// [`TextReading::expand`](crate::outbox::row_sql::TextReading::expand).
#[must_use]
pub fn row_statement(template: &str, reading: TextReading, schema: &SchemaName) -> SqlStr {
    AssertSqlSafe(Arc::<str>::from(in_schema(
        &reading.expand(template),
        schema,
    )))
    .into_sql_str()
}

/// Builds a statement from a template, with the quoted names of the schema and a role in place of
/// `@schema@` and `@role@`.
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

/// Puts an identifier in double quotes, like the server's `quote_ident`.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Puts a text in single quotes, for a server with `standard_conforming_strings` on, its default.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests;
