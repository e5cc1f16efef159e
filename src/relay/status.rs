//! What the relay says of itself: problems by where they come from, the report, and whether it is
//! alive and ready.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    kafka,
    outbox::TableWide,
    relay::metrics::Metrics,
    report::{Backlog, Breaker, BreakerState, Problem, RATE_SPAN, RelayReport},
};

/// `/healthz` fails when the loop has not turned for this long.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Where a problem comes from; each part of the relay tells only of its own, and replaces what it
/// told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemSource {
    /// The way to the database, and the lease in it.
    Database,
    /// The table of events, as it was found at start.
    Table,
    /// The sequence of its ids.
    Sequence,
    Settling,
    ReadDecision,
    /// Looking up and judging refused rows.
    Parking,
    Kafka,
    Producer,
    DatabaseSecrets,
    KafkaSecrets,
    Topics,
    Records,
}

struct State {
    instance: String,
    schema_version: Option<i64>,
    lanes: u32,
    backlog: Option<Backlog>,
    breaker: Option<Breaker>,
    table: Option<TableWide>,
    problems: BTreeMap<ProblemSource, Vec<Problem>>,
    published: VecDeque<(Instant, u64)>,
    turned_at: Instant,
    ready: bool,
}

/// Shared by the loop, which writes, and the HTTP handlers, which read.
pub struct Status {
    pub metrics: Metrics,
    state: Mutex<State>,
}

impl Status {
    #[must_use]
    pub fn new(topics: &[String], now: Instant) -> Self {
        let state = State {
            instance: String::new(),
            schema_version: None,
            lanes: 0,
            backlog: None,
            breaker: None,
            table: None,
            problems: BTreeMap::new(),
            published: VecDeque::new(),
            turned_at: now,
            ready: false,
        };
        Self {
            metrics: Metrics::new(topics),
            state: Mutex::new(state),
        }
    }

    fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A new life of the process, with its schema known and its lease running.
    pub fn began(&self, instance: String, schema_version: i64) {
        self.write(|state| {
            state.instance = instance;
            state.schema_version = Some(schema_version);
        });
    }

    /// The lease runs, or does not.
    pub fn set_ready(&self, ready: bool) {
        self.write(|state| state.ready = ready);
    }

    /// The loop turned.
    pub fn turned(&self, now: Instant) {
        self.write(|state| state.turned_at = now);
    }

    pub fn set_lanes(&self, lanes: u32) {
        self.metrics.lanes_owned.set(i64::from(lanes));
        self.write(|state| state.lanes = lanes);
    }

    /// `since`: RFC 3339.
    pub fn set_breaker(&self, breaker: BreakerState, since: String) {
        self.metrics.set_breaker(breaker);
        self.write(|state| {
            state.breaker = Some(Breaker {
                state: breaker,
                since,
            })
        });
    }

    /// Somebody else owns them now, and tells their numbers.
    pub fn lost_lanes(&self) {
        self.set_lanes(0);
        self.set_backlog(None);
        self.set_table(None);
        self.metrics.queue_depth.set(0);
        self.metrics.event_age.set(0.0);
    }

    /// `None`: unknown, which is not the same as nothing.
    pub fn set_backlog(&self, backlog: Option<Backlog>) {
        self.write(|state| state.backlog = backlog);
    }

    /// Numbers of the whole table; `None`: another relay tells them.
    pub fn set_table(&self, table: Option<TableWide>) {
        self.metrics.set_table(table);
        self.write(|state| state.table = table);
    }

