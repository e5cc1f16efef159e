//! Adopts tables, in the transaction of a migration. IO.

use sqlx::{AssertSqlSafe, PgConnection, query_scalar};

use crate::{
    outbox::{
        adopt::{
            AdoptError, DRAINED_ROWS, MOVED_ROWS_MAX,
            conversion::Conversions,
            expressions, failed, refused,
            registry::{self, Registered, State},
            release, run,
            statements::{Adoption, PayloadTypes, RowLocks},
            table::Table,
        },
        schema::literal,
    },
    settings::{AdoptSettings, RelaySettings},
};

/// A table whose adoption differs from what the manifest says, or one that is in order.
pub(super) struct Entry<'a> {
    pub(super) settings: &'a AdoptSettings,
    pub(super) table: Table,
    pub(super) registered: Option<Registered>,
    conversions: Conversions,
    payload_types: PayloadTypes,
    source: i16,
}

impl<'a> Entry<'a> {
    /// Reads the table and checks that it can be adopted.
    ///
    /// # Errors
    /// Returns [`AdoptError::Refused`] with the first obstacle.
    ///
    /// # Cancel safety
    /// If dropped midway, drop the transaction too.
    pub(super) async fn read(
        connection: &mut PgConnection,
        relay: &RelaySettings,
        settings: &'a AdoptSettings,
        sources: &mut Vec<Registered>,
    ) -> Result<Self, AdoptError> {
        let table = Table::read(&mut *connection, &settings.schema, &settings.table)
            .await
            .map_err(failed("read the definition", settings))?;
        let table = table.ok_or_else(|| {
            refused(
                settings,
                "there is no such table: correct spec.migration.adopt",
            )
        })?;
        table.check(&relay.database.schema, settings)?;
        let conversions = Conversions::new(settings, &table.names());
        let (main, fallback) = (&conversions.main, conversions.fallback.as_ref());
        let payload_types =
            expressions::check_all(connection, settings, &table, main, fallback).await?;
        let source = registry::source_of(sources, settings);
        let registered = sources.iter().find(|entry| entry.is(settings)).cloned();
        if registered.is_none() {
            // The next table gets the next number.
            sources.push(new_entry(settings, source));
        }
        Ok(Self {
            settings,
            table,
            registered,
            conversions,
            payload_types,
            source,
        })
    }

    /// The SQL of the adoption.
    pub(super) fn adoption<'s>(&'s self, relay: &'s RelaySettings) -> Adoption<'s> {
        Adoption {
            schema: &relay.database.schema,
            settings: self.settings,
            table: &self.table,
            source: self.source,
            conversions: self.conversions.clone(),
            payload_types: self.payload_types.clone(),
        }
    }

    /// Whether triggers and functions are as the manifest says.
    pub(super) fn is_applied(&self, relay: &RelaySettings) -> bool {
        let definition = self.adoption(relay).definition();
        self.registered.as_ref().is_some_and(|entry| {
            entry.state == State::Adopted
                && entry.definition == definition
                && self.table.has_triggers_of(self.settings)
        })
    }
}

fn new_entry(settings: &AdoptSettings, source: i16) -> Registered {
    Registered {
        source,
        schema: settings.schema.clone(),
        table: settings.table.clone(),
        state: State::Released,
        definition: String::new(),
    }
}

/// Reads all tables of the manifest, and checks that they can be adopted.
///
/// # Errors
/// Returns the first obstacle.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(super) async fn read_entries<'a>(
    connection: &mut PgConnection,
    settings: &'a RelaySettings,
) -> Result<(Vec<Entry<'a>>, Vec<Registered>), AdoptError> {
    let registered = registry::read(&mut *connection, &settings.database.schema)
        .await
        .map_err(failed("read the state", "adopted"))?;
    let mut sources = registered.clone();
    let mut entries = Vec::new();
    for adopt in &settings.migration.adopt {
        entries.push(Entry::read(&mut *connection, settings, adopt, &mut sources).await?);
    }
    Ok((entries, registered))
}

/// What adopting did, one sentence for each table that it changed.
pub(in crate::outbox) type Notes = Vec<String>;

/// Adopts the tables of the manifest, and releases those that it does not list any more.
///
/// # Errors
/// Returns the first obstacle.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(in crate::outbox) async fn apply(
    connection: &mut PgConnection,
    settings: &RelaySettings,
) -> Result<Notes, AdoptError> {
    let (entries, registered) = read_entries(&mut *connection, settings).await?;
    let mut notes = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.is_applied(settings)) {
        notes.push(adopt(&mut *connection, settings, entry).await?);
    }
    for removed in release::removed(&registered, settings) {
        notes.push(release::release(&mut *connection, settings, removed).await?);
    }
    Ok(notes)
}

async fn adopt(
    connection: &mut PgConnection,
    settings: &RelaySettings,
    entry: &Entry<'_>,
) -> Result<String, AdoptError> {
    let adoption = entry.adoption(settings);
    check_few_wait(&mut *connection, &adoption).await?;
    let make = adoption.make();
    run(&mut *connection, make, "make the triggers", entry.settings).await?;
    let moved = move_rows(&mut *connection, &adoption, RowLocks::None, MOVED_ROWS_MAX).await?;
    register(connection, &adoption, State::Adopted).await?;
    Ok(format!(
        "table {} is adopted, {moved} waiting rows were moved",
        entry.settings
    ))
}

