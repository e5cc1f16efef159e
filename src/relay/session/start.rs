//! What the loop starts, each kind of work at most as often as its timer says. Nothing here waits.

use super::*;
use crate::failpoints::{self, Bug};

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
        if self.tick.is_none() && now >= self.timers.tick && self.core.needs_tick() {
            let (store, seen) = (self.store.clone(), self.core.highest_id());
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
        if self.gap_scan.is_none()
            && now >= self.timers.gap_scan
            && !failpoints::has(Bug::ForwardOnly)
        {
            let (store, plan) = (
                self.store.clone(),
                self.gap_scanned.plan(&self.core.watermarks()),
            );
            self.gap_scan = start(async move {
                let found = store.gap_scan(&plan).await;
                (plan, now, found)
            });
        }
    }

    pub(super) fn start_settles(&mut self, now: Instant) {
        let batch_size = self.options.settings.batch_size as usize;
        self.timers.settle = settle_at(self.timers.settle, self.core.in_flight().acked(), now);
        while self.settles.len() < SETTLES_MAX && now >= self.timers.database {
            let when = if self.timers.settle.is_some_and(|at| at <= now) {
                SettleWhen::Now
            } else {
                SettleWhen::BatchIsFull
            };
            let Some(settle) = self.core.next_settle(batch_size, when) else {
                return;
            };
            self.timers.settle = settle_at(None, self.core.in_flight().acked(), now);
            self.timers.tick = now + TICK_EVERY;
            let (store, drawn) = (self.store.clone(), self.core.highest_id());
            self.settles.push(
                async move {
                    let result = store
                        .settle(&settle.plan)
                        .await
                        .map(|xid| XidTick { xid, drawn });
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
        let renew = (now >= self.timers.renew).then(|| self.core.watermarks());
        let turn_now = LeaseRound {
            instance: self.instance,
            incarnation: self.incarnation,
            renew,
            release: self.core.drained_lanes(),
            known: self.core.watermarks().lanes,
            owned: self.core.owned_lanes(),
            seen: self.core.highest_id(),
            breaker: self.core.breaker().state(),
            health: self.core.breaker().health(now),
            claims: if self.stop_by.is_some() {
                Claims::Stopped
            } else {
                Claims::Allowed
            },
        };
        self.lease = start(run_round(self.store.clone(), turn_now));
    }
}
