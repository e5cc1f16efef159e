//! Secret files are not what they were: are the new ones taken, or are the last good ones kept?
//! Pure.

use super::{Reading, SecretError, Secrets};
use crate::report::Problem;

/// What to do about a set of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They are what is in use.
    Nothing,
    /// They cannot be used; what is in use stays so.
    Keep(Problem),
    /// They are complete and fit together. Whether a server accepts them is for it to say.
    Take,
}

/// Compares what is in use, if anything is yet, with the files of `now`. `usable` is whether a
/// connection can be made of them.
#[must_use]
pub fn decide(
    in_use: Option<&Reading>,
    now: &Reading,
    usable: impl FnOnce(&Secrets) -> Result<(), Problem>,
) -> Decision {
    if in_use == Some(now) {
        return Decision::Nothing;
    }
    // A file that is not always needed, such as the password beside a client certificate, still
    // does not vanish on purpose.
    let lost = in_use
        .and_then(|in_use| in_use.first_lost_in(now))
        .map(|file| SecretError::Missing {
            file,
            place: now.place(file),
        });
    match usable(&now.clone().into()).and_then(|()| lost.map_or(Ok(()), |lost| Err(lost.problem())))
    {
        Ok(()) => Decision::Take,
        Err(problem) if in_use.is_some() => Decision::Keep(
            Problem::new(
                problem.class,
                format!("{}; the last good one is used", problem.message),
            )
            .with_last_good_used(),
        ),
        Err(problem) => Decision::Keep(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::ProblemClass,
        settings::SecretFile::{self, DatabaseCa, DatabasePassword, DatabaseUsername},
    };

    fn reading(files: &[(SecretFile, Option<&str>)]) -> Reading {
        let file = |(file, content): &(SecretFile, Option<&str>)| {
            (
                *file,
                file.path().to_owned(),
                Ok(content.map(|content| content.as_bytes().to_vec())),
            )
        };
        files.iter().map(file).collect()
    }

    /// User and password, the latter need not be there.
    fn usable(secrets: &Secrets) -> Result<(), Problem> {
        let password = match secrets.get(DatabasePassword) {
            Err(SecretError::Missing { .. }) => Ok(()),
            other => other.map(drop),
        };
        secrets
            .get(DatabaseUsername)
            .and(password)
            .map_err(|error| error.problem())
    }

    fn kept(decision: Decision) -> Problem {
        let Decision::Keep(problem) = decision else {
            panic!("{decision:?}")
        };
        problem
    }

    const GOOD: &[(SecretFile, Option<&str>)] = &[
        (DatabaseUsername, Some("relay")),
        (DatabasePassword, Some("old-secret")),
    ];

    #[test]
    fn the_same_contents_change_nothing() {
        assert_eq!(
            decide(Some(&reading(GOOD)), &reading(GOOD), usable),
            Decision::Nothing
        );
    }

    #[test]
    fn new_contents_that_are_complete_are_taken_and_so_is_the_first_good_set() {
        let new = reading(&[
            (DatabaseUsername, Some("relay")),
            (DatabasePassword, Some("new-secret")),
        ]);
        assert_eq!(decide(Some(&reading(GOOD)), &new, usable), Decision::Take);
        assert_eq!(decide(None, &new, usable), Decision::Take);
    }

    #[test]
    fn a_file_that_vanishes_is_kept_and_named_even_if_a_connection_could_do_without() {
        for (lost, rest) in [(DatabaseUsername, GOOD[1]), (DatabasePassword, GOOD[0])] {
            let problem = kept(decide(
                Some(&reading(GOOD)),
                &reading(&[(lost, None), rest]),
                usable,
            ));
            assert_eq!(problem.class, ProblemClass::SecretMissing);
            assert!(
                problem.message.contains(lost.path()) && problem.last_good_used,
                "{problem:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_used_is_kept_out_and_never_shown() {
        let empty = reading(&[
            (DatabaseUsername, Some("relay")),
            (DatabasePassword, Some("\n")),
        ]);
        let problem = kept(decide(Some(&reading(GOOD)), &empty, usable));
        assert_eq!(problem.class, ProblemClass::SecretInvalid);
        assert!(
            !format!("{problem:?} {empty:?}").contains("secret\""),
            "{problem:?}"
        );
    }

    #[test]
    fn without_a_good_set_yet_nothing_is_said_to_be_kept() {
        let problem = kept(decide(None, &reading(&[(DatabaseUsername, None)]), usable));
        assert!(
            !problem.message.contains("the last good one") && !problem.last_good_used,
            "{problem:?}"
        );
    }

    #[test]
    fn a_file_that_appears_is_a_change() {
        let more = [GOOD, &[(DatabaseCa, Some("authority"))]].concat();
        assert_eq!(
            decide(Some(&reading(GOOD)), &reading(&more), usable),
            Decision::Take
        );
    }
}
