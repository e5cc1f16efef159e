//! The sequence that gives rows their ids: reading its state, and moving it on. IO.

use std::time::Duration;

use sqlx::{FromRow, postgres::PgRow, query};

use crate::outbox::{
    ids::RowId,
    row::SequenceState,
    store::{Operation, Resumed, Store, StoreError, failed, row},
    unit_of_work::UnitOfWork,
};

/// Bounds the server's work when it moves the sequence on. Giving a million waiting rows new ids
/// takes about half a minute.
const RESUME_STATEMENT_TIMEOUT: &str = "set local statement_timeout = '10min'";
/// Longest wait for the server's answer, longer than the statement's own timeout.
const RESUME_RESPONSE_TIMEOUT: Duration = Duration::from_secs(11 * 60);

impl Store {
    /// Reads the state of the sequence.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn sequence_state(&self) -> Result<SequenceState, StoreError> {
        let operation = Operation::ReadSequence;
        let sql = query(self.statements.sequence_state.clone());
        let row = row(&self.pools.lease, operation, sql).await?;
        decode_state(&row).map_err(failed(operation))
    }

    /// Moves the sequence on if ids may have been drawn twice. Returns what was done and the state
    /// after it. `highest_id` is the highest id that this relay has read.
    ///
    /// # Errors
    /// Returns an error when the database fails. Then either nothing is changed, or everything.
    ///
    /// # Cancel safety
    /// If dropped midway, either nothing is changed, or everything.
    pub async fn resume_sequence(
        &self,
        highest_id: RowId,
    ) -> Result<(Resumed, SequenceState), StoreError> {
        let mut work = self
            .pools
            .lease
            .begin()
            .await
            .map_err(failed(Operation::BeginResume))?;
        let done = self
            .resume(&mut work, highest_id)
            .await
            .map_err(failed(Operation::ResumeSequence))?;
        work.commit()
            .await
            .map_err(failed(Operation::CommitResume))?;
        Ok(done)
    }

    async fn resume(
        &self,
        work: &mut UnitOfWork,
        highest_id: RowId,
    ) -> Result<(Resumed, SequenceState), sqlx::Error> {
        work.rows(query(RESUME_STATEMENT_TIMEOUT)).await?;
        let resume = query(self.statements.resume_sequence.clone()).bind(highest_id);
        let rows = work
            .rows_with_timeout(RESUME_RESPONSE_TIMEOUT, resume)
            .await?;
        let resumed = resumed(rows.first().ok_or(sqlx::Error::RowNotFound)?)?;
        let state = work
            .row(query(self.statements.sequence_state.clone()))
            .await?;
        Ok((resumed, decode_state(&state)?))
    }
}

fn decode_state(row: &PgRow) -> Result<SequenceState, sqlx::Error> {
    let (incarnation, position) = FromRow::from_row(row)?;
    Ok(SequenceState {
        incarnation,
        position,
    })
}

fn resumed(row: &PgRow) -> Result<Resumed, sqlx::Error> {
    let (resumed, elsewhere, was_at, highest, moved) = FromRow::from_row(row)?;
    Ok(Resumed {
        resumed,
        elsewhere,
        was_at,
        highest,
        moved,
    })
}
