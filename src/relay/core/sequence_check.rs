//! Whether ids of the outbox may have been drawn twice, by what a fetch returned and what this
//! process remembers; and how that is reported. Pure.
//!
//! Watermarks, ticks and ids are valid as long as the sequence only grows. A restore, a failover
//! that lost commits, TRUNCATE .. RESTART IDENTITY or setval() can set it back. Then the session
//! ends, what it has sent is settled, and `resume_sequence()` runs before the next one: see
//! migration 3.

use std::{
    fmt::{self, Display, Formatter},
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    outbox::{Resumed, RowId, SequenceState},
    report::{Problem, ProblemClass},
};

/// Time for which a regression is reported, although relays repair it automatically: a person
/// should know that the database is not what it was.
const REPORTED_FOR: Duration = Duration::from_secs(15 * 60);

/// What a process remembers of the sequence from one session to the next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SequenceMemory {
    /// Highest id that any session of this process saw.
    pub(crate) highest_id: RowId,
    /// Until when the last regression is reported.
    reported_until: Option<Instant>,
}

/// Why watermarks and ids of a session are no longer valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SequenceRegression {
    /// The database has another incarnation: it was restored or replaced, or another relay has
    /// moved the sequence on since.
    OtherIncarnation,
    /// The sequence is at `position`, below an id that was seen.
    Behind { position: RowId, seen: RowId },
}

/// Whether the sequence went back since a session began in this incarnation and saw ids up to
/// `seen`.
#[must_use]
pub(crate) fn regression(
    incarnation: Uuid,
    seen: RowId,
    now: SequenceState,
) -> Option<SequenceRegression> {
    if now.incarnation != Some(incarnation) {
        return Some(SequenceRegression::OtherIncarnation);
    }
    (now.position < seen).then_some(SequenceRegression::Behind {
        position: now.position,
        seen,
    })
}

impl SequenceMemory {
    /// Records an id that was seen.
    pub(crate) fn on_id(&mut self, id: RowId) {
        self.highest_id = self.highest_id.max(id);
    }

    /// Records that a regression is reported from now on.
    pub(crate) fn on_reported(&mut self, now: Instant) {
        self.reported_until = Some(now + REPORTED_FOR);
    }

    /// Whether the report is to end. True once per report.
    pub(crate) fn is_reported_long_enough(&mut self, now: Instant) -> bool {
        let over = self.reported_until.is_some_and(|until| until <= now);
        if over {
            self.reported_until = None;
        }
        over
    }
}

impl SequenceRegression {
    /// The problem to report until `resume_sequence()` has run.
    pub(crate) fn problem(self) -> Problem {
        let next = "no row is sent until the relay has run resume_sequence(), which it does \
            automatically: see docs/restore.md";
        Problem::new(ProblemClass::SequenceWentBack, format!("{self}; {next}"))
    }
}

impl Display for SequenceRegression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherIncarnation => f.write_str(
                "the database was replaced (restore, failover, TRUNCATE), or its sequence was just \
                 moved forward",
            ),
            Self::Behind { position, seen } => write!(
                f,
                "the sequence is at {position}, but id {seen} was drawn before"
            ),
        }
    }
}

/// The problem to report once `resume_sequence()` has run; the sequence goes on at `position`.
pub(crate) fn resumed_problem(done: Resumed, position: RowId) -> Problem {
    let Resumed {
        elsewhere,
        was_at,
        highest,
        moved,
        ..
    } = done;
    let what = if elsewhere {
        "the database was replaced"
    } else {
        "the sequence of ids was set back"
    };
    Problem::new(
        ProblemClass::SequenceWentBack,
        format!(
            "{what}: the sequence was at {was_at}, ids up to {highest} were known; it continues \
             at {position}, and {moved} waiting rows got new ids: see docs/restore.md"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Uuid = Uuid::from_u128(1);

    fn state(incarnation: Option<Uuid>, position: i64) -> SequenceState {
        SequenceState {
            incarnation,
            position: RowId::new(position),
        }
    }

    #[test]
    fn a_sequence_that_goes_on_is_no_regression() {
        for position in [7, 8, i64::MAX] {
            assert_eq!(
                regression(HERE, RowId::new(7), state(Some(HERE), position)),
                None
            );
        }
    }

    #[test]
    fn a_sequence_behind_what_was_seen_is_a_regression() {
        assert_eq!(
            regression(HERE, RowId::new(7), state(Some(HERE), 6)),
            Some(SequenceRegression::Behind {
                position: RowId::new(6),
                seen: RowId::new(7)
            })
        );
    }

    #[test]
    fn another_incarnation_is_a_regression_wherever_its_sequence_is() {
        for incarnation in [None, Some(Uuid::from_u128(2))] {
            assert_eq!(
                regression(HERE, RowId::new(7), state(incarnation, 900)),
                Some(SequenceRegression::OtherIncarnation)
            );
        }
    }

    #[test]
    fn it_is_reported_for_a_while_and_then_no_more() {
        let (mut memory, now) = (SequenceMemory::default(), Instant::now());
        assert!(!memory.is_reported_long_enough(now), "nothing was reported");
        memory.on_reported(now);
        assert!(!memory.is_reported_long_enough(now + REPORTED_FOR / 2));
        assert!(memory.is_reported_long_enough(now + REPORTED_FOR));
        assert!(!memory.is_reported_long_enough(now + REPORTED_FOR * 2));
    }

    #[test]
    fn the_longest_numbers_leave_room_for_the_next_step() {
        let done = Resumed {
            resumed: true,
            elsewhere: true,
            was_at: RowId::MAX,
            highest: RowId::MAX,
            moved: i64::MAX,
        };
        for problem in [
            resumed_problem(done, RowId::MAX),
            SequenceRegression::OtherIncarnation.problem(),
            SequenceRegression::Behind {
                position: RowId::MAX,
                seen: RowId::MAX,
            }
            .problem(),
        ] {
            assert!(
                problem.message.ends_with("docs/restore.md"),
                "{}",
                problem.message
            );
        }
    }
}
