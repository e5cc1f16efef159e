//! What the relay reports about itself: its problems by source, the status report, and whether it
//! is alive and ready.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    kafka,
    outbox::{DatabaseClock, TableWide},
    relay::{
        metrics::Metrics,
        problem_log::{Lines, ProblemLog, Reports},
        row_log::RowLog,
    },
    report::{Backlog, Breaker, BreakerState, Problem, ProblemClass, RATE_SPAN, RelayReport},
};

/// `/healthz` fails when the loop has not turned for this long.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Where a problem comes from. Each part of the relay reports only its own problems, and replaces
/// those that it reported before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemSource {
    /// The connection to the database, and the lease in it.
    Database,
    /// The table of events, as it was when the relay started.
    Table,
    /// The sequence of the table's ids.
    Sequence,
    /// Deleting rows that Kafka acknowledged.
    Settling,
    /// Fetching rows.
    Reading,
    /// Looking up rejected rows and writing what becomes of them.
    Parking,
    /// The cluster, as the client for topic metadata finds it.
    Kafka,
    /// Making a producer.
    Producer,
    /// Quotas of the brokers.
    Quota,
    /// The clocks of the node and the brokers, compared with the database's.
    Clocks,
    /// The Secret files for the database.
    DatabaseSecrets,
    /// The Secret files for Kafka.
    KafkaSecrets,
    /// The declared topics, as the brokers describe them.
    Topics,
    /// Rows and records: paused topics, parked keys, undeclared topics.
    Records,
}

impl ProblemSource {
    /// What this source can report at the same time.
    fn reports(self) -> Reports {
        match self {
            Self::Topics | Self::Records => Reports::Many,
            _ => Reports::One,
        }
    }
}

/// The values behind the mutex.
struct StatusValues {
    /// The database's clock, once it was read. Times that people read are the database's: the
    /// clock of the node may be wrong.
    clock: Option<DatabaseClock>,
    instance: String,
    schema_version: Option<i64>,
    lanes: u32,
    backlog: Option<Backlog>,
    breaker: Option<Breaker>,
    table: Option<TableWide>,
    problems: BTreeMap<ProblemSource, Vec<Problem>>,
    problem_log: BTreeMap<ProblemSource, ProblemLog>,
    /// Records that Kafka acknowledged, by the time of their reports, within [`RATE_SPAN`].
    published: VecDeque<(Instant, u64)>,
    loop_turned_at: Instant,
    ready: bool,
}

impl StatusValues {
    /// Time of the database, or of the node until the database's is known; RFC 3339.
    fn time(&self, now: Instant) -> String {
        let node_us = || Timestamp::now().as_microsecond();
        kafka::rfc3339(self.clock.map_or_else(node_us, |clock| clock.at(now)))
    }

    /// Records per second that Kafka acknowledged within the last [`RATE_SPAN`].
    fn published_per_second(&self, now: Instant) -> f64 {
        let mut published: u64 = 0;
        for (at, records) in &self.published {
            if is_within_rate_span(*at, now) {
                published += records;
            }
        }
        published as f64 / RATE_SPAN.as_secs_f64()
    }

    fn forget_old_published(&mut self, now: Instant) {
        while let Some((at, _)) = self.published.front()
            && !is_within_rate_span(*at, now)
        {
            self.published.pop_front();
        }
    }

    fn report(&self, now: Instant) -> RelayReport {
        let table = self.table;
        RelayReport {
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            schema_version: self.schema_version,
            lanes: self.lanes,
            backlog: self.backlog.clone(),
            parked_keys: table.map(|table| table.parked_keys),
            parked_topics: table.map(|table| table.parked_topics),
            dead_letters: table.map(|table| table.dead_letters),
            published_per_second: self.published_per_second(now),
            breaker: self.breaker.clone(),
            problems: self.problems.values().flatten().cloned().collect(),
        }
    }

    /// Number of current problems of a class.
    fn count(&self, class: ProblemClass) -> usize {
        let problems = self.problems.values().flatten();
        problems.filter(|problem| problem.class == class).count()
    }
}

/// Shared by the loop, which writes, and the HTTP handlers, which read.
pub struct Status {
    pub metrics: Metrics,
    pub(crate) row_log: RowLog,
    state: Mutex<StatusValues>,
}

