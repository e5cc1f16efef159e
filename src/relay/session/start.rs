//! What the loop starts, each kind of work at most as often as its timer says. Nothing here waits.

use super::*;
use crate::planted::{self, Bug};

impl Session<'_> {
    pub(super) fn start(&mut self, now: Instant) {
        self.start_settles(now);
        self.start_lease(now);
        if self.stop_by.is_some() || now < self.timers.database {
            return;
        }
        self.start_lookup();
        self.start_verdict();
        if self.fetch.is_none()
            && matches!(self.sending, Sending::Open(_))
            && let Some(plan) = self.core.plan_fetch(now)
        {
            let store = self.store.clone();
            self.fetch = start(async move {
                let fetched = store.fetch(&plan).await;
                (plan, now, fetched)
            });
        }
        if self.tick.is_none() && now >= self.timers.tick && self.core.wants_ticks() {
            let (store, seen) = (self.store.clone(), self.core.seen());
            self.tick = start(async move { (seen, store.tick().await) });
        }
        if self.backlog.is_none() && now >= self.timers.backlog {
            let (store, plan) = (self.store.clone(), self.core.backlog_plan());
            self.backlog = start(async move {
                let depth = store.backlog(&plan, BACKLOG_ROWS_MAX).await;
                // Numbers of the whole table come from one relay.
                let table = if plan.lanes.first() == Some(&0) {
                    store.table_wide().await.ok()
                } else {
                    None
                };
                (now, depth.map(|depth| (depth, table)))
            });
        }
        if self.sweep.is_none() && now >= self.timers.sweep && !planted::has(Bug::ForwardOnly) {
            let (store, plan) = (self.store.clone(), self.swept.plan(&self.core.marks()));
            self.sweep = start(async move {
                let found = store.sweep(&plan).await;
                (plan, now, found)
            });
        }
    }

    pub(super) fn start_settles(&mut self, now: Instant) {
        let batch_size = self.options.settings.batch_size as usize;
        self.timers.settle = settle_at(self.timers.settle, self.core.window().acked(), now);
        while self.settles.len() < SETTLES_MAX && now >= self.timers.database {
            let flush = self.timers.settle.is_some_and(|at| at <= now);
            let Some(settle) = self.core.next_settle(batch_size, flush) else {
                return;
            };
            self.timers.settle = settle_at(None, self.core.window().acked(), now);
            self.timers.tick = now + TICK_EVERY;
            let (store, drawn) = (self.store.clone(), self.core.seen());
            self.settles.push(
                async move {
                    let result = store
                        .settle(&settle.plan)
                        .await
                        .map(|xid| Tick { xid, drawn });
                    Settled {
                        slots: settle.slots,
                        began: now,
                        result,
                    }
                }
                .boxed(),
            );
        }
    }

    pub(super) fn start_lease(&mut self, now: Instant) {
        if self.lease.is_some() || self.is_broken || now < self.timers.lease {
            return;
        }
        let renew = (now >= self.timers.renew).then(|| self.core.marks());
        let turn_now = Turn {
            instance: self.instance,
            incarnation: self.incarnation,
            renew,
            release: self.core.drained(),
            known: self.core.marks().lanes,
            owned: self.core.owned(),
            seen: self.core.seen(),
            breaker: self.core.breaker().state(),
            health: self.core.breaker().health(now),
            stopping: self.stop_by.is_some(),
        };
        self.lease = start(turn(self.store.clone(), turn_now));
    }
}
