//! `dead-letters list|show|requeue|discard`. Asking the database is IO, what is printed is pure.

use std::io::Write;

use crate::{
    cli::{
        CliError, Exit,
        args::{Asked, Changing, DeadLetters, Listing, Showing},
        change::{Changed, SHOWN, Verb, progress},
        confirm::confirm,
        note, open,
        text::{facts, line, lines, table},
        write,
    },
    outbox::admin::{AdminClient, AdminError, Contents, DeadLetter, DeadLetterId, Detail, Role},
};

/// Dead letters of one transaction: small enough that a stop loses nothing and waits for nothing.
const BATCH: usize = 500;

#[derive(Clone, Copy)]
enum Action {
    Requeue,
    Discard,
}

impl Action {
    fn verb(self) -> Verb {
        match self {
            Self::Requeue => Verb {
                infinitive: "requeue",
                done: "requeued",
                noun: "dead letter",
                nouns: "dead letters",
            },
            Self::Discard => Verb {
                infinitive: "discard",
                done: "discarded",
                noun: "dead letter",
                nouns: "dead letters",
            },
        }
    }

    fn question(self, matched: u64) -> String {
        let those = self.verb().many(matched);
        match self {
            Self::Requeue => format!("Requeue {those}? Each becomes the last row of its key."),
            Self::Discard => format!("Discard {those} for good? Nobody can bring them back."),
        }
    }

    async fn take(self, desk: &AdminClient, names: &[DeadLetterId]) -> Result<u64, AdminError> {
        match self {
            Self::Requeue => desk.requeue(names).await,
            Self::Discard => desk.discard(names).await,
        }
    }
}

pub(super) async fn dead_letters(
    command: DeadLetters,
    out: &mut impl Write,
) -> Result<Exit, CliError> {
    match command {
        DeadLetters::List(arguments) => list(arguments, out).await,
        DeadLetters::Show(arguments) => show(arguments, out).await,
        DeadLetters::Requeue(arguments) => change(Action::Requeue, arguments, out).await,
        DeadLetters::Discard(arguments) => change(Action::Discard, arguments, out).await,
    }
}

async fn list(arguments: Listing, out: &mut impl Write) -> Result<Exit, CliError> {
    let Listing {
        asked: Asked { place, output },
        which,
        limit,
    } = arguments;
    let mut letters = open(place, Role::Relay)
        .await?
        .letters(&which.filter(Some(limit + 1)), Detail::Metadata)
        .await?;
    cut(&mut letters, limit);
    write(out, output, &letters, |letters| listed(letters))?;
    Ok(Exit::Done)
}

async fn show(arguments: Showing, out: &mut impl Write) -> Result<Exit, CliError> {
    let Showing {
        listing:
            Listing {
                asked: Asked { place, output },
                which,
                limit,
            },
        show_payload,
    } = arguments;
    let detail = if show_payload {
        Detail::Contents
    } else {
        Detail::Metadata
    };
    let mut letters = open(place, Role::Relay)
        .await?
        .letters(&which.filter(Some(limit + 1)), detail)
        .await?;
    cut(&mut letters, limit);
    write(out, output, &letters, |letters| {
        letters.iter().map(shown).collect::<Vec<_>>().join("\n")
    })?;
    Ok(if letters.is_empty() {
        nothing_matches()
    } else {
        Exit::Done
    })
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
    // These and no others: what comes in meanwhile, such as one that was requeued and refused
    // again, is left alone.
    let names = desk.dead_letter_ids(&which.filter(limit)).await?;
    let verb = action.verb();
    let mut changed = Changed::new(&verb, names.len());
    if names.is_empty() {
        write(out, output, &changed, |_| String::new())?;
        return Ok(nothing_matches());
    }
    if asking.dry_run {
        let some = desk
            .letters(
                &which.filter(Some(SHOWN.min(names.len()) as u64)),
                Detail::Metadata,
            )
            .await?;
        changed.dry_run = true;
        write(out, output, &changed, |changed| {
            format!(
                "{}{}{}",
                listed(&some),
                more(names.len()),
                changed.in_words(&verb)
            )
        })?;
        return Ok(Exit::Done);
    }
    if let Err(exit) = confirm(&asking, &action.question(changed.matched))? {
        return Ok(exit);
    }
    for batch in names.chunks(BATCH) {
        changed.done += action.take(&desk, batch).await?;
        progress(&verb, changed.done, changed.matched);
    }
    write(out, output, &changed, |changed| changed.in_words(&verb))?;
    Ok(Exit::Done)
}

fn nothing_matches() -> Exit {
    note("no dead letter matches");
    Exit::NothingMatched
}

/// One more than was asked for was read, to know whether there is one.
fn cut(letters: &mut Vec<DeadLetter>, limit: u64) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if letters.len() > limit {
        letters.truncate(limit);
        note("there are more: --limit shows them, conditions narrow them down");
    }
}

fn more(matched: usize) -> String {
    if matched > SHOWN {
        format!("... and {} more\n", matched - SHOWN)
    } else {
        String::new()
    }
}

fn listed(letters: &[DeadLetter]) -> String {
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let row = |letter: &DeadLetter| {
        let DeadLetter {
            failed_at,
            class,
            attempts,
            topic,
            key,
            event_type,
            outbox_seq,
            event_id,
            ..
        } = letter;
        let (attempts, seq, event_id) = (
            attempts.to_string(),
            outbox_seq.to_string(),
            event_id.to_string(),
        );
        [
            failed_at.clone(),
            class.clone(),
            attempts,
            topic.clone(),
            key.clone(),
            event_type.clone(),
            seq,
            event_id,
        ]
    };
    table(
        [
            "FAILED",
            "CLASS",
            "ATTEMPTS",
            "TOPIC",
            "KEY",
            "EVENT TYPE",
            "OUTBOX_SEQ",
            "EVENT ID",
        ],
        letters.iter().map(row),
    )
}