impl Status {
    /// Status of a process that has no instance, no lanes and no problem yet.
    #[must_use]
    pub fn new(topics: &[String], now: Instant) -> Self {
        let state = StatusValues {
            clock: None,
            instance: String::new(),
            schema_version: None,
            lanes: 0,
            backlog: None,
            breaker: None,
            table: None,
            problems: BTreeMap::new(),
            problem_log: BTreeMap::new(),
            published: VecDeque::new(),
            loop_turned_at: now,
            ready: false,
        };
        Self {
            metrics: Metrics::new(topics),
            row_log: RowLog::default(),
            state: Mutex::new(state),
        }
    }

    fn with_state<T>(&self, work: impl FnOnce(&mut StatusValues) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets the instance of a new session, and the level of the schema that it works on.
    pub fn set_instance(&self, instance: String, schema_version: i64) {
        self.with_state(|state| {
            state.instance = instance;
            state.schema_version = Some(schema_version);
        });
    }

    /// Reports a valid lease at `/readyz`.
    pub fn set_ready(&self) {
        self.with_state(|state| state.ready = true);
    }

    /// Reports at `/readyz` that there is no valid lease.
    pub fn set_not_ready(&self) {
        self.with_state(|state| state.ready = false);
    }

    /// Records that the loop turned, for `/healthz`.
    pub fn record_turn(&self, now: Instant) {
        self.with_state(|state| state.loop_turned_at = now);
    }

    /// Sets how many lanes this relay owns.
    pub fn set_lanes(&self, lanes: u32) {
        self.metrics.lanes_owned.set(i64::from(lanes));
        self.with_state(|state| state.lanes = lanes);
    }

    /// Sets the database's clock.
    pub fn set_clock(&self, clock: DatabaseClock) {
        self.with_state(|state| state.clock = Some(clock));
    }

    /// Sets the state that the breaker enters now.
    pub fn set_breaker(&self, breaker: BreakerState) {
        self.metrics.set_breaker(breaker);
        self.with_state(|state| {
            state.breaker = Some(Breaker {
                state: breaker,
                since: state.time(Instant::now()),
            });
        });
    }

    /// Clears all numbers of lanes: another relay owns them now and reports theirs.
    pub fn clear_lanes(&self) {
        self.set_lanes(0);
        self.set_backlog(None);
        self.set_table(None);
        self.metrics.set_backlog(None);
    }

    /// Sets the backlog of our lanes. `None` is an unknown backlog, not an empty one.
    pub fn set_backlog(&self, backlog: Option<Backlog>) {
        self.with_state(|state| state.backlog = backlog);
    }

    /// Sets the numbers of the whole table. `None` when another relay reports them.
    pub fn set_table(&self, table: Option<TableWide>) {
        self.metrics.set_table(table);
        self.with_state(|state| state.table = table);
    }

    /// Replaces the problems that `source` reported before. A new problem is logged and counted
    /// once, and so is its end.
    pub fn set_problems(&self, source: ProblemSource, mut problems: Vec<Problem>) {
        let lines = self.replace_problems(source, &mut problems);
        for problem in &lines.begun {
            self.record_error(problem);
        }
        for (class, message) in &lines.ended {
            tracing::info!(%class, "resolved: {message}");
        }
    }

    /// Stores the problems of a source, and sets since when each is there. Returns what to log.
    fn replace_problems(&self, source: ProblemSource, problems: &mut [Problem]) -> Lines {
        self.with_state(|state| {
            let before = state.problems.remove(&source).unwrap_or_default();
            keep_since(problems, &before, &state.time(Instant::now()));
            state.problems.insert(source, problems.to_vec());
            // Classes that are over are set, too: their gauges become zero.
            for problem in before.iter().chain(problems.iter()) {
                let class = problem.class;
                self.metrics.set_problems(class, state.count(class));
            }
            let log = state.problem_log.entry(source).or_default();
            log.take(problems, source.reports())
        })
    }

    fn record_error(&self, problem: &Problem) {
        let class = problem.class.to_string();
        self.metrics.errors.with_label_values(&[&class]).inc();
        if problem.needs_person() {
            tracing::error!(%class, "{}", problem.message);
        } else {
            tracing::warn!(%class, "{}", problem.message);
        }
    }

    /// Records how many records Kafka acknowledged, for `published_per_second`.
    pub fn record_published(&self, records: u64, now: Instant) {
        self.with_state(|state| {
            state.published.push_back((now, records));
            state.forget_old_published(now);
        });
    }

    /// Whether the loop turned within the last 30 s.
    #[must_use]
    pub fn is_alive(&self, now: Instant) -> bool {
        self.with_state(|state| now.saturating_duration_since(state.loop_turned_at) < STUCK_AFTER)
    }

    /// Whether the lease is valid.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.with_state(|state| state.ready)
    }

