//! Locks tables before the migration changes anything, so that writers wait only while it does. IO.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::Instant;

use crate::{
    outbox::adopt::{AdoptError, apply::read_entries, release, run},
    report::ProblemClass,
    settings::RelaySettings,
};

/// Longest wait for a lock. Writers of the tables wait behind ours meanwhile.
const LOCK_TIMEOUT: &str = "200ms";

/// Pause between two attempts to lock the tables, in which writers go on.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Checks that all tables can be adopted, and locks those that will change, until the transaction
/// ends.
///
/// The lock excludes writers and other migrations. It must be taken in a read-committed
/// transaction that has changed nothing yet: the statements after it then see all rows that were
/// committed before it, and writers wait for nothing else.
///
/// # Errors
/// Returns the first obstacle to an adoption, or [`AdoptError::Busy`] after `lock_wait`.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(in crate::outbox) async fn lock_tables(
    connection: &mut PgConnection,
    settings: &RelaySettings,
    lock_wait: Duration,
) -> Result<(), AdoptError> {
    let start = Instant::now();
    loop {
        execute(&mut *connection, "savepoint adopt").await?;
        let tables = tables_to_lock(&mut *connection, settings).await?;
        let Some(table) = first_busy(&mut *connection, &tables).await? else {
            return Ok(());
        };
        if start.elapsed() >= lock_wait {
            let waited = lock_wait;
            return Err(AdoptError::Busy { table, waited });
        }
        // This gives up the locks that were taken.
        execute(&mut *connection, "rollback to savepoint adopt").await?;
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Quoted names of the tables that will be adopted or released.
async fn tables_to_lock(
    connection: &mut PgConnection,
    settings: &RelaySettings,
) -> Result<Vec<String>, AdoptError> {
    let (entries, registered) = read_entries(&mut *connection, settings).await?;
    let mut tables = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.is_applied(settings)) {
        entry.table.check_rights(entry.settings)?;
        tables.push(entry.table.quoted.clone());
    }
    for removed in release::removed(&registered, settings) {
        tables.extend(release::existing_table(&mut *connection, removed).await?);
    }
    // Two migrations that lock in one order cannot wait for each other.
    tables.sort_unstable();
    Ok(tables)
}

/// Locks the tables. Returns the first that other transactions keep, after [`LOCK_TIMEOUT`].
///
/// The timeout stays until the transaction ends: writers wait for us from now on, so the migration
/// must not wait for a lock for longer, such as that of a row that an old worker holds.
async fn first_busy(
    connection: &mut PgConnection,
    tables: &[String],
) -> Result<Option<String>, AdoptError> {
    for table in tables {
        let lock = format!(
            "set local lock_timeout = '{LOCK_TIMEOUT}'; lock table {table} in share row exclusive \
             mode"
        );
        match execute(&mut *connection, &lock).await {
            Ok(()) => {}
            Err(error) if error.problem().class == ProblemClass::LockTimeout => {
                return Ok(Some(table.clone()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

async fn execute(connection: &mut PgConnection, sql: &str) -> Result<(), AdoptError> {
    run(connection, sql.to_owned(), "lock the rows", "to adopt").await
}
