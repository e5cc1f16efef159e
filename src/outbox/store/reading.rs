//! Reading rows: fetches, gap scans and the backlog. IO.

use std::{collections::BTreeMap, ops::ControlFlow, sync::atomic::Ordering, time::Instant};

use sqlx::{SqlStr, postgres::PgRow, query};
use uuid::Uuid;

use crate::outbox::{
    ids::{Lane, RowId, RowIdentity},
    row::{DecodeError, Decoder, FetchMoment, Fetched, OutboxRow},
    store::{
        BacklogPlan, Depth, FetchFilter, FetchRequest, GapScanPlan, LaneRead, Operation,
        ParkedRows, Store, StoreError, StoreErrorSource, WantedRow, column, count, failed, row,
        rows, statements::RowStatements, tuple, tuples,
    },
    unit_of_work::Statement,
};

/// Why an answer could not be read.
enum ReadError {
    /// A text cannot become UTF-8, and the server refused the whole answer.
    Text(StoreErrorSource),
    Other(StoreErrorSource),
}

/// SQLSTATEs of a text that cannot become UTF-8: `character_not_in_repertoire` and
/// `untranslatable_character`.
const TEXT_SQLSTATES: [&str; 2] = ["22021", "22P05"];

impl From<sqlx::Error> for ReadError {
    fn from(error: sqlx::Error) -> Self {
        let server = error.as_database_error();
        let code = server.and_then(sqlx::error::DatabaseError::code);
        if code.is_some_and(|code| TEXT_SQLSTATES.contains(&&*code)) {
            Self::Text(error.into())
        } else {
            Self::Other(error.into())
        }
    }
}

impl From<DecodeError> for ReadError {
    fn from(error: DecodeError) -> Self {
        Self::Other(error.into())
    }
}

