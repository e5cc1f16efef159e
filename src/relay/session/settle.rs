//! Settling: rows that Kafka acknowledged are deleted.

use std::time::Instant;

use crate::{
    outbox::{RowId, Store},
    relay::{
        core::{SettleWhen, in_flight::SettleBatch, watermarks::XidTick},
        session::{Session, tasks::SettleEnd},
        status::ProblemSource,
    },
};

impl Session<'_> {
    /// Starts as many settling statements as are due and allowed. The session goes on settling
    /// while it shuts down.
    pub(super) fn start_settles(&mut self, now: Instant) {
        self.schedule_settle(now);
        while self.tasks.may_settle() && now >= self.timers.database {
            if !self.start_settle(self.settle_when(now), now) {
                return;
            }
        }
    }

    fn settle_when(&self, now: Instant) -> SettleWhen {
        match self.timers.settle {
            Some(at) if at <= now => SettleWhen::Now,
            _ => SettleWhen::BatchIsFull,
        }
    }

    /// Starts one settling statement. Returns whether there were rows for it.
    fn start_settle(&mut self, when: SettleWhen, now: Instant) -> bool {
        let Some(batch) = self.core.next_settle(self.settle_rows_max(), when) else {
            return false;
        };
        self.timers.settle = None;
        self.schedule_settle(now);
        // Its transaction is a tick, too.
        self.timers.ticked(now);
        // Read now, before the transaction begins: every id up to here was drawn before it.
        let drawn = self.core.highest_id();
        let settle = settle(self.store.clone(), batch, drawn, now);
        self.tasks.start_settle(settle);
        true
    }

    fn schedule_settle(&mut self, now: Instant) {
        let acked = self.core.in_flight().acked();
        self.timers.schedule_settle(acked, now);
    }

    /// Most rows of one settling statement.
    pub(super) fn settle_rows_max(&self) -> usize {
        self.process.options.settings.batch_size as usize
    }

    /// Takes the end of a settling statement. Rows of a failed one are settled again.
    pub(super) fn on_settled(&mut self, settled: SettleEnd) {
        let now = Instant::now();
        match settled.result {
            Ok(tick) => {
                self.reporter
                    .record_settled(&settled.slots, settled.began, now);
                self.core.on_tick(tick);
                self.core.on_settled(&settled.slots);
                self.reporter.work_succeeded(ProblemSource::Settling);
            }
            Err(error) => {
                self.core.on_settle_failed(&settled.slots);
                self.on_database_error(ProblemSource::Settling, &error, now);
            }
        }
    }
}

/// Deletes the rows of a batch.
async fn settle(store: Store, batch: SettleBatch, drawn: RowId, began: Instant) -> SettleEnd {
    let result = store.settle(&batch.rows).await;
    SettleEnd {
        slots: batch.slots,
        began,
        result: result.map(|xid| XidTick { xid, drawn }),
    }
}
