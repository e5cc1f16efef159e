//! `adopt --dry-run|--drain`. Querying the database is IO, making the output is pure.

use std::io::Write;

use serde::Serialize;

use crate::{
    cli::{
        CliError, Exit,
        args::{AdoptArgs, CommonArgs, ConfirmArgs, Output},
        confirm::{Answer, confirm},
        load, note,
        text::{count, line, thousands},
        write,
    },
    outbox::{
        adopt::{DryRun, FaultCount, TopicCount},
        migrate,
    },
    report::{Problem, ProblemClass},
    secrets::Secrets,
    settings::{AdoptSettings, RelaySettings},
};

/// Output of `adopt --drain`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Drained {
    table: String,
    /// Number of rows that were moved.
    moved: u64,
}

/// Runs `adopt`.
///
/// # Errors
/// Returns an error when the settings cannot be read, the database fails, a table cannot be
/// adopted, or the output cannot be written.
///
/// # Cancel safety
/// If dropped midway, earlier batches of `--drain` stay moved, and the current one may be.
pub(super) async fn adopt(arguments: AdoptArgs, out: &mut impl Write) -> Result<Exit, CliError> {
    let CommonArgs { config, output } = arguments.common;
    let (mut settings, secrets) = load(config)?;
    if let Some(table) = &arguments.table {
        keep_only(&mut settings, table)?;
    }
    if settings.migration.adopt.is_empty() {
        note("the manifest has no spec.migration.adopt");
        return Ok(Exit::NothingMatched);
    }
    if arguments.dry_run {
        let results = migrate::dry_run(&settings, &secrets).await?;
        write(out, output, &results, |results| in_words(results))?;
        return Ok(Exit::Done);
    }
    let confirm = ConfirmArgs {
        dry_run: false,
        yes: arguments.yes,
    };
    drain(&settings, &secrets, &confirm, output, out).await
}

/// Removes all tables but one from the settings.
fn keep_only(settings: &mut RelaySettings, table: &str) -> Result<(), CliError> {
    let adopt = &mut settings.migration.adopt;
    adopt.retain(|entry| entry.to_string() == table);
    if adopt.is_empty() {
        let message = format!("spec.migration.adopt has no table '{table}'");
        return Err(Problem::new(ProblemClass::InvalidSettings, message).into());
    }
    Ok(())
}

async fn drain(
    settings: &RelaySettings,
    secrets: &Secrets,
    confirm_args: &ConfirmArgs,
    output: Output,
    out: &mut impl Write,
) -> Result<Exit, CliError> {
    let [table] = settings.migration.adopt.as_slice() else {
        return Ok(Exit::NothingMatched);
    };
    if confirm(confirm_args, &question(table))? == Answer::No {
        return Ok(Exit::Refused);
    }
    let mut moved = 0;
    migrate::drain(settings, secrets, table, |rows| {
        moved += rows.unsigned_abs();
        note(&format!("{} moved", count(moved, "row")));
    })
    .await?;
    let drained = Drained {
        table: table.to_string(),
        moved,
    };
    write(out, output, &drained, |drained| {
        format!(
            "moved {} of {}\n",
            count(drained.moved, "row"),
            line(&drained.table)
        )
    })?;
    Ok(Exit::Done)
}

fn question(table: &AdoptSettings) -> String {
    format!(
        "Move all waiting rows of {table} into the outbox? Its old worker must be stopped, or rows \
         are published twice."
    )
}

fn in_words(results: &[DryRun]) -> String {
    results.iter().map(table_in_words).collect()
}

fn table_in_words(result: &DryRun) -> String {
    let table = line(&result.table);
    let mut text = match (result.is_adopted, result.is_small) {
        (true, _) => format!("{table}: is adopted\n"),
        (false, true) => format!("{table}: {} would be moved\n", waiting(result)),
        (false, false) => format!(
            "{table}: {} are too many for the migration: stop the old worker and run `outbox-relay \
             adopt --drain`\n",
            waiting(result)
        ),
    };
    if result.exhausted > 0 {
        let rows = count(result.exhausted.unsigned_abs(), "row");
        text.push_str(&format!(
            "  {rows} the old worker has given up: see migration.adopt.exhausted\n"
        ));
    }
    text.extend(result.topics.iter().map(topic_in_words));
    text.extend(result.faults.iter().map(fault_in_words));
    for index in &result.partial_unique_indexes {
        text.push_str(&format!(
            "  unique index {}: if its condition is that a row waits, it guards nothing after the \
             adoption\n",
            line(index)
        ));
    }
    text
}

fn waiting(result: &DryRun) -> String {
    count(result.waiting.unsigned_abs(), "waiting row")
}

fn topic_in_words(of: &TopicCount) -> String {
    let topic = of
        .topic
        .as_deref()
        .map_or("(routed by types)".to_owned(), line);
    let rows = thousands(of.rows.unsigned_abs());
    let declared = if of.is_declared {
        ""
    } else {
        ": spec.topics does not declare it, these rows would wait"
    };
    format!("  {rows} to {topic}{declared}\n")
}

fn fault_in_words(of: &FaultCount) -> String {
    let rows = thousands(of.rows.unsigned_abs());
    format!("  {rows} cannot be converted: {}\n", line(&of.fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_names_what_moves_and_what_cannot() {
        let result = DryRun {
            table: "public.event_outbox".to_owned(),
            is_adopted: false,
            waiting: 1_203,
            exhausted: 2,
            is_small: true,
            topics: vec![
                TopicCount {
                    topic: Some("files".to_owned()),
                    rows: 1_200,
                    is_declared: true,
                },
                TopicCount {
                    topic: Some("other".to_owned()),
                    rows: 2,
                    is_declared: false,
                },
            ],
            faults: vec![FaultCount {
                fault: "payload is null".to_owned(),
                rows: 1,
            }],
            partial_unique_indexes: Vec::new(),
        };
        assert_eq!(
            table_in_words(&result),
            "public.event_outbox: 1,203 waiting rows would be moved\n  \
             2 rows the old worker has given up: see migration.adopt.exhausted\n  \
             1,200 to files\n  \
             2 to other: spec.topics does not declare it, these rows would wait\n  \
             1 cannot be converted: payload is null\n"
        );
    }
}
