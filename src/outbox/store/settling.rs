//! Deleting acknowledged rows and old rows of adopted tables, and drawing ticks. IO.

use sqlx::query;

use crate::outbox::{
    store::{Operation, SettleRow, Store, StoreError, column, count, row, tuple, xid},
    unit_of_work::Statement,
};

impl Store {
    /// Deletes acknowledged rows. Returns the id of the transaction.
    ///
    /// # Errors
    /// Returns an error when the database fails. The rows may be deleted then, or not.
    ///
    /// # Cancel safety
    /// If dropped midway, the rows may be deleted, or not. Settling them again is harmless.
    pub async fn settle(&self, rows: &[SettleRow]) -> Result<u64, StoreError> {
        let settle = query(self.statements.settle.clone())
            .bind(column(rows, |settle| i16::from(settle.row.lane)))
            .bind(column(rows, |settle| settle.row.id))
            .bind(column(rows, |settle| settle.row.event_id))
            .bind(column(rows, |settle| settle.ctid));
        self.completed_xid(Operation::SettleRows, settle).await
    }

    /// Draws a transaction id in a transaction of its own and returns it.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// Cancel safe: an id that is not used does no harm.
    pub async fn tick(&self) -> Result<u64, StoreError> {
        let tick = query(self.statements.tick.clone());
        self.completed_xid(Operation::DrawTick, tick).await
    }

    /// Deletes published rows of adopted tables that are older than their `retain`, in a few blocks
    /// of each table. Returns how many.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// If dropped midway, the rows are deleted, or not: a later call goes on.
    pub async fn purge_adopted(&self) -> Result<u64, StoreError> {
        let operation = Operation::PurgeAdopted;
        let purge = query(self.statements.purge_adopted.clone());
        let row = row(&self.pools.settler, operation, purge).await?;
        let (deleted,): (i64,) = tuple(operation, &row)?;
        Ok(count(deleted))
    }

    /// Runs a statement and returns the id of its transaction, which has completed by then.
    /// Watermarks rely on that.
    async fn completed_xid(
        &self,
        operation: Operation,
        statement: Statement<'_>,
    ) -> Result<u64, StoreError> {
        let row = row(&self.pools.settler, operation, statement).await?;
        xid(operation, &row)
    }
}
