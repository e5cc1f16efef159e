//! The lease of a relay and the lanes that it owns. IO.

use std::time::{Duration, Instant};

use sqlx::{SqlStr, postgres::PgRow, query};
use uuid::Uuid;

use crate::{
    outbox::{
        database_clock::DatabaseClock,
        ids::{Lane, RowId},
        row::timestamp_us,
        store::{
            Grant, LaneWatermark, Operation, Others, ParkedReading, Store, StoreError, Survey,
            WantedParked, column, execute, failed, lane_numbers, row, rows, tuple, tuples, xid,
        },
        unit_of_work::{Statement, UnitOfWork},
    },
    report::BreakerState,
};

impl Store {
    /// Begins the lease of a new instance. Returns the database's clock.
    ///
    /// # Errors
    /// Returns an error when the database fails. The lease may have begun then, or not.
    ///
    /// # Cancel safety
    /// If dropped midway, the lease may have begun; it then expires after `ttl`.
    pub async fn register(
        &self,
        instance: Uuid,
        pod: &str,
        ttl: Duration,
    ) -> Result<DatabaseClock, StoreError> {
        let register = query(self.statements.register.clone())
            .bind(instance)
            .bind(pod)
            .bind(millis(ttl));
        let (operation, sent) = (Operation::Register, Instant::now());
        let registered = row(&self.pools.lease, operation, register).await?;
        let time_us = timestamp_us(&registered, 0).map_err(failed(operation))?;
        Ok(DatabaseClock::new(time_us, sent, Instant::now()))
    }

    /// Renews the lease and writes the state of the breaker and the watermarks, in one transaction.
    ///
    /// Returns the id of the transaction and the lanes that this instance still owns. There are
    /// none when the outbox has another incarnation by now. Returns `None` when the lease had
    /// expired.
    ///
    /// # Errors
    /// Returns an error when the database fails. The lease may have been renewed then, or not.
    ///
    /// # Cancel safety
    /// If dropped midway, the lease may have been renewed, or not.
    pub async fn renew(
        &self,
        instance: Uuid,
        ttl: Duration,
        breaker: BreakerState,
        watermarks: &[LaneWatermark],
        incarnation: Uuid,
    ) -> Result<Option<(u64, Vec<Lane>)>, StoreError> {
        let mut work = self
            .pools
            .lease
            .begin()
            .await
            .map_err(failed(Operation::BeginRenewal))?;
        let renewed = self.renew_lease(&mut work, instance, ttl, breaker).await?;
        let mut lanes = Vec::new();
        if renewed.is_some() {
            let sql = &self.statements.write_watermarks;
            lanes = work
                .rows(bind_watermarks(sql, instance, watermarks, incarnation))
                .await
                .map_err(failed(Operation::WriteWatermarks))?;
        }
        work.commit()
            .await
            .map_err(failed(Operation::CommitRenewal))?;

        let Some(renewed) = renewed else {
            return Ok(None);
        };
        let xid = xid(Operation::RenewLease, &renewed)?;
        Ok(Some((xid, decode_lanes(&lanes)?)))
    }

    /// Renews the lease. Returns the row with the id of the transaction; `None` when the lease had
    /// expired.
    async fn renew_lease(
        &self,
        work: &mut UnitOfWork,
        instance: Uuid,
        ttl: Duration,
        breaker: BreakerState,
    ) -> Result<Option<PgRow>, StoreError> {
        let renew = query(self.statements.renew.clone())
            .bind(instance)
            .bind(millis(ttl))
            .bind(breaker.name());
        let renewed = work
            .rows(renew)
            .await
            .map_err(failed(Operation::RenewLease))?;
        Ok(renewed.into_iter().next())
    }

    /// Gives up lanes of which no row is in flight any more.
    ///
    /// # Errors
    /// Returns an error when the database fails. The lanes may be free then, or not.
    ///
    /// # Cancel safety
    /// If dropped midway, the lanes may be free, or not.
    pub async fn release(
        &self,
        instance: Uuid,
        watermarks: &[LaneWatermark],
        incarnation: Uuid,
    ) -> Result<(), StoreError> {
        let sql = &self.statements.release;
        let release = bind_watermarks(sql, instance, watermarks, incarnation);
        execute(&self.pools.lease, Operation::ReleaseLanes, release).await
    }

