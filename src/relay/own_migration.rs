//! A relay that migrates the schema itself, because no operator does it: when the process starts,
//! and whenever the schema is missing or too old. IO.

use std::time::Duration;

use crate::{
    outbox::migrate::{self, LOCK_WAIT},
    relay::RunOptions,
    report::{Problem, ProblemClass},
};

/// Pause after the first failed migration. It doubles with each further one.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(2);
/// Longest pause after a failed migration.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(15);

/// Who migrates the schema of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigratedBy {
    /// The operator or a person: the relay waits until the schema is ready.
    Others,
    /// The relay's own process.
    Relay,
}

/// Whether this process has to migrate before it uses the schema.
pub(super) struct OwnMigration {
    by: MigratedBy,
    is_due: bool,
    retry_pause: Duration,
}

impl OwnMigration {
    /// A migration that is due immediately if the relay migrates itself.
    pub(super) fn new(by: MigratedBy) -> Self {
        Self {
            by,
            is_due: by == MigratedBy::Relay,
            retry_pause: RETRY_PAUSE_MIN,
        }
    }

    /// Migrates if it is due.
    ///
    /// # Errors
    /// The problem that the migration ended with.
    ///
    /// # Cancel safety
    /// If dropped midway, the server rolls the transaction back, unless it was just being
    /// committed. The migration stays due.
    pub(super) async fn run_if_due(&mut self, options: &RunOptions) -> Result<(), Problem> {
        if !self.is_due {
            return Ok(());
        }
        let report = migrate::migrate(&options.settings, &options.secrets, LOCK_WAIT).await;
        if let Some(problem) = report.problem {
            return Err(problem);
        }
        tracing::info!("{}", one_line(&migrate::in_words(&report)));
        self.on_migrated();
        Ok(())
    }

    fn on_migrated(&mut self) {
        self.is_due = false;
        self.retry_pause = RETRY_PAUSE_MIN;
    }

    /// Takes the problem that an attempt to use the schema ended with: a migration becomes due if
    /// it would help. Returns the pause before the next attempt, which is `pause` unless a
    /// migration failed.
    pub(super) fn on_problem(&mut self, problem: &Problem, pause: Duration) -> Duration {
        if self.is_due {
            let after = self.retry_pause;
            self.retry_pause = (after * 2).min(RETRY_PAUSE_MAX);
            tracing::debug!(class = %problem.class, retry_in = ?after, "the migration failed");
            return after;
        }
        self.is_due = self.by == MigratedBy::Relay && problem.class == ProblemClass::SchemaNotReady;
        pause
    }
}

fn one_line(text: &str) -> String {
    text.trim_end().replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(7);

    fn problem(class: ProblemClass) -> Problem {
        Problem::new(class, "why".to_owned())
    }

    #[test]
    fn a_missing_schema_makes_a_migration_due_only_where_the_relay_migrates() {
        for (by, class, due) in [
            (MigratedBy::Relay, ProblemClass::SchemaNotReady, true),
            (MigratedBy::Relay, ProblemClass::Unreachable, false),
            (MigratedBy::Others, ProblemClass::SchemaNotReady, false),
        ] {
            let mut migration = OwnMigration::new(by);
            migration.on_migrated();
            assert_eq!(migration.on_problem(&problem(class), PAUSE), PAUSE);
            assert_eq!(migration.is_due, due, "{by:?} {class}");
        }
    }

    #[test]
    fn pauses_double_while_migrations_fail_and_begin_again_after_one_succeeded() {
        let mut migration = OwnMigration::new(MigratedBy::Relay);
        let refused = problem(ProblemClass::InsufficientPrivilege);
        let pauses: Vec<u64> = (0..5)
            .map(|_| migration.on_problem(&refused, PAUSE).as_secs())
            .collect();
        assert_eq!(pauses, [2, 4, 8, 15, 15]);
        migration.on_migrated();
        assert_eq!(migration.on_problem(&refused, PAUSE), PAUSE);
    }
}
