//! What reads rows: fetch, sweep, backlog. IO.

use std::ops::ControlFlow;

use sqlx::{FromRow, postgres::PgRow, query};
use uuid::Uuid;

use crate::outbox::{
    row::{Decoder, Fetched, SequenceState},
    store::{
        BacklogPlan, Depth, FetchRequest, GapScanPlan, Store, StoreError, StoreErrorSource, failed,
        tuples,
    },
};

impl Store {
    /// Rows above each lane's position, the snapshot that saw them, and how the sequence stood
    /// then.
    ///
    /// # Errors
    /// When the database fails, or answers in another shape.
    pub async fn fetch(&self, plan: &FetchRequest) -> Result<(SequenceState, Fetched), StoreError> {
        if plan.small
            && plan.flowing.is_none()
            && let Some(fetched) = self.fetch_small(plan).await?
        {
            return Ok(fetched);
        }
        let statement = if plan.flowing.is_some() {
            &self.statements.fetch_filtered
        } else {
            &self.statements.fetch
        };
        let mut fetch = query(statement.clone())
            .bind(&plan.lanes)
            .bind(&plan.lows)
            .bind(&plan.rows_max)
            .bind(&plan.bytes_max);
        if let Some(flowing) = &plan.flowing {
            fetch = fetch
                .bind(&flowing.topics)
                .bind(serde_json::json!(flowing.by_event_type).to_string())
                .bind(serde_json::json!(flowing.by_aggregate_type).to_string())
                .bind(flowing.resting_keys_json())
                .bind(plan.scan_max)
                .bind(&flowing.declared);
        }
        let mut fetched = Decoder::default();
        let take = |row: &PgRow| -> Result<_, StoreErrorSource> {
            Ok(ControlFlow::Continue(fetched.take(row)?))
        };
        let _all = self
            .pools
            .reader
            .each_row(fetch, take)
            .await
            .map_err(failed("fetch rows"))?;
        fetched.finish().map_err(failed("fetch rows"))
    }

    /// None if the rows are larger than was believed: what has come is thrown away.
    async fn fetch_small(
        &self,
        plan: &FetchRequest,
    ) -> Result<Option<(SequenceState, Fetched)>, StoreError> {
        let fetch = query(self.statements.fetch_small.clone())
            .bind(&plan.lanes)
            .bind(&plan.lows)
            .bind(&plan.rows_max);
        let bytes_max = plan.bytes_max.iter().sum();
        let mut fetched = Decoder::default();
        let take = |row: &PgRow| -> Result<_, StoreErrorSource> {
            fetched.take(row)?;
            Ok(if fetched.bytes() > bytes_max {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        };
        let all = self
            .pools
            .reader
            .each_row(fetch, take)
            .await
            .map_err(failed("fetch rows"))?;
        if all.is_break() {
            tracing::info!(
                bytes_max,
                "rows are larger than those of late: they are fetched again, in pieces"
            );
        }
        all.is_continue()
            .then(|| fetched.finish())
            .transpose()
            .map_err(failed("fetch rows"))
    }

    /// Rows at or below the marks: there should be none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn gap_scan(&self, plan: &GapScanPlan) -> Result<Vec<(u8, i64, Uuid)>, StoreError> {
        let gap_scan = query(self.statements.gap_scan.clone())
            .bind(&plan.lanes)
            .bind(&plan.after)
            .bind(&plan.marks)
            .bind(plan.rows_max);
        let rows = self
            .pools
            .settler
            .rows(gap_scan)
            .await
            .map_err(failed("sweep below the marks"))?;
        let rows: Vec<(i16, i64, Uuid)> = tuples(&rows).map_err(failed("sweep below the marks"))?;
        Ok(rows
            .into_iter()
            .filter_map(|(lane, id, event_id)| Some((u8::try_from(lane).ok()?, id, event_id)))
            .collect())
    }

    /// Rows that wait above the given marks, counted up to `rows_max`, and since when.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn backlog(&self, plan: &BacklogPlan, rows_max: u32) -> Result<Depth, StoreError> {
        let statement = if plan.parked.is_some() {
            &self.statements.backlog_unparked
        } else {
            &self.statements.backlog
        };
        let mut backlog = query(statement.clone())
            .bind(&plan.lanes)
            .bind(&plan.marks)
            .bind(i64::from(rows_max));
        if let Some(parked) = &plan.parked {
            backlog = backlog
                .bind(&parked.topics)
                .bind(serde_json::json!(parked.by_event_type).to_string())
                .bind(serde_json::json!(parked.by_aggregate_type).to_string())
                .bind(parked.keys_json());
        }
        let row = self
            .pools
            .settler
            .row(backlog)
            .await
            .map_err(failed("count the backlog"))?;
        let (rows, oldest_us, capped): (i64, Option<i64>, bool) =
            FromRow::from_row(&row).map_err(failed("count the backlog"))?;
        Ok(Depth {
            rows: u64::try_from(rows).unwrap_or(0),
            capped,
            oldest_us,
        })
    }
}
