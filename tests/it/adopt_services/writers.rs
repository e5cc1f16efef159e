//! Writers that play a service: they go on while its table is adopted.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection, PgConnection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    library::Row,
    services::{Service, Session},
};
use crate::harness::{
    postgres::{Database, execute},
    relay::until,
};

/// Pause between two changes of a writer.
const PAUSE: Duration = Duration::from_millis(15);

/// Running writers. Each has its own aggregates, so it is the only one that writes their keys.
pub(super) struct Writers {
    writers: Vec<JoinHandle<Vec<Row>>>,
    changes: Vec<Arc<AtomicU32>>,
    stop: CancellationToken,
}

impl Writers {
    pub(super) async fn start(database: &Database, service: &'static Service, number: u32) -> Self {
        let stop = CancellationToken::new();
        let (mut writers, mut all_changes) = (Vec::new(), Vec::new());
        for _ in 0..number {
            let changes = Arc::new(AtomicU32::new(0));
            all_changes.push(Arc::clone(&changes));
            let writer = Writer {
                connection: database.connect_as(&database.producer).await,
                service,
                id: Uuid::new_v4(),
            };
            writers.push(tokio::spawn(writer.run(changes, stop.clone())));
        }
        Self {
            writers,
            changes: all_changes,
            stop,
        }
    }

    /// Number of changes that all writers have made.
    pub(super) fn changes(&self) -> u32 {
        self.changes
            .iter()
            .map(|changes| changes.load(Ordering::Relaxed))
            .sum()
    }

    /// Waits until each writer has made this many changes more.
    pub(super) async fn wait_for_changes(&self, number: u32) {
        for changes in &self.changes {
            let goal = changes.load(Ordering::Relaxed) + number;
            until("changes of a writer", async || {
                (changes.load(Ordering::Relaxed) >= goal).then_some(())
            })
            .await;
        }
    }

    /// Stops the writers. Returns the committed rows of each in their order.
    pub(super) async fn stop(self) -> Vec<Row> {
        self.stop.cancel();
        let mut rows = Vec::new();
        for writer in self.writers {
            rows.extend(writer.await.expect("the service can write"));
        }
        rows
    }
}

/// A connection of the service.
pub(super) struct Writer {
    pub(super) connection: PgConnection,
    pub(super) service: &'static Service,
    pub(super) id: Uuid,
}

impl Writer {
    async fn run(mut self, changes: Arc<AtomicU32>, stop: CancellationToken) -> Vec<Row> {
        let mut rows = Vec::new();
        for number in 0.. {
            if stop.is_cancelled() {
                break;
            }
            rows.extend(self.change(number).await.expect("the service can write"));
            changes.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        rows
    }

    /// Makes a change with one event of each kind. Returns the rows that were committed.
    pub(super) async fn change(&mut self, number: u32) -> sqlx::Result<Vec<Row>> {
        self.changes(number..number + 1).await
    }

    /// Makes several changes of the same aggregates, in one transaction if the service passes its
    /// session. Returns the rows that were committed.
    pub(super) async fn changes(&mut self, numbers: Range<u32>) -> sqlx::Result<Vec<Row>> {
        let number = numbers.start;
        let events = numbers.flat_map(|number| self.service.events(self.id, number));
        let rows: Vec<Row> = events.map(Row::new).collect();
        match self.service.session {
            Session::Own => self.insert_each(rows).await,
            Session::Callers => self.insert_together(rows, number).await,
        }
    }

    async fn insert_each(&mut self, rows: Vec<Row>) -> sqlx::Result<Vec<Row>> {
        for row in &rows {
            let generation = self.service.generation;
            row.insert(&mut self.connection, generation).await?;
        }
        Ok(rows)
    }

    /// One change in five is rolled back.
    async fn insert_together(&mut self, rows: Vec<Row>, number: u32) -> sqlx::Result<Vec<Row>> {
        let mut transaction = self.connection.begin().await?;
        let business = "insert into business (changed) values (now())";
        execute(&mut transaction, business).await;
        for row in &rows {
            let generation = self.service.generation;
            row.insert(&mut transaction, generation).await?;
        }
        if number % 5 == 4 {
            transaction.rollback().await?;
            return Ok(Vec::new());
        }
        transaction.commit().await?;
        Ok(rows)
    }
}
