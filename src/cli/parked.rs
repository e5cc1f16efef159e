//! `parked list|add|retry|skip`. Querying the database is IO, making the output is pure.

use std::io::Write;

use crate::{
    cli::{
        CliError, Exit,
        args::{AddArgs, CommonArgs, ListArgs, ParkedCommand, Selector},
        change::{self, Change, Changed, PREVIEW_MAX, Verb},
        change_log::LoggedRows,
        confirm::{Answer, confirm},
        load, note, open,
        text::{cell, table},
        truncate, write,
    },
    outbox::admin::{AdminClient, AdminError, LabelSource, ParkedEntry, Role},
    report::{Problem, ProblemClass},
    settings::{RelaySettings, TopicSettings},
};

const ADD: Verb = Verb {
    infinitive: "park",
    past: "parked",
    noun: "topic or key",
    nouns: "topics or keys",
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Retry,
    Skip,
}

impl Change for Action {
    type Item = ParkedEntry;

    const NOTHING_MATCHES: &'static str = "no parked topic or key matches";

    fn verb(&self) -> Verb {
        match self {
            Self::Retry => Verb {
                infinitive: "unpark",
                past: "unparked",
                noun: "topic or key",
                nouns: "topics or keys",
            },
            Self::Skip => Verb {
                infinitive: "skip",
                past: "skipped",
                noun: "rejected row",
                nouns: "rejected rows",
            },
        }
    }

    fn question(&self, matched: u64) -> String {
        let those = self.verb().count(matched);
        match self {
            Self::Retry => format!("Unpark {those}? Their rows are published again."),
            Self::Skip => {
                format!("Move {those} to the dead letters and unpark their keys?")
            }
        }
    }

    async fn find(
        &self,
        client: &AdminClient,
        selector: &Selector,
        limit: Option<u64>,
    ) -> Result<Vec<ParkedEntry>, AdminError> {
        let entries = client.parked(&selector.filter(limit)).await?;
        Ok(match self {
            Self::Retry => entries,
            Self::Skip => with_rejected_row(entries),
        })
    }

    async fn preview(
        &self,
        _: &AdminClient,
        _: &Selector,
        entries: &[ParkedEntry],
    ) -> Result<String, AdminError> {
        Ok(render_list(&entries[..entries.len().min(PREVIEW_MAX)]))
    }

    /// Changes the entries one by one, each in a transaction of its own.
    async fn apply(
        &self,
        client: &AdminClient,
        entries: &[ParkedEntry],
    ) -> Result<u64, AdminError> {
        let mut changed = 0;
        for entry in entries {
            let done = match self {
                Self::Retry => client.unpark(entry).await?,
                Self::Skip => client.skip(entry).await?,
            };
            changed += u64::from(done);
        }
        Ok(changed)
    }

    /// The rejected rows for which the keys are parked.
    fn rows(entries: &[ParkedEntry]) -> LoggedRows {
        let head = |entry: &ParkedEntry| {
            let event_id = entry.event_id.as_ref()?.parse().ok()?;
            Some((event_id, entry.outbox_seq?))
        };
        LoggedRows {
            source: LabelSource::ParkedHeads,
            rows: entries.iter().filter_map(head).collect(),
        }
    }
}

/// Runs a subcommand of `parked`.
///
/// # Errors
/// Returns an error when the settings cannot be read, the database fails, or the output cannot be
/// written.
///
/// # Cancel safety
/// If dropped midway, earlier entries of a change are done, and the current one may be.
pub(super) async fn parked(command: ParkedCommand, out: &mut impl Write) -> Result<Exit, CliError> {
    match command {
        ParkedCommand::List(arguments) => list(arguments, out).await,
        ParkedCommand::Add(arguments) => add(arguments, out).await,
        ParkedCommand::Retry(arguments) => change::run(Action::Retry, arguments, out).await,
        ParkedCommand::Skip(arguments) => change::run(Action::Skip, arguments, out).await,
    }
}

async fn list(arguments: ListArgs, out: &mut impl Write) -> Result<Exit, CliError> {
    let ListArgs {
        common: CommonArgs { config, output },
        selector,
        limit,
    } = arguments;
    let client = open(config, Role::Relay).await?;
    // One more than requested, to find out whether there are more.
    let mut entries = client.parked(&selector.filter(Some(limit + 1))).await?;
    truncate(&mut entries, limit);
    write(out, output, &entries, |entries| render_list(entries))?;
    Ok(Exit::Done)
}

