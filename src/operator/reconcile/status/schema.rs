//! `SchemaReady` and `SecretsResolved`: what the migration and the relays report about schema and
//! secrets. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    operator::{
        identity::RECONCILE_AT,
        reason::{Reason, is_about_secrets, is_about_the_schema},
        reconcile::{
            plan::{Failure, Migration},
            status::{
                ConditionInputs,
                conditions::{ConditionType, Finding, Previous, State},
            },
        },
    },
    report::Problem,
};

/// Finds condition `SchemaReady`.
pub(super) fn schema_ready(inputs: &ConditionInputs<'_>) -> Finding {
    let target = inputs.relay.migration.as_ref();
    let job = target.map_or("", |target| &target.job);
    match &inputs.plan.migration {
        Migration::Off | Migration::Succeeded { .. } => ready_unless_relays_object(inputs),
        Migration::Queued => previous_finding(inputs),
        Migration::Start { .. } if inputs.context.paused => not_ready(
            Reason::Paused,
            "A migration is due. It starts when the OutboxRelay is no longer paused.",
        ),
        Migration::Start { attempt } => running(inputs, *attempt, job),
        Migration::Running {
            attempt, waiting, ..
        } => match waiting {
            None => running(inputs, *attempt, job),
            Some(cause) => pod_pending(job, cause),
        },
        Migration::Refused { cause } => pod_refused(job, cause),
        Migration::Failed {
            attempt,
            cause,
            again_at,
            every,
        } => failed(cause, job, &next_attempt(*attempt, *again_at, *every)),
        Migration::Lost { problem, again_at } => lost(problem, *again_at),
    }
}

fn lost(problem: &Problem, again_at: Timestamp) -> Finding {
    let message = format!(
        "{} The migration runs again at {again_at}, or when the annotation {RECONCILE_AT} gets a \
         new value.",
        sentence(&problem.message)
    );
    not_ready(Reason::Problem(problem.class), message)
}

fn pod_pending(job: &str, cause: &str) -> Finding {
    let message = format!(
        "The pod of the migration (Job '{job}') does not start: {cause}. Fix the cause: the pod \
         starts then, or a changed manifest replaces it."
    );
    not_ready(Reason::PodsPending, message)
}

fn pod_refused(job: &str, cause: &str) -> Finding {
    let message = format!(
        "The cluster does not let Job '{job}' create a pod: {cause}. Fix the cause: the Job \
         retries, or a changed manifest replaces it."
    );
    not_ready(Reason::PodsRefused, message)
}

fn next_attempt(failed_attempt: u32, again_at: Timestamp, every: Option<SignedDuration>) -> String {
    // Neither number nor time of the attempt: the message stays the same while the cause does.
    if let Some(every) = every {
        return format!(
            "The migration is tried again every {} s, or when the annotation {RECONCILE_AT} gets \
             a new value.",
            every.as_secs()
        );
    }
    format!(
        "Attempt {failed_attempt} failed; the next one starts at {again_at}, or when the \
         annotation {RECONCILE_AT} gets a new value."
    )
}

fn ready(reason: Reason, message: impl Into<String>) -> Finding {
    Finding::new(ConditionType::SchemaReady, State::True, reason, message)
}

fn not_ready(reason: Reason, message: impl Into<String>) -> Finding {
    Finding::new(ConditionType::SchemaReady, State::False, reason, message)
}

/// Finds the schema not ready while an attempt runs. If an earlier one failed, the condition keeps
/// the reason of that.
fn running(inputs: &ConditionInputs<'_>, attempt: u32, job: &str) -> Finding {
    if attempt <= 1 {
        return under_way(format!("The migration is running (Job '{job}')."));
    }
    retrying(inputs, attempt, job)
}

fn retrying(inputs: &ConditionInputs<'_>, attempt: u32, job: &str) -> Finding {
    let previous = inputs.repeat(ConditionType::SchemaReady, State::False);
    previous.unwrap_or_else(|| {
        under_way(format!(
            "Attempt {attempt} of the migration is running (Job '{job}')."
        ))
    })
}

fn under_way(message: String) -> Finding {
    not_ready(Reason::MigrationRunning, message)
}

fn failed(failure: &Failure, job: &str, again: &str) -> Finding {
    match failure {
        Failure::Reported(problem) => not_ready(
            Reason::Problem(problem.class),
            format!("{} {again}", sentence(&problem.message)),
        ),
        Failure::Unexplained(cause) => {
            let advice = format!("Run 'kubectl logs job/{job}' to find the cause.");
            not_ready(
                Reason::MigrationFailed,
                format!("The migration failed without a report: {cause}. {advice} {again}"),
            )
        }
    }
}

/// Finds the schema as it was before, while the relay waits for its upgrade.
fn previous_finding(inputs: &ConditionInputs<'_>) -> Finding {
    match inputs.previous(ConditionType::SchemaReady) {
        Some(previous) if previous.state != State::Unknown => unchanged(&previous),
        _ => before_upgrade(),
    }
}

