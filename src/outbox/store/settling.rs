//! What ends rows, and the ticks that come with it. IO.

use sqlx::{Row, query};

use super::{SettlePlan, Store, StoreError, failed, xid};
use crate::outbox::work::Statement;

impl Store {
    /// Deletes acknowledged rows; returns the xid of the transaction.
    ///
    /// If dropped midway the rows may or may not be gone; settling them again is harmless.
    ///
    /// # Errors
    /// When the database fails; then the rows may be gone, or not.
    pub async fn settle(&self, plan: &SettlePlan) -> Result<u64, StoreError> {
        let settle = query(self.statements.settle.clone())
            .bind(&plan.lanes)
            .bind(&plan.ids)
            .bind(&plan.event_ids)
            .bind(&plan.places);
        self.ended_xid("settle rows", settle).await
    }

    /// The xid of a transaction of its own.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tick(&self) -> Result<u64, StoreError> {
        self.ended_xid("draw a tick", query(self.statements.tick.clone()))
            .await
    }

    /// The xid of a statement's transaction, once that has ended: marks rest on it.
    async fn ended_xid(
        &self,
        operation: &'static str,
        statement: Statement<'_>,
    ) -> Result<u64, StoreError> {
        let row = self
            .pools
            .settler
            .row(statement)
            .await
            .map_err(failed(operation))?;
        xid(row.try_get(0).map_err(failed(operation))?).map_err(failed(operation))
    }
}
