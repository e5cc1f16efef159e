//! The doorbell's connection: it holds the locks of lanes whose relay sleeps, and receives rings.
//! IO.
//!
//! It is a connection of its own, and never connects again: with the connection its locks and rings
//! are gone, and the relay must notice.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, FromRow, SqlSafeStr, SqlStr,
    postgres::{PgListener, PgPool, PgPoolOptions},
    query, query_scalar,
};

use crate::{
    outbox::{
        connect::{Connect, Setting, cause, with_timeout},
        error::{DatabaseError, while_connecting},
        ids::Lane,
        schema::statement,
    },
    settings::SchemaName,
};

/// The server ends the session 5 s after the last request, so that a frozen relay keeps its locks
/// no longer. If the relay reads nothing, the server's rings fill the connection and the session is
/// not idle. Then the connection ends 5 s after the last byte that it took.
const BELL_OPTIONS: &[Setting] = &[
    ("idle_session_timeout", "5s"),
    ("tcp_user_timeout", "5000"),
    ("tcp_keepalives_idle", "2"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
];
/// Longest time to connect.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer. A relay may think that it holds locks for that long.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);

/// Statement that gives up all locks of the session.
const UNLOCK: &str = "select pg_advisory_unlock_all()";
/// Statement that shows the server that the relay is alive.
const PING: &str = "select";

/// The doorbell's connection, which listens.
pub struct Bell {
    listener: PgListener,
    /// Only [`Self::listener`] uses it.
    pool: PgPool,
    lock: SqlStr,
    /// First number of the locks.
    key: i32,
}

impl Bell {
    /// Connects and listens. `None`: no relay may sleep on this server, or on this connection to
    /// it.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// Cancel safe: the connection is closed.
    pub async fn open(
        connect: &Connect,
        schema: &SchemaName,
    ) -> Result<Option<Self>, DatabaseError> {
        Ok(with_timeout(OPEN_TIMEOUT, Self::listen(connect, schema)).await?)
    }

    async fn listen(connect: &Connect, schema: &SchemaName) -> Result<Option<Self>, sqlx::Error> {
        let mut bell = Self::connect(connect, schema).await?;
        let is_usable = bell.read_key(schema).await?;
        if !is_usable {
            return Ok(None);
        }
        let channel = format!("outbox_{}", bell.key.cast_unsigned());
        bell.listener.listen(&channel).await?;
        Ok(Some(bell))
    }

    async fn connect(connect: &Connect, schema: &SchemaName) -> Result<Self, sqlx::Error> {
        let (options, gateway) = connect.clone().with(BELL_OPTIONS).reach();
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool)
            .await
            .map_err(|error| cause(gateway.as_ref(), error))
            .map_err(|error| while_connecting(&connect.to_string(), error))?;
        listener.eager_reconnect(false);
        listener.ignore_pool_close_event(true);
        Ok(Self {
            listener,
            pool,
            lock: statement(include_str!("sql/bell_lock.sql"), schema),
            key: 0,
        })
    }

    /// Reads the first number of the locks. Returns whether a relay may sleep on this connection.
    async fn read_key(&mut self, schema: &SchemaName) -> Result<bool, sqlx::Error> {
        let open = query(statement(include_str!("sql/bell_open.sql"), schema));
        let row = open.fetch_one(&mut self.listener).await?;
        let is_usable;
        (self.key, is_usable) = FromRow::from_row(&row)?;
        Ok(is_usable)
    }

    /// Locks these lanes, all of them or none. Returns whether they are locked.
    ///
    /// # Errors
    /// Returns an error when the database fails. Drop the connection then.
    ///
    /// # Cancel safety
    /// Not cancel safe: if dropped midway, drop the connection too.
    pub async fn lock(&mut self, lanes: impl Iterator<Item = Lane>) -> Result<bool, DatabaseError> {
        let lanes: Vec<i32> = lanes.map(|lane| i32::from(i16::from(lane))).collect();
        let lock = query_scalar(self.lock.clone()).bind(self.key).bind(lanes);
        let is_locked: bool =
            with_timeout(ANSWER_TIMEOUT, lock.fetch_one(&mut self.listener)).await?;
        if !is_locked {
            self.unlock().await?;
        }
        Ok(is_locked)
    }

    /// Unlocks all lanes.
    ///
    /// # Errors
    /// Returns an error when the database fails. Drop the connection then.
    ///
    /// # Cancel safety
    /// Not cancel safe: if dropped midway, drop the connection too.
    pub async fn unlock(&mut self) -> Result<(), DatabaseError> {
        self.run(UNLOCK).await
    }

    /// Shows the server that the relay is alive.
    ///
    /// # Errors
    /// Returns an error when the database fails. Drop the connection then.
    ///
    /// # Cancel safety
    /// Not cancel safe: if dropped midway, drop the connection too.
    pub async fn ping(&mut self) -> Result<(), DatabaseError> {
        self.run(PING).await
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), DatabaseError> {
        let statement = query(AssertSqlSafe(sql).into_sql_str());
        with_timeout(ANSWER_TIMEOUT, statement.execute(&mut self.listener)).await?;
        Ok(())
    }

    /// Waits for a ring and returns the lane of the row. `None`: the connection is gone; drop it.
    ///
    /// # Cancel safety
    /// Cancel safe: no ring is lost.
    pub async fn ring(&mut self) -> Option<Lane> {
        loop {
            let ring = self.listener.try_recv().await.ok()??;
            if let Some(lane) = ring.payload().parse().ok().and_then(Lane::from_column) {
                return Some(lane);
            }
        }
    }
}

/// Closes the connection: otherwise the listener would return it to its pool, with the locks.
impl Drop for Bell {
    fn drop(&mut self) {
        drop(self.pool.close());
    }
}
