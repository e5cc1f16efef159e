//! The connection and the transaction of a migration. IO.

use sqlx::{Connection, PgConnection, PgTransaction, query};

use crate::{
    outbox::{
        connect::{Connect, ConnectError},
        migrate::{MigrateError, preparing},
        schema::statement,
        server_product::ServerVersion,
    },
    secrets::Secrets,
    settings::{RelaySettings, SchemaName},
};

/// Oldest major version of PostgreSQL that the migrations support.
const SERVER_VERSION_MIN: i32 = 15;

/// Connection to the database of a migration.
pub(super) struct MigrationConnection {
    connect: Connect,
    connection: PgConnection,
}

impl MigrationConnection {
    /// Connects with the credentials and timeouts of a migration.
    ///
    /// # Errors
    /// Returns an error when a secret cannot be used or the server cannot be reached.
    ///
    /// # Cancel safety
    /// Cancel safe: the server sees a connection that closes.
    pub(super) async fn open(
        settings: &RelaySettings,
        secrets: &Secrets,
    ) -> Result<Self, ConnectError> {
        let connect = Connect::migration(settings, secrets)?;
        let connection = connect.open().await?;
        Ok(Self {
            connect,
            connection,
        })
    }

    /// Begins a transaction in which unqualified names are those of the schema.
    ///
    /// # Errors
    /// Returns an error when the database fails, or the server is too old or another product.
    ///
    /// # Cancel safety
    /// If dropped midway, drop the connection too. The server rolls the transaction back.
    pub(super) async fn begin(
        &mut self,
        schema: &SchemaName,
    ) -> Result<PgTransaction<'_>, MigrateError> {
        let mut transaction = self
            .connection
            .begin_with(self.connect.begin())
            .await
            .map_err(preparing("begin a transaction"))?;
        // First, while the search path is the role's own.
        check_server(&mut transaction).await?;
        // pg_temp comes explicitly last: functions store exactly this path, and without it
        // temporary tables would hide those of the schema.
        let path = statement("set local search_path = @schema@, pg_temp", schema);
        query(path)
            .execute(&mut *transaction)
            .await
            .map_err(preparing("set the search path"))?;
        Ok(transaction)
    }

    /// Begins a read-only transaction in which unqualified names are those of the schema.
    ///
    /// # Errors
    /// Returns an error when the database fails, or the server is too old or another product.
    ///
    /// # Cancel safety
    /// If dropped midway, drop the connection too.
    pub(super) async fn begin_reading(
        &mut self,
        schema: &SchemaName,
    ) -> Result<PgTransaction<'_>, MigrateError> {
        let mut transaction = self.begin(schema).await?;
        query("set transaction read only")
            .execute(&mut *transaction)
            .await
            .map_err(preparing("make the transaction read-only"))?;
        Ok(transaction)
    }
}

async fn check_server(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let version = ServerVersion::read(connection)
        .await
        .map_err(preparing("read the server's version"))?;
    version.check_product()?;
    if version.major < SERVER_VERSION_MIN {
        return Err(MigrateError::ServerTooOld {
            major: version.major,
        });
    }
    Ok(())
}

/// Commits a transaction and removes our named statements from the connection, which may be a
/// pooler's. A transaction that fails closes the connection, and a pooler then closes its own.
///
/// # Errors
/// Returns an error when the database fails. The transaction may have been committed then, or not.
///
/// # Cancel safety
/// If dropped midway, the transaction may have been committed, or not.
pub(super) async fn commit(mut transaction: PgTransaction<'_>) -> Result<(), sqlx::Error> {
    transaction.clear_cached_statements().await?;
    transaction.commit().await
}
