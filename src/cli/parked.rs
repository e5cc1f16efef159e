//! `parked list|add|retry|skip`. Asking the database is IO, what is printed is pure.

use std::io::Write;

use crate::{
    cli::{
        CliError, Exit,
        args::{Adding, Asked, Changing, Listing, Parked},
        change::{Changed, SHOWN, Verb, progress},
        confirm::confirm,
        load, note, open,
        text::{cell, table},
        write,
    },
    outbox::admin::{AdminClient, AdminError, ParkedEntry, Role},
    report::{Problem, ProblemClass},
    settings::RelaySettings,
};

/// Progress is told each time so many are done. Each is a transaction of its own.
const STEP: usize = 500;

const ADD: Verb = Verb {
    infinitive: "park",
    done: "parked",
    noun: "topic or key",
    nouns: "topics or keys",
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Retry,
    Skip,
}

impl Action {
    fn verb(self) -> Verb {
        match self {
            Self::Retry => Verb {
                infinitive: "unpark",
                done: "unparked",
                noun: "topic or key",
                nouns: "topics or keys",
            },
            Self::Skip => Verb {
                infinitive: "skip",
                done: "skipped",
                noun: "refused row",
                nouns: "refused rows",
            },
        }
    }

    fn question(self, matched: u64) -> String {
        let those = self.verb().many(matched);
        match self {
            Self::Retry => format!("Let {those} flow again?"),
            Self::Skip => {
                format!("Move {those} to the dead letters, and let the rows behind flow?")
            }
        }
    }

    async fn take(self, desk: &AdminClient, entry: &ParkedEntry) -> Result<bool, AdminError> {
        match self {
            Self::Retry => desk.unpark(entry).await,
            Self::Skip => desk.skip(entry).await,
        }
    }
}

pub(super) async fn parked(command: Parked, out: &mut impl Write) -> Result<Exit, CliError> {
    match command {
        Parked::List(arguments) => list(arguments, out).await,
        Parked::Add(arguments) => add(arguments, out).await,
        Parked::Retry(arguments) => change(Action::Retry, arguments, out).await,
        Parked::Skip(arguments) => change(Action::Skip, arguments, out).await,
    }
}

async fn list(arguments: Listing, out: &mut impl Write) -> Result<Exit, CliError> {
    let Listing {
        asked: Asked { place, output },
        which,
        limit,
    } = arguments;
    let mut entries = open(place, Role::Relay)
        .await?
        .parked(&which.filter(Some(limit + 1)))
        .await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if entries.len() > limit {
        entries.truncate(limit);
        note("there are more: --limit shows them, conditions narrow them down");
    }
    write(out, output, &entries, |entries| listed(entries))?;
    Ok(Exit::Done)
}

async fn add(arguments: Adding, out: &mut impl Write) -> Result<Exit, CliError> {
    let Adding {
        asked: Asked { place, output },
        topic,
        key,
        asking,
    } = arguments;
    let (settings, secrets) = load(place)?;
    declared(&settings, &topic)?;
    let desk = AdminClient::open(
        &settings,
        &secrets,
        if asking.dry_run {
            Role::Relay
        } else {
            Role::Owner
        },
    )
    .await?;
    let mut changed = Changed::new(&ADD, 1);
    let what = key.as_ref().map_or_else(
        || format!("topic '{}'", cell(&topic)),
        |key| format!("key '{}' of topic '{}'", cell(key), cell(&topic)),
    );
    if asking.dry_run {
        changed.dry_run = true;
        write(out, output, &changed, |_| format!("would park {what}\n"))?;
        return Ok(Exit::Done);
    }
    if let Err(exit) = confirm(
        &asking,
        &format!("Park {what}? Its rows wait until `parked retry`."),
    )? {
        return Ok(exit);
    }
    changed.done = u64::from(desk.park(&topic, key.as_deref()).await?);
    let words = if changed.done == 1 {
        "parked"
    } else {
        "was parked already:"
    };
    write(out, output, &changed, |_| format!("{words} {what}\n"))?;
    Ok(Exit::Done)
}