    /// The report that `/status` serves.
    #[must_use]
    pub fn report(&self, now: Instant) -> RelayReport {
        self.with_state(|state| state.report(now))
    }
}

/// Sets `since` of each problem: the time since when there was one of its class, or now.
fn keep_since(problems: &mut [Problem], before: &[Problem], now: &str) {
    for problem in problems {
        let since = since_of(problem.class, before);
        problem.since = since.or_else(|| Some(now.to_owned()));
    }
}

/// Since when there was a problem of this class, if there was one.
fn since_of(class: ProblemClass, before: &[Problem]) -> Option<String> {
    let known = before.iter().find(|old| old.class == class)?;
    known.since.clone()
}

fn is_within_rate_span(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) <= RATE_SPAN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::ProblemClass::{KafkaUnreachable, TopicMissing};

    #[test]
    fn a_problem_keeps_its_since_whatever_its_message() {
        let status = Status::new(&[], Instant::now());
        let since_of = |problems: &[(ProblemClass, &str)]| {
            status.set_problems(
                ProblemSource::Topics,
                problems
                    .iter()
                    .map(|(class, message)| Problem::new(*class, *message))
                    .collect(),
            );
            let problems = status.report(Instant::now()).problems;
            problems
                .iter()
                .map(|problem| problem.since.clone().expect("a time"))
                .collect::<Vec<_>>()
        };
        let first = since_of(&[(TopicMissing, "a")]);
        let second = since_of(&[(TopicMissing, "b"), (KafkaUnreachable, "c")]);
        assert_eq!(second[0], first[0]);
        assert!(second[1] > first[0]);
        since_of(&[]);
        assert!(
            since_of(&[(TopicMissing, "a")])[0] > second[1],
            "it is another one"
        );
    }

    #[test]
    fn times_are_the_database_s_once_its_clock_is_known() {
        let (status, now) = (Status::new(&[], Instant::now()), Instant::now());
        status.set_clock(DatabaseClock::new(0, now, now));
        status.set_breaker(BreakerState::Open);
        status.set_problems(
            ProblemSource::Kafka,
            vec![Problem::new(KafkaUnreachable, "m")],
        );
        let report = status.report(Instant::now());
        let breaker = report.breaker.expect("a state").since;
        let problem = report.problems[0].since.clone().expect("a time");
        for since in [breaker, problem] {
            assert!(since.starts_with("1970-01-01T00:"), "{since}");
        }
    }

    /// A sum over relays would count them twice.
    #[test]
    fn a_relay_without_lanes_reports_no_numbers_of_them() {
        let (status, now) = (Status::new(&[], Instant::now()), Instant::now());
        let table = TableWide {
            dead_letters: 3,
            parked_keys: 2,
            parked_topics: 1,
            xmin_age_seconds: Some(9.0),
            dead_tuples: Some(7),
        };
        status.set_lanes(64);
        status.set_backlog(Some(Backlog {
            rows: 5,
            capped: false,
            oldest_at: None,
            waiting_since: None,
            measured_at: None,
        }));
        status.set_table(Some(table));
        status.metrics.set_backlog(Some((5, 1.5)));
        assert!(
            status.metrics.render().contains("\noutbox_parked_keys 2\n")
                && status
                    .metrics
                    .render()
                    .contains("\noutbox_parked_topics 1\n")
        );

        status.clear_lanes();
        let report = status.report(now);
        assert_eq!(
            (
                report.lanes,
                report.backlog,
                report.parked_keys,
                report.dead_letters
            ),
            (0, None, None, None)
        );
        let metrics = status.metrics.render();
        assert!(
            !metrics.contains("\noutbox_queue_depth") && !metrics.contains("outbox_parked_keys"),
            "{metrics}"
        );
    }
}
