//! Changes to many dead letters, parked topics or parked keys: find them, show or confirm, change
//! them in batches, report. IO; the texts are made by pure functions.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::{
    cli::{
        CliError, Exit,
        args::{ChangeArgs, CommonArgs, Selector},
        change_log::{ChangeLog, LoggedRows},
        confirm::{Answer, confirm},
        note, open,
        text::thousands,
        write,
    },
    outbox::admin::{AdminClient, AdminError},
};

/// Number of items that a dry run lists.
pub(super) const PREVIEW_MAX: usize = 20;

/// Number of items between two lines of progress. It is also the size of a transaction where items
/// share one: small enough that an interrupted command loses little and holds locks only briefly.
const BATCH: usize = 500;

/// A change that a command makes to the items that its selector finds.
pub(super) trait Change {
    /// Dead letter, parked topic or parked key.
    type Item;

    /// Message when the selector finds nothing.
    const NOTHING_MATCHES: &'static str;

    /// Words for the messages of the change.
    fn verb(&self) -> Verb;

    /// Question to confirm the change of `matched` items.
    fn question(&self, matched: u64) -> String;

    /// Finds the items, at most `limit`.
    async fn find(
        &self,
        client: &AdminClient,
        selector: &Selector,
        limit: Option<u64>,
    ) -> Result<Vec<Self::Item>, AdminError>;

    /// Lists the first [`PREVIEW_MAX`] items as text.
    async fn preview(
        &self,
        client: &AdminClient,
        selector: &Selector,
        items: &[Self::Item],
    ) -> Result<String, AdminError>;

    /// Changes a batch of items. Returns how many of them were changed.
    async fn apply(&self, client: &AdminClient, batch: &[Self::Item]) -> Result<u64, AdminError>;

    /// The rows of these items, for the log.
    fn rows(items: &[Self::Item]) -> LoggedRows;
}

/// Runs a command that changes what its selector finds.
///
/// # Errors
/// Returns an error when the database fails, or the result cannot be written. Earlier batches are
/// changed then.
///
/// # Cancel safety
/// If dropped midway, earlier batches are changed, and the current one may be.
pub(super) async fn run<C: Change>(
    change: C,
    arguments: ChangeArgs,
    out: &mut impl Write,
) -> Result<Exit, CliError> {
    let ChangeArgs {
        common: CommonArgs { config, output },
        selector,
        limit,
        confirm: confirm_args,
        ..
    } = arguments;
    let verb = change.verb();
    let client = open(config, confirm_args.role()).await?;
    // Only these items are changed. Items that appear from now on are left alone, such as a dead
    // letter that was requeued and rejected again.
    let items = change.find(&client, &selector, limit).await?;
    let mut changed = Changed::new(&verb, items.len());
    if items.is_empty() {
        write(out, output, &changed, |_| String::new())?;
        note(C::NOTHING_MATCHES);
        return Ok(Exit::NothingMatched);
    }
    if confirm_args.dry_run {
        let preview = change.preview(&client, &selector, &items).await?;
        changed.dry_run = true;
        write(out, output, &changed, |changed| {
            format!("{preview}{}", changed.describe_preview(&verb))
        })?;
        return Ok(Exit::Done);
    }
    if confirm(&confirm_args, &change.question(changed.matched))? == Answer::No {
        return Ok(Exit::Refused);
    }
    apply_in_batches(&change, &client, &items, &mut changed).await?;
    write(out, output, &changed, |changed| changed.describe(&verb))?;
    Ok(Exit::Done)
}

/// Changes the items batch by batch. `changed.done` counts what is done, even if a batch fails.
async fn apply_in_batches<C: Change>(
    change: &C,
    client: &AdminClient,
    items: &[C::Item],
    changed: &mut Changed,
) -> Result<(), AdminError> {
    let mut log = ChangeLog::new(client);
    for batch in items.chunks(BATCH) {
        let rows = log.read(C::rows(batch)).await;
        let done = change.apply(client, batch).await?;
        changed.done += done;
        show_progress(&change.verb(), changed.done, changed.matched);
        log.write(change.verb().past, rows, done).await;
    }
    log.end(change.verb().past);
    Ok(())
}

