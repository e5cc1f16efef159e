//! Carries out what the core decides about refused records: looks rows up, tries them on a producer
//! of their own, writes verdicts.

use super::*;
use crate::{outbox::ParkedRow, relay::core::Disposition};

impl Session<'_> {
    pub(super) fn start_lookup(&mut self) {
        if self.lookup.is_none()
            && let Some(lookup) = self.core.next_lookup()
        {
            let store = self.store.clone();
            let lanes: Vec<i16> = lookup.rows.iter().map(|row| i16::from(row.lane)).collect();
            let ids: Vec<i64> = lookup.rows.iter().map(|row| row.id).collect();
            let event_ids: Vec<Uuid> = lookup.rows.iter().map(|row| row.event_id).collect();
            self.lookup = start(async move {
                let rows = store.fetch_by_ids(&lanes, &ids, &event_ids).await;
                (lookup, rows)
            });
        }
    }

    pub(super) fn looked_up(&mut self, lookup: Lookup, rows: Result<Vec<OutboxRow>, StoreError>) {
        let now = Instant::now();
        match rows {
            Ok(rows) => {
                self.core.on_looked_up(&lookup, rows, now);
                self.works(ProblemSource::Parking);
            }
            Err(error) => {
                self.core.on_lookup_failed(lookup);
                self.database_failed(ProblemSource::Parking, &error, now);
            }
        }
    }

    /// Sends the next rows on trial. A producer that refused something is used up: the next trial
    /// gets a new one.
    pub(super) async fn try_suspects(&mut self, now: Instant) {
        if let (Some(trial), Some(by)) = (&self.trial, self.trial_by)
            && (now >= by || trial.is_fatal() || self.cluster_error.get().is_some())
        {
            trial.purge();
        }
        if self.core.is_probing_done()
            || self.trial_by.is_some()
            || self.trial.as_ref().is_some_and(Producer::is_fatal)
        {
            if self.core.has_probe_under_way() {
                // A record that came in just as the producer gave up is neither sent nor reported,
                // unless it is thrown out.
                self.trial
                    .iter()
                    .filter(|trial| trial.is_fatal())
                    .for_each(Producer::purge);
                return;
            }
            if let Some(used) = self.trial.take() {
                destroy(used).await;
            }
            self.trial_by = None;
        }
        if self.stop_by.is_some() || self.core.is_probing_done() {
            return;
        }
        if self.trial.is_none() {
            self.trial = self.new_producer().ok();
            self.core.on_new_probe_producer();
        }
        if self.trial.is_some()
            && let Some(outgoing) = self.core.next_probe(now)
        {
            self.send(outgoing, Which::Trial, now);
        }
    }

    pub(super) fn start_verdict(&mut self) {
        if self.verdict.is_none()
            && let Some(verdict) = self.core.next_disposition()
        {
            let (store, topic) = (
                self.store.clone(),
                self.core.routes().name(verdict.topic).to_owned(),
            );
            let (name, class) = (verdict.row, verdict.class);
            let row = ParkedRow {
                topic,
                key: verdict.key.to_string(),
                lane: name.lane,
                id: name.id,
                event_id: name.event_id,
                class,
            };
            self.verdict = start(async move {
                let done = match verdict.disposition {
                    Disposition::ParkKey => store.park_key(&row).await,
                    Disposition::DeadLetter => {
                        store.dead_letter(&row, verdict.attempts).await.map(|_| ())
                    }
                };
                (verdict, done)
            });
        }
    }

    pub(super) fn judged(&mut self, verdict: RejectedRow, result: Result<(), StoreError>) {
        let now = Instant::now();
        if let Err(error) = result {
            self.core.on_disposition_failed(verdict);
            return self.database_failed(ProblemSource::Parking, &error, now);
        }
        self.works(ProblemSource::Parking);
        let (topic, row, class) = (
            self.core.routes().name(verdict.topic),
            verdict.row,
            verdict.class,
        );
        match verdict.disposition {
            Disposition::ParkKey => {
                tracing::error!(topic, id = row.id, event_id = %row.event_id, %class, "Kafka refuses this row: its key is parked; see `outbox-relay parked list`");
            }
            Disposition::DeadLetter => {
                tracing::error!(topic, id = row.id, event_id = %row.event_id, %class, "Kafka refuses this row: it is in dead_letter; see `outbox-relay dead-letters list`");
            }
        }
        self.core.on_disposition_done(&verdict, now);
    }
}
