//! Undoes the adoption of a table that the manifest does not list any more. IO.

use sqlx::{AssertSqlSafe, PgConnection, query_scalar};

use crate::{
    outbox::{
        adopt::{
            AdoptError, failed,
            registry::{Registered, State},
            run,
            statements::{self, drop_triggers},
            table::Table,
        },
        error::DatabaseError,
        schema::{literal, quoted, statement},
    },
    settings::RelaySettings,
};

/// Adopted tables that the manifest does not list any more. A table that `adopt --drain` is moving
/// is not adopted yet, so the manifest need not list it.
pub(super) fn removed<'a>(
    registered: &'a [Registered],
    settings: &'a RelaySettings,
) -> impl Iterator<Item = &'a Registered> {
    registered.iter().filter(|entry| {
        let is_listed = settings.migration.adopt.iter().any(|adopt| entry.is(adopt));
        entry.state == State::Adopted && !is_listed
    })
}

/// Quoted name of an adopted table; `None` if somebody has dropped it.
///
/// # Errors
/// Returns an error when the database fails.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn existing_table(
    connection: &mut PgConnection,
    entry: &Registered,
) -> Result<Option<String>, AdoptError> {
    let name = entry.quoted();
    let exists: bool = query_scalar("select to_regclass($1) is not null")
        .bind(&name)
        .fetch_one(connection)
        .await
        .map_err(failed("check the existence", &name))?;
    Ok(exists.then_some(name))
}

/// Drops the triggers of a table, and gives rows that still wait back to it.
///
/// # Errors
/// Returns [`AdoptError::RowsWait`] when rows of the table wait while relays are active.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn release(
    connection: &mut PgConnection,
    settings: &RelaySettings,
    entry: &Registered,
) -> Result<String, AdoptError> {
    let name = entry.to_string();
    let table = existing_table(&mut *connection, entry).await?;
    let mut returned: i64 = 0;
    if let Some(table) = &table {
        run(
            &mut *connection,
            lock_relays(settings),
            "keep relays from starting with rows",
            &name,
        )
        .await?;
        check_no_row_is_sent(&mut *connection, settings, entry).await?;
        if let Some(sql) = give_back(&mut *connection, settings, entry).await? {
            returned = query_scalar(AssertSqlSafe(sql))
                .fetch_one(&mut *connection)
                .await
                .map_err(failed("give back the rows", &name))?;
        }
        run(
            &mut *connection,
            drop_triggers(table),
            "drop the triggers",
            &name,
        )
        .await?;
    }
    let release = statements::release(&settings.database.schema, entry.source);
    run(connection, release, "drop the functions", &name).await?;
    Ok(format!(
        "table {name} is released, {returned} rows went back to it as unpublished"
    ))
}

/// Statement that keeps relays from getting a lease until the transaction ends. One that starts
/// then sees which rows have gone back.
fn lock_relays(settings: &RelaySettings) -> String {
    let schema = quoted(settings.database.schema.as_str());
    format!("lock table {schema}.relay in share row exclusive mode;\n")
}

/// Statement that fails when a relay could be sending a row of the table.
fn render_check(settings: &RelaySettings, entry: &Registered) -> String {
    let schema = quoted(settings.database.schema.as_str());
    let message = literal(&format!(
        "rows of table {entry} still wait in the outbox: suspend the relays first"
    ));
    format!(
        "do $adopt$\nbegin\n  if exists (select from {schema}.event where source = {})\n    and \
         exists (select from {schema}.relay where lease_until > clock_timestamp())\n  then\n    \
         raise exception using message = {message};\n  end if;\nend $adopt$;\n",
        entry.source
    )
}

/// Checks that no relay could be sending a row of the table.
async fn check_no_row_is_sent(
    connection: &mut PgConnection,
    settings: &RelaySettings,
    entry: &Registered,
) -> Result<(), AdoptError> {
    let name = entry.to_string();
    let count = "select count(*) from @schema@.event where source = $1";
    let rows: i64 = query_scalar(statement(count, &settings.database.schema))
        .bind(entry.source)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed("count the waiting rows", &name))?;
    let relays = active_relays(connection, settings)
        .await
        .map_err(failed("count the relays", &name))?;
    if rows > 0 && relays > 0 {
        return Err(AdoptError::RowsWait { table: name, rows });
    }
    Ok(())
}

/// Statement that gives rows back; `None` for a table that does not show which rows wait, or that
/// does not exist any more.
async fn give_back(
    connection: &mut PgConnection,
    settings: &RelaySettings,
    entry: &Registered,
) -> Result<Option<String>, AdoptError> {
    let name = entry.to_string();
    let schema = &settings.database.schema;
    let column = "select published_column from @schema@.adopted where source = $1";
    let published_column: Option<String> = query_scalar(statement(column, schema))
        .bind(entry.source)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed("read the state", &name))?;
    let table = Table::read(connection, &entry.schema, &entry.table)
        .await
        .map_err(failed("read the definition", &name))?;
    Ok(match (table, published_column) {
        (Some(table), Some(column)) => {
            Some(statements::give_back(schema, entry.source, &table, &column))
        }
        _ => None,
    })
}

/// Returns the statements of [`release`] as text.
///
/// # Errors
/// Returns an error for everything that stops [`release`].
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn render(
    connection: &mut PgConnection,
    settings: &RelaySettings,
    entry: &Registered,
) -> Result<String, AdoptError> {
    let mut text = String::new();
    if let Some(table) = existing_table(&mut *connection, entry).await? {
        check_no_row_is_sent(&mut *connection, settings, entry).await?;
        let give_back = give_back(connection, settings, entry).await?;
        let give_back = give_back.map(|sql| format!("{};\n", sql.trim_end()));
        text.push_str(&format!(
            "\n-- Table {table} is not adopted any more.\nlock table {table} in share row \
             exclusive mode;\n{}{}{}{}",
            lock_relays(settings),
            render_check(settings, entry),
            give_back.unwrap_or_default(),
            drop_triggers(&table)
        ));
    }
    text.push_str(&statements::release(
        &settings.database.schema,
        entry.source,
    ));
    Ok(text)
}

/// Number of relays with a valid lease.
async fn active_relays(
    connection: &mut PgConnection,
    settings: &RelaySettings,
) -> Result<i64, DatabaseError> {
    let count = "select count(*) from @schema@.relay where lease_until > clock_timestamp()";
    let count = query_scalar(statement(count, &settings.database.schema));
    Ok(count.fetch_one(connection).await?)
}
