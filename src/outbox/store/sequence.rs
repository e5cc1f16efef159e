//! The sequence of ids: how it stands, and moving it on. IO.

use std::time::Duration;

use sqlx::{FromRow, postgres::PgRow, query};

use super::{Resumed, Store, StoreError, failed};
use crate::outbox::{row::SequenceState, work::Work};

/// A million rows to move take about half a minute.
const RESUME_TIMEOUT: &str = "set local statement_timeout = '10min'";
/// Longer than that.
const RESUME_MAX: Duration = Duration::from_secs(11 * 60);

impl Store {
    /// How the sequence stands.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sequence_state(&self) -> Result<SequenceState, StoreError> {
        let row = self
            .pools
            .lease
            .row(query(self.statements.sequence_state.clone()))
            .await;
        row.and_then(|row| state(&row))
            .map_err(failed("look at the sequence of ids"))
    }

    /// Moves the sequence on if ids came again, and says how it stands then. `seen`: the highest id
    /// that we have seen.
    ///
    /// Dropped midway, nothing is changed, or all.
    ///
    /// # Errors
    /// When the database fails; then nothing is changed, or all.
    pub async fn resume_sequence(&self, seen: i64) -> Result<(Resumed, SequenceState), StoreError> {
        let mut work = self
            .pools
            .lease
            .begin()
            .await
            .map_err(failed("begin to move the sequence of ids on"))?;
        let done = self
            .resume(&mut work, seen)
            .await
            .map_err(failed("move the sequence of ids on"))?;
        work.commit()
            .await
            .map_err(failed("commit the move of the sequence of ids"))?;
        Ok(done)
    }

    async fn resume(
        &self,
        work: &mut Work,
        seen: i64,
    ) -> Result<(Resumed, SequenceState), sqlx::Error> {
        work.rows(query(RESUME_TIMEOUT)).await?;
        let rows = work
            .rows_within(
                RESUME_MAX,
                query(self.statements.resume_sequence.clone()).bind(seen),
            )
            .await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let (resumed, elsewhere, was_at, highest, moved) = FromRow::from_row(row)?;
        Ok((
            Resumed {
                resumed,
                elsewhere,
                was_at,
                highest,
                moved,
            },
            state(
                &work
                    .row(query(self.statements.sequence_state.clone()))
                    .await?,
            )?,
        ))
    }
}

fn state(row: &PgRow) -> Result<SequenceState, sqlx::Error> {
    let (incarnation, position) = FromRow::from_row(row)?;
    Ok(SequenceState {
        incarnation,
        position,
    })
}