fn shown(letter: &DeadLetter) -> String {
    let mut all = vec![
        ("event_id", letter.event_id.to_string()),
        (
            "outbox_seq",
            format!("{} (when it was refused)", letter.outbox_seq),
        ),
        ("topic", line(&letter.topic)),
        ("key", line(&letter.key)),
        ("event_type", line(&letter.event_type)),
        (
            "aggregate",
            format!(
                "{} {}",
                line(&letter.aggregate_type),
                line(&letter.aggregate_id)
            ),
        ),
        ("written", letter.created_at.clone()),
        (
            "refused",
            format!(
                "{}, first {}, last {}",
                times(letter.attempts),
                letter.first_failed_at,
                letter.failed_at
            ),
        ),
        ("class", line(&letter.class)),
        (
            "payload",
            letter.payload_bytes.map_or_else(
                || "none: a tombstone".to_owned(),
                |bytes| format!("{bytes} bytes"),
            ),
        ),
        ("headers", names(&letter.header_names)),
    ];
    match &letter.contents {
        None => facts(&all),
        Some(contents) => {
            all.pop();
            format!("{}{}", facts(&all), opened(contents))
        }
    }
}

fn opened(contents: &Contents) -> String {
    let payload = match contents {
        Contents {
            payload: Some(text),
            ..
        } => lines(text),
        Contents {
            payload_base64: Some(text),
            ..
        } => format!("base64: {text}"),
        _ => String::new(),
    };
    format!(
        "headers\n{}\npayload\n{payload}\n",
        line_of_json(&contents.headers)
    )
}

fn line_of_json(value: &serde_json::Value) -> String {
    lines(&value.to_string())
}

fn names(headers: &[String]) -> String {
    if headers.is_empty() {
        return "none".to_owned();
    }
    headers
        .iter()
        .map(|name| line(name))
        .collect::<Vec<_>>()
        .join(", ")
}

fn times(attempts: i32) -> String {
    if attempts == 1 {
        "once".to_owned()
    } else {
        format!("{attempts} times")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(key: &str) -> DeadLetter {
        DeadLetter {
            event_id: uuid::Uuid::nil(),
            outbox_seq: 7,
            topic: "files".to_owned(),
            key: key.to_owned(),
            lane: 3,
            class: "RecordRejected".to_owned(),
            attempts: 2,
            event_type: "Uploaded".to_owned(),
            aggregate_type: "file".to_owned(),
            aggregate_id: key.to_owned(),
            created_at: "2026-01-01T00:00:00Z".to_owned(),
            first_failed_at: "2026-01-01T00:00:01Z".to_owned(),
            failed_at: "2026-01-01T00:00:02Z".to_owned(),
            payload_bytes: Some(5),
            header_names: vec!["traceparent".to_owned()],
            contents: None,
        }
    }

    #[test]
    fn a_hostile_key_is_one_harmless_line_of_the_list() {
        let text = listed(&[letter("\u{1b}[2J\n\u{202e}"), letter(&"x".repeat(100_000))]);
        assert_eq!(text.lines().count(), 3);
        assert!(
            text.lines().all(|line| line.chars().count() < 250) && !text.contains('\u{1b}'),
            "{text}"
        );
    }

    #[test]
    fn contents_are_shown_only_when_they_were_asked_for() {
        let text = shown(&letter("f1"));
        assert!(
            text.contains("5 bytes") && text.contains("traceparent") && text.contains("2 times"),
            "{text}"
        );
        let headers = serde_json::json!({"traceparent": "00-1"});
        let contents = Contents {
            payload: Some("{\n\u{1b}}".to_owned()),
            payload_base64: None,
            headers,
        };
        let text = shown(&DeadLetter {
            contents: Some(contents),
            ..letter("f1")
        });
        assert!(
            text.ends_with("headers\n{\"traceparent\":\"00-1\"}\npayload\n{\n\\u{1b}}\n"),
            "{text}"
        );
    }

    #[test]
    fn contract_of_json() {
        let contents = |headers| Contents {
            payload: None,
            payload_base64: Some("AA==".to_owned()),
            headers,
        };
        let shown = DeadLetter {
            contents: Some(contents(serde_json::json!({"traceparent": "00-1"}))),
            ..letter("f1")
        };
        crate::golden::compare(
            "cli-dead-letters.json",
            &crate::cli::text::json(&[letter("f1"), shown]),
        );
        let changed = |action: Action| Changed::new(&action.verb(), 2);
        let both = [changed(Action::Requeue), changed(Action::Discard)];
        crate::golden::compare(
            "cli-dead-letters-changed.json",
            &crate::cli::text::json(&both),
        );
    }

    #[test]
    fn json_names_are_those_of_the_documentation() {
        let json = serde_json::to_value(letter("f1")).expect("plain data");
        assert_eq!(
            (json["eventId"].as_str(), json["outboxSeq"].as_i64()),
            (Some("00000000-0000-0000-0000-000000000000"), Some(7))
        );
        assert!(
            json.get("payload").is_none() && json.get("headers").is_none(),
            "{json}"
        );
    }
}