async fn check_few_wait(
    connection: &mut PgConnection,
    adoption: &Adoption<'_>,
) -> Result<(), AdoptError> {
    let Some(count) = adoption.count_waiting() else {
        return Ok(());
    };
    let waiting: i64 = query_scalar(AssertSqlSafe(count))
        .bind(MOVED_ROWS_MAX + 1)
        .fetch_one(connection)
        .await
        .map_err(failed("count the waiting rows", adoption.settings))?;
    if waiting > MOVED_ROWS_MAX {
        let table = adoption.settings.to_string();
        return Err(AdoptError::TooManyWaiting { table });
    }
    Ok(())
}

/// Moves waiting rows, the oldest first, at most `rows_max`. Returns how many.
async fn move_rows(
    connection: &mut PgConnection,
    adoption: &Adoption<'_>,
    locks: RowLocks,
    rows_max: i64,
) -> Result<i64, AdoptError> {
    const WHAT: &str = "move the waiting rows";
    let Some(function) = adoption.move_function(locks) else {
        return Ok(0);
    };
    run(&mut *connection, function, WHAT, adoption.settings).await?;
    let call = format!("select {}($1)", adoption.move_name());
    let moved = query_scalar(AssertSqlSafe(call))
        .bind(rows_max)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed(WHAT, adoption.settings))?;
    let drop = format!("drop function {}(bigint)", adoption.move_name());
    run(connection, drop, WHAT, adoption.settings).await?;
    Ok(moved)
}

async fn register(
    connection: &mut PgConnection,
    adoption: &Adoption<'_>,
    state: State,
) -> Result<(), AdoptError> {
    let registration = adoption.registration(state);
    run(
        connection,
        registration,
        "record the adoption",
        adoption.settings,
    )
    .await
}

/// Checks that tables are adopted as the manifest says.
///
/// # Errors
/// Returns an error for the first table that is not, or that cannot be adopted.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(in crate::outbox) async fn check_applied(
    connection: &mut PgConnection,
    settings: &RelaySettings,
) -> Result<(), AdoptError> {
    let (entries, registered) = read_entries(connection, settings).await?;
    let differs = entries.iter().find(|entry| !entry.is_applied(settings));
    let table = match differs {
        Some(entry) => entry.settings.to_string(),
        None => match release::removed(&registered, settings).next() {
            Some(removed) => removed.to_string(),
            None => return Ok(()),
        },
    };
    Err(AdoptError::NotApplied { table })
}

/// Returns the statements of [`apply`] as text. Each table is locked before it is changed.
///
/// # Errors
/// Returns an error for everything that stops [`apply`].
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(in crate::outbox) async fn script(
    connection: &mut PgConnection,
    settings: &RelaySettings,
) -> Result<String, AdoptError> {
    let (entries, registered) = read_entries(&mut *connection, settings).await?;
    let mut text = String::new();
    for entry in entries.iter().filter(|entry| !entry.is_applied(settings)) {
        let adoption = entry.adoption(settings);
        check_few_wait(&mut *connection, &adoption).await?;
        text.push_str(&render(&adoption));
    }
    for removed in release::removed(&registered, settings) {
        text.push_str(&release::render(&mut *connection, settings, removed).await?);
    }
    Ok(text)
}

fn render(adoption: &Adoption<'_>) -> String {
    let table = &adoption.table.quoted;
    let mut text = format!(
        "\n-- Adopted table {table}. Writers of the table wait until the transaction ends.\nlock \
         table {table} in share row exclusive mode;\n{}",
        adoption.make()
    );
    if let Some(function) = adoption.move_function(RowLocks::None) {
        let name = adoption.move_name();
        text.push_str(&format!(
            "{function}select {name}({MOVED_ROWS_MAX});\ndrop function {name}(bigint);\n{}",
            render_check(adoption)
        ));
    }
    text.push_str(&adoption.registration(State::Adopted));
    text
}

/// Statement that fails when rows still wait: more have come since the script was written.
fn render_check(adoption: &Adoption<'_>) -> String {
    let Some(waiting) = adoption.any_waiting() else {
        return String::new();
    };
    let table = adoption.settings.to_string();
    let message = literal(&AdoptError::TooManyWaiting { table }.to_string());
    format!(
        "do $adopt$\nbegin\n  if {waiting} then\n    raise exception using message = {message};\n  \
         end if;\nend $adopt$;\n"
    )
}

/// Moves the oldest waiting rows of a table that has no triggers yet, [`DRAINED_ROWS`] at most.
/// Returns how many.
///
/// # Errors
/// Returns an error when the table cannot be adopted, has been adopted already, or the database
/// fails.
///
/// # Cancel safety
/// If dropped midway, drop the transaction too.
pub(in crate::outbox) async fn drain(
    connection: &mut PgConnection,
    settings: &RelaySettings,
    adopt: &AdoptSettings,
) -> Result<i64, AdoptError> {
    let mut sources = registry::read(&mut *connection, &settings.database.schema)
        .await
        .map_err(failed("read the state", adopt))?;
    let entry = Entry::read(&mut *connection, settings, adopt, &mut sources).await?;
    entry.table.check_rights(adopt)?;
    if entry
        .registered
        .as_ref()
        .is_some_and(|entry| entry.state == State::Adopted)
    {
        return Ok(0);
    }
    let adoption = entry.adoption(settings);
    register(&mut *connection, &adoption, State::Draining).await?;
    move_rows(connection, &adoption, RowLocks::ForUpdate, DRAINED_ROWS).await
}
