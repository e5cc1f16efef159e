//! The clocks of a session: the database's, by which records get their times, and how far those of
//! the node and of the brokers are apart from it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{
    outbox::DatabaseClock,
    relay::core::clock_skew::ClockSkew,
    report::{Problem, ProblemClass},
};

/// The clocks of a session.
pub(super) struct Clocks {
    database: DatabaseClock,
    skew: ClockSkew,
}

impl Clocks {
    /// No clock but the database's is known.
    pub(super) fn new(database: DatabaseClock) -> Self {
        let skew = ClockSkew::default();
        Self { database, skew }
    }

    /// Time of the database, microseconds since 1970.
    pub(super) fn database_us(&self, now: Instant) -> i64 {
        self.database.at(now)
    }

    /// Takes the database's clock, and compares the node's with it.
    pub(super) fn set_database(&mut self, database: DatabaseClock) {
        self.database = database;
        // Both clocks of the node are read here, in one moment.
        let (node, now) = (SystemTime::now(), Instant::now());
        self.skew.on_node(unix_time_us(node), database, now);
    }

    /// Takes the time of a broker's clock when it appended a record, in ms since 1970.
    pub(super) fn on_appended(&mut self, broker_ms: i64, sent: Instant, now: Instant) {
        self.skew.on_appended(broker_ms, self.database, sent, now);
    }

    /// Problems to report. They stop nothing.
    pub(super) fn problems(&self, now: Instant) -> Vec<Problem> {
        let node = self.skew.node().map(node_problem);
        let brokers = self.skew.brokers(now).map(brokers_problem);
        node.into_iter().chain(brokers).collect()
    }
}

fn unix_time_us(time: SystemTime) -> i64 {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => micros(after),
        Err(error) => -micros(error.duration()),
    }
}

fn node_problem(ahead_us: i64) -> Problem {
    let message = format!(
        "the clock of this relay's node is {} the database's: rows are published all the same, \
         with the database's time, but certificates are judged by it: correct it",
        in_words(ahead_us)
    );
    Problem::new(ProblemClass::ClockSkew, message).as_advice()
}

fn brokers_problem(ahead_us: i64) -> Problem {
    let message = format!(
        "the clock of a Kafka broker is {} the database's: times of records may be rejected, and \
         records deleted too soon or too late: correct the one that is wrong",
        in_words(ahead_us)
    );
    Problem::new(ProblemClass::ClockSkew, message).as_advice()
}

/// A distance between two clocks, in a text that does not change each second.
fn in_words(ahead_us: i64) -> String {
    let minutes = (ahead_us.unsigned_abs() + 30_000_000) / 60_000_000;
    let distance = match minutes {
        0..120 => format!("{minutes} min"),
        120..2880 => format!("{} h", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    };
    let direction = if ahead_us < 0 { "behind" } else { "ahead of" };
    format!("{distance} {direction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    #[test]
    fn a_distance_is_told_in_the_largest_unit_that_says_enough() {
        for (ahead_us, expected) in [
            (61 * S, "1 min ahead of"),
            (-3605 * S, "60 min behind"),
            (7200 * S, "2 h ahead of"),
            (-86_400 * S + 1, "24 h behind"),
            (172_800 * S, "2 days ahead of"),
            (i64::MIN, "106751991 days behind"),
        ] {
            assert_eq!(in_words(ahead_us), expected);
        }
    }

    #[test]
    fn the_problems_stop_nothing_and_are_not_cut() {
        for problem in [node_problem(i64::MIN), brokers_problem(i64::MIN)] {
            assert!(
                problem.advice
                    && problem.message.ends_with("wrong")
                        != problem.message.ends_with("correct it"),
                "{}",
                problem.message
            );
        }
    }

    #[test]
    fn a_node_with_the_right_clock_is_no_problem_and_a_wrong_one_is() {
        let sent = Instant::now();
        let mut clocks = Clocks::new(DatabaseClock::new(0, sent, sent));
        clocks.set_database(DatabaseClock::new(
            unix_time_us(SystemTime::now()),
            sent,
            sent,
        ));
        assert_eq!(clocks.problems(sent), []);
        clocks.set_database(DatabaseClock::new(0, sent, sent));
        assert_eq!(clocks.problems(sent).len(), 1);
    }
}
