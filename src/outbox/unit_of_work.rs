//! Units of work: the one place where statements are sent and transactions begin, at the server
//! itself or at a pooler before it. IO.
//!
//! A pooler in transaction mode gives each transaction some connection of the server. sqlx sends a
//! statement in two steps, each a transaction of its own unless one is open: the pooler may prepare
//! ours here and run there what another client prepared, without an error. Named statements would
//! stay behind on connections that are not ours. So behind a pooler every statement, a read too, is
//! unnamed and inside an explicit transaction, and that begins with one simple query that also sets
//! what the work needs, since nothing of a session lasts.

use std::{
    future::Future,
    io,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{TryStreamExt, stream::BoxStream};
use sqlx::{
    Executor, PgConnection, Postgres, SqlStr,
    pool::PoolConnection,
    postgres::{PgArguments, PgPool, PgPoolOptions, PgRow},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::outbox::connect::{Connect, Peer, Setting};

/// A statement with its arguments.
pub type Statement<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// Longest wait for a connection of a pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The pool asks the server whether a connection lives whenever it gets one back, which would be
/// every second message: between two units of work a connection rests outside of it, and goes back
/// when it has been out for this long. Then the pool closes it if it is old.
const OUT_OF_POOL: Duration = Duration::from_secs(60);

/// Longer than a server that lives lets a statement of ours run. Without an answer by then the
/// connection is dead, such as to a host that was switched off or through a firewall that forgot
/// it: nobody says so, and nothing but another connection helps.
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// Connections for one kind of work, opened when they are wanted.
#[derive(Clone)]
pub struct Connections {
    pool: PgPool,
    /// Units of work that may be under way: as many as the pool has connections, so that nobody
    /// waits for the pool.
    permits: Arc<Semaphore>,
    resting: Resting,
    peer: Peer,
    begin: SqlStr,
}

/// Connections between two units of work.
#[derive(Clone, Default)]
struct Resting(Arc<Mutex<Vec<OutOfPool>>>);

struct OutOfPool {
    connection: PoolConnection<Postgres>,
    since: Instant,
}

impl Resting {
    fn pop(&self) -> Option<OutOfPool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps it, or gives it back to the pool.
    fn push(&self, out: OutOfPool) {
        if out.since.elapsed() < OUT_OF_POOL {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(out);
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
        Self {
            pool: pool.connect_lazy_with(connect.startup()),
            permits: Arc::new(Semaphore::new(max as usize)),
            resting: Resting::default(),
            peer: connect.peer(),
            begin: connect.begin(),
        }
    }

    /// All rows of one statement, which is a transaction of its own. Dropped midway, it may have
    /// been committed, or not.
    ///
    /// # Errors
    /// When the database fails; then it may have been committed, or not.
    pub async fn rows(&self, statement: Statement<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut work = self.begin_one().await?;
        let rows = work.rows(statement).await?;
        work.commit().await?;
        Ok(rows)
    }

    /// Hands over the rows of one statement as they come, until told to break: then its connection
    /// is closed, and with it the statement ends.
    ///
    /// # Errors
    /// When the database fails, or with what `take` fails with.
    pub async fn each_row<E: From<sqlx::Error>>(
        &self,
        statement: Statement<'_>,
        mut take: impl FnMut(&PgRow) -> Result<ControlFlow<()>, E>,
    ) -> Result<ControlFlow<()>, E> {
        let mut work = self.begin_one().await?;
        {
            let mut rows = work.rows_as_they_come(statement)?;
            while let Some(row) = within(ANSWER_MAX, rows.try_next()).await? {
                if take(&row)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        work.commit().await?;
        Ok(ControlFlow::Continue(()))
    }

    /// The only row of one statement; else as [`Self::rows`].
    ///
    /// # Errors
    /// When there is none, and as [`Self::rows`].
    pub async fn row(&self, statement: Statement<'_>) -> Result<PgRow, sqlx::Error> {
        self.rows(statement)
            .await?
            .into_iter()
            .next()
            .ok_or(sqlx::Error::RowNotFound)
    }

    /// For one statement.
    async fn begin_one(&self) -> Result<UnitOfWork, sqlx::Error> {
        match self.peer {
            Peer::Server => self.acquire().await,
            Peer::Pooler => self.begin().await,
        }
    }

    /// Begins a transaction of several statements.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin(&self) -> Result<UnitOfWork, sqlx::Error> {
        let mut work = self.acquire().await?;
        work.in_transaction = true;
        within(ANSWER_MAX, work.connection()?.execute(self.begin.clone())).await?;
        Ok(work)
    }

    async fn acquire(&self) -> Result<UnitOfWork, sqlx::Error> {
        let permit =
            tokio::time::timeout(ACQUIRE_TIMEOUT, Arc::clone(&self.permits).acquire_owned()).await;
        let permit = permit
            .map_err(|_| sqlx::Error::PoolTimedOut)?
            .map_err(|_| sqlx::Error::PoolClosed)?;
        let out = match self.resting.pop() {
            Some(out) => out,
            None => OutOfPool {
                connection: self.pool.acquire().await?,
                since: Instant::now(),
            },
        };
        Ok(UnitOfWork {
            out: Some(out),
            resting: self.resting.clone(),
            _permit: permit,
            peer: self.peer,
            in_transaction: false,
        })
    }
}

/// A connection with work under way. Unless it is committed, its connection is closed and not given
/// back: of a transaction that was cut short, nobody but the server knows whether it is still open
/// (sqlx's own `begin`, dropped before its answer, gives an open one back). It also lets go of
/// connections to a server that has become a standby.
pub struct UnitOfWork {
    out: Option<OutOfPool>,
    resting: Resting,
    peer: Peer,
    in_transaction: bool,
    /// Dropped last: whoever gets it next finds the connection.
    _permit: OwnedSemaphorePermit,
}

impl UnitOfWork {
    /// All rows of a statement.
    ///
    /// # Errors
    /// When the database fails; nothing but dropping helps then.
    pub async fn rows(&mut self, statement: Statement<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        self.rows_within(ANSWER_MAX, statement).await
    }

    /// The same of a statement that the server lets run for longer.
    ///
    /// # Errors
    /// As [`Self::rows`], and when there is no answer in time.
    pub async fn rows_within(
        &mut self,
        limit: Duration,
        statement: Statement<'_>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        within(limit, self.rows_as_they_come(statement)?.try_collect()).await
    }

    fn rows_as_they_come<'w>(
        &'w mut self,
        statement: Statement<'w>,
    ) -> Result<BoxStream<'w, Result<PgRow, sqlx::Error>>, sqlx::Error> {
        let statement = statement.persistent(self.peer == Peer::Server);
        Ok(statement.fetch(self.connection()?))
    }

    /// The only row of a statement.
    ///
    /// # Errors
    /// When there is none, and as [`Self::rows`].
    pub async fn row(&mut self, statement: Statement<'_>) -> Result<PgRow, sqlx::Error> {
        self.rows(statement)
            .await?
            .into_iter()
            .next()
            .ok_or(sqlx::Error::RowNotFound)
    }

    /// Commits what was done. Dropped midway, it may have been committed, or not.
    ///
    /// # Errors
    /// When the database fails; then it may have been committed, or not.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        if self.in_transaction {
            within(ANSWER_MAX, self.connection()?.execute("commit")).await?;
        }
        if let Some(out) = self.out.take() {
            self.resting.push(out);
        }
        Ok(())
    }

    fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.out
            .as_mut()
            .map(|out| &mut *out.connection)
            .ok_or(sqlx::Error::PoolClosed)
    }
}

impl Drop for UnitOfWork {
    fn drop(&mut self) {
        if let Some(out) = &mut self.out {
            out.connection.close_on_drop();
        }
    }
}

/// An answer of the server, or an error when it takes longer.
async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}