    /// Replaces what `source` told before. A problem that is new is logged once.
    pub fn set_problems(&self, source: ProblemSource, mut problems: Vec<Problem>) {
        let before = self.write(|state| {
            let before = state.problems.remove(&source).unwrap_or_default();
            let now = kafka::rfc3339(Timestamp::now().as_microsecond());
            for problem in &mut problems {
                let known = before.iter().find(|old| old.class == problem.class);
                problem.since = known
                    .and_then(|old| old.since.clone())
                    .or_else(|| Some(now.clone()));
            }
            state.problems.insert(source, problems.clone());
            for class in before.iter().chain(&problems).map(|problem| problem.class) {
                self.metrics.set_problems(
                    class,
                    state
                        .problems
                        .values()
                        .flatten()
                        .filter(|problem| problem.class == class)
                        .count(),
                );
            }
            before
        });
        for problem in problems.iter().filter(|problem| {
            !before
                .iter()
                .any(|old| old.class == problem.class && old.message == problem.message)
        }) {
            self.metrics
                .errors
                .with_label_values(&[&problem.class.to_string()])
                .inc();
            tracing::warn!(class = %problem.class, "{}", problem.message);
        }
        if problems.is_empty() && !before.is_empty() {
            tracing::info!(?source, "solved: {}", before[0].message);
        }
    }

    pub fn published(&self, records: u64, now: Instant) {
        self.write(|state| {
            state.published.push_back((now, records));
            while state
                .published
                .front()
                .is_some_and(|(at, _)| now.saturating_duration_since(*at) > RATE_SPAN)
            {
                state.published.pop_front();
            }
        });
    }

    /// Whether the loop turns.
    #[must_use]
    pub fn is_alive(&self, now: Instant) -> bool {
        self.write(|state| now.saturating_duration_since(state.turned_at) < STUCK_AFTER)
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.write(|state| state.ready)
    }

    #[must_use]
    pub fn report(&self, now: Instant) -> RelayReport {
        self.write(|state| {
            let recent = state
                .published
                .iter()
                .filter(|(at, _)| now.saturating_duration_since(*at) <= RATE_SPAN);
            RelayReport {
                instance: state.instance.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                schema_version: state.schema_version,
                lanes: state.lanes,
                backlog: state.backlog.clone(),
                parked_keys: state.table.map(|table| table.parked_keys),
                parked_topics: state.table.map(|table| table.parked_topics),
                dead_letters: state.table.map(|table| table.dead_letters),
                published_per_second: recent.map(|(_, records)| *records).sum::<u64>() as f64
                    / RATE_SPAN.as_secs_f64(),
                breaker: state.breaker.clone(),
                problems: state.problems.values().flatten().cloned().collect(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::ProblemClass::{self, KafkaUnreachable, TopicMissing};

    #[test]
    fn a_problem_is_there_since_it_was_told_first_whatever_its_words() {
        let status = Status::new(&[], Instant::now());
        let told = |problems: &[(ProblemClass, &str)]| {
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
        let first = told(&[(TopicMissing, "a")]);
        let second = told(&[(TopicMissing, "b"), (KafkaUnreachable, "c")]);
        assert_eq!(second[0], first[0]);
        assert!(second[1] > first[0]);
        told(&[]);
        assert!(
            told(&[(TopicMissing, "a")])[0] > second[1],
            "it is another one"
        );
    }

    /// Else a sum over relays would count them twice.
    #[test]
    fn who_lost_its_lanes_tells_no_numbers_of_them_any_more() {
        let (status, now) = (Status::new(&[], Instant::now()), Instant::now());
        let table = TableWide {
            dead_letters: 3,
            parked_keys: 2,
            parked_topics: 1,
            xmin_age_seconds: Some(9.0),
            dead_tuples: 7,
        };
        status.set_lanes(64);
        status.set_backlog(Some(Backlog {
            rows: 5,
            capped: false,
            oldest_at: None,
        }));
        status.set_table(Some(table));
        status.metrics.queue_depth.set(5);
        assert!(
            status.metrics.render().contains("\noutbox_parked_keys 2\n")
                && status
                    .metrics
                    .render()
                    .contains("\noutbox_parked_topics 1\n")
        );

        status.lost_lanes();
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
            metrics.contains("\noutbox_queue_depth 0\n") && !metrics.contains("outbox_parked_keys"),
            "{metrics}"
        );
    }
}