fn before_upgrade() -> Finding {
    let message = "The relay waits for its upgrade; its schema is not changed before that.";
    ready(Reason::UpgradeQueued, message)
}

fn unchanged(previous: &Previous<'_>) -> Finding {
    Finding {
        type_: ConditionType::SchemaReady,
        state: previous.state,
        reason: previous.reason.unwrap_or(Reason::UpgradeQueued),
        message: previous.message.to_owned(),
    }
}

/// Finds the schema ready unless a relay reports otherwise. Relays see the schema as it is now; the
/// Job saw it when it ended.
fn ready_unless_relays_object(inputs: &ConditionInputs<'_>) -> Finding {
    reported_by_relay(inputs).unwrap_or_else(|| migrated(&inputs.plan.migration))
}

fn reported_by_relay(inputs: &ConditionInputs<'_>) -> Option<Finding> {
    let (pod, problem) =
        problems(inputs).find(|(_, problem)| is_about_the_schema(problem.class))?;
    let next = match &inputs.relay.migration {
        Some(target) => format!(
            " To run the migration again, run 'kubectl delete job {}'.",
            target.job
        ),
        None => String::new(),
    };
    let message = format!("Pod '{pod}': {}{next}", sentence(&problem.message));
    Some(not_ready(Reason::Problem(problem.class), message))
}

/// Finds the schema ready because its migration is done.
fn migrated(migration: &Migration) -> Finding {
    match migration {
        Migration::Succeeded { schema_version, .. } => succeeded(*schema_version),
        _ => {
            let message = "spec.migration.policy is Never: the operator does not change the \
                           schema. Relays check it when they start.";
            ready(Reason::MigrationOff, message)
        }
    }
}

fn succeeded(level: Option<i64>) -> Finding {
    let message = match level {
        Some(level) => format!("The schema is at level {level}."),
        None => "The migration succeeded.".to_owned(),
    };
    ready(Reason::MigrationSucceeded, message)
}

/// Finds condition `SecretsResolved`. The operator reads no Secret, so the finding depends on
/// reports of the migration and the relays.
pub(super) fn secrets_resolved(inputs: &ConditionInputs<'_>) -> Finding {
    if let Some((source, problem)) = problem_with_secrets(inputs) {
        return unresolved(&source, problem);
    }
    if secrets_were_read(inputs) {
        return resolved();
    }
    not_checked(inputs)
}

fn unresolved(source: &str, problem: &Problem) -> Finding {
    let message = format!("Reported by {source}: {}", sentence(&problem.message));
    secrets(State::False, Reason::Problem(problem.class), message)
}

fn resolved() -> Finding {
    let message = "Every referenced Secret and ConfigMap was read.";
    secrets(State::True, Reason::SecretsRead, message)
}

/// Finds what is known before any report: a problem stays until a report shows its end, and what
/// the last attempt of a migration found stays while the next one runs.
fn not_checked(inputs: &ConditionInputs<'_>) -> Finding {
    let repeat = |state| inputs.repeat(ConditionType::SecretsResolved, state);
    let was_read = || repeat(State::True).filter(|_| inputs.plan.migration.is_retry());
    repeat(State::False).or_else(was_read).unwrap_or_else(|| {
        let message = "No migration or relay has reported yet.";
        secrets(State::Unknown, Reason::NotChecked, message)
    })
}

/// Returns the first problem with a secret, and who reported it: the migration before the relays.
fn problem_with_secrets<'a>(inputs: &ConditionInputs<'a>) -> Option<(String, &'a Problem)> {
    let of_migration = migration_problem(&inputs.plan.migration)
        .map(|problem| ("the migration".to_owned(), problem));
    let of_relays = problems(inputs).map(|(pod, problem)| (format!("pod '{pod}'"), problem));
    let mut all = of_migration.into_iter().chain(of_relays);
    all.find(|(_, problem)| is_about_secrets(problem))
}

/// Returns whether a program that needs the secrets has come far enough to report, without a
/// problem with them.
fn secrets_were_read(inputs: &ConditionInputs<'_>) -> bool {
    let migration = &inputs.plan.migration;
    matches!(migration, Migration::Succeeded { .. })
        || migration_problem(migration).is_some()
        || inputs.observed.has_reports()
}

fn migration_problem(migration: &Migration) -> Option<&Problem> {
    match migration {
        Migration::Failed {
            cause: Failure::Reported(problem),
            ..
        } => Some(problem),
        _ => None,
    }
}

fn secrets(state: State, reason: Reason, message: impl Into<String>) -> Finding {
    Finding::new(ConditionType::SecretsResolved, state, reason, message)
}

/// Returns the problems of all relays with their pods, the most urgent of each first.
pub(super) fn problems<'a>(
    inputs: &ConditionInputs<'a>,
) -> impl Iterator<Item = (&'a str, &'a Problem)> {
    inputs.observed.problems()
}

/// Returns a text with a capital letter at its start and a full stop at its end.
pub(super) fn sentence(text: &str) -> String {
    let mut sentence = capitalized(text.trim());
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).collect()
}
