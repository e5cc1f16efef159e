//! What the migrations made, and what a database has. The expectation is a file that a test writes
//! from schemas that were just migrated, one for each major version of PostgreSQL. Reading a
//! database is IO.

use sqlx::{AssertSqlSafe, FromRow, PgConnection, SqlSafeStr, SqlStr, postgres::PgRow, query};

use crate::{
    outbox::{
        Connections,
        error::DatabaseError,
        schema::{quoted, statement},
    },
    settings::SchemaName,
};

/// Facts of a schema that was just migrated, and statements that repair them.
const EXPECTED: &str = include_str!("sql/expected_schema.sql");
/// Start of the line with the name of a thing in [`EXPECTED`].
const NAME: &str = "--# ";
/// Start of the line with the fact in [`EXPECTED`].
const FACT: &str = "--= ";
/// Settings under which a server prints expressions always in the same way.
const PRINTING: [&str; 2] = [
    "set local quote_all_identifiers = off",
    "set local search_path = pg_catalog",
];

/// One thing in the schema, such as `sequence event_id_seq`, and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFact {
    /// What it is about, without the name of the schema.
    pub name: String,
    /// How it is: parts with `, ` between them.
    pub fact: String,
}

/// One thing that the migrations made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedFact {
    pub name: &'static str,
    pub fact: &'static str,
    /// Statements that make it again, with `@schema@` for the schema. Empty if nothing can.
    pub(super) repair: &'static str,
}

impl ExpectedFact {
    /// Statements that make it again in this schema; `None` if nothing can.
    pub(super) fn repair(&self, schema: &SchemaName) -> Option<SqlStr> {
        let sql = self.repair.replace("@schema@", &quoted(schema.as_str()));
        (!sql.is_empty()).then(|| AssertSqlSafe(sql).into_sql_str())
    }
}

/// All facts of a schema that was just migrated.
#[must_use]
pub fn expected_facts() -> Vec<ExpectedFact> {
    let blocks = EXPECTED.split(NAME).skip(1);
    blocks.filter_map(parse_block).collect()
}

fn parse_block(block: &'static str) -> Option<ExpectedFact> {
    let (name, rest) = block.split_once('\n')?;
    let (fact, repair) = rest.strip_prefix(FACT)?.split_once('\n')?;
    Some(ExpectedFact {
        name,
        fact,
        repair: repair.trim_end(),
    })
}

/// Reads the facts of a schema, in a transaction of its own.
///
/// # Errors
/// Returns an error when the database fails.
///
/// # Cancel safety
/// Cancel safe: it only reads.
pub async fn fetch_facts(
    connections: &Connections,
    schema: &SchemaName,
) -> Result<Vec<SchemaFact>, DatabaseError> {
    let mut work = connections.begin().await?;
    for setting in PRINTING {
        work.rows(query(setting)).await?;
    }
    let rows = work.rows(query(facts_statement(schema))).await?;
    work.commit().await?;
    Ok(decode(&rows)?)
}

/// Reads the facts of a schema on a connection in a transaction. Unqualified names are those of the
/// schema afterwards, as in each migration.
///
/// # Errors
/// Returns an error when the database fails.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn read_facts(
    connection: &mut PgConnection,
    schema: &SchemaName,
) -> Result<Vec<SchemaFact>, sqlx::Error> {
    for setting in PRINTING {
        query(setting).execute(&mut *connection).await?;
    }
    let rows = query(facts_statement(schema))
        .fetch_all(&mut *connection)
        .await?;
    let path = statement("set local search_path = @schema@, pg_temp", schema);
    query(path).execute(connection).await?;
    decode(&rows)
}

fn facts_statement(schema: &SchemaName) -> SqlStr {
    statement(include_str!("sql/schema_facts.sql"), schema)
}

fn decode(rows: &[PgRow]) -> Result<Vec<SchemaFact>, sqlx::Error> {
    let fact = |row| {
        let (name, fact) = FromRow::from_row(row)?;
        Ok(SchemaFact { name, fact })
    };
    rows.iter().map(fact).collect()
}

/// Text of the file of expectations.
#[must_use]
pub fn write_expectations(facts: &[SchemaFact], repairs: &[(String, String)]) -> String {
    let header = "-- What migrations make, as sql/schema_facts.sql describes it, and statements\n\
        -- that make it again. Generated from a schema that was just migrated:\n\
        --   UPDATE_GENERATED=1 cargo test --test it generated_files\n";
    let block = |(name, repair): &(String, String)| {
        let fact = facts.iter().find(|fact| fact.name == *name)?;
        Some(format!("\n{NAME}{name}\n{FACT}{}\n{repair}\n", fact.fact))
    };
    let blocks: String = repairs.iter().filter_map(block).collect();
    format!("{header}{blocks}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_expectations_is_read_as_it_was_written() {
        let expected = expected_facts();
        let facts: Vec<_> = expected
            .iter()
            .map(|of| SchemaFact {
                name: of.name.to_owned(),
                fact: of.fact.to_owned(),
            })
            .collect();
        let repairs: Vec<_> = expected
            .iter()
            .map(|of| (of.name.to_owned(), of.repair.to_owned()))
            .collect();
        assert!(expected.len() > 100, "{}", expected.len());
        assert_eq!(write_expectations(&facts, &repairs), EXPECTED);
    }
}
