//! Whether ids of the outbox may have come again, by what a fetch brought and what this process
//! remembers; and how to tell of it. Pure.
//!
//! Marks, ticks and ids are good for one course of the sequence. A restore, a failover that lost
//! commits, TRUNCATE .. RESTART IDENTITY or setval() begin another. The session ends then, what it
//! has sent is settled, and `resume_sequence()` runs before the next one: see migration 3.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::{
    outbox::{Resumed, SequenceState},
    report::{Problem, ProblemClass},
};

/// It is told for so long, though it is mended by itself: somebody should know that the database is
/// not what it was.
const REPORTED_FOR: Duration = Duration::from_secs(15 * 60);

/// What a process remembers of the sequence, longer than a session lasts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SequenceMemory {
    /// The highest id seen.
    pub(crate) highest_id: i64,
    reported_until: Option<Instant>,
}

/// Why what a session knows counts no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SequenceRegression {
    /// The outbox lives elsewhere, or another relay has moved the sequence on since.
    OtherIncarnation,
    /// An id was seen that is still to come.
    Behind { position: i64, seen: i64 },
}

/// What breaks the course of a session that began in this incarnation and has seen ids up to
/// `seen`; `None`: nothing.
#[must_use]
pub(crate) fn regression(
    incarnation: Uuid,
    seen: i64,
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
    pub(crate) fn on_id(&mut self, id: i64) {
        self.highest_id = self.highest_id.max(id);
    }

    /// It was told.
    pub(crate) fn on_reported(&mut self, now: Instant) {
        self.reported_until = Some(now + REPORTED_FOR);
    }

    /// True once, when it has been told for long enough.
    pub(crate) fn is_reported_long_enough(&mut self, now: Instant) -> bool {
        let over = self.reported_until.is_some_and(|until| until <= now);
        if over {
            self.reported_until = None;
        }
        over
    }
}

impl SequenceRegression {
    /// As it goes into a report, until it is mended.
    pub(crate) fn problem(self) -> Problem {
        let what = match self {
            Self::OtherIncarnation => {
                "this is not the database that it was (restore, failover, TRUNCATE), or its \
                 sequence was just moved on"
                    .to_owned()
            }
            Self::Behind { position, seen } => format!(
                "the sequence stands at {position}, but id \
                {seen} was there already"
            ),
        };
        let next = "nothing is sent until resume_sequence() has run, which relays do by \
            themselves: docs/restore.md";
        Problem::new(ProblemClass::SequenceWentBack, format!("{what}; {next}"))
    }
}

/// As it goes into a report, once it is mended.
pub(crate) fn resumed_problem(done: Resumed, position: i64) -> Problem {
    let Resumed {
        elsewhere,
        was_at,
        highest,
        moved,
        ..
    } = done;
    let what = if elsewhere {
        "the database is not the one that it was"
    } else {
        "the sequence of ids went back"
    };
    let message = format!(
        "{what}: it stood at {was_at}, ids were known up to {highest}; it goes on at {position}, \
         and {moved} waiting rows got new ids: docs/restore.md"
    );
    Problem::new(ProblemClass::SequenceWentBack, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Uuid = Uuid::from_u128(1);

    fn state(incarnation: Option<Uuid>, position: i64) -> SequenceState {
        SequenceState {
            incarnation,
            position,
        }
    }

    #[test]
    fn a_sequence_that_goes_on_breaks_nothing() {
        for position in [7, 8, i64::MAX] {
            assert_eq!(regression(HERE, 7, state(Some(HERE), position)), None);
        }
    }

    #[test]
    fn a_sequence_behind_what_was_seen_breaks_the_course() {
        assert_eq!(
            regression(HERE, 7, state(Some(HERE), 6)),
            Some(SequenceRegression::Behind {
                position: 6,
                seen: 7
            })
        );
    }

    #[test]
    fn another_place_breaks_the_course_wherever_its_sequence_stands() {
        for incarnation in [None, Some(Uuid::from_u128(2))] {
            assert_eq!(
                regression(HERE, 7, state(incarnation, 900)),
                Some(SequenceRegression::OtherIncarnation)
            );
        }
    }

    #[test]
    fn it_is_told_for_a_while_and_then_no_more() {
        let (mut memory, now) = (SequenceMemory::default(), Instant::now());
        assert!(!memory.is_reported_long_enough(now), "nothing was told");
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
            was_at: i64::MAX,
            highest: i64::MAX,
            moved: i64::MAX,
        };
        for problem in [
            resumed_problem(done, i64::MAX),
            SequenceRegression::OtherIncarnation.problem(),
            SequenceRegression::Behind {
                position: i64::MAX,
                seen: i64::MAX,
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