impl Store {
    /// Reads the rows above the position of each lane, with the snapshot that saw them, and the
    /// sequence and the clock of the database at that moment. Of a large row only the size is read.
    ///
    /// # Errors
    /// Returns an error when the database fails, or its answer cannot be decoded.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn fetch(
        &self,
        request: &FetchRequest,
    ) -> Result<(FetchMoment, Fetched), StoreError> {
        if request.small
            && request.filter.is_none()
            && let Some(fetched) = self.fetch_small(request).await?
        {
            return Ok(fetched);
        }
        let fetch = || self.fetch_statement(request);
        let (_end, decoder) = self.read(Operation::FetchRows, fetch, i64::MAX).await?;
        let limits = column(&request.lanes, |read| (read.lane, read.bytes_max));
        let fetched = decoder.finish(&limits);
        fetched.map_err(failed(Operation::FetchRows))
    }

    /// Reads those of the given rows that still exist, in the order of lane and id. Of a row that
    /// is larger than its limit only the size is read.
    ///
    /// # Errors
    /// Returns an error when the database fails, or its answer cannot be decoded.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn fetch_by_ids(&self, wanted: &[WantedRow]) -> Result<Vec<OutboxRow>, StoreError> {
        let fetch = || {
            query(self.row_statements().fetch_by_ids.clone())
                .bind(column(wanted, |wanted| i16::from(wanted.row.lane)))
                .bind(column(wanted, |wanted| wanted.row.id))
                .bind(column(wanted, |wanted| wanted.row.event_id))
                .bind(column(wanted, |wanted| wanted.bytes_max as i64))
        };
        let read = self.read(Operation::FetchRowsByIds, fetch, i64::MAX).await;
        Ok(read?.1.into_rows())
    }

    /// Reads and decodes rows. Breaks off once what was read exceeds `bytes_max`. When a text
    /// cannot become UTF-8, it reads them once more, and from then on all texts are checked.
    async fn read<'q>(
        &self,
        operation: Operation,
        statement: impl Fn() -> Statement<'q>,
        bytes_max: i64,
    ) -> Result<(ControlFlow<()>, Decoder), StoreError> {
        let mut read = self.try_read(statement(), bytes_max).await;
        if matches!(read, Err(ReadError::Text(_))) && !self.has_other_text() {
            tracing::warn!(
                "the database has text that cannot become UTF-8: rows with such text are found and \
                 left out, all others are published"
            );
            self.has_other_text.store(true, Ordering::Relaxed);
            read = self.try_read(statement(), bytes_max).await;
        }
        read.map_err(|(ReadError::Text(error) | ReadError::Other(error))| error)
            .map_err(failed(operation))
    }

    /// Reads and decodes rows. Breaks off once what was read exceeds `bytes_max`.
    async fn try_read(
        &self,
        statement: Statement<'_>,
        bytes_max: i64,
    ) -> Result<(ControlFlow<()>, Decoder), ReadError> {
        let mut decoder = Decoder::new(Instant::now());
        let on_row = |row: &PgRow| -> Result<_, ReadError> {
            decoder.push(row, Instant::now)?;
            if decoder.bytes() > bytes_max {
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        };
        let end = self.pools.reader.for_each_row(statement, on_row).await?;
        Ok((end, decoder))
    }

    fn has_other_text(&self) -> bool {
        self.has_other_text.load(Ordering::Relaxed)
    }

    /// The statements that read texts as this database needs it.
    fn row_statements(&self) -> &RowStatements {
        if self.has_other_text() {
            &self.statements.checked
        } else {
            &self.statements.plain
        }
    }

    fn fetch_statement<'q>(&self, request: &'q FetchRequest) -> Statement<'q> {
        let statements = self.row_statements();
        let sql = match &request.filter {
            Some(_) => &statements.fetch_filtered,
            None => &statements.fetch,
        };
        let bytes_max = column(&request.lanes, |read| read.bytes_max);
        let fetch = bind_reads(sql, &request.lanes).bind(bytes_max);
        match &request.filter {
            Some(filter) => bind_filter(fetch, filter, request.scan_max),
            None => fetch,
        }
    }

    /// Fetches without adding up bytes on the server. Returns `None` when the rows are larger than
    /// expected: what has arrived by then is discarded.
    async fn fetch_small(
        &self,
        request: &FetchRequest,
    ) -> Result<Option<(FetchMoment, Fetched)>, StoreError> {
        let fetch = || bind_reads(&self.row_statements().fetch_small, &request.lanes);
        let bytes_max = request.lanes.iter().map(|read| read.bytes_max).sum();
        let (end, decoder) = self.read(Operation::FetchRows, fetch, bytes_max).await?;
        if end.is_break() {
            tracing::info!(
                bytes_max,
                "rows are larger than recent ones: fetching them again in smaller pieces"
            );
            return Ok(None);
        }
        let fetched = decoder.finish(&[]).map_err(failed(Operation::FetchRows))?;
        Ok(Some(fetched))
    }

    /// Reads the identities of rows at or below the watermarks. There should be none.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn gap_scan(&self, plan: &GapScanPlan) -> Result<Vec<RowIdentity>, StoreError> {
        let operation = Operation::ScanGaps;
        let gap_scan = query(self.statements.gap_scan.clone())
            .bind(column(&plan.lanes, |scan| i16::from(scan.lane)))
            .bind(column(&plan.lanes, |scan| scan.above))
            .bind(column(&plan.lanes, |scan| scan.watermark))
            .bind(plan.rows_max);
        let rows = rows(&self.pools.settler, operation, gap_scan).await?;
        let rows: Vec<(i16, RowId, Uuid)> = tuples(operation, &rows)?;
        Ok(rows.into_iter().filter_map(to_identity).collect())
    }

    /// Counts the rows above the watermarks, up to `rows_max`, and reads the age of the oldest.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn backlog(&self, plan: &BacklogPlan, rows_max: u32) -> Result<Depth, StoreError> {
        let operation = Operation::CountBacklog;
        let backlog = self.backlog_statement(plan, rows_max);
        let row = row(&self.pools.settler, operation, backlog).await?;
        let (rows, oldest_us, capped): (i64, Option<i64>, bool) = tuple(operation, &row)?;
        Ok(Depth {
            rows: count(rows),
            capped,
            oldest_us,
        })
    }

    fn backlog_statement<'q>(&self, plan: &'q BacklogPlan, rows_max: u32) -> Statement<'q> {
        let sql = match &plan.parked {
            Some(_) => &self.row_statements().backlog_unparked,
            None => &self.statements.backlog,
        };
        let backlog = query(sql.clone())
            .bind(column(&plan.lanes, |of| i16::from(of.lane)))
            .bind(column(&plan.lanes, |of| of.above))
            .bind(i64::from(rows_max));
        match &plan.parked {
            Some(parked) => bind_parked(backlog, parked),
            None => backlog,
        }
    }
}

/// Binds what all fetches have in common: lane, lowest id and number of rows, as `$1` to `$3`.
fn bind_reads<'q>(sql: &SqlStr, reads: &[LaneRead]) -> Statement<'q> {
    query(sql.clone())
        .bind(column(reads, |read| i16::from(read.lane)))
        .bind(column(reads, |read| read.low))
        .bind(column(reads, |read| read.rows_max))
}

/// Binds the filter of a fetch as `$5` to `$10`.
fn bind_filter<'q>(fetch: Statement<'q>, filter: &'q FetchFilter, scan_max: i32) -> Statement<'q> {
    fetch
        .bind(&filter.topics)
        .bind(routes_json(&filter.by_event_type))
        .bind(routes_json(&filter.by_aggregate_type))
        .bind(filter.paused_keys_json())
        .bind(scan_max)
        .bind(&filter.declared)
}

/// Binds the rows that the backlog leaves out as `$4` to `$6`.
fn bind_parked<'q>(backlog: Statement<'q>, parked: &'q ParkedRows) -> Statement<'q> {
    backlog
        .bind(&parked.topics)
        .bind(routes_json(&parked.by_event_type))
        .bind(routes_json(&parked.by_aggregate_type))
}

/// Routes as an object: type -> topic.
fn routes_json(routes: &BTreeMap<String, String>) -> String {
    serde_json::json!(routes).to_string()
}

fn to_identity((lane, id, event_id): (i16, RowId, Uuid)) -> Option<RowIdentity> {
    Some(RowIdentity {
        lane: Lane::from_column(lane)?,
        id,
        event_id,
    })
}
