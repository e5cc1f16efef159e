//! What the database answered: settled rows, the lease, ticks, counts, and failures.

use super::*;

impl Session<'_> {
    pub(super) fn settled(&mut self, settled: Settled) {
        let now = Instant::now();
        match settled.result {
            Ok(tick) => {
                self.status
                    .metrics
                    .settle
                    .observe((now - settled.began).as_secs_f64());
                for slot in &settled.slots {
                    self.status
                        .metrics
                        .processing
                        .observe((now - self.taken_at[slot.index()]).as_secs_f64());
                }
                self.core.on_tick(tick);
                self.core.on_settled(&settled.slots);
                self.works(ProblemSource::Settling);
            }
            Err(error) => {
                self.core.on_settle_failed(&settled.slots);
                self.database_failed(ProblemSource::Settling, &error, now);
            }
        }
    }

    pub(super) fn leased(&mut self, result: Result<LeaseOutcome, StoreError>) -> bool {
        let now = Instant::now();
        self.timers.lease = now + SURVEY_EVERY;
        if self.is_broken {
            return true;
        }
        let (renewed, released, granted, give_back, seen) = match result {
            Ok(LeaseOutcome::Holds {
                renewed,
                released,
                granted,
                give_back,
                seen,
            }) => (renewed, released, granted, give_back, seen),
            Ok(LeaseOutcome::Lost) => return false,
            Err(error) => {
                self.database_failed(ProblemSource::Database, &error, now);
                return true;
            }
        };
        if let Some(renewed) = renewed {
            self.deadline = lease_deadline(renewed.sent);
            self.timers.renew = renewed.sent + RENEW_EVERY;
            self.core.on_tick(XidTick {
                xid: renewed.xid,
                drawn: renewed.drawn,
            });
            if !self.core.owns_exactly(&renewed.ours) {
                return false;
            }
        }
        self.core.on_released(&released);
        self.core.on_granted(&granted, now);
        self.core
            .set_parked(&seen.parked, &seen.lanes, seen.asked, now);
        self.core.drain(give_back, now);
        self.works(ProblemSource::Database);
        self.status.set_lanes(self.core.owned_lanes());
        self.status.set_ready(true);
        true
    }

    pub(super) fn ticked(&mut self, drawn: i64, result: Result<u64, StoreError>) {
        let now = Instant::now();
        self.timers.tick = now + TICK_EVERY;
        match result {
            Ok(xid) => self.core.on_tick(XidTick { xid, drawn }),
            // With nothing to settle, the next turn of the lease is what tells that it works again.
            Err(error) => self.database_failed(ProblemSource::Database, &error, now),
        }
    }

    pub(super) fn counted(&mut self, began: Instant, result: Result<Counts, StoreError>) {
        // Scaling goes by this number: an old one under a growing backlog would say that nothing
        // waits.
        self.timers.backlog =
            not_again_before(began, BACKLOG_EVERY).min(Instant::now() + BACKLOG_AT_LATEST);
        let metrics = &self.status.metrics;
        metrics
            .in_flight_rows
            .set(self.core.in_flight().rows() as i64);
        metrics
            .in_flight_bytes
            .set(self.core.in_flight().bytes() as i64);
        let Ok((depth, table)) = result else {
            return self.status.set_backlog(None);
        };
        self.status.set_table(table);
        let oldest = depth.oldest_us.map(kafka::rfc3339);
        metrics.queue_depth.set(depth.rows as i64);
        metrics.event_age.set(depth.oldest_us.map_or(0.0, |oldest| {
            outage::now_us().saturating_sub(oldest).max(0) as f64 / 1e6
        }));
        self.status.set_backlog(Some(Backlog {
            rows: depth.rows,
            capped: depth.capped,
            oldest_at: oldest,
        }));
    }

    pub(super) fn tell_topics(&self) {
        let (resting, astray) = self.core.topic_problems();
        let mut problems: Vec<Problem> = resting
            .into_iter()
            .filter(|(_, class)| *class != ProblemClass::TopicMissing)
            .map(|(topic, class)| resting_topic(self.core.routes().name(topic), class))
            .collect();
        for (topic, keys) in self.core.parked_keys() {
            let name = self.core.routes().name(topic);
            let message = format!(
                "{keys} keys of topic '{name}' are parked, their rows wait: see `outbox-relay \
                 parked list`, then retry or skip them"
            );
            problems.push(Problem::new(ProblemClass::KeysParked, message));
        }
        for topic in self.core.parked_topics() {
            let name = self.core.routes().name(topic);
            let message = format!(
                "topic '{name}' is parked, its rows wait: `outbox-relay parked retry --topic \
                 {name}` lets it flow again"
            );
            problems.push(Problem::new(ProblemClass::KeysParked, message));
        }
        if astray {
            let message = "rows name a topic, or have types, that spec.topics does not declare: \
                add it there; they wait until then";
            problems.push(Problem::new(ProblemClass::TopicNotDeclared, message));
        }
        self.status.set_problems(ProblemSource::Records, problems);
    }

    pub(super) fn gap_scanned(
        &mut self,
        plan: &GapScanPlan,
        began: Instant,
        result: Result<Vec<Straggler>, StoreError>,
    ) {
        self.timers.gap_scan = not_again_before(began, SWEEP_EVERY);
        let Ok(found) = result else { return };
        self.gap_scanned.on_page(plan, &found);
        for (lane, id, event_id) in found {
            if self.core.on_straggler(lane, id, event_id) {
                self.status.metrics.stragglers.inc();
                tracing::warn!(lane, id, %event_id, "a row below the mark: was an id drawn again, \
                    after a restore or a TRUNCATE?");
            }
        }
    }

    /// One of the kinds of work with the database failed; the others may go on.
    pub(super) fn database_failed(
        &mut self,
        work: ProblemSource,
        error: &StoreError,
        now: Instant,
    ) {
        self.timers.database = now + RETRY_AFTER;
        self.timers.lease = self.timers.lease.max(now + RETRY_AFTER);
        self.failing.insert(work);
        self.status.set_problems(work, vec![error.problem()]);
    }

    /// Told after a failure only: it works thousands of times a second.
    pub(super) fn works(&mut self, work: ProblemSource) {
        if self.failing.remove(&work) {
            self.status.set_problems(work, vec![]);
        }
    }
}

/// When work that has just ended may begin again: after `pause`, or later, so that it never takes
/// more than a hundredth of the database's time.
fn not_again_before(began: Instant, pause: Duration) -> Instant {
    let now = Instant::now();
    now + pause.max((now - began) * 100)
}

fn resting_topic(name: &str, class: ProblemClass) -> Problem {
    let why = match class {
        ProblemClass::TopicStalled => {
            "does not acknowledge records while Kafka takes later ones: has each of its partitions a leader and enough \
                                       replicas in sync? Its other rows wait"
        }
        ProblemClass::TopicNotAuthorized => {
            "may not be written to by this user: allow WRITE on it; its rows wait until then"
        }
        _ => {
            "does not take a record, for a reason that the relay's log names: it rests and is \
             tried again"
        }
    };
    Problem::new(class, format!("topic '{name}' {why}"))
}
