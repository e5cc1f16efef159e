//! `SchemaReady` and `SecretsResolved`: what the migration and the relays report about schema and
//! secrets. Pure.

use crate::{
    operator::{
        identity::RECONCILE_AT,
        reason::{Reason, is_about_secrets, is_about_the_schema},
        reconcile::{
            plan::{Failure, Migration},
            status::{
                ConditionInputs,
                conditions::{ConditionType, Finding, State, find, repeat},
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
        Migration::Start { attempt }
        | Migration::Running {
            attempt,
            waiting: None,
            ..
        } => running(inputs, *attempt, job),
        Migration::Running {
            waiting: Some(why), ..
        } => not_ready(
            Reason::PodsPending,
            format!(
                "The pod of the migration (Job '{job}') does not start: {why}. Fix the cause: \
                 the pod starts then, or a changed manifest replaces it."
            ),
        ),
        Migration::Refused { why } => not_ready(
            Reason::PodsRefused,
            format!(
                "The cluster does not let Job '{job}' create a pod: {why}. Fix the cause: the \
                 Job retries, or a changed manifest replaces it."
            ),
        ),
        Migration::Failed {
            attempt,
            why,
            again_at,
        } => {
            let again = format!(
                "Attempt {attempt} failed; the next one starts at {again_at}, or when the \
                 annotation {RECONCILE_AT} gets a new value."
            );
            failed(why, job, &again)
        }
    }
}

fn not_ready(reason: Reason, message: impl Into<String>) -> Finding {
    Finding::new(ConditionType::SchemaReady, State::False, reason, message)
}

/// Finds the schema not ready while an attempt runs. If an earlier one failed, the condition keeps
/// the reason of that.
fn running(inputs: &ConditionInputs<'_>, attempt: u32, job: &str) -> Finding {
    if attempt <= 1 {
        let message = format!("The migration is running (Job '{job}').");
        return not_ready(Reason::MigrationRunning, message);
    }
    let previous = repeat(
        &inputs.context.previous.conditions,
        ConditionType::SchemaReady,
        State::False,
    );
    previous.unwrap_or_else(|| {
        let message = format!("Attempt {attempt} of the migration is running (Job '{job}').");
        not_ready(Reason::MigrationRunning, message)
    })
}

fn failed(failure: &Failure, job: &str, again: &str) -> Finding {
    match failure {
        Failure::Reported(problem) => not_ready(
            Reason::Problem(problem.class),
            format!("{} {again}", sentence(&problem.message)),
        ),
        Failure::Unexplained(why) => {
            let look = format!("Run 'kubectl logs job/{job}' to find the cause.");
            not_ready(
                Reason::MigrationFailed,
                format!("The migration failed without a report: {why}. {look} {again}"),
            )
        }
    }
}

/// Finds the schema as it was before, while the relay waits for its upgrade.
fn previous_finding(inputs: &ConditionInputs<'_>) -> Finding {
    let previous = find(
        &inputs.context.previous.conditions,
        ConditionType::SchemaReady,
    )
    .filter(|previous| previous.state != State::Unknown);
    let message = "The relay waits for its upgrade; its schema is not changed before that.";
    match previous {
        Some(previous) => Finding {
            type_: ConditionType::SchemaReady,
            state: previous.state,
            reason: previous.reason.unwrap_or(Reason::UpgradeQueued),
            message: previous.message.to_owned(),
        },
        None => Finding::new(
            ConditionType::SchemaReady,
            State::True,
            Reason::UpgradeQueued,
            message,
        ),
    }
}

/// Finds the schema ready unless a relay reports otherwise. Relays see the schema as it is now; the
/// Job saw it when it ended.
fn ready_unless_relays_object(inputs: &ConditionInputs<'_>) -> Finding {
    if let Some((pod, problem)) =
        problems(inputs).find(|(_, problem)| is_about_the_schema(problem.class))
    {
        let next = inputs.relay.migration.as_ref().map(|target| {
            let job = &target.job;
            format!(" To run the migration again, run 'kubectl delete job {job}'.")
        });
        let message = format!(
            "Pod '{pod}': {}{}",
            sentence(&problem.message),
            next.unwrap_or_default()
        );
        return Finding::new(
            ConditionType::SchemaReady,
            State::False,
            Reason::Problem(problem.class),
            message,
        );
    }
    match &inputs.plan.migration {
        Migration::Succeeded {
            schema_version: Some(level),
            ..
        } => Finding::new(
            ConditionType::SchemaReady,
            State::True,
            Reason::MigrationSucceeded,
            format!("The schema is at level {level}."),
        ),
        Migration::Succeeded { .. } => Finding::new(
            ConditionType::SchemaReady,
            State::True,
            Reason::MigrationSucceeded,
            "The migration succeeded.",
        ),
        _ => {
            let message = "spec.migration.policy is Never: the operator does not change the \
                           schema. Relays check it when they start.";
            Finding::new(
                ConditionType::SchemaReady,
                State::True,
                Reason::MigrationOff,
                message,
            )
        }
    }
}

/// Finds condition `SecretsResolved`. The operator reads no Secret, so the finding depends on
/// reports of the migration and the relays.
pub(super) fn secrets_resolved(inputs: &ConditionInputs<'_>) -> Finding {
    let migration = match &inputs.plan.migration {
        Migration::Failed {
            why: Failure::Reported(problem),
            ..
        } => Some(problem),
        _ => None,
    };
    let of_migration = migration.map(|problem| ("the migration".to_owned(), problem));
    let of_relays = problems(inputs).map(|(pod, problem)| (format!("pod '{pod}'"), problem));
    let mut all = of_migration.into_iter().chain(of_relays);
    if let Some((source, problem)) = all.find(|(_, problem)| is_about_secrets(problem)) {
        let message = format!("Reported by {source}: {}", sentence(&problem.message));
        return secrets(State::False, Reason::Problem(problem.class), message);
    }
    let mut reports = inputs.observed.reports.iter();
    let any_relay = reports.any(|one| one.report.is_some());
    let migrated = matches!(inputs.plan.migration, Migration::Succeeded { .. });
    if any_relay || migration.is_some() || migrated {
        let message = "Every referenced Secret and ConfigMap was read.";
        return secrets(State::True, Reason::SecretsRead, message);
    }
    let previous = &inputs.context.previous.conditions;
    repeat(previous, ConditionType::SecretsResolved, State::False).unwrap_or_else(|| {
        let message = "No migration or relay has reported yet.";
        secrets(State::Unknown, Reason::NotChecked, message)
    })
}

fn secrets(state: State, reason: Reason, message: impl Into<String>) -> Finding {
    Finding::new(ConditionType::SecretsResolved, state, reason, message)
}

/// Returns the problems of all relays with their pods, the most urgent of each first.
pub(super) fn problems<'a>(
    inputs: &ConditionInputs<'a>,
) -> impl Iterator<Item = (&'a str, &'a Problem)> {
    let reports = inputs
        .observed
        .reports
        .iter()
        .filter_map(|one| Some((one.pod.as_str(), one.report.as_ref()?)));
    reports.flat_map(|(pod, report)| report.problems.iter().map(move |problem| (pod, problem)))
}

/// Returns a text with a capital letter at its start and a full stop at its end.
pub(super) fn sentence(text: &str) -> String {
    let text = text.trim();
    let mut letters = text.chars();
    let mut sentence: String = letters
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .chain(letters)
        .collect();
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}
