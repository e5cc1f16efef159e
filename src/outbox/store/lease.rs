//! The lease of a relay and the lanes that it owns. IO.

use std::time::Duration;

use sqlx::{FromRow, Row, SqlStr, query};
use uuid::Uuid;

use crate::{
    outbox::{
        store::{Grant, LaneWatermarks, Others, Store, StoreError, Survey, failed, tuples, xid},
        unit_of_work::Statement,
    },
    report::BreakerState,
};

impl Store {
    /// Begins a lease for a new instance.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn register(
        &self,
        instance: Uuid,
        pod: &str,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let register = query(self.statements.register.clone())
            .bind(instance)
            .bind(pod)
            .bind(millis(ttl));
        self.pools
            .lease
            .rows(register)
            .await
            .map_err(failed("register this relay"))?;
        Ok(())
    }

    /// Renews the lease, and writes the breaker's state and marks, in one transaction. Returns its
    /// xid and the lanes that are still ours, none when the outbox is another incarnation by now;
    /// `None`: the lease had run out.
    ///
    /// # Errors
    /// When the database fails; then the lease may have been renewed, or not.
    pub async fn renew(
        &self,
        instance: Uuid,
        ttl: Duration,
        breaker: BreakerState,
        marks: &LaneWatermarks,
        incarnation: Uuid,
    ) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let mut work = self
            .pools
            .lease
            .begin()
            .await
            .map_err(failed("begin a renewal"))?;
        let renew = query(self.statements.renew.clone())
            .bind(instance)
            .bind(millis(ttl))
            .bind(breaker.name());
        let renewed = work.rows(renew).await.map_err(failed("renew the lease"))?;
        let mut lanes = Vec::new();
        if !renewed.is_empty() {
            lanes = work
                .rows(bind_marks(
                    &self.statements.write_watermarks,
                    instance,
                    marks,
                    incarnation,
                ))
                .await
                .map_err(failed("write marks"))?;
        }
        work.commit().await.map_err(failed("commit a renewal"))?;

        let Some(renewed) = renewed.first() else {
            return Ok(None);
        };
        let xid = xid(renewed.try_get(0).map_err(failed("renew the lease"))?)
            .map_err(failed("renew the lease"))?;
        let lanes: Vec<(i16,)> = tuples(&lanes).map_err(failed("write marks"))?;
        Ok(Some((
            xid,
            lanes
                .into_iter()
                .filter_map(|(lane,)| u8::try_from(lane).ok())
                .collect(),
        )))
    }

    /// Gives drained lanes back.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release(
        &self,
        instance: Uuid,
        marks: &LaneWatermarks,
        incarnation: Uuid,
    ) -> Result<(), StoreError> {
        let release = bind_marks(&self.statements.release, instance, marks, incarnation);
        self.pools
            .lease
            .rows(release)
            .await
            .map_err(failed("release lanes"))?;
        Ok(())
    }

    /// Who lives and who has what.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn survey(&self, instance: Uuid, known: &[i16]) -> Result<Survey, StoreError> {
        let survey = query(self.statements.survey.clone())
            .bind(instance)
            .bind(known);
        let row = self
            .pools
            .lease
            .row(survey)
            .await
            .map_err(failed("survey the lanes"))?;
        let (others, fewest, well, fewest_of_well, free): (
            i64,
            Option<i64>,
            i64,
            Option<i64>,
            i64,
        ) = FromRow::from_row(&row).map_err(failed("survey the lanes"))?;
        let count = |number: i64| u32::try_from(number).unwrap_or(0);
        let others = Others {
            count: count(others),
            fewest: fewest.map(count),
        };
        let well = Others {
            count: count(well),
            fewest: fewest_of_well.map(count),
        };
        Ok(Survey {
            others,
            well,
            free: count(free),
        })
    }

    /// Takes at most `lanes_max` free lanes.
    ///
    /// # Errors
    /// When the database fails; then lanes may have been taken: the next renewal tells.
    pub async fn claim(
        &self,
        instance: Uuid,
        lanes_max: u32,
        known: &[i16],
    ) -> Result<Vec<Grant>, StoreError> {
        let claim = query(self.statements.claim.clone())
            .bind(instance)
            .bind(i64::from(lanes_max))
            .bind(known);
        let rows = self
            .pools
            .lease
            .rows(claim)
            .await
            .map_err(failed("claim lanes"))?;
        let rows: Vec<(i16, i64, i64, i64)> = tuples(&rows).map_err(failed("claim lanes"))?;
        let grant = |(lane, epoch, mark, high_id)| {
            Some(Grant {
                lane: u8::try_from(lane).ok()?,
                epoch,
                mark,
                high_id,
            })
        };
        Ok(rows.into_iter().filter_map(grant).collect())
    }

    /// Ends the lease: lanes that are still ours are free at once.
    ///
    /// # Errors
    /// When the database fails; then the lease runs out by itself.
    pub async fn unregister(&self, instance: Uuid) -> Result<(), StoreError> {
        let unregister = query(self.statements.unregister.clone()).bind(instance);
        self.pools
            .lease
            .rows(unregister)
            .await
            .map_err(failed("unregister this relay"))?;
        Ok(())
    }
}

fn bind_marks<'q>(
    statement: &SqlStr,
    instance: Uuid,
    marks: &'q LaneWatermarks,
    incarnation: Uuid,
) -> Statement<'q> {
    let marked = query(statement.clone())
        .bind(instance)
        .bind(&marks.lanes)
        .bind(&marks.epochs)
        .bind(&marks.marks)
        .bind(&marks.high_ids);
    marked.bind(incarnation)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
