//! Old and new secret files -> whether the new ones may be used, or the last good ones stay in use.
//! Pure.

use crate::{
    report::Problem,
    secrets::{SecretError, SecretSnapshot, Secrets},
};

/// Result of comparing a set of secret files with the ones in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretChange {
    /// The files are the ones in use.
    Unchanged,
    /// The files cannot be used. The ones in use, if any, stay in use.
    Unusable(Problem),
    /// The files are complete and match each other. Only a server can decide whether it accepts
    /// them.
    Usable,
}

/// Compares the `current` files with the ones in use, if there are any yet. `usable` checks whether
/// a client can be created with the current ones.
#[must_use]
pub fn decide(
    in_use: Option<&SecretSnapshot>,
    current: &SecretSnapshot,
    usable: impl FnOnce(&Secrets) -> Result<(), Problem>,
) -> SecretChange {
    if in_use == Some(current) {
        return SecretChange::Unchanged;
    }
    let problem = usable(&current.clone().into()).err();
    let problem = problem.or_else(|| missing(in_use?, current));
    match problem {
        None => SecretChange::Usable,
        Some(problem) if in_use.is_none() => SecretChange::Unusable(problem),
        Some(problem) => SecretChange::Unusable(with_last_good(&problem)),
    }
}

fn with_last_good(problem: &Problem) -> Problem {
    let message = format!("{}; the last good one stays in use", problem.message);
    Problem::new(problem.class, message).with_last_good_used()
}

/// Problem of a file that is in use and no longer exists. A file may be optional, such as the
/// password beside a client certificate, but nobody removes it on purpose while it is in use.
fn missing(in_use: &SecretSnapshot, current: &SecretSnapshot) -> Option<Problem> {
    let file = in_use.first_missing_in(current)?;
    let error = SecretError::Missing {
        file,
        location: current.location(file),
    };
    Some(error.problem())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::ProblemClass,
        settings::SecretFile::{self, DatabaseCa, DatabasePassword, DatabaseUsername},
    };

    fn snapshot(files: &[(SecretFile, Option<&str>)]) -> SecretSnapshot {
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

    fn kept(decision: SecretChange) -> Problem {
        let SecretChange::Unusable(problem) = decision else {
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
            decide(Some(&snapshot(GOOD)), &snapshot(GOOD), usable),
            SecretChange::Unchanged
        );
    }

    #[test]
    fn new_contents_that_are_complete_are_taken_and_so_is_the_first_good_set() {
        let new = snapshot(&[
            (DatabaseUsername, Some("relay")),
            (DatabasePassword, Some("new-secret")),
        ]);
        assert_eq!(
            decide(Some(&snapshot(GOOD)), &new, usable),
            SecretChange::Usable
        );
        assert_eq!(decide(None, &new, usable), SecretChange::Usable);
    }

    #[test]
    fn a_file_that_vanishes_is_kept_and_named_even_if_a_connection_could_do_without() {
        for (lost, rest) in [(DatabaseUsername, GOOD[1]), (DatabasePassword, GOOD[0])] {
            let problem = kept(decide(
                Some(&snapshot(GOOD)),
                &snapshot(&[(lost, None), rest]),
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
        let empty = snapshot(&[
            (DatabaseUsername, Some("relay")),
            (DatabasePassword, Some("\n")),
        ]);
        let problem = kept(decide(Some(&snapshot(GOOD)), &empty, usable));
        assert_eq!(problem.class, ProblemClass::SecretInvalid);
        assert!(
            !format!("{problem:?} {empty:?}").contains("secret\""),
            "{problem:?}"
        );
    }

    #[test]
    fn without_a_good_set_yet_nothing_is_said_to_be_kept() {
        let problem = kept(decide(None, &snapshot(&[(DatabaseUsername, None)]), usable));
        assert!(
            !problem.message.contains("the last good one") && !problem.last_good_used,
            "{problem:?}"
        );
    }

    #[test]
    fn a_file_that_appears_is_a_change() {
        let more = [GOOD, &[(DatabaseCa, Some("authority"))]].concat();
        assert_eq!(
            decide(Some(&snapshot(GOOD)), &snapshot(&more), usable),
            SecretChange::Usable
        );
    }
}