    /// Counts the live relays and the free lanes, and reads what is parked if that is wanted.
    /// `known` are the lanes that this instance owns. One transaction, because an idle relay does
    /// little else.
    ///
    /// # Errors
    /// Returns an error when the database fails.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn survey(
        &self,
        instance: Uuid,
        known: &[Lane],
        wanted: WantedParked,
    ) -> Result<(Survey, Option<ParkedReading>), StoreError> {
        let operation = Operation::SurveyLanes;
        let survey = query(self.statements.survey.clone())
            .bind(instance)
            .bind(lane_numbers(known));
        let mut work = self.pools.lease.begin().await.map_err(failed(operation))?;
        let row = work.row(survey).await.map_err(failed(operation))?;
        let parked = match wanted {
            WantedParked::No => None,
            WantedParked::Unless(digest) => Some(self.read_parked(&mut work, known, digest).await?),
        };
        work.commit().await.map_err(failed(operation))?;
        Ok((to_survey(tuple(operation, &row)?), parked))
    }

    /// Claims at most `lanes_max` free lanes. `known` are the lanes that this instance owns.
    ///
    /// # Errors
    /// Returns an error when the database fails. Lanes may have been claimed then; the next renewal
    /// lists them.
    ///
    /// # Cancel safety
    /// If dropped midway, lanes may have been claimed, or not.
    pub async fn claim(
        &self,
        instance: Uuid,
        lanes_max: u32,
        known: &[Lane],
    ) -> Result<Vec<Grant>, StoreError> {
        let operation = Operation::ClaimLanes;
        let claim = query(self.statements.claim.clone())
            .bind(instance)
            .bind(i64::from(lanes_max))
            .bind(lane_numbers(known));
        let rows = rows(&self.pools.lease, operation, claim).await?;
        let rows: Vec<GrantColumns> = tuples(operation, &rows)?;
        Ok(rows.into_iter().filter_map(to_grant).collect())
    }

    /// Ends the lease: the lanes of this instance are free at once.
    ///
    /// # Errors
    /// Returns an error when the database fails. The lease then ends when it expires.
    ///
    /// # Cancel safety
    /// If dropped midway, the lease may have ended, or it expires.
    pub async fn unregister(&self, instance: Uuid) -> Result<(), StoreError> {
        let unregister = query(self.statements.unregister.clone()).bind(instance);
        execute(&self.pools.lease, Operation::Unregister, unregister).await
    }
}

/// Columns of `sql/claim.sql`.
type GrantColumns = (i16, i64, RowId, RowId);

fn to_grant((lane, epoch, watermark, high_id): GrantColumns) -> Option<Grant> {
    Some(Grant {
        lane: Lane::from_column(lane)?,
        epoch,
        watermark,
        high_id,
    })
}

/// Columns of `sql/survey.sql`.
type SurveyColumns = (i64, Option<i64>, i64, Option<i64>, i64);

fn to_survey((others, fewest, well, fewest_of_well, free): SurveyColumns) -> Survey {
    Survey {
        others: to_others(others, fewest),
        well: to_others(well, fewest_of_well),
        free: small_count(free),
    }
}

fn to_others(count: i64, fewest: Option<i64>) -> Others {
    Others {
        count: small_count(count),
        fewest: fewest.map(small_count),
    }
}

/// A count of relays or lanes. The server never sends a negative one.
fn small_count(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn decode_lanes(rows: &[PgRow]) -> Result<Vec<Lane>, StoreError> {
    let lanes: Vec<(i16,)> = tuples(Operation::WriteWatermarks, rows)?;
    let lane = |(number,)| Lane::from_column(number);
    Ok(lanes.into_iter().filter_map(lane).collect())
}

fn bind_watermarks(
    sql: &SqlStr,
    instance: Uuid,
    watermarks: &[LaneWatermark],
    incarnation: Uuid,
) -> Statement<'static> {
    query(sql.clone())
        .bind(instance)
        .bind(column(watermarks, |of| i16::from(of.lane)))
        .bind(column(watermarks, |of| of.epoch))
        .bind(column(watermarks, |of| of.watermark))
        .bind(column(watermarks, |of| of.high_id))
        .bind(incarnation)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