async fn add(arguments: AddArgs, out: &mut impl Write) -> Result<Exit, CliError> {
    let AddArgs {
        common: CommonArgs { config, output },
        topic,
        key,
        confirm: confirm_args,
    } = arguments;
    let (settings, secrets) = load(config)?;
    check_declared(&settings, &topic)?;
    let client = AdminClient::open(&settings, &secrets, confirm_args.role()).await?;
    let what = describe(&topic, key.as_deref());
    if confirm_args.dry_run {
        let changed = Changed {
            dry_run: true,
            ..Changed::new(&ADD, 1)
        };
        write(out, output, &changed, |_| format!("would park {what}\n"))?;
        return Ok(Exit::Done);
    }
    let question = format!("Park {what}? Its rows wait until you run `parked retry`.");
    if confirm(&confirm_args, &question)? == Answer::No {
        return Ok(Exit::Refused);
    }
    let is_new = client.park(&topic, key.as_deref()).await?;
    let changed = Changed {
        done: u64::from(is_new),
        ..Changed::new(&ADD, 1)
    };
    let verb = if is_new { "parked" } else { "already parked:" };
    write(out, output, &changed, |_| format!("{verb} {what}\n"))?;
    Ok(Exit::Done)
}

fn describe(topic: &str, key: Option<&str>) -> String {
    match key {
        None => format!("topic '{}'", cell(topic)),
        Some(key) => format!("key '{}' of topic '{}'", cell(key), cell(topic)),
    }
}

/// Checks that the manifest declares the topic. A misspelt topic would be parked without any
/// effect.
fn check_declared(settings: &RelaySettings, topic: &str) -> Result<(), CliError> {
    if settings.declares(topic) {
        return Ok(());
    }
    Err(not_declared(topic, &settings.topics).into())
}

fn not_declared(topic: &str, declared: &[TopicSettings]) -> Problem {
    let message = format!(
        "the manifest does not declare topic '{}'; it declares {}",
        cell(topic),
        quoted_names(declared)
    );
    Problem::new(ProblemClass::TopicNotDeclared, message)
}

fn quoted_names(topics: &[TopicSettings]) -> String {
    let quoted = topics.iter().map(|topic| format!("'{}'", topic.name));
    quoted.collect::<Vec<_>>().join(", ")
}

/// Keeps the keys that are parked for a rejected row. The others have no row to skip.
fn with_rejected_row(mut entries: Vec<ParkedEntry>) -> Vec<ParkedEntry> {
    let found = entries.len();
    entries.retain(ParkedEntry::has_rejected_row);
    note_parked_by_hand(found - entries.len());
    entries
}

/// Prints how many entries cannot be skipped, if there are any.
fn note_parked_by_hand(number: usize) {
    if number > 0 {
        note(&format!(
            "{number} parked by hand have no rejected row to skip: unpark them with `parked retry`"
        ));
    }
}

fn render_list(entries: &[ParkedEntry]) -> String {
    if entries.is_empty() {
        return "nothing is parked\n".to_owned();
    }
    table(
        [
            "PARKED",
            "CLASS",
            "ATTEMPTS",
            "TOPIC",
            "KEY",
            "OUTBOX_SEQ",
            "EVENT ID",
        ],
        entries.iter().map(cells),
    )
}

fn cells(entry: &ParkedEntry) -> [String; 7] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let key = entry.key.clone();
    [
        entry.parked_at.clone(),
        entry.class.clone(),
        or_dash(entry.attempts.map(|attempts| attempts.to_string())),
        entry.topic.clone(),
        key.unwrap_or_else(|| "(all keys)".to_owned()),
        or_dash(entry.outbox_seq.map(|id| id.to_string())),
        or_dash(entry.event_id.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: Option<&str>, outbox_seq: Option<i64>) -> ParkedEntry {
        ParkedEntry {
            topic: "files".to_owned(),
            key: key.map(str::to_owned),
            lane: None,
            class: "RecordRejected".to_owned(),
            attempts: outbox_seq.map(|_| 1),
            outbox_seq,
            event_id: None,
            first_failed_at: None,
            parked_at: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    #[test]
    fn contract_of_json() {
        let full = ParkedEntry {
            lane: Some(3),
            event_id: Some(uuid::Uuid::nil().to_string()),
            first_failed_at: Some("2026-01-01T00:00:00Z".to_owned()),
            ..entry(Some("f1"), Some(5))
        };
        crate::golden::compare(
            "cli-parked.json",
            &crate::cli::text::json(&[full, entry(None, None)]),
        );
        let changed =
            [ADD, Action::Retry.verb(), Action::Skip.verb()].map(|verb| Changed::new(&verb, 2));
        crate::golden::compare("cli-parked-changed.json", &crate::cli::text::json(&changed));
    }

    #[test]
    fn a_topic_differs_from_a_key_and_a_hostile_key_stays_in_its_line() {
        let text = render_list(&[entry(None, None), entry(Some("a\n\u{1b}[31m"), Some(5))]);
        assert_eq!(text.lines().count(), 3);
        assert!(
            text.contains("(all keys)") && text.contains("a\\n\\u{1b}[31m"),
            "{text}"
        );
    }

    #[test]
    fn only_keys_with_a_rejected_row_are_skipped() {
        let all = vec![
            entry(None, None),
            entry(Some("by hand"), None),
            entry(Some("f1"), Some(5)),
        ];
        let keys: Vec<_> = with_rejected_row(all)
            .into_iter()
            .map(|entry| entry.key)
            .collect();
        assert_eq!(keys, [Some("f1".to_owned())]);
    }
}
