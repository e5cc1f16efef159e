//! Outbox tables that services have already: triggers on them add a row of `event` for each row
//! that a service inserts. IO, in the transaction of a migration; what is made is decided in pure
//! modules.
//!
//! Each adopted table has a number, its source, in table `adopted`. Its function `add_from_N` is
//! called by trigger [`TRIGGER_ADD`] after an insert. If the table has a column that says when a
//! row was published, [`TRIGGER_MARK`] sets it before the insert, so that an old worker leaves the
//! row alone.

mod apply;
mod conversion;
mod dry_run;
mod expressions;
mod lock;
mod registry;
mod release;
mod statements;
mod table;

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, PgConnection, SqlSafeStr, raw_sql};

use crate::{
    outbox::{error::DatabaseError, schema::quoted},
    report::{Problem, ProblemClass},
    settings::AdoptSettings,
};

pub(super) use apply::{apply, check_applied, drain, script};
pub(super) use dry_run::dry_run;
pub use dry_run::{DryRun, FaultCount, TopicCount};
pub(super) use lock::lock_tables;

/// Trigger that marks a new row as published. Triggers of a table run in the order of their names,
/// and this one must see what the others have set.
const TRIGGER_MARK: &str = "zzz_outbox_mark";
/// Trigger that adds a row of `event`.
const TRIGGER_ADD: &str = "zzz_outbox_add";
/// Number of waiting rows that a migration moves while writers of the table wait for it.
///
/// Writers shall wait for one second at most, and a row takes about 70 µs (2 cores, PostgreSQL 15).
const MOVED_ROWS_MAX: i64 = 5_000;
/// Number of waiting rows that `adopt --drain` moves in one transaction.
const DRAINED_ROWS: i64 = 1_000;

/// Why a table cannot be adopted, or an adoption cannot be undone. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error("table {table} cannot be adopted: {why}")]
    Refused { table: String, why: String },
    #[error(
        "table {table} is not adopted as the manifest says: set spec.migration.policy to Apply"
    )]
    NotApplied { table: String },
    #[error(
        "table {table} has more than {MOVED_ROWS_MAX} waiting rows: stop its old worker and move \
         them with `outbox-relay adopt --drain`"
    )]
    TooManyWaiting { table: String },
    #[error(
        "{rows} rows of table {table} still wait in the outbox: suspend the relays or let them \
         publish the rows, then the table is released"
    )]
    RowsWait { table: String, rows: i64 },
    #[error(
        "table {table} is in use by long transactions, and could not be locked within {waited:?}; \
         this is retried"
    )]
    Busy { table: String, waited: Duration },
    #[error("cannot {what} of table {table}")]
    Database {
        what: &'static str,
        table: String,
        #[source]
        source: DatabaseError,
    },
}

impl AdoptError {
    /// Converts the error for a report: a class and a sentence.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Database { source, .. } => {
                Problem::new(source.class, format!("{self}: {source}"))
            }
            Self::Busy { .. } => Problem::new(ProblemClass::LockTimeout, self.to_string()),
            _ => Problem::new(ProblemClass::AdoptionRefused, self.to_string()),
        }
    }
}

/// Quoted name of a table with its schema.
fn quoted_table(schema: &str, table: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(table))
}

fn refused(settings: &AdoptSettings, why: impl Into<String>) -> AdoptError {
    AdoptError::Refused {
        table: settings.to_string(),
        why: why.into(),
    }
}

/// Returns a function that turns an error of a statement into one of an adoption, for `map_err`.
/// `what` completes "cannot ... of table".
fn failed<E: Into<DatabaseError>>(
    what: &'static str,
    table: impl ToString,
) -> impl FnOnce(E) -> AdoptError {
    let table = table.to_string();
    move |error| AdoptError::Database {
        what,
        table,
        source: error.into(),
    }
}

/// Runs several statements.
async fn run(
    connection: &mut PgConnection,
    sql: String,
    what: &'static str,
    table: impl ToString,
) -> Result<(), AdoptError> {
    connection
        .execute(raw_sql(AssertSqlSafe(sql).into_sql_str()))
        .await
        .map_err(failed(what, table))?;
    Ok(())
}