/// A verb in the forms that messages need.
pub(super) struct Verb {
    pub(super) infinitive: &'static str,
    pub(super) past: &'static str,
    /// Object of the verb, singular.
    pub(super) noun: &'static str,
    /// Object of the verb, plural.
    pub(super) nouns: &'static str,
}

impl Verb {
    /// Number and noun: `1 row`, `1,234 rows`.
    pub(super) fn count(&self, number: u64) -> String {
        let noun = if number == 1 { self.noun } else { self.nouns };
        format!("{} {noun}", thousands(number))
    }
}

/// Result of a change.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Changed {
    pub(super) action: &'static str,
    pub(super) dry_run: bool,
    /// Number of items that the selector found.
    pub(super) matched: u64,
    /// Number of items that were changed. The others no longer existed or had changed.
    pub(super) done: u64,
}

impl Changed {
    /// Result before anything was changed.
    pub(super) fn new(verb: &Verb, matched: usize) -> Self {
        Self {
            action: verb.infinitive,
            dry_run: false,
            matched: u64::try_from(matched).unwrap_or(u64::MAX),
            done: 0,
        }
    }

    /// Text below a preview, which does not list all items.
    fn describe_preview(&self, verb: &Verb) -> String {
        let more = match self.beyond_preview() {
            0 => String::new(),
            more => format!("... and {more} more\n"),
        };
        format!("{more}{}", self.describe(verb))
    }

    /// Number of items that the preview does not list.
    fn beyond_preview(&self) -> u64 {
        self.matched.saturating_sub(PREVIEW_MAX as u64)
    }

    fn describe(&self, verb: &Verb) -> String {
        if self.dry_run {
            format!("would {} {}\n", verb.infinitive, verb.count(self.matched))
        } else {
            self.describe_done(verb)
        }
    }

    fn describe_done(&self, verb: &Verb) -> String {
        let gone = self.describe_gone();
        format!("{} {}{gone}\n", verb.past, verb.count(self.done))
    }

    /// Text about the items that were not changed; empty if all were.
    fn describe_gone(&self) -> String {
        match self.matched - self.done {
            0 => String::new(),
            gone => format!("; {} no longer existed or had changed", thousands(gone)),
        }
    }
}

/// Shows the progress of a long change on stderr: on a terminal in one line that is rewritten, else
/// in one line for each batch.
fn show_progress(verb: &Verb, done: u64, matched: u64) {
    let mut stderr = io::stderr();
    let text = format!(
        "{} {} of {}",
        verb.past,
        thousands(done),
        verb.count(matched)
    );
    let written = match (stderr.is_terminal(), done >= matched) {
        (true, false) => write!(stderr, "\r{text}").and_then(|()| stderr.flush()),
        (true, true) => writeln!(stderr, "\r{text}"),
        (false, _) => writeln!(stderr, "{text}"),
    };
    // A closed stderr must not stop the change.
    drop(written);
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERB: Verb = Verb {
        infinitive: "requeue",
        past: "requeued",
        noun: "dead letter",
        nouns: "dead letters",
    };

    #[test]
    fn a_result_says_what_was_done_and_what_had_gone() {
        let describe = |dry_run, matched, done| {
            Changed {
                action: "requeue",
                dry_run,
                matched,
                done,
            }
            .describe(&VERB)
        };
        assert_eq!(describe(true, 1, 0), "would requeue 1 dead letter\n");
        assert_eq!(describe(false, 1234, 1234), "requeued 1,234 dead letters\n");
        assert_eq!(
            describe(false, 3, 1),
            "requeued 1 dead letter; 2 no longer existed or had changed\n"
        );
    }
}
