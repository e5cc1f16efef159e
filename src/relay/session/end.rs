//! The two ways to end: drained and given back, or with the lease lost.

use super::*;
use crate::failpoints;

impl Session<'_> {
    pub(super) fn begin_to_stop(&mut self) {
        tracing::info!(
            rows = self.core.in_flight().rows(),
            "stopping: finishing what is in flight"
        );
        self.finish_within(DRAIN_MAX);
    }

    fn finish_within(&mut self, time: Duration) {
        let now = Instant::now();
        self.stop_by = Some(now + time);
        self.core.drain(u32::MAX, now);
        self.timers.settle = Some(now);
    }

    /// Whether ids may have come again, as this fetch shows: then nothing of it may be sent, and
    /// this session only ends well what it has sent. Rows that Kafka has are deleted rightly even
    /// so: they are named by event_id, too.
    pub(super) fn breaks(&mut self, sequence: SequenceState) -> bool {
        let Some(why) = regression(self.incarnation, self.memory.highest_id, sequence) else {
            return false;
        };
        self.status
            .set_problems(ProblemSource::Sequence, vec![why.problem()]);
        self.memory.on_reported(Instant::now());
        if !self.is_broken {
            self.is_broken = true;
            self.finish_within(DRAIN_BROKEN_MAX);
        }
        true
    }

    pub(super) fn is_drained(&self, now: Instant) -> bool {
        self.stop_by.is_some_and(|by| {
            now >= by
                || (self.core.in_flight().rows() == 0
                    && self.fetch.is_none()
                    && self.lease.is_none())
        })
    }

    /// Gives everything back, in order: no record may be sent any more once a lane is free.
    pub(super) async fn leave(mut self) -> SessionEnd {
        self.status.clear_lanes();
        self.retire().await;
        let marks: LaneWatermarks = self.core.watermarks();
        let goodbye = async {
            self.store
                .release(self.instance, &marks, self.incarnation)
                .await?;
            self.store.unregister(self.instance).await
        };
        match tokio::time::timeout(Duration::from_secs(5), goodbye).await {
            _ if self.is_broken => return SessionEnd::SequenceRegressed,
            Ok(Ok(())) => tracing::info!("stopped: all lanes are free"),
            _ => tracing::warn!(
                "stopped without telling the database: the lanes are free when the lease runs out"
            ),
        }
        SessionEnd::Stopped
    }

    /// Somebody else may own our lanes: nothing is sent any more, and what was acknowledged is
    /// still settled.
    pub(super) async fn lose_lease(mut self) -> SessionEnd {
        self.status.set_ready(false);
        self.core.lose_lanes();
        self.status.clear_lanes();
        self.retire().await;
        let _ = tokio::time::timeout(Duration::from_secs(5), self.store.unregister(self.instance))
            .await;
        SessionEnd::LeaseLost
    }

    /// Throws the producer out, waits for its last reports, and settles what they acknowledge.
    pub(super) async fn retire(&mut self) {
        self.trial
            .iter()
            .chain(self.sending.producer())
            .for_each(Producer::purge);
        failpoints::purge_replaced();
        while self.core.in_flight().sent() > 0 {
            self.drain_reports(Instant::now());
            tokio::time::sleep(REPORTS_EVERY).await;
        }
        let nothing = Sending::None {
            retry_at: Instant::now(),
        };
        if let Sending::Open(producer)
        | Sending::Flushing(producer, _)
        | Sending::Retiring(producer) = std::mem::replace(&mut self.sending, nothing)
        {
            destroy(producer).await;
        }
        if let Some(trial) = self.trial.take() {
            destroy(trial).await;
        }
        let rest = async {
            while let Some(settled) = self.settles.next().await {
                self.settled(settled);
            }
            while let Some(settle) = self
                .core
                .next_settle(self.options.settings.batch_size as usize, SettleWhen::Now)
            {
                if self.store.settle(&settle.plan).await.is_err() {
                    return;
                }
                self.core.on_settled(&settle.slots);
            }
        };
        // What stays is sent again by the next owner: a duplicate, never a loss.
        let _ = tokio::time::timeout(Duration::from_secs(5), rest).await;
    }
}