/// A misspelt topic would be parked, and nothing would wait.
fn declared(settings: &RelaySettings, topic: &str) -> Result<(), CliError> {
    if settings
        .topics
        .iter()
        .any(|declared| declared.name == topic)
    {
        return Ok(());
    }
    let topics = settings
        .topics
        .iter()
        .map(|topic| format!("'{}'", topic.name))
        .collect::<Vec<_>>()
        .join(", ");
    Err(Problem::new(
        ProblemClass::TopicNotDeclared,
        format!(
            "the manifest declares no topic '{}', but {topics}",
            cell(topic)
        ),
    )
    .into())
}

async fn change(
    action: Action,
    arguments: Changing,
    out: &mut impl Write,
) -> Result<Exit, CliError> {
    let Changing {
        asked: Asked { place, output },
        which,
        limit,
        asking,
        ..
    } = arguments;
    let desk = open(
        place,
        if asking.dry_run {
            Role::Relay
        } else {
            Role::Owner
        },
    )
    .await?;
    let verb = action.verb();
    let entries = fitting(action, desk.parked(&which.filter(limit)).await?);
    let mut changed = Changed::new(&verb, entries.len());
    if entries.is_empty() {
        write(out, output, &changed, |_| String::new())?;
        note("nothing that is parked matches");
        return Ok(Exit::NothingMatched);
    }
    if asking.dry_run {
        changed.dry_run = true;
        write(out, output, &changed, |changed| {
            format!("{}{}", listed_in_short(&entries), changed.in_words(&verb))
        })?;
        return Ok(Exit::Done);
    }
    if let Err(exit) = confirm(&asking, &action.question(changed.matched))? {
        return Ok(exit);
    }
    for entries in entries.chunks(STEP) {
        for entry in entries {
            changed.done += u64::from(action.take(&desk, entry).await?);
        }
        progress(&verb, changed.done, changed.matched);
    }
    write(out, output, &changed, |changed| changed.in_words(&verb))?;
    Ok(Exit::Done)
}

/// Only keys behind a refused row have something to skip.
fn fitting(action: Action, entries: Vec<ParkedEntry>) -> Vec<ParkedEntry> {
    if action == Action::Retry {
        return entries;
    }
    let (fitting, others): (Vec<_>, Vec<_>) = entries
        .into_iter()
        .partition(|entry| entry.key.is_some() && entry.outbox_seq.is_some());
    if !others.is_empty() {
        note(&format!(
            "{} parked by hand have no refused row to skip: `parked retry` lets them flow again",
            others.len()
        ));
    }
    fitting
}

fn listed_in_short(entries: &[ParkedEntry]) -> String {
    let more = if entries.len() > SHOWN {
        format!("... and {} more\n", entries.len() - SHOWN)
    } else {
        String::new()
    };
    format!("{}{more}", listed(&entries[..entries.len().min(SHOWN)]))
}

fn listed(entries: &[ParkedEntry]) -> String {
    if entries.is_empty() {
        return "nothing is parked\n".to_owned();
    }
    let row = |entry: &ParkedEntry| {
        let ParkedEntry {
            parked_at,
            class,
            attempts,
            topic,
            key,
            outbox_seq,
            event_id,
            ..
        } = entry;
        let key = key.clone().unwrap_or_else(|| "(all keys)".to_owned());
        let number = |number: Option<i64>| {
            number.map_or_else(|| "-".to_owned(), |number| number.to_string())
        };
        let event_id = event_id.clone().unwrap_or_else(|| "-".to_owned());
        [
            parked_at.clone(),
            class.clone(),
            number(attempts.map(i64::from)),
            topic.clone(),
            key,
            number(*outbox_seq),
            event_id,
        ]
    };
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
        entries.iter().map(row),
    )
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
    fn a_topic_is_told_from_a_key_and_a_hostile_key_stays_in_its_line() {
        let text = listed(&[entry(None, None), entry(Some("a\n\u{1b}[31m"), Some(5))]);
        assert_eq!(text.lines().count(), 3);
        assert!(
            text.contains("(all keys)") && text.contains("a\\n\\u{1b}[31m"),
            "{text}"
        );
    }

    #[test]
    fn only_keys_behind_a_refused_row_are_skipped() {
        let all = || {
            vec![
                entry(None, None),
                entry(Some("by hand"), None),
                entry(Some("f1"), Some(5)),
            ]
        };
        let keys: Vec<_> = fitting(Action::Skip, all())
            .into_iter()
            .map(|entry| entry.key)
            .collect();
        assert_eq!(keys, [Some("f1".to_owned())]);
        assert_eq!(fitting(Action::Retry, all()).len(), 3);
    }
}
