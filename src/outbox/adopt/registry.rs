//! Table `adopted`: which tables are adopted, and from what their triggers were made. IO.

use std::fmt;

use sqlx::{PgConnection, Row, postgres::PgRow, query, query_scalar};

use crate::{
    outbox::{adopt::quoted_table, error::DatabaseError, schema::statement},
    settings::{AdoptSettings, SchemaName},
};

/// A row of table `adopted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registered {
    pub(super) source: i16,
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) state: State,
    pub(super) definition: String,
}

/// State of an adopted table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// `adopt --drain` moves the waiting rows; there are no triggers yet.
    Draining,
    /// Triggers add a row of `event` for each new row.
    Adopted,
    /// The manifest does not list the table any more, or has never been applied with it.
    Released,
}

impl State {
    /// Name of the state in the table.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "Draining",
            Self::Adopted => "Adopted",
            Self::Released => "Released",
        }
    }

    fn from_name(name: &str) -> Self {
        match name {
            "Draining" => Self::Draining,
            "Released" => Self::Released,
            _ => Self::Adopted,
        }
    }
}

impl Registered {
    /// Whether this is the table of the settings.
    pub(super) fn is(&self, settings: &AdoptSettings) -> bool {
        (&self.schema, &self.table) == (&settings.schema, &settings.table)
    }

    /// Quoted name with its schema.
    pub(super) fn quoted(&self) -> String {
        quoted_table(&self.schema, &self.table)
    }

    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let state: String = row.try_get("state")?;
        Ok(Self {
            source: row.try_get("source")?,
            schema: row.try_get("table_schema")?,
            table: row.try_get("table_name")?,
            state: State::from_name(&state),
            definition: row.try_get("definition")?,
        })
    }
}

impl fmt::Display for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// Reads the table; empty if the schema has none yet.
///
/// # Errors
/// Returns an error when the database fails.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn read(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<Vec<Registered>, DatabaseError> {
    let exists = statement("select to_regclass('@schema@.adopted') is not null", schema);
    if !query_scalar(exists).fetch_one(&mut *connection).await? {
        return Ok(Vec::new());
    }
    let all = "select source, table_schema, table_name, state, definition from @schema@.adopted \
        order by source";
    let rows = query(statement(all, schema)).fetch_all(connection).await?;
    let registered = rows.iter().map(Registered::from_row);
    Ok(registered.collect::<Result<_, _>>()?)
}

/// Number of a table: the one that it has, or the next that is free.
pub(super) fn source_of(registered: &[Registered], settings: &AdoptSettings) -> i16 {
    let own = registered.iter().find(|entry| entry.is(settings));
    let highest = registered.iter().map(|entry| entry.source).max();
    own.map_or_else(|| highest.unwrap_or(0) + 1, |entry| entry.source)
}
