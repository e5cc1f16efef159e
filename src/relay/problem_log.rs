//! Which problems of a source get a log line: one when a problem begins, and one when it is over.
//! A number that changes in a message, or a text that comes and goes, is no change of state. Pure.

use crate::report::{Problem, ProblemClass};

/// What the log says about the problems of one source.
#[derive(Debug, Default)]
pub(crate) struct ProblemLog {
    /// Problems that were logged, and whose end was not.
    open: Vec<Logged>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Logged {
    class: ProblemClass,
    /// Message without its numbers.
    shape: String,
    message: String,
}

/// What a source can report at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reports {
    /// One problem at a time, whose message may vary.
    One,
    /// A problem for each of several things, such as topics.
    Many,
}

/// Lines to write.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    pub(crate) begun: Vec<Problem>,
    /// Class and message of the line that the problem began with.
    pub(crate) ended: Vec<(ProblemClass, String)>,
}

impl ProblemLog {
    /// Takes the problems that a source reports now. Returns the lines that follow.
    pub(crate) fn take(&mut self, problems: &[Problem], reports: Reports) -> Lines {
        let mut lines = Lines::default();
        self.open.retain(|logged| {
            let is_there = problems.iter().any(|now| logged.is(now, reports));
            if !is_there {
                lines.ended.push((logged.class, logged.message.clone()));
            }
            is_there
        });
        for problem in problems {
            let logged = Logged::new(problem);
            if !self.open.iter().any(|open| open.has_shape_of(&logged)) {
                self.open.push(logged);
                lines.begun.push(problem.clone());
            }
        }
        lines
    }
}

impl Logged {
    fn new(problem: &Problem) -> Self {
        Self {
            class: problem.class,
            shape: without_numbers(&problem.message),
            message: problem.message.clone(),
        }
    }

    /// Whether this is still the problem that a source reports.
    fn is(&self, now: &Problem, reports: Reports) -> bool {
        match reports {
            Reports::One => self.class == now.class,
            Reports::Many => self.has_shape_of(&Self::new(now)),
        }
    }

    fn has_shape_of(&self, other: &Self) -> bool {
        (self.class, &self.shape) == (other.class, &other.shape)
    }
}

/// A message without the numbers that stand alone. Those in names, such as `'files.v1'`, stay.
fn without_numbers(message: &str) -> String {
    let words = message.split(' ').map(|word| {
        let number = word.trim_matches(|c: char| c.is_ascii_punctuation() && c != '\'');
        let is_number = !number.is_empty()
            && number
                .chars()
                .all(|c| c.is_ascii_digit() || matches!(c, '.' | ','));
        if is_number { "#" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::ProblemClass::{AuthenticationFailed, KeysParked, Unreachable};

    fn problems(of: &[(ProblemClass, &str)]) -> Vec<Problem> {
        of.iter()
            .map(|(class, message)| Problem::new(*class, *message))
            .collect()
    }

    fn step(log: &mut ProblemLog, of: &[(ProblemClass, &str)], reports: Reports) -> (usize, usize) {
        let lines = log.take(&problems(of), reports);
        (lines.begun.len(), lines.ended.len())
    }

    #[test]
    fn a_number_that_changes_is_no_change_of_state() {
        let mut log = ProblemLog::default();
        let keys = |message| [(KeysParked, message)];
        for (of, lines) in [
            (&keys("2 keys of topic 'a' are parked")[..], (1, 0)),
            (&keys("1,003 keys of topic 'a' are parked"), (0, 0)),
            (&keys("2 keys of topic '7' are parked"), (1, 1)),
            (&[], (0, 1)),
            (&keys("2 keys of topic '7' are parked"), (1, 0)),
        ] {
            assert_eq!(step(&mut log, of, Reports::Many), lines, "{of:?}");
        }
    }

    #[test]
    fn texts_that_alternate_get_a_line_each_and_one_end() {
        let mut log = ProblemLog::default();
        for (of, lines) in [
            (&[(Unreachable, "refused")][..], (1, 0)),
            (&[(Unreachable, "timed out")], (1, 0)),
            (&[(Unreachable, "refused")], (0, 0)),
            (&[(Unreachable, "timed out")], (0, 0)),
            (&[(AuthenticationFailed, "no")], (1, 2)),
            (&[], (0, 1)),
        ] {
            assert_eq!(step(&mut log, of, Reports::One), lines, "{of:?}");
        }
    }

    #[test]
    fn each_of_several_begins_and_ends_on_its_own() {
        let mut log = ProblemLog::default();
        let (a, b) = ((KeysParked, "topic 'a'"), (KeysParked, "topic 'b'"));
        for (of, lines) in [
            (&[a][..], (1, 0)),
            (&[b, a], (1, 0)),
            (&[b], (0, 1)),
            (&[b, a], (1, 0)),
        ] {
            assert_eq!(step(&mut log, of, Reports::Many), lines, "{of:?}");
        }
    }
}
