//! Units of work: the only place where statements are sent and transactions begin, at the server
//! itself or at a pooler in front of it. IO.
//!
//! A pooler in transaction mode gives each transaction any connection to the server. sqlx sends a
//! statement in two steps, prepare and execute. Each step is a transaction of its own unless one is
//! open. So the pooler may prepare our statement on one connection and execute on another one what
//! another client prepared there, without an error. Named statements would stay behind on
//! connections that other clients use next.
//!
//! Therefore, behind a pooler, every statement is unnamed and inside an explicit transaction, reads
//! included. The transaction begins with one simple query that also sets the settings that the work
//! needs, because nothing of a session lasts.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{TryStreamExt, stream::BoxStream};
use sqlx::{
    ConnectOptions, Executor, PgConnection, Postgres, SqlSafeStr, SqlStr,
    pool::PoolConnection,
    postgres::{PgArguments, PgPool, PgPoolOptions, PgRow},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::outbox::{
    connect::{Connect, Gateway, Peer, Setting, cause, with_timeout},
    error::{while_connecting, while_working},
};

/// Statement with its arguments.
pub type Statement<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// Longest wait for a permit, and again for a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for an attempt to connect that shows why the pool could not.
const CAUSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time that a connection stays outside of the pool.
///
/// The pool sends a ping to the server whenever a connection is returned. That would be every
/// second message. So between two units of work a connection is kept outside of the pool, and
/// returned after this time. The pool then closes it if it is too old.
const CHECKOUT_MAX: Duration = Duration::from_secs(60);

/// Longest wait for the server's answer to a statement, longer than `statement_timeout`.
///
/// Without an answer by then, the connection is dead: the host was switched off, or a firewall
/// dropped the connection from its table. TCP does not report that, and only a new connection
/// helps.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(40);

/// Connections for one kind of work, opened on first use.
#[derive(Clone)]
pub struct Connections {
    pool: PgPool,
    /// One permit for each connection of the pool, so that a unit of work never waits for the pool
    /// while an idle connection is outside of it.
    permits: Arc<Semaphore>,
    idle: IdleConnections,
    peer: Peer,
    /// Statement that begins a transaction.
    begin: SqlStr,
    /// Name of the database for people.
    database: Arc<str>,
    /// Where the pool's connections lead to, if not to the server itself.
    gateway: Option<Arc<Gateway>>,
}

/// Connections that are outside of the pool and not in use.
#[derive(Clone, Default)]
struct IdleConnections(Arc<Mutex<Vec<CheckedOut>>>);

/// A connection outside of the pool.
struct CheckedOut {
    connection: PoolConnection<Postgres>,
    /// When it left the pool.
    since: Instant,
}

impl CheckedOut {
    /// Takes a connection that leaves the pool now.
    fn new(connection: PoolConnection<Postgres>) -> Self {
        Self {
            connection,
            since: Instant::now(),
        }
    }
}

impl IdleConnections {
    fn pop(&self) -> Option<CheckedOut> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps a connection, or returns it to the pool by dropping it.
    fn push(&self, checked_out: CheckedOut) {
        if checked_out.since.elapsed() < CHECKOUT_MAX {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(checked_out);
        }
    }
}

impl Connections {
    /// Connections that are opened on first use. `settings` are added to those of `connect`.
    #[must_use]
    pub fn new(connect: &Connect, max: u32, settings: &'static [Setting]) -> Self {
        let connect = connect.clone().with(settings);
        let pool = PgPoolOptions::new()
            .max_connections(max)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false);
        let (options, gateway) = connect.reach();
        Self {
            pool: pool.connect_lazy_with(options),
            permits: Arc::new(Semaphore::new(max as usize)),
            idle: IdleConnections::default(),
            peer: connect.peer(),
            begin: connect.begin(),
            database: connect.to_string().into(),
            gateway: gateway.map(Arc::new),
        }
    }

    /// Runs one statement in a transaction of its own and returns all its rows.
    ///
    /// # Errors
    /// Returns an error when the database fails. The statement may have been committed then, or
    /// not.
    ///
    /// # Cancel safety
    /// If dropped midway, the statement may have been committed, or not.
    pub async fn rows(&self, statement: Statement<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut work = self.begin_single().await?;
        let rows = work.rows(statement).await?;
        work.commit().await?;
        Ok(rows)
    }

    /// Runs one statement in a transaction of its own and passes its rows to `on_row` as they
    /// arrive.
    ///
    /// When `on_row` breaks, the connection is closed, which ends the statement.
    ///
    /// # Errors
    /// Returns an error when the database fails, and the error of `on_row` when that fails.
    ///
    /// # Cancel safety
    /// If dropped midway, the connection is closed, and the statement may have been committed, or
    /// not.
    pub async fn for_each_row<E: From<sqlx::Error>>(
        &self,
        statement: Statement<'_>,
        mut on_row: impl FnMut(&PgRow) -> Result<ControlFlow<()>, E>,
    ) -> Result<ControlFlow<()>, E> {
        let mut work = self.begin_single().await?;
        {
            let mut rows = work.stream(statement)?;
            while let Some(row) = with_timeout(RESPONSE_TIMEOUT, rows.try_next())
                .await
                .map_err(|error| while_working(&self.database, error))?
            {
                if on_row(&row)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        work.commit().await?;
        Ok(ControlFlow::Continue(()))
    }

    /// Runs one statement in a transaction of its own and returns its first row.
    ///
    /// # Errors
    /// Returns an error when there is no row, and when the database fails. In the second case the
    /// statement may have been committed, or not.
    ///
    /// # Cancel safety
    /// If dropped midway, the statement may have been committed, or not.
    pub async fn row(&self, statement: Statement<'_>) -> Result<PgRow, sqlx::Error> {
        self.rows(statement)
            .await?
            .into_iter()
            .next()
            .ok_or(sqlx::Error::RowNotFound)
    }

    /// Begins a unit of work of one statement. The server itself needs no explicit transaction
    /// then.
    async fn begin_single(&self) -> Result<UnitOfWork, sqlx::Error> {
        match self.peer {
            Peer::Server => self.acquire().await,
            Peer::Pooler => self.begin().await,
        }
    }

    /// Begins a transaction of several statements.
    ///
    /// # Errors
    /// Returns an error when the database fails or no connection is free within 5 s.
    ///
    /// # Cancel safety
    /// Cancel safe: the connection is closed, and the server rolls the transaction back.
    pub async fn begin(&self) -> Result<UnitOfWork, sqlx::Error> {
        let mut work = self.acquire().await?;
        work.in_transaction = true;
        work.simple_query(self.begin.clone()).await?;
        Ok(work)
    }

    async fn acquire(&self) -> Result<UnitOfWork, sqlx::Error> {
        let permit = self.permit().await?;
        Ok(UnitOfWork {
            checked_out: Some(self.check_out().await?),
            idle: self.idle.clone(),
            database: Arc::clone(&self.database),
            _permit: permit,
            peer: self.peer,
            in_transaction: false,
        })
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, sqlx::Error> {
        let acquire = Arc::clone(&self.permits).acquire_owned();
        tokio::time::timeout(ACQUIRE_TIMEOUT, acquire)
            .await
            .map_err(|_| while_connecting(&self.database, sqlx::Error::PoolTimedOut))?
            .map_err(|_| sqlx::Error::PoolClosed)
    }

    /// An idle connection, or one of the pool.
    async fn check_out(&self) -> Result<CheckedOut, sqlx::Error> {
        if let Some(checked_out) = self.idle.pop() {
            return Ok(checked_out);
        }
        match self.pool.acquire().await {
            Ok(connection) => Ok(CheckedOut::new(connection)),
            Err(error) => {
                let error = cause(self.gateway.as_deref(), self.last_cause(error).await);
                Err(while_connecting(&self.database, error))
            }
        }
    }

    /// Why the pool has no connection. It retries some errors until its time is over, and then only
    /// reports that. One more attempt without it shows the error.
    async fn last_cause(&self, error: sqlx::Error) -> sqlx::Error {
        if !matches!(error, sqlx::Error::PoolTimedOut) {
            return error;
        }
        let options = self.pool.connect_options();
        match with_timeout(CAUSE_TIMEOUT, options.connect()).await {
            Ok(_) => error,
            Err(cause) => cause,
        }
    }
}

/// A connection with work in progress.
///
/// Unless the work is committed, the connection is closed and not reused. Only the server knows
/// whether a transaction that was cut short is still open: sqlx's own `begin`, dropped before its
/// answer, returns a connection with an open transaction to the pool. Closing also gets rid of
/// connections to a server that has become a standby.
pub struct UnitOfWork {
    /// Empty once the connection was handed on.
    checked_out: Option<CheckedOut>,
    idle: IdleConnections,
    peer: Peer,
    /// Name of the database for people.
    database: Arc<str>,
    in_transaction: bool,
    /// Fields are dropped in order, this one last: the next owner of the permit finds the
    /// connection.
    _permit: OwnedSemaphorePermit,
}

impl UnitOfWork {
    /// Runs a statement and returns all its rows.
    ///
    /// # Errors
    /// Returns an error when the database fails. Drop the unit of work then.
    ///
    /// # Cancel safety
    /// Not cancel safe: if dropped midway, drop the unit of work too.
    pub async fn rows(&mut self, statement: Statement<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        self.rows_with_timeout(RESPONSE_TIMEOUT, statement).await
    }

    /// Runs a statement that may take longer than others and returns all its rows.
    ///
    /// # Errors
    /// Returns an error when the database fails or does not answer within `limit`. Drop the unit of
    /// work then.
    ///
    /// # Cancel safety
    /// Not cancel safe: if dropped midway, drop the unit of work too.
    pub async fn rows_with_timeout(
        &mut self,
        limit: Duration,
        statement: Statement<'_>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let rows = with_timeout(limit, self.stream(statement)?.try_collect()).await;
        rows.map_err(|error| while_working(&self.database, error))
    }

    /// Rows of a statement as they arrive.
    fn stream<'w>(
        &'w mut self,
        statement: Statement<'w>,
    ) -> Result<BoxStream<'w, Result<PgRow, sqlx::Error>>, sqlx::Error> {
        let statement = statement.persistent(self.peer == Peer::Server);
        Ok(statement.fetch(self.connection()?))
    }

    /// Runs a statement and returns its first row.
    ///
    /// # Errors
    /// Returns an error when there is no row, and when the database fails. Drop the unit of work
    /// after the second.
    ///
    /// # Cancel safety
    /// Not cancel safe: if dropped midway, drop the unit of work too.
    pub async fn row(&mut self, statement: Statement<'_>) -> Result<PgRow, sqlx::Error> {
        self.rows(statement)
            .await?
            .into_iter()
            .next()
            .ok_or(sqlx::Error::RowNotFound)
    }

    /// Commits the work and keeps the connection for the next one.
    ///
    /// # Errors
    /// Returns an error when the database fails. The work may have been committed then, or not.
    ///
    /// # Cancel safety
    /// If dropped midway, the work may have been committed, or not.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        if self.in_transaction {
            self.simple_query("commit".into_sql_str()).await?;
        }
        self.keep_connection();
        Ok(())
    }

    /// Runs statements without arguments as one simple query, such as `begin; set local ...`, and
    /// ignores their results.
    async fn simple_query(&mut self, sql: SqlStr) -> Result<(), sqlx::Error> {
        let done = self.connection()?.execute(sql);
        let done = with_timeout(RESPONSE_TIMEOUT, done).await;
        done.map(drop)
            .map_err(|error| while_working(&self.database, error))
    }

    /// Hands the connection on to the next unit of work.
    fn keep_connection(&mut self) {
        if let Some(checked_out) = self.checked_out.take() {
            self.idle.push(checked_out);
        }
    }

    fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        match &mut self.checked_out {
            Some(checked_out) => Ok(&mut checked_out.connection),
            None => Err(sqlx::Error::PoolClosed),
        }
    }
}

impl Drop for UnitOfWork {
    fn drop(&mut self) {
        if let Some(checked_out) = &mut self.checked_out {
            checked_out.connection.close_on_drop();
        }
    }
}
